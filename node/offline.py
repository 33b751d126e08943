"""One study from a folder: the stages of the service in this process, without network and queue."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import click

from converters.errors import CodedError
from converters.volume import LabelMap, Role
from inference import manifest as manifests
from node import assemble, closing, explain, facts, folder, series_table
from node.assemble import Close, Refuse
from node.bar import WindowBar
from node.cases import AssembledCase, CaseState, Transport
from node.disposition import ending_of
from node.errors import StudyCountError
from node.ledger import Ledger
from node.peers import Destination, SegForm
from node.pipeline import Parts, Pipeline, Stop, next_jobs
from node.receive.instance import Intake, Offer
from node.rows import CaseRow
from node.segment import load_model, segment_case
from node.settings import Settings
from node.spool import Spool

_ASKED_FOR = ("entropy.nii.gz", "probabilities.nii.gz")  # by [model]
_RESULTS = (
    *("seg.dcm", "sr.dcm", "measurements.json"),
    *("labels.nii.gz", "channels.nii.gz", "preview.png", *_ASKED_FOR),
)
_PICTURES = "summary-*"
_BLOCK = 2**20


def run(dicom_dir: Path, out: Path, settings: Settings, forms: Destination) -> int:
    """Segment the one study in a folder and write the results; return the exit code.

    Parameters
    ----------
    dicom_dir : Path
        What is below it.
    out : Path
        Folder for the results.
    settings : Settings
        As for the service; nothing is delivered or held.
    forms : Destination
        Which DICOM objects are made.
    """
    out.mkdir(parents=True, exist_ok=True)
    nobody_waits = settings.delivery.model_copy(update={"hold_codes": (), "empty": "seg"})
    with_forms = settings.model.model_copy(
        update={
            "uncertainty": settings.model.uncertainty or forms.entropy,
            "probabilities": settings.model.probabilities or "probabilities" in forms.seg,
        }
    )
    settings = settings.model_copy(
        update={"destinations": (), "delivery": nobody_waits, "model": with_forms}
    )
    written: list[str] = []
    with tempfile.TemporaryDirectory(dir=out, prefix=".work-") as work:
        spool = Spool(Path(work))
        ledger = Ledger(f"sqlite:///{Path(work).absolute()}/ledger.sqlite")
        try:
            row = _run_stages(dicom_dir, settings, spool, ledger, forms)
            if row.state is CaseState.DELIVERED:
                written = _copy_results(spool.case_folder(row.case_id), out)
        finally:
            ledger.close()
    return _report(row, out, written)


def forms_of(forms: Collection[str], also: Sequence[Role]) -> Destination:
    """Return which objects are made beside SEG, report and pictures.

    Parameters
    ----------
    forms : collection of str
        ``regions``, ``labelmap``, ``probabilities``, ``entropy``, ``rtstruct``.
    also : sequence of str
        Roles whose series get a SEG as well.
    """
    beside = [form for form in get_args(SegForm) if form in forms]
    return Destination(
        name="out",
        transport=Transport.FOLDER,
        path="/",
        seg=("labels", *beside),
        entropy="entropy" in forms,
        rtstruct="rtstruct" in forms,
        pictures=True,
        also=tuple(also),
    )


def _copy_results(case_folder: Path, out: Path) -> list[str]:
    """Return the names of the files that were copied."""
    names = [one for one in _RESULTS if one not in _ASKED_FOR or (case_folder / one).is_file()]
    pictures = sorted(picture.name for picture in case_folder.glob(_PICTURES))
    objects = sorted(one.name for one in case_folder.glob("*.dcm"))
    names += [*pictures, *(one for one in objects if one not in (*names, *pictures))]
    for name in names:
        shutil.copy2(case_folder / name, out / name)
    return names


def _run_stages(
    dicom_dir: Path, settings: Settings, spool: Spool, ledger: Ledger, forms: Destination
) -> CaseRow:
    manifest = manifests.load(settings.model.folder)
    intake = Intake(
        spool,
        ledger,
        model_id=manifest.model_id,
        limit_bytes=settings.receive.max_instance_bytes,
    )
    _take_in(dicom_dir, intake, settings.receive.max_instance_bytes)
    studies = ledger.cases(CaseState.RECEIVING)
    if len(studies) != 1:
        raise StudyCountError(count=len(studies))
    parts = Parts(settings=settings, ledger=ledger, spool=spool, manifest=manifest, keeps=forms)
    row = _closed(studies[0], parts)
    if row.state is CaseState.COMPLETE:
        _perform(row, parts)
    return ledger.case(row.case_id)


def _take_in(dicom_dir: Path, intake: Intake, limit_bytes: int) -> None:
    """Put every DICOM file below a folder into the spool; say which were left out and why."""
    taken = 0
    for path in folder.files_below(dicom_dir):
        try:
            _take_in_file(path, intake, limit_bytes)
            taken += 1
        except CodedError as error:
            click.echo(f"left out {path.name}: {error.code}: {error}", err=True)
        except OSError as error:
            click.echo(f"left out {path.name}: {error.strerror}", err=True)
    click.echo(f"{taken} instances read")


def _take_in_file(path: Path, intake: Intake, limit_bytes: int) -> None:
    found = folder.read_file(path, limit_bytes=limit_bytes)
    incoming = intake.begin(
        Offer(
            sop_class_uid=found.instance.sop_class_uid,
            sop_instance_uid=found.instance.sop_instance_uid,
            transfer_syntax_uid=found.instance.transfer_syntax_uid,
            calling_ae_title=found.instance.calling_ae_title,
        )
    )
    with path.open("rb") as file:
        file.seek(found.start)
        while block := file.read(_BLOCK):
            incoming.write(block)
    intake.keep(incoming)


def _closed(row: CaseRow, parts: Parts) -> CaseRow:
    """Decide about the study as if nothing more could arrive, and print the series table."""
    instances = parts.ledger.study_instances(row.study_instance_uid)
    at_once = explain.at_once_of(parts.settings.assemble)
    rules = closing.rules_of(parts.manifest, at_once)
    known = facts.read_facts(
        instances, parts.spool, closing.site_of(parts.manifest, parts.settings)
    )
    decision = assemble.decide(closing.open_case(row), known, rules, datetime.now(UTC))
    series_table.show(explain.rows_of(decision.decisions, known), rules.roles)
    if isinstance(decision, Close):
        parts.ledger.close_case(
            decision.case, decision.decisions, decision.reason, seen_instances=len(instances)
        )
    elif isinstance(decision, Refuse):
        ending = ending_of(decision.error, CaseState.REJECTED)
        parts.ledger.refuse_open_case(
            row.case_id, ending, decision.decisions, seen_instances=len(instances)
        )
    return parts.ledger.case(row.case_id)


def _perform(row: CaseRow, parts: Parts) -> None:
    model_settings = parts.settings.model
    click.echo(f"model: {parts.manifest.title}")
    model = load_model(parts.manifest, model_settings)

    def _segment(case: AssembledCase, stop: Stop) -> LabelMap:
        return segment_case(case, model, parts.spool, WindowBar(), stop)

    pipeline = Pipeline(replace(parts, segmenter=_segment))
    while jobs := next_jobs(parts.ledger.case(row.case_id), parts.ledger, ()):
        click.echo(f"{jobs[0].stage.value} ...")
        pipeline.perform(jobs[0])


def _report(row: CaseRow, out: Path, written: Sequence[str]) -> int:
    summary = row.summary or {}
    series_table.show_findings(summary)
    if row.state is not CaseState.DELIVERED:
        click.echo(f"{row.state}: {row.code}: {row.sentence}\n-> {row.advice}", err=True)
        return 1
    series_table.show_volumes(summary)
    click.echo(f"written to {out}: {', '.join(written)}\nResearch use only.")
    return 0
