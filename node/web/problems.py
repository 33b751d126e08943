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

from converters.errors import CodedError
from node import logs
from node.errors import (
    CaseFileAbsentError,
    CaseUnknownError,
    HostRefusedError,
    LedgerUnreadableError,
    NotReadyError,
    RequestInvalidError,
    RequestRefusedError,
    ResourceUnknownError,
    UnforeseenError,
)

MEDIA_TYPE = "application/problem+json"
STATUSES: Mapping[type[CodedError], HTTPStatus] = {
    CaseUnknownError: HTTPStatus.NOT_FOUND,
    CaseFileAbsentError: HTTPStatus.NOT_FOUND,
    ResourceUnknownError: HTTPStatus.NOT_FOUND,
    RequestInvalidError: HTTPStatus.BAD_REQUEST,
    HostRefusedError: HTTPStatus.BAD_REQUEST,
    NotReadyError: HTTPStatus.SERVICE_UNAVAILABLE,
    LedgerUnreadableError: HTTPStatus.SERVICE_UNAVAILABLE,
}


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
    return STATUSES.get(type(error), HTTPStatus.INTERNAL_SERVER_ERROR)


def problem(error: CodedError, *, headers: Mapping[str, str] | None = None) -> Response:
    """Return the problem document of an error."""
    status = status_of(error)
    body = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": str(error),
        "code": error.code,
        "advice": error.advice,
    }
    return Response(json.dumps(body), status.value, headers=headers, media_type=MEDIA_TYPE)
