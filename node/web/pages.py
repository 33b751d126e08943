"""The pages for people: what the node does, and what became of each case."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from converters.errors import CodedError
from node.access import is_loopback
from node.cases import FINAL, WORKING, CaseState
from node.deliver import asking
from node.deliver.asking import Answer
from node.prediction_queue import PredictionQueue
from node.settings import Receive
from node.web import api, cards, formats, health, leafing, machine, query, views
from node.web.query import CaseQuery
from node.web.views import CaseView, Sources

PAGE_LENGTH = 25
_TEMPLATES = Path(__file__).parent / "templates"
FILTERS = (
    ("All", ()),
    ("In progress", (CaseState.RECEIVING, *WORKING)),
    ("Delivered", (CaseState.DELIVERED,)),
    ("Needs attention", (CaseState.REJECTED, CaseState.FAILED, CaseState.HELD)),
)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(formats.FILTERS)
    return environment


class Pages:
    """The endpoints; plain functions, which Starlette runs in threads."""

    def __init__(self, sources: Sources, queue: PredictionQueue) -> None:
        self._sources, self._queue = sources, queue
        self.templates = _environment()

    def routes(self) -> list[BaseRoute]:
        """Return where each page answers."""
        return [
            Route("/", self.status),
            Route("/cases/{case_id}", self.case),
            Route("/system", self.system),
            Route("/models", self.models),
        ]

    def status(self, request: Request) -> Response:
        """Answer the status page."""
        wanted = query.case_query(request.query_params, default_limit=PAGE_LENGTH)
        cases, total = api.found_cases(self._sources, wanted)
        return self._list(request, wanted, cases, total=total)

    def found(self, request: Request, cases: Sequence[CaseView], *, is_cut: bool) -> Response:
        """Answer the same page with what a search has found; it does not say what was searched."""
        everything = query.CaseQuery(states=(), limit=PAGE_LENGTH, offset=0)
        return self._list(
            request, everything, cases, total=len(cases), found="cut" if is_cut else "whole"
        )

    def _list(
        self,
        request: Request,
        wanted: CaseQuery,
        cases: Sequence[CaseView],
        *,
        total: int,
        found: str = "",
    ) -> Response:
        settings = self._sources.settings
        host = _reachable(settings.receive.host, request)
        return self._render(
            "status.html",
            cases=cases,
            total=total,
            query=wanted,
            filters=self._filters(),
            predictions=self._queue.open_rows(),
            found=found,
            now=datetime.now(UTC),
            may_act=request.state.principal.role.may("POST", "/search"),
            is_filtered=bool(wanted.states or wanted.offset or found),
            receive=settings.receive,
            receive_host=host,
            is_alone=is_loopback(settings.receive.host),
            commands=_commands(settings.receive, host),
            destinations=settings.destinations,
        )

    def _filters(self) -> list[tuple[str, tuple[CaseState, ...], int]]:
        counts = self._sources.ledger.counts()
        return [
            (name, states, sum(counts[state] for state in states or counts))
            for name, states in FILTERS
        ]

    def case(self, request: Request) -> Response:
        """Answer the page of one case."""
        row = self._sources.ledger.case(query.case_id_of(request))
        case = views.case_view(self._sources, row, now=datetime.now(UTC))
        return self._render(
            "case.html",
            case=case,
            leafed=case.slices and leafing.opened(case.slices, request.query_params),
            is_final=row.state in FINAL,
            may_act=request.state.principal.role.may("POST", request.url.path),
        )

    def system(self, request: Request, answer: Answer | None = None) -> Response:
        """Answer the page of the node itself, with what a destination has just answered."""
        return self._render(
            "system.html",
            system=machine.read(self._sources),
            answer=answer,
            answers=asking.ANSWERS,
            may_act=request.state.principal.role.may("POST", "/destinations"),
        )

    def models(self, request: Request) -> Response:
        """Answer the page of a model that is served, of the first one where none is named."""
        every = cards.cards(self._sources)
        wanted = request.query_params.get("model")
        card = next((one for one in every if one.id == wanted), every[0])
        return self._render("models.html", card=card, cards=every)

    def _render(self, template: str, **values: object) -> Response:
        sources = self._sources
        state = health.read(sources.ledger, sources.manifest, sources.settings.jobs, sources.spool)
        page = self.templates.get_template(template).render(
            health=state,
            roles=health.roles(state, sources.settings.jobs),
            model=sources.manifest,
            **values,
        )
        return HTMLResponse(page)

    def error(self, error: CodedError, status: HTTPStatus) -> Response:
        """Return the page of an error; it reads nothing, since the ledger may be the cause."""
        template = self.templates.get_template("error.html")
        page = template.render(error=error, sentence=str(error), status=status)
        return HTMLResponse(page, status.value)


def _reachable(bound: str, request: Request) -> str:
    """Return what to write for a host that is bound to every address: how the reader got here."""
    is_everywhere = bound in {"0.0.0.0", "::"}  # noqa: S104 - compared with, not listened on
    return request.url.hostname or bound if is_everywhere else bound


def _commands(receive: Receive, host: str) -> dict[str, str]:
    """Return what sends a study, by program; quoted, since an AE title may hold blanks."""
    address = ("-aec", receive.ae_title, host, str(receive.port))
    modality = json.dumps([receive.ae_title, host, receive.port])
    orthanc = "http://127.0.0.1:8042/modalities/neuroseg"
    return {
        "DCMTK": "\n".join(
            (
                shlex.join(("echoscu", *address)),
                shlex.join(("storescu", "+sd", "+r", *address, "path/to/study")),
            )
        ),
        "Orthanc": "\n".join(
            (
                shlex.join(("curl", "-X", "PUT", orthanc, "-d", modality)),
                shlex.join(("curl", "-X", "POST", f"{orthanc}/echo", "-d", "{}")),
                shlex.join(("curl", "-X", "POST", f"{orthanc}/store", "-d", "ORTHANC-STUDY-ID")),
            )
        ),
    }
