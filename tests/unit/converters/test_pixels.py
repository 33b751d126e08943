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
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from converters.attributes import texts
from converters.errors import InputRejectedError
from converters.headers import read_header
from converters.pixels import decode_into
from tests.phantoms import WrittenStudy

NATIVE = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
COMPRESSED = (RLELossless, JPEGLSLossless, JPEG2000Lossless)
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


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("is_signed", [False, True])
def test_every_compressed_transfer_syntax_gives_the_same_plane(
    syntax: UID,
    is_signed: bool,  # noqa: FBT001 - a case
    instance: Dataset,
    tmp_path: Path,
) -> None:
    wanted = instance.pixel_array.astype("<i2" if is_signed else "<u2")
    if is_signed:
        wanted = wanted - 1024
    _store(instance, wanted, 16)
    instance.compress(syntax)
    assert np.array_equal(_decode(instance, tmp_path / "x.dcm"), wanted)


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


def test_a_modality_lut_sequence_is_refused(instance: Dataset, tmp_path: Path) -> None:
    instance.ModalityLUTSequence = [Dataset()]
    error = _refusal(instance, tmp_path / "x.dcm")
    assert str(error) == "the pixels of slice 0 cannot be decoded (ModalityLUTSequence)"


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


@pytest.mark.filterwarnings("ignore")  # pydicom's own complaint about the stream
@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda syntax: syntax.name)
def test_a_damaged_stream_is_refused(syntax: UID, instance: Dataset, tmp_path: Path) -> None:
    instance.compress(syntax)
    stream = bytearray(instance.PixelData)
    stream[20 : len(stream) - 8] = bytes(len(stream) - 28)
    instance.PixelData = bytes(stream)
    assert _refusal(instance, tmp_path / "x.dcm").code == "PIXEL_UNREADABLE"


def test_a_plane_of_another_matrix_is_refused(instance: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    instance.save_as(path, enforce_file_format=True)
    plane = np.zeros((3, 3), dtype=np.float32)
    with pytest.raises(InputRejectedError) as caught:
        decode_into(plane, path, read_header(path, instance=4), slice_index=4)
    assert caught.value.evidence == {"slice_index": 4, "reason": "matrix"}


@pytest.mark.filterwarnings("ignore")  # pydicom's own complaint about the frames
def test_a_stream_with_several_frames_is_refused(instance: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    instance.save_as(path, enforce_file_format=True)
    header = read_header(path, instance=0)
    instance.PixelData *= 2
    instance.NumberOfFrames = 2
    instance.save_as(path, enforce_file_format=True)
    plane = np.zeros((instance.Rows, instance.Columns), dtype=np.float32)
    with pytest.raises(InputRejectedError) as caught:
        decode_into(plane, path, header, slice_index=0)
    assert caught.value.evidence["reason"] == "matrix"


def test_a_header_made_in_memory_serves_as_well(small_study: WrittenStudy) -> None:
    path = small_study.files.paths["t1"][2]
    ds = dcmread(path)
    bare = Dataset({element.tag: element for element in ds if element.tag.group < 0x7FE0})
    plane = np.zeros((ds.Rows, ds.Columns), dtype=np.float32)
    decode_into(plane, path, bare, slice_index=2)
    assert np.array_equal(plane, ds.pixel_array)
    assert texts(bare, ds["SOPInstanceUID"].tag) == (ds.SOPInstanceUID,)
