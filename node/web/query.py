"""What a request asks for, checked before anything is looked up."""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.datastructures import QueryParams
from starlette.requests import Request

from node.cases import CaseState
from node.errors import CaseUnknownError, PredictionUnknownError, RequestInvalidError

MAX_LIMIT = 200
MAX_OFFSET = 10_000_000
SLICE_NUMBER = re.compile(r"[1-9][0-9]{0,4}")

_ID = re.compile(r"[0-9a-f]{32}")
_DIGITS = re.compile(r"[0-9]{1,8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseQuery:
    """Which cases are wanted, newest first; no state means all of them."""

    states: tuple[CaseState, ...]
    limit: int
    offset: int


def case_id_of(request: Request) -> str:
    """Return the case id of the address.

    Raises
    ------
    CaseUnknownError
        It is not 32 hexadecimal digits, so that no such case can exist.
    """
    case_id = str(request.path_params["case_id"])
    if not _ID.fullmatch(case_id):
        raise CaseUnknownError
    return case_id


def prediction_id_of(request: Request) -> str:
    """Return the prediction id of the address.

    Raises
    ------
    PredictionUnknownError
        It is not 32 hexadecimal digits, so that no such prediction can exist.
    """
    prediction_id = str(request.path_params["prediction_id"])
    if not _ID.fullmatch(prediction_id):
        raise PredictionUnknownError
    return prediction_id


def case_query(params: QueryParams, *, default_limit: int) -> CaseQuery:
    """Return the checked form of ``state`` (repeatable), ``limit`` and ``offset``.

    Raises
    ------
    RequestInvalidError
        A value is not a state, or not a number within its bounds.
    """
    return CaseQuery(
        states=tuple(dict.fromkeys(_state(value) for value in params.getlist("state"))),
        limit=_number(params, "limit", default_limit, 1, MAX_LIMIT),
        offset=_number(params, "offset", 0, 0, MAX_OFFSET),
    )


def _state(value: str) -> CaseState:
    try:
        return CaseState(value)
    except ValueError as error:
        allowed = ", ".join(state.value for state in CaseState)
        raise RequestInvalidError(parameter="state", expected=f"one of {allowed}") from error


def _number(params: QueryParams, name: str, default: int, lowest: int, highest: int) -> int:
    value = params.get(name, str(default))
    # int() would also take signs, blanks, underscores and digits of other scripts.
    if not _DIGITS.fullmatch(value) or not lowest <= int(value) <= highest:
        raise RequestInvalidError(
            parameter=name, expected=f"a whole number from {lowest} to {highest}"
        )
    return int(value)
