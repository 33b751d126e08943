"""What an endpoint takes and answers, said beside its route: the interface's description in parts.

`node.web.openapi` makes the document of it, so that what is described is what is routed.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from converters.errors import CodedError

JSON: Final = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter of a request; `schema` is JSON Schema."""

    name: str
    place: Literal["query", "header"]
    what: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a request ends with when all is well.

    `shape` is the dataclass whose fields the JSON has; None where the answer is a file. An answer
    without a `media_type` has no body.
    """

    what: str
    shape: type | None = None
    media_type: str = JSON
    status: HTTPStatus = HTTPStatus.OK


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one endpoint; `what` replaces the first line of the endpoint's docstring.

    `errors` are those that the endpoint itself may end with; those that every one may end with
    (`problems`) are added by the document.
    """

    tag: str
    answers: Sequence[Answer]
    method: str = "GET"
    what: str = ""
    parameters: Sequence[Parameter] = ()
    body: Mapping[str, Any] | None = None
    errors: Sequence[type[CodedError]] = field(default=())


class Endpoint(Route):
    """A route that says what it takes and answers.

    Parameters
    ----------
    path, endpoint
        As of `starlette.routing.Route`.
    operations : Operation
        One for each method.
    """

    def __init__(
        self, path: str, endpoint: Callable[[Request], Any], *operations: Operation
    ) -> None:
        super().__init__(path, endpoint, methods=[one.method for one in operations])
        self.operations = operations

    def summary(self, operation: Operation) -> str:
        """Return what an operation does, in a line."""
        first = (inspect.getdoc(self.endpoint) or "").partition("\n")[0]
        return operation.what or first


def neighbours(request: Request, total: int, limit: int, offset: int) -> dict[str, str]:
    """Return the header that leads to the next and the previous part of a list (RFC 8288)."""
    offsets = {}
    if offset + limit < total:
        offsets["next"] = offset + limit
    if offset > 0:
        offsets["prev"] = max(offset - limit, 0)
    links = []
    for relation, at in offsets.items():
        url = request.url.include_query_params(offset=at, limit=limit)
        links.append(f'<{url.path}?{url.query}>; rel="{relation}"')
    return {"link": ", ".join(links)} if links else {}


def tagged(request: Request, response: Response) -> Response:
    """Return an answer with its entity tag, or 304 where the client has just that (RFC 9110)."""
    tag = f'"{hashlib.sha256(bytes(response.body)).hexdigest()[:32]}"'
    response.headers["etag"] = tag
    known = request.headers.get("if-none-match", "")
    if known.strip() == "*" or tag in (one.strip().removeprefix("W/") for one in known.split(",")):
        return Response(status_code=HTTPStatus.NOT_MODIFIED.value, headers={"etag": tag})
    return response
