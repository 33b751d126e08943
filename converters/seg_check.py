"""The gate behind the encoder: reads a Segmentation's file and proves it against the label map.

It shares no code with the encoder and does not use the library that wrote the file. Validators do
not see what matters most to viewers (dciodvfy accepts frames without source image or position), so
each of those is looked at here, frame by frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian, SegmentationStorage

from converters.headers import items_of
from converters.read_back import check_origin, read, require
from converters.volume import LabelMap, Layers, Segment

_Read = TypeVar("_Read")

_GROUPS: Final = Tag("PerFrameFunctionalGroupsSequence")
_POSITION_TOLERANCE_MM = 1e-4
_COSINE_TOLERANCE = 1e-3  # viewers tell planes apart from here on

LABEL_MAP_STORAGE: Final = UID("1.2.840.10008.5.1.4.1.1.66.7")
"""Label Map Segmentation Storage; pydicom's dictionary does not know it yet."""

_FIXED = {
    "Modality": "SEG",
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "PixelRepresentation": 0,
}
_SEGMENTATION = {"SOPClassUID": SegmentationStorage}
_BYTES = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
_BINARY = {
    **_SEGMENTATION,
    "SegmentationType": "BINARY",
    "BitsAllocated": 1,
    "BitsStored": 1,
    "HighBit": 0,
}
_FRACTIONAL = {**_SEGMENTATION, **_BYTES, "SegmentationType": "FRACTIONAL"}
_OCCUPANCY = {
    **_FRACTIONAL,
    "SegmentationFractionalType": "OCCUPANCY",
    "MaximumFractionalValue": 1,
}
_LABEL_MAP = {
    **_BYTES,
    "SOPClassUID": LABEL_MAP_STORAGE,
    "SegmentationType": "LABELMAP",
    "PixelPaddingValue": 0,
    "SegmentsOverlap": "NO",
}
_NOT_EMPTY = (
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "InstanceNumber",
    "ContentLabel",
    "ContentDate",
    "ContentTime",
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "LossyImageCompression",
    "DimensionIndexSequence",
    "DimensionOrganizationSequence",
)
_SEGMENT_NOT_EMPTY = (
    "SegmentAlgorithmType",
    "SegmentAlgorithmName",
    "SegmentationAlgorithmIdentificationSequence",
    "RecommendedDisplayCIELabValue",
    "TrackingID",
    "TrackingUID",
)


def is_binary(rows: int, columns: int) -> bool:
    """Say whether frames of one bit a voxel begin at whole bytes; viewers garble them otherwise."""
    return rows * columns % 8 == 0


def check_segmentation(
    path: Path, label_map: LabelMap, sources: Sequence[Dataset], frames: Sequence[int] = ()
) -> None:
    """Raise `ReadBackError` unless the file says exactly what the label map says.

    Parameters
    ----------
    path : Path
        A written Segmentation, BINARY or FRACTIONAL with the values 0 and 1.
    label_map : LabelMap
        What was encoded.
    sources : sequence of Dataset
        Headers of the source series in the order of the label map's slices.
    frames : sequence of int
        Number of each slice's frame within its instance; 0, or nothing at all, for classic ones.

    Raises
    ------
    ReadBackError
        `reason` names the first thing that differs, never a value.
    """
    seg = read(path)
    _check(seg, sources, {**_masks(sources[0]), "SegmentsOverlap": "NO"})
    _check_segments(seg.SegmentSequence, label_map.segments)
    require(np.array_equal(_reassembled(seg, sources, frames), label_map.labels), "labels")


def check_layers(
    path: Path, layers: Layers, sources: Sequence[Dataset], frames: Sequence[int] = ()
) -> None:
    """Raise `ReadBackError` unless the file says of each segment, by itself, what its layer says.

    Parameters
    ----------
    path : Path
        A written Segmentation whose segments may overlap.
    layers : Layers
        What was encoded.
    sources, frames
        As in `check_segmentation`.
    """
    seg, most = read(path), layers.most
    probability = {"SegmentationFractionalType": "PROBABILITY", "MaximumFractionalValue": most}
    form = _masks(sources[0]) if most == 1 else {**_FRACTIONAL, **probability}
    _check(seg, sources, {**form, "SegmentsOverlap": "YES"})
    _check_segments(seg.SegmentSequence, layers.segments)
    found = np.zeros_like(layers.values)
    for number, index, plane in _placed(seg, sources, frames, most):
        found[number - 1, index] = plane
    for segment, values, expected in zip(layers.segments, found, layers.values, strict=True):
        require(np.array_equal(values, expected), f"segment {segment.number}")


def check_label_map(
    path: Path, label_map: LabelMap, sources: Sequence[Dataset], frames: Sequence[int] = ()
) -> None:
    """Raise `ReadBackError` unless a Label Map Segmentation says what the label map says.

    Parameters
    ----------
    path : Path
        A written Label Map Segmentation; its first segment, number 0, is the background.
    label_map, sources, frames
        As in `check_segmentation`.
    """
    seg = read(path)
    _check(seg, sources, _LABEL_MAP)
    background, *segments = seg.SegmentSequence
    require(background.SegmentNumber == 0, "background")
    _check_segments(segments, label_map.segments)
    labels = np.zeros_like(label_map.labels)
    for _, index, plane in _placed(seg, sources, frames, len(segments)):
        labels[index] = plane
    require(np.array_equal(labels, label_map.labels), "labels")


def read_labels(
    path: Path, sources: Sequence[Dataset], frames: Sequence[int] = ()
) -> NDArray[np.uint8]:
    """Return the labels that a Segmentation of ours holds.

    Parameters
    ----------
    path : Path
        A written Segmentation, BINARY or FRACTIONAL with the values 0 and 1.
    sources : sequence of Dataset
        Headers of the source series in slice order.
    frames : sequence of int
        As in `check_segmentation`.

    Returns
    -------
    (slices, rows, columns) ndarray of uint8
        0 is background, any other value a segment number.

    Raises
    ------
    ReadBackError
        A frame has no place among the sources, or the pixel data are not what they should be.
    """
    return _reassembled(read(path), sources, frames)


def _masks(source: Dataset) -> Mapping[str, object]:
    return _BINARY if is_binary(source.Rows, source.Columns) else _OCCUPANCY


def _check(seg: Dataset, sources: Sequence[Dataset], form: Mapping[str, object]) -> None:
    """Check everything but segments and pixels."""
    require(seg.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian, "TransferSyntaxUID")
    require(seg.file_meta.MediaStorageSOPInstanceUID == seg.SOPInstanceUID, "SOPInstanceUID")
    check_origin(seg, sources[0], has_planes=True)
    for keyword, expected in {**_FIXED, **form}.items():
        require(seg.get(keyword) == expected, keyword)
    for keyword in _NOT_EMPTY:
        require(seg.get(keyword) not in (None, "", []), f"{keyword} is absent")
    require(seg.SeriesInstanceUID != sources[0].SeriesInstanceUID, "SeriesInstanceUID")
    _check_references(seg, sources)
    require(bool(seg.get("SegmentSequence")), "SegmentSequence")


def _check_references(seg: Dataset, sources: Sequence[Dataset]) -> None:
    """More than one referenced series makes viewers pick one at random."""
    series = seg.get("ReferencedSeriesSequence") or []
    require(len(series) == 1, "ReferencedSeriesSequence")
    require(series[0].SeriesInstanceUID == sources[0].SeriesInstanceUID, "referenced series")
    named = {one.ReferencedSOPInstanceUID for one in series[0].ReferencedInstanceSequence}
    require(named == {one.SOPInstanceUID for one in sources}, "ReferencedInstanceSequence")


def _check_segments(items: Sequence[Dataset], segments: tuple[Segment, ...]) -> None:
    require(len(items) == len(segments), "SegmentSequence")
    for item, segment in zip(items, segments, strict=True):
        require(item.SegmentNumber == segment.number, "SegmentNumber")
        require(item.SegmentLabel == segment.label, "SegmentLabel")
        for sequence, code in (
            (item.SegmentedPropertyCategoryCodeSequence, segment.category),
            (item.SegmentedPropertyTypeCodeSequence, segment.type_code),
        ):
            found = [(one.CodeValue, one.CodingSchemeDesignator) for one in sequence]
            require(found == [(code.value, code.scheme)], "segmented property")
        for keyword in _SEGMENT_NOT_EMPTY:
            require(item.get(keyword) not in (None, "", []), f"{keyword} is absent")


def _planes(seg: Dataset, most: int) -> NDArray[np.uint8]:
    """Return the frames, (frame, row, column); PS3.5 8.1.1: first pixel, lowest bit."""
    shape = (int(seg.NumberOfFrames), seg.Rows, seg.Columns)
    values = np.frombuffer(seg.PixelData, np.uint8)
    if seg.BitsAllocated == 1:
        values = np.unpackbits(values, bitorder="little")
    count = int(np.prod(shape))
    require(0 <= len(values) - count < 16, "length of PixelData")  # noqa: PLR2004 - padding
    require(values.max(initial=0) <= most and not values[count:].any(), "values of PixelData")
    return values[:count].reshape(shape)


def _placed(
    seg: Dataset, sources: Sequence[Dataset], frames: Sequence[int], most: int
) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
    """Yield each frame's segment (0 in a label map), slice and values, checked.

    Where it lies is what its own reference and its own position say together.
    """
    planes, groups = _planes(seg, most), items_of(seg, _GROUPS, instance=0)
    require(len(groups) == len(planes), "PerFrameFunctionalGroupsSequence")
    _check_shared(seg, sources)
    positions_mm = [np.array(one.ImagePositionPatient, np.float64) for one in sources]
    numbers = frames or [0] * len(sources)
    slice_of = {
        (str(one.SOPInstanceUID), number): index
        for index, (one, number) in enumerate(zip(sources, numbers, strict=True))
    }
    is_label_map = seg.SegmentationType == "LABELMAP"
    known = range(1) if is_label_map else range(1, len(seg.SegmentSequence) + 1)
    source_of, position_of, number_of = _once(_source_of), _once(_position_mm), _once(_number_of)
    seen: set[tuple[int, int]] = set()
    for plane, group in zip(planes, groups, strict=True):
        number = 0 if is_label_map else number_of(group, "SegmentIdentificationSequence")
        index = slice_of.get(source_of(group, "DerivationImageSequence"), -1)
        require(number in known, "ReferencedSegmentNumber")
        require(index >= 0, "source image of a frame")
        off_mm = np.abs(position_of(group, "PlanePositionSequence") - positions_mm[index])
        require(off_mm.max() <= _POSITION_TOLERANCE_MM, "ImagePositionPatient of a frame")
        require((number, index) not in seen, "a frame stands twice")
        seen.add((number, index))
        yield number, index, plane


def _once(reading: Callable[[Sequence[Dataset]], _Read]) -> Callable[[Dataset, str], _Read]:
    """Return how to read a sequence of a frame: one of bytes that were met before is known."""
    known: dict[bytes, _Read] = {}

    def _of(group: Dataset, keyword: str) -> _Read:
        raw: object = group.get_item(keyword)  # which its annotation does not say
        if not isinstance(raw, RawDataElement) or raw.value is None:
            return reading(group.get(keyword) or [])
        if raw.value not in known:
            known[raw.value] = reading(group.get(keyword) or [])
        return known[raw.value]

    return _of


def _reassembled(
    seg: Dataset, sources: Sequence[Dataset], frames: Sequence[int]
) -> NDArray[np.uint8]:
    """Return the labels as the frames' own references and positions put them together."""
    labels = np.zeros((len(sources), seg.Rows, seg.Columns), np.uint8)
    for number, index, plane in _placed(seg, sources, frames, 1):
        require(not (labels[index] * plane).any(), "segments overlap")
        labels[index] += plane * np.uint8(number)
    return labels


def _check_shared(seg: Dataset, sources: Sequence[Dataset]) -> None:
    shared = seg.SharedFunctionalGroupsSequence[0]
    require("PixelMeasuresSequence" in shared, "PixelMeasuresSequence")
    spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    require(np.allclose(spacing, sources[0].PixelSpacing, rtol=0, atol=1e-6), "PixelSpacing")
    require("PlaneOrientationSequence" in shared, "PlaneOrientationSequence")
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, np.float64)
    turns = np.array([one.ImageOrientationPatient for one in sources], np.float64) - cosines
    require(np.abs(turns).max() <= _COSINE_TOLERANCE, "ImageOrientationPatient of a frame")


def _number_of(items: Sequence[Dataset]) -> int:
    require(len(items) == 1, "segment of a frame")
    return int(items[0].ReferencedSegmentNumber)


def _source_of(derivations: Sequence[Dataset]) -> tuple[str, int]:
    """Return the source instance of a frame, and which of its frames; 0 in a classic one."""
    images = [one for item in derivations for one in item.get("SourceImageSequence") or []]
    require(len(images) == 1, "one source image for a frame")
    number = images[0].get("ReferencedFrameNumber") or 0
    require(isinstance(number, int), "one source frame for a frame")
    return str(images[0].ReferencedSOPInstanceUID), int(number)


def _position_mm(items: Sequence[Dataset]) -> NDArray[np.float64]:
    require(len(items) == 1, "PlanePositionSequence")
    return np.array(items[0].ImagePositionPatient, np.float64)
