"""What a case is told from outside: its sender has hung up, an operator wants something of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, timedelta

import pytest

from converters.sequences import SeriesKey
from node.cases import CaseState, Ending
from node.errors import (
    CaseNotOpenError,
    CaseUnknownError,
    RoleUnknownError,
    SeriesTakenError,
    SeriesUnknownError,
)
from node.ledger import Ledger
from tests.ledgers import (
    CANCELLED,
    DECISION,
    FAILED,
    MODEL,
    REJECTED,
    START,
    advanced,
    assembled,
    closed,
    encoded,
    instance,
    newest,
    opened,
)

ROLES = ("flair", "t2")
CHOSEN = {"flair": SeriesKey("1.1")}

# -- the sender has hung up -----------------------------------------------------------------------


def test_a_release_is_noted_with_the_open_cases_of_its_studies(ledger: Ledger) -> None:
    mine, other = opened(ledger), opened(ledger, "2.1", study="2")
    at = START + timedelta(seconds=9)
    ledger.record_release(["1", "7"], model_id=MODEL, released_at=at)
    assert ledger.case(mine.case_id) == replace(mine, released_at=at)
    assert ledger.case(other.case_id) == other
    assert at.tzinfo is UTC


def test_a_release_leaves_closed_cases_and_other_models_alone(ledger: Ledger) -> None:
    row = closed(ledger, opened(ledger))
    ledger.record_release(["1"], model_id=MODEL, released_at=START)
    ledger.record_release(["1"], model_id="other@1", released_at=START)
    assert ledger.case(row.case_id) == row


# -- what an open case waits for ------------------------------------------------------------------


def test_what_an_open_case_waits_for_is_kept_with_its_table(ledger: Ledger) -> None:
    row = opened(ledger)
    ledger.note_waiting(row.case_id, "t2 is missing", [DECISION])
    assert ledger.case(row.case_id).reason == "t2 is missing"
    assert ledger.decisions(row.case_id) == [DECISION]
    ledger.note_waiting(row.case_id, "silence", [])
    assert ledger.decisions(row.case_id) == []


def test_a_closed_case_waits_for_nothing(ledger: Ledger) -> None:
    row = closed(ledger, opened(ledger))
    ledger.note_waiting(row.case_id, "t2 is missing", [])
    assert ledger.case(row.case_id) == row
    assert ledger.decisions(row.case_id) == [DECISION]


# -- closing by hand ------------------------------------------------------------------------------


def test_an_operator_asks_for_an_open_case_to_be_closed(ledger: Ledger) -> None:
    row = opened(ledger)
    ledger.request_completion(row.case_id)
    assert ledger.case(row.case_id).completion_requested_at is not None


def test_a_retry_forgets_that_an_operator_wanted_the_case_closed(ledger: Ledger) -> None:
    row = opened(ledger)
    ledger.request_completion(row.case_id)
    ledger.end_case(row.case_id, REJECTED)
    assert ledger.reopen(row.case_id).completion_requested_at is None


@pytest.mark.parametrize("ending", [REJECTED, FAILED, CANCELLED])
def test_a_case_that_does_not_receive_cannot_be_closed_by_hand(
    ledger: Ledger, ending: Ending
) -> None:
    row = opened(ledger)
    ledger.end_case(row.case_id, ending)
    with pytest.raises(CaseNotOpenError, match=ending.state.value):
        ledger.request_completion(row.case_id)


def test_an_unknown_case_is_named_so(ledger: Ledger) -> None:
    with pytest.raises(CaseUnknownError):
        ledger.request_completion("0" * 32)
    with pytest.raises(CaseUnknownError):
        ledger.choose_series("0" * 32, {}, roles=ROLES)


# -- choosing by hand -----------------------------------------------------------------------------


def test_a_choice_for_an_open_case_is_kept_and_replaced_and_taken_back(ledger: Ledger) -> None:
    row = opened(ledger)
    after = ledger.choose_series(row.case_id, CHOSEN, roles=ROLES)
    assert after == replace(row, updated_at=after.updated_at)
    assert after.updated_at > row.updated_at  # which is how others see that something changed
    assert ledger.choices(row.case_id) == CHOSEN
    ledger.choose_series(row.case_id, {"t2": SeriesKey("1.1")}, roles=ROLES)
    assert ledger.choices(row.case_id) == {"t2": SeriesKey("1.1")}
    ledger.choose_series(row.case_id, {}, roles=ROLES)
    assert ledger.choices(row.case_id) == {}


@pytest.mark.parametrize(
    "key", [SeriesKey("1.9"), SeriesKey("1.1", "EchoTime=9"), SeriesKey("2.1")]
)
def test_a_series_that_the_study_lacks_cannot_be_chosen(ledger: Ledger, key: SeriesKey) -> None:
    row = opened(ledger)
    opened(ledger, "2.1.1", study="2")
    with pytest.raises(SeriesUnknownError, match="flair"):
        ledger.choose_series(row.case_id, {"flair": key}, roles=ROLES)


def test_a_part_is_chosen_by_the_name_that_the_table_shows(ledger: Ledger) -> None:
    row = opened(ledger)
    shown = replace(DECISION, part="EchoTime=90")
    ledger.note_waiting(row.case_id, "", [shown])
    with pytest.raises(SeriesUnknownError):
        ledger.choose_series(row.case_id, CHOSEN, roles=ROLES)
    chosen = {"flair": SeriesKey("1.1", "EchoTime=90")}
    ledger.choose_series(row.case_id, chosen, roles=ROLES)
    assert ledger.choices(row.case_id) == chosen


def test_a_role_that_the_model_lacks_cannot_be_filled(ledger: Ledger) -> None:
    row = opened(ledger)
    with pytest.raises(RoleUnknownError, match="flair, t2"):
        ledger.choose_series(row.case_id, {"pd": SeriesKey("1.1")}, roles=ROLES)


def test_one_series_cannot_serve_two_roles(ledger: Ledger) -> None:
    row = opened(ledger)
    both = {"flair": SeriesKey("1.1"), "t2": SeriesKey("1.1")}
    with pytest.raises(SeriesTakenError, match="flair and for t2"):
        ledger.choose_series(row.case_id, both, roles=ROLES)
    assert ledger.choices(row.case_id) == {}


@pytest.mark.parametrize("ending", [REJECTED, FAILED, CANCELLED])
def test_an_ended_case_is_decided_anew_by_the_choice_when_it_is_retried(
    ledger: Ledger, ending: Ending
) -> None:
    row = advanced(ledger, opened(ledger), CaseState.ASSEMBLED)
    ledger.end_case(row.case_id, ending)
    chosen = ledger.choose_series(row.case_id, CHOSEN, roles=ROLES)
    assert (chosen.case_id, chosen.state) == (row.case_id, ending.state)
    again = ledger.reopen(row.case_id)
    assert (again.state, again.run) == (CaseState.RECEIVING, 2)
    assert ledger.choices(row.case_id) == CHOSEN
    assert ledger.close_case(assembled(ledger, again), [DECISION], "anew", seen_instances=1)
    assert ledger.case(row.case_id).reason == "anew"


def test_a_case_with_a_result_keeps_it_and_the_choice_opens_the_next_revision(
    ledger: Ledger,
) -> None:
    row = advanced(ledger, opened(ledger), CaseState.SEGMENTED)
    ledger.save_result(encoded(row), summary={})
    ledger.end_case(row.case_id, FAILED)
    after = ledger.choose_series(row.case_id, CHOSEN, roles=ROLES)
    assert (after.revision, after.state) == (2, CaseState.RECEIVING)
    assert ledger.choices(after.case_id) == CHOSEN
    assert ledger.choices(row.case_id) == {}
    assert ledger.case(row.case_id).state is CaseState.SUPERSEDED


def test_a_case_that_works_or_was_superseded_takes_no_choice(ledger: Ledger) -> None:
    first = closed(ledger, opened(ledger))
    with pytest.raises(CaseNotOpenError, match="complete"):
        ledger.choose_series(first.case_id, CHOSEN, roles=ROLES)
    opened(ledger, "1.1.2")
    with pytest.raises(CaseNotOpenError, match="newest revision"):
        ledger.choose_series(first.case_id, CHOSEN, roles=ROLES)


@pytest.mark.parametrize("ending", [REJECTED, FAILED, CANCELLED])
def test_a_choice_goes_on_to_the_next_revision(ledger: Ledger, ending: Ending) -> None:
    row = opened(ledger)
    ledger.choose_series(row.case_id, CHOSEN, roles=ROLES)
    ledger.end_case(row.case_id, ending)
    ledger.record_instance(instance("1.1.2", at=99), model_id=MODEL)
    assert newest(ledger).revision == 2
    assert ledger.choices(newest(ledger).case_id) == CHOSEN


def test_a_case_is_not_closed_by_a_decision_that_did_not_know_the_choice(ledger: Ledger) -> None:
    row = opened(ledger)
    case = assembled(ledger, row)
    ledger.choose_series(row.case_id, CHOSEN, roles=ROLES)
    for choices, is_done in (({}, False), (CHOSEN, True)):
        done = ledger.close_case(case, [DECISION], "whole", seen_instances=1, seen_choices=choices)
        assert done is is_done
