"""What a Store transaction is answered with: an HTTP status and a DICOM JSON document.

References
----------
DICOM PS3.18 10.5.3 (response), Annex I (Store Instances Response Module), F.2 (DICOM JSON model).
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from node.dimse import Status
from node.errors import (
    LedgerUnavailableError,
    SpoolFullError,
    SpoolUnwritableError,
)
from node.receive.statuses import status_of
from node.receive.stow import Outcome

_REFERENCED_CLASS, _REFERENCED_INSTANCE = "00081150", "00081155"
_RETRIEVE_URL, _REASON = "00081190", "00081197"
_FAILED, _REFERENCED, _OTHER_FAILURES = "00081198", "00081199", "0008119A"
_CREATOR, _COMMENT = "00090010", "00091001"
_NAME: Final = "NEUROSEG NODE"
KNOWN: Final = "INSTANCE_KNOWN: the very same instance was stored before"


def status(outcomes: Sequence[Outcome]) -> HTTPStatus:
    """Return 200 for all stored, 202 for some; for none 409, or what says that it may pass."""
    errors = [one.error for one in outcomes if one.error is not None]
    if len(errors) < len(outcomes):
        return HTTPStatus.ACCEPTED if errors else HTTPStatus.OK
    if any(isinstance(one, SpoolFullError) for one in errors):
        return HTTPStatus.INSUFFICIENT_STORAGE
    if any(isinstance(one, (SpoolUnwritableError, LedgerUnavailableError)) for one in errors):
        return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.CONFLICT


def document(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the data set in the DICOM JSON model.

    The node gives no instances out again, so that every Retrieve URL is empty. In words, with our
    code, an item says in a private element what its reason is, or that the instance was known.
    """
    stored = [_stored(one) for one in outcomes if one.error is None]
    refused = [one for one in outcomes if one.error is not None]
    failed = [_failed(one) for one in refused if one.sop_instance_uid]
    other = [_reason(one) for one in refused if not one.sop_instance_uid]
    found: dict[str, Any] = {_RETRIEVE_URL: {"vr": "UR"}}
    for tag, items in ((_FAILED, failed), (_REFERENCED, stored), (_OTHER_FAILURES, other)):
        if items:
            found[tag] = {"vr": "SQ", "Value": items}
    return dict(sorted(found.items()))


def _references(one: Outcome) -> dict[str, Any]:
    return {
        _REFERENCED_CLASS: _value("UI", one.sop_class_uid),
        _REFERENCED_INSTANCE: _value("UI", one.sop_instance_uid),
    }


def _stored(one: Outcome) -> dict[str, Any]:
    return {
        **_references(one),
        _RETRIEVE_URL: {"vr": "UR"},
        **({} if one.is_new else _comment(KNOWN)),
    }


def _failed(one: Outcome) -> dict[str, Any]:
    return {**_references(one), **_reason(one)}


def _reason(one: Outcome) -> dict[str, Any]:
    error = one.error
    reason = Status.PROCESSING_FAILURE if error is None else status_of(error)
    text = "" if error is None else f"{error.code}: {error}"
    return {_REASON: _value("US", int(reason)), **_comment(text)}


def _comment(text: str) -> dict[str, Any]:
    return {_CREATOR: _value("LO", _NAME), _COMMENT: _value("LT", text)}


def _value(vr: str, value: str | int) -> dict[str, Any]:
    return {"vr": vr, "Value": [value]}
