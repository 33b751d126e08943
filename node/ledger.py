"""The truth about studies: instances, cases, attempts, results, receipts. The only writer of state.

Every method is one transaction. A state is committed before the work that relies on it, so that a
restart finds either the state before or the state after, never something in between.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from converters.sequences import SeriesKey
from converters.volume import Role
from node import tables
from node.cases import (
    WORKING,
    AssembledCase,
    CaseRoute,
    CaseState,
    DeliveryReceipt,
    EncodedObject,
    Ending,
    Event,
    SeriesDecision,
    Stage,
)
from node.commitments import Commitments
from node.filing import CaseFiles
from node.moving import held_words
from node.recording import Recording
from node.rows import CaseRow

_case = tables.case


class Ledger(Recording, CaseFiles, Commitments):
    """The node's database, for the roles that write to it."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._begun: dict[int, float] = {}  # attempts of this process, by a monotonic clock

    # -- closing a case -----------------------------------------------------------------------

    def close_case(  # noqa: PLR0913 - what is decided of a case, in one transaction
        self,
        case: AssembledCase,
        decisions: Iterable[SeriesDecision],
        reason: str,
        *,
        seen_instances: int,
        seen_choices: Mapping[Role, SeriesKey] | None = None,
        route: CaseRoute | None = None,
        also_for: Sequence[str] = (),
    ) -> bool:
        """Record what a case consists of, why nothing more is waited for, where its result goes.

        Returns False, and changes nothing, when the case is no longer open or when more instances
        of the study have arrived than the `seen_instances` that the decision is based on, or when
        an operator has chosen other series than the `seen_choices` (None: those do not count).
        The study's cases of the models `also_for` are opened or told that more has come.
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
            self._save_route(connection, case.case_id, route)
            values = {
                "closed_at": time.time(),
                "closed_by": case.closed_by.value,
                "reason": reason,
                "reference_role": case.reference_role,
            }
            self._move(connection, case.case_id, CaseState.COMPLETE, values)
            self._open_for(connection, case.case_id, also_for)
        return True

    @staticmethod
    def _save_route(connection: Connection, case_id: str, route: CaseRoute | None) -> None:
        table = tables.case_route
        connection.execute(table.delete().where(table.c.case_id == case_id))
        if route is not None:
            connection.execute(
                table.insert().values(
                    case_id=case_id,
                    rule=route.rule,
                    destinations=list(route.destinations),
                    reference_role=route.reference_role,
                )
            )

    def refuse_open_case(
        self,
        case_id: str,
        ending: Ending,
        decisions: Iterable[SeriesDecision],
        *,
        seen_instances: int,
        seen_choices: Mapping[Role, SeriesKey] | None = None,
        also_for: Sequence[str] = (),
    ) -> bool:
        """End a case that is still open; guard and `also_for` as in `close_case`."""
        with self._engine.begin() as connection:
            if not self._is_as_seen(connection, case_id, seen_instances, seen_choices):
                return False
            self._save_decisions(connection, case_id, decisions)
            self._end(connection, case_id, ending)
            self._open_for(connection, case_id, also_for)
        return True

    def _open_for(self, connection: Connection, case_id: str, model_ids: Sequence[str]) -> None:
        """Open the cases of further models, in the transaction that decides the first one's."""
        row = self._locked(connection, case_id)
        for model_id in model_ids:
            self._touch_case(connection, row.study_instance_uid, model_id, row.last_received_at)

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
        self._begun[attempt_id] = time.monotonic()
        return attempt_id

    def end_attempt(
        self,
        attempt_id: int,
        *,
        outcome: str,
        code: str | None = None,
        sentence: str | None = None,
        next_in_s: float | None = None,
    ) -> None:
        """Record how an attempt ended; one that has ended is never overwritten.

        `next_in_s` is how long the next one is delayed.
        """
        values = {
            "outcome": outcome,
            "code": code,
            "sentence": sentence,
            "next_at": None if next_in_s is None else time.time() + next_in_s,
        }
        with self._engine.begin() as connection:
            self._end_attempt(connection, attempt_id, values)

    def _end_attempt(
        self, connection: Connection, attempt_id: int, values: Mapping[str, Any]
    ) -> None:
        """Record an end; how long it has lasted is told by a clock that nobody sets."""
        table = tables.attempt
        began = self._begun.pop(attempt_id, None)
        ended_at: float | sa.ColumnElement[float] = time.time()
        if began is not None:
            ended_at = table.c.started_at + (time.monotonic() - began)
        connection.execute(
            table.update()
            .where(table.c.attempt_id == attempt_id, table.c.outcome.is_(None))
            .values(ended_at=ended_at, **values)
        )

    def give_up(self, begun: CaseRow, attempt_id: int, ending: Ending) -> None:
        """End the last attempt of a stage, and by it the case; record that people are told.

        A delivery that is given up is told of for each destination; the first one ends the case.
        One that stands elsewhere by now, was started again, or has been taken over by another
        process is left alone.
        """
        values = {"outcome": "failed", "code": ending.code, "sentence": ending.sentence}
        table = tables.attempt
        with self._engine.begin() as connection:
            self._end_attempt(connection, attempt_id, values)
            row = self._locked(connection, begun.case_id)
            if (row.run, _stood(row)) != (begun.run, _stood(begun)):
                return
            own = connection.execute(
                sa.select(table.c.stage, table.c.destination).where(
                    table.c.attempt_id == attempt_id
                )
            ).one()
            later = sa.select(table.c.attempt_id).where(
                table.c.case_id == row.case_id,
                table.c.stage == own.stage,
                table.c.destination.is_not_distinct_from(own.destination),
                table.c.attempt_id > attempt_id,
            )
            if connection.execute(later).first() is not None:
                return
            if own.destination:
                code = ending.code
                self._record(connection, row, Event.DELIVERY_FAILED, code, own.destination)
            if row.state in WORKING:
                self._end(connection, row.case_id, ending)

    def save_result(
        self,
        main: EncodedObject,
        *,
        summary: dict[str, Any],
        beside: Sequence[EncodedObject] = (),
        held_for: Sequence[str] = (),
        begun: CaseRow | None = None,
    ) -> None:
        """Record a SEG or report, what lies beside it and what the page shows; move the case.

        With codes to be `held_for` it waits for a person; an earlier result that still does is
        superseded by this one.

        Raises
        ------
        CaseOvertakenError
            The case is no longer as it was `begun` with.
        """
        table = tables.result
        state = CaseState.HELD if held_for else CaseState.ENCODED
        values: dict[str, Any] = {"summary": summary}
        if held_for:
            values = {**held_words(held_for), "summary": {**summary, "held_for": list(held_for)}}
        with self._engine.begin() as connection:
            connection.execute(table.delete().where(table.c.case_id == main.case_id))
            connection.execute(
                table.insert(), [{**asdict(one), "kind": one.kind.value} for one in (main, *beside)]
            )
            self._move(connection, main.case_id, state, values, begun)
            if held_for:
                self._tell(connection, main.case_id, state, values["code"])
            self._supersede_held(connection, self._locked(connection, main.case_id))

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


def _stood(row: CaseRow | Row[Any]) -> str:
    """Return the state that the work on a case starts from, even where it has failed since."""
    return str(row.resume_state if row.state == CaseState.FAILED else row.state)
