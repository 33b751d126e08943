"""How a database is opened and asked: SQLite beside the node, or a PostgreSQL that several share.

SQLite runs in WAL mode with full synchronisation: a committed row survives a power cut.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import OperationalError

from node import schema, tables
from node.errors import LedgerSchemaError, LedgerUnavailableError

_PATIENCE_S: Final = 30
"""How long a transaction waits for another one, and an idle one or a lost server is put up with."""

_CACHE_KIB: Final = 256
"""Pages that a SQLite connection keeps; the system keeps the file's for all of them."""

LOST_SERVER: Final = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 1000 * _PATIENCE_S,
}
"""By what a connection to a PostgreSQL finds out that nobody is there any more."""

CONNECTION: Final = {**LOST_SERVER, "client_encoding": "utf8"}
"""What every connection to one asks for; a database of bytes (SQL_ASCII) would answer in bytes."""


_BEGIN_WRITING: Final = {
    # A reader that becomes a writer in mid-transaction fails at once under WAL; take the write lock
    # first instead and wait for it.
    "sqlite": "BEGIN IMMEDIATE",
    # One writer at a time, as in SQLite: what is counted before a row is added stays true.
    "postgresql": "SELECT pg_advisory_xact_lock(hashtext('neuroseg ' || current_schema()))",
}


@sa.event.listens_for(sa.Pool, "connect")
def _keep_few_pages(connection: object, _: object) -> None:
    """Keep a SQLite connection small: the job engine's too, of which each process has many."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")


def _configure_sqlite(engine: Engine) -> None:
    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _: object) -> None:  # noqa: ANN401 - the driver's own type
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            f"busy_timeout={1000 * _PATIENCE_S}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        is_read = connection.get_execution_options().get("reads_only", False)
        begin = "BEGIN" if is_read else _BEGIN_WRITING["sqlite"]
        try:
            connection.connection.cursor().execute(begin)
        except sqlite3.Error as error:
            raise OperationalError(None, None, error) from error


def _postgresql_patience(url: sa.URL) -> dict[str, Any]:
    """Return what keeps a connection from waiting for ever, for a lock or a lost server."""
    said = url.query.get("options", "")
    limits = ("lock_timeout", "idle_in_transaction_session_timeout")
    options = [f"-c{limit}={_PATIENCE_S}s" for limit in limits]
    options += [said] if isinstance(said, str) else said  # its owner's word comes last
    return {
        "options": " ".join(options),
        "connect_timeout": 10,
        **CONNECTION,
    }


def _configure_postgresql(engine: Engine) -> None:
    @sa.event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        if not connection.get_execution_options().get("reads_only", False):
            connection.exec_driver_sql(_BEGIN_WRITING["postgresql"])


def open_engine(url: str) -> Engine:
    """Return an engine on the ledger's database, its tables created when absent.

    Raises
    ------
    LedgerUnavailableError
        The database cannot be opened.
    LedgerSchemaError
        Its tables are those of another version; nothing in it is touched.
    """
    parsed = sa.make_url(url)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    is_sqlite = parsed.get_backend_name() == "sqlite"
    patience = {"timeout": _PATIENCE_S} if is_sqlite else _postgresql_patience(parsed)
    engine = sa.create_engine(
        parsed,
        pool_pre_ping=not is_sqlite,
        hide_parameters=True,
        connect_args=patience,
    )
    (_configure_sqlite if is_sqlite else _configure_postgresql)(engine)
    try:
        _create_tables(engine)
    except OperationalError as error:
        engine.dispose()
        raise LedgerUnavailableError(kind=type(error.orig).__name__) from error
    except LedgerSchemaError:
        engine.dispose()
        raise
    return engine


def _create_tables(engine: Engine) -> None:
    with engine.begin() as connection:
        found = _version(connection)
        if found is None:
            tables.metadata.create_all(connection)
            connection.execute(tables.meta.insert().values(schema_version=tables.SCHEMA_VERSION))
            connection.execute(
                tables.alembic_version.insert().values(version_num=f"{tables.SCHEMA_VERSION:04d}")
            )
        elif schema.OLDEST <= found < tables.SCHEMA_VERSION:
            schema.upgrade(connection, found, tables.SCHEMA_VERSION)
        elif found != tables.SCHEMA_VERSION:
            raise LedgerSchemaError(found=found, expected=tables.SCHEMA_VERSION)


def _version(connection: Connection) -> int | None:
    """Return the version of the tables that are there; None where there are none."""
    if not sa.inspect(connection).has_table(tables.meta.name):
        return None
    found: int | None = connection.execute(sa.select(tables.meta.c.schema_version)).scalar()
    return found


def reading(engine: Engine) -> AbstractContextManager[Connection]:
    """Return a transaction that only reads: it waits for no writer."""
    return engine.execution_options(reads_only=True).begin()


@contextmanager
def writing(engine: Engine) -> Iterator[DBAPICursor]:
    """Give a cursor of the driver in a transaction that writes; for what must be quick.

    Without SQLAlchemy's own objects around it, a transaction takes a sixth of the time.
    """
    try:
        # Closed, it is back in the pool, which rolls back what is not committed.
        with closing(engine.raw_connection()) as connection:
            cursor = connection.cursor()
            cursor.execute(_BEGIN_WRITING[engine.dialect.name])
            yield cursor
            connection.commit()
    except engine.dialect.loaded_dbapi.Error as error:
        raise OperationalError(None, None, error) from error


def clock(engine: Engine) -> sa.ColumnElement[float]:
    """Return an expression for the database's own clock, seconds since 1970.

    Machines that share a ledger compare heartbeats by one clock, whatever theirs say.
    """
    is_sqlite = engine.dialect.name == "sqlite"
    told = "(julianday('now') - 2440587.5) * 86400.0"
    now = sa.text(told if is_sqlite else "extract(epoch from clock_timestamp())")
    return sa.type_coerce(now, sa.Float)
