"""Values out of headers, as they stand in a file and as a program puts them there."""

from __future__ import annotations

import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from converters import attributes
from converters.errors import MissingAttributeError

SPACING = Tag("PixelSpacing")
ROWS = Tag("Rows")
FRAME = Tag("FrameOfReferenceUID")


def _raw(keyword: str, value: bytes | None, *, is_little: bool = True) -> Dataset:
    """Return a header with one element as it stands in a file."""
    tag = Tag(keyword)
    length = len(value or b"")
    return Dataset({tag: RawDataElement(tag, "UN", length, value, 0, False, is_little)})  # noqa: FBT003 - pydicom's own order


def _made(keyword: str, value: object) -> Dataset:
    ds = Dataset()
    setattr(ds, keyword, value)
    return ds


@pytest.mark.parametrize(
    "header",
    [_raw("PixelSpacing", b"0.5\\0.75 "), _made("PixelSpacing", [0.5, 0.75])],
)
def test_numbers_are_the_same_from_file_and_program(header: Dataset) -> None:
    assert attributes.numbers(header, SPACING, instance=0, count=2) == (0.5, 0.75)


@pytest.mark.parametrize(
    "value",
    [b"", None, b"1", b"1\\2\\3", b"1\\x", b"nan\\1", b"1\\inf", b"1e7\\1", b"1_0\\1", b"\xff\\1",
     b"1..2\\1", b"-\\1", b"0x1\\1", "\u0661\\1".encode()],
)  # fmt: skip
def test_anything_but_the_wanted_numbers_is_refused(value: bytes | None) -> None:
    with pytest.raises(MissingAttributeError) as caught:
        attributes.numbers(_raw("PixelSpacing", value), SPACING, instance=7, count=2)
    assert caught.value.evidence == {"keyword": "PixelSpacing", "instance": 7}


@pytest.mark.parametrize("is_little", [True, False])
def test_whole_numbers_follow_the_byte_order_of_the_file(is_little: bool) -> None:  # noqa: FBT001 - a case
    value = b"\x02\x01" if is_little else b"\x01\x02"
    assert (
        attributes.whole_number(_raw("Rows", value, is_little=is_little), ROWS, instance=0) == 258
    )


@pytest.mark.parametrize(
    "header",
    [Dataset(), _raw("Rows", b"\1"), _raw("Rows", b"\1\0\1\0"), _raw("Rows", None),
     _made("Rows", [1, 2]), _made("Rows", None)],
)  # fmt: skip
def test_anything_but_one_whole_number_is_refused(header: Dataset) -> None:
    with pytest.raises(MissingAttributeError, match="Rows is missing or unusable in instance 3"):
        attributes.whole_number(header, ROWS, instance=3)
    assert attributes.optional_whole_number(header, ROWS) is None


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (_raw("EchoTime", b"8.5\\9"), 8.5),
        (_raw("EchoTime", b"soon"), None),
        (Dataset(), None),
        (_made("EchoTime", "12"), 12.0),
    ],
)
def test_an_optional_number_is_the_first_usable_one(header: Dataset, wanted: float | None) -> None:
    assert attributes.optional_number(header, Tag("EchoTime")) == wanted


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (Dataset(), ""),
        (_raw("FrameOfReferenceUID", b"\0"), ""),
        (_made("FrameOfReferenceUID", "1.2"), "1.2"),
    ],
)
def test_a_uid_may_be_absent(header: Dataset, wanted: str) -> None:
    assert attributes.optional_uid(header, FRAME, instance=0) == wanted


@pytest.mark.parametrize("value", [b"1.2\\1.3", b"../x", b"1" * 65, b"1.2 3"])
def test_a_uid_that_is_none_is_refused(value: bytes) -> None:
    with pytest.raises(MissingAttributeError):
        attributes.optional_uid(_raw("FrameOfReferenceUID", value), FRAME, instance=0)


def test_a_sequence_is_present_but_has_no_text() -> None:
    header = _made("ReferencedImageSequence", [Dataset()])
    tag = Tag("ReferencedImageSequence")
    assert attributes.is_present(header, tag)
    assert attributes.texts(header, tag) == ()
    assert not attributes.is_present(Dataset(), tag)


def test_text_is_read_in_the_headers_own_character_set() -> None:
    header = _raw("SeriesDescription", "Sch\u00e4del".encode())
    assert attributes.free_text(header, Tag("SeriesDescription")) == "Sch\u00c3\u00a4del"
    header.SpecificCharacterSet = "ISO_IR 192"
    assert attributes.free_text(header, Tag("SeriesDescription")) == "Sch\u00e4del"


def test_bytes_that_are_no_text_do_no_harm() -> None:
    header = _raw("SeriesDescription", b"T1 \xff\xfe")
    header.SpecificCharacterSet = "ISO_IR 192"
    assert attributes.free_text(header, Tag("SeriesDescription")).startswith("T1 ")
