"""Sums over everything that the ledger holds, by the database: for graphs and alerts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from node import database, tables
from node.cases import CaseState
from node.reading import LedgerReader

BOUNDS_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
"""Upper bounds of the classes that durations are sorted into; the last class is open."""

_RECENT: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """How long some things took: how many, the sum, and how many within each of `BOUNDS_S`."""

    count: int
    sum_s: float
    within: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tallies:
    """What the ledger adds up to.

    Parameters
    ----------
    states : mapping of str to int
        Cases in each state.
    codes : mapping of (str, str) to int
        Cases of each state and code, where they have one.
    attempts : mapping of (str, str, str, str) to int
        Ended attempts of each stage, destination (or nothing), outcome and code (or nothing).
    stages : mapping of str to Durations
        Attempts of each stage that were done.
    turnaround : Durations
        From the last instance received to the delivered case, of those that were delivered.
    receipts : mapping of (str, str, str) to int
        Delivered objects of each destination, transport and status.
    instance_count, instance_bytes : int
        Instances that are kept.
    spool_bytes : int
        All that is in the spool.
    latest : sequence of mapping
        Summaries of the latest results, newest first.
    """

    states: Mapping[str, int]
    codes: Mapping[tuple[str, str], int]
    attempts: Mapping[tuple[str, str, str, str], int]
    stages: Mapping[str, Durations]
    turnaround: Durations
    receipts: Mapping[tuple[str, str, str], int]
    instance_count: int
    instance_bytes: int
    spool_bytes: int
    latest: Sequence[Mapping[str, Any]]


def read(ledger: LedgerReader) -> Tallies:
    """Return what the ledger adds up to now, in one transaction."""
    with database.reading(ledger.engine) as connection:

        def counted(table: sa.Table, *columns: str, where: Any = True) -> dict[Any, int]:  # noqa: ANN401
            named = [table.c[one] for one in columns]
            query = sa.select(*named, sa.func.count()).where(where).group_by(*named)
            return {
                tuple(value or "" for value in row[:-1]): int(row[-1])
                for row in connection.execute(query)
            }

        case, attempt, instance = tables.case, tables.attempt, tables.instance
        ended = attempt.c.outcome.is_not(None)
        done = attempt.c.outcome == "done"
        delivered = (case.c.state == CaseState.DELIVERED.value) & case.c.closed_at.is_not(None)
        kept = sa.select(
            sa.func.count(), sa.func.coalesce(sa.func.sum(instance.c.byte_count), 0)
        ).select_from(instance)
        count, byte_count = connection.execute(kept).one()
        took = attempt.c.ended_at - attempt.c.started_at
        turnaround = case.c.updated_at - case.c.last_received_at
        stages = sa.select(attempt.c.stage, *_sums(took)).where(done).group_by(attempt.c.stage)
        whole = sa.select(*_sums(turnaround)).where(delivered)
        latest = (
            sa.select(case.c.summary)
            .where(case.c.summary.is_not(None))
            .order_by(case.c.updated_at.desc())
            .limit(_RECENT)
        )
        return Tallies(
            states={state: many for (state,), many in counted(case, "state").items()},
            codes=counted(case, "state", "code", where=case.c.code.is_not(None)),
            attempts=counted(attempt, "stage", "destination", "outcome", "code", where=ended),
            stages={stage: _durations(sums) for stage, *sums in connection.execute(stages)},
            turnaround=_durations(connection.execute(whole).one()),
            receipts=counted(tables.receipt, "destination", "transport", "status_code"),
            instance_count=int(count),
            instance_bytes=int(byte_count),
            spool_bytes=int(byte_count) + ledger.beside_instances_bytes(connection),
            latest=[one for one in connection.execute(latest).scalars() if one],
        )


def _sums(took: sa.ColumnElement[float]) -> list[sa.ColumnElement[Any]]:
    """Return what is asked for about durations: how many, the sum, how many within each bound."""
    within = [sa.func.sum(sa.case((took <= bound, 1), else_=0)) for bound in BOUNDS_S]
    sums = [sa.func.coalesce(one, 0) for one in (sa.func.sum(took), *within)]
    return [sa.func.count(), *sums]


def _durations(sums: Sequence[Any]) -> Durations:
    count, sum_s, *within = sums
    return Durations(count=count, sum_s=float(sum_s), within=tuple(map(int, within)))


def recent(latest: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[float]]:
    """Return the values of one part of the latest summaries, by label, sorted."""
    found: dict[str, list[float]] = defaultdict(list)
    for summary in latest:
        for label, value in (summary.get(key) or {}).items():
            found[label].append(float(value))
    return {label: sorted(values) for label, values in found.items()}
