"""How a case moves from state to state, by the pipeline and by an operator; part of the ledger."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from node import tables, uids
from node.cases import FINAL, CaseState, Ending, Event, check_move
from node.disposition import ending_of
from node.errors import (
    CaseNotHeldError,
    CaseOvertakenError,
    CasePurgedError,
    ResultHeldError,
)
from node.rows import CaseRow
from node.steering import REOPENED, CaseSteering

_case = tables.case
_told = tables.notification
_NO_ENDING: Final = {"code": None, "sentence": None, "advice": None}
_EVENTS: Final = {
    CaseState.FAILED: Event.CASE_FAILED,
    CaseState.REJECTED: Event.CASE_REJECTED,
    CaseState.HELD: Event.CASE_HELD,
}


class CaseMoves(CaseSteering):
    """The part of the ledger that changes a case's state."""

    def move(self, case_id: str, wanted: CaseState, **values: Any) -> None:  # noqa: ANN401
        """Change a case's state, with further columns; a repeated move to the same state is none.

        Raises
        ------
        IllegalTransitionError
            The table in `node.cases` does not allow the move.
        CaseUnknownError
            There is no such case.
        CasePurgedError
            It would be worked on again, and its files were deleted.
        """
        with self._engine.begin() as connection:
            self._move(connection, case_id, wanted, values)

    def advance(self, begun: CaseRow, wanted: CaseState) -> None:
        """Move a case from where it stood when the work on it began.

        Raises
        ------
        CaseOvertakenError
            It stands elsewhere now, or was started again: the work counts for nothing.
        """
        with self._engine.begin() as connection:
            self._move(connection, begun.case_id, wanted, {}, begun)

    def _move(
        self,
        connection: Connection,
        case_id: str,
        wanted: CaseState,
        values: Mapping[str, Any],
        begun: CaseRow | None = None,
    ) -> None:
        found = self._locked(connection, case_id)
        current, run = found.state, found.run
        if begun is not None and (run != begun.run or current not in (begun.state, wanted)):
            raise CaseOvertakenError(state=current)
        if current == wanted:
            return
        check_move(CaseState(current), wanted)
        if found.purged_at is not None and wanted not in FINAL:
            raise CasePurgedError
        connection.execute(
            _case.update()
            .where(_case.c.case_id == case_id)
            .values(state=wanted.value, updated_at=time.time(), **values)
        )

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
        if stood != ending.state:
            self._tell(connection, case_id, ending.state, ending.code)

    # -- what people are told of -------------------------------------------------------------

    def _tell(self, connection: Connection, case_id: str, state: CaseState, code: str) -> None:
        """Record that people are to be told where a case stands now, in the same transaction.

        A case that fails by a delivery which was given up is told of as that delivery.
        """
        if state not in _EVENTS:
            return
        row = self._locked(connection, case_id)
        dead_letter = sa.select(_told.c.case_id).where(
            _told.c.case_id == case_id,
            _told.c.run == row.run,
            _told.c.event == Event.DELIVERY_FAILED.value,
        )
        if state is CaseState.FAILED and connection.execute(dead_letter).first():
            return
        self._record(connection, row, _EVENTS[state], code)

    @staticmethod
    def _record(
        connection: Connection, row: sa.Row[Any], event: Event, code: str, destination: str = ""
    ) -> None:
        """Record an event of a case, which the caller has locked; the same one once a run."""
        own = uids.notification_id(row.case_id, row.run, event.value, destination)
        is_known = sa.select(_told.c.case_id).where(_told.c.notification_id == own)
        if connection.execute(is_known).first():
            return
        connection.execute(
            _told.insert().values(
                notification_id=own,
                event=event.value,
                case_id=row.case_id,
                run=row.run,
                destination=destination or None,
                code=code,
                happened_at=time.time(),
            )
        )

    # -- the operator ------------------------------------------------------------------------

    def reopen(self, case_id: str) -> CaseRow:
        """Put a failed, cancelled or rejected case back where it stood, as a new run."""
        row = self.case(case_id)
        stood = row.resume_state or CaseState.RECEIVING
        held_for = (row.summary or {}).get("held_for", [])
        values = {
            **(held_words(held_for) if stood is CaseState.HELD else _NO_ENDING),
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


def _words_of(ending: Ending) -> dict[str, str]:
    return {"code": ending.code, "sentence": ending.sentence, "advice": ending.advice}


def held_words(codes: Sequence[str]) -> dict[str, str]:
    """Return what a held case says of itself."""
    return _words_of(ending_of(ResultHeldError(codes=", ".join(codes)), CaseState.HELD))
