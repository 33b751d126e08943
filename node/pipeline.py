"""The way of a case, stage by stage: the file to read first.

receive -> assemble -> **convert -> segment -> encode -> deliver**. The first two stages end when
`node.closing` has closed a case; from then on each stage is a durable job::

    state of the case   job        work                                     new state
    complete            convert    DICOM series -> volumes                  assembled
    assembled           segment    volumes -> label map (infer process)     segmented
    segmented           encode     label map -> SEG, SR and pictures        encoded, or held
    encoded             deliver    all of them -> one destination each      delivered

A result with a note that the site holds results for goes to `held` instead of `encoded`, once and
for all: a person releases it to `encoded`, from where nothing leads back.

A destination that is asked to keep the objects (storage commitment) is served once it has said so.
Its answer may come hours later, through `deliver` or `receive`; until then a delayed job alone
waits, which would ask again.

Every stage writes its files first and moves the state last; each may run twice with the same
result. A case that is cancelled in mid-stage keeps nothing of it: the engine is stopped within a
second, the other stages run to their end, which is near, and their move is refused. What follows a
failure stands in `node.disposition`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy.exc import SQLAlchemyError

from converters.errors import CodedError
from converters.volume import LabelMap
from inference.errors import PredictionStoppedError
from inference.manifest import Manifest
from node import convert, disposition, logs, measuring, model_set, owed, pictures, slices, summary
from node.cases import (
    WORKING,
    AssembledCase,
    CaseState,
    EncodedObject,
    ObjectKind,
    Stage,
)
from node.deliver import commitment, routes
from node.disposition import Disposition
from node.encode import CaseEncoder
from node.errors import (
    CaseOvertakenError,
    LedgerUnavailableError,
    PeerRefusedError,
    UnforeseenError,
)
from node.jobs import Job
from node.ledger import Ledger
from node.peers import Destination
from node.rows import CaseRow
from node.settings import Settings
from node.spool import Spool
from node.watch import Watch

STARTS_FROM = {
    Stage.CONVERT: CaseState.COMPLETE,
    Stage.SEGMENT: CaseState.ASSEMBLED,
    Stage.ENCODE: CaseState.SEGMENTED,
    Stage.DELIVER: CaseState.ENCODED,
}
_NEXT = {state: stage for stage, state in STARTS_FROM.items()}
_LOGGED_AS = {
    ObjectKind.SEG: "seg.delivered",
    ObjectKind.REPORT: "report.delivered",
    ObjectKind.ENTROPY: "map.delivered",
    ObjectKind.PICTURE: "picture.delivered",
    ObjectKind.REGIONS: "regions.delivered",
    ObjectKind.LABELMAP: "labelmap.delivered",
    ObjectKind.PROBABILITIES: "probabilities.delivered",
    ObjectKind.ALSO: "seg.delivered",
    ObjectKind.STRUCTURES: "structures.delivered",
}

Stop = Callable[[], bool]
"""Says whether a result is no longer wanted; answers at once."""
Segmenter = Callable[[AssembledCase, Stop], LabelMap]
Boundary = Callable[[str], None]
"""Called between two steps; only tests give one, to crash there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the stages work with."""

    settings: Settings
    ledger: Ledger
    spool: Spool
    manifest: Manifest
    segmenter: Segmenter | None = None
    further: tuple[Manifest, ...] = ()
    keeps: Destination | None = None  # what is made of whatever it would get, though nobody sends
    boundary: Boundary | None = None

    def manifest_of(self, row: CaseRow) -> Manifest:
        """Return the model of a case."""
        return model_set.of_case(row.model_id, self.manifest, self.further)


def next_jobs(row: CaseRow, ledger: Ledger, destinations: Sequence[Destination]) -> list[Job]:
    """Return the jobs that a case in its present state needs; none for a final one."""
    if row.state not in WORKING:
        return []
    stage = _NEXT[row.state]
    job = Job(case_id=row.case_id, run=row.run, stage=stage, priority=row.priority)
    if stage is not Stage.DELIVER:
        return [job]
    return [
        replace(job, destination=destination.name)
        for destination in owed.routed(row.case_id, ledger, destinations)
        if not owed.is_served(row.case_id, ledger, destination)
    ]


def finish_if_served(row: CaseRow, ledger: Ledger, destinations: Sequence[Destination]) -> None:
    """Move an encoded case whose every destination is served to its end."""
    if row.state is not CaseState.ENCODED or next_jobs(row, ledger, destinations):
        return
    ledger.move(row.case_id, CaseState.DELIVERED)
    ledger.supersede_earlier(row)
    durations = {
        attempt.stage.value: round((attempt.ended_at - attempt.started_at).total_seconds(), 3)
        for attempt in ledger.attempts(row.case_id)
        if attempt.ended_at is not None and attempt.outcome == "done"
    }
    logs.get().info("case.finished", case_id=row.case_id, durations_s=durations)


class Pipeline:
    """Performs jobs; `perform` is what the job engine calls."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._ledger = parts.ledger
        self._work: dict[Stage, Callable[[CaseRow, Job], None]] = {
            Stage.CONVERT: self._convert,
            Stage.SEGMENT: self._segment,
            Stage.ENCODE: self._encode,
            Stage.DELIVER: self._deliver,
        }

    def perform(self, job: Job) -> list[Job]:
        """Do one try of one stage; return the jobs that follow it.

        A ledger that cannot be written, as on a full disk, is waited for like anything else.
        """
        try:
            return self._try(job)
        except SQLAlchemyError as error:
            if job.attempt >= self._parts.settings.delivery.max_attempts:
                raise
            following = self._next_try(job)
            logs.get().warning(
                "stage.retried",
                case_id=job.case_id,
                stage=job.stage.value,
                attempt=job.attempt,
                code=LedgerUnavailableError.code,
                kind=type(error).__name__,
                delay_s=following.delay_s,
            )
            return [following]

    def _next_try(self, job: Job) -> Job:
        wait_s = disposition.delay_s(job.attempt, self._parts.settings.delivery)
        return replace(job, attempt=job.attempt + 1, delay_s=wait_s)

    def _try(self, job: Job) -> list[Job]:
        row = self._ledger.case(job.case_id)
        job = replace(job, priority=row.priority)
        if row.run != job.run:
            return []
        if not self._is_due(row, job):
            return self._followers(row)
        self._pass(f"{job.stage}:start")
        self._parts.spool.sweep_case(job.case_id)
        attempt_id = self._ledger.begin_attempt(job.case_id, job.stage, job.destination or None)
        try:
            self._work[job.stage](row, job)
            self._ledger.note_folder(job.case_id, self._parts.spool.case_bytes(job.case_id))
        except Exception as error:  # noqa: BLE001 - one stage of one case; its neighbours go on
            if isinstance(error, (PredictionStoppedError, CaseOvertakenError)):
                return self._stopped(job, attempt_id, error)
            return self._failed(row, job, attempt_id, error)
        wait = self._wait_for_commitment(job)
        next_in_s = wait[0].delay_s if wait else None
        self._ledger.end_attempt(attempt_id, outcome="done", next_in_s=next_in_s)
        self._pass(f"{job.stage}:done")
        following = [*self._followers(self._ledger.case(job.case_id)), *wait]
        return list({one.destination: one for one in following}.values())

    def _pass(self, boundary: str) -> None:
        if self._parts.boundary is not None:
            self._parts.boundary(boundary)

    def _is_due(self, row: CaseRow, job: Job) -> bool:
        if job.stage is not Stage.DELIVER:
            return row.state is STARTS_FROM[job.stage]
        # A destination that failed for good does not keep the result from the others.
        state = row.resume_state if row.state is CaseState.FAILED else row.state
        if state is not CaseState.ENCODED:
            return False
        destination = self._destination(job)
        # One that was taken out of the configuration since: `_deliver` has nothing to do.
        return destination is None or not owed.is_served(job.case_id, self._ledger, destination)

    def _destination(self, job: Job) -> Destination | None:
        known = self._parts.settings.destinations
        return next((one for one in known if one.name == job.destination), None)

    def _wait_for_commitment(self, job: Job) -> list[Job]:
        """Return the job that acts where a destination has not answered by then."""
        destination = None if job.stage is not Stage.DELIVER else self._destination(job)
        if destination is None or owed.is_served(job.case_id, self._ledger, destination):
            return []
        wait_s = destination.commitment_timeout_s
        return [replace(job, attempt=job.attempt + 1, delay_s=wait_s)]

    def _is_wanted(self, job: Job) -> bool:
        """Say whether the case still stands where the job found it."""
        row = self._ledger.case(job.case_id)
        return row.run == job.run and self._is_due(row, job)

    def _followers(self, row: CaseRow) -> list[Job]:
        destinations = self._parts.settings.destinations
        finish_if_served(row, self._ledger, destinations)
        return next_jobs(row, self._ledger, destinations)

    # -- the stages --------------------------------------------------------------------------

    def _convert(self, row: CaseRow, _: Job) -> None:
        case = self._ledger.assembled(row.case_id)
        manifest, settings = self._parts.manifest_of(row), self._parts.settings
        convert.convert_case(
            case,
            manifest.roles,
            self._parts.spool,
            align_by=settings.align,
            limits=settings.geometry.as_limits(),
            may_lack=manifest.missing_input.allowed,
        )
        self._pass("convert:written")
        self._ledger.advance(row, CaseState.ASSEMBLED)
        logs.get().info("case.assembled", case_id=row.case_id, series_count=len(case.series))

    def _segment(self, row: CaseRow, job: Job) -> None:
        if self._parts.segmenter is None:
            raise UnforeseenError(kind="segment job", place="a process without a model")
        case = self._ledger.assembled(row.case_id)
        with Watch(self._ledger, row) as stop:
            label_map = self._parts.segmenter(case, stop)
        if not self._is_wanted(job):  # another machine's labels may differ in a voxel
            raise CaseOvertakenError(state=self._ledger.case(row.case_id).state)
        convert.write_labels(label_map, case, self._parts.spool)
        self._pass("segment:written")
        self._ledger.advance(row, CaseState.SEGMENTED)
        logs.get().info("case.segmented", case_id=row.case_id, model_id=label_map.model_id)

    def _encode(self, row: CaseRow, _: Job) -> None:
        parts = self._parts
        manifest = parts.manifest_of(row)
        case = self._ledger.assembled(row.case_id)
        label_map = convert.read_labels(case, manifest.segments, manifest.model_id, parts.spool)
        volumes = pictures.volumes_of(case, parts.spool)
        pictures.keep_preview(case, volumes[0], label_map, manifest.title, parts.spool)
        found = measuring.of(label_map, manifest)
        measured = measuring.content_of(found, case, manifest)
        measuring.write(measured, case, parts.spool)
        shown = summary.of(case, label_map, measured, manifest, parts.spool)
        held_for = summary.held_for(shown, parts.settings.delivery)
        pages = pictures.draw(case, volumes, label_map, shown, manifest, parts.spool)
        shown[slices.KEY] = slices.keep(volumes, label_map, case, parts.spool)
        encoder = CaseEncoder(case, label_map, manifest, parts.spool)
        routed = owed.routed(row.case_id, self._ledger, parts.settings.destinations)
        receivers = [*routed, *([parts.keeps] if parts.keeps else [])]
        empty_seg = parts.settings.delivery.empty == "seg"
        main, *beside = encoder.objects(found, pages, receivers, empty_seg=empty_seg)
        self._pass("encode:written")
        self._ledger.save_result(main, summary=shown, beside=beside, held_for=held_for, begun=row)
        logs.get().info("seg.encoded", case_id=row.case_id, byte_count=main.byte_count)
        if held_for:
            logs.get().warning("case.held", case_id=row.case_id, reason=", ".join(held_for))

    def _deliver(self, row: CaseRow, job: Job) -> None:
        destination = self._destination(job)
        if destination is None:
            return  # taken out of the configuration since; nobody waits for it any more
        self._note_release(row)
        if destination.commitment:
            commitment.conclude(row.case_id, destination, self._ledger)
        self._send_all(row, job, destination)
        self._commit(row, destination)

    def _send_all(self, row: CaseRow, job: Job, destination: Destination) -> None:
        wanted, refusals = owed.unserved(row.case_id, self._ledger, destination), []
        files = owed.files(row.case_id, wanted, self._parts.spool, destination)
        routes.prepare(wanted, files, destination)
        for one in wanted:
            if one not in owed.unserved(row.case_id, self._ledger, destination):
                continue  # this process stood still, and another has taken over meanwhile
            try:
                self._send(one, destination, job)
            except PeerRefusedError as error:  # of this object; it may well take the others
                refusals.append(error)
        if refusals:
            raise refusals[0]

    def _send(self, one: EncodedObject, destination: Destination, job: Job) -> None:
        receipt = routes.send(
            one,
            self._parts.spool.instance_path(one.path),
            destination,
            calling_ae_title=self._parts.settings.receive.ae_title,
            attempt=job.attempt,
        )
        self._pass("deliver:sent")
        self._ledger.save_receipt(receipt)
        logs.get().info(
            _LOGGED_AS[one.kind],
            case_id=job.case_id,
            destination=job.destination,
            transport=receipt.transport.value,
            status=receipt.status_code,
            attempt=job.attempt,
        )

    def _commit(self, row: CaseRow, destination: Destination) -> None:
        """Ask a destination to keep what it has stored, where it is to be asked."""
        open_objects = owed.uncommitted(row.case_id, self._ledger, destination)
        if open_objects:
            commitment.request(
                open_objects,
                destination,
                self._ledger,
                calling_ae_title=self._parts.settings.receive.ae_title,
                boundary=self._pass,
            )

    def _note_release(self, row: CaseRow) -> None:
        """Log that a person let a result go, before it goes the first time."""
        held_for = (row.summary or {}).get("held_for")
        if not held_for:
            return
        if [one.stage for one in self._ledger.attempts(row.case_id)].count(Stage.DELIVER) == 1:
            logs.get().info("case.released", case_id=row.case_id, reason=", ".join(held_for))

    # -- failures ----------------------------------------------------------------------------

    def _stopped(self, job: Job, attempt_id: int, error: CodedError) -> list[Job]:
        """End an attempt whose case was cancelled meanwhile; what it made counts for nothing."""
        self._end_attempt(attempt_id, "cancelled", error)
        logs.get().info(
            "stage.stopped",
            case_id=job.case_id,
            stage=job.stage.value,
            attempt=job.attempt,
            code=error.code,
            sentence=str(error),
        )
        return []

    def _failed(self, row: CaseRow, job: Job, attempt_id: int, error: Exception) -> list[Job]:
        known = disposition.coded(error)
        log = logs.get().bind(
            case_id=row.case_id,
            stage=job.stage.value,
            attempt=job.attempt,
            code=known.code,
            sentence=str(known),
            place=logs.place_of(error),
        )
        what = disposition.of(known)
        if job.attempt < disposition.attempts_at_most(what, self._parts.settings.delivery):
            following = self._next_try(job)
            self._end_attempt(attempt_id, "retry", known, following.delay_s)
            log.warning("stage.retried", delay_s=following.delay_s)
            return [following]
        state = CaseState.REJECTED if what is Disposition.REJECT else CaseState.FAILED
        if self._is_wanted(job):
            self._ledger.give_up(row, attempt_id, disposition.ending_of(known, state))
        else:
            self._end_attempt(attempt_id, "failed", known)
        log.error("stage.failed", state=state.value)
        return []

    def _end_attempt(
        self, attempt_id: int, outcome: str, error: CodedError, next_in_s: float | None = None
    ) -> None:
        words = {"code": error.code, "sentence": str(error)}
        self._ledger.end_attempt(attempt_id, outcome=outcome, next_in_s=next_in_s, **words)
