"""Any slice of a result as a picture, and the labels over it.

Nothing is kept in memory: a slice is cut out of a mapped file and encoded in milliseconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from converters import planes, slice_views
from converters.planes import View
from node import slices
from node.errors import CaseFileAbsentError, CaseUnknownError, RequestInvalidError
from node.slices import Kept
from node.web import downloads, query
from node.web.operations import Answer, Endpoint, Operation, Parameter
from node.web.views import Sources

_PNG: Final = "image/png"
_SEQUENCE: Final = Parameter(
    name="sequence",
    place="query",
    what="one of those that the case says under `slices`; else the first of them",
    schema={"type": "string"},
)
_LABEL: Final = Parameter(
    name="label",
    place="query",
    what="number of a label to draw; may be repeated, and without any all are drawn",
    schema={"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}},
)
_KNOWN: Final = Parameter(
    name="if-none-match",
    place="header",
    what="the etag of a picture that you have: 304 while it is still the same",
    schema={"type": "string"},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """A slice that is there."""

    kept: Kept
    layers: NDArray[np.uint8]
    view: View
    number: int


class Slices:
    """The endpoints; plain functions, which Starlette runs in threads."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def routes(self) -> list[BaseRoute]:
        """Return where pictures of slices answer."""
        one = "/api/v1/cases/{case_id}/slices/{view}/{number}"
        return [
            Endpoint(one, self.grey, _operation(_SEQUENCE)),
            Endpoint(f"{one}/labels", self.labels, _operation(_LABEL)),
        ]

    def grey(self, request: Request) -> Response:
        """Answer one slice of a sequence in grey: the patient's right, or front, is on the left."""

        def draw(one: _Wanted) -> bytes:
            roles = one.kept.layout.roles
            role = request.query_params.get("sequence", roles[0])
            if role not in roles:
                raise RequestInvalidError(
                    parameter="sequence", expected=f"one of {', '.join(roles)}"
                )
            layer = one.layers[roles.index(role)]
            return slice_views.grey_png(layer, one.kept.layout, one.view, one.number)

        return self._answered(request, draw)

    def labels(self, request: Request) -> Response:
        """Answer the labels in one slice, to be laid over it: transparent where there are none."""

        def draw(one: _Wanted) -> bytes:
            wanted = [_label(text) for text in request.query_params.getlist("label")]
            colors = {
                label.number: label.color_rgb
                for label in one.kept.labels
                if not wanted or label.number in wanted
            }
            return slice_views.labels_png(
                one.layers[-1], one.kept.layout, one.view, one.number, colors
            )

        return self._answered(request, draw)

    def _answered(self, request: Request, draw: Callable[[_Wanted], bytes]) -> Response:
        row = self._sources.ledger.case(query.case_id_of(request))
        path = downloads.case_file(self._sources.spool, row.case_id, slices.FILE_NAME)
        kept = slices.of(row.summary)
        layers = None if kept is None else slices.layers(path, kept.layout)
        if kept is None or layers is None:
            raise CaseFileAbsentError(name=slices.FILE_NAME)
        view, number = _place(request, kept)
        tag = _tag(request, path)
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=HTTPStatus.NOT_MODIFIED.value, headers={"etag": tag})
        content = draw(_Wanted(kept=kept, layers=layers, view=view, number=number))
        return Response(content, media_type=_PNG, headers={"etag": tag})


def _operation(parameter: Parameter) -> Operation:
    unchanged = Answer(what="what you have is still so", status=HTTPStatus.NOT_MODIFIED)
    return Operation(
        tag="cases",
        parameters=(parameter, _KNOWN),
        answers=(Answer(what="the picture", media_type=_PNG), unchanged),
        errors=(CaseUnknownError, CaseFileAbsentError, RequestInvalidError),
    )


def _tag(request: Request, path: Path) -> str:
    said = f"{path.stat().st_mtime_ns} {request.url.path}?{request.url.query}"
    return f'"{hashlib.sha256(said.encode()).hexdigest()[:32]}"'


def _place(request: Request, kept: Kept) -> tuple[View, int]:
    """Return view and number of the address.

    Raises
    ------
    RequestInvalidError
        There is no such slice.
    """
    found = str(request.path_params["view"])
    view = next((one for one in planes.VIEWS if one == found), None)
    if view is None:
        raise RequestInvalidError(parameter="view", expected=f"one of {', '.join(planes.VIEWS)}")
    number, count = str(request.path_params["number"]), kept.layout.count(view)
    if not query.SLICE_NUMBER.fullmatch(number) or int(number) > count:
        raise RequestInvalidError(parameter="number", expected=f"a whole number from 1 to {count}")
    return view, int(number)


def _label(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 4):  # noqa: PLR2004 - up to 255
        raise RequestInvalidError(parameter="label", expected="the number of a label")
    return int(text)
