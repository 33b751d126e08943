"""The web role: status page and interface; of cases for reading only."""

from __future__ import annotations

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
from node import logs
from node.errors import LedgerUnreadableError, UnforeseenError
from node.prediction_queue import PredictionQueue
from node.reading import LedgerReader
from node.receive.instance import Intake
from node.settings import Settings
from node.spool import Spool
from node.web import guard, problems
from node.web.api import Api
from node.web.guard import Guard, Hosts
from node.web.metrics import Metrics
from node.web.openapi import Description
from node.web.pages import Pages
from node.web.predict import Predict
from node.web.predictions import Predictions
from node.web.stow import Stow
from node.web.views import Sources

_FOR_PROGRAMS = (
    *("/api/", "/dicom-web/", "/openapi.json"),
    *("/health", "/livez", "/readyz", "/metrics"),
)


def create_app(
    ledger: LedgerReader, spool: Spool, settings: Settings, manifest: Manifest, intake: Intake
) -> Starlette:
    """Return the ASGI application; it needs neither model nor job engine.

    Of cases it writes nothing. Predictions of uploaded files are queued for the infer role, and
    instances that come by STOW-RS are taken in as those are that come by C-STORE.
    """
    sources = Sources(ledger=ledger, spool=spool, settings=settings, manifest=manifest)
    queue = PredictionQueue(ledger.engine)
    pages = Pages(sources, queue)
    handler = _ErrorHandler(pages)
    static = StaticFiles(directory=Path(__file__).parent / "static")
    endpoints = [
        *Api(sources).routes(),
        *Metrics(sources).routes(),
        *Predict(sources, queue).routes(),
        *Predictions(sources, queue).routes(),
        *(Stow(intake, settings.stow).routes() if settings.stow.enabled else ()),
    ]
    description = Description(endpoints, pages.templates)
    return Starlette(
        routes=[
            *endpoints,
            *description.routes(),
            *pages.routes(),
            Mount("/static", static),
        ],
        middleware=[Middleware(Guard, hosts=Hosts(settings.web.host, settings.web.host_names))],
        exception_handlers={
            CodedError: handler.answer,
            HTTPException: handler.answer,
            SQLAlchemyError: handler.answer,
            Exception: handler.answer,
        },
    )


class _ErrorHandler:
    """Turns whatever a request ended with into a problem document or a page."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

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
