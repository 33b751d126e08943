"""The truth about studies: instances, cases, attempts, results, receipts. The only writer of state.

Every method is one transaction. A state is committed before the work that relies on it, so that a
restart finds either the state before or the state after, never something in between.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from converters.sequences import SeriesKey
from converters.volume import Role
from node import tables
from node.cases import (
    AssembledCase,
    CaseState,
    DeliveryReceipt,
    EncodedSeg,
    Ending,
    ReceivedInstance,
    SeriesDecision,
    Stage,
    check_move,
)
from node.disposition import ending_of
from node.errors import (
    CaseNotHeldError,
    CaseUnknownError,
    InstanceConflictError,
    ResultHeldError,
)
from node.rows import CaseRow
from node.steering import REOPENED, CaseSteering

_case = tables.case
_NO_ENDING: Final = {"code": None, "sentence": None, "advice": None}


class Ledger(CaseSteering):
    """The node's database, for the roles that write to it."""

    # -- receiving ---------------------------------------------------------------------------

    def record_instance(self, instance: ReceivedInstance, *, model_id: str) -> bool:
        """Add an instance and open or touch its study's case; return False for a known one.

        Raises
        ------
        InstanceConflictError
            The SOP Instance UID is known with other content.
        """
        seconds = instance.received_at.timestamp()
        values = {**asdict(instance), "received_at": seconds}
        table = tables.instance
        with self._engine.begin() as connection:
            known = connection.execute(
                sa.select(table.c.sha256).where(
                    table.c.sop_instance_uid == instance.sop_instance_uid
                )
            ).scalar()
            if known is not None:
                if known != instance.sha256:
                    raise InstanceConflictError
                return False
            connection.execute(table.insert().values(values))
            self._touch_case(connection, instance.study_instance_uid, model_id, seconds)
        return True

    def _touch_case(self, connection: Connection, study: str, model_id: str, now: float) -> None:
        newest = connection.execute(
            sa.select(_case)
            .where(_case.c.study_instance_uid == study, _case.c.model_id == model_id)
            .order_by(_case.c.revision.desc())
            .limit(1)
            .with_for_update()  # a case that is being closed must not take the instance any more
        ).first()
        if newest is not None and newest.state == CaseState.RECEIVING:
            connection.execute(
                _case.update()
                .where(_case.c.case_id == newest.case_id)
                .values(last_received_at=now, updated_at=now)
            )
            return
        self._open_revision(connection, newest, study, model_id, now=now)

    # -- moving a case -----------------------------------------------------------------------

    def move(self, case_id: str, wanted: CaseState, **values: Any) -> None:  # noqa: ANN401
        """Change a case's state, with further columns; a repeated move to the same state is none.

        Raises
        ------
        IllegalTransitionError
            The table in `node.cases` does not allow the move.
        CaseUnknownError
            There is no such case.
        """
        with self._engine.begin() as connection:
            self._move(connection, case_id, wanted, values)

    def _move(
        self, connection: Connection, case_id: str, wanted: CaseState, values: dict[str, Any]
    ) -> None:
        current = connection.execute(
            sa.select(_case.c.state).where(_case.c.case_id == case_id).with_for_update()
        ).scalar()
        if current is None:
            raise CaseUnknownError
        if current == wanted:
            return
        check_move(CaseState(current), wanted)
        connection.execute(
            _case.update()
            .where(_case.c.case_id == case_id)
            .values(state=wanted.value, updated_at=time.time(), **values)
        )

    def close_case(
        self,
        case: AssembledCase,
        decisions: Iterable[SeriesDecision],
        reason: str,
        *,
        seen_instances: int,
        seen_choices: Mapping[Role, SeriesKey] | None = None,
    ) -> bool:
        """Record what a case consists of and why nothing more is waited for.

        Returns False, and changes nothing, when the case is no longer open or when more instances
        of the study have arrived than the `seen_instances` that the decision is based on, or when
        an operator has chosen other series than the `seen_choices` (None: those do not count).
        """
        members = [
            {"case_id": case.case_id, "sop_instance_uid": one.sop_instance_uid, "role": series.role}
            for series in case.series
            for one in series.instances
        ]
        with self._engine.begin() as connection:
            if not self._is_as_seen(connection, case.case_id, seen_instances, seen_choices):
                return False
            self._save_decisions(connection, case.case_id, decisions)
            own = tables.case_instance
            connection.execute(own.delete().where(own.c.case_id == case.case_id))
            connection.execute(own.insert(), members)
            values = {
                "closed_at": time.time(),
                "closed_by": case.closed_by.value,
                "reason": reason,
                "reference_role": case.reference_role,
            }
            self._move(connection, case.case_id, CaseState.COMPLETE, values)
        return True

    def refuse_open_case(
        self,
        case_id: str,
        ending: Ending,
        decisions: Iterable[SeriesDecision],
        *,
        seen_instances: int,
        seen_choices: Mapping[Role, SeriesKey] | None = None,
    ) -> bool:
        """End a case that is still open; the same guard as `close_case`."""
        with self._engine.begin() as connection:
            if not self._is_as_seen(connection, case_id, seen_instances, seen_choices):
                return False
            self._save_decisions(connection, case_id, decisions)
            self._end(connection, case_id, ending)
        return True

    def _is_as_seen(
        self,
        connection: Connection,
        case_id: str,
        seen_instances: int,
        seen_choices: Mapping[Role, SeriesKey] | None,
    ) -> bool:
        row = connection.execute(
            sa.select(_case.c.state, _case.c.study_instance_uid)
            .where(_case.c.case_id == case_id)
            .with_for_update()
        ).first()
        if row is None or row.state != CaseState.RECEIVING:
            return False
        held = connection.execute(
            sa.select(sa.func.count())
            .select_from(tables.instance)
            .where(tables.instance.c.study_instance_uid == row.study_instance_uid)
        ).scalar_one()
        if held != seen_instances or seen_choices is None:
            return bool(held == seen_instances)
        return self._choices(connection, case_id) == dict(seen_choices)

    def end_case(self, case_id: str, ending: Ending) -> None:
        """Reject, fail or cancel a case with its reason; where it stood is kept for a retry."""
        with self._engine.begin() as connection:
            self._end(connection, case_id, ending)

    def _end(self, connection: Connection, case_id: str, ending: Ending) -> None:
        stood = connection.execute(
            sa.select(_case.c.state).where(_case.c.case_id == case_id)
        ).scalar()
        values = {**_words_of(ending), "resume_state": stood}
        if stood == CaseState.RECEIVING:
            values["reason"] = ""  # what it waited for
        self._move(connection, case_id, ending.state, values)

    def reopen(self, case_id: str) -> CaseRow:
        """Put a failed, cancelled or rejected case back where it stood, as a new run."""
        row = self.case(case_id)
        stood = row.resume_state or CaseState.RECEIVING
        held_for = (row.summary or {}).get("held_for", [])
        values = {
            **(_held(held_for) if stood is CaseState.HELD else _NO_ENDING),
            "resume_state": None,
            "completion_requested_at": None,
            "run": row.run + 1,
        }
        self.move(case_id, stood, **values)
        return self.case(case_id)

    def release(self, case_id: str) -> CaseRow:
        """Let a held result be delivered; nothing holds it a second time.

        Raises
        ------
        CaseNotHeldError
            It is not held.
        """
        with self._engine.begin() as connection:
            row = self._locked(connection, case_id)
            if row.state != CaseState.HELD:
                raise CaseNotHeldError(state=row.state)
            released_at = datetime.now(UTC).isoformat(timespec="seconds")
            summary = {**row.summary, "released_at": released_at}
            values = {**_NO_ENDING, "summary": summary}
            self._move(connection, case_id, CaseState.ENCODED, values)
        return self.case(case_id)

    def supersede_earlier(self, case: CaseRow) -> None:
        """Mark the revisions before this one as superseded, unless they are worked on."""
        ended = (CaseState.DELIVERED, *REOPENED, CaseState.CANCELLED)
        with self._engine.begin() as connection:
            self._supersede(connection, case, ended, {})
            self._supersede_held(connection, case)

    def _supersede_held(self, connection: Connection, case: CaseRow | sa.Row[Any]) -> None:
        """Take earlier results back that still wait for a person: there is a newer one."""
        values = {**_NO_ENDING, "resume_state": CaseState.HELD.value}
        self._supersede(connection, case, (CaseState.HELD,), values)

    @staticmethod
    def _supersede(
        connection: Connection,
        case: CaseRow | sa.Row[Any],
        states: Iterable[CaseState],
        values: Mapping[str, Any],
    ) -> None:
        connection.execute(
            _case.update()
            .where(
                _case.c.study_instance_uid == case.study_instance_uid,
                _case.c.model_id == case.model_id,
                _case.c.revision < case.revision,
                _case.c.state.in_([state.value for state in states]),
            )
            .values(state=CaseState.SUPERSEDED.value, updated_at=time.time(), **values)
        )

    # -- attempts, results, receipts ---------------------------------------------------------

    def begin_attempt(self, case_id: str, stage: Stage, destination: str | None = None) -> int:
        """Record that a stage starts; return the attempt's number."""
        with self._engine.begin() as connection:
            attempt_id: int = connection.execute(
                tables.attempt.insert()
                .values(
                    case_id=case_id,
                    stage=stage.value,
                    destination=destination,
                    started_at=time.time(),
                )
                .returning(tables.attempt.c.attempt_id)
            ).scalar_one()
        return attempt_id

    def end_attempt(
        self, attempt_id: int, *, outcome: str, code: str | None = None, sentence: str | None = None
    ) -> None:
        """Record how an attempt ended; one that has ended is never overwritten."""
        table = tables.attempt
        with self._engine.begin() as connection:
            connection.execute(
                table.update()
                .where(
                    table.c.attempt_id == attempt_id,
                    table.c.outcome.is_(None),
                )
                .values(ended_at=time.time(), outcome=outcome, code=code, sentence=sentence)
            )

    def save_result(
        self, seg: EncodedSeg, *, summary: dict[str, Any], held_for: Sequence[str] = ()
    ) -> None:
        """Record an encoded object and what the page shows of it, and move the case.

        With codes to be `held_for` it waits for a person; an earlier result that still does is
        superseded by this one.
        """
        table = tables.result
        state = CaseState.HELD if held_for else CaseState.ENCODED
        values: dict[str, Any] = {"summary": summary}
        if held_for:
            values = {**_held(held_for), "summary": {**summary, "held_for": list(held_for)}}
        with self._engine.begin() as connection:
            connection.execute(table.delete().where(table.c.case_id == seg.case_id))
            connection.execute(table.insert().values(**asdict(seg)))
            self._move(connection, seg.case_id, state, values)
            self._supersede_held(connection, self._locked(connection, seg.case_id))

    def save_receipt(self, receipt: DeliveryReceipt) -> None:
        """Record a delivery; the first receipt of an object at a destination stands."""
        table = tables.receipt
        key = (
            table.c.case_id == receipt.case_id,
            table.c.destination == receipt.destination,
            table.c.sop_instance_uid == receipt.sop_instance_uid,
        )
        with self._engine.begin() as connection:
            if connection.execute(sa.select(table.c.attempt).where(*key)).first() is None:
                connection.execute(
                    table.insert().values(
                        **{
                            **asdict(receipt),
                            "delivered_at": receipt.delivered_at.timestamp(),
                            "transport": receipt.transport.value,
                        }
                    )
                )

    # -- workers -----------------------------------------------------------------------------

    def beat(
        self,
        executor_id: str,
        *,
        role: str,
        host: str,
        pid: int,
        detail: dict[str, Any] | None = None,
    ) -> None:
        """Say that a process lives, by the database's own clock."""
        table = tables.worker
        values = {"role": role, "host": host, "pid": pid, "seen_at": self._clock, "detail": detail}
        with self._engine.begin() as connection:
            found = connection.execute(
                table.update().where(table.c.executor_id == executor_id).values(values)
            ).rowcount
            if not found:
                connection.execute(table.insert().values(executor_id=executor_id, **values))


def _words_of(ending: Ending) -> dict[str, str]:
    return {"code": ending.code, "sentence": ending.sentence, "advice": ending.advice}


def _held(codes: Sequence[str]) -> dict[str, str]:
    """Return what a held case says of itself."""
    return _words_of(ending_of(ResultHeldError(codes=", ".join(codes)), CaseState.HELD))
