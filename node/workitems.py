"""The worklist: work items as rows of the ledger, each change in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError

from node import database, tables, worksteps
from node.work_errors import WorkitemExistsError, WorkitemUnknownError
from node.worksteps import Item, StepState

_row = tables.workitem


@dataclass(frozen=True, slots=True, kw_only=True)
class Workitem:
    """A work item as the ledger knows it; `performer` is who has claimed it here, if we have."""

    uid: str
    state: StepState
    transaction_uid: str | None
    content: Item
    performer: str | None
    is_cancel_requested: bool


class Worklist:
    """The work items, on the ledger's database.

    Parameters
    ----------
    engine : Engine
        The ledger's own.
    is_mirror : bool
        Hold what is claimed from the worklist of another system instead of those created here.
    """

    def __init__(self, engine: Engine, *, is_mirror: bool = False) -> None:
        self._engine, self._is_mirror = engine, is_mirror
        self._clock = database.clock(engine)

    def create(self, uid: str, content: Item) -> None:
        """Add a work item.

        Raises
        ------
        WorkitemInvalidError
            See `worksteps.created`.
        WorkitemExistsError
            There is one of this UID.
        """
        values = {"uid": uid, "state": StepState.SCHEDULED.value, "created_at": self._clock}
        kept = worksteps.created(content, uid)
        try:
            with self._engine.begin() as connection:
                connection.execute(
                    _row.insert().values(
                        **values,
                        content=kept,
                        is_mirror=self._is_mirror,
                        is_cancel_requested=False,
                    )
                )
        except IntegrityError as error:
            raise WorkitemExistsError from error

    def find(self, uid: str) -> Workitem:
        """Return a work item.

        Raises
        ------
        WorkitemUnknownError
            There is none.
        """
        with database.reading(self._engine) as connection:
            return self._found(connection, _row.c.uid == uid)

    def search(
        self, keys: Mapping[str, str], *, limit: int = 200, offset: int = 0
    ) -> list[Workitem]:
        """Return the work items whose attributes have these values, the oldest first."""
        query = sa.select(_row).where(_row.c.is_mirror == self._is_mirror)
        query = query.order_by(_row.c.created_at, _row.c.uid)
        if worksteps.STATE in keys:
            query = query.where(_row.c.state == keys[worksteps.STATE])
        with database.reading(self._engine) as connection:
            rows = [_workitem(row) for row in connection.execute(query)]
        found = [row for row in rows if _meets(row.content, keys)]
        return found[offset : offset + limit]

    def change(
        self, uid: str, wanted: StepState, transaction_uid: str, *, performer: str | None = None
    ) -> bool:
        """Move a work item; False where it is there already.

        Raises
        ------
        WorkitemUnknownError, WorkitemConflictError
            There is none, or the table of states refuses it.
        """
        moved = False

        def _change(row: Workitem) -> dict[str, Any]:
            nonlocal moved
            moved = worksteps.check_move(
                row.state,
                wanted,
                held=row.transaction_uid,
                shown=transaction_uid,
                item=row.content,
            )
            if not moved:
                return {}
            claimed = {"transaction_uid": transaction_uid, "performer": performer}
            return {
                "state": wanted.value,
                "content": worksteps.moved(row.content, wanted),
                **(claimed if wanted is StepState.IN_PROGRESS else {}),
            }

        self._with(uid, _change)
        return moved

    def update(self, uid: str, change: Item, transaction_uid: str) -> None:
        """Change what a work item says; raises as `change`."""

        def _change(row: Workitem) -> dict[str, Any]:
            worksteps.check_update(row.state, held=row.transaction_uid, shown=transaction_uid)
            return {"content": worksteps.updated(row.content, change)}

        self._with(uid, _change)

    def request_cancel(self, uid: str, reason: Item) -> bool:
        """Cancel a work item that nobody has claimed, and tell its performer otherwise.

        Returns False where it is canceled already. Raises as `change`.
        """
        did = True

        def _change(row: Workitem) -> dict[str, Any]:
            nonlocal did
            if row.state is StepState.COMPLETED:
                raise worksteps.conflict(0xC311)
            if row.state is StepState.CANCELED:
                did = False
                return {}
            content = worksteps.updated(row.content, reason)
            if row.state is StepState.IN_PROGRESS:
                return {"is_cancel_requested": True, "content": content}
            canceled = StepState.CANCELED
            return {"state": canceled.value, "content": worksteps.moved(content, canceled)}

        self._with(uid, _change)
        return did

    def performed_by(self, performer: str) -> list[Workitem]:
        """Return what a performer has claimed and not ended."""
        query = sa.select(_row).where(
            _row.c.is_mirror == self._is_mirror,
            _row.c.performer == performer,
            _row.c.state == StepState.IN_PROGRESS.value,
        )
        with database.reading(self._engine) as connection:
            return [_workitem(row) for row in connection.execute(query)]

    def drop(self, uid: str) -> None:
        """Forget a work item that somebody else performs."""
        with self._engine.begin() as connection:
            connection.execute(_row.delete().where(_row.c.uid == uid, _row.c.is_mirror))

    def _with(self, uid: str, change: Callable[[Workitem], dict[str, Any]]) -> None:
        with self._engine.begin() as connection:
            row = self._found(connection, _row.c.uid == uid, is_locked=True)
            if values := change(row):
                connection.execute(_row.update().where(_row.c.uid == uid).values(**values))

    def _found(
        self, connection: Connection, where: sa.ColumnElement[bool], *, is_locked: bool = False
    ) -> Workitem:
        query = sa.select(_row).where(where, _row.c.is_mirror == self._is_mirror)
        row = connection.execute(query.with_for_update() if is_locked else query).first()
        if row is None:
            raise WorkitemUnknownError
        return _workitem(row)


def _workitem(row: sa.Row[Any]) -> Workitem:
    return Workitem(
        uid=row.uid,
        state=StepState(row.state),
        transaction_uid=row.transaction_uid,
        content=dict(row.content),
        performer=row.performer,
        is_cancel_requested=bool(row.is_cancel_requested),
    )


def _meets(content: Item, keys: Mapping[str, str]) -> bool:
    """Say whether each attribute has the value that is asked for, inside its inputs as well."""
    inside = (content, *worksteps.items_of(content, worksteps.INPUTS))
    return all(
        any(worksteps.value_of(one, tag) == value for one in inside) for tag, value in keys.items()
    )
