"""The ledger's tables and how a connection to them is opened.

Times are seconds since 1970 in UTC. SQLite runs in WAL mode with full synchronisation: a committed
row survives a power cut.
"""

from __future__ import annotations

import sqlite3
from contextlib import AbstractContextManager
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import OperationalError

from node import schema
from node.errors import LedgerSchemaError, LedgerUnavailableError

metadata = sa.MetaData()
SCHEMA_VERSION = 5  # node/schema/versions has the step from the one before
_PATIENCE_S: Final = 30
"""How long a transaction waits for another one, and an idle one or a lost server is put up with."""

LOST_SERVER: Final = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 1000 * _PATIENCE_S,
}
"""By what a connection to a PostgreSQL finds out that nobody is there any more."""

meta = sa.Table(
    "ledger_meta",
    metadata,
    sa.Column("schema_version", sa.Integer, nullable=False),
)
alembic_version = sa.Table(
    "alembic_version",
    metadata,
    sa.Column("version_num", sa.String(32), primary_key=True),
)
instance = sa.Table(
    "instance",
    metadata,
    sa.Column("sop_instance_uid", sa.String(64), primary_key=True),
    sa.Column("study_instance_uid", sa.String(64), nullable=False, index=True),
    sa.Column("series_instance_uid", sa.String(64), nullable=False),
    sa.Column("sop_class_uid", sa.String(64), nullable=False),
    sa.Column("transfer_syntax_uid", sa.String(64), nullable=False),
    sa.Column("calling_ae_title", sa.String(16), nullable=False),
    sa.Column("path", sa.String(200), nullable=False),
    sa.Column("byte_count", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("received_at", sa.Float, nullable=False),
)
case = sa.Table(
    "imaging_case",
    metadata,
    sa.Column("case_id", sa.String(32), primary_key=True),
    sa.Column("study_instance_uid", sa.String(64), nullable=False),
    sa.Column("model_id", sa.String(100), nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("opened_at", sa.Float, nullable=False, index=True),
    sa.Column("last_received_at", sa.Float, nullable=False, index=True),
    sa.Column("released_at", sa.Float),
    sa.Column("completion_requested_at", sa.Float),
    sa.Column("updated_at", sa.Float, nullable=False, index=True),
    sa.Column("closed_at", sa.Float),
    sa.Column("closed_by", sa.String(16)),
    sa.Column("reason", sa.Text, nullable=False, default=""),
    sa.Column("reference_role", sa.String(16)),
    sa.Column("code", sa.String(64)),
    sa.Column("sentence", sa.Text),
    sa.Column("advice", sa.Text),
    sa.Column("resume_state", sa.String(16)),
    sa.Column("run", sa.Integer, nullable=False, default=1),
    sa.Column("priority", sa.String(8), nullable=False, server_default="normal"),
    sa.Column("summary", sa.JSON),
    sa.Column("folder_bytes", sa.BigInteger, nullable=False, default=0),
    sa.Column("volumes_purged_at", sa.Float, index=True),
    sa.Column("purged_at", sa.Float, index=True),
    sa.UniqueConstraint("study_instance_uid", "model_id", "revision"),
)
doomed_file = sa.Table(
    "doomed_file",
    metadata,
    sa.Column("path", sa.String(200), primary_key=True),
)
case_series = sa.Table(
    "case_series",
    metadata,
    sa.Column("case_id", sa.String(32), primary_key=True),
    sa.Column("series_instance_uid", sa.String(64), primary_key=True),
    sa.Column("part", sa.String(64), primary_key=True),
    sa.Column("description", sa.String(64), nullable=False),
    sa.Column("sequence", sa.String(32), nullable=False),
    sa.Column("role", sa.String(16)),
    sa.Column("score", sa.Float, nullable=False),
    sa.Column("runner_up", sa.String(64), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("geometry", sa.String(128), nullable=False),
    sa.Column("instance_count", sa.Integer, nullable=False),
    sa.Column("is_whole", sa.Boolean, nullable=False),
    sa.Column("code", sa.String(64)),
)
case_instance = sa.Table(
    "case_instance",
    metadata,
    sa.Column("case_id", sa.String(32), primary_key=True),
    sa.Column("sop_instance_uid", sa.String(64), primary_key=True),
    sa.Column("role", sa.String(16), nullable=False),
)
case_choice = sa.Table(
    "case_choice",
    metadata,
    sa.Column("case_id", sa.String(32), primary_key=True),
    sa.Column("role", sa.String(16), primary_key=True),
    sa.Column("series_instance_uid", sa.String(64), nullable=False),
    sa.Column("part", sa.String(64), nullable=False),
)
attempt = sa.Table(
    "attempt",
    metadata,
    sa.Column("attempt_id", sa.Integer, primary_key=True),
    sa.Column("case_id", sa.String(32), nullable=False, index=True),
    sa.Column("stage", sa.String(16), nullable=False),
    sa.Column("destination", sa.String(32)),
    sa.Column("started_at", sa.Float, nullable=False),
    sa.Column("ended_at", sa.Float),
    sa.Column("outcome", sa.String(16)),
    sa.Column("code", sa.String(64)),
    sa.Column("sentence", sa.Text),
    sa.Column("next_at", sa.Float),
)
result = sa.Table(
    "result",
    metadata,
    sa.Column("case_id", sa.String(32), primary_key=True),
    sa.Column("sop_instance_uid", sa.String(64), primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("sop_class_uid", sa.String(64), nullable=False),
    sa.Column("series_instance_uid", sa.String(64), nullable=False),
    sa.Column("study_instance_uid", sa.String(64), nullable=False),
    sa.Column("transfer_syntax_uid", sa.String(64), nullable=False),
    sa.Column("path", sa.String(200), nullable=False),
    sa.Column("byte_count", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
)
receipt = sa.Table(
    "receipt",
    metadata,
    sa.Column("case_id", sa.String(32), primary_key=True),
    sa.Column("destination", sa.String(32), primary_key=True),
    sa.Column("sop_instance_uid", sa.String(64), primary_key=True),
    sa.Column("transport", sa.String(8), nullable=False),
    sa.Column("status_code", sa.String(16), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("delivered_at", sa.Float, nullable=False),
    sa.Column("committed_at", sa.Float),
)
commitment = sa.Table(
    "commitment",
    metadata,
    sa.Column("transaction_uid", sa.String(64), primary_key=True),
    sa.Column("case_id", sa.String(32), nullable=False, index=True),
    sa.Column("destination", sa.String(32), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("ae_title", sa.String(16), nullable=False),
    sa.Column("sop_instance_uids", sa.JSON, nullable=False),
    sa.Column("begun_at", sa.Float, nullable=False),
    sa.Column("asked_at", sa.Float),
    sa.Column("reported_at", sa.Float),
    sa.Column("failures", sa.JSON),
    sa.Column("concluded_at", sa.Float),
    sa.UniqueConstraint("case_id", "destination", "number"),
)
notification = sa.Table(
    "notification",
    metadata,
    sa.Column("notification_id", sa.String(32), primary_key=True),
    sa.Column("event", sa.String(32), nullable=False),
    sa.Column("case_id", sa.String(32), nullable=False, index=True),
    sa.Column("run", sa.Integer, nullable=False),
    sa.Column("destination", sa.String(32)),
    sa.Column("code", sa.String(64), nullable=False),
    sa.Column("happened_at", sa.Float, nullable=False),
    sa.Column("routed_at", sa.Float, index=True),
)
notification_send = sa.Table(
    "notification_send",
    metadata,
    sa.Column("notification_id", sa.String(32), primary_key=True),
    sa.Column("channel", sa.String(16), primary_key=True),
    sa.Column("attempt_count", sa.Integer, nullable=False, default=0),
    sa.Column("waited_s", sa.Float, nullable=False, default=0.0),
    sa.Column("next_at", sa.Float, nullable=False, index=True),
    sa.Column("sent_at", sa.Float),
    sa.Column("given_up_at", sa.Float),
    sa.Column("sentence", sa.Text),
)
prediction = sa.Table(
    "prediction",
    metadata,
    sa.Column("prediction_id", sa.String(32), primary_key=True),
    sa.Column("number", sa.BigInteger, unique=True),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("is_awaited", sa.Boolean, nullable=False),
    sa.Column("owner", sa.String(100), nullable=False),
    sa.Column("submitted_at", sa.Float, nullable=False),
    sa.Column("started_at", sa.Float),
    sa.Column("ended_at", sa.Float),
    sa.Column("executor_id", sa.String(100)),
    sa.Column("tries", sa.Integer, nullable=False, default=0),
    sa.Column("windows_done", sa.Integer, nullable=False, default=0),
    sa.Column("window_count", sa.Integer, nullable=False, default=0),
    sa.Column("byte_count", sa.BigInteger, nullable=False, default=0),
    sa.Column("model_id", sa.String(100)),
    sa.Column("notes", sa.JSON),
    sa.Column("code", sa.String(64)),
    sa.Column("sentence", sa.Text),
    sa.Column("advice", sa.Text),
    sa.Column("disposition", sa.String(16)),
)
operator_order = sa.Table(
    "operator_order",
    metadata,
    sa.Column("order_key", sa.String(96), primary_key=True),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("ordered_at", sa.Float, nullable=False, index=True),
)
haste = sa.Table(
    "haste",
    metadata,
    sa.Column("case_id", sa.String(32), primary_key=True),
)
pull = sa.Table(
    "pull",
    metadata,
    sa.Column("study_instance_uid", sa.String(64), primary_key=True),
    sa.Column("source", sa.String(32), nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("asked_at", sa.Float, nullable=False),
    sa.Column("seen_at", sa.Float),
    sa.Column("ended_at", sa.Float),
    sa.Column("next_at", sa.Float),
    sa.Column("executor_id", sa.String(100)),
    sa.Column("tries", sa.Integer, nullable=False, default=0),
    sa.Column("plan", sa.JSON),
    sa.Column("tally", sa.JSON),
    sa.Column("code", sa.String(64)),
    sa.Column("sentence", sa.Text),
    sa.Column("advice", sa.Text),
)
sender = sa.Table(
    "sender",
    metadata,
    sa.Column("study_instance_uid", sa.String(64), primary_key=True),
    sa.Column("calling_ae_title", sa.String(16), primary_key=True),
    sa.Column("called_ae_title", sa.String(16), primary_key=True),
    sa.Column("calling_address", sa.String(64), primary_key=True),
    sa.Column("seen_at", sa.Float, nullable=False),
)
case_route = sa.Table(
    "case_route",
    metadata,
    sa.Column("case_id", sa.String(32), primary_key=True),
    sa.Column("rule", sa.String(64), nullable=False),
    sa.Column("destinations", sa.JSON, nullable=False),
    sa.Column("reference_role", sa.String(16), nullable=False),
)
workitem = sa.Table(
    "workitem",
    metadata,
    sa.Column("uid", sa.String(64), primary_key=True),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("transaction_uid", sa.String(64)),
    sa.Column("content", sa.JSON, nullable=False),
    sa.Column("performer", sa.String(32)),
    sa.Column("is_mirror", sa.Boolean, nullable=False),
    sa.Column("is_cancel_requested", sa.Boolean, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)
worker = sa.Table(
    "worker",
    metadata,
    sa.Column("executor_id", sa.String(100), primary_key=True),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("host", sa.String(100), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("seen_at", sa.Float, nullable=False),
    sa.Column("detail", sa.JSON),
)


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
        # A reader that becomes a writer in mid-transaction fails at once under WAL; take the
        # write lock first instead and wait for it.
        is_read = connection.get_execution_options().get("reads_only", False)
        try:
            connection.connection.cursor().execute("BEGIN" if is_read else "BEGIN IMMEDIATE")
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
        **LOST_SERVER,
    }


def _configure_postgresql(engine: Engine) -> None:
    @sa.event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        # One writer at a time, as in SQLite: what is counted before a row is added stays true.
        if not connection.get_execution_options().get("reads_only", False):
            connection.exec_driver_sql(
                "SELECT pg_advisory_xact_lock(hashtext('neuroseg ' || current_schema()))"
            )


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
            metadata.create_all(connection)
            connection.execute(meta.insert().values(schema_version=SCHEMA_VERSION))
            connection.execute(alembic_version.insert().values(version_num=f"{SCHEMA_VERSION:04d}"))
        elif schema.OLDEST <= found < SCHEMA_VERSION:
            schema.upgrade(connection, found, SCHEMA_VERSION)
        elif found != SCHEMA_VERSION:
            raise LedgerSchemaError(found=found, expected=SCHEMA_VERSION)


def _version(connection: Connection) -> int | None:
    """Return the version of the tables that are there; None where there are none."""
    if not sa.inspect(connection).has_table(meta.name):
        return None
    found: int | None = connection.execute(sa.select(meta.c.schema_version)).scalar()
    return found


def reading(engine: Engine) -> AbstractContextManager[Connection]:
    """Return a transaction that only reads: it waits for no writer."""
    return engine.execution_options(reads_only=True).begin()


def database_clock(engine: Engine) -> sa.ColumnElement[float]:
    """Return an expression for the database's own clock, seconds since 1970.

    Machines that share a ledger compare heartbeats by one clock, whatever theirs say.
    """
    is_sqlite = engine.dialect.name == "sqlite"
    told = "(julianday('now') - 2440587.5) * 86400.0"
    clock = sa.text(told if is_sqlite else "extract(epoch from clock_timestamp())")
    return sa.type_coerce(clock, sa.Float)
