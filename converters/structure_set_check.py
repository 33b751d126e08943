"""The gate behind RT Structure Sets: reads the file and draws its contours into voxels again.

It shares no code with the encoder. Validators do not look at contours at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage

from converters.read_back import check_origin, read, require
from converters.volume import Code, LabelMap

_OFF_PLANE_MM = 0.01  # planning systems take a contour for planar up to here
_FIXED = {
    "SOPClassUID": RTStructureSetStorage,
    "Modality": "RTSTRUCT",
    "ApprovalStatus": "UNAPPROVED",
}
_Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """One ROI: labels taken together, and what they are called.

    Parameters
    ----------
    name : str
        At most 64 characters.
    numbers : tuple of int
        Labels that belong to it.
    type_code : Code
        What it is.
    color_rgb : tuple of int
        Recommended display colour, sRGB 0 to 255.
    description : str
        At most 1024 characters.
    """

    name: str
    numbers: tuple[int, ...]
    type_code: Code
    color_rgb: tuple[int, int, int]
    description: str = ""


def check_structure_set(
    path: Path,
    label_map: LabelMap,
    structures: Sequence[Structure],
    sources: Sequence[Dataset],
    frames: Sequence[int] = (),
) -> None:
    """Raise `ReadBackError` unless the contours of a file enclose exactly the labelled voxels.

    Parameters
    ----------
    path : Path
        A written RT Structure Set.
    label_map, structures
        What was encoded.
    sources, frames
        As in `converters.seg_check.check_segmentation`.

    Notes
    -----
    Contours of one ROI on one slice are combined by exclusive or, each by the even-odd rule; a
    union would give the same voxels, as ours do not overlap.
    """
    found = read(path)
    require(found.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian, "TransferSyntaxUID")
    check_origin(found, sources[0])
    for keyword, expected in _FIXED.items():
        require(found.get(keyword) == expected, keyword)
    _check_references(found, sources)
    numbers = frames or [0] * len(sources)
    slice_of = {
        (str(one.SOPInstanceUID), _named(one, number)): index
        for index, (one, number) in enumerate(zip(sources, numbers, strict=True))
    }
    rois = [found.get(f"{name}Sequence") or [] for name in ("StructureSetROI", "ROIContour")]
    require([len(items) for items in rois] == [len(structures)] * 2, "number of ROIs")
    for roi, drawn, structure in zip(*rois, structures, strict=True):
        require(roi.ROIName == structure.name, "ROIName")
        require(roi.ROIGenerationAlgorithm == "AUTOMATIC", "ROIGenerationAlgorithm")
        require(roi.ReferencedFrameOfReferenceUID == sources[0].FrameOfReferenceUID, "ROI frame")
        require(drawn.ReferencedROINumber == roi.ROINumber, "ReferencedROINumber")
        masks = _masks(drawn, slice_of, sources)
        for index, labels in enumerate(label_map.labels):
            expected_mask = np.isin(labels, structure.numbers)
            is_equal = np.array_equal(masks.get(index, np.zeros_like(expected_mask)), expected_mask)
            require(is_equal, "voxels within the contours")


def _named(source: Dataset, frame: int) -> int:
    """Return the frame number that a reference to a slice has: none where it is the only one."""
    return frame if source.get("NumberOfFrames", 1) > 1 else 0


def _check_references(found: Dataset, sources: Sequence[Dataset]) -> None:
    frames = found.get("ReferencedFrameOfReferenceSequence") or []
    require(len(frames) == 1, "ReferencedFrameOfReferenceSequence")
    require(frames[0].FrameOfReferenceUID == sources[0].FrameOfReferenceUID, "frame of reference")
    (study,) = frames[0].RTReferencedStudySequence
    require(study.ReferencedSOPInstanceUID == sources[0].StudyInstanceUID, "referenced study")
    (series,) = study.RTReferencedSeriesSequence
    require(series.SeriesInstanceUID == sources[0].SeriesInstanceUID, "referenced series")
    named = {one.ReferencedSOPInstanceUID for one in series.ContourImageSequence}
    require(named == {one.SOPInstanceUID for one in sources}, "referenced images")


def _masks(
    drawn: Dataset, slice_of: Mapping[tuple[str, int], int], sources: Sequence[Dataset]
) -> dict[int, _Mask]:
    """Return what the contours of one ROI enclose, by slice."""
    masks: dict[int, _Mask] = {}
    for contour in drawn.get("ContourSequence") or []:
        require(contour.ContourGeometricType == "CLOSED_PLANAR", "ContourGeometricType")
        images = contour.get("ContourImageSequence") or []
        require(len(images) == 1, "one image for a contour")
        key = (
            str(images[0].ReferencedSOPInstanceUID),
            int(images[0].get("ReferencedFrameNumber", 0)),
        )
        require(key in slice_of, "image of a contour")
        index = slice_of[key]
        numbers = contour.get_item("ContourData").value.split(b"\\")  # as they stand in the file
        points = np.array(numbers, dtype=np.float64).reshape(-1, 3)
        require(len(points) == contour.NumberOfContourPoints, "NumberOfContourPoints")
        inside = _inside(_pixels(points, sources[index]), sources[index])
        masks[index] = masks[index] ^ inside if index in masks else inside
    return masks


def _pixels(points_mm: NDArray[np.float64], source: Dataset) -> NDArray[np.float64]:
    """Return rows and columns of points in the patient, (n, 2); they have to lie on the slice."""
    right, down = np.array(source.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    offsets = points_mm - np.array(source.ImagePositionPatient, dtype=np.float64)
    normal = np.cross(right, down)
    away_mm = np.abs(offsets @ normal) / np.linalg.norm(normal)
    require(away_mm.max(initial=0.0) <= _OFF_PLANE_MM, "plane of a contour")
    along = np.stack(
        [offsets @ down / np.linalg.norm(down), offsets @ right / np.linalg.norm(right)], axis=1
    )
    return np.asarray(along / np.array(source.PixelSpacing, dtype=np.float64), dtype=np.float64)


def _inside(corners: NDArray[np.float64], source: Dataset) -> _Mask:
    """Return which voxel centres lie inside a polygon, by the even-odd rule.

    Each edge is crossed by the rows whose centres it passes; right of an odd number of crossings
    is inside.
    """
    crossings = np.zeros((source.Rows, source.Columns + 1), dtype=np.int32)
    for (row, column), (to_row, to_column) in zip(
        corners, np.roll(corners, -1, axis=0), strict=True
    ):
        first, last = np.ceil(sorted((row, to_row))).astype(int)
        if first == last:
            continue
        rows = np.arange(first, last)
        columns = column + (rows - row) / (to_row - row) * (to_column - column)
        starts = np.clip(np.ceil(columns), 0, source.Columns).astype(int)
        require(first >= 0 and last <= source.Rows, "contour outside the image")
        np.add.at(crossings, (rows, starts), 1)
    return np.asarray(np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1)
