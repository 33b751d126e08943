"""The table of states of PS3.4, cell by cell."""

from __future__ import annotations

import pytest

from node import worksteps
from node.work_errors import WorkitemConflictError, WorkitemInvalidError
from node.worksteps import StepState

S, P, C, X = StepState.SCHEDULED, StepState.IN_PROGRESS, StepState.COMPLETED, StepState.CANCELED
HELD, OTHER = "1.2.3", "1.2.4"
_END = {"00404051": {"vr": "DT", "Value": ["20260101"]}, "00404033": {"vr": "SQ"}}
TOLD = {"00741216": {"vr": "SQ", "Value": [_END]}}

# PS3.4 Table CC.1.1-2, in its order: request, then SCHEDULED, IN PROGRESS, COMPLETED, CANCELED.
TABLE = [
    (P, True, ("moves", "C302", "C300", "C300")),
    (P, False, ("C301", "C301", "C301", "C301")),
    (S, True, ("C303", "C303", "C303", "C303")),
    (C, True, ("C310", "moves", "stays", "C300")),
    (C, False, ("C301", "C301", "C301", "C301")),
    (X, True, ("C310", "moves", "C300", "stays")),
    (X, False, ("C301", "C301", "C301", "C301")),
]


@pytest.mark.parametrize(
    ("wanted", "is_right", "current", "expected"),
    [
        (wanted, is_right, current, expected)
        for wanted, is_right, cells in TABLE
        for current, expected in zip((S, P, C, X), cells, strict=True)
    ],
)
def test_every_cell_of_the_table(
    wanted: StepState, current: StepState, expected: str, *, is_right: bool
) -> None:
    held = None if current is S else HELD
    for shown in (HELD,) if is_right else ("", *((OTHER,) if held else ())):
        told = _asked(current, wanted, held=held, shown=shown)
        assert told == expected


def _asked(current: StepState, wanted: StepState, *, held: str | None, shown: str) -> str:
    try:
        moved = worksteps.check_move(current, wanted, held=held, shown=shown, item=TOLD)
    except WorkitemConflictError as error:
        return str(error.evidence["status"]).removeprefix("0x")
    return "moves" if moved else "stays"


@pytest.mark.parametrize(
    "item",
    [{}, {"00741216": {"vr": "SQ", "Value": [{}]}}, {"00741216": {"vr": "SQ", "Value": "no"}}],
)
def test_what_has_not_said_its_outputs_is_not_completed(item: worksteps.Item) -> None:
    with pytest.raises(WorkitemConflictError, match="0xC304"):
        worksteps.check_move(P, C, held=HELD, shown=HELD, item=item)


@pytest.mark.parametrize(
    "content",
    [
        {"00741000": {"vr": "CS", "Value": ["IN PROGRESS"]}},
        {"00081195": {"vr": "UI", "Value": ["1.2.3"]}},
        {"00080018": {"vr": "UI", "Value": ["9.9"]}},
    ],
)
def test_a_work_item_begins_scheduled_and_unclaimed(content: worksteps.Item) -> None:
    with pytest.raises(WorkitemInvalidError):
        worksteps.created(content, "1.2")


def test_nobody_changes_what_is_the_worklists_own() -> None:
    item = worksteps.created({}, "1.2")
    change = {
        "00741000": {"vr": "CS", "Value": ["COMPLETED"]},
        "00080018": {"vr": "UI", "Value": ["9.9"]},
        "00741204": {"vr": "LO", "Value": ["other"]},
    }
    changed = worksteps.updated(item, change)
    assert changed["00741000"] == item["00741000"]
    assert changed["00080018"] == item["00080018"]
    assert worksteps.value_of(changed, "00741204") == "other"


def test_the_study_is_named_at_the_top_or_by_an_input() -> None:
    study = {"0020000D": {"vr": "UI", "Value": ["1.2.3"]}}
    assert worksteps.study_of(study) == "1.2.3"
    assert worksteps.study_of({"00404021": {"vr": "SQ", "Value": [study]}}) == "1.2.3"
    assert worksteps.study_of({}) == ""
