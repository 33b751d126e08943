"""Studies that are wanted from an archive: rows of the ledger, one a study.

A pull's way::

    wanted --take--> running --finish--> done, or --fail--> failed

What fails in passing goes back to `wanted` until its next try. A `running` row that nobody beats
for is taken by whoever looks next: what is stored already is not fetched again. What was planned
stays with the study, so that nobody waits for the series that were left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from node import database, rows, tables
from node.door_errors import PullBusyError, PullUnknownError

BEAT_S: Final = 1.0
_row = tables.pull


class PullState(StrEnum):
    """Where a pull stands."""

    WANTED = "wanted"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How much of a study is pulled; nothing while the archive has not said what it has.

    Parameters
    ----------
    series_count, image_count : int
        What the archive has of MR.
    series_wanted, images_wanted : int
        What of it is needed.
    images_here : int
        What of the needed is stored, whichever way it came.
    images_fetched, bytes_fetched : int
        What came by the present try.
    bytes_left_out : int
        Pixels of the series that are not needed, as if not compressed.
    """

    series_count: int = 0
    image_count: int = 0
    series_wanted: int = 0
    images_wanted: int = 0
    images_here: int = 0
    images_fetched: int = 0
    bytes_fetched: int = 0
    bytes_left_out: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRow:
    """A pull as the ledger knows it; `plan` is how many instances each needed series has."""

    study_instance_uid: str
    source: str
    state: PullState
    asked_at: datetime
    ended_at: datetime | None
    next_at: datetime | None
    executor_id: str | None
    tries: int
    plan: Mapping[str, int]
    tally: Tally
    code: str | None
    sentence: str | None
    advice: str | None

    @property
    def is_open(self) -> bool:
        """Whether more of it may come."""
        return self.state in (PullState.WANTED, PullState.RUNNING)

    def holds(self, last_received_at: datetime) -> bool:
        """Say whether the plan is all that is awaited: not once more has come by another door."""
        if self.state is PullState.DONE and self.ended_at is not None:
            return last_received_at <= self.ended_at
        return self.is_open


def _pull_row(row: sa.Row[Any]) -> PullRow:
    values = rows.values_of(row, PullRow)
    tally = Tally(**(values["tally"] or {}))
    changed = {"state": PullState(values["state"]), "plan": values["plan"] or {}, "tally": tally}
    return PullRow(**{**values, **changed})


class PullOrders:
    """The pulls, on the ledger's database.

    Parameters
    ----------
    engine : Engine
        The ledger's own.
    timeout_s : float
        After so long without a beat whoever runs a pull is dead.
    """

    def __init__(self, engine: Engine, *, timeout_s: float = 60.0) -> None:
        self._engine = engine
        self._clock = database.clock(engine)
        self._timeout_s = timeout_s

    def find(self, study_instance_uid: str) -> PullRow | None:
        """Return the pull of a study, None where nobody has asked for one."""
        query = sa.select(_row).where(_row.c.study_instance_uid == study_instance_uid)
        with database.reading(self._engine) as connection:
            found = connection.execute(query).first()
        return None if found is None else _pull_row(found)

    def row(self, study_instance_uid: str) -> PullRow:
        """Return the pull of a study.

        Raises
        ------
        PullUnknownError
            Nobody has asked for one.
        """
        found = self.find(study_instance_uid)
        if found is None:
            raise PullUnknownError
        return found

    def want(self, study_instance_uid: str, source: str) -> None:
        """Have a study pulled; one that waits is tried now, one that runs goes on."""
        with self._engine.begin() as connection:
            known = self._known(connection, study_instance_uid)
            if known is None or known.state != PullState.RUNNING.value:
                self._put(connection, study_instance_uid, source, state=PullState.WANTED.value)

    def want_once(self, study_instance_uid: str, source: str) -> bool:
        """Have a study pulled that nobody has asked for before; False where somebody has."""
        with self._engine.begin() as connection:
            if self._known(connection, study_instance_uid) is not None:
                return False
            self._put(connection, study_instance_uid, source, state=PullState.WANTED.value)
        return True

    def claim(self, study_instance_uid: str, source: str, executor_id: str) -> PullRow:
        """Return a pull that this process does itself.

        Raises
        ------
        PullBusyError
            Another process is at it.
        """
        with self._engine.begin() as connection:
            known = self._known(connection, study_instance_uid)
            if known is not None and known.state == PullState.RUNNING.value and known.is_alive:
                raise PullBusyError
            running = {"state": PullState.RUNNING.value, "executor_id": executor_id, "tries": 1}
            self._put(connection, study_instance_uid, source, seen_at=self._clock, **running)
        return self.row(study_instance_uid)

    def _known(self, connection: Connection, study_instance_uid: str) -> sa.Row[Any] | None:
        is_alive = (_row.c.seen_at > self._clock - self._timeout_s).label("is_alive")
        query = sa.select(_row.c.state, is_alive).where(
            _row.c.study_instance_uid == study_instance_uid
        )
        return connection.execute(query.with_for_update()).first()

    def _put(self, connection: Connection, study: str, source: str, **values: Any) -> None:  # noqa: ANN401
        connection.execute(_row.delete().where(_row.c.study_instance_uid == study))
        fresh = {"study_instance_uid": study, "source": source, "asked_at": self._clock, "tries": 0}
        connection.execute(_row.insert().values({**fresh, **values}))

    # -- whoever pulls -----------------------------------------------------------------------

    def take(self, executor_id: str) -> PullRow | None:
        """Return the one that was asked for first and is due, now running here.

        What runs under this very name was left by an earlier process: nobody else has it.
        """
        may_go = self._may_go(executor_id)
        first = (
            sa.select(_row.c.study_instance_uid)
            .where(may_go)
            .order_by(_row.c.asked_at)
            .limit(1)
            .scalar_subquery()
        )
        with self._engine.begin() as connection:
            found = connection.execute(
                _row.update()
                .where(_row.c.study_instance_uid == first, may_go)
                .values(
                    state=PullState.RUNNING.value,
                    executor_id=executor_id,
                    seen_at=self._clock,
                    tries=_row.c.tries + 1,
                )
                .returning(*_row.c)
            ).first()
        return None if found is None else _pull_row(found)

    def has_due(self, executor_id: str) -> bool:
        """Say whether `take` may find something; takes no lock."""
        query = sa.select(_row.c.study_instance_uid).where(self._may_go(executor_id))
        with database.reading(self._engine) as connection:
            return connection.execute(query.limit(1)).first() is not None

    def _may_go(self, executor_id: str) -> sa.ColumnElement[bool]:
        is_due = sa.or_(_row.c.next_at.is_(None), _row.c.next_at <= self._clock)
        is_left = sa.or_(
            _row.c.executor_id == executor_id, _row.c.seen_at <= self._clock - self._timeout_s
        )
        return sa.or_(
            sa.and_(_row.c.state == PullState.WANTED.value, is_due),
            sa.and_(_row.c.state == PullState.RUNNING.value, is_left),
        )

    def planned(self, running: PullRow, plan: Mapping[str, int], tally: Tally) -> bool:
        """Note which series are needed, and how many instances each has."""
        return self._of_running(running, plan=dict(plan), tally=asdict(tally))

    def beat(self, running: PullRow, tally: Tally | None = None) -> bool:
        """Note that a pull goes on, and how far it is; False when another process has it."""
        return self._of_running(running, **({} if tally is None else {"tally": asdict(tally)}))

    def finish(self, running: PullRow, tally: Tally) -> bool:
        """Note that what is needed is stored."""
        return self._of_running(
            running,
            state=PullState.DONE.value,
            ended_at=self._clock,
            tally=asdict(tally),
            **_nothing(),
        )

    def fail(self, running: PullRow, *, code: str, sentence: str, advice: str) -> bool:
        """Note why a pull has ended without what is needed."""
        why = {"code": code, "sentence": sentence, "advice": advice}
        return self._of_running(
            running, state=PullState.FAILED.value, ended_at=self._clock, next_at=None, **why
        )

    def put_off(
        self, running: PullRow, delay_s: float, *, code: str, sentence: str, advice: str
    ) -> bool:
        """Note why a pull is tried again later."""
        why = {"code": code, "sentence": sentence, "advice": advice}
        next_at = self._clock + delay_s
        return self._of_running(running, state=PullState.WANTED.value, next_at=next_at, **why)

    def put_back(self, running: PullRow) -> bool:
        """Leave a pull to the next process, as this one is told to stop."""
        return self._of_running(
            running, state=PullState.WANTED.value, tries=running.tries - 1, next_at=None
        )

    def _of_running(self, running: PullRow, **values: Any) -> bool:  # noqa: ANN401
        """Change a pull while it is the very run that was taken."""
        with self._engine.begin() as connection:
            changed = connection.execute(
                _row.update()
                .where(
                    _row.c.study_instance_uid == running.study_instance_uid,
                    _row.c.state == PullState.RUNNING.value,
                    _row.c.executor_id == running.executor_id,
                    _row.c.tries == running.tries,
                )
                .values(seen_at=self._clock, **values)
            ).rowcount
        return bool(changed)


def _nothing() -> dict[str, None]:
    return {"code": None, "sentence": None, "advice": None, "next_at": None}
