"""Storage commitment in the ledger: what a destination was asked to keep and what it answered."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from node import rows, tables, uids
from node.cases import CaseState, CommitmentReport
from node.dimse import Status
from node.errors import ReporterUnknownError, ReportInvalidError
from node.reading import LedgerReader
from node.rows import CommitmentRow

_table = tables.commitment
_DELIVERING = (CaseState.ENCODED.value, CaseState.FAILED.value)


class Commitments(LedgerReader):
    """The part of the ledger that knows storage commitment transactions."""

    def begin_commitment(
        self, case_id: str, destination: str, sop_instance_uids: Sequence[str], *, ae_title: str
    ) -> str:
        """Record that a destination is about to be asked; return a new Transaction UID.

        It is written before the question leaves, since the answer may be the faster one.
        """
        earlier = sa.select(sa.func.count()).where(
            _table.c.case_id == case_id, _table.c.destination == destination
        )
        with self._engine.begin() as connection:
            number = 1 + int(connection.execute(earlier).scalar_one())
            transaction_uid = uids.transaction_uid(case_id, destination, number)
            connection.execute(
                _table.insert().values(
                    transaction_uid=transaction_uid,
                    case_id=case_id,
                    destination=destination,
                    number=number,
                    ae_title=ae_title,
                    sop_instance_uids=list(sop_instance_uids),
                    begun_at=max(time.time(), self._last_stored(connection, case_id, destination)),
                )
            )
        return transaction_uid

    @staticmethod
    def _last_stored(connection: Connection, case_id: str, destination: str) -> float:
        """Return when a destination stored the last object: no question comes before its object.

        Not by a clock that was set back in between either, or a lost object were taken for one
        that was stored after the question.
        """
        own = tables.receipt.c
        query = sa.select(sa.func.coalesce(sa.func.max(own.delivered_at), 0.0))
        stored = query.where(own.case_id == case_id, own.destination == destination)
        return float(connection.execute(stored).scalar_one())

    def note_asked(self, transaction_uid: str) -> None:
        """Record that the destination has taken the question."""
        self._stamp(transaction_uid, "asked_at")

    def conclude(self, transaction_uid: str) -> None:
        """Record that the consequence of a report, or of its absence, has been drawn."""
        self._stamp(transaction_uid, "concluded_at")

    def _stamp(self, transaction_uid: str, column: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(
                _table.update()
                .where(_table.c.transaction_uid == transaction_uid)
                .values({column: time.time()})
            )

    def save_report(self, report: CommitmentReport, *, ae_title: str) -> CommitmentRow:
        """Record what a destination answered; return the transaction as it stands then.

        Objects that it keeps are committed. The receipt of one that it does not have is withdrawn
        unless that was stored after the question, so that it is sent again. An object that the
        report leaves out has failed. A transaction is answered once: a second report may commit
        more, and changes nothing else.

        Raises
        ------
        ReportInvalidError
            There is no such transaction.
        ReporterUnknownError
            Another AE title than the reporter's was asked.
        """
        with self._engine.begin() as connection:
            row = connection.execute(
                sa.select(_table)
                .where(_table.c.transaction_uid == report.transaction_uid)
                .with_for_update()
            ).first()
            if row is None:
                raise ReportInvalidError(reason="nobody asked for this transaction")
            if row.ae_title != ae_title:
                raise ReporterUnknownError
            self._apply(connection, row, report)
        (found,) = self._commitments(_table.c.transaction_uid == report.transaction_uid)
        return found

    @staticmethod
    def _apply(connection: Connection, row: Row[Any], report: CommitmentReport) -> None:
        asked = set(row.sop_instance_uids)
        failures = {
            uid: report.failures.get(uid, int(Status.PROCESSING_FAILURE))
            for uid in row.sop_instance_uids
            if uid in report.failures or uid not in report.committed
        }
        now = time.time()
        connection.execute(
            tables.receipt.update()
            .where(*_uncommitted(row, asked - failures.keys()))
            .values(committed_at=now)
        )
        if row.reported_at is not None:
            return
        lost = [uid for uid, reason in failures.items() if reason == Status.NO_SUCH_SOP_INSTANCE]
        connection.execute(
            tables.receipt.delete().where(
                *_uncommitted(row, lost), tables.receipt.c.delivered_at <= row.begun_at
            )
        )
        connection.execute(
            _table.update()
            .where(_table.c.transaction_uid == row.transaction_uid)
            .values(reported_at=now, failures=failures)
        )

    def newest_commitment(self, case_id: str, destination: str) -> CommitmentRow | None:
        """Return the last transaction with a destination about a case, None without any."""
        found = self._commitments(_table.c.case_id == case_id, _table.c.destination == destination)
        return found[-1] if found else None

    def answered_commitments(self) -> list[CommitmentRow]:
        """Return the transactions whose report nobody has acted upon, of cases in delivery."""
        case = tables.case
        return self._commitments(
            _table.c.reported_at.is_not(None),
            _table.c.concluded_at.is_(None),
            _table.c.case_id.in_(sa.select(case.c.case_id).where(case.c.state.in_(_DELIVERING))),
        )

    def _commitments(self, *conditions: sa.ColumnElement[bool]) -> list[CommitmentRow]:
        query = sa.select(_table).where(*conditions).order_by(_table.c.number)
        with self._reading() as connection:
            return [rows.commitment_row(row) for row in connection.execute(query)]


def _uncommitted(
    row: Row[Any], sop_instance_uids: Collection[str]
) -> tuple[sa.ColumnElement[bool], ...]:
    own = tables.receipt.c
    return (
        own.case_id == row.case_id,
        own.destination == row.destination,
        own.sop_instance_uid.in_(list(sop_instance_uids)),
        own.committed_at.is_(None),
    )
