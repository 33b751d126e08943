"""What a Segmentation takes over from its source series, and in which form.

Geometry and references go to the encoder in carriers of their own; patient, study and equipment
are copied as they stand, in a character set that holds them.
"""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import charset
from pydicom.config import RAISE
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sr.codedict import codes
from pydicom.uid import MRImageStorage
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR, DSfloat, validate_value

from converters.errors import GridMismatchError, MissingAttributeError
from converters.volume import Grid

_UTC_OFFSET = re.compile(r"([+-])(\d\d)(\d\d)")
# The stacking gate lets a slice lie 0.1 mm off the even grid; half the finest voxel is 0.15 mm.
_TOLERANCE_MM = 0.12

_REQUIRED = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "Rows",
    "Columns",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
)
_WANTED = (
    "SliceThickness",
    "PositionReferenceIndicator",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
PATIENT_AND_STUDY = (  # type 2 in the Patient and General Study modules
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
NOBODY = Dataset()
"""The same attributes without a value: the patient is copied from the source afterwards."""
for _keyword in PATIENT_AND_STUDY:
    setattr(NOBODY, _keyword, "")
_ACQUISITION_EQUIPMENT = (
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "StationName",
    "InstitutionName",
    "InstitutionalDepartmentName",
)
_KEPT_CHARACTER_SETS = (  # one table each: no escape sequences, so a Python codec is exact
    "ISO_IR 100",
    "ISO_IR 101",
    "ISO_IR 109",
    "ISO_IR 110",
    "ISO_IR 126",
    "ISO_IR 127",
    "ISO_IR 138",
    "ISO_IR 144",
    "ISO_IR 148",
    "ISO_IR 166",
    "ISO_IR 192",
    "GB18030",
)
_UNICODE = "ISO_IR 192"


def carriers_of(
    sources: Sequence[Dataset], grid: Grid, frames: Sequence[int] = ()
) -> list[Dataset]:
    """Return what highdicom needs of the sources, free of what it would stumble over.

    It refuses unusual birth dates and sexes, and orientations that differ in the last digit; it
    believes any Spacing Between Slices. Patient and study are copied from the source afterwards.

    It takes all frames of one multi-frame instance or none, whereas a volume may be some frames of
    several. Frames therefore go in as classic images of their own; `point_at_frames` says
    afterwards what they are.
    """
    seen: dict[tuple[object, ...], DataElement] = {}
    carriers = [_carrier(source, index, seen) for index, source in enumerate(sources)]
    if any(frames):
        for index, one in enumerate(carriers):
            one.add_new("SOPClassUID", "UI", MRImageStorage)
            one.add_new("SOPInstanceUID", "UI", _placeholder(index))
    shared = Dataset()
    shared.ImageOrientationPatient = carriers[0].ImageOrientationPatient
    shared.SliceThickness = DSfloat(grid.spacing_mm[0], auto_format=True)
    shared.SpacingBetweenSlices = DSfloat(_slice_spacing_mm(carriers, grid), auto_format=True)
    orientation, thickness, spacing = shared
    for one in carriers:  # whose elements are the sources' own: replaced, never changed
        for element in (orientation, spacing, *(() if "SliceThickness" in one else (thickness,))):
            one.add(element)
    return carriers


def _placeholder(index: int) -> str:
    return f"2.25.{index + 1}"


def point_at_frames(seg: Dataset, sources: Sequence[Dataset], frames: Sequence[int]) -> None:
    """Replace references to the carriers of frames by references to the frames themselves.

    Parameters
    ----------
    seg : Dataset
        Changed in place.
    sources : sequence of Dataset
        One header per slice.
    frames : sequence of int
        Each slice's frame number, from 1; 0 or nothing at all for classic instances.

    References
    ----------
    DICOM PS3.3 10.3 Image SOP Instance Reference Macro.
    """
    if not any(frames):
        return
    slice_of = {_placeholder(index): index for index in range(len(sources))}
    images = {  # segments on one slice share their item
        id(image): image
        for group in seg.PerFrameFunctionalGroupsSequence
        for image in group.DerivationImageSequence[0].SourceImageSequence
    }
    for image in images.values():
        index = slice_of[image.ReferencedSOPInstanceUID]
        image.update(_reference(sources[index]))
        if frames[index]:
            image.ReferencedFrameNumber = frames[index]
    of_instance: dict[str, list[int]] = {}
    for index, source in enumerate(sources):
        of_instance.setdefault(str(source.SOPInstanceUID), []).append(index)
    series = seg.ReferencedSeriesSequence[0]
    series.ReferencedInstanceSequence = [
        _reference(sources[many[0]]) for many in of_instance.values()
    ]
    seg.SourceImageSequence = [
        _image_reference(seg.SourceImageSequence[0], sources[many[0]], [frames[i] for i in many])
        for many in of_instance.values()
    ]


def _reference(source: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    return item


def _image_reference(pattern: Dataset, source: Dataset, frames: Sequence[int]) -> Dataset:
    """Return a reference to an instance, which names the frames unless it means all of them."""
    item = copy.deepcopy(pattern)
    item.update(_reference(source))
    if len(frames) < source.get("NumberOfFrames", 1):
        item.ReferencedFrameNumber = sorted(frames)
    return item


def _carrier(source: Dataset, index: int, seen: dict[tuple[object, ...], DataElement]) -> Dataset:
    carrier = Dataset()
    for keyword in _REQUIRED:
        element = _element(source, keyword, seen)
        if element is None or element.is_empty:
            raise MissingAttributeError(keyword=keyword, instance=index)
        carrier.add(element)
    for keyword in _WANTED:
        with contextlib.suppress(ValueError):  # no value of its kind of representation
            element = _element(source, keyword, seen)
            if element is not None and _is_usable(element):
                carrier.add(element)
    for element in NOBODY:
        carrier.add(element)
    return carrier


def _element(
    source: Dataset, keyword: str, seen: dict[tuple[object, ...], DataElement]
) -> DataElement | None:
    """Return an element of a source; slices whose bytes are equal share one, decoded once."""
    tag = tag_for_keyword(keyword)
    if tag is None or tag not in source:
        return None
    raw: object = source.get_item(tag)  # which its annotation does not say
    if not isinstance(raw, RawDataElement):
        return source[tag]
    key = (tag, raw.VR, raw.value, raw.is_little_endian)
    if key not in seen:
        seen[key] = source[tag]
    return seen[key]


def _positions_mm(carriers: Sequence[Dataset]) -> NDArray[np.float64]:
    return np.array([one.ImagePositionPatient for one in carriers], dtype=np.float64)


def _slice_spacing_mm(carriers: Sequence[Dataset], grid: Grid) -> float:
    """Return the mean distance of neighbouring slices; Slice Thickness is something else."""
    if len(carriers) == 1:
        return grid.spacing_mm[0]
    positions = _positions_mm(carriers)
    return float(np.linalg.norm(positions[-1] - positions[0])) / (len(carriers) - 1)


def check_grid(grid: Grid, carriers: Sequence[Dataset]) -> None:
    """Raise `GridMismatchError` unless the sources' own geometry is the grid's."""
    slices, rows, columns = grid.shape
    if len(carriers) != slices:
        raise GridMismatchError(reason=f"{slices} slices on {len(carriers)} images")
    if any((one.Rows, one.Columns) != (rows, columns) for one in carriers):
        raise GridMismatchError(reason="Rows or Columns")
    if len({one.SeriesInstanceUID for one in carriers}) != 1:
        raise GridMismatchError(reason="more than one source series")
    frames = {one.FrameOfReferenceUID for one in carriers} | {grid.frame_of_reference_uid or None}
    if len(frames - {None}) != 1:
        raise GridMismatchError(reason="FrameOfReferenceUID")
    _check_corners(grid, carriers)


def _check_corners(grid: Grid, carriers: Sequence[Dataset]) -> None:
    _, rows, columns = grid.shape
    cosines = np.array(carriers[0].ImageOrientationPatient, dtype=np.float64)
    along_row, down_column = _unit(cosines[:3]), _unit(cosines[3:])
    down, right = np.array(carriers[0].PixelSpacing, dtype=np.float64)
    to_far_corner = along_row * right * (columns - 1) + down_column * down * (rows - 1)
    first = _positions_mm(carriers)
    near = np.array([[k, 0, 0] for k in range(len(carriers))], dtype=np.float64)
    far = near + np.array([0, rows - 1, columns - 1])
    if np.abs(grid.lps_mm(near) - first).max() > _TOLERANCE_MM:
        raise GridMismatchError(reason="ImagePositionPatient")
    if np.abs(grid.lps_mm(far) - first - to_far_corner).max() > _TOLERANCE_MM:
        raise GridMismatchError(reason="ImageOrientationPatient or PixelSpacing")


def _unit(cosines: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return cosines of length 1; written with four decimals they miss it by 1e-4."""
    return cosines / np.linalg.norm(cosines)


def on_clock_of(source: Dataset, moment: datetime) -> datetime:
    """Return a moment on the clock of the source's other times, where it says which that is."""
    offset = _UTC_OFFSET.fullmatch(str(source.get("TimezoneOffsetFromUTC", "")))
    if offset is None:
        return moment
    minutes = int(offset[2]) * 60 + int(offset[3])
    return moment.astimezone(timezone(timedelta(minutes=-minutes if offset[1] == "-" else minutes)))


def usable(source: Dataset, keyword: str) -> Any:  # noqa: ANN401 - whatever the VR holds
    """Return the value of an attribute; None where it is absent, empty, or none of its VR.

    For what a derived object may leave out. Patient and study are copied right or wrong, so that
    the object stays with its images.
    """
    try:
        element = source[keyword]
    except (KeyError, ValueError):
        return None
    return element.value if _is_usable(element) else None


def _is_usable(element: DataElement) -> bool:
    many = element.value if isinstance(element.value, MultiValue) else [element.value]
    try:
        for value in many:
            validate_value(element.VR, value, RAISE)
    except ValueError:
        return False
    return not element.is_empty


def scanners_of(source: Dataset) -> list[Dataset]:
    """Return the Contributing Equipment item of whatever acquired the source, if it has a name."""
    found = {keyword: usable(source, keyword) for keyword in _ACQUISITION_EQUIPMENT}
    if found["Manufacturer"] is None:
        return []
    scanner = Dataset()
    scanner.PurposeOfReferenceCodeSequence = [
        hd.sr.CodedConcept.from_code(codes.DCM.AcquisitionEquipment)
    ]
    for keyword, value in found.items():
        if value is not None:
            setattr(scanner, keyword, value)
    return [scanner]


def text_of(ds: Dataset) -> str:
    """Return every text of a data set whose bytes depend on the character set."""
    return "\n".join(
        str(element.value) for element in ds.iterall() if element.VR in CUSTOMIZABLE_CHARSET_VR
    )


def declare_character_set(seg: Dataset, source: Dataset, own_text: str) -> None:
    """Keep the source's character set where it holds every text, otherwise declare Unicode.

    Undeclared bytes of a source pass through as they are (pydicom reads and writes them as Latin-1
    then): what they mean is not ours to guess, and the archive shows the same name for both.
    """
    declared = source.get("SpecificCharacterSet") or ""
    if declared in _KEPT_CHARACTER_SETS:
        is_kept = _is_encodable(text_of(seg), charset.python_encoding[declared])
    else:
        is_kept = declared in ("", "ISO_IR 6") and own_text.isascii()
    if not is_kept:
        seg.SpecificCharacterSet = _UNICODE
    elif declared:
        seg.SpecificCharacterSet = declared


def _is_encodable(text: str, codec: str) -> bool:
    try:
        text.encode(codec)
    except UnicodeEncodeError:
        return False
    return True
