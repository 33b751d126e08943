"""What a site may say of its series."""

from __future__ import annotations

import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from converters.sequence_rules import Condition, Rule, Ruling, ruling


def _header(**elements: object) -> Dataset:
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


HEADER = _header(
    SeriesDescription="T1 Mprage KM",
    RepetitionTime="1900",
    FlipAngle="9",
    ImageType=["ORIGINAL", "PRIMARY", "M", "ND"],
    DiffusionBValue=0.0,
    ContrastBolusAgentSequence=[Dataset()],
    EchoTime=None,
)


@pytest.mark.parametrize(
    ("keyword", "condition", "holds"),
    [
        ("SeriesDescription", Condition(matches="mprage.*km$"), True),
        ("SeriesDescription", Condition(matches="^mprage"), False),
        ("SeriesDescription", Condition(any_of=("t1 mprage km",)), True),
        ("SeriesDescription", Condition(none_of=("T1 MPRAGE KM",)), False),
        ("RepetitionTime", Condition(at_least=1900.0), True),
        ("RepetitionTime", Condition(at_least=1901.0), False),
        ("RepetitionTime", Condition(at_most=1900.0), True),
        ("RepetitionTime", Condition(at_least=1.0, at_most=1899.0), False),
        ("RepetitionTime", Condition(any_of=("1900",)), True),
        ("EchoTime", Condition(at_least=0.0), False),
        ("EchoTime", Condition(is_present=False), True),
        ("EchoTime", Condition(none_of=("5",)), True),
        ("InversionTime", Condition(matches="."), False),
        ("ImageType", Condition(any_of=("nd", "dis2d")), True),
        ("ImageType", Condition(any_of=("dis2d",)), False),
        ("ImageType", Condition(none_of=("P",)), True),
        ("ImageType", Condition(matches=r"primary\\m"), True),
        ("ImageType", Condition(any_of=("M",), none_of=("ND",)), False),
        ("DiffusionBValue", Condition(at_most=0.0), True),
        ("ContrastBolusAgentSequence", Condition(is_present=True), True),
        ("ContrastBolusAgent", Condition(is_present=True), False),
        ("FlipAngle", Condition(is_present=True, at_most=10.0, matches="9"), True),
    ],
)
def test_a_condition_holds_or_does_not(keyword: str, condition: Condition, holds: bool) -> None:  # noqa: FBT001 - a case
    rule = Rule(name="one", role="t1", where={keyword: condition})
    assert rule.holds(HEADER) is holds


def test_binary_numbers_of_a_file_are_numbers_too() -> None:
    ds = Dataset()
    tag = Tag("DiffusionBValue")
    ds[tag] = RawDataElement(
        tag, "FD", 8, b"\0\0\0\0\0@\x8f@", 0, is_implicit_VR=False, is_little_endian=True
    )
    assert Condition(at_least=1000.0, any_of=("1000",)).holds(ds, "DiffusionBValue")


def test_names_are_read_in_the_character_set_of_the_header() -> None:
    ds = _header(SpecificCharacterSet="ISO_IR 192", SeriesDescription="\u00dcbersicht")
    assert Condition(any_of=("\u00fcbersicht",)).holds(ds, "SeriesDescription")


def test_every_condition_of_a_rule_must_hold() -> None:
    where = {"SeriesDescription": Condition(matches="t1"), "FlipAngle": Condition(at_least=50.0)}
    assert not Rule(name="both", role="t1", where=where).holds(HEADER)


def test_the_first_rule_that_holds_counts() -> None:
    t1 = {"SeriesDescription": Condition(matches="t1")}
    rules = [
        Rule(name="no", role="t2", where={"SeriesDescription": Condition(matches="t2")}),
        Rule(name="never", role=None, where=t1),
        Rule(name="late", role="t1", where=t1),
    ]
    assert ruling(HEADER, rules) == Ruling(role=None, rule="never")
    assert ruling(Dataset(), rules) is None


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({}, "must ask something"),
        ({"at_least": 2.0, "at_most": 1.0}, "at_least 2 lies above at_most 1"),
        ({"matches": "(("}, "is no regular expression"),
    ],
)
def test_a_condition_that_cannot_hold_is_refused(asked: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Condition(**asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "where", "sentence"),
    [
        (" ", {"Modality": Condition(matches="MR")}, "must have a name"),
        ("one", {}, "has no condition"),
        ("one", {"SeriesDescripton": Condition(matches="x")}, "is no DICOM keyword"),
        ("one", {"SeriesDescription": Condition(at_least=1.0)}, "is no number"),
        ("one", {"ContrastBolusAgentSequence": Condition(matches="x")}, "only is_present"),
        ("one", {"PixelData": Condition(matches="x")}, "only is_present"),
        ("one", {"RedPaletteColorLookupTableData": Condition(any_of=("x",))}, "only is_present"),
    ],
)
def test_a_rule_that_cannot_hold_is_refused(
    name: str, where: dict[str, Condition], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        Rule(name=name, role="t1", where=where)
