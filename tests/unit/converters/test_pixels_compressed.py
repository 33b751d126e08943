"""Compressed pixels: every encoding that is read, against another decoder; damaged streams."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_fragments
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    HTJ2K,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from converters import pixel_streams
from converters.errors import InputRejectedError
from converters.headers import read_header
from converters.pixels import decode_into, decode_stack
from tests import peers
from tests.phantoms import WrittenStudy

LOSSLESS = (RLELossless, JPEGLSLossless, JPEG2000Lossless)
ENCODERS = {RLELossless: "pydicom", JPEGLSLossless: "pyjpegls", JPEG2000Lossless: "pylibjpeg"}
TYPES = ("u1", "<u2", "<i2")
DCMTK_LOSSLESS = ("+e1", "+el")  # JPEG lossless, first-order prediction and any
DCMTK_LOSSY = {
    "+eb": 1,
    "+ee": 2,
}  # of 256 or 4096: the cosine transforms may round apart (T.81 A.3.3)

HIGH_THROUGHPUT = base64.b64decode(
    "/0//UQApQAAAAAAKAAAADAAAAAAAAAAAAAAACgAAAAwAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgAB"
    "AAUEBEAB/1wAEyCIkJCQkJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAG8A"
    "Af+TwAAmjfsFB3QAAMAAE0AAEwBc/gIHdADA/gKHdADAABHAABMAK3MA9/0AAjQAwAASQAAVICjidADEiRPA"
    "MYH+tgDAACsgABWgSARBIsjYL9fgi3cAyEgkEvn0CEYhAey4AP/Z"
)
"""(37 x + 101 y) % 4096 in 12 rows of 10, 16 bits unsigned, by OpenJPH."""


@pytest.fixture
def instance(small_study: WrittenStudy) -> Dataset:
    """Return an instance to change and save elsewhere."""
    return dcmread(small_study.files.paths["t2"][7])


def _decode(path: Path) -> NDArray[np.float32]:
    header = read_header(path, instance=0)
    plane = np.full((header.Rows, header.Columns), np.nan, dtype=np.float32)
    decode_into(plane, path, header, slice_index=0)
    return plane


def _refusal(path: Path) -> InputRejectedError:
    with pytest.raises(InputRejectedError) as caught:
        _decode(path)
    return caught.value


def _stored(instance: Dataset, code: str) -> NDArray[np.integer]:
    """Give an instance pixels of a type and return them; 105 x 103 bytes are an odd number."""
    whole = instance.pixel_array[:105, :103].astype(np.int32)
    values = whole // 16 if code == "u1" else whole - 1024 * (code == "<i2")
    stored = np.ascontiguousarray(values.astype(code))
    instance.PixelData = stored.tobytes() + bytes(stored.nbytes % 2)
    instance.Rows, instance.Columns = stored.shape
    instance.BitsAllocated = instance.BitsStored = 8 * stored.dtype.itemsize
    instance.HighBit = instance.BitsStored - 1
    instance.PixelRepresentation = int(stored.dtype.kind == "i")
    instance["PixelData"].VR = "OB" if stored.dtype.itemsize == 1 else "OW"
    return stored


def _wrap(
    instance: Dataset, streams: list[bytes], syntax: UID, path: Path, fragments: int = 1
) -> Path:
    instance.PixelData = encapsulate(streams, fragments_per_frame=fragments)
    instance["PixelData"].VR = "OB"
    instance["PixelData"].is_undefined_length = True
    instance.file_meta.TransferSyntaxUID = syntax
    instance.save_as(path)
    return path


def _stream(path: Path) -> bytes:
    return list(generate_fragments(dcmread(path).PixelData))[-1]


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("code", TYPES)
def test_what_was_compressed_without_loss_comes_back(
    syntax: UID, code: str, instance: Dataset, tmp_path: Path
) -> None:
    wanted = _stored(instance, code)
    instance.compress(syntax, encoding_plugin=ENCODERS[syntax])
    instance.save_as(tmp_path / "x.dcm")
    assert np.array_equal(_decode(tmp_path / "x.dcm"), wanted)


@pytest.mark.parametrize("option", DCMTK_LOSSLESS)
@pytest.mark.parametrize("code", TYPES)
def test_lossless_jpeg_of_dcmtk_comes_back(
    option: str, code: str, instance: Dataset, tmp_path: Path
) -> None:
    peers.require("dcmtk")
    wanted = _stored(instance, code)
    instance.save_as(tmp_path / "plain.dcm")
    _dcmtk("dcmcjpeg", option, tmp_path / "plain.dcm", tmp_path / "x.dcm")
    assert np.array_equal(_decode(tmp_path / "x.dcm"), wanted)


@pytest.mark.parametrize(("option", "tolerance"), DCMTK_LOSSY.items())
@pytest.mark.parametrize("code", ["u1", "<u2"])
def test_lossy_jpeg_is_what_dcmtk_makes_of_it(
    option: str, tolerance: int, code: str, instance: Dataset, tmp_path: Path
) -> None:
    peers.require("dcmtk")
    _stored(instance, code)
    instance.save_as(tmp_path / "plain.dcm")
    _dcmtk("dcmcjpeg", option, tmp_path / "plain.dcm", tmp_path / "x.dcm")
    _dcmtk("dcmdjpeg", tmp_path / "x.dcm", tmp_path / "back.dcm")
    difference = _decode(tmp_path / "x.dcm") - dcmread(tmp_path / "back.dcm").pixel_array
    assert np.abs(difference).max() <= tolerance


def test_jpeg_ls_with_loss_stays_within_its_bound(instance: Dataset, tmp_path: Path) -> None:
    peers.require("dcmtk")
    wanted = _stored(instance, "<u2")
    instance.save_as(tmp_path / "plain.dcm")
    _dcmtk("dcmcjpls", "+en", "+md", "3", tmp_path / "plain.dcm", tmp_path / "x.dcm")
    _dcmtk("dcmdjpls", tmp_path / "x.dcm", tmp_path / "back.dcm")
    plane = _decode(tmp_path / "x.dcm")
    assert np.array_equal(plane, dcmread(tmp_path / "back.dcm").pixel_array)
    assert 0 < np.abs(plane - wanted).max() <= 3


def _dcmtk(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, timeout=60, capture_output=True)


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K])
def test_high_throughput_jpeg_2000_is_read(syntax: UID, instance: Dataset, tmp_path: Path) -> None:
    instance.Rows, instance.Columns = 12, 10
    instance.BitsStored, instance.HighBit = 16, 15
    rows, columns = np.mgrid[:12, :10]
    path = _wrap(instance, [HIGH_THROUGHPUT], syntax, tmp_path / "x.dcm")
    assert np.array_equal(_decode(path), (37 * columns + 101 * rows) % 4096)


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("is_extended", [False, True], ids=["basic", "extended"])
def test_compressed_frames_are_parsed_once_and_told_apart(
    syntax: UID,
    is_extended: bool,  # noqa: FBT001 - a case
    instance: Dataset,
    tmp_path: Path,
) -> None:
    wanted = np.stack([_stored(instance, "<u2") // divisor for divisor in (1, 2, 3)])
    instance.PixelData, instance.NumberOfFrames = wanted.tobytes(), len(wanted)
    instance.compress(syntax, encoding_plugin=ENCODERS[syntax])
    if is_extended:
        streams = list(generate_fragments(instance.PixelData))[1:]
        whole, offsets, lengths = encapsulate_extended(streams)
        instance.PixelData = whole
        instance.ExtendedOffsetTable, instance.ExtendedOffsetTableLengths = offsets, lengths
    instance.save_as(tmp_path / "x.dcm")
    planes = np.zeros((2, *wanted.shape[1:]), dtype=np.float32)
    header = read_header(tmp_path / "x.dcm", instance=0)
    decode_stack(planes, [tmp_path / "x.dcm"] * 2, [header] * 2, [3, 1])
    assert np.array_equal(planes, wanted[[2, 0]])


def test_a_frame_in_several_fragments_is_read(instance: Dataset, tmp_path: Path) -> None:
    wanted = _stored(instance, "<u2")
    instance.compress(JPEGLSLossless, encoding_plugin="pyjpegls")
    instance.save_as(tmp_path / "whole.dcm")
    stream = _stream(tmp_path / "whole.dcm")
    path = _wrap(instance, [stream], JPEGLSLossless, tmp_path / "x.dcm", fragments=7)
    assert np.array_equal(_decode(path), wanted)


@pytest.mark.parametrize("syntax", [*LOSSLESS, "dcmtk"], ids=str)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_stream_without_its_end_is_refused(
    syntax: UID | str, share: float, instance: Dataset, tmp_path: Path
) -> None:
    _stored(instance, "<u2")
    path = tmp_path / "x.dcm"
    if isinstance(syntax, UID):
        instance.compress(syntax, encoding_plugin=ENCODERS[syntax])
        instance.save_as(path)
    else:
        peers.require("dcmtk")
        instance.save_as(tmp_path / "plain.dcm")
        _dcmtk("dcmcjpeg", tmp_path / "plain.dcm", path)
    ds = dcmread(path)
    stream = _stream(path)
    cut = stream[: int(share * len(stream)) // 2 * 2]
    assert _refusal(_wrap(ds, [cut], ds.file_meta.TransferSyntaxUID, path)).code == (
        "PIXEL_UNREADABLE"
    )


@pytest.mark.filterwarnings("ignore")  # pydicom's own complaint about the stream
@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.name)
def test_a_damaged_stream_is_refused(syntax: UID, instance: Dataset, tmp_path: Path) -> None:
    instance.compress(syntax, encoding_plugin=ENCODERS[syntax])
    stream = bytearray(instance.PixelData)
    stream[20 : len(stream) - 8] = bytes(len(stream) - 28)
    instance.PixelData = bytes(stream)
    instance.save_as(tmp_path / "x.dcm")
    assert _refusal(tmp_path / "x.dcm").code == "PIXEL_UNREADABLE"


def test_a_frame_of_another_matrix_than_the_header_says_is_refused(
    instance: Dataset, tmp_path: Path
) -> None:
    _stored(instance, "<u2")
    instance.compress(RLELossless, encoding_plugin="pydicom")
    instance.save_as(tmp_path / "x.dcm")
    header = read_header(tmp_path / "x.dcm", instance=0)
    header.Rows -= 1
    plane = np.zeros((header.Rows, header.Columns), dtype=np.float32)
    with pytest.raises(InputRejectedError) as caught:
        decode_into(plane, tmp_path / "x.dcm", header, slice_index=0)
    assert caught.value.evidence["reason"] == "matrix"


@pytest.mark.parametrize("name", ["1.2.840.10008.1.2.4.92", "1.2.840.10008.1.2.4.102", "2.25.1"])
def test_an_encoding_without_a_decoder_is_refused_as_such(
    name: str, instance: Dataset, tmp_path: Path
) -> None:
    path = _wrap(instance, [bytes(64)], UID(name), tmp_path / "x.dcm")
    assert _refusal(path).evidence == {"slice_index": 0, "reason": "no decoder"}


def test_the_decoders_that_the_encodings_need_are_installed() -> None:
    missing = [
        one.name
        for one in pixel_streams.DECODED
        if not {"pylibjpeg", "pydicom"} & set(get_decoder(one).available_plugins)
    ]
    assert missing == []


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, "dcmtk"], ids=str)
def test_a_stream_that_claims_another_matrix_is_refused_before_it_is_decoded(
    syntax: UID | str, instance: Dataset, tmp_path: Path
) -> None:
    rows = _stored(instance, "<u2").shape[0]
    path = tmp_path / "x.dcm"
    if isinstance(syntax, UID):
        instance.compress(syntax, encoding_plugin=ENCODERS[syntax])
        instance.save_as(path)
    else:
        peers.require("dcmtk")
        instance.save_as(tmp_path / "plain.dcm")
        _dcmtk("dcmcjpeg", tmp_path / "plain.dcm", path)
    ds, stream = dcmread(path), bytearray(_stream(path))
    at = stream.index(rows.to_bytes(2, "big"))
    stream[at : at + 2] = b"\xff\xf0"
    error = _refusal(_wrap(ds, [bytes(stream)], ds.file_meta.TransferSyntaxUID, path))
    assert error.evidence["reason"] == "ValueError"


def test_a_stream_of_an_end_alone_is_refused(instance: Dataset, tmp_path: Path) -> None:
    path = _wrap(instance, [b"\xff\xd8\xff\xd9"], JPEGLSLossless, tmp_path / "x.dcm")
    assert _refusal(path).evidence["reason"] == "error"


def test_fill_bytes_before_a_marker_do_not_hide_the_matrix(
    instance: Dataset, tmp_path: Path
) -> None:
    peers.require("dcmtk")
    wanted = _stored(instance, "<u2")
    instance.save_as(tmp_path / "plain.dcm")
    _dcmtk("dcmcjpeg", tmp_path / "plain.dcm", tmp_path / "x.dcm")
    stream = _stream(tmp_path / "x.dcm")
    filled = stream[:2] + b"\xff\xff" + stream[2:]
    ds = dcmread(tmp_path / "x.dcm")
    path = _wrap(ds, [filled], ds.file_meta.TransferSyntaxUID, tmp_path / "y.dcm")
    assert np.array_equal(_decode(path), wanted)
