"""One study from a folder: the stages of the service in this process, without network and queue."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from converters.errors import CodedError
from converters.volume import LabelMap
from inference import manifest as manifests
from inference import model as models
from node import assemble, closing
from node.assemble import Close, Refuse
from node.cases import AssembledCase, CaseState, SeriesDecision
from node.disposition import ending_of
from node.errors import InstanceUnreadableError, StudyCountError
from node.ledger import Ledger
from node.pipeline import Parts, Pipeline, next_jobs
from node.receive.instance import Intake, Offer
from node.rows import CaseRow
from node.segment import segment_case
from node.settings import Assemble, Settings
from node.spool import Spool

_RESULTS = ("seg.dcm", "labels.nii.gz", "channels.nii.gz", "preview.png")
_META_START = 132 + 12  # preamble and prefix, then the group length element itself
_BLOCK = 2**20
_IDENTIFIERS = ["SOPClassUID", "SOPInstanceUID"]


def run(dicom_dir: Path, out: Path, settings: Settings) -> int:
    """Segment the one study in a folder and write the results; return the exit code."""
    out.mkdir(parents=True, exist_ok=True)
    settings = settings.model_copy(update={"destinations": ()})
    with tempfile.TemporaryDirectory(dir=out, prefix=".work-") as work:
        spool = Spool(Path(work))
        ledger = Ledger(f"sqlite:///{Path(work).absolute()}/ledger.sqlite")
        try:
            row = _run_stages(dicom_dir, settings, spool, ledger)
            for name in _RESULTS if row.state is CaseState.DELIVERED else ():
                shutil.copy2(spool.case_folder(row.case_id) / name, out / name)
        finally:
            ledger.close()
    return _report(row, out)


def _run_stages(dicom_dir: Path, settings: Settings, spool: Spool, ledger: Ledger) -> CaseRow:
    manifest = manifests.load(settings.model.folder)
    intake = Intake(
        spool,
        ledger,
        model_id=manifest.model_id,
        limit_bytes=settings.receive.max_instance_bytes,
    )
    _take_in(dicom_dir, intake)
    studies = ledger.cases(CaseState.RECEIVING)
    if len(studies) != 1:
        raise StudyCountError(count=len(studies))
    parts = Parts(settings=settings, ledger=ledger, spool=spool, manifest=manifest)
    row = _closed(studies[0], parts)
    if row.state is CaseState.COMPLETE:
        _perform(row, parts)
    return ledger.case(row.case_id)


def _take_in(dicom_dir: Path, intake: Intake) -> None:
    """Put every DICOM file below a folder into the spool; say which were left out and why."""
    taken = 0
    for path in sorted(path for path in dicom_dir.rglob("*") if path.is_file()):
        try:
            _take_in_file(path, intake)
            taken += 1
        except CodedError as error:
            click.echo(f"left out {path.name}: {error.code}: {error}", err=True)
    click.echo(f"{taken} instances read")


def _take_in_file(path: Path, intake: Intake) -> None:
    try:
        ds = dcmread(path, stop_before_pixels=True, specific_tags=_IDENTIFIERS)
        offer = Offer(
            sop_class_uid=str(ds.SOPClassUID),
            sop_instance_uid=str(ds.SOPInstanceUID),
            transfer_syntax_uid=str(ds.file_meta.TransferSyntaxUID),
            calling_ae_title="OFFLINE",
        )
        start = _META_START + int(ds.file_meta.FileMetaInformationGroupLength)
    except (InvalidDicomError, AttributeError, EOFError, ValueError) as error:
        raise InstanceUnreadableError(reason="not a DICOM file with meta information") from error
    incoming = intake.begin(offer)
    with path.open("rb") as file:
        file.seek(start)
        while block := file.read(_BLOCK):
            incoming.write(block)
    intake.keep(incoming)


def _closed(row: CaseRow, parts: Parts) -> CaseRow:
    """Decide about the study as if nothing more could arrive, and print the series table."""
    instances = parts.ledger.study_instances(row.study_instance_uid)
    at_once = Assemble(settle_s=0.0, quiet_s=0.0, deadline_s=0.0)
    decision = assemble.decide(
        closing.open_case(row),
        closing.read_facts(instances, parts.spool),
        closing.rules_of(parts.manifest, at_once),
        datetime.now(UTC),
    )
    if isinstance(decision, Close):
        _print_table(decision.decisions)
        parts.ledger.close_case(
            decision.case, decision.decisions, decision.reason, seen_instances=len(instances)
        )
    elif isinstance(decision, Refuse):
        _print_table(decision.decisions)
        ending = ending_of(decision.error, CaseState.REJECTED)
        parts.ledger.refuse_open_case(
            row.case_id, ending, decision.decisions, seen_instances=len(instances)
        )
    return parts.ledger.case(row.case_id)


def _perform(row: CaseRow, parts: Parts) -> None:
    model_settings = parts.settings.model
    click.echo(f"model: {parts.manifest.title}")
    model = models.load(
        parts.manifest, device=model_settings.device, threads=model_settings.threads
    )

    def _segment(case: AssembledCase) -> LabelMap:
        return segment_case(case, model, parts.spool, _progress)

    pipeline = Pipeline(replace(parts, segmenter=_segment))
    while jobs := next_jobs(parts.ledger.case(row.case_id), parts.ledger, ()):
        click.echo(f"{jobs[0].stage.value} ...")
        pipeline.perform(jobs[0])


def _progress(done: int, total: int) -> None:
    end = "\n" if done == total else ""
    click.echo(f"\r  window {done} of {total}{end}", nl=False)


def _print_table(decisions: tuple[SeriesDecision, ...]) -> None:
    click.echo(f"  {'role':<7}{'sequence':<18}{'images':>7}  why")
    for one in decisions:
        code = f" [{one.code}]" if one.code else ""
        role = one.role or "-"
        click.echo(f"  {role:<7}{one.sequence:<18}{one.instance_count:>7}  {one.reason}{code}")


def _report(row: CaseRow, out: Path) -> int:
    if row.state is not CaseState.DELIVERED:
        click.echo(f"{row.state}: {row.code}: {row.sentence}\n-> {row.advice}", err=True)
        return 1
    for label, volume_ml in (row.summary or {})["volumes_ml"].items():
        click.echo(f"  {label:<44}{volume_ml:>8.1f} mL")
    click.echo(f"written to {out}: {', '.join(_RESULTS)}\nResearch use only.")
    return 0
