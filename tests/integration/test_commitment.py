"""Storage commitment with a real Orthanc, which reports over an association of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from node.cases import CaseState, Stage
from node.closing import Closer
from node.jobs import Jobs, Worker
from node.ledger import Ledger
from node.peers import Destination
from node.pipeline import Pipeline
from node.receive.scp import StorageScp
from node.rows import CaseRow
from node.settings import Receive
from node.spool import Spool
from tests.peers import Orthanc
from tests.scripted_peers import dimse_destination
from tests.stages import deliver, encoded_case, parts
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def row(ledger: Ledger, spool: Spool) -> CaseRow:
    return encoded_case(ledger, spool)


@pytest.fixture
def asking(orthanc: Orthanc, ledger: Ledger, spool: Spool) -> Iterator[Destination]:
    """Return Orthanc as a destination that knows where to report to."""
    scp = StorageScp(Receive(port=0), spool=spool, ledger=ledger, model_id="demo@1")
    scp.start()
    orthanc.know("NEUROSEG", scp.port)
    more = {"ae_title": orthanc.ae_title, "commitment": True}
    yield dimse_destination(orthanc.dicom_port, timeout_s=20.0).model_copy(update=more)
    scp.stop()


def test_orthanc_commits_itself_and_the_case_is_delivered(
    row: CaseRow, asking: Destination, ledger: Ledger, spool: Spool
) -> None:
    assert deliver(parts(spool, ledger, asking), row) is None
    assert ledger.case(row.case_id).state is CaseState.DELIVERED
    assert all(one.committed_at for one in ledger.receipts(row.case_id))


def test_the_engine_the_ticker_and_the_receiver_lead_a_delivery_to_its_end(
    row: CaseRow, asking: Destination, ledger: Ledger, spool: Spool, orthanc: Orthanc
) -> None:
    lost = ledger.results(row.case_id)[0].sop_instance_uid
    boundaries: list[str] = []

    def lose(boundary: str) -> None:
        boundaries.append(boundary)
        if boundaries.count("deliver:asking") == 1 and boundary == "deliver:asking":
            orthanc.delete(lost)

    all_parts = replace(parts(spool, ledger, asking), boundary=lose)
    url = f"sqlite:///{spool.root}/jobs.sqlite"
    worker = Worker(
        url,
        executor_id="test/work",
        queues={Stage.DELIVER: 2},
        handler=Pipeline(all_parts).perform,
        poll_s=0.1,
    )
    worker.start(spool.root)
    jobs = Jobs(url)
    closer = Closer(all_parts, jobs)

    def delivered() -> bool:
        closer.tend()
        return ledger.case(row.case_id).state is CaseState.DELIVERED

    try:
        wait_until(delivered, 60.0, "the case to be delivered", poll_s=0.5)
    finally:
        jobs.close()
        worker.stop(grace_s=2)
    assert boundaries.count("deliver:sent") == 3  # two objects, then the lost one again
    outcomes = [(one.outcome, one.code) for one in ledger.attempts(row.case_id)]
    assert outcomes == [("retry", "COMMITMENT_FAILED"), ("done", None)]


def test_what_orthanc_has_lost_is_stored_again_before_the_case_is_delivered(
    row: CaseRow, asking: Destination, ledger: Ledger, spool: Spool, orthanc: Orthanc
) -> None:
    lost, kept = ledger.results(row.case_id)

    def lose(boundary: str) -> None:
        if boundary == "deliver:asking":
            orthanc.delete(lost.sop_instance_uid)

    all_parts = parts(spool, ledger, asking)
    again = deliver(replace(all_parts, boundary=lose), row)
    assert again is not None
    (attempt,) = ledger.attempts(row.case_id)
    assert (attempt.outcome, attempt.code) == ("retry", "COMMITMENT_FAILED")
    (receipt,) = ledger.receipts(row.case_id)
    assert receipt.sop_instance_uid == kept.sop_instance_uid
    assert receipt.committed_at is not None
    assert deliver(all_parts, row, again.attempt) is None
    assert orthanc.instance_bytes(lost.sop_instance_uid)
    assert ledger.case(row.case_id).state is CaseState.DELIVERED
