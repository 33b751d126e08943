"""Ledger rows -> what the API answers and the pages show: one shape for both.

Nothing here names a patient: the ledger knows none. Texts that come from a peer (the description
of a series) are passed on as they are; templates escape them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from converters.volume import Role, Segment
from inference.declarations import Region
from inference.manifest import Manifest
from node import actions, findings, model_set, owed, series_table
from node.actions import Action
from node.cases import (
    CaseState,
    DeliveryReceipt,
    EncodedObject,
    ObjectKind,
    Priority,
    SeriesDecision,
    Transport,
)
from node.owed import Standing
from node.reading import LedgerReader
from node.rows import AttemptRow, CaseRow
from node.settings import Settings
from node.spool import Spool
from node.web import downloads, leafing, pictures, progress
from node.web.downloads import FileView
from node.web.leafing import SlicesView
from node.web.pictures import PictureView
from node.web.progress import AttemptView, StepView, WindowsView

SHORT_ID_LENGTH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Everything that the web role reads from."""

    ledger: LedgerReader
    spool: Spool
    settings: Settings
    manifest: Manifest
    further: tuple[Manifest, ...] = ()

    def manifest_of(self, row: CaseRow) -> Manifest:
        """Return the model of a case."""
        return model_set.of_case(row.model_id, self.manifest, self.further)

    @property
    def roles(self) -> tuple[Role, ...]:
        """The inputs of all models."""
        return model_set.roles_of(self.manifest, self.further)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesView(SeriesDecision):
    """A series with the number by which an operator names it; `is_chosen` by hand."""

    number: int
    is_chosen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignmentView:
    """How the series of a role was brought onto the reference; headers kept where not applied."""

    role: str
    is_applied: bool
    shift_mm: float
    rotation_deg: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeView:
    """The volume of one segment; the colour is sRGB, None for a segment of another model."""

    label: str
    volume_ml: float
    color_rgb: tuple[int, int, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LesionView:
    """A lesion: its volume, and of its enhancing tumour volume and diameters, where it has one."""

    number: int
    volume_ml: float
    enhancing_ml: float | None
    long_mm: float | None
    short_mm: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidenceView:
    """How unsure the model is, as entropy: 0 is sure, 1 is undecided."""

    name: str
    entropy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultView:
    """An encoded object, as a PACS knows it."""

    kind: ObjectKind
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    byte_count: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptView:
    """Proof that a destination holds an object."""

    destination: str
    transport: Transport
    sop_instance_uid: str
    status_code: str
    attempt: int
    delivered_at: datetime
    committed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionView:
    """Another case of the same study and model."""

    case_id: str
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseView:
    """A case with everything that is known of it.

    `earlier` are the revisions before it, newest first.
    `turnaround_s` is the time from the last image to the last receipt. `received_instances` counts
    what arrived of the study so far, or what the case was closed with. `reason` is why it was
    closed; while it is open, what it waits for stands in `waits_for` instead, and when somebody
    asked to close it with what there is in `completion_requested_at`. `held_for` are the notes that
    held or hold the result back, `released_at` is when somebody let it go, `purged_at` when its
    files were deleted, `volumes_purged_at` when only the working volumes; `progress` is that of the
    engine while it runs. `route` is the rule that decided where the result goes, empty where none
    held; `destinations` say how each one stands, as soon as there is a result. `volumes` are those
    of labels, `regions` those of labels taken together, which overlap, `lesions` those of the
    connected pieces; all of it and more is in
    `measurements`. `uncertainty` and `tta` are as the engine kept them.
    """

    case_id: str
    short_id: str
    url: str
    state: str
    revision: int
    earlier: tuple[RevisionView, ...]
    run: int
    priority: Priority
    model_id: str
    study_instance_uid: str
    opened_at: datetime
    last_received_at: datetime
    updated_at: datetime
    completion_requested_at: datetime | None
    volumes_purged_at: datetime | None
    purged_at: datetime | None
    actions: tuple[Action, ...]
    closed_at: datetime | None
    closed_by: str | None
    reason: str
    waits_for: str
    reference_role: str | None
    route: str | None
    code: str | None
    sentence: str | None
    advice: str | None
    received_series: int
    received_instances: int
    turnaround_s: float | None
    steps: tuple[StepView, ...]
    progress: WindowsView | None
    series: tuple[SeriesView, ...]
    alignment: tuple[AlignmentView, ...]
    notes: tuple[str, ...]
    held_for: tuple[str, ...]
    released_at: str | None
    attempts: tuple[AttemptView, ...]
    destinations: tuple[Standing, ...]
    receipts: tuple[ReceiptView, ...]
    results: tuple[ResultView, ...]
    volumes: tuple[VolumeView, ...]
    regions: tuple[VolumeView, ...]
    lesions: tuple[LesionView, ...]
    measurements: dict[str, Any] | None
    confidence: tuple[ConfidenceView, ...]
    uncertainty: dict[str, Any] | None
    tta: dict[str, Any] | None
    summary: dict[str, Any] | None
    preview_url: str | None
    pictures: tuple[PictureView, ...]
    slices: SlicesView | None
    files: tuple[FileView, ...]


def case_view(sources: Sources, row: CaseRow, *, now: datetime) -> CaseView:
    """Return what is shown of a case."""
    ledger = sources.ledger
    decisions = ledger.decisions(row.case_id)
    attempts = ledger.attempts(row.case_id)
    receipts = ledger.receipts(row.case_id)
    series_count, instance_count = _received(ledger, row, decisions)
    return CaseView(
        **_of_row(row),
        earlier=tuple(
            RevisionView(case_id=one.case_id, revision=one.revision)
            for one in (ledger.earlier_revisions(row) if row.revision > 1 else ())
        ),
        route=None if (route := ledger.route(row.case_id)) is None else route.rule,
        received_series=series_count,
        received_instances=instance_count,
        turnaround_s=_turnaround_s(row, receipts),
        steps=progress.steps(row, attempts, now=now),
        progress=_windows(sources, row),
        series=_series(ledger, row, decisions),
        alignment=_alignment(row),
        notes=tuple((row.summary or {}).get("notes", ())),
        held_for=_held_for(row.summary or {}),
        released_at=(row.summary or {}).get("released_at"),
        attempts=_attempts(row, attempts, now),
        destinations=owed.standings(row, ledger, sources.settings.destinations),
        receipts=tuple(ReceiptView(**_shown_of(one, ReceiptView)) for one in receipts),
        results=tuple(
            ResultView(**_shown_of(one, ResultView)) for one in ledger.results(row.case_id)
        ),
        volumes=_volumes(row, "volumes_ml", sources.manifest_of(row).segments),
        regions=_volumes(row, "regions_ml", sources.manifest_of(row).regions),
        lesions=_lesions(row),
        measurements=(row.summary or {}).get("measurements"),
        confidence=_confidence(row),
        uncertainty=(row.summary or {}).get("uncertainty"),
        tta=(row.summary or {}).get("tta"),
        preview_url=_preview_url(sources.spool, row.case_id),
        pictures=_pictures(sources, row),
        slices=leafing.view_of(row, sources.spool),
        files=downloads.views(sources.spool, row.case_id, sources.roles),
    )


def _of_row(row: CaseRow) -> dict[str, Any]:
    same = (
        *("case_id", "revision", "run", "priority", "model_id", "study_instance_uid", "opened_at"),
        *("last_received_at", "updated_at", "closed_at", "reference_role"),
        *("completion_requested_at", "volumes_purged_at", "purged_at"),
        *("code", "sentence", "advice", "summary"),
    )
    is_open = row.state is CaseState.RECEIVING
    return {
        **{name: getattr(row, name) for name in same},
        "reason": "" if is_open else row.reason,
        "waits_for": row.reason if is_open else "",
        "actions": actions.offered(row),
        "short_id": row.case_id[:SHORT_ID_LENGTH],
        "url": f"/cases/{row.case_id}",
        "state": row.state.value,
        "closed_by": None if row.closed_by is None else row.closed_by.value,
    }


def _received(
    ledger: LedgerReader, row: CaseRow, decisions: Sequence[SeriesDecision]
) -> tuple[int, int]:
    """Return how many series and instances arrived; counted one by one only while it is open."""
    if decisions and row.state is not CaseState.RECEIVING:
        series = {decision.series_instance_uid for decision in decisions}
        return len(series), sum(decision.instance_count for decision in decisions)
    return ledger.received(row.study_instance_uid)


def _series(
    ledger: LedgerReader, row: CaseRow, decisions: Sequence[SeriesDecision]
) -> tuple[SeriesView, ...]:
    """Return what the series were taken for, in the order of the ledger."""
    chosen = set(ledger.choices(row.case_id).values())
    number_of = {
        (one.decision.series_instance_uid, one.decision.part): one.number
        for one in series_table.numbered(decisions)
    }
    keys = [(one.series_instance_uid, one.part) for one in decisions]
    return tuple(
        SeriesView(**asdict(one), number=number_of[key], is_chosen=key in chosen)
        for key, one in zip(keys, decisions, strict=True)
    )


def _alignment(row: CaseRow) -> tuple[AlignmentView, ...]:
    found = (row.summary or {}).get("alignment", ())
    names = [field.name for field in fields(AlignmentView)]
    return tuple(AlignmentView(**{name: one[name] for name in names}) for one in found)


def _windows(sources: Sources, row: CaseRow) -> WindowsView | None:
    if row.state is not CaseState.ASSEMBLED:
        return None
    timeout_s = sources.settings.jobs.heartbeat_timeout_s
    return progress.windows_view(row, sources.ledger.workers(), timeout_s=timeout_s)


def _held_for(summary: dict[str, Any]) -> tuple[str, ...]:
    codes = summary.get("held_for", ())
    return tuple(note for note in summary.get("notes", ()) if findings.code_of(note) in codes)


def _attempts(
    row: CaseRow, attempts: Sequence[AttemptRow], now: datetime
) -> tuple[AttemptView, ...]:
    return tuple(
        progress.attempt_view(row, attempt, attempts[index + 1 :], now=now)
        for index, attempt in enumerate(attempts)
    )


def _turnaround_s(row: CaseRow, receipts: Sequence[DeliveryReceipt]) -> float | None:
    if not receipts or row.state not in (CaseState.DELIVERED, CaseState.SUPERSEDED):
        return None
    last = max(receipt.delivered_at for receipt in receipts)
    return round((last - row.last_received_at).total_seconds(), 3)


def _shown_of(one: DeliveryReceipt | EncodedObject, view: type) -> dict[str, Any]:
    """Return the values that a view shows of a row."""
    return {field.name: getattr(one, field.name) for field in fields(view)}


def _volumes(
    row: CaseRow, key: str, meanings: Sequence[Segment] | Sequence[Region]
) -> tuple[VolumeView, ...]:
    colors = {meaning.label: meaning.color_rgb for meaning in meanings}
    volumes_ml = (row.summary or {}).get(key, {})
    return tuple(
        VolumeView(label=label, volume_ml=volume_ml, color_rgb=colors.get(label))
        for label, volume_ml in volumes_ml.items()
    )


def _lesions(row: CaseRow) -> tuple[LesionView, ...]:
    """Return the lesions; none of a result by a version that did not measure them."""
    measured = (row.summary or {}).get("measurements") or {}
    return tuple(
        LesionView(
            number=one["number"],
            volume_ml=one["volume_ml"],
            enhancing_ml=enhancing.get("volume_ml"),
            long_mm=enhancing.get("long_mm"),
            short_mm=enhancing.get("short_mm"),
        )
        for one in measured.get("lesions", ())
        for enhancing in (one["enhancing"] or {},)
    )


def _confidence(row: CaseRow) -> tuple[ConfidenceView, ...]:
    """Return the figures of `uncertainty`: those of each label, then that of all together."""
    found = (row.summary or {}).get("uncertainty") or {}
    figures = {**found.get("mean_by_label", {}), "p95": found.get("p95")}
    return tuple(
        ConfidenceView(name=name, entropy=value)
        for name, value in figures.items()
        if value is not None
    )


def _preview_url(spool: Spool, case_id: str) -> str | None:
    """Return the picture's address, which changes when the picture does."""
    path = downloads.case_file(spool, case_id, downloads.PREVIEW)
    if not path.is_file():
        return None
    return f"/api/v1/cases/{case_id}/{downloads.PREVIEW}?v={path.stat().st_mtime_ns}"


def _pictures(sources: Sources, row: CaseRow) -> tuple[PictureView, ...]:
    """Return the pictures in the order of their pages: the reference series comes first."""
    folder = downloads.case_file(sources.spool, row.case_id, downloads.PREVIEW).parent
    roles = sorted(sources.roles, key=lambda role: role != row.reference_role)
    return pictures.views(row.case_id, folder, roles)
