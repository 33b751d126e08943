"""Predictions that nobody waits for: their state, their result, and how to drop them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute

from converters.errors import CodedError
from node.errors import PredictionNotDoneError, PredictionUnknownError
from node.prediction_queue import PredictionQueue
from node.prediction_rows import OPEN, PredictionRow, PredictionState
from node.settings import Predict as PredictSettings
from node.spool import Spool
from node.web import problems, query
from node.web.operations import Answer, Endpoint, Operation
from node.web.views import Sources

FILE_NAME: Final = "labels.nii.gz"
MEDIA_TYPE: Final = "application/gzip"
_POLL_S: Final = 2
_STATUS_OF: Mapping[str | None, HTTPStatus] = {
    "reject": HTTPStatus.UNPROCESSABLE_ENTITY,
    "retry": HTTPStatus.SERVICE_UNAVAILABLE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionView:
    """A prediction that nobody waits for.

    `position` is its place in the queue. `labels_url` stands when it is done, `problem` when it
    failed. Its files are deleted at `kept_until`.
    """

    prediction_id: str
    state: PredictionState
    position: int
    windows_done: int
    window_count: int
    byte_count: int
    submitted_at: str | None
    started_at: str | None
    ended_at: str | None
    kept_until: str | None
    model_id: str | None
    notes: list[dict[str, str]]
    url: str
    labels_url: str | None
    problem: dict[str, Any] | None


def address(prediction_id: str) -> str:
    """Return where a prediction's state can be asked for."""
    return f"/api/v1/predictions/{prediction_id}"


def answer_path(spool: Spool, row: PredictionRow) -> Path:
    """Return where the labels of a prediction that is done lie.

    Raises
    ------
    PredictionUnknownError
        They have just been deleted.
    """
    path = spool.prediction_folder(row.prediction_id) / FILE_NAME
    if not path.is_file():
        raise PredictionUnknownError
    return path


def headers(row: PredictionRow) -> dict[str, str]:
    """Return what is said beside the labels: place in the queue, model, codes of what to know."""
    said = {"neuroseg-number": str(row.number), "neuroseg-model": row.model_id or ""}
    codes = ", ".join(note["code"] for note in row.notes or ())
    return {**said, "neuroseg-notes": codes} if codes else said


def _problem(row: PredictionRow) -> tuple[dict[str, object], HTTPStatus]:
    status = _STATUS_OF.get(row.disposition, HTTPStatus.INTERNAL_SERVER_ERROR)
    content = problems.document(
        status, code=row.code or "", detail=row.sentence or "", advice=row.advice or ""
    )
    return content, status


def failure(row: PredictionRow) -> Response:
    """Return the answer for a prediction that has no result."""
    if row.state is not PredictionState.FAILED:
        return problems.problem(PredictionNotDoneError(state=row.state.value))
    return problems.answer(*_problem(row))


def state(
    queue: PredictionQueue,
    row: PredictionRow,
    settings: PredictSettings,
    *,
    status: HTTPStatus = HTTPStatus.OK,
) -> Response:
    """Return what is known of a prediction; while it is not over, with when to ask again."""
    is_done = row.state is PredictionState.DONE
    is_failed = row.state is PredictionState.FAILED
    url = address(row.prediction_id)
    kept_until = row.ended_at and row.ended_at + timedelta(seconds=settings.keep_s)
    view = PredictionView(
        prediction_id=row.prediction_id,
        state=row.state,
        position=queue.position(row),
        windows_done=row.windows_done,
        window_count=row.window_count,
        byte_count=row.byte_count,
        submitted_at=_text(row.submitted_at),
        started_at=_text(row.started_at),
        ended_at=_text(row.ended_at),
        kept_until=_text(kept_until),
        model_id=row.model_id,
        notes=list(row.notes or []),
        url=url,
        labels_url=f"{url}/{FILE_NAME}" if is_done else None,
        problem=_problem(row)[0] if is_failed else None,
    )
    is_open = row.state in OPEN
    return Response(
        json.dumps(asdict(view)),
        status.value,
        headers={"retry-after": str(_POLL_S)} if is_open else None,
        media_type="application/json",
    )


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="milliseconds")


def _operation(
    answer: Answer, errors: tuple[type[CodedError], ...], *, what: str = "", method: str = "GET"
) -> Operation:
    return Operation(tag="predictions", what=what, method=method, answers=(answer,), errors=errors)


class Predictions:
    """The endpoints; plain functions, which Starlette runs in threads."""

    def __init__(self, sources: Sources, queue: PredictionQueue) -> None:
        self._sources, self._queue = sources, queue

    def routes(self) -> list[BaseRoute]:
        """Return where each endpoint answers."""
        one = address("{prediction_id}")
        unknown = (PredictionUnknownError,)
        state_of = Answer(what="how it stands", shape=PredictionView)
        gone = Answer(what="it is stopped or forgotten", status=HTTPStatus.NO_CONTENT)
        file = Answer(what="the labels", media_type=MEDIA_TYPE)
        errors = (PredictionUnknownError, PredictionNotDoneError)
        return [
            Endpoint(
                one,
                self.one,
                _operation(state_of, unknown, what="Answer the state of a prediction."),
                _operation(
                    gone,
                    unknown,
                    what="Stop a prediction that runs or waits, forget one that is over.",
                    method="DELETE",
                ),
            ),
            Endpoint(f"{one}/{FILE_NAME}", self.labels, _operation(file, errors)),
        ]

    def one(self, request: Request) -> Response:
        """Answer the state of a prediction, or drop it."""
        row = self._row(request)
        if request.method == "DELETE":
            return self._dropped(row)
        return state(self._queue, row, self._sources.settings.predict)

    def labels(self, request: Request) -> Response:
        """Answer the labels of a prediction.

        Raises
        ------
        PredictionNotDoneError
            It is not over, or has no result.
        """
        row = self._row(request)
        if row.state is not PredictionState.DONE:
            raise PredictionNotDoneError(state=row.state.value)
        path = answer_path(self._sources.spool, row)
        return FileResponse(
            path,
            media_type=MEDIA_TYPE,
            filename=FILE_NAME,
            headers=headers(row),
            stat_result=path.stat(),
        )

    def _row(self, request: Request) -> PredictionRow:
        """Return the prediction of the address; one that a request waits for is that request's."""
        row = self._queue.row(query.prediction_id_of(request))
        if row.is_awaited:
            raise PredictionUnknownError
        return row

    def _dropped(self, row: PredictionRow) -> Response:
        """Stop a prediction that is not over, forget one that is, and delete its files."""
        if not self._queue.cancel(row.prediction_id):
            self._queue.forget(row.prediction_id)
        self._sources.spool.drop_prediction(row.prediction_id)
        return Response(status_code=HTTPStatus.NO_CONTENT.value)
