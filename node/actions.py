"""What an operator can do with a case, from wherever it is ordered.

The ledger changes here; jobs follow in the next look of `node.closing`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NoReturn

from converters.sequences import SeriesKey
from converters.volume import Role
from node import series_table
from node.cases import WORKING, CaseState, Priority
from node.disposition import ending_of
from node.errors import (
    ActionUnavailableError,
    CancelledByOperatorError,
    CasePurgedError,
    SeriesUnknownError,
)
from node.ledger import Ledger
from node.orders import OrderBook
from node.rows import CaseRow


class Action(StrEnum):
    """What can be ordered."""

    RETRY = "retry"
    RELEASE = "release"
    CANCEL = "cancel"
    COMPLETE = "complete"
    CHOOSE = "choose"
    PRIORITY = "priority"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An action with what it needs.

    `series` goes with `Action.CHOOSE`: role -> number of a series in the case's own table; the
    others are left to the node. `priority` goes with `Action.PRIORITY`.
    """

    action: Action
    series: Mapping[Role, int] = field(default_factory=dict)
    priority: Priority = Priority.NORMAL


_REOPENABLE: Final = (CaseState.REJECTED, CaseState.FAILED, CaseState.CANCELLED)
_UNDER_WAY: Final = (CaseState.RECEIVING, CaseState.HELD, *WORKING)
_CHANGEABLE: Final = (CaseState.RECEIVING, CaseState.HELD, CaseState.DELIVERED, *_REOPENABLE)


def offered(row: CaseRow) -> tuple[Action, ...]:
    """Return what makes sense of a case in its state, in the order in which it is shown."""
    if row.purged_at is not None:
        return ()
    state = row.state
    sensible = {
        Action.RELEASE: state is CaseState.HELD,
        Action.RETRY: state in (*_REOPENABLE, CaseState.ENCODED),
        Action.COMPLETE: state is CaseState.RECEIVING,
        Action.CANCEL: state in _UNDER_WAY,
        Action.CHOOSE: state in _CHANGEABLE,
        Action.PRIORITY: state in _UNDER_WAY,
    }
    return tuple(action for action, makes_sense in sensible.items() if makes_sense)


def carry_out(ledger: Ledger, case_id: str, order: Order, roles: Collection[Role] = ()) -> CaseRow:
    """Do what was ordered; return the case that it was done to, or the revision opened for it.

    Parameters
    ----------
    ledger : Ledger
        Of the node.
    case_id : str
        Which case.
    order : Order
        What to do.
    roles : collection of str
        The inputs of the model, where series are chosen.

    Raises
    ------
    CaseUnknownError, CasePurgedError, ActionUnavailableError
        There is no such case, its files were deleted, or it stands where this cannot be done.
    SeriesUnknownError, SeriesTakenError, RoleUnknownError
        The choice itself cannot be.
    """
    row, action = ledger.case(case_id), order.action
    if action not in offered(row):
        _refuse(row, action)
    match action:
        case Action.RETRY:
            return _retry(ledger, row)
        case Action.RELEASE:
            return ledger.release(case_id)
        case Action.CANCEL:
            ledger.end_case(case_id, ending_of(CancelledByOperatorError(), CaseState.CANCELLED))
        case Action.COMPLETE:
            ledger.request_completion(case_id)
        case Action.CHOOSE:
            return _choose(ledger, case_id, order.series, roles)
        case Action.PRIORITY:
            return ledger.set_priority(case_id, order.priority)
    return ledger.case(case_id)


def _retry(ledger: Ledger, row: CaseRow) -> CaseRow:
    """Start a case again where it stood; of one that is being delivered, try what waits."""
    if row.state is not CaseState.ENCODED:
        return ledger.reopen(row.case_id)
    OrderBook(ledger.engine).want_haste(row.case_id)
    return row


def _refuse(row: CaseRow, action: Action) -> NoReturn:
    if row.purged_at is not None:
        raise CasePurgedError
    can = ", ".join(offered(row)) or "nothing"
    raise ActionUnavailableError(action=action.value, state=row.state.value, can=can)


def _choose(
    ledger: Ledger, case_id: str, numbers: Mapping[Role, int], roles: Collection[Role]
) -> CaseRow:
    rows = series_table.numbered(ledger.decisions(case_id))
    by_number = {row.number: row.decision for row in rows}
    chosen = {}
    for role, number in numbers.items():
        if number not in by_number:
            raise SeriesUnknownError(role=role)
        decision = by_number[number]
        chosen[role] = SeriesKey(decision.series_instance_uid, decision.part)
    return ledger.choose_series(case_id, chosen, roles=roles)
