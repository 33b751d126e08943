"""Operators ask a destination whether it answers: from a program as JSON, from a page as a form.

Nothing of it is kept, and nothing changes. Whoever asks while a destination is being asked gets
that answer, so that nobody can have the node overrun a destination.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from node import logs
from node.deliver import asking
from node.deliver.asking import Answer
from node.errors import PeerUnavailableError, ResourceUnknownError
from node.peers import Destination
from node.web import operations
from node.web.api import as_json
from node.web.operations import Endpoint, Operation
from node.web.pages import Pages
from node.web.views import Sources

LONGEST_S: Final = 20.0
"""How long somebody waits at most: connecting, TLS and each answer have their own patience."""
_PATH: Final = "/destinations/{destination}/echo"
_ECHO: Final = Operation(
    tag="node",
    method="POST",
    answers=(operations.Answer(what="what came of it; without a code it answers", shape=Answer),),
    errors=(ResourceUnknownError,),
)


class Echoes:
    """The endpoints: a form's for people, and one for programs.

    Parameters
    ----------
    sources : Sources
        What the web role reads from.
    pages : Pages
        Shows the answer.
    """

    def __init__(self, sources: Sources, pages: Pages) -> None:
        settings = sources.settings
        self._destinations = {one.name: one for one in settings.destinations}
        self._calling_ae_title = settings.receive.ae_title
        self._pages = pages
        self._asked: dict[str, asyncio.Task[Answer]] = {}

    def routes(self) -> list[BaseRoute]:
        """Return where programs ask."""
        return [Endpoint(f"/api/v1{_PATH}", self.answer, _ECHO)]

    def pages(self) -> list[BaseRoute]:
        """Return where the forms of the system's page are sent to."""
        return [Route(_PATH, self.page, methods=["POST"])]

    async def answer(self, request: Request) -> Response:
        """Ask a destination whether it is there: C-ECHO, a QIDO-RS query or a file to a folder."""
        return as_json(await self._answer(request))

    async def page(self, request: Request) -> Response:
        """Answer the page of the node with what the destination said."""
        answer = await self._answer(request)
        return await run_in_threadpool(self._pages.system, request, answer)

    async def _answer(self, request: Request) -> Answer:
        name = str(request.path_params["destination"])
        if name not in self._destinations:
            raise ResourceUnknownError
        if name not in self._asked:
            self._asked[name] = asyncio.create_task(self._ask(self._destinations[name]))
            self._asked[name].add_done_callback(lambda _: self._asked.pop(name))
        asked = self._asked[name]
        done, _ = await asyncio.wait({asked}, timeout=LONGEST_S)
        if done:
            return asked.result()
        reason = f"no answer within {LONGEST_S:.0f} s"  # a share that hangs, for example
        error = PeerUnavailableError(destination=name, reason=reason)
        return asking.answer_of(self._destinations[name], LONGEST_S, error)

    async def _ask(self, destination: Destination) -> Answer:
        answer = await run_in_threadpool(
            partial(
                asking.ask,
                destination,
                calling_ae_title=self._calling_ae_title,
                patience_s=asking.PATIENCE_S,
            )
        )
        logs.get().info(
            "destination.asked",
            destination=answer.name,
            duration_s=answer.duration_s,
            code=answer.code or "",
        )
        return answer
