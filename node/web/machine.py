"""How the node itself stands: processes, disk, what waits, and each destination."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from node.cases import WORKING, CaseState, Transport
from node.peers import Destination
from node.prediction_queue import PredictionQueue
from node.rows import AttemptRow, WorkerRow
from node.web import health
from node.web.views import Sources


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessView:
    """A process: where it runs, the time since it was last seen, and what it computes with."""

    role: str
    host: str
    pid: int
    age_s: float
    is_alive: bool
    device: str | None
    runtime: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskView:
    """The spool's disk; below `floor_bytes` free and above `quota_bytes` nothing is taken in.

    `quota_bytes` of 0 is none.
    """

    free_bytes: int
    floor_bytes: int
    used_bytes: int
    quota_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationView:
    """How a destination stands: the last attempt at it, and the cases that will be tried again."""

    name: str
    transport: str
    address: str
    retry_count: int
    last_at: datetime | None
    last_outcome: str | None
    code: str | None
    sentence: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemView:
    """How the node stands; `queue` are the cases that wait or are worked on, by state.

    `uploaded_files` are those that wait for their prediction or are computed.
    """

    status: str
    missing: tuple[str, ...]
    processes: tuple[ProcessView, ...]
    disk: DiskView
    queue: dict[str, int]
    uploaded_files: int
    destinations: tuple[DestinationView, ...]


def read(sources: Sources) -> SystemView:
    """Return how the node stands now."""
    ledger, settings, spool = sources.ledger, sources.settings, sources.spool
    state = health.read(ledger, sources.manifest, settings.jobs, spool)
    counts = ledger.counts()
    timeout_s = settings.jobs.heartbeat_timeout_s
    last = ledger.last_deliveries(per_case=False)
    to_repeat = retry_counts(sources)
    return SystemView(
        status=state.status,
        missing=state.missing,
        processes=tuple(_process(row, timeout_s) for row in ledger.workers()),
        disk=DiskView(
            free_bytes=spool.free_bytes(),
            floor_bytes=spool.free_floor_bytes,
            used_bytes=ledger.spool_bytes(),
            quota_bytes=spool.quota_bytes,
        ),
        queue={one.value: counts[one] for one in (CaseState.RECEIVING, *WORKING, CaseState.HELD)},
        uploaded_files=len(PredictionQueue(ledger.engine).open_rows()),
        destinations=tuple(
            _destination(one, last, to_repeat[one.name]) for one in settings.destinations
        ),
    )


def retry_counts(sources: Sources) -> dict[str, int]:
    """Return of each destination how many cases will be tried again."""
    open_ones = sources.ledger.last_deliveries(per_case=True)
    refused = Counter(row.destination for row in open_ones if row.outcome == "retry")
    return {one.name: refused[one.name] for one in sources.settings.destinations}


def _process(row: WorkerRow, timeout_s: float) -> ProcessView:
    detail = row.detail or {}
    return ProcessView(
        role=row.role,
        host=row.host,
        pid=row.pid,
        age_s=round(row.age_s, 1),
        is_alive=row.is_alive(timeout_s),
        device=detail.get("device"),
        runtime=detail.get("runtime"),
    )


def _destination(one: Destination, last: Sequence[AttemptRow], retry_count: int) -> DestinationView:
    tried = next((row for row in last if row.destination == one.name), None)
    return DestinationView(
        name=one.name,
        transport=one.transport.value,
        address=_address(one),
        retry_count=retry_count,
        last_at=None if tried is None else tried.ended_at or tried.started_at,
        last_outcome=None if tried is None else tried.outcome or "running",
        code=None if tried is None else tried.code,
        sentence=None if tried is None else tried.sentence,
    )


def _address(one: Destination) -> str:
    if one.transport is Transport.DIMSE:
        return f"{one.ae_title}@{one.host}:{one.port}"
    return one.path if one.transport is Transport.FOLDER else one.url
