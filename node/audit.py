"""Who did what, when, from where and how it ended: one JSON object a line, only ever added to.

The lines have the members of the audit message of DICOM PS3.15 A.5. A case has its id; no study,
patient or text of a peer is named.
"""

from __future__ import annotations

import getpass
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from node import logs

FILE_NAME: Final = "audit.jsonl"
_IP_ADDRESS: Final = "2"  # Network Access Point Type Code
_SYSTEM_OBJECT: Final = "2"  # Participant Object Type Code
_SUCCESS, _MINOR, _SERIOUS = "0", "4", "8"


class Event(Enum):
    """What happened: Event ID of PS3.15 A.5.3 with its meaning, and Event Action Code."""

    LOGIN = "110114", "User Authentication", "E"
    REFUSED = "110113", "Security Alert", "E"
    QUERIED = "110112", "Query", "E"
    STORED = "110104", "DICOM Instances Transferred", "C"
    EXPORTED = "110106", "Export", "R"
    IMPORTED = "110107", "Import", "C"
    CHANGED = "110103", "DICOM Instances Accessed", "U"
    DELETED = "110103", "DICOM Instances Accessed", "D"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """What somebody did; `target` is an address of ours without any value of a peer."""

    event: Event
    user: str
    role: str
    address: str
    status: int
    target: str


class AuditTrail:
    """The file.

    Parameters
    ----------
    folder : Path
        Where it lies.
    source : str
        Which process writes.
    """

    def __init__(self, folder: Path, source: str) -> None:
        self.path = folder / FILE_NAME
        self._source = source

    def record(self, deed: Deed) -> None:
        """Add a line, durably; what cannot be written is logged, and the node goes on."""
        line = json.dumps(self._message(deed), separators=(",", ":")) + "\n"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        try:
            handle = os.open(self.path, flags, 0o600)  # each time: it may have been moved away
            try:
                os.write(handle, line.encode())
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            logs.get().error("audit.lost", kind=deed.event.name, reason=error.strerror)

    def _message(self, deed: Deed) -> dict[str, Any]:
        code, meaning, action = deed.event.value
        return {
            "EventIdentification": {
                "EventID": {
                    "csd-code": code,
                    "codeSystemName": "DCM",
                    "originalText": meaning,
                },
                "EventActionCode": action,
                "EventDateTime": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "EventOutcomeIndicator": _outcome(deed.status),
                "EventOutcomeDescription": f"HTTP {deed.status}" if deed.address else "",
            },
            "ActiveParticipant": [
                {
                    "UserID": deed.user,
                    "UserIsRequestor": True,
                    "RoleIDCode": {"csd-code": deed.role, "codeSystemName": "NEUROSEG"},
                    "NetworkAccessPointID": deed.address,
                    "NetworkAccessPointTypeCode": _IP_ADDRESS,
                }
            ],
            "AuditSourceIdentification": {"AuditSourceID": self._source},
            "ParticipantObjectIdentification": [
                {
                    "ParticipantObjectID": deed.target,
                    "ParticipantObjectTypeCode": _SYSTEM_OBJECT,
                }
            ],
        }


def note_command(folder: Path, event: Event, target: str, *, is_done: bool) -> None:
    """Record what somebody did, or tried to do, on the command line."""
    AuditTrail(folder, "command line").record(
        Deed(
            event=event,
            user=getpass.getuser(),
            role="operator",
            address="",
            status=HTTPStatus.OK if is_done else HTTPStatus.CONFLICT,
            target=target,
        )
    )


def _outcome(status: int) -> str:
    if status < HTTPStatus.BAD_REQUEST:
        return _SUCCESS
    return _MINOR if status < HTTPStatus.INTERNAL_SERVER_ERROR else _SERIOUS
