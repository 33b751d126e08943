"""Which moves a case may make: the table, written a second time."""

from __future__ import annotations

import itertools

import pytest

from node import cases
from node.cases import CaseState
from node.errors import IllegalTransitionError

STOPS = "rejected failed cancelled superseded"
RESUMES = "receiving complete assembled segmented encoded held superseded"
LEGAL = {
    "receiving": f"complete {STOPS}",
    "complete": f"assembled {STOPS}",
    "assembled": f"segmented {STOPS}",
    "segmented": f"encoded held {STOPS}",
    "encoded": f"delivered {STOPS}",
    "held": f"encoded {STOPS}",
    "delivered": "superseded",
    "rejected": RESUMES,
    "failed": RESUMES,
    "cancelled": RESUMES,
    "superseded": "",
}
PAIRS = list(itertools.product(CaseState, CaseState))


@pytest.mark.parametrize(
    ("current", "wanted"), [pair for pair in PAIRS if pair[1].value in LEGAL[pair[0].value].split()]
)
def test_a_legal_move_is_allowed(current: CaseState, wanted: CaseState) -> None:
    cases.check_move(current, wanted)


@pytest.mark.parametrize(
    ("current", "wanted"),
    [pair for pair in PAIRS if pair[1].value not in LEGAL[pair[0].value].split()],
)
def test_an_illegal_move_is_refused_with_both_states(current: CaseState, wanted: CaseState) -> None:
    with pytest.raises(IllegalTransitionError) as caught:
        cases.check_move(current, wanted)
    assert caught.value.evidence == {"current": current.value, "wanted": wanted.value}


def test_a_case_is_worked_on_or_ended_or_waits_for_images_or_a_person() -> None:
    waiting = {CaseState.RECEIVING, CaseState.HELD}
    assert {*waiting, *cases.WORKING, *cases.FINAL} == set(CaseState)
    assert not set(cases.WORKING) & set(cases.FINAL)


def test_wherever_a_case_can_stop_it_can_go_on_from_there() -> None:
    for stood, stopped in itertools.product(
        (CaseState.RECEIVING, *cases.WORKING, CaseState.HELD),
        (CaseState.REJECTED, CaseState.FAILED, CaseState.CANCELLED),
    ):
        cases.check_move(stood, stopped)
        cases.check_move(stopped, stood)
