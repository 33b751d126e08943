"""One instance to a plane: transfer syntaxes, bit layouts, rescale and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from converters.attributes import texts
from converters.errors import InputRejectedError
from converters.headers import read_header
from converters.pixels import decode_into, decode_stack
from tests.phantoms import WrittenStudy

NATIVE = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
RNG = np.random.default_rng(5)


@pytest.fixture
def instance(small_study: WrittenStudy) -> Dataset:
    """Return an instance to change and save elsewhere."""
    return dcmread(small_study.files.paths["t2"][7])


def _decode(ds: Dataset, path: Path) -> NDArray[np.float32]:
    """Save an instance and return its plane."""
    ds.save_as(path, enforce_file_format=True)
    plane = np.full((ds.Rows, ds.Columns), np.nan, dtype=np.float32)
    decode_into(plane, path, read_header(path, instance=0), slice_index=0)
    return plane


def _store(ds: Dataset, stored: NDArray[np.integer], bits_stored: int) -> None:
    ds.PixelData = stored.tobytes()
    ds.Rows, ds.Columns = stored.shape
    ds.BitsAllocated = 8 * stored.dtype.itemsize
    ds.BitsStored, ds.HighBit = bits_stored, bits_stored - 1
    ds.PixelRepresentation = int(stored.dtype.kind == "i")
    ds["PixelData"].VR = "OB" if stored.dtype.itemsize == 1 else "OW"


def _refusal(ds: Dataset, path: Path) -> InputRejectedError:
    with pytest.raises(InputRejectedError) as caught:
        _decode(ds, path)
    return caught.value


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.name)
def test_every_uncompressed_transfer_syntax_gives_the_same_plane(
    syntax: UID, instance: Dataset, tmp_path: Path
) -> None:
    wanted = instance.pixel_array.copy()
    if syntax == ExplicitVRBigEndian:
        instance.PixelData = wanted.astype(">u2").tobytes()
    again = Dataset()  # a data set that was read keeps its byte order
    again.update(instance)
    again.file_meta = instance.file_meta
    again.file_meta.TransferSyntaxUID = syntax
    assert np.array_equal(_decode(again, tmp_path / "x.dcm"), wanted)


@pytest.mark.parametrize("code", ["u1", "i1", "<u2", "<i2", "<u4", "<i4"])
def test_every_whole_number_type_keeps_its_values(
    code: str, instance: Dataset, tmp_path: Path
) -> None:
    limits = np.iinfo(code)
    bound = 2**24  # float32 holds whole numbers exactly up to here
    wanted = RNG.integers(max(limits.min, -bound), min(limits.max, bound), (6, 5), dtype=code)
    _store(instance, wanted, limits.bits)
    assert np.array_equal(_decode(instance, tmp_path / "x.dcm"), wanted)


@pytest.mark.parametrize("code", ["<u2", "<i2"])
def test_bits_above_the_high_bit_do_not_count(code: str, instance: Dataset, tmp_path: Path) -> None:
    lowest = 0 if code == "<u2" else -2048
    wanted = RNG.integers(lowest, lowest + 4096, (6, 5), dtype=code)
    dirty = (wanted & 0x0FFF | 0x5000).astype(code)
    _store(instance, dirty, 12)
    plane = _decode(instance, tmp_path / "x.dcm")
    assert np.array_equal(plane, wanted)
    assert np.array_equal(plane, dcmread(tmp_path / "x.dcm").pixel_array)


def test_slope_and_intercept_are_applied_and_rounded_once(
    instance: Dataset, tmp_path: Path
) -> None:
    instance.RescaleSlope, instance.RescaleIntercept = "21.2764346764346", "-3.25"
    wanted = instance.pixel_array.astype(np.float64) * 21.2764346764346 - 3.25
    assert np.array_equal(_decode(instance, tmp_path / "x.dcm"), wanted.astype(np.float32))


def test_without_rescale_the_stored_values_stand(instance: Dataset, tmp_path: Path) -> None:
    del instance.RescaleSlope, instance.RescaleIntercept
    assert np.array_equal(_decode(instance, tmp_path / "x.dcm"), instance.pixel_array)


def test_monochrome1_is_not_inverted(instance: Dataset, tmp_path: Path) -> None:
    instance.PhotometricInterpretation = "MONOCHROME1"
    assert np.array_equal(_decode(instance, tmp_path / "x.dcm"), instance.pixel_array)


def test_pixels_followed_by_padding_are_found(instance: Dataset, tmp_path: Path) -> None:
    instance.DataSetTrailingPadding = bytes(64)
    assert np.array_equal(_decode(instance, tmp_path / "x.dcm"), instance.pixel_array)


def test_colour_is_refused(instance: Dataset, tmp_path: Path) -> None:
    instance.PhotometricInterpretation = "RGB"
    assert _refusal(instance, tmp_path / "x.dcm").evidence["reason"] == "colour"


def test_several_samples_are_refused(instance: Dataset, tmp_path: Path) -> None:
    instance.SamplesPerPixel = 3
    assert _refusal(instance, tmp_path / "x.dcm").evidence["reason"] == "colour"


def _table(instance: Dataset, entries: NDArray[np.uint16], first: int) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, 16]
    item["LUTDescriptor"].VR = "US"
    item.LUTData = entries.astype("<u2").tobytes()
    item["LUTData"].VR = "OW"
    instance.ModalityLUTSequence = [item]
    del instance.RescaleSlope, instance.RescaleIntercept
    return item


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_modality_lut_is_looked_up(syntax: UID, instance: Dataset, tmp_path: Path) -> None:
    stored = instance.pixel_array.astype(np.int64)
    entries = (7 * np.arange(500) % 4000).astype(np.uint16)
    _table(instance, entries, first=40)
    again = Dataset()
    again.update(instance)
    again.file_meta = instance.file_meta
    again.file_meta.TransferSyntaxUID = syntax
    wanted = entries[np.clip(stored - 40, 0, 499)]  # beyond its ends a table keeps its last value
    assert np.array_equal(_decode(again, tmp_path / "x.dcm"), wanted)


@pytest.mark.filterwarnings("ignore")  # pydicom's own complaint about the table
def test_a_modality_lut_that_is_damaged_is_refused(instance: Dataset, tmp_path: Path) -> None:
    _table(instance, np.arange(100, dtype=np.uint16), first=0).LUTDescriptor = [100, 0, 5]
    error = _refusal(instance, tmp_path / "x.dcm")
    assert str(error) == "the pixels of slice 0 cannot be decoded (ModalityLUTSequence)"


@pytest.mark.parametrize(("keyword", "code"), [("FloatPixelData", "<f4"), ("Double", "<f8")])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_floating_point_pixels_keep_their_values(
    keyword: str, code: str, syntax: UID, instance: Dataset, tmp_path: Path
) -> None:
    wanted = RNG.normal(size=(6, 5)).astype(code)
    for gone in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(instance, gone)
    element = keyword if code == "<f4" else "DoubleFloatPixelData"
    setattr(instance, element, wanted.tobytes())
    instance.Rows, instance.Columns = wanted.shape
    instance.BitsAllocated = 8 * wanted.dtype.itemsize
    instance.RescaleSlope, instance.RescaleIntercept = 1, 0
    again = Dataset()
    again.update(instance)
    again.file_meta = instance.file_meta
    again.file_meta.TransferSyntaxUID = syntax
    assert np.array_equal(_decode(again, tmp_path / "x.dcm"), wanted.astype(np.float32))


def test_an_odd_number_of_bytes_is_read_without_its_padding(
    instance: Dataset, tmp_path: Path
) -> None:
    wanted = RNG.integers(0, 256, (5, 7), dtype="u1")
    _store(instance, wanted, 8)
    instance.PixelData += b"\0"
    assert np.array_equal(_decode(instance, tmp_path / "x.dcm"), wanted)


def test_an_overlay_in_the_unused_bits_does_not_count(instance: Dataset, tmp_path: Path) -> None:
    wanted = instance.pixel_array.copy()
    instance.PixelData = (wanted | (wanted % 3 == 0).astype("<u2") << 14).astype("<u2").tobytes()
    for element, value in ((0x10, wanted.shape[0]), (0x11, wanted.shape[1]), (0x102, 14)):
        instance.add_new((0x6000, element), "US", value)
    assert np.array_equal(_decode(instance, tmp_path / "x.dcm"), wanted)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_an_icon_is_not_taken_for_the_image(syntax: UID, instance: Dataset, tmp_path: Path) -> None:
    wanted = instance.pixel_array.copy()
    icon = Dataset()
    _store(icon, np.full_like(wanted, 7), 16)
    icon.SamplesPerPixel, icon.PhotometricInterpretation = 1, "MONOCHROME2"
    instance.IconImageSequence = [icon]
    if syntax == ExplicitVRBigEndian:
        instance.PixelData = wanted.astype(">u2").tobytes()
    again = Dataset()
    again.update(instance)
    again.file_meta = instance.file_meta
    again.file_meta.TransferSyntaxUID = syntax
    assert np.array_equal(_decode(again, tmp_path / "x.dcm"), wanted)


def test_real_world_values_and_philips_own_scale_are_left_out(
    instance: Dataset, tmp_path: Path
) -> None:
    item = Dataset()
    item.RealWorldValueSlope, item.RealWorldValueIntercept = 3.5, 10.0
    instance.RealWorldValueMappingSequence = [item]
    instance.private_block(0x2005, "Philips MR Imaging DD 001", create=True).add_new(0xE, "FL", 2.0)
    instance.RescaleSlope, instance.RescaleIntercept = 2, -8
    wanted = instance.pixel_array * 2.0 - 8.0
    assert np.array_equal(_decode(instance, tmp_path / "x.dcm"), wanted)


def test_padding_keeps_its_value(instance: Dataset, tmp_path: Path) -> None:
    instance.add_new("PixelPaddingValue", "US", int(instance.pixel_array[3, 4]))
    assert np.array_equal(_decode(instance, tmp_path / "x.dcm"), instance.pixel_array)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("HighBit", 15), ("BitsStored", 17), ("BitsStored", 0), ("BitsAllocated", 12)],
)
def test_a_bit_layout_that_the_standard_does_not_know_is_refused(
    keyword: str, value: int, instance: Dataset, tmp_path: Path
) -> None:
    setattr(instance, keyword, value)
    assert _refusal(instance, tmp_path / "x.dcm").evidence["reason"] == "bit layout"


@pytest.mark.filterwarnings("ignore")  # pydicom's own complaint about the length
def test_pixels_that_are_cut_short_are_refused(instance: Dataset, tmp_path: Path) -> None:
    instance.PixelData = instance.PixelData[:1000]
    assert _refusal(instance, tmp_path / "x.dcm").code == "PIXEL_UNREADABLE"


def test_an_instance_without_pixels_is_refused(instance: Dataset, tmp_path: Path) -> None:
    del instance.PixelData
    error = _refusal(instance, tmp_path / "x.dcm")
    assert error.evidence == {"slice_index": 0, "reason": "AttributeError"}


def test_a_matrix_that_no_element_can_hold_is_refused(instance: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    instance.Rows = instance.Columns = 60000
    del instance.PixelData
    instance.save_as(path, enforce_file_format=True)
    endless = np.broadcast_to(np.float32(0), (60000, 60000))  # occupies one voxel
    with pytest.raises(InputRejectedError) as caught:
        decode_into(endless, path, read_header(path, instance=0), slice_index=0)
    assert caught.value.code == "PIXEL_UNREADABLE"


def test_a_plane_of_another_matrix_is_refused(instance: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    instance.save_as(path, enforce_file_format=True)
    plane = np.zeros((3, 3), dtype=np.float32)
    with pytest.raises(InputRejectedError) as caught:
        decode_into(plane, path, read_header(path, instance=4), slice_index=4)
    assert caught.value.evidence == {"slice_index": 4, "reason": "matrix"}


def test_a_header_made_in_memory_serves_as_well(small_study: WrittenStudy) -> None:
    path = small_study.files.paths["t1"][2]
    ds = dcmread(path)
    bare = Dataset({element.tag: element for element in ds if element.tag.group < 0x7FE0})
    plane = np.zeros((ds.Rows, ds.Columns), dtype=np.float32)
    decode_into(plane, path, bare, slice_index=2)
    assert np.array_equal(plane, ds.pixel_array)
    assert texts(bare, ds["SOPInstanceUID"].tag) == (ds.SOPInstanceUID,)


def _frames(count: int, code: str = "<u2") -> NDArray[np.integer]:
    return RNG.integers(0, 256, (count, 5, 7)).astype(code)


def _many(instance: Dataset, frames: NDArray[np.integer], path: Path) -> Dataset:
    """Write a multi-frame instance and return its header."""
    _store(instance, frames[0], 8 * frames.dtype.itemsize)
    instance.NumberOfFrames = len(frames)
    instance.PixelData = frames.tobytes() + bytes(frames.nbytes % 2)
    instance.save_as(path, enforce_file_format=True)
    return read_header(path, instance=0)


@pytest.mark.parametrize("code", ["u1", "<u2"])
@pytest.mark.parametrize("has_padding", [False, True], ids=["at the end", "padded"])
def test_frames_of_one_file_are_told_apart(
    code: str,
    has_padding: bool,  # noqa: FBT001 - a case
    instance: Dataset,
    tmp_path: Path,
) -> None:
    wanted = _frames(3, code)
    if has_padding:
        instance.DataSetTrailingPadding = bytes(64)
    header = _many(instance, wanted, tmp_path / "x.dcm")
    planes = np.zeros(wanted.shape, dtype=np.float32)
    decode_stack(planes[::-1], [tmp_path / "x.dcm"] * 3, [header] * 3, [3, 2, 1])
    assert np.array_equal(planes, wanted)
    decode_into(planes[0], tmp_path / "x.dcm", header, slice_index=0, frame=2)
    assert np.array_equal(planes[0], wanted[1])


def test_files_may_take_turns_in_a_stack(instance: Dataset, tmp_path: Path) -> None:
    first, second = _frames(2), _frames(2)
    files = [tmp_path / "1.dcm", tmp_path / "2.dcm"] * 2
    headers = [_many(instance, first, files[0]), _many(instance, second, files[1])] * 2
    planes = np.zeros((4, 5, 7), dtype=np.float32)
    decode_stack(planes, files, headers, [1, 1, 2, 2])
    assert np.array_equal(planes, [first[0], second[0], first[1], second[1]])


@pytest.mark.parametrize("frame", [0, 4, -1])
def test_a_frame_that_is_not_there_is_refused(
    frame: int, instance: Dataset, tmp_path: Path
) -> None:
    header = _many(instance, _frames(3), tmp_path / "x.dcm")
    plane = np.zeros((5, 7), dtype=np.float32)
    with pytest.raises(InputRejectedError) as caught:
        decode_into(plane, tmp_path / "x.dcm", header, slice_index=2, frame=frame)
    assert caught.value.evidence == {"slice_index": 2, "reason": "frame"}
