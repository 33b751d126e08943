"""Which processes live: those whose beat has changed lately, by the watcher's own clock.

The moments of the beats say nothing here. They come from a clock that may be set: forwards, and
every process would look dead until its next beat; backwards, and a dead one would look alive.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from node import database, tables


class Pulses:
    """Watches the beats in the ledger.

    Parameters
    ----------
    engine : Engine
        The ledger's own.
    clock : callable, optional
        Seconds of a clock that only runs.
    """

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine, self._clock = engine, clock
        self._seen: dict[str, tuple[float, float]] = {}

    def alive(self, *, timeout_s: float) -> set[str]:
        """Return the processes whose beat was seen to change, or first seen, within so long."""
        table = tables.worker
        query = sa.select(table.c.executor_id, table.c.seen_at)
        with database.reading(self._engine) as connection:
            beats = {row.executor_id: float(row.seen_at) for row in connection.execute(query)}
        now = self._clock()
        self._seen = {name: self._changed(name, beat, now) for name, beat in beats.items()}
        return {name for name, (_, at) in self._seen.items() if now - at < timeout_s}

    def _changed(self, name: str, beat: float, now: float) -> tuple[float, float]:
        earlier = self._seen.get(name)
        return earlier if earlier is not None and earlier[0] == beat else (beat, now)
