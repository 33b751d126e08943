"""A label map becomes a DICOM Segmentation on the grid of one source series.

The form is the one that viewers, archives and validators were found to agree on: BINARY, Explicit
VR Little Endian, one multi-segment instance, every frame tied to its one source image, exactly one
referenced series. `converters.seg_check` proves the written file; `converters.seg_forms` has the
forms that a site may ask for besides.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import highdicom as hd
from highdicom import _standard_utils
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as CodedEntry
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DA, TM

from converters import seg_sources
from converters.seg_check import check_segmentation, is_binary
from converters.volume import Code, LabelMap, Layers, Segment

__all__ = ["SegIdentity", "build_segmentation", "check_segmentation"]


def _remembering(asked: Callable[..., bool]) -> Callable[..., bool]:
    """Return highdicom's look into its tables with the answers kept.

    It asks for every slice anew whether its SOP class has frames: a sixth of the time of encoding.
    """
    kept = functools.cache(asked)

    def _is_attribute_in_iod(
        attribute: str, sop_class_uid: str, exclude_path_elements: Sequence[str] | None = None
    ) -> bool:
        if exclude_path_elements is None:
            return kept(attribute, sop_class_uid)
        return asked(attribute, sop_class_uid, exclude_path_elements)

    return _is_attribute_in_iod


_standard_utils.is_attribute_in_iod = _remembering(_standard_utils.is_attribute_in_iod)

_LONG_STRING = re.compile(r"[^\\\x00-\x1f]{1,64}")  # LO, PS3.5 6.2
_PRIVATE_AND_FRAMES = 0x00410000  # first tag after what says of whom, when and by what
_CODE_STRING = re.compile(r"[A-Z0-9_ ]{1,16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SegIdentity:
    """Who the object is and who made it; the label map and the sources give the rest.

    Parameters
    ----------
    sop_instance_uid, series_instance_uid, dimension_organization_uid : str
        Given, never drawn, so that the same case gives the same bytes.
    tracking_uids : mapping of int to str
        Tracking UID of every segment, by segment number.
    tracking_names : mapping of int to str
        What the Tracking ID ends in, by segment number; the number itself where nothing is said.
    series_number : int
        At least 1.
    series_description, content_description : str
        At most 64 characters; what people see in their viewer.
    algorithm_name, algorithm_version : str
        Which model.
    device_serial_number : str
        Of this software as equipment; required by the Enhanced General Equipment module.
    software_versions : tuple of str
        Of this software.
    created_at : datetime
        Aware; stands in every date and time of the object that is not the source's.
    segment_descriptions : mapping of int to str
        Segment Description by segment number; may be partial.
    content_label : str
        At most 16 capitals, digits and underscores.
    """

    sop_instance_uid: str
    series_instance_uid: str
    dimension_organization_uid: str
    tracking_uids: Mapping[int, str]
    series_number: int
    series_description: str
    content_description: str
    algorithm_name: str
    algorithm_version: str
    device_serial_number: str
    software_versions: tuple[str, ...]
    created_at: datetime
    segment_descriptions: Mapping[int, str] = field(default_factory=dict)
    tracking_names: Mapping[int, str] = field(default_factory=dict)
    content_label: str = "TUMOUR_SEG"
    manufacturer: str = "NeuroSeg Node"
    model_name: str = "NeuroSeg Node"

    def __post_init__(self) -> None:
        texts = {
            "series_description": self.series_description,
            "content_description": self.content_description,
            "algorithm_name": self.algorithm_name,
            "algorithm_version": self.algorithm_version,
            "device_serial_number": self.device_serial_number,
            "manufacturer": self.manufacturer,
            "model_name": self.model_name,
            **{f"software_versions[{i}]": text for i, text in enumerate(self.software_versions)},
        }
        for name, text in texts.items():
            if not _LONG_STRING.fullmatch(text):
                raise ValueError(f"{name} is not 1 to 64 characters without backslash")
        if not _CODE_STRING.fullmatch(self.content_label):
            raise ValueError("content_label is not 1 to 16 capitals, digits and underscores")
        if self.created_at.tzinfo is None:
            raise ValueError("created_at has no time zone")


def build_segmentation(
    label_map: LabelMap,
    sources: Sequence[Dataset],
    identity: SegIdentity,
    frames: Sequence[int] = (),
) -> Dataset:
    """Return the Segmentation of a label map, with file meta information, ready to save.

    Parameters
    ----------
    label_map : LabelMap
        On the native grid of the sources. Without any labelled voxel every frame is written, since
        an object without frames does not exist; the content description should say so.
    sources : sequence of Dataset
        Headers of one series in the order of the label map's slices; not changed.
    identity : SegIdentity
        With a tracking UID for every segment.
    frames : sequence of int
        Number of each slice's frame within its instance, from 1 (`converters.series.Stack`);
        0, or nothing at all, for classic instances.

    Raises
    ------
    GridMismatchError
        The label map does not lie on the grid of the sources.
    MissingAttributeError
        A source lacks an attribute that places or names it.

    Notes
    -----
    Where Rows x Columns is no multiple of 8, bits of one frame share a byte with the next and OHIF
    shows stripes; the object is then FRACTIONAL with the values 0 and 1, a byte each.

    References
    ----------
    DICOM PS3.3 A.51 Segmentation IOD, C.8.20 Segmentation.
    """
    _, rows, columns = label_map.grid.shape
    pixels = Pixels(
        values=label_map.labels,
        form=masks_form(rows, columns),
        has_any=bool(label_map.labels.any()),
    )
    return encode(pixels, label_map, sources, identity, frames)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pixels:
    """What is encoded, as highdicom takes it; `most` is the Maximum Fractional Value."""

    values: NDArray[Any]
    form: SegmentationTypeValues
    has_any: bool
    fractional: str = "OCCUPANCY"
    most: int = 1


def masks_form(rows: int, columns: int) -> SegmentationTypeValues:
    """Return the form of masks: bits, or bytes where a frame would end in the middle of one."""
    is_bits = is_binary(rows, columns)
    return SegmentationTypeValues.BINARY if is_bits else SegmentationTypeValues.FRACTIONAL


def encode(
    pixels: Pixels,
    described: LabelMap | Layers,
    sources: Sequence[Dataset],
    identity: SegIdentity,
    frames: Sequence[int],
) -> Dataset:
    """Return the Segmentation of pixels whose grid and segments are those of `described`."""
    carriers = seg_sources.carriers_of(sources, described.grid, frames)
    seg_sources.check_grid(described.grid, carriers)
    created = seg_sources.on_clock_of(sources[0], identity.created_at)
    seg = hd.seg.Segmentation(
        source_images=carriers,
        pixel_array=pixels.values,
        segmentation_type=pixels.form,
        segment_descriptions=[
            _described(segment, identity, described.model_id) for segment in described.segments
        ],
        fractional_type=pixels.fractional,
        max_fractional_value=pixels.most,
        omit_empty_frames=pixels.has_any,
        **made_by(identity, created),
    )
    seg_sources.point_at_frames(seg, sources, frames)
    _pad_with_zero(seg)
    dress(seg, sources[0], identity, created)
    return seg


def dress(derived: hd.SOPClass, first: Dataset, identity: SegIdentity, created: datetime) -> None:
    """Give a derived object, in place, its source's patient and study, and its own identity.

    What highdicom draws or reads from the clock is replaced, so that the bytes repeat.
    """
    own_text = seg_sources.text_of(derived)
    source = copy.deepcopy(first[:_PRIVATE_AND_FRAMES])
    source.decode()  # text still raw would be written in its old bytes, whatever we declare
    derived.copy_patient_and_study_information(source)
    derived.BodyPartExamined = seg_sources.usable(source, "BodyPartExamined") or "BRAIN"
    _sign(derived, source, identity, created)
    seg_sources.declare_character_set(derived, source, own_text)


def made_by(identity: SegIdentity, created: datetime) -> dict[str, Any]:
    """Return what highdicom is told of every derived object: who it is, who made it, and when."""
    return {
        "series_instance_uid": identity.series_instance_uid,
        "series_number": identity.series_number,
        "sop_instance_uid": identity.sop_instance_uid,
        "instance_number": 1,
        "manufacturer": identity.manufacturer,
        "manufacturer_model_name": identity.model_name,
        "software_versions": "",  # pydicom takes no tuple here; `_sign` sets them
        "device_serial_number": identity.device_serial_number,
        "content_description": identity.content_description,
        "content_label": identity.content_label,
        "transfer_syntax_uid": ExplicitVRLittleEndian,
        "series_description": identity.series_description,
        "content_date": created.date(),
        "content_time": created.time(),
        "series_date": created.date(),
        "series_time": created.time(),
    }


def _pad_with_zero(seg: Dataset) -> None:
    """Replace the byte that fills Pixel Data to an even length: highdicom writes the digit 0."""
    used = seg.NumberOfFrames * seg.Rows * seg.Columns * seg.BitsAllocated // 8
    seg.PixelData = seg.PixelData[:used].ljust(len(seg.PixelData), b"\0")


def concept(code: Code) -> CodedEntry:
    """Return a code as highdicom takes it."""
    return CodedEntry(code.value, code.scheme, code.meaning)


def _described(segment: Segment, identity: SegIdentity, model_id: str) -> SegmentDescription:
    described = SegmentDescription(
        segment_number=segment.number,
        segment_label=segment.label,
        segmented_property_category=concept(segment.category),
        segmented_property_type=concept(segment.type_code),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=identity.algorithm_name,
            version=identity.algorithm_version,
            family=codes.DCM.ArtificialIntelligence,
            source=identity.manufacturer,
        ),
        tracking_uid=identity.tracking_uids[segment.number],
        tracking_id=f"{model_id}/{identity.tracking_names.get(segment.number, segment.number)}",
        anatomic_regions=[codes.SCT.Brain],
        display_color=CIELabColor.from_rgb(*segment.color_rgb),
    )
    if segment.number in identity.segment_descriptions:
        described.SegmentDescription = identity.segment_descriptions[segment.number]
    return described


def _sign(seg: Dataset, source: Dataset, identity: SegIdentity, created: datetime) -> None:
    for keyword in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in seg.get(keyword, ()):
            item.DimensionOrganizationUID = identity.dimension_organization_uid
    seg.InstanceCreationDate, seg.InstanceCreationTime = DA(created.date()), TM(created.time())
    if "TimezoneOffsetFromUTC" in source:
        seg.TimezoneOffsetFromUTC = source.TimezoneOffsetFromUTC
    seg.SoftwareVersions = list(identity.software_versions)
    library = seg.get("ContributingEquipmentSequence", [])[-1:]
    for one in library:
        one.ContributionDateTime = created.strftime("%Y%m%d%H%M%S.%f%z")
    seg.ContributingEquipmentSequence = [*seg_sources.scanners_of(source), *library]
