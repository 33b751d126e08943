"""What of HTTP goes into the audit trail, and in which words."""

from __future__ import annotations

from typing import Final

from starlette.types import Scope

from node.access import READING, Principal
from node.audit import AuditTrail, Deed, Event

_STUDY: Final = "study_instance_uid"
_POSTED: Final = {
    "/api/v1/predict": Event.IMPORTED,
    "/api/v1/search": Event.QUERIED,
    "/search": Event.QUERIED,
}


class Trail:
    """Notes who did what by HTTP; reading pages and lists is not noted, files that go out are."""

    def __init__(self, trail: AuditTrail) -> None:
        self._trail = trail

    def request(self, scope: Scope, principal: Principal | None, status: int) -> None:
        """Note what a request did, where it did anything, or that it was not let in."""
        event = _event_of(scope)
        if event is not None:
            self._note(event, scope, principal, status)

    def refusal(self, scope: Scope, principal: Principal | None, status: int) -> None:
        """Note that somebody was not let in."""
        self._note(Event.REFUSED, scope, principal, status)

    def login(self, scope: Scope, principal: Principal | None, status: int) -> None:
        """Note that somebody logged in, or tried to."""
        self._note(Event.LOGIN, scope, principal, status)

    def _note(self, event: Event, scope: Scope, principal: Principal | None, status: int) -> None:
        client = scope.get("client")
        self._trail.record(
            Deed(
                event=event,
                user="" if principal is None else principal.name,
                role="" if principal is None else principal.role.value,
                address=client[0] if client else "",
                status=status,
                target=f"{scope['method']} {_target(scope)}",
            )
        )


def _target(scope: Scope) -> str:
    """Return the address of a request without what a peer has put into it.

    Only addresses that were routed are named, and study UIDs are not.
    """
    if "endpoint" not in scope:
        return ""
    path = str(scope["path"])
    study = scope.get("path_params", {}).get(_STUDY)
    return path.replace(study, f"{{{_STUDY}}}") if study else path


def _event_of(scope: Scope) -> Event | None:
    path, method = str(scope["path"]), str(scope["method"])
    if method in READING:
        is_file = "/files/" in path or path.endswith("/labels.nii.gz")
        return Event.EXPORTED if is_file and "endpoint" in scope else None
    if path in ("/login", "/logout") or path.endswith("/echo"):  # which changes nothing
        return None
    if path.startswith("/dicom-web/"):
        return Event.STORED
    if method == "DELETE":
        return Event.DELETED
    return _POSTED.get(path, Event.CHANGED)
