"""N-EVENT-REPORT of storage commitment: a peer's data set -> a report, and what it is answered.

References
----------
DICOM PS3.4 J.3.3 (report), PS3.7 10.1.1 (N-EVENT-REPORT) and C.4 to C.5 (its statuses).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from pydicom.dataset import Dataset

from node import logs
from node.cases import CommitmentReport
from node.dimse import Command, CommandSet, Status
from node.errors import (
    LedgerUnavailableError,
    NodeError,
    ReporterUnknownError,
    ReportInvalidError,
)
from node.rows import CommitmentRow

PUSH_MODEL: Final = "1.2.840.10008.1.20.1"
PUSH_MODEL_INSTANCE: Final = "1.2.840.10008.1.20.1.1"

_UNREADABLE = (
    *(ValueError, KeyError, TypeError, AttributeError, IndexError),
    *(EOFError, OSError, RecursionError, NotImplementedError, struct.error),
)
_STATUSES: tuple[tuple[type[NodeError], Status], ...] = (
    (ReportInvalidError, Status.INVALID_ARGUMENT),
    (ReporterUnknownError, Status.NOT_AUTHORISED),
    (LedgerUnavailableError, Status.RESOURCE_LIMITATION),
)


def is_report(command: CommandSet) -> bool:
    """Say whether a request is a report of storage commitment, with what it has to say."""
    named = command.affected_sop_class_uid, command.affected_sop_instance_uid
    return (
        command.command == Command.N_EVENT_REPORT_RQ
        and command.has_data_set
        and named == (PUSH_MODEL.encode(), PUSH_MODEL_INSTANCE.encode())
    )


def read(information: Callable[[], Dataset]) -> CommitmentReport:
    """Return the report that a peer's Event Information holds; it is decoded here.

    Raises
    ------
    ReportInvalidError
        It cannot be decoded or names no transaction.
    """
    try:
        ds = information()
        transaction_uid = str(ds.TransactionUID)
        committed = [
            str(item.ReferencedSOPInstanceUID) for item in ds.get("ReferencedSOPSequence") or ()
        ]
        failures = {
            str(item.ReferencedSOPInstanceUID): int(
                item.get("FailureReason", Status.PROCESSING_FAILURE)
            )
            for item in ds.get("FailedSOPSequence") or ()
        }
    except _UNREADABLE as error:
        raise ReportInvalidError(reason="its data set cannot be read") from error
    return CommitmentReport(
        transaction_uid=transaction_uid, committed=frozenset(committed), failures=failures
    )


def answer(
    information: Callable[[], Dataset], save: Callable[[CommitmentReport], CommitmentRow]
) -> int:
    """Take a report to the ledger; return the status for its sender, success once it is durable."""
    try:
        row = save(read(information))
    except NodeError as error:
        logs.get().warning("commitment.refused", code=error.code, sentence=str(error))
        return next(
            (status for kind, status in _STATUSES if isinstance(error, kind)),
            Status.PROCESSING_FAILURE,
        )
    failed = len(row.failures or {})
    logs.get().info(
        "commitment.reported",
        case_id=row.case_id,
        destination=row.destination,
        instance_count=len(row.sop_instance_uids) - failed,
        failed_count=failed,
    )
    return Status.SUCCESS
