"""A case on its way through the ledger: moves, endings, attempts, results, receipts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from node import schema, tables
from node.cases import CaseState, DeliveryReceipt, Ending, Stage, Transport
from node.errors import (
    CaseNotHeldError,
    CaseOvertakenError,
    CaseUnknownError,
    IllegalTransitionError,
    LedgerSchemaError,
)
from node.ledger import Ledger
from node.reading import LedgerReader
from node.rows import CaseRow
from tests.ledgers import (
    CANCELLED,
    FAILED,
    REJECTED,
    START,
    advanced,
    closed,
    encoded,
    held,
    opened,
)
from tests.waiting import wait_until

pytestmark = pytest.mark.databases


# -- moving ---------------------------------------------------------------------------------------


def test_an_illegal_move_changes_nothing(ledger: Ledger) -> None:
    row = opened(ledger)
    with pytest.raises(IllegalTransitionError):
        ledger.move(row.case_id, CaseState.DELIVERED)
    assert ledger.case(row.case_id) == row


def test_a_repeated_move_is_none(ledger: Ledger) -> None:
    row = closed(ledger, opened(ledger))
    ledger.move(row.case_id, CaseState.COMPLETE)
    assert ledger.case(row.case_id) == row


@pytest.mark.parametrize("call", ["case", "move", "end_case", "reopen", "assembled", "release"])
def test_a_case_that_does_not_exist_is_named_so(ledger: Ledger, call: str) -> None:
    more: dict[str, tuple[Any, ...]] = {"move": (CaseState.COMPLETE,), "end_case": (REJECTED,)}
    with pytest.raises(CaseUnknownError):
        getattr(ledger, call)("0" * 32, *more.get(call, ()))


@pytest.mark.parametrize("ending", [REJECTED, FAILED, CANCELLED])
def test_a_stopped_case_goes_on_where_it_stood_as_a_new_run(ledger: Ledger, ending: Ending) -> None:
    row = advanced(ledger, opened(ledger), CaseState.SEGMENTED)
    ledger.end_case(row.case_id, ending)
    after = ledger.reopen(row.case_id)
    assert (after.state, after.run) == (CaseState.SEGMENTED, 2)
    assert (after.code, after.sentence, after.advice, after.resume_state) == (None,) * 4


@pytest.mark.parametrize("ending", [REJECTED, FAILED, CANCELLED])
def test_a_case_that_was_stopped_while_open_is_open_again(ledger: Ledger, ending: Ending) -> None:
    row = opened(ledger)
    ledger.end_case(row.case_id, ending)
    assert ledger.reopen(row.case_id).state is CaseState.RECEIVING


def test_a_delivered_case_cannot_be_reopened(ledger: Ledger) -> None:
    row = advanced(ledger, opened(ledger), CaseState.DELIVERED)
    with pytest.raises(IllegalTransitionError):
        ledger.reopen(row.case_id)


def test_a_second_ending_does_not_hide_the_first(ledger: Ledger) -> None:
    row = opened(ledger)
    ledger.end_case(row.case_id, FAILED)
    ledger.end_case(row.case_id, replace(FAILED, code="OTHER", sentence="another"))
    assert ledger.case(row.case_id).code == "UNFORESEEN"


def test_a_later_revision_supersedes_ended_ones_only(ledger: Ledger) -> None:
    first = advanced(ledger, opened(ledger), CaseState.DELIVERED)
    second = advanced(ledger, opened(ledger, "1.1.2"), CaseState.ENCODED)
    third = opened(ledger, "1.1.3")
    ledger.supersede_earlier(third)
    states = [ledger.case(row.case_id).state for row in (first, second, third)]
    assert states == [CaseState.SUPERSEDED, CaseState.ENCODED, CaseState.RECEIVING]


# -- results that wait for a person ---------------------------------------------------------------


def test_a_held_result_says_why_and_goes_on_once_it_is_released(ledger: Ledger) -> None:
    row = held(ledger, opened(ledger))
    assert (row.state, row.code) == (CaseState.HELD, "RESULT_HELD")
    assert "INPUT_MISSING" in str(row.sentence)
    after = ledger.release(row.case_id)
    assert (after.state, after.code, after.sentence, after.advice) == (
        CaseState.ENCODED,
        *3 * (None,),
    )
    assert after.summary is not None
    assert after.summary["held_for"] == ["INPUT_MISSING"]
    assert after.summary["released_at"]
    assert after.run == row.run


def test_a_result_that_is_not_held_cannot_be_released(ledger: Ledger) -> None:
    row = advanced(ledger, opened(ledger), CaseState.ENCODED)
    with pytest.raises(CaseNotHeldError):
        ledger.release(row.case_id)


def test_a_released_result_that_could_not_be_delivered_is_not_held_again(ledger: Ledger) -> None:
    row = held(ledger, opened(ledger))
    ledger.release(row.case_id)
    ledger.end_case(row.case_id, FAILED)
    assert ledger.reopen(row.case_id).state is CaseState.ENCODED


def test_a_cancelled_held_result_is_held_again_with_its_reason(ledger: Ledger) -> None:
    row = held(ledger, opened(ledger))
    ledger.end_case(row.case_id, CANCELLED)
    again = ledger.reopen(row.case_id)
    assert (again.state, again.code, again.sentence) == (row.state, row.code, row.sentence)


def test_the_result_of_a_later_revision_takes_a_held_one_back(ledger: Ledger) -> None:
    first = held(ledger, opened(ledger))
    second = advanced(ledger, opened(ledger, "1.1.2"), CaseState.SEGMENTED)
    assert ledger.case(first.case_id).state is CaseState.HELD
    ledger.save_result(encoded(second), summary={})
    after = ledger.case(first.case_id)
    assert (after.state, after.resume_state) == (CaseState.SUPERSEDED, CaseState.HELD)
    assert after.code is None
    assert ledger.case(second.case_id).state is CaseState.ENCODED


# -- work that was overtaken ----------------------------------------------------------------------


def _labels_written(ledger: Ledger, begun: CaseRow) -> None:
    ledger.advance(begun, CaseState.SEGMENTED)


def _result_written(ledger: Ledger, begun: CaseRow) -> None:
    ledger.save_result(encoded(begun), summary={}, begun=begun)


@pytest.mark.parametrize(
    ("state", "work"),
    [(CaseState.ASSEMBLED, _labels_written), (CaseState.SEGMENTED, _result_written)],
)
def test_work_on_a_case_that_was_cancelled_meanwhile_moves_nothing(
    ledger: Ledger, state: CaseState, work: Callable[[Ledger, CaseRow], None]
) -> None:
    begun = advanced(ledger, opened(ledger), state)
    ledger.end_case(begun.case_id, CANCELLED)
    with pytest.raises(CaseOvertakenError, match="cancelled"):
        work(ledger, begun)
    assert ledger.case(begun.case_id).state is CaseState.CANCELLED
    assert ledger.results(begun.case_id) == []
    ledger.reopen(begun.case_id)
    with pytest.raises(CaseOvertakenError):
        work(ledger, begun)  # of the run before
    assert ledger.case(begun.case_id).state is state
    work(ledger, ledger.case(begun.case_id))
    work(ledger, replace(begun, run=2))  # done twice, as after a crash
    assert ledger.case(begun.case_id).state is not state


def test_cases_are_counted_by_state(ledger: Ledger) -> None:
    opened(ledger)
    closed(ledger, opened(ledger, "2.1", study="2"))
    counts = ledger.counts()
    assert set(counts) == set(CaseState)
    assert (counts[CaseState.RECEIVING], counts[CaseState.COMPLETE]) == (1, 1)
    assert sum(counts.values()) == 2


def test_cases_are_listed_by_state_and_in_pages(ledger: Ledger) -> None:
    for number in range(5):
        row = opened(ledger, f"{number}.1", study=str(number))
        if number % 2:
            closed(ledger, row)
    assert len(ledger.cases(CaseState.COMPLETE)) == 2
    pages = [ledger.cases(limit=2, offset=offset) for offset in (0, 2, 4)]
    assert len({row.case_id for page in pages for row in page}) == 5


# -- attempts, results, receipts ------------------------------------------------------------------


def test_an_attempt_is_never_overwritten(ledger: Ledger) -> None:
    row = opened(ledger)
    first = ledger.begin_attempt(row.case_id, Stage.DELIVER, "pacs")
    second = ledger.begin_attempt(row.case_id, Stage.DELIVER, "pacs")
    ledger.end_attempt(first, outcome="failed", code="PEER_UNAVAILABLE", sentence="refused")
    ledger.end_attempt(first, outcome="done")
    attempts = ledger.attempts(row.case_id)
    assert [one.attempt_id for one in attempts] == [first, second]
    assert (attempts[0].outcome, attempts[0].code) == ("failed", "PEER_UNAVAILABLE")
    assert (attempts[1].outcome, attempts[1].ended_at) == (None, None)


def test_a_result_moves_the_case_and_a_repeated_one_is_the_same(ledger: Ledger) -> None:
    row = advanced(ledger, opened(ledger), CaseState.SEGMENTED)
    for _ in range(2):
        ledger.save_result(encoded(row), summary={"notes": ["a"]})
    assert ledger.results(row.case_id) == [encoded(row)]
    after = ledger.case(row.case_id)
    assert (after.state, after.summary) == (CaseState.ENCODED, {"notes": ["a"]})


def test_a_result_of_a_case_that_was_cancelled_is_not_saved(ledger: Ledger) -> None:
    row = advanced(ledger, opened(ledger), CaseState.ASSEMBLED)
    with pytest.raises(IllegalTransitionError):
        ledger.save_result(encoded(row), summary={})
    assert ledger.results(row.case_id) == []


def test_the_first_receipt_stands(ledger: Ledger) -> None:
    row = opened(ledger)
    receipt = DeliveryReceipt(
        case_id=row.case_id,
        destination="pacs",
        transport=Transport.STOW,
        sop_instance_uid="2.25.1",
        status_code="200",
        attempt=1,
        delivered_at=START,
    )
    ledger.save_receipt(receipt)
    ledger.save_receipt(replace(receipt, attempt=2, delivered_at=START + timedelta(hours=1)))
    ledger.save_receipt(replace(receipt, destination="other", attempt=3))
    found = {one.destination: one for one in ledger.receipts(row.case_id)}
    assert found == {"pacs": receipt, "other": replace(receipt, destination="other", attempt=3)}


# -- the database ---------------------------------------------------------------------------------


def test_a_ledger_opens_again_with_what_it_held(database_url: str) -> None:
    first = Ledger(database_url)
    row = opened(first)
    first.close()
    second = Ledger(database_url)
    assert second.case(row.case_id) == row
    second.close()


@pytest.mark.parametrize("version", [schema.OLDEST - 1, tables.SCHEMA_VERSION + 1])
def test_a_ledger_of_another_version_is_refused_and_left_as_it_is(
    database_url: str, version: int
) -> None:
    other = sa.create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    with other.begin() as connection:
        for statement in (
            "CREATE TABLE ledger_meta (schema_version INTEGER NOT NULL)",
            f"INSERT INTO ledger_meta VALUES ({version})",
            "CREATE TABLE imaging_case (case_id TEXT)",
        ):
            connection.execute(sa.text(statement))
    for kind in (Ledger, LedgerReader):
        with pytest.raises(LedgerSchemaError, match=f"version {version}, this program needs"):
            kind(database_url)
    assert sorted(sa.inspect(other).get_table_names()) == ["imaging_case", "ledger_meta"]
    other.dispose()


@pytest.mark.parametrize("step_s", [-7200.0, 7200.0])
def test_an_attempt_lasts_as_long_as_it_does_whatever_the_clock_is_set_to(
    ledger: Ledger, step_s: float
) -> None:
    row = opened(ledger)
    attempt_id = ledger.begin_attempt(row.case_id, Stage.CONVERT)
    with ledger.engine.begin() as connection:  # as if the clock had been set since
        table = tables.attempt
        connection.execute(table.update().values(started_at=table.c.started_at - step_s))
    ledger.end_attempt(attempt_id, outcome="done")
    (attempt,) = ledger.attempts(row.case_id)
    assert attempt.ended_at is not None
    assert 0.0 <= (attempt.ended_at - attempt.started_at).total_seconds() < 60.0


def test_a_worker_that_beats_is_young_and_ages_otherwise(ledger: Ledger) -> None:
    def age() -> float:
        (worker,) = ledger.workers()
        return worker.age_s

    ledger.beat("work-1", role="work", host="here", pid=1, detail={"device": "cpu"})
    assert 0.0 <= age() < 5.0
    wait_until(lambda: age() > 0.2, 10.0, "the worker to age")
    before = age()
    ledger.beat("work-1", role="work", host="here", pid=1)
    assert age() < before
