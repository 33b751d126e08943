"""What the ledger's rows become: frozen values with aware UTC times."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy.engine import Row

from node.cases import (
    CaseState,
    ClosedBy,
    DeliveryReceipt,
    EncodedObject,
    ObjectKind,
    Priority,
    ReceivedInstance,
    SeriesDecision,
    Stage,
    Transport,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseRow:
    """A case as the ledger knows it; times are aware UTC, `summary` is what the page shows.

    `run` counts how often an operator had it started again, so that its jobs get new names;
    `released_at` is when the last association that brought instances of it was released;
    `purged_at` is when its files were given up for deletion, `volumes_purged_at` when only those
    that it was worked out with were.
    """

    case_id: str
    study_instance_uid: str
    model_id: str
    revision: int
    state: CaseState
    opened_at: datetime
    last_received_at: datetime
    released_at: datetime | None = None
    completion_requested_at: datetime | None = None
    updated_at: datetime
    closed_at: datetime | None
    closed_by: ClosedBy | None
    reason: str
    reference_role: str | None
    code: str | None
    sentence: str | None
    advice: str | None
    resume_state: CaseState | None
    run: int
    summary: dict[str, Any] | None
    priority: Priority = Priority.NORMAL
    folder_bytes: int = 0
    volumes_purged_at: datetime | None = None
    purged_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow:
    """One try of a stage; `outcome` is None while it runs or when its process died.

    `next_at` is when the next one is due, where this one said so.
    """

    attempt_id: int
    case_id: str
    stage: Stage
    destination: str | None
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None
    code: str | None
    sentence: str | None
    next_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentRow:
    """A storage commitment transaction: objects of a case that a destination is asked to keep.

    `asked_at` is when it took the question, `reported_at` when its report came, `concluded_at`
    when the pipeline had drawn the consequence. `failures` are reasons by SOP Instance UID.
    """

    transaction_uid: str
    case_id: str
    destination: str
    number: int
    ae_title: str
    sop_instance_uids: tuple[str, ...]
    begun_at: datetime
    asked_at: datetime | None
    reported_at: datetime | None
    failures: dict[str, int] | None
    concluded_at: datetime | None


@cache
def place_of_processes() -> str:
    """Return what process numbers are good for: machine, its start, and the container's own count.

    Containers may have the name of their machine or pod, and each counts from 1.
    """
    try:
        start = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        count = Path("/proc/self/ns/pid").readlink()
    except OSError:  # another system than Linux
        return ""
    return f"{socket.gethostname()} {start} {count}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRow:
    """A process that beats; `age_s` is the time since it was seen, by the database's clock.

    `detail` holds what its role says of itself, and under ``place`` where its number counts.
    """

    executor_id: str
    role: str
    host: str
    pid: int
    age_s: float
    detail: dict[str, Any] | None

    def is_alive(self, timeout_s: float) -> bool:
        """Say whether it was seen within so long.

        After the clock was set back the beat of a dead process lies ahead: no sign of life either.
        One that has ended where we are is not alive, for all its recent beat.
        """
        return abs(self.age_s) < timeout_s and not self._has_ended_here()

    def _has_ended_here(self) -> bool:
        place = (self.detail or {}).get("place")
        return place == place_of_processes() != "" and not Path(f"/proc/{self.pid}").exists()


def _utc(seconds: float | None) -> Any:  # noqa: ANN401 - datetime, or None where the column may be
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def values_of(row: Row[Any], kind: type) -> dict[str, Any]:
    """Return the columns of `row` that are fields of `kind`, times converted."""
    columns = row._mapping  # noqa: SLF001 - SQLAlchemy's documented accessor
    values = {field.name: columns[field.name] for field in fields(kind)}
    return {name: _utc(value) if name.endswith("_at") else value for name, value in values.items()}


def times_of(row: Row[Any], names: Iterable[str]) -> dict[str, datetime | None]:
    """Return columns of `row` that hold times."""
    return {name: _utc(row._mapping[name]) for name in names}  # noqa: SLF001 - as above


def case_row(row: Row[Any]) -> CaseRow:
    """Return a row of ``imaging_case``."""
    values = values_of(row, CaseRow)
    values["state"] = CaseState(values["state"])
    values["priority"] = Priority(values["priority"])
    for name, kind in (("closed_by", ClosedBy), ("resume_state", CaseState)):
        values[name] = None if values[name] is None else kind(values[name])
    return CaseRow(**values)


def attempt_row(row: Row[Any]) -> AttemptRow:
    """Return a row of ``attempt``."""
    return AttemptRow(**{**values_of(row, AttemptRow), "stage": Stage(row.stage)})


def commitment_row(row: Row[Any]) -> CommitmentRow:
    """Return a row of ``commitment``."""
    values = values_of(row, CommitmentRow)
    return CommitmentRow(**{**values, "sop_instance_uids": tuple(row.sop_instance_uids)})


def worker_row(row: Row[Any]) -> WorkerRow:
    """Return a row of ``worker`` with its age."""
    return WorkerRow(**values_of(row, WorkerRow))


def received_instance(row: Row[Any]) -> ReceivedInstance:
    """Return a row of ``instance``."""
    return ReceivedInstance(**values_of(row, ReceivedInstance))


def series_decision(row: Row[Any]) -> SeriesDecision:
    """Return a row of ``case_series``."""
    return SeriesDecision(**values_of(row, SeriesDecision))


def encoded_object(row: Row[Any]) -> EncodedObject:
    """Return a row of ``result``."""
    return EncodedObject(**{**values_of(row, EncodedObject), "kind": ObjectKind(row.kind)})


def delivery_receipt(row: Row[Any]) -> DeliveryReceipt:
    """Return a row of ``receipt``."""
    return DeliveryReceipt(
        **{**values_of(row, DeliveryReceipt), "transport": Transport(row.transport)}
    )
