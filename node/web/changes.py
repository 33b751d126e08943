"""Tells pages and programs at once when something has changed: server-sent events.

Nothing but that is told, so that nobody learns by it what they may not read. One look at the
ledger serves everybody who listens, and there is none while nobody does.

References
----------
HTML Living Standard 9.2, server-sent events.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute

from node import logs
from node.door_errors import ListenersBusyError
from node.prediction_queue import PredictionQueue
from node.web import health
from node.web.operations import Answer, Endpoint, Operation
from node.web.serving import STOPPING
from node.web.views import Sources

MOST: Final = 64
"""Who may listen at once; further pages look from time to time instead."""
LONGEST_S: Final = 600.0
"""After so long a stream ends, and whoever still may listens again."""

_KIND: Final = "text/event-stream"
_PERIOD_S: Final = 0.5
_STOP_S: Final = 1.0  # the longest time between a look and the next at whether the server stops
_SILENCE_S: Final = 15.0  # proxies cut what says nothing for longer
_RETRY_MS: Final = 3000


class Changes:
    """The endpoint, and the look that it shares among all who listen.

    Parameters
    ----------
    sources : Sources
        What the pages are made of.
    queue : PredictionQueue
        Its open rows stand on the status page.
    """

    def __init__(self, sources: Sources, queue: PredictionQueue) -> None:
        self._sources, self._queue = sources, queue
        self._listeners: set[asyncio.Event] = set()
        self._looking: asyncio.Task[None] | None = None

    def routes(self) -> list[BaseRoute]:
        """Return where it answers."""
        answer = Answer(what="`data: changed` after each change", media_type=_KIND)
        operation = Operation(tag="node", answers=(answer,), errors=(ListenersBusyError,))
        return [Endpoint("/api/v1/changes", self.listen, operation)]

    async def listen(self, request: Request) -> Response:
        """Answer events (text/event-stream) that say when to look again, for ten minutes.

        Raises
        ------
        ListenersBusyError
            As many as may listen already.
        """
        if len(self._listeners) >= MOST:
            raise ListenersBusyError(limit=MOST)
        if request.method == "HEAD":
            return Response(media_type=_KIND)
        stopping: asyncio.Event = getattr(request.state, STOPPING, None) or asyncio.Event()
        unbuffered = {"x-accel-buffering": "no"}
        return StreamingResponse(self._events(stopping), media_type=_KIND, headers=unbuffered)

    async def _events(self, stopping: asyncio.Event) -> AsyncIterator[str]:
        changed = asyncio.Event()
        self._listeners.add(changed)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        now = asyncio.get_running_loop().time
        end, told_at = now() + LONGEST_S, now()
        try:
            yield f"retry: {_RETRY_MS}\n\n"
            while now() < end and not stopping.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_STOP_S):
                        await changed.wait()
                is_changed = changed.is_set()
                if is_changed or now() - told_at > _SILENCE_S:
                    changed.clear()  # before it is told, so that the next one is told too
                    told_at = now()
                    yield "data: changed\n\n" if is_changed else ": nothing\n\n"
        finally:
            self._listeners.discard(changed)

    async def _look(self) -> None:
        known = None
        while self._listeners:
            try:
                found = await run_in_threadpool(self._mark)
            except SQLAlchemyError as error:
                logs.get().warning("database.failed", kind=type(error).__name__)
                found = known
            if found != known:  # also the first time: whoever looks from now on misses nothing
                for changed in self._listeners:
                    changed.set()
            known = found
            await asyncio.sleep(_PERIOD_S)

    def _mark(self) -> object:
        sources = self._sources
        jobs = sources.settings.jobs
        state = health.read(sources.ledger, sources.manifest, jobs, sources.spool)
        roles = [(one.name, one.condition, one.alive_count) for one in health.roles(state, jobs)]
        return sources.ledger.mark(), state.missing, roles, self._queue.open_rows()
