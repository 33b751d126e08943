"""What the ledger can be asked; the web role gets no more than this."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, Row

from converters.sequences import SeriesKey
from converters.volume import Role
from node import database, rows, tables
from node.cases import (
    FINAL,
    AssembledCase,
    AssembledSeries,
    CaseRoute,
    CaseState,
    DeliveryReceipt,
    EncodedObject,
    ObjectKind,
    ReceivedInstance,
    Sender,
    SeriesDecision,
    Stage,
)
from node.errors import CaseUnknownError, InstanceLostError
from node.rows import AttemptRow, CaseRow, WorkerRow

T = TypeVar("T")

_case = tables.case
_LATEST = 200  # an attempt that is older than so many others has ended
_COMPANY_S: Final = 60.0  # a machine silent for so long is not there


class LedgerReader:
    """The node's database, for reading.

    Parameters
    ----------
    url : str
        SQLAlchemy URL of an SQLite file or a PostgreSQL database.
    """

    def __init__(self, url: str) -> None:
        self._engine = database.open_engine(url)
        self._clock = database.clock(self._engine)

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    @property
    def engine(self) -> Engine:
        """The database, for the tables that say nothing of cases."""
        return self._engine

    def _reading(self) -> AbstractContextManager[Connection]:
        return database.reading(self._engine)

    def digest_of(self, sop_instance_uid: str) -> str | None:
        """Return the digest of a stored instance, None when there is none."""
        return self._of_instance(tables.instance.c.sha256, sop_instance_uid)

    def path_of(self, sop_instance_uid: str) -> str | None:
        """Return where a stored instance lies in the spool, None when there is none."""
        return self._of_instance(tables.instance.c.path, sop_instance_uid)

    def _of_instance(self, column: sa.Column[str], sop_instance_uid: str) -> str | None:
        with self._reading() as connection:
            return connection.execute(
                sa.select(column).where(tables.instance.c.sop_instance_uid == sop_instance_uid)
            ).scalar()

    def workers(self) -> list[WorkerRow]:
        """Return every process that ever beat, with the time since."""
        table = tables.worker
        age = (self._clock - table.c.seen_at).label("age_s")
        with self._reading() as connection:
            return [rows.worker_row(row) for row in connection.execute(sa.select(table, age))]

    def has_others(self, role: str, worker_name: str) -> bool:
        """Say whether another machine runs a role, too, by whether it beats."""
        return any(
            one.role == role
            and one.executor_id != f"{worker_name}/{role}"
            and one.is_alive(_COMPANY_S)
            for one in self.workers()
        )

    def mark(self) -> tuple[object, ...]:
        """Return what differs once a case, an attempt, a receipt or what a process says changed.

        Cheap enough to be asked twice a second: it reads no summary, and of the attempts the ends.
        """
        case, attempt, receipt, worker = _case.c, tables.attempt.c, tables.receipt.c, tables.worker
        times = (case.updated_at, case.last_received_at, case.volumes_purged_at, case.purged_at)
        newest = [
            sa.select(sa.func.max(one)).scalar_subquery() for one in times
        ]  # each by its index
        count = sa.select(sa.func.count()).select_from(_case).scalar_subquery()
        latest = sa.select(attempt.ended_at).order_by(attempt.attempt_id.desc()).limit(_LATEST)
        queries = (
            sa.select(count, *newest),
            sa.select(sa.func.max(attempt.attempt_id)),
            sa.select(sa.func.max(latest.subquery().c.ended_at)),
            sa.select(sa.func.count(), sa.func.max(receipt.committed_at)),
        )
        said = sa.select(worker.c.executor_id, worker.c.detail).order_by(worker.c.executor_id)
        with self._reading() as connection:
            ends = [tuple(connection.execute(one).one()) for one in queries]
            return (*ends, *(tuple(row) for row in connection.execute(said)))

    def cases(self, *states: CaseState, limit: int = 100, offset: int = 0) -> list[CaseRow]:
        """Return cases, newest first; of some states only when any is named."""
        query = sa.select(_case).order_by(_case.c.opened_at.desc(), _case.c.revision.desc())
        if states:
            query = query.where(_case.c.state.in_([state.value for state in states]))
        with self._reading() as connection:
            found = connection.execute(query.limit(limit).offset(offset))
            return [rows.case_row(row) for row in found]

    def case(self, case_id: str) -> CaseRow:
        """Return one case.

        Raises
        ------
        CaseUnknownError
            There is no such case.
        """
        with self._reading() as connection:
            row = connection.execute(sa.select(_case).where(_case.c.case_id == case_id)).first()
        if row is None:
            raise CaseUnknownError
        return rows.case_row(row)

    def latest_change(self) -> float:
        """Return the newest moment at which a case changed; 0 without any."""
        with self._reading() as connection:
            found = connection.execute(sa.select(sa.func.max(_case.c.updated_at))).scalar()
        return float(found or 0.0)

    def ended_since(self, moment: float, *, limit: int) -> list[CaseRow]:
        """Return cases that have ended and changed after a moment, in the order of their change."""
        query = sa.select(_case).where(
            _case.c.updated_at > moment, _case.c.state.in_([state.value for state in FINAL])
        )
        with self._reading() as connection:
            found = connection.execute(query.order_by(_case.c.updated_at).limit(limit))
            return [rows.case_row(row) for row in found]

    def cases_of_study(self, study_instance_uid: str) -> list[CaseRow]:
        """Return the cases of a study, newest first."""
        query = sa.select(_case).where(_case.c.study_instance_uid == study_instance_uid)
        with self._reading() as connection:
            found = connection.execute(query.order_by(_case.c.opened_at.desc()))
            return [rows.case_row(one) for one in found]

    def an_instance_of_each_study(self, limit: int) -> dict[str, str]:
        """Return where an instance of each study lies, by study; of the newest ones, in no order.

        Those whose files were deleted have none.
        """
        table = tables.instance
        path = (
            sa.select(table.c.path)
            .where(table.c.study_instance_uid == _case.c.study_instance_uid)
            .limit(1)
            .scalar_subquery()
        )
        query = sa.select(_case.c.study_instance_uid, path.label("path"))
        query = query.where(_case.c.purged_at.is_(None)).order_by(_case.c.opened_at.desc())
        with self._reading() as connection:
            found = connection.execute(query.limit(limit))
            return {row.study_instance_uid: row.path for row in found if row.path is not None}

    def earlier_revisions(self, row: CaseRow) -> list[CaseRow]:
        """Return the cases of the same study and model with a lower revision, newest first."""
        query = (
            sa.select(_case)
            .where(
                _case.c.study_instance_uid == row.study_instance_uid,
                _case.c.model_id == row.model_id,
                _case.c.revision < row.revision,
            )
            .order_by(_case.c.revision.desc())
        )
        with self._reading() as connection:
            return [rows.case_row(one) for one in connection.execute(query)]

    def counts(self) -> dict[CaseState, int]:
        """Return how many cases are in each state; every state is named."""
        with self._reading() as connection:
            found = {
                row.state: row.total
                for row in connection.execute(
                    sa.select(_case.c.state, sa.func.count().label("total")).group_by(_case.c.state)
                )
            }
        return {state: found.get(state.value, 0) for state in CaseState}

    def study_instances(self, study_instance_uid: str) -> list[ReceivedInstance]:
        """Return what was received of a study, in order of arrival."""
        table = tables.instance
        with self._reading() as connection:
            found = connection.execute(
                sa.select(table)
                .where(table.c.study_instance_uid == study_instance_uid)
                .order_by(table.c.received_at, table.c.sop_instance_uid)
            )
            return [rows.received_instance(row) for row in found]

    def senders(self, study_instance_uid: str) -> list[Sender]:
        """Return who sent instances of a study, in the order in which they were first seen."""
        table = tables.sender
        query = sa.select(table).where(table.c.study_instance_uid == study_instance_uid)
        with self._reading() as connection:
            found = connection.execute(query.order_by(table.c.seen_at))
            return [Sender(**rows.values_of(row, Sender)) for row in found]

    def route(self, case_id: str) -> CaseRoute | None:
        """Return where the result of a case goes; None: to every destination."""
        table = tables.case_route
        with self._reading() as connection:
            row = connection.execute(sa.select(table).where(table.c.case_id == case_id)).first()
        if row is None:
            return None
        return CaseRoute(
            rule=row.rule,
            destinations=tuple(row.destinations),
            reference_role=row.reference_role,
        )

    def received(self, study_instance_uid: str) -> tuple[int, int]:
        """Return how many series and how many instances of a study were received."""
        table = tables.instance
        series_count = sa.func.count(sa.distinct(table.c.series_instance_uid))
        query = sa.select(series_count, sa.func.count()).where(
            table.c.study_instance_uid == study_instance_uid
        )
        with self._reading() as connection:
            counts = connection.execute(query).one()
        return int(counts[0]), int(counts[1])

    def assembled(self, case_id: str) -> AssembledCase:
        """Return a closed case with the instances that it was closed with.

        Raises
        ------
        InstanceLostError
            Some of them are no longer there.
        CaseUnknownError
            There is no such case, or it was not closed.
        """
        row = self.case(case_id)
        own, table = tables.case_instance, tables.instance
        by_role: dict[str, list[ReceivedInstance]] = {}
        with self._reading() as connection:
            found = connection.execute(
                sa.select(table, own.c.role)
                .join(own, own.c.sop_instance_uid == table.c.sop_instance_uid)
                .where(own.c.case_id == case_id)
                .order_by(own.c.role, table.c.sop_instance_uid)
            )
            for one in found:
                by_role.setdefault(one.role, []).append(rows.received_instance(one))
        part_of = {one.role: one.part for one in self.decisions(case_id) if one.role is not None}
        if not by_role or row.closed_by is None or row.reference_role is None:
            raise CaseUnknownError
        if lost := len(self.members(case_id)) - sum(map(len, by_role.values())):
            raise InstanceLostError(count=lost)
        series = tuple(
            AssembledSeries(
                series_instance_uid=many[0].series_instance_uid,
                part=part_of[role],
                role=role,
                instances=tuple(many),
            )
            for role, many in by_role.items()
        )
        return AssembledCase(
            case_id=case_id,
            study_instance_uid=row.study_instance_uid,
            series=series,
            reference_role=row.reference_role,
            closed_by=row.closed_by,
            revision=row.revision,
        )

    def members(self, case_id: str) -> set[tuple[Role, str, str]]:
        """Return role, part and SOP Instance UID of what a case was closed with."""
        own = tables.case_instance
        part_of = {one.role: one.part for one in self.decisions(case_id) if one.role is not None}
        with self._reading() as connection:
            found = connection.execute(sa.select(own).where(own.c.case_id == case_id))
            return {(row.role, part_of[row.role], row.sop_instance_uid) for row in found}

    def spool_bytes(self) -> int:
        """Return how much there is in the spool: instances, cases' folders, uploads."""
        with self._reading() as connection:
            instances = _sum(connection, tables.instance.c.byte_count)
            return instances + self.beside_instances_bytes(connection)

    @staticmethod
    def beside_instances_bytes(connection: Connection) -> int:
        """Return how much of it are cases' folders and uploads."""
        columns = (tables.case.c.folder_bytes, tables.prediction.c.byte_count)
        return sum(_sum(connection, column) for column in columns)

    def decisions(self, case_id: str) -> list[SeriesDecision]:
        """Return what each series of the study was taken for."""
        table = tables.case_series
        return self._of_case(
            table,
            case_id,
            rows.series_decision,
            table.c.role.is_(None),
            table.c.role,
            table.c.description,
        )

    def choices(self, case_id: str) -> dict[Role, SeriesKey]:
        """Return the series that an operator chose by hand for a case, by role."""
        with self._reading() as connection:
            return self._choices(connection, case_id)

    @staticmethod
    def _choices(connection: Connection, case_id: str) -> dict[Role, SeriesKey]:
        table = tables.case_choice
        query = sa.select(table).where(table.c.case_id == case_id).order_by(table.c.role)
        return {
            row.role: SeriesKey(row.series_instance_uid, row.part)
            for row in connection.execute(query)
        }

    def attempts(self, case_id: str) -> list[AttemptRow]:
        """Return every attempt of a case, first to last."""
        return self._of_case(tables.attempt, case_id, rows.attempt_row, tables.attempt.c.attempt_id)

    def last_deliveries(self, *, per_case: bool) -> list[AttemptRow]:
        """Return the last attempt at each destination, or of each case that is being delivered."""
        own, open_case = tables.attempt, _case.c.state == CaseState.ENCODED.value
        groups = [own.c.destination, *([own.c.case_id] if per_case else [])]
        last = (
            sa.select(sa.func.max(own.c.attempt_id))
            .join(_case, _case.c.case_id == own.c.case_id)
            .where(own.c.stage == Stage.DELIVER.value, open_case if per_case else sa.true())
            .group_by(*groups)
        )
        with self._reading() as connection:
            found = connection.execute(sa.select(own).where(own.c.attempt_id.in_(last)))
            return [rows.attempt_row(row) for row in found]

    def results(self, case_id: str) -> list[EncodedObject]:
        """Return the encoded objects of a case: its SEG, then what goes with it."""
        own = tables.result.c
        order = (sa.case((own.kind == ObjectKind.SEG.value, 0), else_=1), own.sop_instance_uid)
        return self._of_case(tables.result, case_id, rows.encoded_object, *order)

    def receipts(self, case_id: str) -> list[DeliveryReceipt]:
        """Return the receipts of a case, first to last."""
        return self._of_case(
            tables.receipt, case_id, rows.delivery_receipt, tables.receipt.c.delivered_at
        )

    def _of_case(
        self,
        table: sa.Table,
        case_id: str,
        convert: Callable[[Row[Any]], T],
        *order: sa.ColumnElement[Any],
    ) -> list[T]:
        query = sa.select(table).where(table.c.case_id == case_id).order_by(*order)
        with self._reading() as connection:
            return [convert(row) for row in connection.execute(query)]


def _sum(connection: Connection, column: sa.ColumnElement[int]) -> int:
    query = sa.select(sa.func.coalesce(sa.func.sum(column), 0))
    return int(connection.execute(query).scalar_one())
