"""The labelled corpus keeps its form: known keywords, legal labels, nobody's identity.

Only rows written from protocols stand in the repository, none that was taken from somebody's data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from pydicom.datadict import dictionary_VR, tag_for_keyword

CORPUS = Path(__file__).resolve().parents[1] / "corpus"
PATH = CORPUS / "protocols.jsonl"
ROLES = {"FLAIR", "T1w", "T1gd", "T2w"}
REQUIRED = {"study", "dataset", "origin", "label", "kind", "attributes", "slice_count"}
OPTIONAL = {"hard", "weighting", "slices_estimated"}
FORBIDDEN_VR = {"UI", "PN", "DA", "DT", "AS", "SQ"}
FORBIDDEN_WORDS = re.compile(r"Institution|Patient(?!Position)|Station|Serial|Physician|Operator")
A_DATE_OR_UID = re.compile(r"\b(19|20)\d{2}[01]\d[0-3]\d\b|\d+(\.\d+){4,}")
A_CLOCK_FROM_NULL = re.compile(r"0[0-3][0-5]\d[0-5]\d")
FILE_MAX_BYTES = 1_000_000


def _rows() -> list[Mapping[str, object]]:
    with PATH.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _attributes(row: Mapping[str, object]) -> dict[str, object]:
    attributes = row["attributes"]
    assert isinstance(attributes, dict)
    return attributes


def _texts(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, str)]


def test_every_row_has_the_fields_of_the_format_and_a_legal_label() -> None:
    for row in _rows():
        assert REQUIRED <= set(row) <= REQUIRED | OPTIONAL
        assert row["origin"] == "protocol"
        assert row["label"] in ROLES | {"other"}
        assert bool(row["kind"]) == (row["label"] == "other")
        assert isinstance(row["slice_count"], int)
        assert row["slice_count"] >= 1


def test_every_attribute_is_a_dicom_keyword_that_identifies_nobody() -> None:
    for keyword in {keyword for row in _rows() for keyword in _attributes(row)}:
        assert tag_for_keyword(keyword) is not None, keyword
        assert dictionary_VR(keyword) not in FORBIDDEN_VR, keyword
        assert keyword == "ImageOrientationPatient" or not FORBIDDEN_WORDS.search(keyword), keyword


def test_no_text_holds_a_date_or_a_uid_and_clocks_start_at_null() -> None:
    for row in _rows():
        for keyword, value in _attributes(row).items():
            if dictionary_VR(keyword) == "TM":
                assert A_CLOCK_FROM_NULL.fullmatch(str(value)), keyword
            else:
                assert not any(A_DATE_OR_UID.search(text) for text in _texts(value)), keyword


def test_no_study_stands_in_two_datasets() -> None:
    pairs = {(row["study"], row["dataset"]) for row in _rows()}
    assert len(pairs) == len({study for study, _ in pairs})


def test_every_label_occurs_and_the_file_stays_small() -> None:
    assert {row["label"] for row in _rows()} == ROLES | {"other"}
    assert [path.name for path in CORPUS.glob("*.jsonl")] == [PATH.name]
    assert PATH.stat().st_size < FILE_MAX_BYTES
