"""Whose a derived object is: the same patient and study, absent attributes empty."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from converters import read_back
from converters.errors import ReadBackError
from converters.read_back import check_origin

KEYWORDS = (*read_back._PATIENT_AND_STUDY, *read_back._IMAGE_PLANE)
VALUES: dict[str, tuple[object, object]] = {
    "PatientBirthDate": ("19700101", "19700102"),
    "PatientSex": ("F", "M"),
    "StudyDate": ("20250301", "20250302"),
    "StudyTime": ("120000", "120001"),
    "Rows": (4, 5),
    "Columns": (4, 5),
}


def values(keyword: str) -> tuple[object, object]:
    return VALUES.get(keyword, ("1", "2"))


def header() -> Dataset:
    ds = Dataset()
    for keyword in KEYWORDS:
        setattr(ds, keyword, values(keyword)[0])
    return ds


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_each_attribute_is_compared(keyword: str) -> None:
    check_origin(header(), header(), has_planes=True)
    other = header()
    setattr(other, keyword, values(keyword)[1])
    with pytest.raises(ReadBackError, match=keyword):
        check_origin(other, header(), has_planes=True)


@pytest.mark.parametrize("keyword", read_back._PATIENT_AND_STUDY)
def test_what_the_source_lacks_is_there_and_empty(keyword: str) -> None:
    source, written = header(), header()
    del source[keyword]
    with pytest.raises(ReadBackError, match=keyword):
        check_origin(written, source)
    setattr(written, keyword, None)
    check_origin(written, source)
    del written[keyword]
    with pytest.raises(ReadBackError, match="absent"):
        check_origin(written, source)


def test_an_object_without_planes_has_its_own_matrix() -> None:
    written = header()
    written.Rows = 9
    check_origin(written, header())
