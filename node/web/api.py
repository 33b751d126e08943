"""The interface for programs: health, cases and their files."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from node.errors import CaseFileAbsentError, NotReadyError, ResourceUnknownError
from node.web import downloads, health, pictures, query, views
from node.web.health import Health
from node.web.query import CaseQuery
from node.web.views import CaseView, Sources

DEFAULT_LIMIT = 50


def _json(content: dict[str, Any]) -> Response:
    def plain(value: object) -> str:
        if isinstance(value, datetime):
            return value.isoformat(timespec="milliseconds")
        raise TypeError(type(value).__name__)

    return Response(json.dumps(content, default=plain), media_type="application/json")


def found_cases(sources: Sources, wanted: CaseQuery) -> tuple[list[CaseView], int]:
    """Return the cases of a query and how many there are without its limit."""
    now = datetime.now(UTC)
    rows = sources.ledger.cases(*wanted.states, limit=wanted.limit, offset=wanted.offset)
    counts = sources.ledger.counts()
    total = sum(count for state, count in counts.items() if state in (wanted.states or counts))
    return [views.case_view(sources, row, now=now) for row in rows], total


class Api:
    """The endpoints; plain functions, which Starlette runs in threads."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def routes(self) -> list[BaseRoute]:
        """Return where each endpoint answers."""
        case = "/api/v1/cases/{case_id}"
        return [
            Route("/livez", self.livez),
            Route("/readyz", self.readyz),
            Route("/health", self.brief_health),
            Route("/api/v1/health", self.health),
            Route("/api/v1/cases", self.cases),
            Route(case, self.case),
            Route(f"{case}/{downloads.PREVIEW}", self.preview),
            Route(f"{case}/pictures/{{name}}", self.picture),
            Route(f"{case}/files/{{name}}", self.file),
        ]

    def livez(self, _: Request) -> Response:
        """Answer while the process runs."""
        return _json({"status": "alive"})

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
        return _json({"status": "ready"})

    def health(self, _: Request) -> Response:
        """Answer the node's state, model, device and queue."""
        return _json(asdict(self._health()))

    def brief_health(self, _: Request) -> Response:
        """Answer in three words, as programs that ask plain serving code for its health expect."""
        state = self._health()
        return _json(
            {
                "status": "healthy" if state.status == "ok" else state.status,
                "model_loaded": state.model_loaded,
                "device": state.device or "unknown",
            }
        )

    def _health(self) -> Health:
        sources = self._sources
        return health.read(sources.ledger, sources.manifest, sources.settings.jobs, sources.spool)

    def cases(self, request: Request) -> Response:
        """Answer cases, newest first."""
        wanted = query.case_query(request.query_params, default_limit=DEFAULT_LIMIT)
        found, total = found_cases(self._sources, wanted)
        return _json(
            {
                "cases": [asdict(view) for view in found],
                "total": total,
                "limit": wanted.limit,
                "offset": wanted.offset,
            }
        )

    def case(self, request: Request) -> Response:
        """Answer one case."""
        row = self._sources.ledger.case(query.case_id_of(request))
        return _json(asdict(views.case_view(self._sources, row, now=datetime.now(UTC))))

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
        if name not in pictures.known(self._sources.manifest.roles):
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
        media_type = downloads.files_of(self._sources.manifest.roles).get(name)
        if media_type is None:
            raise ResourceUnknownError
        return self._file_of(request, name, media_type, disposition="attachment")

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
