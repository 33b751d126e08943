"""One association: pynetdicom keeps the state machine, C-STORE goes its own short way.

The fragments of a data set are handed to the spool as their PDUs arrive, on the thread that reads
the socket; nothing is held in memory, nothing is decoded, and a refused instance is read to its end
and forgotten, so that the association goes on. Every other message is pynetdicom's.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty
from typing import TYPE_CHECKING

from pynetdicom import _config, evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import DimseServiceType
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext

from node import logs, reports
from node.dimse import Command, CommandSet, Status, store_response
from node.errors import InstanceUnreadableError, NodeError, SopClassUnsupportedError
from node.receive.admission import Admission, called_ae_title, calling_ae_title
from node.receive.dataset import checked_uid
from node.receive.instance import IncomingInstance, Intake, Offer
from node.receive.statuses import status_of
from node.receive.transport import Pace, UpperLayer, WaitingSocket
from node.reports import PUSH_MODEL

if TYPE_CHECKING:
    from pynetdicom.ae import ApplicationEntity

_config.LOG_HANDLER_LEVEL = "none"  # the library would format every PDU, AE titles included

_LOOK_AROUND_S = 0.1
_MAX_COMMAND_BYTES = 2**16
_MAX_REPORT_BYTES = 2**20  # 5,000 objects; a case has a dozen
_IS_COMMAND, _IS_LAST = 1, 2  # PS3.8 E.2, message control header
_PDV_OVERHEAD = 6  # item length, context id and message control header count as the PDU's content
_VERIFICATION = "1.2.840.10008.1.1"


class _ProtocolError(Exception):
    """The peer broke the rules of PS3.7 or PS3.8; the association cannot go on."""


@dataclass(slots=True, kw_only=True)
class _Store:
    """A C-STORE request and what becomes of its data set: an instance that arrives, or a refusal.

    Nothing but an `IncomingInstance` that was kept leads to success.
    """

    context_id: int
    command: CommandSet
    content: IncomingInstance | NodeError

    def write(self, fragment: memoryview) -> None:
        """Pass a fragment on; those of a refused instance are forgotten."""
        if isinstance(self.content, IncomingInstance):
            try:
                self.content.write(fragment)
            except NodeError as error:
                self.discard()
                self.content = error

    def discard(self) -> None:
        """Leave no temporary file behind."""
        if isinstance(self.content, IncomingInstance):
            self.content.discard()


@dataclass(slots=True, kw_only=True)
class _Report:
    """An N-EVENT-REPORT whose data set arrives; the library puts it together."""

    context_id: int
    byte_count: int = 0


class _Messages(DIMSEServiceProvider):
    """Messages of one association; called on the thread that reads its socket."""

    def __init__(self, assoc: Association, upper_layer: UpperLayer, intake: Intake) -> None:
        super().__init__(assoc)
        self._upper_layer = upper_layer
        upper_layer.take = self._take
        upper_layer.wake_by(lambda: self.msg_queue.put((None, None)))
        self._intake = intake
        self._command = bytearray()
        self._store: _Store | None = None
        self._report: _Report | None = None
        self._pace = Pace()
        self._is_over = False
        self._log = logs.get().bind()  # found once, not for each instance
        self.stored_count = 0
        self.stored_bytes = 0
        self.study_instance_uids: set[str] = set()

    def get_msg(
        self,
        block: bool = False,  # noqa: FBT001, FBT002 - the library's signature
    ) -> tuple[None, None] | tuple[int, DimseServiceType]:
        """Return the next message for the library, or none; meanwhile its thread sleeps."""
        if block:
            return super().get_msg(block=True)
        try:
            return self.msg_queue.get(timeout=_LOOK_AROUND_S)
        except Empty:
            return None, None

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take the fragments of a PDU that the library has read."""
        for context_id, fragment in primitive.presentation_data_value_list:
            self._take(context_id, memoryview(fragment))

    def _take(self, context_id: int, fragment: memoryview) -> None:
        if self._is_over:
            return
        try:
            self._receive(context_id, fragment)
            if not (self._store or self._report or self._command):
                self._pace.restart()
        except _ProtocolError as error:
            self._is_over = True
            logs.get().warning("association.violated", reason=str(error))
            self.discard()
            self.dul.event_queue.put("Evt19")  # PS3.8 9.2: unexpected PDU, the provider aborts

    def discard(self) -> None:
        """Forget what has not arrived whole."""
        if self._store is not None:
            self._store.discard()
            self._store = None
        self._command.clear()

    def _receive(self, context_id: int, fragment: memoryview) -> None:
        if not fragment:
            raise _ProtocolError("a fragment without a control header")
        if self._pace.is_too_slow(len(fragment), self.assoc.network_timeout):
            raise _ProtocolError("a message that hardly moves")
        content = fragment[1:]
        is_last = bool(fragment[0] & _IS_LAST)
        if fragment[0] & _IS_COMMAND:
            self._receive_command(context_id, content, is_last=is_last)
        elif self._report is not None and self._report.context_id == context_id:
            self._pass_report(self._report, fragment, is_last=is_last)
        elif self._store is None or self._store.context_id != context_id:
            raise _ProtocolError("a data set that no command announced")
        else:
            self._store.write(content)
            if is_last:
                self._answer(self._store)

    def _receive_command(self, context_id: int, content: memoryview, *, is_last: bool) -> None:
        if self._store is not None or self._report is not None:
            raise _ProtocolError("a command before the data set of the last one is complete")
        self._command += content
        if len(self._command) > _MAX_COMMAND_BYTES:
            raise _ProtocolError("a command set without end")
        if is_last:
            encoded = bytes(self._command)
            self._command.clear()
            self._begin(context_id, encoded)

    def _begin(self, context_id: int, encoded: bytes) -> None:
        context = self.assoc._accepted_cx.get(context_id)  # noqa: SLF001 - the public form sorts
        try:
            command = CommandSet.decode(encoded)
        except ValueError as error:
            raise _ProtocolError("a command set that cannot be read") from error
        if context is None:
            raise _ProtocolError("a presentation context that was not accepted")
        if command.command == Command.C_ECHO_RQ and not command.has_data_set:
            self._leave_to_library(context_id, encoded)
        elif command.command == Command.C_STORE_RQ:
            self._begin_store(context_id, context, command)
        elif context.abstract_syntax == PUSH_MODEL and reports.is_report(command):
            self._leave_to_library(context_id, encoded)
            self._report = _Report(context_id=context_id)
        else:
            raise _ProtocolError("an operation that no presentation context offers")

    def _leave_to_library(self, context_id: int, encoded: bytes) -> None:
        super().receive_primitive(_pdata(context_id, _IS_COMMAND | _IS_LAST, encoded))

    def _pass_report(self, report: _Report, fragment: memoryview, *, is_last: bool) -> None:
        report.byte_count += len(fragment)
        if report.byte_count > _MAX_REPORT_BYTES:
            raise _ProtocolError("a report without end")
        super().receive_primitive(_pdata(report.context_id, fragment[0], bytes(fragment[1:])))
        if is_last:
            self._report = None

    def _begin_store(
        self, context_id: int, context: PresentationContext, command: CommandSet
    ) -> None:
        store = _Store(
            context_id=context_id, command=command, content=self._content(context, command)
        )
        if command.has_data_set:
            self._store = store
        else:
            self._answer(store)

    def _content(
        self, context: PresentationContext, command: CommandSet
    ) -> IncomingInstance | NodeError:
        """Return a place for the data set, or why none is given."""
        try:
            offer = self._offer(context, command)
            if command.has_data_set:
                return self._intake.begin(offer)
        except NodeError as error:
            return error
        return InstanceUnreadableError(reason="there is no data set")

    def _offer(self, context: PresentationContext, command: CommandSet) -> Offer:
        sop_class_uid = checked_uid(command.affected_sop_class_uid, "AffectedSOPClassUID")
        if sop_class_uid != context.abstract_syntax or sop_class_uid == _VERIFICATION:
            raise SopClassUnsupportedError
        return Offer(
            sop_class_uid=sop_class_uid,
            sop_instance_uid=checked_uid(
                command.affected_sop_instance_uid, "AffectedSOPInstanceUID"
            ),
            transfer_syntax_uid=str(context.transfer_syntax[0]),
            calling_ae_title=calling_ae_title(self.assoc),
            called_ae_title=called_ae_title(self.assoc),
            calling_address=str(self.assoc.requestor.address or ""),
        )

    def _answer(self, store: _Store) -> None:
        """Make the instance durable where nothing speaks against it, then send the response."""
        self._store = None
        content = store.content
        if isinstance(content, IncomingInstance):
            try:
                self._keep(content)
            except NodeError as error:
                self._refuse(store, error)
            else:
                self._send(store.context_id, store_response(store.command, Status.SUCCESS))
        else:
            self._refuse(store, content)

    def _keep(self, incoming: IncomingInstance) -> None:
        started = time.monotonic()
        with self._upper_layer.busy():
            self.study_instance_uids.add(self._intake.keep(incoming).study_instance_uid)
        self.stored_count += 1
        self.stored_bytes += incoming.byte_count
        self._log.debug(
            "instance.stored",
            byte_count=incoming.byte_count,
            duration_s=round(time.monotonic() - started, 4),
        )

    def _refuse(self, store: _Store, error: NodeError) -> None:
        status = status_of(error)
        self._intake.count(error)
        logs.get().warning(
            "instance.refused", code=error.code, sentence=str(error), status=f"0x{status:04X}"
        )
        response = store_response(
            store.command,
            status,
            comment=f"{error.code}: {error.evidence.get('reason', error)}",  # 64 characters fit
            echoes_uids=not isinstance(error, InstanceUnreadableError),
        )
        self._send(store.context_id, response)

    def _send(self, context_id: int, command: bytes) -> None:
        length = max(self.maximum_pdu_size - _PDV_OVERHEAD, 1) if self.maximum_pdu_size else 2**16
        for begin in range(0, len(command), length):
            is_last = begin + length >= len(command)
            header = _IS_COMMAND | (_IS_LAST if is_last else 0)
            self._upper_layer.send_data(context_id, header, command[begin : begin + length])


def _pdata(context_id: int, header: int, content: bytes) -> P_DATA:
    primitive = P_DATA()
    value = [context_id, bytes([header]) + content]
    primitive.presentation_data_value_list = [value]  # type: ignore[list-item] # a list, it checks
    return primitive


class StoreAssociation(Association):
    """An accepted connection.

    Parameters
    ----------
    ae : ApplicationEntity
        Ours, with its limits and timeouts.
    connection : socket
        As accepted.
    intake : Intake
        Takes the instances.
    admission : Admission
        Says who is turned away.
    """

    def __init__(
        self,
        ae: ApplicationEntity,
        connection: socket.socket,
        intake: Intake,
        admission: Admission,
    ) -> None:
        super().__init__(ae, MODE_ACCEPTOR)
        self._admission = admission
        upper_layer = UpperLayer(self)
        self._intake = intake
        self._is_dropped = False
        self._messages = _Messages(self, upper_layer, intake)
        self.dimse = self._messages
        self.dul = upper_layer
        self.acse_timeout = ae.acse_timeout  # again, for the new upper layer
        self.network_timeout = ae.network_timeout
        self.set_socket(WaitingSocket(self, connection, pdu_timeout_s=ae.network_timeout))
        self.bind(evt.EVT_REJECTED, _log_rejection)
        self.bind(evt.EVT_N_EVENT_REPORT, self._take_report)
        self.bind(evt.EVT_REQUESTED, self._turn_away)

    def _turn_away(self, event: evt.Event) -> None:
        """Reject a peer that may not come in just now."""
        del event
        refusal = self._admission.refusal(self)
        if refusal is not None:
            error, how = refusal
            self._admission.count(error)
            logs.get().warning("association.rejected", code=error.code, reason=str(error))
            self.acse.send_reject(*how)
            self.kill()

    def run_reactor(self) -> None:
        """Serve the peer until the association ends, however it ends."""
        started = time.monotonic()
        logs.get().debug("association.opened")
        try:
            super().run_reactor()
        finally:
            self._messages.discard()
            self._hint()
            logs.get().info(
                "association.closed",
                instance_count=self._messages.stored_count,
                byte_count=self._messages.stored_bytes,
                duration_s=round(time.monotonic() - started, 3),
            )

    def _hint(self) -> None:
        """Say that the peer has hung up; one that was cut off has said nothing by it."""
        studies = self._messages.study_instance_uids
        if not (self.is_released and studies):
            return
        try:
            self._intake.released(studies)
        except NodeError as error:
            logs.get().warning("release.lost", code=error.code, sentence=str(error))

    def _take_report(self, event: evt.Event) -> tuple[int, None]:
        """Answer a report of storage commitment; success once it is durable."""
        save = partial(self._intake.reported, ae_title=calling_ae_title(self))
        return reports.answer(lambda: event.event_information, save), None

    @property
    def is_silent(self) -> bool:
        """Whether it is open and nobody has asked for an association over it yet."""
        return self.requestor.primitive is None and not self._is_dropped

    def drop(self) -> None:
        """Close a connection over which nothing was asked."""
        self._is_dropped = True
        self._shut_down(socket.SHUT_RDWR)

    def hang_up(self) -> None:
        """End the association at once: abort, and do not wait for the peer."""
        self.abort(block=False)
        self._shut_down(socket.SHUT_RD)  # wakes a thread in mid-PDU

    def _shut_down(self, how: int) -> None:
        sock = self.dul.socket
        if sock is not None and sock.socket is not None:
            with suppress(OSError):  # the peer was faster
                # Of a TLS socket its own method would forget the keys first.
                socket.socket.shutdown(sock.socket, how)


def _log_rejection(event: evt.Event) -> None:
    del event
    logs.get().warning(
        "association.rejected", reason="AE title not allowed or too many associations"
    )
