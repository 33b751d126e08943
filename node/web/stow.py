"""``POST /dicom-web/studies``: instances come in by STOW-RS, as they do by C-STORE.

The body is taken in blocks, each part goes to the spool as it arrives, and the answer is given when
all that it calls stored is durable (`node.receive.stow`).

References
----------
DICOM PS3.18 10.5; RFC 2387 multipart/related.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from typing import Final

from python_multipart.exceptions import FormParserError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from converters.errors import CodedError
from node import logs
from node.access import LOCAL, Principal
from node.door_errors import (
    StowBusyError,
    StowInvalidError,
    StowTooLargeError,
    StowTypeError,
)
from node.errors import SpoolFullError, UploadSlowError
from node.receive import multipart, stow, stow_answer, stow_json
from node.receive.dataset import checked_uid
from node.receive.instance import Intake
from node.receive.multipart import MultipartReader
from node.receive.stow import Outcome, Sender, StoreRequest
from node.receive.stow_json import MetadataRequest
from node.settings import Stow as StowSettings
from node.web import predict, problems
from node.web.body import Body
from node.web.operations import Answer, Endpoint, Operation

_MEDIA_TYPE: Final = "application/dicom+json"
_MOST_PARTS: Final = 50_000
_NOBODY_LISTENS: Final = 499
_PASSES: Final = (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.INSUFFICIENT_STORAGE)


_OPERATION: Final = Operation(
    tag="studies",
    method="POST",
    body={"multipart/related": {"schema": {"type": "string", "format": "binary"}}},
    answers=(
        Answer(what="every instance is stored (DICOM JSON)", media_type=_MEDIA_TYPE),
        Answer(what="some are", media_type=_MEDIA_TYPE, status=HTTPStatus.ACCEPTED),
        Answer(what="none is", media_type=_MEDIA_TYPE, status=HTTPStatus.CONFLICT),
    ),
    errors=(
        StowInvalidError,
        StowTypeError,
        StowTooLargeError,
        StowBusyError,
        UploadSlowError,
        SpoolFullError,
    ),
)


_FORMS: Final[dict[bytes, type[StoreRequest]]] = {
    multipart.MEDIA_TYPE: StoreRequest,
    stow_json.MEDIA_TYPE: MetadataRequest,
}


class Stow:
    """The endpoint.

    Parameters
    ----------
    intake : Intake
        Takes the instances.
    settings : settings.Stow
        Its limits.
    """

    def __init__(self, intake: Intake, settings: StowSettings) -> None:
        self._intake, self._settings = intake, settings
        # A thread a request: they make their instances durable together, see GroupCommit.
        self._writers = ThreadPoolExecutor(settings.max_requests, thread_name_prefix="stow")
        self._taken = 0

    def routes(self) -> list[BaseRoute]:
        """Return where the endpoint answers."""
        studies = "/dicom-web/studies"
        paths = [studies, f"{studies}/{{study_instance_uid}}"]
        return [Endpoint(path, self.store, _OPERATION) for path in paths]

    async def store(self, request: Request) -> Response:
        """Answer which of the instances in a request are stored.

        Raises
        ------
        CodedError
            Why none was looked at: see `node.web.problems` for the status of each.
        """
        settings = self._settings
        body = Body(request, silence_s=settings.silence_s, patience_s=settings.patience_s)
        try:
            return await self._store(request, body)
        except ClientDisconnect:
            logs.get().info("stow.refused", reason="the sender has gone")
            return Response(status_code=_NOBODY_LISTENS)
        except CodedError as error:
            logs.get().warning("stow.refused", code=error.code, sentence=str(error))
            await body.drain()
            raise

    async def _store(self, request: Request, body: Body) -> Response:
        began = time.monotonic()
        boundary, kind = _form_of(request.headers.get("content-type", ""))
        wanted = request.path_params.get("study_instance_uid")
        if wanted is not None:
            checked_uid(wanted.encode("utf-8", "surrogateescape"), "StudyInstanceUID")
        limit = self._settings.max_request_bytes
        if predict.announced(request.headers) > limit:
            raise StowTooLargeError(limit_bytes=limit)
        with self._place():
            await run_in_threadpool(self._intake.check_space)
            sender = Sender(calling_ae_title=_title_of(request), study_instance_uid=wanted)
            store = kind(self._intake, sender)
            byte_count = await self._take_in(body, boundary, store)
        return _answered(store.outcomes, byte_count, time.monotonic() - began)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Hold one of the places for requests; runs on the thread of the event loop alone."""
        if self._taken >= self._settings.max_requests:
            raise StowBusyError(limit=self._settings.max_requests)
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    async def _take_in(self, body: Body, boundary: bytes, store: StoreRequest) -> int:
        """Store the parts as they arrive; return how long the body was."""
        reader = MultipartReader(boundary, store)
        byte_count = 0
        try:
            async for block in body.blocks():
                byte_count += len(block)
                if byte_count > self._settings.max_request_bytes:
                    raise StowTooLargeError(limit_bytes=self._settings.max_request_bytes)
                await self._in_turn(partial(_feed, reader, store, block))
            if not reader.is_whole:
                raise StowInvalidError(reason="it ends before its last boundary")
            await self._in_turn(store.finish)
        finally:
            await self._in_turn(store.close)
        return byte_count

    async def _in_turn(self, work: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._writers, work)


def _form_of(content_type: str) -> tuple[bytes, type[StoreRequest]]:
    """Return the boundary of a body, and what takes its parts.

    Raises
    ------
    StowTypeError
        It is another type, or names no boundary that can be one.
    """
    boundary, root = multipart.form_of(content_type)
    if not boundary or root not in _FORMS:
        raise StowTypeError
    return boundary, _FORMS[root]


def _title_of(request: Request) -> str:
    """Return whose instances they are: the name of the sender's token, where there are tokens."""
    principal: Principal = request.state.principal
    return stow.CALLING if principal == LOCAL else principal.name


def _feed(reader: MultipartReader, store: StoreRequest, block: bytes) -> None:
    try:
        reader.feed(block)
    except FormParserError as error:
        raise StowInvalidError(reason="it is no multipart body") from error
    if len(store.outcomes) > _MOST_PARTS:
        raise StowInvalidError(reason=f"it has more than {_MOST_PARTS} parts")


def _answered(outcomes: Sequence[Outcome], byte_count: int, seconds: float) -> Response:
    if not outcomes:
        raise StowInvalidError(reason="there is no instance in it")
    status = stow_answer.status(outcomes)
    logs.get().info(
        "stow.finished",
        instance_count=sum(one.error is None for one in outcomes),
        failed_count=sum(one.error is not None for one in outcomes),
        byte_count=byte_count,
        duration_s=round(seconds, 3),
        status=status.value,
    )
    headers = {"retry-after": str(problems.RETRY_AFTER_S)} if status in _PASSES else None
    content = json.dumps(stow_answer.document(outcomes))
    return Response(content, status.value, headers=headers, media_type=_MEDIA_TYPE)
