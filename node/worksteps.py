"""Unified Procedure Steps: what a work item may become, and what it has to say. Pure.

A work item is a data set in the JSON model of DICOM (PS3.18 F), as it came and as it goes.

References
----------
DICOM PS3.4 CC.1.1 with Table CC.1.1-2 (states and what is asked of them), CC.2.5 (attributes).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, TypeAlias

from node.work_errors import WorkitemConflictError, WorkitemInvalidError, WorkitemRefusedError

Item: TypeAlias = dict[str, Any]
"""Tag in eight hexadecimal digits -> VR and values."""

SOP_CLASS, SOP_INSTANCE = "00080016", "00080018"
TRANSACTION, STATE = "00081195", "00741000"
STUDY, SERIES = "0020000D", "0020000E"
INPUTS, OUTPUTS = "00404021", "00404033"
STARTED, ENDED = "00404050", "00404051"
PROGRESS, PERCENT, PROGRESS_TEXT = "00741002", "00741004", "00741006"
PERFORMED = "00741216"
WORKLIST_LABEL, STEP_LABEL, PRIORITY, READINESS = "00741202", "00741204", "00741200", "00404041"
REASON = "00741238"
PUSH: Final = "1.2.840.10008.5.1.4.34.6.1"
_OURS: Final = (SOP_CLASS, SOP_INSTANCE, TRANSACTION, STATE)


class StepState(StrEnum):
    """Procedure Step State (0074,1000)."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"


ENDED_STATES: Final = (StepState.COMPLETED, StepState.CANCELED)

# Table CC.1.1-2, with the right Transaction UID: status of each request that is refused.
_REFUSED: Final[dict[tuple[StepState, StepState], int]] = {
    **{(state, StepState.SCHEDULED): 0xC303 for state in StepState},
    (StepState.IN_PROGRESS, StepState.IN_PROGRESS): 0xC302,
    (StepState.COMPLETED, StepState.IN_PROGRESS): 0xC300,
    (StepState.CANCELED, StepState.IN_PROGRESS): 0xC300,
    (StepState.SCHEDULED, StepState.COMPLETED): 0xC310,
    (StepState.CANCELED, StepState.COMPLETED): 0xC300,
    (StepState.SCHEDULED, StepState.CANCELED): 0xC310,
    (StepState.COMPLETED, StepState.CANCELED): 0xC300,
}
_WORDS: Final = {
    0xC300: "it has ended and may no longer be changed",
    0xC301: "the Transaction UID is missing or not the one that it was claimed with",
    0xC302: "it is in progress already",
    0xC303: "only its creation makes it SCHEDULED",
    0xC304: "what it has to say in its final state is missing: "
    "a performed procedure with its end and its outputs",
    0xC310: "it is not yet in progress",
    0xC311: "it is completed and cannot be canceled",
}


def check_move(
    current: StepState, wanted: StepState, *, held: str | None, shown: str, item: Item
) -> bool:
    """Say whether a work item moves; False where it is there already, which is no failure.

    Parameters
    ----------
    current, wanted : StepState
        Where it stands and is to stand.
    held : str or None
        The Transaction UID that it was claimed with, None before.
    shown : str
        The one that the request shows, empty without.
    item : dict
        What it says, for its final state.

    Raises
    ------
    WorkitemConflictError
        The table refuses it; as `WorkitemRefusedError` for its Transaction UID.
    """
    if wanted is StepState.SCHEDULED:
        raise conflict(0xC303)
    if not shown or (held is not None and shown != held):
        raise refused(0xC301)
    if current is wanted and current in ENDED_STATES:
        return False
    status = _REFUSED.get((current, wanted))
    if status is not None:
        raise conflict(status)
    if wanted is StepState.COMPLETED and not _is_told(item):
        raise conflict(0xC304)
    return True


def check_update(current: StepState, *, held: str | None, shown: str) -> None:
    """Refuse a change of what a work item says; only who has claimed it may, or all before."""
    if current in ENDED_STATES:
        raise refused(0xC300)
    if current is StepState.IN_PROGRESS and shown != held:
        raise refused(0xC301)


def conflict(status: int) -> WorkitemConflictError:
    """Return the error of a status of PS3.4 CC.2 that the state is in the way of."""
    return WorkitemConflictError(status=f"0x{status:04X}", reason=_WORDS[status])


def refused(status: int) -> WorkitemRefusedError:
    """Return that of a status for which the request itself is wrong (PS3.18 11.6.3, 11.7.3)."""
    return WorkitemRefusedError(status=f"0x{status:04X}", reason=_WORDS[status])


def _is_told(item: Item) -> bool:
    performed = items_of(item, PERFORMED)
    return bool(performed) and bool(value_of(performed[0], ENDED)) and OUTPUTS in performed[0]


def created(content: Item, uid: str) -> Item:
    """Return a work item as it is kept from its creation on.

    Raises
    ------
    WorkitemInvalidError
        It names another state, a Transaction UID, or another instance.
    """
    if value_of(content, STATE) not in ("", StepState.SCHEDULED):
        raise WorkitemInvalidError(reason="its Procedure Step State is not SCHEDULED")
    if value_of(content, TRANSACTION):
        raise WorkitemInvalidError(reason="it has a Transaction UID")
    if value_of(content, SOP_INSTANCE) not in ("", uid):
        raise WorkitemInvalidError(reason="its SOP Instance UID is another than the address says")
    defaults = {
        PRIORITY: {"vr": "CS", "Value": ["MEDIUM"]},
        READINESS: {"vr": "CS", "Value": ["READY"]},
        STEP_LABEL: {"vr": "LO", "Value": ["segmentation"]},
    }
    return {**defaults, **content, **_identity(uid, StepState.SCHEDULED)}


def _identity(uid: str, state: StepState) -> Item:
    return {
        SOP_CLASS: {"vr": "UI", "Value": [PUSH]},
        SOP_INSTANCE: {"vr": "UI", "Value": [uid]},
        STATE: {"vr": "CS", "Value": [state.value]},
    }


def updated(item: Item, change: Item) -> Item:
    """Return a work item with what a request changes; what is the worklist's own stays."""
    mine = {tag: value for tag, value in change.items() if tag not in _OURS}
    return {**item, **mine}


def moved(item: Item, state: StepState) -> Item:
    """Return a work item in another state."""
    return {**item, STATE: {"vr": "CS", "Value": [state.value]}}


def study_of(item: Item) -> str:
    """Return the Study Instance UID that is to be worked on, empty where none is named."""
    for one in (item, *items_of(item, INPUTS)):
        if found := value_of(one, STUDY):
            return found
    return ""


def value_of(item: Mapping[str, Any], tag: str) -> str:
    """Return the first value of an attribute as text, empty where it has none."""
    values = item.get(tag, {}).get("Value") or [""]
    return "" if isinstance(values[0], dict) else str(values[0])


def items_of(item: Mapping[str, Any], tag: str) -> list[Item]:
    """Return the items of a sequence."""
    values = item.get(tag, {}).get("Value") or []
    return [one for one in values if isinstance(one, dict)]
