"""Steps and attempts of a case."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from node.cases import CaseState, ClosedBy, Stage
from node.errors import PeerUnavailableError
from node.rows import AttemptRow, CaseRow, WorkerRow
from node.web import progress

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NOW = START + timedelta(seconds=100)


def _row(state: CaseState, resume: CaseState | None = None, *, is_closed: bool = True) -> CaseRow:
    return CaseRow(
        case_id="0" * 32,
        study_instance_uid="1.2",
        model_id="m@1",
        revision=1,
        state=state,
        opened_at=START,
        last_received_at=START + timedelta(seconds=7),
        updated_at=START,
        closed_at=START + timedelta(seconds=10) if is_closed else None,
        closed_by=ClosedBy.COMPLETE if is_closed else None,
        reason="",
        reference_role="t1gd",
        code=None,
        sentence=None,
        advice=None,
        resume_state=resume,
        run=1,
        summary=None,
    )


def test_a_process_that_is_silent_has_come_nowhere() -> None:
    row = _row(CaseState.ASSEMBLED)
    worker = WorkerRow(
        executor_id="node-1/infer",
        role="infer",
        host="h",
        pid=1,
        age_s=9.0,
        detail={"case_id": row.case_id, "windows_done": 3, "window_count": 8},
    )
    found = progress.windows_view(row, [worker], timeout_s=10.0)
    assert found is not None
    assert (found.windows_done, found.window_count) == (3, 8)
    assert progress.windows_view(row, [worker], timeout_s=5.0) is None


def _attempt(
    stage: Stage,
    outcome: str | None = "done",
    *,
    took_s: float = 2.0,
    destination: str | None = None,
    code: str | None = None,
) -> AttemptRow:
    started = START + timedelta(seconds=20)
    return AttemptRow(
        attempt_id=1,
        case_id="0" * 32,
        stage=stage,
        destination=destination,
        started_at=started,
        ended_at=None if outcome is None else started + timedelta(seconds=took_s),
        outcome=outcome,
        code=code,
        sentence=None if code is None else "a sentence",
    )


def _conditions(row: CaseRow, *attempts: AttemptRow) -> list[str]:
    return [step.condition for step in progress.steps(row, attempts, now=NOW)]


def test_an_open_case_is_being_received() -> None:
    row = _row(CaseState.RECEIVING, is_closed=False)
    assert _conditions(row) == ["running", "ahead", "ahead", "ahead", "ahead"]
    assert progress.steps(row, [], now=NOW)[0].duration_s == 100.0


@pytest.mark.parametrize(
    ("state", "reached"),
    [
        (CaseState.COMPLETE, 1),
        (CaseState.ASSEMBLED, 2),
        (CaseState.SEGMENTED, 3),
        (CaseState.ENCODED, 4),
    ],
)
def test_a_working_state_waits_for_the_next_stage(state: CaseState, reached: int) -> None:
    expected = ["done"] * reached + ["waiting"] + ["ahead"] * (4 - reached)
    assert _conditions(_row(state)) == expected


def test_a_begun_attempt_runs_and_its_time_grows() -> None:
    row, attempt = _row(CaseState.ASSEMBLED), _attempt(Stage.SEGMENT, None)
    step = progress.steps(row, [attempt], now=NOW)[2]
    assert (step.condition, step.duration_s) == ("running", 80.0)
    assert progress.attempt_view(row, attempt, [], now=NOW).outcome == "running"


def test_an_attempt_whose_process_died_was_interrupted() -> None:
    dead, again = _attempt(Stage.SEGMENT, None), _attempt(Stage.SEGMENT, None)
    row = _row(CaseState.ASSEMBLED)
    first = progress.attempt_view(row, dead, [again], now=NOW)
    assert (first.outcome, first.duration_s) == ("interrupted", None)
    assert progress.attempt_view(row, again, [], now=NOW).outcome == "running"
    moved_on = progress.attempt_view(_row(CaseState.ENCODED), dead, [], now=NOW)
    assert moved_on.outcome == "interrupted"


def test_a_delivery_to_another_destination_does_not_interrupt() -> None:
    first = _attempt(Stage.DELIVER, None, destination="a")
    second = _attempt(Stage.DELIVER, None, destination="b")
    view = progress.attempt_view(_row(CaseState.ENCODED), first, [second], now=NOW)
    assert view.outcome == "running"


def test_a_failed_delivery_waits_for_its_next_attempt() -> None:
    row = _row(CaseState.ENCODED)
    served = _attempt(Stage.DELIVER, destination="a")
    failed = _attempt(Stage.DELIVER, "retry", destination="b", code="PEER_UNAVAILABLE")
    step = progress.steps(row, [served, failed, failed], now=NOW)[4]
    assert (step.condition, step.attempt_count) == ("retry", 3)
    running = _attempt(Stage.DELIVER, None, destination="b")
    assert _conditions(row, served, failed, running)[4] == "running"


def test_a_step_takes_as_long_as_its_slowest_destination() -> None:
    attempts = [
        _attempt(Stage.DELIVER, took_s=9.0, destination="a"),
        _attempt(Stage.DELIVER, took_s=1.0, destination="a"),
        _attempt(Stage.DELIVER, took_s=3.0, destination="b"),
    ]
    assert progress.steps(_row(CaseState.DELIVERED), attempts, now=NOW)[4].duration_s == 3.0


@pytest.mark.parametrize(
    ("state", "resume", "expected"),
    [
        (CaseState.REJECTED, CaseState.RECEIVING, ["rejected", *["ahead"] * 4]),
        (CaseState.REJECTED, CaseState.COMPLETE, ["done", "rejected", *["ahead"] * 3]),
        (CaseState.FAILED, CaseState.ASSEMBLED, ["done", "done", "failed", "ahead", "ahead"]),
        (CaseState.CANCELLED, CaseState.ENCODED, [*["done"] * 4, "stopped"]),
        (CaseState.SUPERSEDED, CaseState.RECEIVING, ["stopped", *["ahead"] * 4]),
        (CaseState.SUPERSEDED, None, ["done"] * 5),
        (CaseState.DELIVERED, None, ["done"] * 5),
    ],
)
def test_an_ended_case_shows_where_it_stood(
    state: CaseState, resume: CaseState | None, expected: list[str]
) -> None:
    assert _conditions(_row(state, resume)) == expected


def test_every_state_has_its_steps() -> None:
    for state in CaseState:
        assert len(_conditions(_row(state))) == 5


def test_receiving_ends_with_the_closing_or_the_last_image() -> None:
    closed = progress.steps(_row(CaseState.COMPLETE), [], now=NOW)[0]
    refused = progress.steps(
        _row(CaseState.REJECTED, CaseState.RECEIVING, is_closed=False), [], now=NOW
    )[0]
    assert (closed.duration_s, refused.duration_s) == (10.0, 7.0)


def test_a_clock_that_was_set_back_gives_no_negative_duration() -> None:
    row = _row(CaseState.RECEIVING, is_closed=False)
    assert progress.steps(row, [], now=START - timedelta(seconds=5))[0].duration_s == 0.0


def test_advice_is_found_for_the_codes_of_all_packages() -> None:
    for code in ("GEOM_MISSING_SLICE", "DEVICE_MEMORY", "PEER_UNAVAILABLE"):
        assert progress.advice_of(code)
    assert progress.advice_of("CODE_OF_AN_EARLIER_VERSION") is None


def test_an_attempt_carries_the_advice_of_its_code() -> None:
    attempt = _attempt(Stage.DELIVER, "retry", destination="b", code="PEER_UNAVAILABLE")
    view = progress.attempt_view(_row(CaseState.ENCODED), attempt, [], now=NOW)
    assert view.advice == PeerUnavailableError.advice
