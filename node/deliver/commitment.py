"""Storage commitment: a destination is asked to keep what it has stored.

The question is an N-ACTION; the answer comes as N-EVENT-REPORT, either at once over the same
association or later over one that the destination opens to the receive role. Both lead to the
ledger, so that nothing but the ledger has to be looked at.

References
----------
DICOM PS3.4 Annex J (Storage Commitment Push Model), PS3.3 C.14 (Failure Reason).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import N_EVENT_REPORT_RQ, N_EVENT_REPORT_RSP

from node import reports
from node.cases import CommitmentReport, EncodedObject
from node.commitments import Commitments
from node.deliver import store_scu
from node.dimse import Status
from node.errors import (
    CommitmentFailedError,
    CommitmentMissingError,
    CommitmentRefusedError,
    PeerRefusedError,
    PeerUnavailableError,
)
from node.peers import Destination
from node.rows import CommitmentRow

SAME_ASSOCIATION_S = 3.0
"""How long the association is kept open for an answer; a worker waits meanwhile."""
_LOOK_S = 0.1
_REQUEST = 1  # PS3.4 J.3.2.1.1: Action Type ID
_DUPLICATE_TRANSACTION_UID = 0x0131  # a Failure Reason only, PS3.3 C.14; the next one is another
_PASSING = {
    int(Status.NO_SUCH_SOP_INSTANCE),  # stored again before the next question
    int(Status.RESOURCE_LIMITATION),
    _DUPLICATE_TRANSACTION_UID,
}


def conclude(case_id: str, destination: Destination, ledger: Commitments) -> None:
    """Draw the consequence of the last question, once.

    Nothing follows from one that is committed, still open, or was never taken.

    Raises
    ------
    CommitmentMissingError
        No report came in time.
    CommitmentFailedError
        Objects have to be stored, or at least asked for, again.
    CommitmentRefusedError
        The destination will not keep an object.
    """
    last = ledger.newest_commitment(case_id, destination.name)
    if last is None or last.concluded_at is not None:
        return
    if last.reported_at is None and not _is_overdue(last, destination):
        return
    ledger.conclude(last.transaction_uid)
    if last.reported_at is None:
        raise CommitmentMissingError(
            destination=destination.name, timeout_s=destination.commitment_timeout_s
        )
    _check_failures(last)


def _is_overdue(row: CommitmentRow, destination: Destination) -> bool:
    if row.asked_at is None:
        return False
    due = row.asked_at + timedelta(seconds=destination.commitment_timeout_s)
    return datetime.now(UTC) >= due


def _check_failures(row: CommitmentRow) -> None:
    reasons = set((row.failures or {}).values())
    if not reasons:
        return
    final = reasons - _PASSING
    kind = CommitmentRefusedError if final else CommitmentFailedError
    status = ", ".join(f"0x{reason:04X}" for reason in sorted(final or reasons))
    raise kind(destination=row.destination, count=len(row.failures or {}), status=status)


def request(
    objects: Sequence[EncodedObject],
    destination: Destination,
    ledger: Commitments,
    *,
    calling_ae_title: str,
    boundary: Callable[[str], None] = lambda _: None,
) -> None:
    """Ask a destination to keep objects of one case; wait briefly for its report.

    A report that comes later, or never, is for the next attempt to `conclude` from.

    Parameters
    ----------
    objects : sequence of EncodedObject
        All of one case, stored there before; at least one.
    destination : Destination
        Whom to ask; its `timeout_s` bounds every step of the association.
    ledger : Commitments
        Takes the transaction before the question leaves, and the report before it is answered.
    calling_ae_title : str
        Who we are; where the destination sends a report that it opens an association for.
    boundary : callable
        Called between two steps.

    Raises
    ------
    PeerUnavailableError
        The peer cannot be reached, ends the association, stays silent, or lacks resources.
    CommitmentRefusedError
        It does not offer storage commitment, refuses the question, or reports so at once.
    CommitmentFailedError
        It reports at once that it lacks objects.
    """
    transaction_uid = ledger.begin_commitment(
        objects[0].case_id,
        destination.name,
        [one.sop_instance_uid for one in objects],
        ae_title=destination.ae_title,
    )
    boundary("deliver:asking")

    def _save(report: CommitmentReport) -> CommitmentRow:
        return ledger.save_report(report, ae_title=destination.ae_title)

    def _on_report(event: evt.Event) -> tuple[int, None]:
        return reports.answer(lambda: event.event_information, _save), None

    contexts = [(UID(reports.PUSH_MODEL), [ExplicitVRLittleEndian, ImplicitVRLittleEndian])]
    here = _Here()
    handlers: list[evt.EventHandlerType] = [
        (evt.EVT_N_EVENT_REPORT, _on_report),
        (evt.EVT_DIMSE_RECV, here.received),
        (evt.EVT_DIMSE_SENT, here.sent),
    ]
    try:
        with store_scu.open_association(
            destination, calling_ae_title, contexts, destination.timeout_s, handlers
        ) as assoc:
            _ask(assoc, _question(transaction_uid, objects), destination, len(objects))
            ledger.note_asked(transaction_uid)
            boundary("deliver:asked")
            here.wait(assoc, lambda: _is_answered(ledger, objects[0].case_id, destination))
    except PeerRefusedError as error:
        raise _refused(destination, len(objects), str(error.evidence["status"])) from error
    conclude(objects[0].case_id, destination, ledger)


def _question(transaction_uid: str, objects: Sequence[EncodedObject]) -> Dataset:
    ds = Dataset()
    ds.TransactionUID = transaction_uid
    ds.ReferencedSOPSequence = []
    for one in objects:
        item = Dataset()
        item.ReferencedSOPClassUID = one.sop_class_uid
        item.ReferencedSOPInstanceUID = one.sop_instance_uid
        ds.ReferencedSOPSequence.append(item)
    return ds


def _ask(assoc: Association, question: Dataset, destination: Destination, count: int) -> None:
    started = time.monotonic()
    try:
        answer, _ = assoc.send_n_action(
            question, _REQUEST, UID(reports.PUSH_MODEL), UID(reports.PUSH_MODEL_INSTANCE)
        )
    except RuntimeError as error:  # ended by the peer right after it had been accepted
        raise PeerUnavailableError(
            destination=destination.name, reason="association ended"
        ) from error
    waited_s = time.monotonic() - started
    status = store_scu.status_of(answer, destination, waited_s, destination.timeout_s)
    if status == Status.RESOURCE_LIMITATION:
        reason = f"out of resources, status 0x{status:04X}"
        raise PeerUnavailableError(destination=destination.name, reason=reason)
    if status != Status.SUCCESS:
        raise _refused(destination, count, f"0x{status:04X}")


def _refused(destination: Destination, count: int, status: str) -> CommitmentRefusedError:
    return CommitmentRefusedError(destination=destination.name, count=count, status=status)


def _is_answered(ledger: Commitments, case_id: str, destination: Destination) -> bool:
    last = ledger.newest_commitment(case_id, destination.name)
    return last is not None and last.reported_at is not None


class _Here:
    """A report that comes over the association of the question; told by the library's thread.

    Releasing an association while that thread still answers a report leaves the library in a state
    that does not end: the answer has to be on its way first.
    """

    def __init__(self) -> None:
        self._arriving = threading.Event()
        self._answered = threading.Event()

    def received(self, event: evt.Event) -> None:
        """Note that a report has arrived."""
        if isinstance(event.message, N_EVENT_REPORT_RQ):
            self._arriving.set()

    def sent(self, event: evt.Event) -> None:
        """Note that a report is being answered."""
        if isinstance(event.message, N_EVENT_REPORT_RSP):
            self._answered.set()

    def wait(self, assoc: Association, is_answered: Callable[[], bool]) -> None:
        """Leave the association open for a report, unless that comes another way meanwhile."""
        deadline = time.monotonic() + SAME_ASSOCIATION_S
        while assoc.is_established and time.monotonic() < deadline:
            if self._arriving.wait(_LOOK_S):
                self._answered.wait(SAME_ASSOCIATION_S)
                time.sleep(_LOOK_S)  # from the last handler to the library's own waiting
                return
            if is_answered():
                return
