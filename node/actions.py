"""What an operator can do with a case, from wherever it is ordered.

The ledger changes here; jobs follow in the next look of `node.closing`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Final, NoReturn

from converters.sequences import SeriesKey
from converters.volume import Role
from node import series_table
from node.cases import WORKING, CaseState
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


_REOPENABLE: Final = (CaseState.REJECTED, CaseState.FAILED, CaseState.CANCELLED)
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
        Action.CANCEL: state in (CaseState.RECEIVING, CaseState.HELD, *WORKING),
        Action.CHOOSE: state in _CHANGEABLE,
    }
    return tuple(action for action, makes_sense in sensible.items() if makes_sense)


def carry_out(
    ledger: Ledger,
    case_id: str,
    action: Action,
    numbers: Mapping[Role, int],
    roles: Collection[Role],
) -> CaseRow:
    """Do what was ordered; return the case that it was done to, or the revision opened for it.

    Parameters
    ----------
    ledger : Ledger
        Of the node.
    case_id : str
        Which case.
    action : Action
        What to do.
    numbers : mapping of str to int
        For `Action.CHOOSE`: role -> number of a series in the case's own table; the others are
        left to the node.
    roles : collection of str
        The inputs of the model.

    Raises
    ------
    CaseUnknownError, CasePurgedError, ActionUnavailableError
        There is no such case, its files were deleted, or it stands where this cannot be done.
    SeriesUnknownError, SeriesTakenError, RoleUnknownError
        The choice itself cannot be.
    """
    row = ledger.case(case_id)
    if action not in offered(row):
        _refuse(row, action)
    match action:
        case Action.RETRY if row.state is CaseState.ENCODED:
            OrderBook(ledger.engine).want_haste(case_id)
        case Action.RETRY:
            return ledger.reopen(case_id)
        case Action.RELEASE:
            return ledger.release(case_id)
        case Action.CANCEL:
            ledger.end_case(case_id, ending_of(CancelledByOperatorError(), CaseState.CANCELLED))
        case Action.COMPLETE:
            ledger.request_completion(case_id)
        case Action.CHOOSE:
            return _choose(ledger, case_id, numbers, roles)
    return ledger.case(case_id)


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
