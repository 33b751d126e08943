"""A label map becomes an RT Structure Set: closed planar contours on the slices of one series.

One ROI for each label and each region, outlined along the edges of its voxels (see
`converters.contours`), so that area and volume are those of the label map and
`converters.structure_set_check` can prove the file voxel by voxel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage
from pydicom.valuerep import DA, TM, DSfloat

from converters import contours, seg_sources
from converters.seg import SegIdentity, concept, dress, made_by
from converters.structure_set_check import Structure, check_structure_set
from converters.volume import MM3_PER_ML, LabelMap

__all__ = ["Structure", "build_structure_set", "check_structure_set"]

_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"  # Detached Study Management, what C.8.8.5 asks for
_OF_IMAGES = ("content_description", "content_label", "content_date", "content_time")
_LONG_STRING = 64
_LABEL = "AI research only"
_USE = "Drawn by an AI model. Research use only; not for treatment planning."
_DATA = Tag("ContourData")
_DECIMALS = 3  # micrometres


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Plane:
    """One slice of the source: its image, and how its pixels lie in the patient, LPS mm."""

    image: Dataset
    origin: NDArray[np.float64]
    axes: NDArray[np.float64]

    def points_mm(self, corners: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where (n, 2) rows and columns lie, (n, 3)."""
        return np.asarray(self.origin + corners @ self.axes, dtype=np.float64)


def build_structure_set(
    label_map: LabelMap,
    structures: Sequence[Structure],
    sources: Sequence[Dataset],
    identity: SegIdentity,
    frames: Sequence[int] = (),
) -> Dataset:
    """Return the RT Structure Set of a label map, with file meta information, ready to save.

    Parameters
    ----------
    label_map, sources, identity, frames
        See `converters.seg.build_segmentation`; tracking UIDs, dimensions and label of content are
        not used.
    structures : sequence of Structure
        The ROIs in their order, at least one. One without a voxel is there without contours.

    Raises
    ------
    GridMismatchError, MissingAttributeError
        As for a Segmentation.

    Notes
    -----
    RT ROI Interpreted Type stays empty: whether a finding is a target (GTV) is a physician's
    decision, and any other type would be wrong. Implicit VR: a contour of more than 64 KiB cannot
    be written in an explicit one.

    References
    ----------
    DICOM PS3.3 A.19 RT Structure Set IOD, C.8.8.5 Structure Set, C.8.8.6 ROI Contour, C.8.8.8 RT
    ROI Observations.
    """
    seg_sources.check_grid(label_map.grid, seg_sources.carriers_of(sources, label_map.grid, frames))
    created = seg_sources.on_clock_of(sources[0], identity.created_at)
    told = {name: one for name, one in made_by(identity, created).items() if name not in _OF_IMAGES}
    found = hd.SOPClass(
        study_instance_uid=sources[0].StudyInstanceUID,
        sop_class_uid=RTStructureSetStorage,
        modality="RTSTRUCT",
        **{**told, "transfer_syntax_uid": ImplicitVRLittleEndian},
    )
    found.OperatorsName = ""
    found.FrameOfReferenceUID = sources[0].FrameOfReferenceUID
    found.PositionReferenceIndicator = sources[0].get("PositionReferenceIndicator") or ""
    found.StructureSetLabel = _LABEL
    found.StructureSetName = identity.series_description
    found.StructureSetDescription = _USE
    found.StructureSetDate, found.StructureSetTime = DA(created.date()), TM(created.time())
    found.ApprovalStatus = "UNAPPROVED"
    found.ReferencedFrameOfReferenceSequence = [_frame_of_reference(sources, frames)]
    _add(found, label_map, structures, identity, _planes(sources, frames))
    dress(found, sources[0], identity, created)
    del found.BodyPartExamined  # of images only
    return found


def _planes(sources: Sequence[Dataset], frames: Sequence[int]) -> list[_Plane]:
    numbers = frames or [0] * len(sources)
    return [_plane(one, number) for one, number in zip(sources, numbers, strict=True)]


def _plane(source: Dataset, frame: int) -> _Plane:
    right, down = np.array(source.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    down_mm, right_mm = (float(part) for part in source.PixelSpacing)
    axes = [
        down / np.linalg.norm(down) * down_mm,  # cosines of four decimals miss length 1
        right / np.linalg.norm(right) * right_mm,
    ]
    origin = np.array(source.ImagePositionPatient, dtype=np.float64)
    return _Plane(image=_image(source, [frame]), origin=origin, axes=np.array(axes))


def _image(source: Dataset, frames: Sequence[int]) -> Dataset:
    """Return a reference to an instance, which names the frames unless it means all of them."""
    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    if any(frames) and len(frames) < source.get("NumberOfFrames", 1):
        item.ReferencedFrameNumber = sorted(frames)
    return item


def _frame_of_reference(sources: Sequence[Dataset], frames: Sequence[int]) -> Dataset:
    """Return the frame with every image of the series that contours may lie on."""
    of_instance: dict[str, list[int]] = {}
    for index, source in enumerate(sources):
        of_instance.setdefault(str(source.SOPInstanceUID), []).append(index)
    series = Dataset()
    series.SeriesInstanceUID = sources[0].SeriesInstanceUID
    series.ContourImageSequence = [
        _image(sources[many[0]], [frames[index] for index in many] if frames else ())
        for many in of_instance.values()
    ]
    study = Dataset()
    study.ReferencedSOPClassUID = _STUDY_CLASS
    study.ReferencedSOPInstanceUID = sources[0].StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID = sources[0].FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    return frame


def _add(
    found: Dataset,
    label_map: LabelMap,
    structures: Sequence[Structure],
    identity: SegIdentity,
    planes: Sequence[_Plane],
) -> None:
    """Give the object its ROIs: what they are, where they are, and what to make of them."""
    rois, outlined, observed = [], [], []
    for number, structure in enumerate(structures, start=1):
        mask = np.isin(label_map.labels, structure.numbers)
        volume_ml = np.count_nonzero(mask) * label_map.grid.voxel_volume_mm3 / MM3_PER_ML
        roi = _roi(structure, volume_ml, identity)
        roi.ROINumber = number
        roi.ReferencedFrameOfReferenceUID = found.FrameOfReferenceUID
        rois.append(roi)
        outlined.append(_contours(structure, number, mask, planes))
        observed.append(_observation(structure, number))
    found.StructureSetROISequence = rois
    found.ROIContourSequence = outlined
    found.RTROIObservationsSequence = observed


def _roi(structure: Structure, volume_ml: float, identity: SegIdentity) -> Dataset:
    item = Dataset()
    item.ROIName = structure.name
    if structure.description:
        item.ROIDescription = structure.description
    item.ROIVolume = DSfloat(volume_ml, auto_format=True)
    item.ROIGenerationAlgorithm = "AUTOMATIC"
    made_by_model = f"{identity.algorithm_name} {identity.algorithm_version}"
    item.ROIGenerationDescription = made_by_model[:_LONG_STRING]
    return item


def _contours(
    structure: Structure, number: int, mask: NDArray[np.bool_], planes: Sequence[_Plane]
) -> Dataset:
    item = Dataset()
    item.ReferencedROINumber = number
    item.ROIDisplayColor = list(structure.color_rgb)
    drawn = list(_drawn(mask, planes))
    for at, contour in enumerate(drawn, start=1):
        contour.ContourNumber = at
    if drawn:
        item.ContourSequence = drawn
    return item


def _drawn(mask: NDArray[np.bool_], planes: Sequence[_Plane]) -> Iterator[Dataset]:
    for index in np.flatnonzero(mask.any(axis=(1, 2))).tolist():
        for corners in contours.outlines(mask[index]):
            points = planes[index].points_mm(corners)
            item = Dataset()
            item.ContourImageSequence = [planes[index].image]
            item.ContourGeometricType = "CLOSED_PLANAR"
            item.NumberOfContourPoints = len(points)
            item[_DATA] = DataElement(
                _DATA,
                "DS",
                [f"{part:.{_DECIMALS}f}" for part in points.ravel()],
                already_converted=True,  # the library would look at every number again
            )
            yield item


def _observation(structure: Structure, number: int) -> Dataset:
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = number
    item.ROIObservationLabel = _LABEL
    item.ROIObservationDescription = _USE
    item.RTROIIdentificationCodeSequence = [
        hd.sr.CodedConcept.from_code(concept(structure.type_code))
    ]
    item.RTROIInterpretedType = ""
    item.ROIInterpreter = ""
    return item
