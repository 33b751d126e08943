"""``POST /api/v1/predict``: an uploaded file becomes a prediction, computed by the infer process.

The file is written to the spool as it arrives, judged, then queued. A client that waits gets the
labels as the answer and leaves nothing behind, however its request ends; one that prefers not to
wait gets an address to ask at (`node.web.predictions`).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from typing import BinaryIO, Final, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from converters import nifti_check
from converters.errors import CodedError, InputRejectedError
from node import logs
from node.errors import (
    NotReadyError,
    PredictionLateError,
    PredictionQueueFullError,
    SpoolFullError,
    UploadInvalidError,
    UploadSlowError,
    UploadTooLargeError,
    UploadTypeError,
)
from node.prediction_queue import PredictionQueue
from node.prediction_rows import PredictionRow, PredictionState
from node.web import health, multipart, predictions
from node.web.body import BLOCK_BYTES, Body
from node.web.multipart import UploadedFile
from node.web.operations import Answer, Endpoint, Operation, Parameter
from node.web.predictions import PredictionView
from node.web.views import Sources
from node.web.watch import Watch

T = TypeVar("T")

_FILES_AT_ONCE: Final = 2
_LOOK_S: Final = 0.25  # how soon a client that went away is noticed
_NEEDED = ("infer", "model")
_NOBODY_LISTENS: Final = 499
_LONGEST_NUMBER: Final = 18
_OPERATION: Final = Operation(
    tag="predictions",
    method="POST",
    what="Segment a file of four channels; the answer is its labels on the same grid.",
    parameters=(
        Parameter(
            name="prefer",
            place="header",
            what="respond-async: an address to ask at instead of a long wait (RFC 7240)",
            schema={"type": "string"},
        ),
    ),
    body={
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "string", "format": "binary"}},
            }
        }
    },
    answers=(
        Answer(what="the labels, as NIfTI", media_type=predictions.MEDIA_TYPE),
        Answer(what="it is queued", shape=PredictionView, status=HTTPStatus.ACCEPTED),
    ),
    errors=(
        UploadInvalidError,
        UploadTypeError,
        UploadTooLargeError,
        UploadSlowError,
        InputRejectedError,
        PredictionQueueFullError,
        SpoolFullError,
        PredictionLateError,
    ),
)


class Predict:
    """The endpoint.

    Parameters
    ----------
    sources : Sources
        What the web role reads from.
    queue : PredictionQueue
        Where predictions wait.
    """

    def __init__(self, sources: Sources, queue: PredictionQueue) -> None:
        self._sources, self._queue = sources, queue
        self._settings = sources.settings.predict
        self._owner = sources.settings.jobs.executor_id("web")
        self._watch = Watch(queue)
        # Threads of their own: however many upload, the others' requests find one free, and one
        # file at a time is unpacked to be judged.
        self._writers = ThreadPoolExecutor(_FILES_AT_ONCE, thread_name_prefix="upload")
        self._judge = ThreadPoolExecutor(1, thread_name_prefix="judge")

    def routes(self) -> list[BaseRoute]:
        """Return where the endpoint answers."""
        return [Endpoint("/api/v1/predict", self.predict, _OPERATION)]

    async def predict(self, request: Request) -> Response:
        """Answer the labels of an uploaded file, or where to ask for them.

        Raises
        ------
        CodedError
            Why not: see `node.web.problems` for the status of each.
        """
        body = Body(
            request, silence_s=self._settings.silence_s, patience_s=self._settings.patience_s
        )
        try:
            return await self._predict(request, body)
        except ClientDisconnect:
            return Response(status_code=_NOBODY_LISTENS)
        except CodedError as error:
            logs.get().info("prediction.refused", code=error.code, sentence=str(error))
            await body.drain()
            raise

    async def _predict(self, request: Request, body: Body) -> Response:
        boundary = multipart.boundary_of(request.headers.get("content-type", ""))
        is_awaited = not _prefers_async(request.headers)
        prediction_id = await run_in_threadpool(
            self._open, is_awaited=is_awaited, announced=announced(request.headers)
        )
        try:
            await self._take_in(prediction_id, body, boundary, is_awaited=is_awaited)
            if not is_awaited:
                return await run_in_threadpool(self._accepted, prediction_id)
            row = await self._over(request, prediction_id)
            return await run_in_threadpool(self._answer, row)
        except asyncio.CancelledError:
            self._forget(prediction_id)  # the process ends and starts no more threads
            raise
        except BaseException:
            await run_in_threadpool(self._forget, prediction_id)
            raise

    # -- taking the file in ------------------------------------------------------------------

    def _open(self, *, is_awaited: bool, announced: int) -> str:
        """Return the id of a new prediction, once it is clear that it has a chance."""
        sources = self._sources
        if announced > self._settings.max_upload_bytes + multipart.FRAMING_BYTES:
            raise UploadTooLargeError(limit_bytes=self._settings.max_upload_bytes)
        state = health.read(sources.ledger, sources.manifest, sources.settings.jobs, sources.spool)
        if missing := [part for part in state.missing if part in _NEEDED]:
            raise NotReadyError(missing=", ".join(missing))
        sources.spool.check_space(announced)
        return self._queue.open(
            self._owner, is_awaited=is_awaited, max_waiting=self._settings.max_waiting
        )

    async def _take_in(
        self, prediction_id: str, body: Body, boundary: bytes, *, is_awaited: bool
    ) -> None:
        """Write the file to the spool, judge it, queue the prediction."""
        with await _in(self._writers, partial(self._begin, prediction_id, boundary)) as upload:
            async for block in body.blocks():
                await _in(self._writers, partial(self._write, upload, block))
            await _in(self._writers, partial(upload.finish, is_durable=not is_awaited))
        await _in(self._judge, partial(self._accept, prediction_id, upload))

    def _begin(self, prediction_id: str, boundary: bytes) -> UploadedFile:
        folder = self._sources.spool.new_prediction_folder(prediction_id)
        limit_bytes = self._settings.max_upload_bytes
        return UploadedFile(boundary, folder / "input.part", limit_bytes=limit_bytes)

    def _write(self, upload: UploadedFile, block: bytes) -> None:
        self._sources.spool.check_space(len(block))
        upload.feed(block)

    def _accept(self, prediction_id: str, upload: UploadedFile) -> None:
        roles, limit = self._sources.manifest.roles, self._settings.max_values
        found = nifti_check.check_channels(upload.path, roles, max_values=limit)
        name = "input.nii.gz" if found.is_packed else "input.nii"
        self._sources.spool.rename_durably(upload.path, name)
        self._queue.accept(prediction_id, byte_count=upload.byte_count)
        logs.get().info("prediction.queued", byte_count=upload.byte_count)

    # -- answering ---------------------------------------------------------------------------

    def _accepted(self, prediction_id: str) -> Response:
        """Return where to ask for a prediction."""
        row = self._queue.row(prediction_id)
        answer = predictions.state(self._queue, row, self._settings, status=HTTPStatus.ACCEPTED)
        answer.headers["location"] = predictions.address(prediction_id)
        answer.headers["preference-applied"] = "respond-async"
        return answer

    async def _over(self, request: Request, prediction_id: str) -> PredictionRow:
        """Return a prediction when it is over; stop waiting when nobody listens any more."""
        patience_s = self._settings.patience_s
        deadline = time.monotonic() + patience_s
        while not await self._watch.is_over(prediction_id, timeout_s=_LOOK_S):
            if await request.is_disconnected():
                raise ClientDisconnect
            if time.monotonic() > deadline:
                raise PredictionLateError(patience_s=patience_s)
        return await run_in_threadpool(self._queue.row, prediction_id)

    def _answer(self, row: PredictionRow) -> Response:
        """Return the labels; they are out of the spool before the first byte is sent."""
        if row.state is not PredictionState.DONE:
            self._forget(row.prediction_id)
            return predictions.failure(row)
        file = predictions.answer_path(self._sources.spool, row).open("rb")
        self._forget(row.prediction_id)
        return _LastAnswer(file, row)

    def _forget(self, prediction_id: str) -> None:
        """Delete all that there is of a prediction; a computation of it stops."""
        self._queue.forget(prediction_id)
        self._sources.spool.drop_prediction(prediction_id)


class _LastAnswer(Response):
    """Sends an open file, whose name has gone already, and closes it."""

    def __init__(self, file: BinaryIO, row: PredictionRow) -> None:
        size = os.fstat(file.fileno()).st_size
        named = f'attachment; filename="{predictions.FILE_NAME}"'
        super().__init__(
            media_type=predictions.MEDIA_TYPE,
            headers={
                **predictions.headers(row),
                "content-length": str(size),
                "content-disposition": named,
            },
        )
        self._file = file

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        """Answer the request."""
        start = {"status": self.status_code, "headers": self.raw_headers}
        with self._file:
            await send({"type": "http.response.start", **start})
            while block := await run_in_threadpool(self._file.read, BLOCK_BYTES):
                await send({"type": "http.response.body", "body": block, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _in(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, work)


def _prefers_async(headers: Headers) -> bool:
    """Say whether a client asks not to be kept waiting (RFC 7240)."""
    preferences = ",".join(headers.getlist("prefer")).split(",")
    return any(
        one.partition(";")[0].partition("=")[0].strip().lower() == "respond-async"
        for one in preferences
    )


def announced(headers: Headers) -> int:
    """Return how many bytes a request says it has; 0 where it does not."""
    length = headers.get("content-length", "")
    is_number = length.isascii() and length.isdigit() and len(length) <= _LONGEST_NUMBER
    return int(length) if is_number else 0
