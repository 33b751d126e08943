"""Values as files hold them, whatever they hold."""

from __future__ import annotations

import struct

import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from converters import sequence_values


def _raw(keyword: str, value: bytes, *, is_little: bool = True) -> Dataset:
    ds, tag = Dataset(), Tag(keyword)
    ds[tag] = RawDataElement(tag, None, len(value), value, 0, is_little, is_little)
    return ds


@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("RepetitionTime", b"500", (500.0,)),
        ("RepetitionTime", b"500\\x\\600 ", (500.0, 600.0)),
        ("RepetitionTime", b"nan", ()),
        ("RepetitionTime", b"1e99", ()),
        ("InversionTimes", struct.pack("<2d", 150.0, 2500.0), (150.0, 2500.0)),
        ("InversionTimes", struct.pack("<d", float("inf")), ()),
        ("InversionTimes", b"abc", ()),
        ("RFEchoTrainLength", struct.pack("<H", 16), (16.0,)),
    ],
)
def test_numbers_are_read_from_text_and_from_binary(
    keyword: str, value: bytes, expected: tuple[float, ...]
) -> None:
    assert sequence_values.numbers(_raw(keyword, value), keyword) == expected


def test_the_byte_order_of_the_file_counts() -> None:
    ds = _raw("InversionTimes", struct.pack(">d", 2500.0), is_little=False)
    assert sequence_values.numbers(ds, "InversionTimes") == (2500.0,)


def test_what_is_absent_is_nothing() -> None:
    assert sequence_values.number(Dataset(), "RepetitionTime") is None
    assert sequence_values.word(Dataset(), "Modality") == ""
    assert sequence_values.words(Dataset(), "ImageType") == ()


def test_text_without_end_is_cut() -> None:
    ds = _raw("SeriesDescription", b"x" * 5000)
    assert len(sequence_values.text(ds, Tag("SeriesDescription"))) == 1024
