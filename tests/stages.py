"""The stages of a case in this process: what a study goes through without roles and queue."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from pydicom import dcmread

from converters.volume import LabelMap
from inference import manifest as manifests
from node import assemble, closing, convert
from node.assemble import Close
from node.cases import AssembledCase, CaseState, Stage, Transport
from node.jobs import Job
from node.ledger import Ledger
from node.peers import Destination
from node.pipeline import Parts, Pipeline, Segmenter, Stop, next_jobs
from node.receive.instance import Intake, Offer
from node.rows import CaseRow
from node.settings import Align, Assemble, Delivery, Model, Settings
from node.spool import Spool
from tests import ledgers
from tests.nodes import MODEL
from tests.scripted_peers import small_object

MANIFEST = manifests.load(MODEL)


def bright_is_tumour(spool: Spool) -> Segmenter:
    """Return a segmenter that labels the brightest voxels of the reference as label 3."""

    def _segment(case: AssembledCase, _: Stop) -> LabelMap:
        reference = convert.read_volume(case, case.reference_role, spool)
        limit = np.percentile(reference.intensities, 99.0)
        labels = np.where(reference.intensities > limit, 3, 0).astype(np.uint8)
        return LabelMap(
            labels=labels,
            grid=reference.grid,
            segments=MANIFEST.segments,
            model_id=MANIFEST.model_id,
        )

    return _segment


def take_in(
    paths: list[Path], spool: Spool, ledger: Ledger, *, model_id: str = MANIFEST.model_id
) -> None:
    """Put files into the spool and the ledger as the receiver does."""
    intake = Intake(spool, ledger, model_id=model_id, limit_bytes=2**30)
    for path in paths:
        ds = dcmread(path, stop_before_pixels=True)
        incoming = intake.begin(
            Offer(
                sop_class_uid=str(ds.SOPClassUID),
                sop_instance_uid=str(ds.SOPInstanceUID),
                transfer_syntax_uid=str(ds.file_meta.TransferSyntaxUID),
                calling_ae_title="TEST",
            )
        )
        content = path.read_bytes()
        incoming.write(content[144 + int(ds.file_meta.FileMetaInformationGroupLength) :])
        intake.keep(incoming)


def close(spool: Spool, ledger: Ledger) -> CaseRow:
    """Close the one open case."""
    (row,) = ledger.cases(CaseState.RECEIVING)
    instances = ledger.study_instances(row.study_instance_uid)
    waiting = Assemble(settle_s=1, quiet_s=2, deadline_s=3)
    rules = closing.rules_of(MANIFEST, waiting)
    now = datetime.now(UTC) + timedelta(seconds=10)
    known = closing.read_facts(instances, spool)
    decision = assemble.decide(closing.open_case(row), known, rules, now)
    assert isinstance(decision, Close)
    assert ledger.close_case(
        decision.case, decision.decisions, decision.reason, seen_instances=len(instances)
    )
    return ledger.case(row.case_id)


def at(port: int, name: str = "pacs") -> Destination:
    return Destination(
        name=name, transport=Transport.DIMSE, host="127.0.0.1", port=port, timeout_s=5.0
    )


def parts(spool: Spool, ledger: Ledger, *destinations: Destination) -> Parts:
    delivery = Delivery(first_delay_s=1.0, longest_delay_s=3.0, max_attempts=3)
    return Parts(
        settings=Settings(
            destinations=destinations,
            delivery=delivery,
            align=Align(registration="off"),
            model=Model(
                uncertainty=any(one.entropy for one in destinations),
                probabilities=any("probabilities" in one.seg for one in destinations),
            ),
        ),
        ledger=ledger,
        spool=spool,
        manifest=MANIFEST,
        segmenter=bright_is_tumour(spool),
    )


def encoded_case(ledger: Ledger, spool: Spool) -> CaseRow:
    """Return a case that is to be delivered, with two small objects and no study behind it."""
    row = ledgers.advanced(ledger, ledgers.opened(ledger), CaseState.SEGMENTED)
    folder = spool.case_folder(row.case_id)
    objects = []
    for name in ("a.dcm", "b.dcm"):
        described, file = small_object(folder)
        path = f"cases/{row.case_id}/{file.rename(folder / name).name}"
        objects.append(replace(described, case_id=row.case_id, path=path))
    ledger.save_result(objects[0], summary={"notes": []}, beside=objects[1:])
    return ledger.case(row.case_id)


def delivery_job(row: CaseRow, attempt: int = 1) -> Job:
    """Return an attempt to deliver a case to the destination `pacs`."""
    return Job(case_id=row.case_id, run=1, stage=Stage.DELIVER, destination="pacs", attempt=attempt)


def deliver(parts: Parts, row: CaseRow, attempt: int = 1) -> Job | None:
    """Perform one attempt of a delivery; return the next one, None when there is none."""
    following = Pipeline(parts).perform(delivery_job(row, attempt))
    return next((one for one in following if one.attempt > attempt), None)


def run_all(parts: Parts, case_id: str, *, until: CaseState = CaseState.DELIVERED) -> list[Job]:
    """Perform jobs, ignoring delays, until the case is in a state; return what would follow."""
    pipeline = Pipeline(parts)
    queue = next_jobs(parts.ledger.case(case_id), parts.ledger, parts.settings.destinations)
    seen: set[str] = set()
    while queue and parts.ledger.case(case_id).state is not until:
        job = queue.pop(0)
        if job.job_id not in seen:
            seen.add(job.job_id)
            queue.extend(pipeline.perform(job))
    return queue
