"""Looks at open cases again and again, asks `assemble` about each, and acts on the answer.

Also the safety net of the pipeline: a case between two states that has no job gets one, and one
whose job the engine has given up is failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydicom.dataset import Dataset
from sqlalchemy.exc import SQLAlchemyError

from converters import sequences, series
from converters.errors import CodedError, InputRejectedError
from inference.manifest import Manifest
from node import assemble, logs
from node.assemble import Close, OpenCase, Refuse, Rules, SeriesFacts
from node.cases import (
    WORKING,
    AssembledSeries,
    CaseState,
    Ending,
    ReceivedInstance,
    SeriesDecision,
)
from node.disposition import ending_of
from node.errors import JobCrashedError, NothingNewError
from node.jobs import Jobs
from node.pipeline import Parts, coded, finish_if_served, next_jobs
from node.rows import CaseRow
from node.settings import Assemble
from node.spool import Spool

_BATCH = 1000


class Closer:
    """Closes cases and keeps them moving; `look` once a second, `tend` now and then."""

    def __init__(self, parts: Parts, jobs: Jobs) -> None:
        self._parts = parts
        self._ledger = parts.ledger
        self._jobs = jobs
        self._rules = rules_of(parts.manifest, parts.settings.assemble)
        self._facts: dict[str, tuple[int, tuple[SeriesFacts, ...]]] = {}

    def look(self) -> None:
        """Ask about every open case once."""
        for row in self._ledger.cases(CaseState.RECEIVING, limit=_BATCH):
            try:
                self._look_at(row, datetime.now(UTC))
            except SQLAlchemyError:
                raise  # no fault of the case: the next round does the same again
            except Exception as error:  # noqa: BLE001 - one open case; its neighbours go on
                self._fail(row, coded(error))

    def _fail(self, row: CaseRow, error: CodedError) -> None:
        self._forget(row)
        self._ledger.end_case(row.case_id, ending_of(error, CaseState.FAILED))
        logs.get().error("case.failed", case_id=row.case_id, code=error.code, sentence=str(error))

    def _look_at(self, row: CaseRow, now: datetime) -> None:
        case = open_case(row)
        if not assemble.is_worth_asking(case, self._rules, now):
            return
        instances = self._ledger.study_instances(row.study_instance_uid)
        decision = assemble.decide(case, self._facts_of(row, instances), self._rules, now)
        if isinstance(decision, Close):
            self._close(row, decision, len(instances))
        elif isinstance(decision, Refuse):
            ending = ending_of(decision.error, CaseState.REJECTED)
            if self._end(row, ending, decision.decisions, len(instances)):
                logs.get().warning(
                    "case.rejected",
                    case_id=row.case_id,
                    code=ending.code,
                    sentence=ending.sentence,
                )

    def _end(
        self,
        row: CaseRow,
        ending: Ending,
        decisions: Iterable[SeriesDecision],
        seen_instances: int,
    ) -> bool:
        """End an open case; False when more has arrived and the next round decides anew."""
        ended = self._ledger.refuse_open_case(
            row.case_id, ending, decisions, seen_instances=seen_instances
        )
        if ended:
            self._forget(row)
        return ended

    def _close(self, row: CaseRow, decision: Close, seen_instances: int) -> None:
        if self._changes_nothing(row, decision):
            ending = ending_of(NothingNewError(), CaseState.CANCELLED)
            if self._end(row, ending, decision.decisions, seen_instances):
                logs.get().info("case.cancelled", case_id=row.case_id, code=ending.code)
            return
        closed = self._ledger.close_case(
            decision.case, decision.decisions, decision.reason, seen_instances=seen_instances
        )
        if closed:
            self._forget(row)
            logs.get().info(
                "case.closed",
                case_id=row.case_id,
                revision=row.revision,
                closed_by=decision.case.closed_by.value,
                reason=decision.reason,
                series_count=len(decision.decisions),
                instance_count=seen_instances,
            )
            self._submit(self._ledger.case(row.case_id))

    def _changes_nothing(self, row: CaseRow, decision: Close) -> bool:
        """Say whether an earlier revision, still good, was made from the very same instances."""
        wanted = _members(decision.case.series)
        earlier = self._ledger.earlier_revisions(row)
        return any(
            _members(self._ledger.assembled(one.case_id).series) == wanted
            for one in earlier
            if one.state in (*WORKING, CaseState.DELIVERED)
        )

    def _facts_of(self, row: CaseRow, instances: list[ReceivedInstance]) -> tuple[SeriesFacts, ...]:
        """Return the facts of a study, read again only when something has arrived since."""
        known = self._facts.get(row.case_id)
        if known is not None and known[0] == len(instances):
            return known[1]
        facts = read_facts(instances, self._parts.spool)
        self._facts[row.case_id] = (len(instances), facts)
        return facts

    def _forget(self, row: CaseRow) -> None:
        self._facts.pop(row.case_id, None)

    def _submit(self, row: CaseRow) -> None:
        for job in next_jobs(row, self._ledger, self._parts.settings.destinations):
            self._jobs.submit(job)

    def tend(self) -> None:
        """Give every unfinished case a job, and fail those whose job was given up."""
        busy = self._jobs.active_case_ids()
        for row in self._ledger.cases(*WORKING, limit=_BATCH):
            if row.case_id in busy:
                continue
            current = self._ledger.case(row.case_id)
            if self._jobs.dead_job_ids(row.case_id, row.run) and current.state is row.state:
                ending = ending_of(JobCrashedError(stage=row.state.value), CaseState.FAILED)
                self._ledger.end_case(row.case_id, ending)
                logs.get().error("case.failed", case_id=row.case_id, code=ending.code)
            else:
                finish_if_served(current, self._ledger, self._parts.settings.destinations)
                self._submit(current)


def _members(series_of_case: Iterable[AssembledSeries]) -> set[tuple[str, str]]:
    return {
        (one.role, instance.sop_instance_uid)
        for one in series_of_case
        for instance in one.instances
    }


def open_case(row: CaseRow) -> OpenCase:
    """Return what `assemble` has to know of a case."""
    return OpenCase(
        case_id=row.case_id,
        study_instance_uid=row.study_instance_uid,
        opened_at=row.opened_at,
        last_received_at=row.last_received_at,
    )


def rules_of(manifest: Manifest, waiting: Assemble) -> Rules:
    """Return what a model needs and how long to wait for it."""
    return Rules(
        roles=manifest.roles,
        reference_role=manifest.reference_role,
        settle_s=waiting.settle_s,
        quiet_s=waiting.quiet_s,
        deadline_s=waiting.deadline_s,
    )


def read_facts(instances: Iterable[ReceivedInstance], spool: Spool) -> tuple[SeriesFacts, ...]:
    """Return what the headers say about each series of a study."""
    by_series: dict[str, list[ReceivedInstance]] = {}
    for instance in instances:
        by_series.setdefault(instance.series_instance_uid, []).append(instance)
    return tuple(_series_facts(uid, tuple(many), spool) for uid, many in by_series.items())


def _series_facts(
    series_instance_uid: str, instances: tuple[ReceivedInstance, ...], spool: Spool
) -> SeriesFacts:
    files = [spool.instance_path(instance.path) for instance in instances]
    header: Dataset | None = None
    fault: InputRejectedError | None = None
    try:
        headers = series.read_headers(files)
        header = headers[0]
        series.stack_headers(headers, files)
    except InputRejectedError as error:
        fault = error
    evidence = sequences.evidence_of(_first_readable(files) if header is None else header)
    return SeriesFacts(
        series_instance_uid=series_instance_uid,
        description=evidence.description[:64],
        evidence=evidence,
        instances=instances,
        fault=fault,
    )


def _first_readable(files: Sequence[Path]) -> Dataset:
    """Return the header of the first file that has one, an empty one when none has."""
    for file in files:
        try:
            (header,) = series.read_headers([file])
        except InputRejectedError:
            continue
        return header
    return Dataset()
