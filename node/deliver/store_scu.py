"""C-STORE of a result to a DIMSE destination, and C-ECHO to try it.

The file travels as it is: its SOP class is proposed with its own transfer syntax alone, and the
encoded data set goes onto the wire without being decoded.
"""

from __future__ import annotations

import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import _config, build_role, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at run time
from pynetdicom.transport import AddressInformation, AssociationSocket

from node import dimse, tls
from node.cases import DeliveryReceipt, EncodedObject
from node.deliver.receipt import receipt_of
from node.dimse import Status
from node.errors import PeerRefusedError, PeerUnavailableError
from node.peers import Destination
from node.requesting import RequestingEntity

# Send files from disk as they are encoded; the library's default decodes and encodes them anew.
_config.STORE_SEND_CHUNKED_DATASET = True

HOLDS_THE_OBJECT = dimse.STORE_WARNINGS | {Status.SUCCESS, Status.DUPLICATE_SOP_INSTANCE}
"""Answers after which the peer has the object. A duplicate counts: our UIDs are derived from the
case, so what the peer holds under one is this result, stored by an attempt whose answer was lost.
"""

_SLOWEST_LINK_BYTES_PER_S = 100_000
"""The wait for an answer begins when sending begins, hence it grows with the object."""
_LEFTOVER_JOIN_S = 5.0
_MAX_PDU_BYTES = 131072  # of what comes by C-GET; the library's 16 kB take twice as long


def send(
    seg: EncodedObject,
    file: Path,
    destination: Destination,
    *,
    calling_ae_title: str,
    attempt: int,
) -> DeliveryReceipt:
    """Return the receipt of one instance that the destination has stored.

    Parameters
    ----------
    seg : EncodedObject
        What the file holds.
    file : Path
        A DICOM file (PS3.10).
    destination : Destination
        Where to; its `timeout_s` bounds connecting, negotiating and every wait for progress.
    calling_ae_title : str
        Who we are.
    attempt : int
        Which try this is, for the receipt.

    Raises
    ------
    PeerUnavailableError
        The peer cannot be reached, ends the association, stays silent, or lacks resources.
    PeerRefusedError
        The peer does not take the SOP class in this transfer syntax, or answers with a failure.
    """
    patience_s = destination.timeout_s + seg.byte_count / _SLOWEST_LINK_BYTES_PER_S
    contexts = [(UID(seg.sop_class_uid), [UID(seg.transfer_syntax_uid)])]
    with open_association(destination, calling_ae_title, contexts, patience_s) as assoc:
        started = time.monotonic()
        try:
            answer = assoc.send_c_store(file)
        except ValueError as error:  # only another transfer syntax was accepted
            raise _refused(destination, "context rejected") from error
        except RuntimeError as error:  # ended by the peer right after it had been accepted
            raise _unavailable(destination, "association ended") from error
        status = status_of(answer, destination, time.monotonic() - started, patience_s)
    if dimse.is_out_of_resources(status):
        raise _unavailable(destination, f"out of resources, status 0x{status:04X}")
    if status not in HOLDS_THE_OBJECT:
        raise _refused(destination, f"0x{status:04X}")
    return receipt_of(seg, destination, f"0x{status:04X}", attempt)


def echo(destination: Destination, *, calling_ae_title: str) -> None:
    """Ask the destination whether it is there (C-ECHO).

    Raises
    ------
    PeerUnavailableError, PeerRefusedError
        As for `send`.
    """
    implementation_of(destination, calling_ae_title=calling_ae_title)


def implementation_of(destination: Destination, *, calling_ae_title: str) -> str:
    """Return the Implementation Class UID of a peer that answers C-ECHO; raises as `echo` does."""
    contexts = [(Verification, [ImplicitVRLittleEndian, ExplicitVRLittleEndian])]
    patience_s = destination.timeout_s
    with open_association(destination, calling_ae_title, contexts, patience_s) as assoc:
        started = time.monotonic()
        try:
            answer = assoc.send_c_echo()
        except RuntimeError as error:
            raise _unavailable(destination, "association ended") from error
        status = status_of(answer, destination, time.monotonic() - started, patience_s)
        implementation = str(assoc.acceptor.implementation_class_uid)
    if status != Status.SUCCESS:
        raise _refused(destination, f"0x{status:04X}")
    return implementation


def _unavailable(destination: Destination, reason: str) -> PeerUnavailableError:
    return PeerUnavailableError(destination=destination.name, reason=reason)


def _refused(destination: Destination, status: str) -> PeerRefusedError:
    return PeerRefusedError(destination=destination.name, status=status)


def status_of(answer: Dataset, destination: Destination, waited_s: float, patience_s: float) -> int:
    """Return the status of an answer; an empty one means that none came.

    Raises
    ------
    PeerUnavailableError
        None came.
    """
    if "Status" in answer:
        return int(answer.Status)
    if waited_s >= patience_s:
        raise _unavailable(destination, f"no answer within {patience_s:.0f} s")
    raise _unavailable(destination, "association ended without an answer")


@contextmanager
def open_association(
    destination: Destination,
    calling_ae_title: str,
    contexts: list[tuple[UID, list[UID]]],
    patience_s: float,
    handlers: Sequence[evt.EventHandlerType] = (),
    *,
    stored_here: Sequence[UID] = (),
) -> Iterator[Association]:
    """Open an association, release it afterwards, and leave no thread behind.

    `handlers` answer what the peer asks meanwhile; `stored_here` are storage classes among the
    `contexts` that it may send (C-GET).
    """
    line = _Line(destination)
    entity = _Entity(calling_ae_title)
    entity.line = line
    tls_args = (tls.client_context(destination), destination.host) if destination.tls else None
    entity.connection_timeout = entity.acse_timeout = destination.timeout_s
    entity.dimse_timeout = patience_s
    entity.implementation_class_uid = UID(dimse.IMPLEMENTATION_CLASS_UID)
    entity.implementation_version_name = dimse.IMPLEMENTATION_VERSION_NAME
    for sop_class, transfer_syntaxes in contexts:
        entity.add_requested_context(sop_class, transfer_syntaxes)
    try:
        assoc = entity.associate(
            destination.host,
            destination.port,
            ae_title=destination.ae_title,
            evt_handlers=[(evt.EVT_CONN_OPEN, line.opened), *handlers],
            ext_neg=[build_role(one, scp_role=True) for one in stored_here],
            max_pdu=_MAX_PDU_BYTES,
            tls_args=tls_args,
        )
    except OSError as error:  # the name cannot be resolved, or no socket can be had
        raise _unavailable(destination, "address not found") from error
    try:
        line.check_established(assoc)
        yield assoc
        _release(assoc, destination.timeout_s)
    finally:
        _end(assoc)


def _release(assoc: Association, timeout_s: float) -> None:
    """Release an association; abort it where the library waits for its own thread without end.

    It may, when the peer's request arrives in this very moment.
    """
    guard = threading.Timer(timeout_s, assoc.abort)
    guard.start()
    try:
        assoc.release()
    finally:
        guard.cancel()
        guard.join()


class _Socket(AssociationSocket):
    """The library's socket; it leaves one open that was never connected or that the peer reset."""

    line: _Line

    def _shutdown_socket(self) -> None:
        held, error = self.socket, sys.exception()
        if isinstance(error, ssl.SSLError):  # the library keeps it to itself
            self.line.tls_failed(error)
        super()._shutdown_socket()
        if held is not None:
            held.close()


class _Entity(RequestingEntity):
    line: _Line

    def _socket(self, assoc: Association, address: AddressInformation) -> AssociationSocket:
        held = _Socket(assoc, address=address)
        held.line = self.line
        return held


class _Line:
    """How far the connection to a destination came."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._opened_at: float | None = None
        self._tls_reason = ""

    def tls_failed(self, error: ssl.SSLError) -> None:
        """Note why a handshake ended, without the names that its words may hold."""
        words = str(getattr(error, "verify_message", "")).partition(",")[0]
        self._tls_reason = words or error.reason or "handshake"

    def opened(self, event: Event) -> None:
        """Bound every wait on the connection, and send the last short packet without delay.

        The library leaves a connected socket without a time limit: a peer that stops reading, or
        that sends half a PDU, would hold its thread for ever.
        """
        self._opened_at = time.monotonic()
        connected = cast("socket.socket", cast("AssociationSocket", event.assoc.dul.socket).socket)
        connected.settimeout(self._destination.timeout_s)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def check_established(self, assoc: Association) -> None:
        """Raise what stood in the way of the association, if anything did."""
        if assoc.is_established:
            return
        if assoc.rejected_contexts:
            raise _refused(self._destination, "context rejected")
        raise _unavailable(self._destination, self._reason(assoc))

    def _reason(self, assoc: Association) -> str:
        timeout_s = self._destination.timeout_s
        if self._tls_reason:
            return f"TLS failed: {self._tls_reason}"
        if self._opened_at is None:
            return "no connection"
        if assoc.is_rejected:  # the standard's own words, from the library's table
            answer = cast("A_ASSOCIATE", assoc.acceptor.primitive)
            return f"association rejected: {answer.reason_str.lower()}"
        if time.monotonic() - self._opened_at >= timeout_s:
            return f"no answer within {timeout_s:.0f} s"
        return "association ended while it was negotiated"


def _end(assoc: Association) -> None:
    if assoc.is_established:
        assoc.abort()
    assoc.dul.kill_dul()
    for thread in (assoc.dul, assoc):
        if thread.ident is not None:
            thread.join(_LEFTOVER_JOIN_S)
