"""What operators order by HTTP: from a program as JSON, from a page as a form.

An order that comes again under its `Idempotency-Key` is the same order: it is not carried out a
second time, and the answer shows the case as it is now.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from converters.errors import CodedError
from converters.volume import Role
from node import actions, logs
from node.actions import Action, Order
from node.cases import Priority
from node.door_errors import OrderKeyReusedError
from node.errors import (
    ActionUnavailableError,
    CasePurgedError,
    CaseUnknownError,
    RequestInvalidError,
    RoleUnknownError,
    SeriesTakenError,
    SeriesUnknownError,
)
from node.ledger import Ledger
from node.orders import OrderBook
from node.rows import CaseRow
from node.web import query, views
from node.web.api import as_json
from node.web.body import Body
from node.web.operations import JSON, Answer, Endpoint, Operation, Parameter
from node.web.views import CaseView, Sources

_LONGEST_BODY: Final = 16384
_BODY_S: Final = 15.0
_KEY: Final = re.compile(r"[\x21-\x7e]{1,64}")
_KEY_PARAMETER: Final = Parameter(
    name="idempotency-key",
    place="header",
    what="1 to 64 visible characters; a repeat under the same key within a day changes nothing",
    schema={"type": "string", "pattern": r"^[\x21-\x7e]{1,64}$"},
)
_WHAT: Final = {
    Action.RETRY: "Start a failed, rejected or cancelled case again; try waiting deliveries now.",
    Action.RELEASE: "Deliver a result that is held until somebody has looked at it.",
    Action.CANCEL: "Stop a case; what it has received stays.",
    Action.COMPLETE: "Close a case that still receives with what there is.",
    Action.CHOOSE: "Say which series serves which role; the rest is left to the node.",
    Action.PRIORITY: "Say whose turn comes first; it holds from the next stage on.",
}
_BODIES: Final[Mapping[Action, tuple[str, Mapping[str, Any]]]] = {
    Action.CHOOSE: (
        "series",
        {"type": "object", "additionalProperties": {"type": "integer", "minimum": 1}},
    ),
    Action.PRIORITY: ("priority", {"enum": [one.value for one in Priority]}),
}


class Orders:
    """The endpoints, one for each action, for programs and for pages.

    Parameters
    ----------
    sources : Sources
        What the web role reads from.
    ledger : Ledger
        Where orders are carried out.
    """

    def __init__(self, sources: Sources, ledger: Ledger) -> None:
        self._sources, self._ledger = sources, ledger
        self._book = OrderBook(ledger.engine)

    def routes(self) -> list[BaseRoute]:
        """Return where programs order."""
        case = "/api/v1/cases/{case_id}"
        return [
            Endpoint(f"{case}/{action}", self._endpoint(action), _operation(action))
            for action in Action
        ]

    def pages(self) -> list[BaseRoute]:
        """Return where the forms of a case's page are sent to."""
        return [
            Route(
                f"/cases/{{case_id}}/{action}", partial(self._from_form, action), methods=["POST"]
            )
            for action in Action
        ]

    def _endpoint(self, action: Action) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        async def order(request: Request) -> Response:
            key = _key_of(request)
            wanted = Order(action=action)
            if action in _BODIES:
                wanted = _from_json(action, await body_of(request))
            row, is_new = await run_in_threadpool(self._order, request, wanted, key)
            view = await run_in_threadpool(self._view, row)
            answer = as_json(view)
            if not is_new:
                answer.headers["idempotency-replayed"] = "true"
            return answer

        return order

    async def _from_form(self, action: Action, request: Request) -> Response:
        fields = parse_qs((await body_of(request)).decode("utf-8", "replace"), max_num_fields=20)
        said = {name: values[0] for name, values in fields.items()}
        if action is Action.PRIORITY:
            wanted = Order(action=action, priority=_priority(said.get("priority")))
        else:
            numbers = {role: _number(text) for role, text in said.items()}
            wanted = Order(action=action, series=numbers)
        row, _ = await run_in_threadpool(self._order, request, wanted, "")
        return RedirectResponse(f"/cases/{row.case_id}", HTTPStatus.SEE_OTHER.value)

    def _order(self, request: Request, order: Order, key: str) -> tuple[CaseRow, bool]:
        """Carry an order out once; return its case and whether this was the first time."""
        case_id = query.case_id_of(request)
        principal = request.state.principal
        own_key = f"{principal.name}/{key}"
        said = order.priority if order.action is Action.PRIORITY else sorted(order.series.items())
        content = json.dumps([case_id, order.action, said])
        if key and not self._book.note(own_key, content):
            return self._ledger.case(case_id), False
        try:
            row = actions.carry_out(self._ledger, case_id, order, self._sources.roles)
        except CodedError:
            if key:
                self._book.forget(own_key)
            raise
        logs.get().info("case.ordered", case_id=case_id, kind=order.action.value)
        return row, True

    def _view(self, row: CaseRow) -> CaseView:
        return views.case_view(self._sources, row, now=datetime.now(UTC))


def _operation(action: Action) -> Operation:
    is_choice = action is Action.CHOOSE
    choice_errors = (RoleUnknownError, SeriesTakenError, SeriesUnknownError) if is_choice else ()
    body = None
    if action in _BODIES:
        name, schema = _BODIES[action]
        whole = {"type": "object", "required": [name], "properties": {name: schema}}
        body = {JSON: {"schema": whole}}
    return Operation(
        tag="cases",
        method="POST",
        what=_WHAT[action],
        parameters=(_KEY_PARAMETER,),
        body=body,
        answers=(Answer(what="the case after it, or the revision opened for it", shape=CaseView),),
        errors=(
            CaseUnknownError,
            RequestInvalidError,
            ActionUnavailableError,
            CasePurgedError,
            OrderKeyReusedError,
            *choice_errors,
        ),
    )


def _key_of(request: Request) -> str:
    key = request.headers.get("idempotency-key", "")
    if key and not _KEY.fullmatch(key):
        raise RequestInvalidError(
            parameter="Idempotency-Key", expected="1 to 64 visible characters"
        )
    return key


async def body_of(request: Request) -> bytes:
    """Return the body of a request, which is short."""
    body = await Body(request, silence_s=_BODY_S, patience_s=_BODY_S).whole(_LONGEST_BODY)
    if body is None:
        raise RequestInvalidError(parameter="body", expected=f"{_LONGEST_BODY} bytes at most")
    return body


def _from_json(action: Action, body: bytes) -> Order:
    """Return the order of a body such as ``{"series": {"t1gd": 4}}``."""
    name, _ = _BODIES[action]
    expected = f"a JSON object with {name}"
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestInvalidError(parameter="body", expected=expected) from error
    if not isinstance(content, dict) or name not in content:
        raise RequestInvalidError(parameter="body", expected=expected)
    if action is Action.PRIORITY:
        return Order(action=action, priority=_priority(content[name]))
    return Order(action=action, series=_numbers_of(content[name]))


def _priority(value: object) -> Priority:
    if not isinstance(value, str) or value not in list(Priority):
        raise RequestInvalidError(parameter="priority", expected=f"one of {', '.join(Priority)}")
    return Priority(value)


def _numbers_of(series: object) -> dict[Role, int]:
    expected = 'such as {"series": {"t1gd": 4}}'
    if not isinstance(series, dict) or not all(map(_is_whole, series.values())):
        raise RequestInvalidError(parameter="body", expected=expected)
    return {role: int(number) for role, number in series.items()}


def _is_whole(number: object) -> bool:
    """Say whether a value is an integer as JSON Schema means it: 4.0 is one, true is none."""
    if isinstance(number, float):
        return number.is_integer()
    return isinstance(number, int) and not isinstance(number, bool)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 5):  # noqa: PLR2004 - no such table
        raise RequestInvalidError(parameter="series", expected="the number of a series")
    return int(text)
