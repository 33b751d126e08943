"""The walk through encoded data sets, against pydicom as the independent writer and reader."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from node.errors import InstanceTooLargeError, InstanceUnreadableError, NodeError
from node.receive.dataset import Identifiers, checked_uid, read_identifiers
from tests.doors import encoded, make_instance

_LIMIT = 2**24
_KEYWORDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_SOP_INSTANCE_UID = b"\x08\x00\x18\x00UI"


def _identifiers(ds: Dataset) -> Identifiers:
    return Identifiers(
        sop_class_uid=ds.SOPClassUID,
        sop_instance_uid=ds.SOPInstanceUID,
        study_instance_uid=ds.StudyInstanceUID,
        series_instance_uid=ds.SeriesInstanceUID,
    )


def _read(data: bytes, syntax: str = ExplicitVRLittleEndian, limit: int = _LIMIT) -> Identifiers:
    return read_identifiers(data, syntax, limit_bytes=limit)


def _deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


def _long(tag: tuple[int, int], vr: bytes, length: int) -> bytes:
    return struct.pack("<HH2sHL", *tag, vr, 0, length)


_ITEM, _ITEM_END, _SEQUENCE_END = (
    struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF),
    struct.pack("<HHL", 0xFFFE, 0xE00D, 0),
    struct.pack("<HHL", 0xFFFE, 0xE0DD, 0),
)


@pytest.mark.parametrize(
    ("syntax", "data"),
    [
        (ImplicitVRLittleEndian, {"is_implicit": True}),
        (ExplicitVRLittleEndian, {}),
        (ExplicitVRBigEndian, {"is_little_endian": False}),
        (DeflatedExplicitVRLittleEndian, {"is_deflated": True}),
    ],
)
@pytest.mark.parametrize("is_undefined_length", [False, True])
def test_every_encoding_gives_the_identifiers(
    syntax: str, data: dict[str, bool], *, is_undefined_length: bool
) -> None:
    ds = make_instance()
    ds["AnatomicRegionSequence"].is_undefined_length = is_undefined_length
    ds.AnatomicRegionSequence[0].is_undefined_length_sequence_item = is_undefined_length
    assert _read(encoded(ds, **data), syntax) == _identifiers(ds)


_FOLDER = Path(pydicom.__file__).parent / "data" / "test_files"


def _readable_files() -> Iterator[tuple[Path, Dataset]]:
    """Yield the example files of pydicom that pydicom reads whole and that have identifiers."""
    for path in sorted(_FOLDER.glob("*.dcm")):
        if "truncated" in path.name:
            continue
        try:
            ds = dcmread(path)
        except (InvalidDicomError, EOFError, ValueError):
            continue
        if all(ds.get(keyword) for keyword in _KEYWORDS):
            yield path, ds


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # the files are odd on purpose
def test_real_files_are_walked_to_their_end() -> None:
    walked = 0
    for path, ds in _readable_files():
        start = 144 + ds.file_meta.FileMetaInformationGroupLength
        syntax = ds.file_meta.TransferSyntaxUID
        if path.name == "SC_rgb_jpeg.dcm":  # Implicit VR that claims to be JPEG Baseline
            with pytest.raises(InstanceUnreadableError, match="value representation"):
                read_identifiers(path.read_bytes(), syntax, start=start, limit_bytes=_LIMIT)
            continue
        found = read_identifiers(path.read_bytes(), syntax, start=start, limit_bytes=_LIMIT)
        assert found == _identifiers(ds), path.name
        walked += 1
    assert walked >= 50


def test_encapsulated_pixels_are_passed() -> None:
    ds = make_instance(PixelData=None)
    fragments = struct.pack("<HHL", 0xFFFE, 0xE000, 0) + struct.pack("<HHL", 0xFFFE, 0xE000, 6)
    pixels = _long((0x7FE0, 0x10), b"OB", 0xFFFFFFFF) + fragments + b"abcdef" + _SEQUENCE_END
    assert _read(encoded(ds) + pixels, RLELossless) == _identifiers(ds)


def test_unknown_content_of_undefined_length_is_implicit_inside() -> None:
    ds = make_instance(PixelData=None)
    inner = struct.pack("<HHL", 0x0008, 0x0100, 4) + b"ABCD"
    unknown = _long((0x0071, 0x1001), b"UN", 0xFFFFFFFF) + _ITEM + inner + _ITEM_END + _SEQUENCE_END
    assert _read(encoded(ds) + unknown) == _identifiers(ds)


def test_a_value_representation_of_the_future_has_a_long_length() -> None:
    ds = make_instance(PixelData=None)
    assert _read(encoded(ds) + _long((0x0071, 0x1001), b"ZZ", 4) + b"abcd") == _identifiers(ds)


def test_an_identifier_inside_a_sequence_is_not_the_instances_own() -> None:
    ds = make_instance()
    item = Dataset()
    item.SOPInstanceUID = "9.9.9"
    ds.SourceImageSequence = [item]
    assert _read(encoded(ds)) == _identifiers(ds)


@pytest.mark.parametrize("cut", [1, 2, 100, 2048, 2054, 2059, 2061, 2100])
def test_a_truncated_data_set_is_refused_wherever_it_stops(cut: int) -> None:
    with pytest.raises(InstanceUnreadableError, match="truncated"):
        _read(encoded(make_instance())[:-cut])


def test_a_truncated_deflated_data_set_is_refused() -> None:
    data = encoded(make_instance(), is_deflated=True)
    with pytest.raises(InstanceUnreadableError, match="truncated"):
        _read(data[: len(data) // 2], DeflatedExplicitVRLittleEndian)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "SOPClassUID is missing"),
        (bytes(200), "without a value representation"),
        (bytes(128) + b"DICM", "without a value representation"),
        (b"\2\0\1\0UI\2\0001", "belongs elsewhere"),
        (b"\x08\x00\x05\x00??\x02\x00ab", "without a value representation"),
        (_ITEM, "belongs elsewhere"),
    ],
)
def test_what_is_no_data_set_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(InstanceUnreadableError, match=reason):
        _read(data)


def test_garbage_that_claims_to_be_deflated_is_refused() -> None:
    with pytest.raises(InstanceUnreadableError, match="damaged"):
        _read(b"\xff" * 100, DeflatedExplicitVRLittleEndian)


def test_an_identifier_that_occurs_twice_is_refused() -> None:
    data = encoded(make_instance())
    twice = data + _SOP_INSTANCE_UID + struct.pack("<H", 4) + b"1.2\0"
    with pytest.raises(InstanceUnreadableError, match="SOPInstanceUID occurs twice"):
        _read(twice)


def test_an_identifier_of_enormous_length_is_refused_before_it_is_read() -> None:
    data = _SOP_INSTANCE_UID + struct.pack("<H", 60000) + bytes(60000)
    with pytest.raises(InstanceUnreadableError, match="SOPInstanceUID is not a UID"):
        _read(data)


def test_deep_nesting_is_refused() -> None:
    level = _long((0x0040, 0xA730), b"SQ", 0xFFFFFFFF) + _ITEM
    with pytest.raises(InstanceUnreadableError, match="nested"):
        _read(level * 5000)


def _nest(depth: int, vr: bytes, item_length: int | None = None) -> bytes:
    """Return sequences of known length in one another; without a VR they are implicit."""
    value = b""
    for _ in range(depth):
        length = len(value) if item_length is None else item_length
        value = struct.pack("<HHL", 0xFFFE, 0xE000, length) + value
        head = (
            struct.pack("<HH2sH", 0x0040, 0xA730, vr, 0) if vr else struct.pack("<HH", 64, 0xA730)
        )
        value = head + struct.pack("<L", len(value)) + value
    return value


@pytest.mark.parametrize("depth", [65, 500, 10_000])
@pytest.mark.parametrize("vr", [b"SQ", b"UN", b""])
def test_nesting_of_known_lengths_is_refused_as_well(vr: bytes, depth: int) -> None:
    """Whoever reads such a sequence later would have to recurse."""
    nest = _nest(depth, b"" if vr == b"UN" else vr)
    if vr == b"UN":  # its value is implicit
        nest = struct.pack("<HH2sHL", 0x0040, 0xA730, vr, 0, len(nest) - 8) + nest[8:]
    with pytest.raises(InstanceUnreadableError, match="nested"):
        read_identifiers(
            encoded(make_instance(), is_implicit=not vr) + nest,
            ImplicitVRLittleEndian if not vr else ExplicitVRLittleEndian,
            limit_bytes=2**30,
        )


@pytest.mark.parametrize("vr", [b"SQ", b""])
def test_nesting_that_readers_survive_is_passed(vr: bytes) -> None:
    ds = make_instance()
    data = encoded(ds, is_implicit=not vr) + _nest(64, vr)
    syntax = ImplicitVRLittleEndian if not vr else ExplicitVRLittleEndian
    found = read_identifiers(data, syntax, limit_bytes=2**30)
    assert found.sop_instance_uid == ds.SOPInstanceUID


@pytest.mark.parametrize("inside", [bytes(3000), b"\xff" * 3000, _nest(40, b"SQ", 2**31) * 3])
def test_a_damaged_sequence_of_known_length_ends_where_it_says(inside: bytes) -> None:
    """Scanners write such sequences; the image is none the worse for them."""
    ds = make_instance()
    item = struct.pack("<HHL", 0xFFFE, 0xE000, len(inside)) + inside
    sequence = struct.pack("<HH2sHL", 0x7FF1, 0x10, b"SQ", 0, len(item)) + item
    found = read_identifiers(encoded(ds) + sequence * 2, ExplicitVRLittleEndian, limit_bytes=2**30)
    assert found.sop_instance_uid == ds.SOPInstanceUID


@pytest.mark.parametrize("inside", [_ITEM_END, _SEQUENCE_END[:4] + b"\1\0\0\0" + _ITEM])
def test_delimiters_in_the_wrong_place_are_refused(inside: bytes) -> None:
    data = _long((0x0040, 0xA730), b"SQ", 0xFFFFFFFF) + inside
    with pytest.raises(InstanceUnreadableError):
        _read(data)


def test_a_flood_of_empty_elements_is_refused() -> None:
    flood = struct.pack("<HH2sH", 0x0029, 0x1010, b"LO", 0) * 2_100_000
    with pytest.raises(InstanceUnreadableError, match="elements"):
        _read(_deflated(flood), DeflatedExplicitVRLittleEndian, limit=2**30)
    with pytest.raises(InstanceUnreadableError, match="elements"):
        _read(flood)


def test_a_deflated_bomb_is_refused_at_the_limit() -> None:
    bomb = (
        encoded(make_instance(PixelData=None)) + _long((0x7FE0, 0x10), b"OW", 2**27) + bytes(2**27)
    )
    with pytest.raises(InstanceTooLargeError):
        _read(_deflated(bomb), DeflatedExplicitVRLittleEndian, limit=2**20)


@pytest.mark.parametrize(
    "value", [b"1.2.840.10008", b"2.25.1\0", b"1.2.3 ", b"0", b"1.02.3", b"9" * 64]
)
def test_a_uid_is_taken_without_its_padding(value: bytes) -> None:
    assert checked_uid(value, "SOPInstanceUID") == value.rstrip(b"\0 ").decode()


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\0",
        b"  ",
        b"1" * 65,
        b"1..2",
        b".1",
        b"1.",
        b"1.2\n",
        b"1.2\n.3",
        b"1.2\0.3",
        b"1.2\\1.3",
        b"../../etc/passwd",
        b"1.2/3",
        b"1.2.a",
        b" 1.2",
        "1.\u0662".encode(),
        b"\xff\xfe",
    ],
)
def test_what_is_no_uid_is_refused_without_being_quoted(value: bytes) -> None:
    with pytest.raises(InstanceUnreadableError) as raised:
        checked_uid(value, "StudyInstanceUID")
    assert "StudyInstanceUID" in str(raised.value)
    text = value.decode("latin-1").strip()
    assert not text or text not in str(raised.value)


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"])
def test_a_missing_identifier_is_named(keyword: str) -> None:
    with pytest.raises(InstanceUnreadableError, match=f"{keyword} is missing"):
        _read(encoded(make_instance(**{keyword: None})))


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from([ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]),
)
def test_any_bytes_end_in_one_of_our_errors(data: bytes, syntax: str) -> None:
    with pytest.raises(NodeError):
        _read(data, syntax)


_WHOLE = encoded(make_instance())


@settings(max_examples=500, deadline=None)
@given(st.integers(0, len(_WHOLE) - 5), st.binary(min_size=1, max_size=4))
def test_a_damaged_data_set_ends_in_identifiers_or_in_one_of_our_errors(
    position: int, damage: bytes
) -> None:
    data = _WHOLE[:position] + damage + _WHOLE[position + len(damage) :]
    try:
        found = _read(data)
    except NodeError:
        return
    assert len(found.sop_instance_uid) <= 64


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(_WHOLE)), st.binary(max_size=4), st.integers(0, 20))
def test_passing_simple_elements_at_once_changes_nothing(
    position: int, damage: bytes, lost: int
) -> None:
    """Of a deflated data set each element is looked at by itself."""
    data = _WHOLE[:position] + damage + _WHOLE[position + len(damage) :]
    data = data[: len(data) - lost]
    deflated = _outcome(_deflated(data), DeflatedExplicitVRLittleEndian)
    assert _outcome(data, ExplicitVRLittleEndian) == deflated


def _outcome(data: bytes, syntax: str) -> Identifiers | str:
    try:
        return _read(data, syntax)
    except NodeError as error:
        return str(error)
