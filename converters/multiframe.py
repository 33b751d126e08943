"""Multi-frame instances to one header per slice, with the keywords of classic MR at the top.

Enhanced MR says once what all frames share and for each frame what is its own, in groups of
elements. Here they are lifted out of their sequence items, so that whoever reads a header need not
know which kind of instance it came from.

References
----------
DICOM PS3.3 C.7.6.16 Multi-frame Functional Groups, A.36 Enhanced MR, A.71 Legacy Converted
Enhanced MR, C.7.6.16.1.3 Concatenations.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.uid import RawDataStorage

from converters.attributes import is_present, optional_number, optional_whole_number, texts
from converters.errors import ConcatenationIncompleteError, MosaicError, MultiFrameError
from converters.headers import Elements, items_of

_FRAME_COUNT: Final = Tag("NumberOfFrames")
_SHARED: Final = Tag("SharedFunctionalGroupsSequence")
_PER_FRAME: Final = Tag("PerFrameFunctionalGroupsSequence")
_IMAGE_TYPE: Final = Tag("ImageType")
_SOP_CLASS: Final = Tag("SOPClassUID")
_CONCATENATION: Final = Tag("ConcatenationUID")
_CONCATENATION_TOTAL: Final = Tag("InConcatenationTotalNumber")

_KEPT: Final = frozenset(  # their items say something of other objects, or there may be several
    Tag(keyword)
    for keyword in (
        "ReferencedImageSequence",
        "DerivationImageSequence",
        "ConversionSourceAttributesSequence",
        "RealWorldValueMappingSequence",
    )
)
_UNASSIGNED: Final = (  # what a converter found no group for; gives way to every group
    Tag("UnassignedSharedConvertedAttributesSequence"),
    Tag("UnassignedPerFrameConvertedAttributesSequence"),
)
_CLASSIC_NAMES: Final = tuple(
    (Tag(enhanced), Tag(classic), representation)
    for enhanced, classic, representation in (
        ("FrameType", "ImageType", "CS"),
        ("EffectiveEchoTime", "EchoTime", "DS"),
        ("InversionTimes", "InversionTime", "DS"),
        ("FrameAcquisitionNumber", "AcquisitionNumber", "IS"),
        ("FrameAcquisitionDateTime", "AcquisitionDateTime", "DT"),
        ("TemporalPositionIndex", "TemporalPositionIdentifier", "IS"),
    )
)
_BINARY: Final = {"FD": "d", "FL": "f", "UL": "L", "SL": "l", "US": "H", "SS": "h"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spread:
    """The slices of a series, in the order in which instances and their frames came.

    Parameters
    ----------
    headers : tuple of Dataset
        One per slice, classic keywords at the top level.
    files : tuple of Path
        The instance of each slice.
    frames : tuple of int
        Number of each slice's frame within its file, from 1; 0 in a classic instance.
    """

    headers: tuple[Dataset, ...]
    files: tuple[Path, ...]
    frames: tuple[int, ...]


def spread(headers: Sequence[Dataset], files: Sequence[Path]) -> Spread:
    """Return the slices of a series; raw data among the images are left out.

    Raises
    ------
    MosaicError
        Slices are tiles of one plane.
    MultiFrameError
        An instance does not describe each of its frames.
    ConcatenationIncompleteError
        An instance that was split for sending is not there whole.
    HeaderUnreadableError
        A description is damaged.
    """
    _check_concatenations(headers)
    is_image = [RawDataStorage not in texts(header, _SOP_CLASS) for header in headers]
    slices = [
        (header, file, frame)
        for instance, (whole, file) in enumerate(zip(headers, files, strict=True))
        if is_image[instance] or not any(is_image)
        for frame, header in _frames_of(whole, instance)
    ]
    return Spread(
        headers=tuple(header for header, _, _ in slices),
        files=tuple(file for _, file, _ in slices),
        frames=tuple(frame for _, _, frame in slices),
    )


def _check_concatenations(headers: Sequence[Dataset]) -> None:
    found: dict[tuple[str, ...], list[int]] = {}
    for header in headers:
        if is_present(header, _CONCATENATION):
            total = optional_whole_number(header, _CONCATENATION_TOTAL) or 0
            found.setdefault(texts(header, _CONCATENATION), []).append(total)
    for totals in found.values():
        if len(totals) < max(totals):
            raise ConcatenationIncompleteError(found=len(totals), total=max(totals))


def _frames_of(header: Dataset, instance: int) -> list[tuple[int, Dataset]]:
    """Return the number and the header of each slice in an instance."""
    if "MOSAIC" in texts(header, _IMAGE_TYPE):
        raise MosaicError(instance=instance)
    frame_count = optional_number(header, _FRAME_COUNT) or 0
    if frame_count <= 1 and not is_present(header, _PER_FRAME):
        return [(0, header)]
    groups = items_of(header, _PER_FRAME, instance=instance)
    if frame_count != len(groups):
        raise MultiFrameError(
            instance=instance, frame_count=int(frame_count), described=len(groups)
        )
    common = {
        tag: element
        for tag, element in _elements_of(header).items()
        if tag not in (_SHARED, _PER_FRAME)
    }
    for shared in items_of(header, _SHARED, instance=instance)[:1]:
        common.update(_lifted(shared, instance))
    return [
        (number, _flat(header, {**common, **_lifted(group, instance)}))
        for number, group in enumerate(groups, start=1)
    ]


def _elements_of(ds: Dataset) -> Elements:
    """Return the elements of a data set as they stand; pydicom converts what it hands out."""
    return {
        tag: cast("DataElement | RawDataElement", ds.get_item(tag, keep_deferred=True))
        for tag in ds.keys()  # noqa: SIM118 - elements are converted when a data set is iterated
    }


def _lifted(groups: Dataset, instance: int) -> Elements:
    """Return the elements of all standard functional groups, in one level."""
    lifted: Elements = {}
    standard = [one for one in _elements_of(groups).items() if not one[0].is_private]
    for tag, group in sorted(standard, key=lambda one: one[0] not in _UNASSIGNED):
        if tag in _KEPT:
            lifted[tag] = group
            continue
        for item in items_of(groups, tag, instance=instance)[:1]:
            for inner, element in _elements_of(item).items():
                lifted[inner] = _readable(element)
    return lifted


def _readable(element: DataElement | RawDataElement) -> DataElement | RawDataElement:
    """Return a binary number as a number: raw bytes are taken for text elsewhere."""
    if not isinstance(element, RawDataElement) or not isinstance(element.value, bytes):
        return element
    known = dictionary_VR(element.tag) if dictionary_has_tag(element.tag) else None
    representation = element.VR or known
    code = _BINARY.get(representation or "")
    if code is None:
        return element
    order = "<" if element.is_little_endian else ">"
    count, rest = divmod(len(element.value), struct.calcsize(order + code))
    if rest or not count:
        return element
    values = struct.unpack(f"{order}{count}{code}", element.value)
    return _element(element.tag, str(representation), values[0] if count == 1 else list(values))


def _element(tag: BaseTag, representation: str, value: object) -> DataElement:
    """Return an element; pydicom would quote a value that it finds odd in a warning."""
    return DataElement(tag, representation, value, already_converted=True)


def _flat(header: Dataset, elements: Elements) -> Dataset:
    for enhanced, classic, representation in _CLASSIC_NAMES:
        element = elements.get(enhanced)
        if element is not None and (classic not in elements or classic == _IMAGE_TYPE):
            elements[classic] = _renamed(element, classic, representation)
    flat = Dataset(elements)
    implicit, little = header.original_encoding
    flat.set_original_encoding(implicit, little, header.original_character_set)
    if hasattr(header, "file_meta"):
        flat.file_meta = header.file_meta
    return flat


def _renamed(
    element: DataElement | RawDataElement, tag: BaseTag, representation: str
) -> DataElement | RawDataElement:
    """Return an element under its classic name; of many inversion times the first."""
    if isinstance(element, RawDataElement):
        return element._replace(tag=tag, VR=representation)
    value: object = element.value
    if isinstance(value, list | MultiValue) and representation == "DS":
        value = value[0] if value else None
    return _element(tag, representation, value)
