"""What a case is told from outside: that its sender has hung up, and what an operator wants of it.

`node.closing` acts on all of it in its next look.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row
from sqlalchemy.exc import IntegrityError

from converters.sequences import SeriesKey
from converters.volume import Role
from node import tables, uids
from node.cases import WORKING, CaseState, Priority, Sender, SeriesDecision
from node.errors import (
    CaseNotOpenError,
    CasePurgedError,
    CaseUnknownError,
    RoleUnknownError,
    SeriesTakenError,
    SeriesUnknownError,
)
from node.reading import LedgerReader
from node.rows import CaseRow

_case = tables.case
REOPENED = (CaseState.REJECTED, CaseState.FAILED)


class CaseSteering(LedgerReader):
    """The part of the ledger that others than the pipeline write to."""

    def note_sender(self, study_instance_uid: str, sender: Sender) -> None:
        """Note who sends instances of a study, once."""
        table = tables.sender
        own = {"study_instance_uid": study_instance_uid, **asdict(sender)}
        known = sa.select(table).where(*(table.c[name] == value for name, value in own.items()))
        with suppress(IntegrityError), self._engine.begin() as connection:  # two at the same time
            if connection.execute(known).first() is None:
                connection.execute(table.insert().values(**own, seen_at=time.time()))

    def record_release(
        self, study_instance_uids: Iterable[str], *, model_id: str, released_at: datetime
    ) -> None:
        """Note that an association which brought instances of these studies was released.

        It is a hint and no more: a study may come through several associations.
        """
        with self._engine.begin() as connection:
            connection.execute(
                _case.update()
                .where(
                    _case.c.study_instance_uid.in_(list(study_instance_uids)),
                    _case.c.model_id == model_id,
                    _case.c.state == CaseState.RECEIVING.value,
                )
                .values(released_at=released_at.timestamp())
            )

    def note_waiting(self, case_id: str, reason: str, decisions: Iterable[SeriesDecision]) -> None:
        """Record what an open case waits for and what its series are taken for so far."""
        with self._engine.begin() as connection:
            noted = connection.execute(
                _case.update()
                .where(_case.c.case_id == case_id, _case.c.state == CaseState.RECEIVING.value)
                .values(reason=reason)
            ).rowcount
            if noted:
                self._save_decisions(connection, case_id, decisions)

    @staticmethod
    def _save_decisions(
        connection: Connection, case_id: str, decisions: Iterable[SeriesDecision]
    ) -> None:
        table = tables.case_series
        connection.execute(table.delete().where(table.c.case_id == case_id))
        values = [{"case_id": case_id, **asdict(decision)} for decision in decisions]
        if values:
            connection.execute(table.insert(), values)

    # -- the operator ------------------------------------------------------------------------

    def request_completion(self, case_id: str) -> None:
        """Have an open case closed with what there is, whatever else may still arrive.

        Raises
        ------
        CaseUnknownError
            There is no such case.
        CaseNotOpenError
            It no longer receives.
        """
        with self._engine.begin() as connection:
            row = self._locked(connection, case_id)
            if row.state != CaseState.RECEIVING:
                raise CaseNotOpenError(state=row.state, expected=CaseState.RECEIVING.value)
            now = time.time()
            connection.execute(
                _case.update()
                .where(_case.c.case_id == case_id)
                .values(completion_requested_at=now, updated_at=now)
            )

    def set_priority(self, case_id: str, priority: Priority) -> CaseRow:
        """Say whose turn comes first; it holds from the case's next stage on."""
        with self._engine.begin() as connection:
            self._locked(connection, case_id)
            values = {"priority": priority.value, "updated_at": time.time()}
            connection.execute(_case.update().where(_case.c.case_id == case_id).values(values))
        return self.case(case_id)

    def choose_series(
        self, case_id: str, chosen: Mapping[Role, SeriesKey], *, roles: Collection[Role]
    ) -> CaseRow:
        """Record which series an operator wants for which role, instead of earlier choices.

        Parameters
        ----------
        case_id : str
            An open case takes the choice into its next decision. One that was rejected, failed or
            was cancelled decides anew by it when it is retried. One that has a result keeps it;
            the choice opens the study's next revision.
        chosen : mapping of str to SeriesKey
            Role -> series and part; empty takes all choices back.
        roles : collection of str
            The inputs of the model.

        Returns
        -------
        CaseRow
            The case that the choice is for: this one or the next revision.

        Raises
        ------
        CaseUnknownError
            There is no such case.
        CaseNotOpenError
            It is being worked on, or is not the newest revision.
        CasePurgedError
            Its files were deleted.
        RoleUnknownError, SeriesUnknownError, SeriesTakenError
            The choice itself cannot be.
        """
        _check_roles(chosen, roles)
        with self._engine.begin() as connection:
            row = self._locked(connection, case_id)
            self._check_changeable(connection, row)
            self._check_series(connection, row, chosen)
            if row.state != CaseState.RECEIVING:
                case_id = self._reconsidered(connection, row)
            self._save_choices(connection, case_id, chosen)
            connection.execute(
                _case.update().where(_case.c.case_id == case_id).values(updated_at=time.time())
            )
        return self.case(case_id)

    @staticmethod
    def _locked(connection: Connection, case_id: str) -> Row[Any]:
        row = connection.execute(
            sa.select(_case).where(_case.c.case_id == case_id).with_for_update()
        ).first()
        if row is None:
            raise CaseUnknownError
        return row

    @staticmethod
    def _check_changeable(connection: Connection, row: Row[Any]) -> None:
        newest = connection.execute(
            sa.select(sa.func.max(_case.c.revision)).where(
                _case.c.study_instance_uid == row.study_instance_uid,
                _case.c.model_id == row.model_id,
            )
        ).scalar_one()
        if row.revision != newest or row.state in WORKING:
            raise CaseNotOpenError(state=row.state, expected="the newest revision, open or ended")
        if row.purged_at is not None:
            raise CasePurgedError

    @staticmethod
    def _check_series(
        connection: Connection, row: Row[Any], chosen: Mapping[Role, SeriesKey]
    ) -> None:
        decided, received = tables.case_series, tables.instance
        known = {
            SeriesKey(*one)
            for one in connection.execute(
                sa.select(decided.c.series_instance_uid, decided.c.part).where(
                    decided.c.case_id == row.case_id
                )
            )
        }
        listed = {key.series_instance_uid for key in known}
        known |= {
            SeriesKey(uid)
            for (uid,) in connection.execute(
                sa.select(received.c.series_instance_uid)
                .where(received.c.study_instance_uid == row.study_instance_uid)
                .distinct()
            )
            if uid not in listed
        }
        for role, key in chosen.items():
            if key not in known:
                raise SeriesUnknownError(role=role)

    def _reconsidered(self, connection: Connection, row: Row[Any]) -> str:
        """Return the case that an ended one is decided anew as: itself, or its next revision."""
        result = tables.result
        has_result = connection.execute(
            sa.select(result.c.case_id).where(result.c.case_id == row.case_id)
        ).first()
        if has_result is None:
            connection.execute(
                _case.update()
                .where(_case.c.case_id == row.case_id)
                .values(resume_state=CaseState.RECEIVING.value)
            )
            return str(row.case_id)
        # A peer may hold the result already, and the same case means the same UIDs.
        return self._open_revision(
            connection, row, row.study_instance_uid, row.model_id, now=time.time()
        )

    @staticmethod
    def _open_revision(
        connection: Connection, newest: Row[Any] | None, study: str, model_id: str, *, now: float
    ) -> str:
        """Open the first or next case of a study; one that was refused gives way to it."""
        revision = 1 if newest is None else newest.revision + 1
        case_id = uids.case_id(study, model_id, revision)
        connection.execute(
            _case.insert().values(
                case_id=case_id,
                study_instance_uid=study,
                model_id=model_id,
                revision=revision,
                state=CaseState.RECEIVING.value,
                priority=Priority.NORMAL.value if newest is None else newest.priority,
                opened_at=now,
                last_received_at=now,
                updated_at=now,
                reason="",
            )
        )
        if newest is None:
            return case_id
        if newest.state in REOPENED:
            connection.execute(
                _case.update()
                .where(_case.c.case_id == newest.case_id)
                .values(state=CaseState.SUPERSEDED.value, updated_at=now)
            )
        table = tables.case_choice
        connection.execute(
            table.insert().from_select(
                ["case_id", "role", "series_instance_uid", "part"],
                sa.select(
                    sa.literal(case_id), table.c.role, table.c.series_instance_uid, table.c.part
                ).where(table.c.case_id == newest.case_id),
            )
        )
        return case_id

    @staticmethod
    def _save_choices(
        connection: Connection, case_id: str, chosen: Mapping[Role, SeriesKey]
    ) -> None:
        table = tables.case_choice
        connection.execute(table.delete().where(table.c.case_id == case_id))
        values = [
            {"case_id": case_id, "role": role, **key._asdict()} for role, key in chosen.items()
        ]
        if values:
            connection.execute(table.insert(), values)


def _check_roles(chosen: Mapping[Role, SeriesKey], roles: Collection[Role]) -> None:
    if not set(chosen) <= set(roles):
        raise RoleUnknownError(roles=", ".join(roles))
    taken: dict[SeriesKey, Role] = {}
    for role, key in chosen.items():
        first = taken.setdefault(key, role)
        if first != role:
            raise SeriesTakenError(first=first, second=role)
