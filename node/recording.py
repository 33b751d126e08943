"""What the receiver writes for each instance: its row, and word of it to its study's case.

Done for every instance while its sender waits, so statements are compiled once: SQLAlchemy would
put each together and look it up anew, which took three quarters of the time of receiving.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from enum import StrEnum
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.engine.interfaces import DBAPICursor

from node import database, tables
from node.cases import CaseState, ReceivedInstance
from node.errors import InstanceConflictError
from node.steering import CaseSteering

_case, _instance = tables.case, tables.instance
_COLUMNS: Final = tuple(one.name for one in fields(ReceivedInstance))


class Recorded(StrEnum):
    """What became of an instance: a new row, none as it is there, none as its content differs."""

    NEW = "new"
    KNOWN = "known"
    CONFLICT = "conflict"


class _Compiled:
    """A statement as the driver takes it; its values are texts and numbers."""

    def __init__(
        self,
        statement: sa.Select[Any] | sa.Insert | sa.Update,
        dialect: Dialect,
        *,
        ending: str = "",
    ) -> None:
        compiled = statement.compile(dialect=dialect)
        self._text, self._order = str(compiled) + ending, compiled.positiontup
        self._error = dialect.loaded_dbapi.Error

    def run(self, connection: Connection, *rows: Mapping[str, Any]) -> DBAPICursor:
        """Execute it, once for each mapping of values; return the driver's cursor."""
        cursor = connection.connection.cursor()
        try:
            self.run_by(cursor, *rows)
        except self._error as error:
            raise sa.exc.OperationalError(None, None, error) from error
        return cursor

    def run_by(self, cursor: DBAPICursor, *rows: Mapping[str, Any]) -> int:
        """Execute it by a cursor, once for each mapping; return how many rows it has changed."""
        given: list[Any] = list(rows)
        if self._order is not None:
            given = [tuple(map(row.__getitem__, self._order)) for row in rows]
        if len(given) == 1:
            cursor.execute(self._text, given[0])
        else:
            cursor.executemany(self._text, given)
        return cursor.rowcount


class _Statements:
    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        add = _instance.insert().values({name: sa.bindparam(name) for name in _COLUMNS})
        self.add = _Compiled(add, dialect)
        self.add_unknown = _Compiled(add, dialect, ending=" ON CONFLICT DO NOTHING")
        self.touch = _Compiled(
            _case.update()
            .where(
                _case.c.study_instance_uid == sa.bindparam("study"),
                _case.c.model_id == sa.bindparam("model"),
                _case.c.state == sa.bindparam("open"),
            )
            .values(last_received_at=sa.bindparam("now"), updated_at=sa.bindparam("now")),
            dialect,
        )
        self.known = cache(self._known)

    def _known(self, count: int) -> _Compiled:
        uids = [sa.bindparam(f"uid{index}", type_=sa.String) for index in range(count)]
        return _Compiled(
            sa.select(_instance.c.sop_instance_uid, _instance.c.sha256).where(
                sa.or_(*(_instance.c.sop_instance_uid == one for one in uids))
            ),
            self._dialect,
        )


class Recording(CaseSteering):
    """The part of the ledger that the doors write to."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._statements = _Statements(self._engine.dialect)

    def record_instance(self, instance: ReceivedInstance, *, model_id: str) -> bool:
        """Add an instance and open or touch its study's case; return False for a known one.

        Raises
        ------
        InstanceConflictError
            The SOP Instance UID is known with other content.
        """
        (recorded,) = self.record_instances([instance], model_id=model_id)
        if recorded is Recorded.CONFLICT:
            raise InstanceConflictError
        return recorded is Recorded.NEW

    def record_instances(
        self, instances: Sequence[ReceivedInstance], *, model_id: str
    ) -> list[Recorded]:
        """Add instances in one transaction; return what became of each, in their order."""
        if self._has_simply_added(instances, model_id):
            return [Recorded.NEW] * len(instances)
        uids = {f"uid{index}": one.sop_instance_uid for index, one in enumerate(instances)}
        with self._engine.begin() as connection:
            known = dict(self._statements.known(len(uids)).run(connection, uids).fetchall())
            found = [_recorded(one, known) for one in instances]
            new = [
                one
                for one, recorded in zip(instances, found, strict=True)
                if recorded is Recorded.NEW
            ]
            if new:
                self._add(connection, new, model_id)
        return found

    def _has_simply_added(self, instances: Sequence[ReceivedInstance], model_id: str) -> bool:
        """Add instances that are all new, of studies whose cases are open; else change nothing."""
        rows = _rows(instances)
        with (
            suppress(_NotSimpleError),
            database.writing(self._engine) as cursor,
        ):
            if self._statements.add_unknown.run_by(cursor, *rows) != len(rows):
                raise _NotSimpleError
            for study, seconds in _latest(rows):
                touched = _touched(study, model_id, seconds)
                if not self._statements.touch.run_by(cursor, touched):
                    raise _NotSimpleError
            return True
        return False

    def _add(
        self, connection: Connection, instances: Sequence[ReceivedInstance], model_id: str
    ) -> None:
        rows = _rows(instances)
        self._statements.add.run(connection, *rows)
        for study, seconds in _latest(rows):
            self._touch_case(connection, study, model_id, seconds)

    def _touch_case(self, connection: Connection, study: str, model_id: str, now: float) -> None:
        """Tell the open case of a study; where there is none, open one."""
        if self._statements.touch.run(connection, _touched(study, model_id, now)).rowcount:
            return
        newest = connection.execute(
            sa.select(_case)
            .where(_case.c.study_instance_uid == study, _case.c.model_id == model_id)
            .order_by(_case.c.revision.desc())
            .limit(1)
            .with_for_update()
        ).first()
        self._open_revision(connection, newest, study, model_id, now=now)


class _NotSimpleError(Exception):
    """There is more to it than rows that are added."""


def _rows(instances: Sequence[ReceivedInstance]) -> list[dict[str, Any]]:
    return [
        {name: getattr(one, name) for name in _COLUMNS}
        | {"received_at": one.received_at.timestamp()}
        for one in instances
    ]


def _latest(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, float]]:
    """Return each study and when its last instance came; one order: two processes never cross."""
    latest: dict[str, float] = {}
    for row in rows:
        study = row["study_instance_uid"]
        latest[study] = max(row["received_at"], latest.get(study, 0.0))
    return sorted(latest.items())


def _touched(study: str, model_id: str, now: float) -> dict[str, Any]:
    return {"study": study, "model": model_id, "open": CaseState.RECEIVING.value, "now": now}


def _recorded(instance: ReceivedInstance, known: dict[str, str]) -> Recorded:
    """Compare an instance with those that are known by digest, to which it is added."""
    digest = known.get(instance.sop_instance_uid)
    if digest is not None:
        return Recorded.KNOWN if digest == instance.sha256 else Recorded.CONFLICT
    known[instance.sop_instance_uid] = instance.sha256
    return Recorded.NEW
