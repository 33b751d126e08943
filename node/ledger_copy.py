"""One ledger becomes another: from SQLite to PostgreSQL, when one machine is no longer enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from node import database, tables
from node.errors import LedgerBusyError, LedgerOccupiedError

_OWN: Final = {tables.meta, tables.alembic_version, tables.worker}
"""What each ledger says of itself and of the processes that live now."""
_CHUNK: Final = 2000


def copy(
    source: Engine,
    target: Engine,
    *,
    patience_s: float,
    told: Callable[[str, int], None] = lambda _table, _count: None,
) -> int:
    """Copy every row, in one transaction of the target; return how many there are.

    Parameters
    ----------
    source, target : Engine
        As `node.database.open_engine` opens them: both are of this version of the schema.
    patience_s : float
        A process that has said for so long nothing is dead.
    told : callable
        Is given a table's name and its rows when they are copied.

    Raises
    ------
    LedgerBusyError
        A process of a node works with the source; what it wrote meanwhile would be lost.
    LedgerOccupiedError
        The target holds something already.
    """
    total = 0
    with database.reading(source) as theirs, target.begin() as ours:
        _check_idle(theirs, source, patience_s)
        wanted = [table for table in tables.metadata.sorted_tables if table not in _OWN]
        for table in wanted:
            if ours.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first():
                raise LedgerOccupiedError(table=table.name)
        for table in wanted:
            count = _copy_table(table, theirs, ours)
            told(table.name, count)
            total += count
    return total


def _check_idle(connection: Connection, engine: Engine, patience_s: float) -> None:
    worker = tables.worker
    age_s = database.clock(engine) - worker.c.seen_at
    alive = connection.execute(sa.select(worker.c.role).where(age_s < patience_s)).scalars()
    if roles := sorted({str(role) for role in alive}):
        raise LedgerBusyError(roles=", ".join(roles))


def _copy_table(table: sa.Table, source: Connection, target: Connection) -> int:
    count = 0
    rows = source.execution_options(yield_per=_CHUNK).execute(sa.select(table))
    for many in rows.mappings().partitions(_CHUNK):
        target.execute(table.insert(), [dict(row) for row in many])
        count += len(many)
    number = table.autoincrement_column
    if number is not None and count and target.dialect.name == "postgresql":
        # Rows came with their numbers; the next one has to be a new one.
        sequence = sa.func.pg_get_serial_sequence(table.name, number.name)
        highest = sa.select(sa.func.max(number)).scalar_subquery()
        target.execute(sa.select(sa.func.setval(sequence, highest)))
    return count
