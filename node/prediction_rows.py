"""What is known of a prediction: its states, its row in the ledger, why it failed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy.engine import Row

from node import rows


class PredictionState(StrEnum):
    """Where a prediction stands."""

    RECEIVING = "receiving"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


WAITING = (PredictionState.RECEIVING, PredictionState.QUEUED)
OPEN = (*WAITING, PredictionState.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionRow:
    """A prediction as the ledger knows it.

    `is_awaited` says that a request waits for the answer; its files go with that request. `number`
    counts what was accepted, `tries` how often it was taken.
    """

    prediction_id: str
    number: int | None
    state: PredictionState
    is_awaited: bool
    owner: str
    submitted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    executor_id: str | None
    tries: int
    windows_done: int
    window_count: int
    byte_count: int
    model_id: str | None
    notes: list[dict[str, str]] | None
    code: str | None
    sentence: str | None
    advice: str | None
    disposition: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a prediction has no result; `disposition` is that of `node.disposition`."""

    code: str
    sentence: str
    advice: str
    disposition: str


def prediction_row(row: Row[Any]) -> PredictionRow:
    """Return a row of ``prediction``."""
    values = rows.values_of(row, PredictionRow)
    return PredictionRow(**{**values, "state": PredictionState(values["state"])})
