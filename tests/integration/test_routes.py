"""A study takes its route from the real association to the jobs, and keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from node import owed
from node.cases import CaseState, Sender
from node.closing import Closer
from node.jobs import Jobs
from node.ledger import Ledger
from node.pipeline import Parts, next_jobs
from node.receive.scp import StorageScp
from node.settings import Receive, Settings
from node.spool import Spool
from tests import ledgers, peers
from tests.phantoms import WrittenStudy
from tests.stages import MANIFEST

pytestmark = pytest.mark.integration
_PACS: dict[str, Any] = {"transport": "dimse", "host": "127.0.0.1", "port": 104}
_ROUTE: dict[str, Any] = {
    "name": "clinic",
    "called_ae_titles": ["CLINIC"],
    "calling_ae_titles": ["MR3T"],
    "calling_addresses": ["127.0.0.0/8"],
    "where": {"PatientName": {"is_present": True}},
    "destinations": ["sender"],
    "reference": "flair",
}


def _settings(*routes: dict[str, Any]) -> Settings:
    destinations = [{**_PACS, "name": "pacs"}, {**_PACS, "name": "scanner", "ae_title": "MR3T"}]
    assemble = {"settle_s": 0.0, "quiet_s": 0.0}
    values = {"destinations": destinations, "routes": list(routes), "assemble": assemble}
    return Settings.model_validate(values)


@pytest.mark.parametrize("called", ["CLINIC", "NEUROSEG"])
def test_a_study_goes_back_to_its_sender_whatever_the_settings_say_later(
    called: str, small_study: WrittenStudy, spool: Spool, ledger: Ledger, jobs: Jobs
) -> None:
    peers.require("dcmtk")
    scp = StorageScp(Receive(port=0), spool=spool, ledger=ledger, model_id=MANIFEST.model_id)
    scp.start()
    files: list[Path] = small_study.interleaved
    sent = peers.storescu(files, port=scp.port, called=called, calling="MR3T")
    scp.stop(grace_s=5.0)
    assert sent.returncode == 0, sent.stderr
    sender = Sender(calling_ae_title="MR3T", called_ae_title=called, calling_address="127.0.0.1")
    assert ledger.senders(small_study.files.study_instance_uid) == [sender]

    settings = _settings(_ROUTE)
    parts = Parts(settings=settings, ledger=ledger, spool=spool, manifest=MANIFEST)
    Closer(parts, jobs).look()
    (row,) = ledger.cases()
    route = ledger.route(row.case_id)
    assert route is not None
    is_routed = called == "CLINIC"
    assert (route.rule, ledger.assembled(row.case_id).reference_role) == (
        ("clinic", "flair") if is_routed else ("", MANIFEST.reference_role)
    )
    places = ["scanner"] if is_routed else ["pacs", "scanner"]
    for later in (settings, _settings({"name": "nobody", "destinations": []}), _settings()):
        told = owed.routed(row.case_id, ledger, later.destinations)
        assert [one.name for one in told] == places
    for state in (CaseState.ASSEMBLED, CaseState.SEGMENTED):
        ledger.move(row.case_id, state)
    ledger.save_result(ledgers.encoded(row), summary={})
    jobs_of = next_jobs(ledger.case(row.case_id), ledger, _settings().destinations)
    assert [one.destination for one in jobs_of] == places
