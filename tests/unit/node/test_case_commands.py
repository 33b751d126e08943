"""`neuroseg cases` against a real ledger: what is shown of a case and what an operator can do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from converters.sequences import SeriesKey
from node.__main__ import main
from node.cases import CaseState, Priority
from node.orders import OrderBook
from tests.nodes import destination
from tests.web_cases import MODEL_FOLDER, WebNode, unused

UNKNOWN = "0" * 32
DESTINATION = destination("pacs", port=104)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[WebNode]:
    made = WebNode.create(tmp_path / "spool")
    yield made
    made.ledger.close()


def cases(node: WebNode, *arguments: str, extra: str = "") -> Result:
    """Run the command line on the node's ledger."""
    config = node.spool.root.parent / "node.toml"
    config.write_text(
        f"[spool]\npath = '{node.spool.root}'\n[model]\nfolder = '{MODEL_FOLDER}'\n{extra}",
        encoding="utf-8",
    )
    command = ["cases", "--config", str(config), *arguments]
    return CliRunner().invoke(main, command, catch_exceptions=False)


def flat(result: Result) -> str:
    """Return what was printed with every run of blanks as one."""
    return " ".join(result.output.split())


def test_cases_are_listed_with_what_became_of_them(node: WebNode) -> None:
    node.rejected("1.2.1")
    node.delivered("1.2.2")
    output = cases(node).output
    assert "STUDY_SEQUENCE_MISSING: no series serves as t1, t1gd" in output
    assert "Oedema 48.3 mL" in output
    listed = json.loads(cases(node, "--json").output)
    assert {one["state"] for one in listed} == {"rejected", "delivered"}


def test_a_delivered_case_shows_its_series_attempts_findings_and_volumes(node: WebNode) -> None:
    case_id = node.delivered("1.2.1")
    shown = flat(cases(node, "show", case_id))
    assert f"{case_id} delivered revision 1" in shown
    assert "12 images in 4 series" in shown
    assert "four series are whole" in shown
    assert "4 t2 T2w 0.97 PD 0.20 3 3 slices, 0.90 x 0.90 x 4.00 mm, axial, 2-D" in shown
    assert "alignment of flair: moved by 7.4 mm and 3.1 degrees" in shown
    assert "note: INPUT_UNUSUAL" in shown
    assert "segment" in shown
    assert "deliver" in shown
    assert "to pacs" in shown
    assert "Enhancing tumour 12.7 mL taken together, overlapping: Whole tumour 61.4 mL" in shown


def test_an_open_case_says_what_it_waits_for(node: WebNode) -> None:
    case_id = node.receive("1.2.1", roles=("flair",))
    assert "waits for" not in flat(cases(node, "show", case_id))
    node.wait(case_id, "12 images of 1 series that the PACS has")
    assert "waits for: 12 images of 1 series that the PACS has" in flat(
        cases(node, "show", case_id)
    )


def test_a_rejected_case_shows_its_code_sentence_and_advice(node: WebNode) -> None:
    shown = flat(cases(node, "show", node.rejected("1.2.1")))
    assert "STUDY_SEQUENCE_MISSING: no series serves as t1, t1gd" in shown
    assert "-> Send the missing sequence" in shown


def test_a_failed_delivery_is_shown_with_its_reason(node: WebNode) -> None:
    case_id = node.receive("1.2.1")
    node.close(case_id)
    node.encode(case_id)
    error = node.fail_delivery(case_id)
    shown = flat(cases(node, "show", case_id))
    assert "deliver" in shown
    assert f"to pacs: retry, 0.0 s: {error.code}: {error}" in shown


def test_a_delivery_that_waits_for_its_next_try_can_be_tried_now(node: WebNode) -> None:
    case_id = node.receive("1.2.1")
    node.close(case_id)
    node.encode(case_id)
    retried = cases(node, "retry", case_id).output
    assert f"{case_id}: what waits to be delivered is tried now" in retried
    assert OrderBook(node.ledger.engine).hasty() == [case_id]


def test_each_destination_is_shown_with_how_it_stands(node: WebNode) -> None:
    case_id = node.receive("1.2.1")
    node.close(case_id)
    node.encode(case_id)
    error = node.fail_delivery(case_id, next_in_s=60.0)
    shown = flat(cases(node, "show", case_id, extra=DESTINATION))
    assert "pacs: retry, 0 of 1 objects stored, attempts: 1, next 20" in shown
    assert f": {error.code}: {error}" in shown


@pytest.mark.parametrize("action", ["show", "retry", "release", "cancel", "complete"])
def test_a_case_that_there_is_not_is_an_error_with_its_code(node: WebNode, action: str) -> None:
    result = cases(node, action, UNKNOWN)
    assert result.exit_code == 1
    assert "CASE_UNKNOWN: there is no such case" in result.output


def test_an_open_case_is_completed_at_the_next_look(node: WebNode) -> None:
    case_id = node.receive("1.2.1")
    result = cases(node, "complete", case_id)
    assert result.exit_code == 0
    assert "closed at the node's next look" in result.output
    assert node.ledger.case(case_id).completion_requested_at is not None


def test_a_case_that_no_longer_receives_cannot_be_completed(node: WebNode) -> None:
    result = cases(node, "complete", node.delivered("1.2.1"))
    assert result.exit_code == 1
    assert "CASE_ACTION_UNAVAILABLE" in result.output


def test_a_failed_case_is_retried_where_it_stood(node: WebNode) -> None:
    case_id = node.failed("1.2.1")
    assert f"{case_id} goes on from assembled" in cases(node, "retry", case_id).output
    assert node.ledger.case(case_id).state is CaseState.ASSEMBLED


def test_a_held_result_says_why_and_is_released_once(node: WebNode) -> None:
    case_id = node.held("1.2.1")
    assert "RESULT_HELD: the result is held back because of INPUT_MISSING" in cases(node).output
    shown = cases(node, "show", case_id).output
    assert "note: INPUT_MISSING" in shown
    assert "neuroseg cases release" in shown
    assert f"{case_id} is released" in cases(node, "release", case_id).output
    assert node.ledger.case(case_id).state is CaseState.ENCODED
    again = cases(node, "release", case_id)
    assert again.exit_code == 1
    assert "CASE_ACTION_UNAVAILABLE" in again.output


def test_a_held_result_is_cancelled(node: WebNode) -> None:
    case_id = node.held("1.2.1")
    assert cases(node, "cancel", case_id).exit_code == 0
    row = node.ledger.case(case_id)
    assert (row.state, row.code) == (CaseState.CANCELLED, "CASE_CANCELLED")


def test_an_open_case_is_cancelled(node: WebNode) -> None:
    case_id = node.receive("1.2.1")
    assert f"{case_id} is cancelled" in cases(node, "cancel", case_id).output
    assert node.ledger.case(case_id).state is CaseState.CANCELLED


# -- choosing series by hand ----------------------------------------------------------------------


def test_a_choice_is_kept_and_repeated_in_words(node: WebNode) -> None:
    case_id = node.receive("1.2.1", roles=("flair", "t2"))
    node.wait(case_id, "t1", more=[unused("1.2.1", 4, description="ep2d")])
    result = cases(node, "choose", case_id, "t2=2", "flair=1")
    assert result.exit_code == 0
    assert 't2 = 2: "ep2d", other: DWI' in result.output
    assert f"{case_id} is decided by it at the node's next look" in result.output
    assert node.ledger.choices(case_id) == {
        "flair": SeriesKey("1.2.1.1"),
        "t2": SeriesKey("1.2.1.4"),
    }
    assert "chosen by hand: t2 = 2" in cases(node, "show", case_id).output


def test_a_part_of_a_series_can_be_chosen(node: WebNode) -> None:
    case_id = node.receive("1.2.1", roles=("flair", "t2"))
    parts = [unused("1.2.1", 4, part=f"EchoTime={echo}") for echo in (11, 90)]
    node.wait(case_id, "t1", more=parts)
    assert cases(node, "choose", case_id, "t2=3").exit_code == 0
    assert node.ledger.choices(case_id) == {"t2": SeriesKey("1.2.1.4", "EchoTime=90")}


def test_choices_are_taken_back(node: WebNode) -> None:
    case_id = node.receive("1.2.1")
    node.wait(case_id, "t1")
    cases(node, "choose", case_id, "t2=1")
    assert cases(node, "choose", case_id, "--none").exit_code == 0
    assert node.ledger.choices(case_id) == {}


def test_a_choice_for_a_rejected_case_says_how_to_start_it_again(node: WebNode) -> None:
    case_id = node.rejected("1.2.1")
    result = cases(node, "choose", case_id, "t1=1")
    assert f"start the case again: neuroseg cases retry {case_id}" in result.output
    assert "receiving" in cases(node, "retry", case_id).output


@pytest.mark.parametrize("story", ["delivered", "held"])
def test_a_choice_for_a_case_with_a_result_opens_the_next_revision(
    node: WebNode, story: str
) -> None:
    case_id: str = getattr(node, story)("1.2.1")
    result = cases(node, "choose", case_id, "t1=3")
    newest = node.ledger.cases(limit=1)[0]
    assert newest.revision == 2
    assert f"revision 2 of the study is opened for it: {newest.case_id}" in result.output


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ((), "name at least one ROLE=NUMBER, or give --none"),
        (("t1=1", "--none"), "name at least one ROLE=NUMBER, or give --none"),
        (("pet=1",), "the role is none of flair, t1, t1gd, t2"),
        (("t1",), "what follows = is no number of a series"),
        (("t1=01",), "what follows = is no number of a series"),
        (("t1=1", "t1=2"), "t1 is named twice"),
    ],
)
def test_a_choice_that_cannot_be_is_wrong_usage_and_changes_nothing(
    node: WebNode, choices: tuple[str, ...], words: str
) -> None:
    case_id = node.delivered("1.2.1")
    result = cases(node, "choose", case_id, *choices)
    assert result.exit_code == 2
    assert words in flat(result)
    assert node.ledger.choices(case_id) == {}
    assert len(node.ledger.cases()) == 1


def test_one_series_for_two_roles_is_refused_with_its_code(node: WebNode) -> None:
    case_id = node.delivered("1.2.1")
    result = cases(node, "choose", case_id, "t1=1", "t2=1")
    assert result.exit_code == 1
    assert "SERIES_CHOSEN_TWICE: one series was chosen for t1 and for t2" in result.output


def test_a_case_at_work_takes_no_choice(node: WebNode) -> None:
    case_id = node.receive("1.2.1")
    node.close(case_id)
    result = cases(node, "choose", case_id, "t1=2")
    assert result.exit_code == 1
    assert "CASE_ACTION_UNAVAILABLE" in result.output


def test_a_number_that_no_series_has_is_refused_with_its_code(node: WebNode) -> None:
    for case_id in (node.receive("1.2.1"), node.delivered("1.2.2")):
        result = cases(node, "choose", case_id, "t1=9")
        assert result.exit_code == 1
        assert "SERIES_UNKNOWN" in result.output
        assert node.ledger.choices(case_id) == {}


def test_a_case_gets_another_priority_while_it_is_under_way(node: WebNode) -> None:
    case_id = node.receive("1.2.1")
    assert f"{case_id} has high priority" in cases(node, "priority", case_id, "high").output
    assert node.ledger.case(case_id).priority is Priority.HIGH
    assert "priority high" in cases(node, "show", case_id).output
    assert " high " in cases(node).output
    done = cases(node, "priority", node.delivered("1.2.2"), "low")
    assert (done.exit_code, "CASE_ACTION_UNAVAILABLE" in done.output) == (1, True)
    assert cases(node, "priority", case_id, "first").exit_code == 2


def test_a_case_is_shown_to_programs_as_the_api_answers_it(node: WebNode) -> None:
    case_id = node.delivered("1.2.1")
    shown = json.loads(cases(node, "show", case_id, "--json").output)
    assert (shown["case_id"], shown["state"], shown["priority"]) == (
        case_id,
        "delivered",
        "normal",
    )
    assert len(shown["series"]) == 4
    assert shown["opened_at"].endswith("+00:00")


def test_a_description_cannot_steer_the_terminal(node: WebNode) -> None:
    case_id = node.receive("1.2.1", roles=("flair", "t2"))
    hostile = replace(unused("1.2.1", 4), description="\x1b[31mt2")
    node.wait(case_id, "t1", more=[hostile])
    assert "\x1b" not in cases(node, "choose", case_id, "t2=2").output
    assert "\x1b" not in cases(node, "show", case_id).output
