"""Whether the node works: which roles live, which model is loaded, what waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inference.manifest import Manifest
from node.cases import WORKING
from node.reading import LedgerReader
from node.rows import WorkerRow
from node.settings import Jobs
from node.spool import Spool

REQUIRED_ROLES = ("receive", "work", "infer")
_LATE_BEATS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """Which model the node serves."""

    id: str
    version: str
    title: str
    demonstration: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """A process and the time since it was last seen."""

    role: str
    age_s: float
    alive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleView:
    """The processes of one role together; `condition` is alive, late, silent or absent.

    `late` is shown long before work is taken over, so that a dead process does not look well.
    """

    name: str
    condition: str
    alive_count: int
    age_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What ``/api/v1/health`` says."""

    status: str
    model_loaded: bool
    model: ModelView
    device: str | None
    runtime: str | None
    queue_depth: int
    cases: dict[str, int]
    workers: tuple[WorkerView, ...]
    missing: tuple[str, ...]


def read(ledger: LedgerReader, manifest: Manifest, jobs: Jobs, spool: Spool) -> Health:
    """Return the node's present health."""
    counts = ledger.counts()
    rows = ledger.workers()
    alive = [row for row in rows if row.is_alive(jobs.heartbeat_timeout_s)]
    loaded = [
        row.detail
        for row in alive
        if row.role == "infer"
        and row.detail is not None
        and manifest.weights_sha256
        in (row.detail.get("weights_sha256"), *row.detail.get("further", ()))
    ]
    missing = _missing(alive, is_loaded=bool(loaded), has_space=spool.has_space())
    return Health(
        status="degraded" if missing else "ok",
        model_loaded=bool(loaded),
        model=ModelView(
            id=manifest.id,
            version=manifest.version,
            title=manifest.title,
            demonstration=manifest.is_demonstration,
        ),
        device=_first(loaded, "device"),
        runtime=_first(loaded, "runtime"),
        queue_depth=sum(counts[state] for state in WORKING),
        cases={state.value: count for state, count in counts.items()},
        workers=tuple(
            WorkerView(role=row.role, age_s=round(row.age_s, 1), alive=row in alive) for row in rows
        ),
        missing=missing,
    )


def _first(details: Sequence[Mapping[str, Any]], key: str) -> str | None:
    return next((str(one[key]) for one in details if key in one), None)


def _missing(alive: Sequence[WorkerRow], *, is_loaded: bool, has_space: bool) -> tuple[str, ...]:
    names = {row.role for row in alive}
    absent = [role for role in REQUIRED_ROLES if role not in names]
    parts = {"model": is_loaded, "free disk space": has_space}
    return (*absent, *(part for part, is_there in parts.items() if not is_there))


def roles(health: Health, jobs: Jobs) -> tuple[RoleView, ...]:
    """Return one line per role that is required or was ever seen."""
    others = sorted({worker.role for worker in health.workers} - set(REQUIRED_ROLES))
    return tuple(_role(name, health.workers, jobs) for name in (*REQUIRED_ROLES, *others))


def _role(name: str, workers: Sequence[WorkerView], jobs: Jobs) -> RoleView:
    own = [worker for worker in workers if worker.role == name]
    if not own:
        return RoleView(name=name, condition="absent", alive_count=0, age_s=None)
    youngest_s = min(worker.age_s for worker in own)
    late_s = min(_LATE_BEATS * jobs.sweep_s, jobs.heartbeat_timeout_s)
    condition = "alive" if youngest_s < late_s else "late"
    alive_count = sum(worker.alive for worker in own)
    return RoleView(
        name=name,
        condition=condition if alive_count else "silent",
        alive_count=alive_count,
        age_s=youngest_s,
    )
