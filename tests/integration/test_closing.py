"""Open cases are decided one by one; what is wrong with one keeps no other waiting."""

from __future__ import annotations

from pathlib import Path

import pytest

from converters import phantom
from inference import manifest as manifests
from node.cases import CaseState, Stage
from node.closing import Closer
from node.jobs import Job, Jobs
from node.ledger import Ledger
from node.orders import OrderBook
from node.pipeline import Parts
from node.settings import Assemble, Settings
from node.spool import Spool
from tests.nodes import MODEL
from tests.stages import take_in
from tests.waiting import wait_until


@pytest.fixture
def closer(spool: Spool, ledger: Ledger, jobs: Jobs) -> Closer:
    rules = Assemble(settle_s=0.0, quiet_s=0.0)
    parts = Parts(
        settings=Settings(assemble=rules),
        ledger=ledger,
        spool=spool,
        manifest=manifests.load(MODEL),
    )
    return Closer(parts, jobs)


def _receive(seed: int, folder: Path, spool: Spool, ledger: Ledger) -> str:
    files = phantom.write_study(phantom.make_study(seed, size="small"), folder / str(seed))
    take_in([path for many in files.paths.values() for path in many], spool, ledger)
    return files.study_instance_uid


def test_a_damaged_and_a_lost_file_stop_their_own_studies_and_no_other(
    tmp_path: Path, closer: Closer, spool: Spool, ledger: Ledger, jobs: Jobs
) -> None:
    damaged, lost, sound = (_receive(seed, tmp_path, spool, ledger) for seed in (1, 2, 3))
    spool.instance_path(ledger.study_instances(damaged)[0].path).write_bytes(b"no DICOM at all")
    spool.instance_path(ledger.study_instances(lost)[0].path).unlink()
    closer.look()
    ended = {row.study_instance_uid: row for row in ledger.cases()}
    assert (ended[damaged].state, ended[damaged].code) == (CaseState.REJECTED, "DICOM_UNREADABLE")
    assert (ended[lost].state, ended[lost].code) == (CaseState.FAILED, "UNFORESEEN")
    assert ended[sound].state is CaseState.COMPLETE
    assert ended[sound].case_id in jobs.active_case_ids()


def test_a_case_between_two_states_without_a_job_gets_one(
    tmp_path: Path, closer: Closer, spool: Spool, ledger: Ledger, jobs: Jobs
) -> None:
    _receive(4, tmp_path, spool, ledger)
    closer.look()
    (row,) = ledger.cases()
    ledger.move(row.case_id, CaseState.ASSEMBLED)  # as if the process had died right here
    jobs._client.cancel_workflows(jobs._names(["ENQUEUED"], prefix=f"{row.case_id}/"))
    assert row.case_id not in jobs.active_case_ids()
    closer.tend()
    assert row.case_id in jobs.active_case_ids()
    again = Job(case_id=row.case_id, run=row.run, stage=Stage.SEGMENT)
    assert jobs.dead_job_ids(row.case_id, 1) == []
    jobs.submit(again)
    wait_until(lambda: row.case_id in jobs.active_case_ids(), 5, "the job to wait")


def test_an_instance_that_arrives_while_a_case_is_closed_is_not_lost(
    tmp_path: Path, closer: Closer, spool: Spool, ledger: Ledger
) -> None:
    files = phantom.write_study(phantom.make_study(5, size="small"), tmp_path / "study")
    paths = [path for many in files.paths.values() for path in many]
    late = files.paths["t2"][-1]  # an outer slice: nobody can know that it is missing
    take_in([path for path in paths if path != late], spool, ledger)

    decide = closer._facts_of

    def _arrives_meanwhile(*arguments: object) -> object:
        facts = decide(*arguments)  # type: ignore[arg-type]
        take_in([late], spool, ledger)
        return facts

    closer._facts_of = _arrives_meanwhile  # type: ignore[method-assign,assignment]
    closer.look()
    (row,) = ledger.cases()
    assert row.state is CaseState.RECEIVING
    closer._facts_of = decide  # type: ignore[method-assign]
    closer.look()
    (row,) = ledger.cases()
    assert row.state is CaseState.COMPLETE
    members = [one for series in ledger.assembled(row.case_id).series for one in series.instances]
    assert len(members) == len(paths)


def test_haste_that_was_ordered_is_given_once(
    closer: Closer, ledger: Ledger, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    hastened: list[str] = []
    monkeypatch.setattr(jobs, "hasten", hastened.append)
    OrderBook(ledger.engine).want_haste("a" * 32)
    for _ in range(2):
        closer.tend()
    assert hastened == ["a" * 32]
