"""The table of series: what stands where, on a narrow and on a wide terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node import series_table
from node.cases import SeriesDecision
from node.series_table import Row

ROLES = ("flair", "t1", "t1gd", "t2")
T1 = SeriesDecision(
    series_instance_uid="1.2.3",
    description="t1_se_tra",
    sequence="T1w",
    role="t1",
    score=0.95,
    runner_up="T1gd 0.10",
    reason="T1w: name says T1, TR 550 ms, TE 9.4 ms",
    geometry="44 slices, 0.94 x 0.94 x 5.50 mm, axial 17 degrees oblique, 2-D",
    instance_count=44,
    is_whole=True,
)
DWI = replace(
    T1,
    series_instance_uid="1.2.1",
    sequence="other: DWI",
    role=None,
    runner_up="",
    reason="other: DWI: the image type says so " * 8,
    is_whole=False,
    code="GEOM_DUPLICATE_SLICE",
)
FLAIR = replace(T1, series_instance_uid="1.2.2", sequence="FLAIR", role="flair")


def text(*decisions: SeriesDecision, width: int = 120) -> str:
    return "\n".join(series_table.lines(series_table.numbered(decisions), ROLES, width))


def test_what_the_model_gets_comes_first_in_its_order_and_keeps_its_number() -> None:
    rows = series_table.ordered(series_table.numbered([DWI, T1, FLAIR]), ROLES)
    assert [(row.number, row.decision.role) for row in rows] == [(2, "flair"), (3, "t1"), (1, None)]


def test_numbers_do_not_depend_on_what_is_chosen() -> None:
    before = series_table.numbered([T1, FLAIR])
    after = series_table.numbered([replace(FLAIR, role="t1"), replace(T1, role=None)])
    assert [row.decision.series_instance_uid for row in before] == [
        row.decision.series_instance_uid for row in after
    ]


def test_parts_of_one_series_have_numbers_of_their_own() -> None:
    parts = [replace(T1, part=name) for name in ("EchoTime=90", "EchoTime=11")]
    rows = series_table.numbered(parts)
    assert [(row.number, row.decision.part) for row in rows] == [
        (1, "EchoTime=11"),
        (2, "EchoTime=90"),
    ]
    assert '"t1_se_tra", of it EchoTime=11' in text(*parts)


def test_a_block_holds_figures_name_reason_code_and_its_sentence() -> None:
    broken = replace(T1, role=None, is_whole=False, code="GEOM_MISSING_SLICE")
    table = series_table.lines([Row(number=7, decision=broken, fault="a gap")], ROLES, 140)
    assert table[1].split()[:8] == ["7", "-", "T1w", "0.95", "T1gd", "0.10", "44", "44"]
    assert [line.strip() for line in table[2:]] == [
        '"t1_se_tra"',
        "T1w: name says T1, TR 550 ms, TE 9.4 ms",
        "GEOM_MISSING_SLICE: a gap",
    ]


def test_the_code_of_a_series_that_could_not_serve_is_left_out() -> None:
    assert "GEOM_DUPLICATE_SLICE" not in text(DWI)


def test_a_code_without_its_sentence_stands_alone() -> None:
    assert text(replace(T1, code="GEOM_SHEARED")).endswith("GEOM_SHEARED")


@pytest.mark.parametrize("width", [20, 80, 100, 120, 140, 400])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    allowed = max(series_table.NARROWEST, min(width, series_table.WIDEST))
    assert max(map(len, text(T1, DWI, FLAIR, width=width).splitlines())) <= allowed


def test_every_word_of_the_reason_is_printed_however_narrow() -> None:
    assert " ".join(text(DWI, width=80).split()).count("the image type says so") == 8


@given(st.text(max_size=64))
def test_a_description_is_printed_without_control_characters(description: str) -> None:
    for line in series_table.lines(
        [Row(number=1, decision=replace(T1, description=description))], ROLES, 120
    ):
        assert line.isprintable()


def test_programs_get_everything_but_the_uid() -> None:
    answer = series_table.as_json(Row(number=3, decision=T1))
    assert "1.2.3" not in str(answer)
    assert (answer["number"], answer["role"], answer["sentence"]) == (3, "t1", None)


def test_findings_are_printed_as_they_stand(capsys: pytest.CaptureFixture[str]) -> None:
    moved = {"role": "t2", "reason": "moved by 7.4 mm and 3.1 degrees"}
    kept = {"role": "t1", "reason": "headers kept: the best fit lies 0.1 mm away"}
    series_table.show_findings({"alignment": [moved, kept], "notes": ["CODE: a sentence"]})
    series_table.show_findings({})
    assert capsys.readouterr().out.splitlines() == [
        "  alignment of t2: moved by 7.4 mm and 3.1 degrees",
        "  alignment of t1: headers kept: the best fit lies 0.1 mm away",
        "  note: CODE: a sentence",
    ]
