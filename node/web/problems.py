"""Errors as HTTP answers: problem documents that carry the project's own code.

References
----------
RFC 9457 Problem Details for HTTP APIs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from converters.errors import CodedError, InputRejectedError
from node import logs
from node.door_errors import (
    ListenersBusyError,
    NotAllowedError,
    NotLoggedInError,
    OrderKeyReusedError,
    PullSourceError,
    PullUnknownError,
    RequestRateError,
    StowBusyError,
    StowInvalidError,
    StowTooLargeError,
    StowTypeError,
)
from node.errors import (
    ActionUnavailableError,
    CaseFileAbsentError,
    CaseNotHeldError,
    CaseNotOpenError,
    CasePurgedError,
    CaseUnknownError,
    CrossSiteError,
    HostRefusedError,
    IllegalTransitionError,
    InstanceUnreadableError,
    LedgerUnavailableError,
    LedgerUnreadableError,
    NotReadyError,
    PredictionLateError,
    PredictionNotDoneError,
    PredictionQueueFullError,
    PredictionUnknownError,
    RequestInvalidError,
    RequestRefusedError,
    RequestSlowError,
    ResourceUnknownError,
    RoleUnknownError,
    SeriesTakenError,
    SeriesUnknownError,
    SpoolFullError,
    SpoolUnwritableError,
    UnforeseenError,
    UploadInvalidError,
    UploadSlowError,
    UploadTooLargeError,
    UploadTypeError,
)
from node.work_errors import (
    WorkitemConflictError,
    WorkitemExistsError,
    WorkitemInvalidError,
    WorkitemRefusedError,
    WorkitemUnknownError,
)

MEDIA_TYPE = "application/problem+json"
STATUSES: Mapping[type[CodedError], HTTPStatus] = {
    ActionUnavailableError: HTTPStatus.CONFLICT,
    CaseNotOpenError: HTTPStatus.CONFLICT,
    CaseNotHeldError: HTTPStatus.CONFLICT,
    CasePurgedError: HTTPStatus.CONFLICT,
    IllegalTransitionError: HTTPStatus.CONFLICT,
    RoleUnknownError: HTTPStatus.UNPROCESSABLE_ENTITY,
    SeriesTakenError: HTTPStatus.UNPROCESSABLE_ENTITY,
    SeriesUnknownError: HTTPStatus.UNPROCESSABLE_ENTITY,
    OrderKeyReusedError: HTTPStatus.UNPROCESSABLE_ENTITY,
    PullSourceError: HTTPStatus.UNPROCESSABLE_ENTITY,
    PullUnknownError: HTTPStatus.NOT_FOUND,
    CaseUnknownError: HTTPStatus.NOT_FOUND,
    CaseFileAbsentError: HTTPStatus.NOT_FOUND,
    ResourceUnknownError: HTTPStatus.NOT_FOUND,
    RequestInvalidError: HTTPStatus.BAD_REQUEST,
    HostRefusedError: HTTPStatus.BAD_REQUEST,
    NotReadyError: HTTPStatus.SERVICE_UNAVAILABLE,
    LedgerUnreadableError: HTTPStatus.SERVICE_UNAVAILABLE,
    CrossSiteError: HTTPStatus.FORBIDDEN,
    UploadTypeError: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    UploadInvalidError: HTTPStatus.BAD_REQUEST,
    UploadTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    UploadSlowError: HTTPStatus.REQUEST_TIMEOUT,
    RequestSlowError: HTTPStatus.REQUEST_TIMEOUT,
    InputRejectedError: HTTPStatus.UNPROCESSABLE_ENTITY,
    SpoolFullError: HTTPStatus.INSUFFICIENT_STORAGE,
    PredictionQueueFullError: HTTPStatus.SERVICE_UNAVAILABLE,
    PredictionUnknownError: HTTPStatus.NOT_FOUND,
    PredictionNotDoneError: HTTPStatus.CONFLICT,
    PredictionLateError: HTTPStatus.GATEWAY_TIMEOUT,
    NotLoggedInError: HTTPStatus.UNAUTHORIZED,
    NotAllowedError: HTTPStatus.FORBIDDEN,
    StowTypeError: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    StowInvalidError: HTTPStatus.BAD_REQUEST,
    StowTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    StowBusyError: HTTPStatus.TOO_MANY_REQUESTS,
    ListenersBusyError: HTTPStatus.TOO_MANY_REQUESTS,
    RequestRateError: HTTPStatus.TOO_MANY_REQUESTS,
    WorkitemUnknownError: HTTPStatus.NOT_FOUND,
    WorkitemExistsError: HTTPStatus.CONFLICT,
    WorkitemRefusedError: HTTPStatus.BAD_REQUEST,
    WorkitemConflictError: HTTPStatus.CONFLICT,
    WorkitemInvalidError: HTTPStatus.BAD_REQUEST,
    InstanceUnreadableError: HTTPStatus.BAD_REQUEST,
    SpoolUnwritableError: HTTPStatus.SERVICE_UNAVAILABLE,
    LedgerUnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
}
RETRY_AFTER_S = 10


def coded(error: Exception) -> CodedError:
    """Return the project's own error for anything that a request can end with."""
    if isinstance(error, CodedError):
        return error
    if isinstance(error, HTTPException):
        if error.status_code == HTTPStatus.NOT_FOUND:
            return ResourceUnknownError()
        return RequestRefusedError(status=error.status_code)
    if isinstance(error, SQLAlchemyError):
        return LedgerUnreadableError()
    return UnforeseenError(kind=type(error).__name__, place=logs.place_of(error))


def status_of(error: CodedError) -> HTTPStatus:
    """Return the HTTP status of an error; one that is not foreseen here is ours (500)."""
    if isinstance(error, RequestRefusedError):
        return HTTPStatus(int(error.evidence["status"]))
    found = (STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    return next(found, HTTPStatus.INTERNAL_SERVER_ERROR)


def document(status: HTTPStatus, *, code: str, detail: str, advice: str) -> dict[str, object]:
    """Return the members of a problem document."""
    return {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "code": code,
        "advice": advice,
    }


def answer(content: Mapping[str, object], status: HTTPStatus) -> Response:
    """Return a problem document as an answer; one for a failure that passes says when to retry."""
    passes = status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS)
    headers = {"retry-after": str(RETRY_AFTER_S)} if passes else None
    return Response(json.dumps(content), status.value, headers=headers, media_type=MEDIA_TYPE)


def problem(error: CodedError) -> Response:
    """Return the answer for an error."""
    status = status_of(error)
    content = document(status, code=error.code, detail=str(error), advice=error.advice)
    found = answer(content, status)
    if isinstance(error, WorkitemConflictError):  # PS3.18 11.7.3.2
        found.headers["warning"] = f'299 neuroseg "{error.evidence["reason"]}"'
    return found
