"""A disk that fills up in the middle of any write: nothing acknowledged is lost, all of it heals.

The disk is a real file system of 24 MB (tmpfs), which holds spool and ledger alike. It has no
journal, so that this says nothing about a power cut.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from node.cases import CaseState, Stage
from node.convert import write_labels
from node.jobs import Job
from node.ledger import Ledger
from node.pipeline import Pipeline, next_jobs
from node.receive.reconcile import Reconciliation
from node.spool import Spool
from tests.doors import Door, Peer, make_instance
from tests.full_disks import full
from tests.phantoms import WrittenStudy
from tests.stages import MANIFEST, close, parts, take_in

pytestmark = pytest.mark.faults

_LIMIT = 2**24


@pytest.mark.parametrize("but_bytes", [0, 2**12, 2**14, 2**16, 2**17, 2**18, 2**19])
def test_what_was_acknowledged_is_kept_and_the_rest_is_taken_when_there_is_room(
    tiny_disk: Path, but_bytes: int
) -> None:
    instances = [make_instance(PixelData=bytes(50_000)) for _ in range(12)]
    with Door(tiny_disk, max_instance_bytes=_LIMIT) as door:
        assert _push(door, instances[:1]) == [0]
        with full(tiny_disk, but_bytes=but_bytes):
            statuses = _push(door, instances[1:])
            assert set(statuses) <= {0, 0xA700}
            assert 0xA700 in statuses
            assert door.row_count() == 1 + statuses.count(0)
        assert _push(door, instances) == [0] * len(instances)
        assert door.row_count() == len(instances)
        check = Reconciliation(
            door.spool, door.ledger, model_id="door@1", limit_bytes=_LIMIT, is_deep=True
        )
        assert check.run() == []


def _push(door: Door, instances: list[Dataset]) -> list[int]:
    with Peer(door.port) as peer:
        return [peer.store_dataset(one).status for one in instances]


@pytest.mark.timeout(900)
def test_each_stage_waits_for_room_and_the_study_has_one_result(
    small_study: WrittenStudy, tiny_disk: Path
) -> None:
    spool, ledger = Spool(tiny_disk), Ledger(f"sqlite:///{tiny_disk}/ledger.sqlite")
    take_in(small_study.interleaved, spool, ledger)
    row = close(spool, ledger)
    pipeline = Pipeline(parts(spool, ledger))
    (job,) = next_jobs(row, ledger, ())
    for stage, state in (
        (Stage.CONVERT, CaseState.ASSEMBLED),
        (Stage.SEGMENT, CaseState.SEGMENTED),
        (Stage.ENCODE, CaseState.DELIVERED),  # there is nowhere to send it
    ):
        assert job.stage is stage
        with full(tiny_disk, but_bytes=2**13):
            (again,) = pipeline.perform(job)
            assert (again.stage, again.attempt) == (stage, 2)
        following = pipeline.perform(again)
        assert ledger.case(row.case_id).state is state
        assert not list(spool.case_folder(row.case_id).glob(".*.part*"))
        job = following[0] if following else job
    results = ledger.results(row.case_id)
    assert len({one.sop_instance_uid for one in results}) == len(results) == 2  # SEG and report
    for one in results:
        assert spool.instance_path(one.path).stat().st_size == one.byte_count
    check = Reconciliation(
        spool, ledger, model_id=MANIFEST.model_id, limit_bytes=_LIMIT, is_deep=True
    )
    assert check.run() == []
    ledger.close()


def test_labels_that_do_not_fit_leave_nothing_half_written(
    small_study: WrittenStudy, tiny_disk: Path, ledger: Ledger
) -> None:
    spool = Spool(tiny_disk)
    take_in(small_study.interleaved, spool, ledger)
    row = close(spool, ledger)
    pipeline = Pipeline(parts(spool, ledger))
    (job,) = next_jobs(row, ledger, ())
    (job,) = pipeline.perform(job)
    case = ledger.assembled(row.case_id)
    segmenter = parts(spool, ledger).segmenter
    assert segmenter is not None
    labels = segmenter(case, lambda: False)
    with full(tiny_disk), pytest.raises(OSError, match="No space left"):
        write_labels(labels, case, spool)
    assert not (spool.case_folder(row.case_id) / "labels.nii.gz").exists()
    assert not list(spool.case_folder(row.case_id).glob(".*.part*"))
    _codes(pipeline, job, tiny_disk)
    assert [one.code for one in ledger.attempts(row.case_id)][-1] == "SPOOL_FULL"


def _codes(pipeline: Pipeline, job: Job, disk: Path) -> None:
    perform: Callable[[Job], list[Job]] = pipeline.perform
    with full(disk):
        (again,) = perform(job)
    assert again.delay_s == 1.0
