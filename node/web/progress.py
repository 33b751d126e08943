"""How far a case has come: its five steps and the attempts made on the way (pure)."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import inference.errors  # noqa: F401 - its classes must be known before advice is looked up
import node.errors  # noqa: F401
from converters.errors import CodedError
from node.cases import CaseState, Stage
from node.rows import AttemptRow, CaseRow, WorkerRow

RECEIVE = "receive"
_WORKED_ON = {
    CaseState.COMPLETE: Stage.CONVERT,
    CaseState.ASSEMBLED: Stage.SEGMENT,
    CaseState.SEGMENTED: Stage.ENCODE,
    CaseState.ENCODED: Stage.DELIVER,
}
_ORDER = (CaseState.RECEIVING, *_WORKED_ON, CaseState.DELIVERED)
_STEPS = (RECEIVE, *(stage.value for stage in Stage))
_STOPPED = {
    CaseState.HELD: "held",
    CaseState.REJECTED: "rejected",
    CaseState.FAILED: "failed",
    CaseState.CANCELLED: "stopped",
    CaseState.SUPERSEDED: "stopped",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    """One of the five steps.

    `condition` is done, running, waiting, retry (waiting for another attempt), held (waiting for a
    person), rejected, failed, stopped or ahead. `duration_s` is that of the latest attempt,
    `attempt_count` counts them all.
    """

    name: str
    condition: str
    duration_s: float | None
    attempt_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptView:
    """One try of a stage; `outcome` is done, retry, failed, cancelled, running or interrupted."""

    stage: str
    destination: str | None
    started_at: datetime
    ended_at: datetime | None
    duration_s: float | None
    outcome: str
    code: str | None
    sentence: str | None
    advice: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowsView:
    """How many of the windows that the engine lays over a study are done."""

    windows_done: int
    window_count: int


def windows_view(
    row: CaseRow, workers: Iterable[WorkerRow], *, timeout_s: float
) -> WindowsView | None:
    """Return how far the process that segments a case has come; None where none does."""
    for worker in workers:
        detail = worker.detail or {}
        if worker.is_alive(timeout_s) and detail.get("case_id") == row.case_id:
            return WindowsView(
                windows_done=int(detail["windows_done"]), window_count=int(detail["window_count"])
            )
    return None


def attempt_view(
    row: CaseRow, attempt: AttemptRow, later: Sequence[AttemptRow], *, now: datetime
) -> AttemptView:
    """Return what is shown of an attempt, given those that were begun after it.

    An attempt without an end runs if its case still waits for that stage and no later attempt
    does the same; otherwise its process died.
    """
    outcome = attempt.outcome
    if outcome is None:
        work = (attempt.stage, attempt.destination)
        is_repeated = any((other.stage, other.destination) == work for other in later)
        is_due = _WORKED_ON.get(row.state) is attempt.stage
        outcome = "running" if is_due and not is_repeated else "interrupted"
    ended_at = now if outcome == "running" else attempt.ended_at
    return AttemptView(
        stage=attempt.stage.value,
        destination=attempt.destination,
        started_at=attempt.started_at,
        ended_at=attempt.ended_at,
        duration_s=None if ended_at is None else _seconds(attempt.started_at, ended_at),
        outcome=outcome,
        code=attempt.code,
        sentence=attempt.sentence,
        advice=None if attempt.code is None else advice_of(attempt.code),
    )


def steps(row: CaseRow, attempts: Sequence[AttemptRow], *, now: datetime) -> tuple[StepView, ...]:
    """Return the five steps of a case in order."""
    reached = _reached(row)
    views = [
        StepView(
            name=RECEIVE,
            condition=_condition(0, reached, row, []),
            duration_s=_seconds(row.opened_at, _receiving_ended(row, now)),
            attempt_count=1,
        )
    ]
    for index, stage in enumerate(Stage, start=1):
        made = [one for one in attempts if one.stage is stage]
        latest = _latest(row, made, now)
        views.append(
            StepView(
                name=stage.value,
                condition=_condition(index, reached, row, latest),
                duration_s=max(
                    (one.duration_s for one in latest if one.duration_s is not None), default=None
                ),
                attempt_count=len(made),
            )
        )
    return tuple(views)


def _reached(row: CaseRow) -> int:
    """Return the number of the step that the case stands at; 5 when all are done."""
    waiting = (*_ORDER, CaseState.HELD)
    stood = row.state if row.state in waiting else row.resume_state
    if stood is None or stood not in waiting:
        return len(_STEPS)  # superseded after its result was delivered
    return _ORDER.index(CaseState.ENCODED if stood is CaseState.HELD else stood)


def _condition(index: int, reached: int, row: CaseRow, latest: Sequence[AttemptView]) -> str:
    if index != reached:
        return "done" if index < reached else "ahead"
    if row.state in _STOPPED:
        return _STOPPED[row.state]
    outcomes = {attempt.outcome for attempt in latest}
    if row.state is CaseState.RECEIVING or "running" in outcomes:
        return "running"
    return "retry" if "retry" in outcomes else "waiting"


def _latest(row: CaseRow, attempts: Sequence[AttemptRow], now: datetime) -> list[AttemptView]:
    """Return the last attempt for each destination (for other stages: the last attempt)."""
    last = {attempt.destination: attempt for attempt in attempts}
    return [attempt_view(row, attempt, [], now=now) for attempt in last.values()]


def _receiving_ended(row: CaseRow, now: datetime) -> datetime:
    if row.closed_at is not None:
        return row.closed_at
    return now if row.state is CaseState.RECEIVING else row.last_received_at


def _seconds(start: datetime, end: datetime) -> float:
    return round(max((end - start).total_seconds(), 0.0), 3)


@functools.cache
def advice_of(code: str) -> str | None:
    """Return the advice that belongs to a code; None for a code of an earlier version."""
    return next((kind.advice for kind in _kinds(CodedError) if kind.code == code), None)


def _kinds(parent: type[CodedError]) -> Iterator[type[CodedError]]:
    for kind in parent.__subclasses__():
        yield kind
        yield from _kinds(kind)
