"""Tells requests that wait for a prediction when it is over: one look for all of them."""

from __future__ import annotations

import asyncio

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from node import logs
from node.prediction_queue import PredictionQueue

_POLL_S = 0.1


class Watch:
    """Looks at the queue while anybody waits."""

    def __init__(self, queue: PredictionQueue) -> None:
        self._queue = queue
        self._events: dict[str, asyncio.Event] = {}
        self._looking: asyncio.Task[None] | None = None

    async def is_over(self, prediction_id: str, *, timeout_s: float) -> bool:
        """Wait until a prediction is over; False when it is not by then."""
        event = self._events.setdefault(prediction_id, asyncio.Event())
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            return False
        finally:
            self._events.pop(prediction_id, None)
        return True

    async def _look(self) -> None:
        while self._events:
            await asyncio.sleep(_POLL_S)
            try:
                over = await run_in_threadpool(self._queue.ended, list(self._events))
            except SQLAlchemyError as error:
                logs.get().warning("database.failed", kind=type(error).__name__)
                continue
            for prediction_id in over:
                if prediction_id in self._events:
                    self._events[prediction_id].set()
