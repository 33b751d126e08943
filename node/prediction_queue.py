"""The queue of predictions: rows of the ledger that the web role adds and the infer role takes.

A prediction's way::

    receiving --accept--> queued --take--> running --finish--> done, or --fail--> failed

Each of the first three may be cancelled.

First accepted is first taken. Every method is one transaction.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from node import database, tables
from node.errors import PredictionQueueFullError, PredictionUnknownError
from node.prediction_rows import (
    OPEN,
    WAITING,
    Failure,
    PredictionRow,
    PredictionState,
    prediction_row,
)
from node.pulse import Pulses

MAX_TRIES = 3

_row = tables.prediction


class PredictionQueue:
    """The queue, on the ledger's database.

    Parameters
    ----------
    engine : Engine
        The ledger's own.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.pulses = Pulses(engine)
        self._clock = database.clock(engine)

    def _reading(self) -> AbstractContextManager[Connection]:
        return database.reading(self._engine)

    # -- the web role ------------------------------------------------------------------------

    def open(self, owner: str, *, is_awaited: bool, max_waiting: int) -> str:
        """Add a prediction whose file is about to arrive; return its id.

        Raises
        ------
        PredictionQueueFullError
            As many as may wait do so already.
        """
        prediction_id = uuid.uuid4().hex
        with self._engine.begin() as connection:
            waiting = connection.execute(
                sa.select(sa.func.count()).select_from(_row).where(_row.c.state.in_(WAITING))
            ).scalar_one()
            if waiting >= max_waiting:
                raise PredictionQueueFullError(waiting=waiting, limit=max_waiting)
            connection.execute(
                _row.insert().values(
                    prediction_id=prediction_id,
                    state=PredictionState.RECEIVING.value,
                    is_awaited=is_awaited,
                    owner=owner,
                    submitted_at=self._clock,
                )
            )
        return prediction_id

    def accept(self, prediction_id: str, *, byte_count: int) -> bool:
        """Queue a prediction whose file was found usable; False when it is no longer wanted."""
        following = sa.select(sa.func.coalesce(sa.func.max(_row.c.number), 0) + 1)
        with self._engine.begin() as connection:
            number = connection.execute(following).scalar_one()
            return self._move(
                connection,
                prediction_id,
                (PredictionState.RECEIVING,),
                state=PredictionState.QUEUED.value,
                number=number,
                byte_count=byte_count,
            )

    def row(self, prediction_id: str) -> PredictionRow:
        """Return a prediction.

        Raises
        ------
        PredictionUnknownError
            There is none of that id.
        """
        with self._reading() as connection:
            found = connection.execute(
                sa.select(_row).where(_row.c.prediction_id == prediction_id)
            ).first()
        if found is None:
            raise PredictionUnknownError
        return prediction_row(found)

    def ended(self, prediction_ids: Collection[str]) -> set[str]:
        """Return which of some predictions are over, or no longer known."""
        with self._reading() as connection:
            found = connection.execute(
                sa.select(_row.c.prediction_id).where(
                    _row.c.prediction_id.in_(prediction_ids), _row.c.state.in_(OPEN)
                )
            )
            return set(prediction_ids) - {row.prediction_id for row in found}

    def position(self, row: PredictionRow) -> int:
        """Return how many are taken up to and including this one; 0 for one that does not wait."""
        if row.state is not PredictionState.QUEUED:
            return 0
        ahead = (_row.c.state == PredictionState.QUEUED.value, _row.c.number <= row.number)
        with self._reading() as connection:
            query = sa.select(sa.func.count()).select_from(_row).where(*ahead)
            return int(connection.execute(query).scalar_one())

    def open_rows(self) -> list[PredictionRow]:
        """Return what arrives, waits or runs, in the order in which it is taken."""
        query = (
            sa.select(_row)
            .where(_row.c.state.in_(OPEN))
            .order_by(_row.c.number.is_(None), _row.c.number, _row.c.submitted_at)
        )
        with self._reading() as connection:
            return [prediction_row(row) for row in connection.execute(query)]

    def cancel(self, prediction_id: str) -> bool:
        """End a prediction that nobody wants any more; False when it is over already."""
        with self._engine.begin() as connection:
            return self._move(
                connection,
                prediction_id,
                OPEN,
                state=PredictionState.CANCELLED.value,
                ended_at=self._clock,
            )

    # -- housekeeping ------------------------------------------------------------------------

    def forget(self, prediction_id: str) -> None:
        """Delete the row of a prediction that nobody can ask for; a running one then stops."""
        with self._engine.begin() as connection:
            connection.execute(_row.delete().where(_row.c.prediction_id == prediction_id))

    def abandon(self, owner: str) -> int:
        """Forget what an earlier process of the same name was receiving or waiting for."""
        is_lost = sa.or_(_row.c.is_awaited, _row.c.state == PredictionState.RECEIVING.value)
        with self._engine.begin() as connection:
            return connection.execute(_row.delete().where(_row.c.owner == owner, is_lost)).rowcount

    def forget_ended(self, *, older_than_s: float) -> list[str]:
        """Delete the rows of predictions that have been over for so long; return their ids."""
        limit = self._clock - older_than_s
        with self._engine.begin() as connection:
            found = connection.execute(
                _row.delete()
                .where(_row.c.state.not_in(OPEN), _row.c.ended_at <= limit)
                .returning(_row.c.prediction_id)
            )
            return [row.prediction_id for row in found]

    def without_files(self, prediction_ids: Collection[str]) -> set[str]:
        """Return which of some predictions must have no files: unknown ones and failed ones."""
        keeping = (*OPEN, PredictionState.DONE)
        with self._reading() as connection:
            found = connection.execute(
                sa.select(_row.c.prediction_id).where(
                    _row.c.prediction_id.in_(prediction_ids), _row.c.state.in_(keeping)
                )
            )
            return set(prediction_ids) - {row.prediction_id for row in found}

    # -- the infer role ----------------------------------------------------------------------

    def has_queued(self) -> bool:
        """Say whether anything waits to be computed."""
        query = sa.select(_row.c.number).where(_row.c.state == PredictionState.QUEUED.value)
        with self._reading() as connection:
            return connection.execute(query.limit(1)).first() is not None

    def take(self, executor_id: str) -> PredictionRow | None:
        """Return the one that was accepted first, now running here; None when none waits."""
        oldest = (
            sa.select(sa.func.min(_row.c.number))
            .where(_row.c.state == PredictionState.QUEUED.value)
            .scalar_subquery()
        )
        with self._engine.begin() as connection:
            found = connection.execute(
                _row.update()
                .where(_row.c.number == oldest, _row.c.state == PredictionState.QUEUED.value)
                .values(
                    state=PredictionState.RUNNING.value,
                    executor_id=executor_id,
                    started_at=self._clock,
                    tries=_row.c.tries + 1,
                )
                .returning(*_row.c)
            ).first()
        return None if found is None else prediction_row(found)

    def note_progress(self, running: PredictionRow, done: int, total: int) -> bool:
        """Record the windows that are done; False when the result is no longer wanted."""
        return self._of_running(running, windows_done=done, window_count=total)

    def finish(
        self, running: PredictionRow, *, model_id: str, notes: Sequence[Mapping[str, str]]
    ) -> bool:
        """Record that the answer lies in the spool; False when it is no longer wanted."""
        return self._of_running(
            running,
            state=PredictionState.DONE.value,
            ended_at=self._clock,
            model_id=model_id,
            notes=[dict(note) for note in notes],
        )

    def fail(self, running: PredictionRow, failure: Failure) -> bool:
        """Record why there is no answer; False when none is wanted any more."""
        return self._of_running(
            running,
            state=PredictionState.FAILED.value,
            ended_at=self._clock,
            **asdict(failure),
        )

    def put_back(self, running: PredictionRow) -> bool:
        """Queue a prediction again whose process is told to stop; it keeps its place."""
        return self._of_running(
            running, state=PredictionState.QUEUED.value, tries=running.tries - 1, windows_done=0
        )

    def recover(self, executor_ids: Collection[str], crashed: Failure) -> int:
        """Queue again what dead processes were computing; fail what killed one too often.

        Returns how many there were.
        """
        of_dead = (
            _row.c.state == PredictionState.RUNNING.value,
            _row.c.executor_id.in_(executor_ids),
        )
        with self._engine.begin() as connection:
            failed = connection.execute(
                _row.update()
                .where(*of_dead, _row.c.tries >= MAX_TRIES)
                .values(state=PredictionState.FAILED.value, ended_at=self._clock, **asdict(crashed))
            ).rowcount
            queued = connection.execute(
                _row.update()
                .where(*of_dead)
                .values(state=PredictionState.QUEUED.value, windows_done=0)
            ).rowcount
        return failed + queued

    def running_executors(self) -> set[str]:
        """Return the processes that compute a prediction, dead or alive."""
        query = sa.select(_row.c.executor_id).where(_row.c.state == PredictionState.RUNNING.value)
        with self._reading() as connection:
            return {row.executor_id for row in connection.execute(query)}

    def _of_running(self, running: PredictionRow, **values: Any) -> bool:  # noqa: ANN401
        """Change a prediction while it is the very run that was taken."""
        is_same_run = (
            _row.c.executor_id == running.executor_id,
            _row.c.tries == running.tries,
        )
        with self._engine.begin() as connection:
            return self._move(
                connection,
                running.prediction_id,
                (PredictionState.RUNNING,),
                *is_same_run,
                **values,
            )

    @staticmethod
    def _move(
        connection: Connection,
        prediction_id: str,
        states: Collection[PredictionState],
        *more: sa.ColumnElement[bool],
        **values: Any,  # noqa: ANN401
    ) -> bool:
        changed = connection.execute(
            _row.update()
            .where(_row.c.prediction_id == prediction_id, _row.c.state.in_(states), *more)
            .values(**values)
        ).rowcount
        return bool(changed)
