"""Which failure a peer is answered with which status.

References
----------
DICOM PS3.4 Table B.2-1 (C-STORE response status values).
"""

from __future__ import annotations

from node.dimse import Status
from node.errors import (
    InstanceConflictError,
    InstanceMismatchError,
    InstanceTooLargeError,
    InstanceUnreadableError,
    LedgerUnavailableError,
    NodeError,
    SopClassUnsupportedError,
    SpoolFullError,
    SpoolUnwritableError,
    TransferSyntaxUnsupportedError,
)

STATUSES: tuple[tuple[type[NodeError], Status], ...] = (
    (SpoolFullError, Status.OUT_OF_RESOURCES),
    (SpoolUnwritableError, Status.OUT_OF_RESOURCES),
    (LedgerUnavailableError, Status.OUT_OF_RESOURCES),
    (InstanceTooLargeError, Status.OUT_OF_RESOURCES),
    (InstanceMismatchError, Status.DATA_SET_MISMATCH),
    (InstanceConflictError, Status.CONTENT_CONFLICT),
    (InstanceUnreadableError, Status.CANNOT_UNDERSTAND),
    (SopClassUnsupportedError, Status.SOP_CLASS_NOT_SUPPORTED),
    (TransferSyntaxUnsupportedError, Status.TRANSFER_SYNTAX_NOT_SUPPORTED),
)
"""The one place that says which failure a peer is answered with which status."""


def status_of(error: NodeError) -> Status:
    """Return the status that a peer is answered when its instance meets `error`."""
    for kind, status in STATUSES:
        if isinstance(error, kind):
            return status
    return Status.PROCESSING_FAILURE
