"""The node performs work items of another system, whose part another node's worklist plays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from node import logs, worksteps
from node.cases import CaseState
from node.ledger import Ledger
from node.manager import ManagerWorklist
from node.peers import Manager
from node.performing import Performing
from node.settings import Settings
from node.workitems import Workitem, Worklist
from node.worksteps import StepState
from tests import ledgers
from tests.scripted_peers import closed_port
from tests.web_cases import WebNode, served

UID, STUDY = "1.9", "1.2.3"
ITEM = {worksteps.STUDY: {"vr": "UI", "Value": [STUDY]}}


class Site:
    """A manager's worklist, and a node that works for it."""

    def __init__(self, manager: WebNode, url: str, ledger: Ledger) -> None:
        self.there, self.ledger = Worklist(manager.ledger.engine), ledger
        self._url = f"{url}/dicom-web"
        self.node = self.started()

    def started(self) -> Performing:
        """Return the performer as a new process would have it."""
        peer = Manager(url=self._url, timeout_s=5.0).as_destination()
        steps = ManagerWorklist(peer, Worklist(self.ledger.engine, is_mirror=True))
        self.node = Performing(Settings(), self.ledger, steps)
        return self.node

    def looked(self) -> Workitem:
        """Return the work item when the node has looked."""
        self.node.look()
        return self.there.find(UID)


@pytest.fixture
def site(tmp_path: Path, ledger: Ledger) -> Iterator[Site]:
    logs.configure(role="web", strict=True)
    manager = WebNode.create(tmp_path / "manager")
    with served(manager.app()) as url:
        yield Site(manager, url, ledger)
    manager.ledger.close()


def test_a_work_item_of_a_manager_is_claimed_followed_and_completed(site: Site) -> None:
    site.there.create(UID, ITEM)
    row = ledgers.opened(site.ledger, study=STUDY)
    assert site.looked().state is StepState.IN_PROGRESS
    row = ledgers.advanced(site.ledger, row, CaseState.SEGMENTED)
    site.started()  # as after a restart
    (progress,) = worksteps.items_of(site.looked().content, worksteps.PROGRESS)
    assert worksteps.value_of(progress, worksteps.PERCENT) == "70"
    result = ledgers.encoded(row)
    site.ledger.save_result(result, summary={})
    site.ledger.move(row.case_id, CaseState.DELIVERED)
    done = site.looked()
    assert done.state is StepState.COMPLETED
    (performed,) = worksteps.items_of(done.content, worksteps.PERFORMED)
    (output,) = worksteps.items_of(performed, worksteps.OUTPUTS)
    assert worksteps.value_of(output, worksteps.SERIES) == result.series_instance_uid
    assert Worklist(site.ledger.engine).search({}) == []  # the node's own list has none of it


def test_what_another_has_claimed_is_left_alone(site: Site) -> None:
    site.there.create(UID, ITEM)
    ledgers.opened(site.ledger, study=STUDY)
    seen = site.node._list.search({worksteps.STATE: StepState.SCHEDULED})
    site.there.change(UID, StepState.IN_PROGRESS, "6.6", performer="other")
    site.node._claim(seen[0])
    assert site.node._list.performed_by("node") == []
    assert site.looked().performer == "other"


def test_a_claim_whose_answer_was_lost_is_taken_up_again(site: Site) -> None:
    site.there.create(UID, ITEM)
    ledgers.opened(site.ledger, study=STUDY)
    (seen,) = site.node._list.search({worksteps.STATE: StepState.SCHEDULED})
    site.node._claim(seen)
    claimed = site.there.find(UID).transaction_uid
    site.started()._claim(seen)  # the process died before it knew
    assert [one.uid for one in site.node._list.performed_by("node")] == [UID]
    assert site.there.find(UID).transaction_uid == claimed


def test_a_manager_that_is_away_is_warned_about_once(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(strict=True)
    peer = Manager(url=f"http://127.0.0.1:{closed_port()}/x", timeout_s=2.0).as_destination()
    steps = ManagerWorklist(peer, Worklist(ledger.engine, is_mirror=True))
    performing = Performing(Settings(), ledger, steps)
    for _ in range(2):
        performing.look()
    assert capsys.readouterr().out.count("worklist.failed") == 1
