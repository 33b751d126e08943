"""Names of other projects mean what they say, and nothing is guessed."""

from __future__ import annotations

import pytest

from inference import tumour_names
from inference.tumour_names import CORE, ENHANCING, NECROSIS, OEDEMA, WHOLE


@pytest.mark.parametrize(
    ("role", "names"),
    [
        ("flair", ["FLAIR", "T2-FLAIR", "t2f", "T2 Flair", "flair_t2"]),
        ("t1", ["T1", "T1w", "t1n", "T1-weighted", "t1_pre"]),
        ("t1gd", ["T1c", "T1Gd", "t1ce", "T1-CE", "T1w post-contrast", "t1_contrast", "T1wce"]),
        ("t2", ["T2", "T2w", "t2_w"]),
        (None, ["ADC", "T1 map", "PET", "CT", "", "T2*", "noNorm", "0"]),
    ],
)
def test_sequences_are_told_by_their_usual_names(role: str | None, names: list[str]) -> None:
    for name in names:
        found = tumour_names.input_of(name)
        assert (None if found is None else found["role"]) == role, name


@pytest.mark.parametrize(
    ("meaning", "names"),
    [
        (OEDEMA, ["edema", "Oedema", "peritumoral edema", "Peritumoural oedema", "ED", "SNFH"]),
        (CORE, ["non-enhancing tumor", "NCR/NET", "necrotic and non-enhancing tumor core", "NETC"]),
        (NECROSIS, ["necrosis", "NCR", "Necrotic core", "necrotic tumour core"]),
        (ENHANCING, ["enhancing tumour", "ET", "GD-enhancing tumor", "Enhancing"]),
        (None, ["tumor", "resection cavity", "lesion", "1", ""]),
    ],
)
def test_labels_are_told_by_their_usual_names(
    meaning: tumour_names.Entry | None, names: list[str]
) -> None:
    for name in names:
        assert tumour_names.label_of(name) is meaning, name


def test_regions_are_known_together_and_widest_first() -> None:
    painted = tumour_names.painted_by
    assert painted(("WT", "TC", "ET")) == (OEDEMA, CORE, ENHANCING)
    assert painted(("whole tumour",)) == (WHOLE,)
    assert painted(("TC", "WT", "ET")) == (None, None, None)
    assert painted(("WT", "ET")) == (None, None)  # what is left of the whole is no one thing
    assert painted(("lesion",)) == (None,)


def test_regions_are_reported_where_all_parts_are_there() -> None:
    def numbered(*labels: tumour_names.Entry) -> list[tumour_names.Entry]:
        return [{"number": number, **one} for number, one in enumerate(labels, start=1)]

    whole, core = tumour_names.regions_of(numbered(NECROSIS, OEDEMA, CORE, ENHANCING))
    assert (whole["labels"], core["labels"]) == ([1, 2, 3, 4], [1, 3, 4])
    assert tumour_names.regions_of(numbered(OEDEMA, ENHANCING)) == []
    assert tumour_names.regions_of(numbered(WHOLE)) == []


def test_names_are_safe_to_print() -> None:
    assert tumour_names.shown("a\x1b[31m\n" + "b" * 100) == "a?[31m?" + "b" * 53
