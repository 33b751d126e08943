"""The interface for programs: health, cases and their files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute

from converters.errors import CodedError
from node.cases import CaseState
from node.errors import (
    CaseFileAbsentError,
    CaseUnknownError,
    NotReadyError,
    RequestInvalidError,
    ResourceUnknownError,
)
from node.web import cards, downloads, health, machine, operations, pictures, query, trace, views
from node.web.cards import ModelCard
from node.web.health import Health
from node.web.machine import SystemView
from node.web.operations import Answer, Endpoint, Operation, Parameter
from node.web.query import CaseQuery
from node.web.views import CaseView, Sources

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

DEFAULT_LIMIT = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusView:
    """A word: alive or ready."""

    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BriefHealth:
    """Three words on the node; `device` is unknown where no model is loaded."""

    status: str
    model_loaded: bool
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CasesView:
    """A part of the list of cases; `total` counts the whole list."""

    cases: tuple[CaseView, ...]
    total: int
    limit: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsView:
    """The models that are served: one."""

    models: tuple[ModelCard, ...]


def _number(name: str, what: str, lowest: int, highest: int, default: int) -> Parameter:
    schema = {"type": "integer", "minimum": lowest, "maximum": highest, "default": default}
    return Parameter(name=name, place="query", what=what, schema=schema)


_STATES = Parameter(
    name="state",
    place="query",
    what="cases in one of these states; may be repeated",
    schema={"type": "array", "items": {"enum": [state.value for state in CaseState]}},
)
_KNOWN = Parameter(
    name="if-none-match",
    place="header",
    what="the etag of an answer that you have: 304 while it is still the same",
    schema={"type": "string"},
)
_UNCHANGED = Answer(what="what you have is still so", status=HTTPStatus.NOT_MODIFIED)


def as_json(content: DataclassInstance) -> Response:
    """Return a view as an answer."""
    return Response(json.dumps(asdict(content), default=_plain), media_type=operations.JSON)


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    raise TypeError(type(value).__name__)


def found_cases(sources: Sources, wanted: CaseQuery) -> tuple[list[CaseView], int]:
    """Return the cases of a query and how many there are without its limit."""
    now = datetime.now(UTC)
    rows = sources.ledger.cases(*wanted.states, limit=wanted.limit, offset=wanted.offset)
    counts = sources.ledger.counts()
    total = sum(count for state, count in counts.items() if state in (wanted.states or counts))
    return [views.case_view(sources, row, now=now) for row in rows], total


def _endpoint(
    path: str,
    endpoint: Callable[[Request], Response],
    shape: type,
    *,
    errors: tuple[type[CodedError], ...] = (),
) -> Endpoint:
    answer = Answer(what="how it stands", shape=shape)
    return Endpoint(path, endpoint, Operation(tag="node", answers=(answer,), errors=errors))


def _file_endpoint(path: str, endpoint: Callable[[Request], Response], media_type: str) -> Endpoint:
    answer = Answer(what="the file", media_type=media_type)
    errors = (CaseUnknownError, CaseFileAbsentError, ResourceUnknownError)
    return Endpoint(path, endpoint, Operation(tag="cases", answers=(answer,), errors=errors))


class Api:
    """The endpoints; plain functions, which Starlette runs in threads."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def routes(self) -> list[BaseRoute]:
        """Return where each endpoint answers."""
        case = "/api/v1/cases/{case_id}"
        list_of = (
            _STATES,
            _number("limit", "how many at most", 1, query.MAX_LIMIT, DEFAULT_LIMIT),
            _number("offset", "how many to leave out", 0, query.MAX_OFFSET, 0),
            _KNOWN,
        )
        return [
            _endpoint("/livez", self.livez, StatusView),
            _endpoint("/readyz", self.readyz, StatusView, errors=(NotReadyError,)),
            _endpoint("/health", self.brief_health, BriefHealth),
            _endpoint("/api/v1/health", self.health, Health),
            _endpoint("/api/v1/system", self.system, SystemView),
            _endpoint("/api/v1/models", self.models, ModelsView),
            Endpoint(
                "/api/v1/cases",
                self.cases,
                Operation(
                    tag="cases",
                    parameters=list_of,
                    answers=(Answer(what="a part of the list", shape=CasesView), _UNCHANGED),
                    errors=(RequestInvalidError,),
                ),
            ),
            Endpoint(
                case,
                self.case,
                Operation(
                    tag="cases",
                    parameters=(_KNOWN,),
                    answers=(Answer(what="all that is known", shape=CaseView), _UNCHANGED),
                    errors=(CaseUnknownError,),
                ),
            ),
            _file_endpoint(f"{case}/{downloads.PREVIEW}", self.preview, "image/png"),
            _file_endpoint(f"{case}/pictures/{{name}}", self.picture, "image/png"),
            _file_endpoint(f"{case}/files/{{name}}", self.file, "application/octet-stream"),
            Endpoint(
                f"{case}/{downloads.LOG}",
                self.log,
                Operation(
                    tag="cases",
                    answers=(Answer(what="JSON Lines", media_type=downloads.JSON_LINES),),
                    errors=(CaseUnknownError,),
                ),
            ),
        ]

    def livez(self, _: Request) -> Response:
        """Answer while the process runs."""
        return as_json(StatusView(status="alive"))

    def readyz(self, _: Request) -> Response:
        """Answer 200 when a study sent now would be segmented, 503 with what is missing otherwise.

        Raises
        ------
        NotReadyError
            A required role is not alive, or the model is not loaded.
        """
        missing = self._health().missing
        if missing:
            raise NotReadyError(missing=", ".join(missing))
        return as_json(StatusView(status="ready"))

    def health(self, _: Request) -> Response:
        """Answer the node's state, model, device and queue."""
        return as_json(self._health())

    def brief_health(self, _: Request) -> Response:
        """Answer in three words, as programs that ask plain serving code for its health expect."""
        state = self._health()
        return as_json(
            BriefHealth(
                status="healthy" if state.status == "ok" else state.status,
                model_loaded=state.model_loaded,
                device=state.device or "unknown",
            )
        )

    def _health(self) -> Health:
        sources = self._sources
        return health.read(sources.ledger, sources.manifest, sources.settings.jobs, sources.spool)

    def system(self, _: Request) -> Response:
        """Answer which processes live, what fills the disk, what waits, how destinations stand."""
        return as_json(machine.read(self._sources))

    def models(self, _: Request) -> Response:
        """Answer what each model that is served takes and gives, the first one first."""
        return as_json(ModelsView(models=cards.cards(self._sources)))

    def cases(self, request: Request) -> Response:
        """Answer cases, newest first."""
        wanted = query.case_query(request.query_params, default_limit=DEFAULT_LIMIT)
        found, total = found_cases(self._sources, wanted)
        part = {"total": total, "limit": wanted.limit, "offset": wanted.offset}
        response = as_json(CasesView(cases=tuple(found), **part))
        response.headers.update(operations.neighbours(request, **part))
        return operations.tagged(request, response)

    def case(self, request: Request) -> Response:
        """Answer one case."""
        row = self._sources.ledger.case(query.case_id_of(request))
        view = views.case_view(self._sources, row, now=datetime.now(UTC))
        return operations.tagged(request, as_json(view))

    def preview(self, request: Request) -> Response:
        """Answer the picture of a case, to be shown in a page."""
        return self._file_of(request, downloads.PREVIEW, disposition="inline")

    def picture(self, request: Request) -> Response:
        """Answer a picture of a case's summary, to be shown in a page.

        Raises
        ------
        ResourceUnknownError
            The name is not that of a picture.
        """
        name = str(request.path_params["name"])
        if name not in pictures.known(self._sources.roles):
            raise ResourceUnknownError
        return self._file_of(request, name, disposition="inline")

    def file(self, request: Request) -> Response:
        """Answer a file of a case, to be saved.

        Raises
        ------
        ResourceUnknownError
            The name is not on the list of files that are given out.
        """
        name = str(request.path_params["name"])
        media_type = downloads.files_of(self._sources.roles).get(name)
        if media_type is None:
            raise ResourceUnknownError
        return self._file_of(request, name, media_type, disposition="attachment")

    def log(self, request: Request) -> Response:
        """Answer what was tried for a case and what came of it, first to last, to be saved."""
        row = self._sources.ledger.case(query.case_id_of(request))
        name = f"neuroseg-{row.case_id[: views.SHORT_ID_LENGTH]}-{downloads.LOG}"
        lines = trace.lines(self._sources.ledger, row)
        return Response(
            "".join(f"{json.dumps(one, default=_plain)}\n" for one in lines),
            media_type=downloads.JSON_LINES,
            headers={"content-disposition": f'attachment; filename="{name}"'},
        )

    def _file_of(
        self, request: Request, name: str, media_type: str = "image/png", *, disposition: str
    ) -> Response:
        row = self._sources.ledger.case(query.case_id_of(request))
        path = downloads.case_file(self._sources.spool, row.case_id, name)
        if not path.is_file():
            raise CaseFileAbsentError(name=name)
        return FileResponse(
            path,
            media_type=media_type,
            filename=f"neuroseg-{row.case_id[: views.SHORT_ID_LENGTH]}-{name}",
            content_disposition_type=disposition,
            stat_result=path.stat(),
        )
