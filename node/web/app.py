"""The web role: status page and interface; of cases for reading only."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from converters.errors import CodedError
from inference.manifest import Manifest
from node import logs, model_set
from node.access import Gate
from node.audit import AuditTrail
from node.errors import LedgerUnreadableError, UnforeseenError
from node.ledger import Ledger
from node.prediction_queue import PredictionQueue
from node.rates import Rates
from node.receive.instance import Intake
from node.settings import Settings
from node.spool import Spool
from node.web import guard, problems
from node.web.api import Api
from node.web.changes import Changes
from node.web.echoes import Echoes
from node.web.guard import Guard, Hosts
from node.web.login import Login
from node.web.metrics import Metrics
from node.web.openapi import Description
from node.web.orders import Orders
from node.web.pages import Pages
from node.web.predict import Predict
from node.web.predictions import Predictions
from node.web.pulls import Pulls
from node.web.search import Search
from node.web.slices import Slices
from node.web.stow import Stow
from node.web.trail import Trail
from node.web.views import Sources
from node.web.worklist import Worklist
from node.workitems import Worklist as Rows

_FOR_PROGRAMS = (
    *("/api/", "/dicom-web/", "/openapi.json"),
    *("/health", "/livez", "/readyz", "/metrics"),
)


def create_app(
    ledger: Ledger,
    spool: Spool,
    settings: Settings,
    manifest: Manifest,
    intake: Intake,
    gate: Gate,
) -> Starlette:
    """Return the ASGI application; it needs neither model nor job engine.

    What operators order changes the ledger; jobs follow in another role. Predictions of uploaded
    files are queued for the infer role, and instances that come by STOW-RS are taken in as those
    are that come by C-STORE.
    """
    further = model_set.further(settings)
    sources = Sources(
        ledger=ledger, spool=spool, settings=settings, manifest=manifest, further=further
    )
    queue = PredictionQueue(ledger.engine)
    pages = Pages(sources, queue)
    trail = Trail(AuditTrail(spool.root, settings.jobs.executor_id("web")))
    login = Login(gate, pages.templates, trail)
    pages.templates.globals["is_shut"] = gate.is_shut
    handler = _ErrorHandler(pages, login)
    static = StaticFiles(directory=Path(__file__).parent / "static")
    orders, search = Orders(sources, ledger), Search(sources, pages)
    echoes = Echoes(sources, pages)
    endpoints = [
        *Api(sources).routes(),
        *Changes(sources, queue).routes(),
        *echoes.routes(),
        *orders.routes(),
        *Metrics(sources).routes(),
        *Predict(sources, queue).routes(),
        *Predictions(sources, queue).routes(),
        *Pulls(sources, ledger).routes(),
        *search.routes(),
        *Slices(sources).routes(),
        *(Stow(intake, settings.stow).routes() if settings.stow.enabled else ()),
        *(Worklist(Rows(ledger.engine)).routes() if settings.worklist.enabled else ()),
    ]
    description = Description(endpoints, pages.templates)
    return Starlette(
        routes=[
            *endpoints,
            *description.routes(),
            *pages.routes(),
            *echoes.pages(),
            *orders.pages(),
            *search.pages(),
            *login.routes(),
            Mount("/static", static),
        ],
        middleware=[
            Middleware(
                Guard,
                hosts=Hosts(settings.web.host, settings.web.host_names),
                gate=gate,
                trail=trail,
                refuse=handler.refuse,
                rates=Rates(settings.web.requests_per_minute),
            )
        ],
        exception_handlers={
            CodedError: handler.answer,
            HTTPException: handler.answer,
            SQLAlchemyError: handler.answer,
            Exception: handler.answer,
        },
    )


class _ErrorHandler:
    """Turns whatever a request ended with into a problem document or a page."""

    def __init__(self, pages: Pages, login: Login) -> None:
        self._pages, self._login = pages, login

    def answer(self, request: Request, error: Exception) -> Response:
        """Return the answer for an error, and log the ones that somebody must look at."""
        coded = problems.coded(error)
        status = problems.status_of(coded)
        if isinstance(coded, (UnforeseenError, LedgerUnreadableError)):
            logs.get().error(
                "request.failed", code=coded.code, sentence=str(coded), status=status.value
            )
        path = request.url.path
        if path.startswith(_FOR_PROGRAMS):
            response = problems.problem(coded)
        else:
            response = self._pages.error(coded, status)
        if isinstance(error, HTTPException) and error.headers is not None:
            response.headers.update(error.headers)
        # An unforeseen error is answered outside of the guard, so that it adds them here.
        guard.secure(response.headers, path)
        return response

    def refuse(self, path: str, error: CodedError) -> Response:
        """Return the answer for somebody who is not let in: people are asked who they are."""
        status = problems.status_of(error)
        if path.startswith(_FOR_PROGRAMS):
            response = problems.problem(error)
        elif status is HTTPStatus.UNAUTHORIZED:
            response = self._login.page(status)
        else:
            response = self._pages.error(error, status)
        if status is HTTPStatus.UNAUTHORIZED:
            response.headers["www-authenticate"] = "Bearer"
        return response
