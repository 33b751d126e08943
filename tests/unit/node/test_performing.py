"""The node claims work items, tells how far they are, and ends each as its study ends."""

from __future__ import annotations

from typing import Any

import pytest

from node import worksteps
from node.cases import CaseState, Ending
from node.ledger import Ledger
from node.performing import Performing
from node.pull_orders import PullOrders
from node.settings import Settings
from node.workitems import Workitem, Worklist
from node.worksteps import StepState
from tests import ledgers

UID, STUDY = "1.9", "1.2.3"


def _item(**more: Any) -> worksteps.Item:  # noqa: ANN401 - elements
    study = {worksteps.STUDY: {"vr": "UI", "Value": [STUDY]}}
    return {worksteps.INPUTS: {"vr": "SQ", "Value": [study]}, **more}


class Desk:
    """A worklist with one item, and the node at work on it."""

    def __init__(self, ledger: Ledger, **settings: Any) -> None:  # noqa: ANN401 - settings
        self.ledger, self.rows = ledger, Worklist(ledger.engine)
        values = {"worklist": {"perform": True, "label": "glioma"}, **settings}
        self.performing = Performing(Settings.model_validate(values), ledger)

    def create(self, label: str = "glioma") -> None:
        """Add the item."""
        told = {worksteps.WORKLIST_LABEL: {"vr": "LO", "Value": [label]}}
        self.rows.create(UID, _item(**told))

    def looked(self) -> Workitem:
        """Return the item when the node has looked."""
        self.performing.look()
        return self.rows.find(UID)


def _progress(one: Workitem) -> tuple[str, str]:
    (told,) = worksteps.items_of(one.content, worksteps.PROGRESS)
    return worksteps.value_of(told, worksteps.PERCENT), worksteps.value_of(
        told, worksteps.PROGRESS_TEXT
    )


def test_a_study_that_is_here_is_claimed_followed_and_completed_with_its_outputs(
    ledger: Ledger,
) -> None:
    desk = Desk(ledger)
    row = ledgers.opened(ledger, study=STUDY)
    desk.create()
    one = desk.looked()
    assert (one.state, one.performer) == (StepState.IN_PROGRESS, "node")
    assert _progress(one) == ("10", "receiving")
    row = ledgers.advanced(ledger, row, CaseState.SEGMENTED)
    assert _progress(desk.looked()) == ("70", "segmented")
    result = ledgers.encoded(row)
    ledger.save_result(result, summary={})
    ledger.move(row.case_id, CaseState.DELIVERED)
    one = desk.looked()
    assert one.state is StepState.COMPLETED
    (performed,) = worksteps.items_of(one.content, worksteps.PERFORMED)
    assert worksteps.value_of(performed, worksteps.ENDED)
    (output,) = worksteps.items_of(performed, worksteps.OUTPUTS)
    assert worksteps.value_of(output, worksteps.SERIES) == result.series_instance_uid
    (reference,) = worksteps.items_of(output, "00081199")
    assert worksteps.value_of(reference, "00081155") == result.sop_instance_uid


def test_what_ends_without_a_result_is_canceled_with_its_code(ledger: Ledger) -> None:
    desk = Desk(ledger)
    row = ledgers.opened(ledger, study=STUDY)
    desk.create()
    desk.looked()
    ending = Ending(state=CaseState.REJECTED, code="GEOM_MISSING_SLICE", sentence="", advice="")
    ledger.end_case(row.case_id, ending)
    one = desk.looked()
    assert one.state is StepState.CANCELED
    assert worksteps.value_of(one.content, worksteps.REASON) == "GEOM_MISSING_SLICE"


def test_a_study_that_nobody_can_fetch_is_given_up_and_one_of_the_source_is_pulled(
    ledger: Ledger,
) -> None:
    lost = Desk(ledger)
    lost.create()
    one = lost.looked()
    assert one.state is StepState.CANCELED
    assert worksteps.value_of(one.content, worksteps.REASON) == "WORKITEM_NO_STUDY"
    source = {"transport": "qido", "url": "http://127.0.0.1:1/dicom-web"}
    Worklist(ledger.engine).create("1.10", _item())
    desk = Desk(ledger, source=source, worklist={"perform": True})
    desk.performing.look()
    assert PullOrders(ledger.engine).find(STUDY) is not None
    assert desk.rows.find("1.10").state is StepState.IN_PROGRESS


def test_a_request_to_cancel_ends_the_case_as_well(ledger: Ledger) -> None:
    desk = Desk(ledger)
    row = ledgers.opened(ledger, study=STUDY)
    desk.create()
    desk.looked()
    desk.rows.request_cancel(UID, {})
    assert desk.looked().state is StepState.CANCELED
    assert ledger.case(row.case_id).state is CaseState.CANCELLED


@pytest.mark.parametrize("label", ["other", ""])
def test_work_of_another_list_is_left_to_others(ledger: Ledger, label: str) -> None:
    desk = Desk(ledger)
    desk.create(label)
    assert desk.looked().state is StepState.SCHEDULED
