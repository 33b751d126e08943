"""Below the messages: the socket of an association and the reading of its PDUs.

pynetdicom polls its sockets every millisecond, waits for a slow peer for ever and takes PDUs of any
length; here a socket waits, a PDU has a deadline, and its length has a limit. Data of an open
association go from the socket to the messages without the library's queues and objects, which took
two thirds of the time; every other PDU, and every other state, is the library's.

References
----------
DICOM PS3.8 9.1 (TCP), 9.3 (PDUs).
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Queue
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import InvalidEventError
from pynetdicom.pdu import _PDUType
from pynetdicom.transport import AssociationSocket

from node import logs, pace

WAIT_S = 0.005  # for the peer or for our other thread, whichever speaks first

_ASSOCIATE_RQ, _P_DATA = 0x01, 0x04  # PS3.8 9.3.1
_PDU_HEADER = struct.Struct(">BxL")
_PDV_HEADER = struct.Struct(">LB")  # length, which counts what follows it; context id
_PDU_AND_PDV = struct.Struct(">BxLLBB")
_OPEN, _CLOSED, _INVALID = "Sta6", "Evt17", "Evt19"  # PS3.8 9.2
_AE_TITLES = slice(10, 42)  # PS3.8 Table 9-11: called, then calling, 16 bytes each
_AE_TITLE_LENGTH = 16
_FIRST_PRINTABLE, _LAST_PRINTABLE = 0x20, 0x7E
_MAX_OTHER_PDU_BYTES = 2**20  # an A-ASSOCIATE-RQ of 128 contexts in all syntaxes has 0.2 MB


def legible_ae_titles(encoded: bytes) -> bytes:
    """Return called and calling AE title (32 bytes) with every illegal character replaced.

    A peer with an odd AE title is served like any other, but nothing of the oddity passes into
    the library, the ledger or a log. The replacement is a question mark, and a blank title becomes
    one, so that none turns into a title that is allowed.
    """
    legible = bytes(
        byte if _FIRST_PRINTABLE <= byte <= _LAST_PRINTABLE and byte != ord("\\") else ord("?")
        for byte in encoded
    )
    titles = legible[:_AE_TITLE_LENGTH], legible[_AE_TITLE_LENGTH:]
    return b"".join(title if title.strip() else b"?".ljust(len(title)) for title in titles)


class Pace:
    """How fast a message comes: a peer that sends a byte now and then is never idle."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began: float | None = None
        self._byte_count = 0

    def restart(self) -> None:
        """Let the next fragment begin a message."""
        self._began = None

    def is_too_slow(self, byte_count: int, patience_s: float | None) -> bool:
        """Return whether a message of which more has come will take for ever.

        Parameters
        ----------
        byte_count : int
            What has come now.
        patience_s : float or None
            How long a peer may be silent, see `node.pace`; None waits for ever.
        """
        now = self._clock()
        if self._began is None:
            self._began, self._byte_count = now, 0
        self._byte_count += byte_count
        if patience_s is None:
            return False
        return pace.is_too_slow(self._byte_count, now - self._began, patience_s)


class WaitingSocket(AssociationSocket):
    """A socket that waits for its peer instead of polling, and for no peer for ever.

    Whatever has come is read at once, PDUs are taken out of that: a read for each header and each
    content, with its own time-out, took longer than all the bytes.
    """

    def __init__(
        self, assoc: Association, client_socket: socket.socket, *, pdu_timeout_s: float | None
    ) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self._pdu_timeout_s = pdu_timeout_s
        self._buffer = memoryview(bytearray(_PDU_HEADER.size + self.longest))
        self._begin = self._end = 0  # of what has been read and not taken
        client_socket.settimeout(WAIT_S)

    @property
    def ready(self) -> bool:
        """Return whether data can be read, after a short wait when nothing else is to be done."""
        if self.socket is None:
            time.sleep(WAIT_S)
        elif self._begin < self._end:
            return True
        elif self.provider_queue.empty() and self.event_queue.empty():
            return self._has_come()
        return super().ready

    def _has_come(self) -> bool:
        try:
            self._read()
        except TimeoutError:
            return False
        except (OSError, ValueError):  # what the library takes for a closed connection
            self.event_queue.put(_CLOSED)
            return False
        return True  # that the peer has closed is found out by whoever takes it

    def recv(self, nr_bytes: int) -> bytearray:
        """Return that many bytes, or fewer when the peer closes.

        Raises
        ------
        OSError
            The PDU is longer than any that was agreed, or does not arrive in time; the caller
            closes the connection.
        """
        if nr_bytes > max(self.longest, _MAX_OTHER_PDU_BYTES):
            raise OSError("a PDU that cannot be taken")
        self.fill(nr_bytes)
        return bytearray(self.take(nr_bytes))

    @property
    def longest(self) -> int:
        """The length of the longest P-DATA-TF that was agreed."""
        return int(self.assoc.ae.maximum_pdu_size)

    def fill(self, count: int) -> bool:
        """Wait until that many bytes can be taken; False when the peer closes before.

        Raises
        ------
        OSError
            They do not come in time.
        """
        if self._begin + count > len(self._buffer):
            self._move(count)
        patience_s = self._pdu_timeout_s
        if not self.assoc.is_established:  # the timer of the request does not run in mid-PDU
            patience_s = self.assoc.acse_timeout
        began = time.monotonic()
        while self._end - self._begin < count:
            if patience_s is not None and time.monotonic() - began > patience_s:
                raise TimeoutError
            try:
                if not self._read():
                    return False
            except TimeoutError:
                continue
        return True

    def peek(self, count: int) -> memoryview:
        """Return the next bytes that have come; they stay where they are until more is read."""
        return self._buffer[self._begin : min(self._begin + count, self._end)]

    def take(self, count: int) -> memoryview:
        """Return the next bytes, and go on."""
        taken = self.peek(count)
        self._begin += len(taken)
        return taken

    def _read(self) -> int:
        """Read what there is, nothing where the peer has closed; wait for it a moment."""
        sock = self.socket
        if sock is None:
            raise OSError("no connection")
        if self._begin == self._end:
            self._begin = self._end = 0
        count = sock.recv_into(self._buffer[self._end :])
        self._end += count
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return count

    def _move(self, count: int) -> None:
        """Make room for so many bytes from the buffer's beginning."""
        rest = bytes(self._buffer[self._begin : self._end])
        if count > len(self._buffer):
            self._buffer = memoryview(bytearray(count))
        self._buffer[: len(rest)] = rest
        self._begin, self._end = 0, len(rest)

    def send(self, bytestream: bytes) -> None:
        """Send all of it; a peer that does not take it in time has closed the connection."""
        sock = self.socket
        if sock is not None:
            sock.settimeout(self._pdu_timeout_s)
            super().send(bytestream)
            sock.settimeout(WAIT_S)


class _Telling(Queue[Any]):
    """A queue that tells when something is put into it."""

    tell: Callable[[], None]

    def put(self, item: object, *options: Any) -> None:  # noqa: ANN401 - the library's own
        """Put it in, and tell."""
        super().put(item, *options)
        self.tell()


class UpperLayer(DULServiceProvider):
    """The library's upper layer, given legible AE titles, a short way for data, and an end.

    Parameters
    ----------
    assoc : Association
        Whose connection it serves.

    Attributes
    ----------
    take : callable
        Is given the presentation data values of an open association as they come: context id, and
        message control header and fragment, which are only there during the call.
    """

    take: Callable[[int, memoryview], None]

    def __init__(self, assoc: Association) -> None:
        super().__init__(assoc)
        self._run_loop_delay = 0  # the socket waits
        self.to_user_queue = self._told = _Telling()
        self._is_busy = False

    def wake_by(self, wake: Callable[[], None]) -> None:
        """Say what is called when there is something for the association's own thread."""
        self._told.tell = wake

    def send_data(self, context_id: int, header: int, content: bytes) -> None:
        """Send one presentation data value at once; on the thread that reads the socket alone.

        References
        ----------
        DICOM PS3.8 9.3.5 P-DATA-TF PDU.
        """
        length = len(content) + 2  # context id and message control header
        head = _PDU_AND_PDV.pack(_P_DATA, length + 4, length, context_id, header)
        if self.socket is not None:
            self.socket.send(head + content)

    def _read_pdu_data(self) -> None:
        """Read a PDU; data of an open association are taken at once, as long as more come."""
        sock = self.socket
        if not isinstance(sock, WaitingSocket):
            super()._read_pdu_data()
            return
        while self.state_machine.current_state == _OPEN and self._takes_data(sock):
            self._idle_timer.restart()
            is_asked = not (self.event_queue.empty() and self.to_provider_queue.empty())
            if is_asked or self._kill_thread or not sock.ready:
                return
        super()._read_pdu_data()

    def _takes_data(self, sock: WaitingSocket) -> bool:
        """Take a PDU of data; False leaves it to the library."""
        try:
            if not sock.fill(_PDU_HEADER.size):
                return False
            kind, length = _PDU_HEADER.unpack(sock.peek(_PDU_HEADER.size))
            if kind != _P_DATA or length > sock.longest:
                return False
            if sock.fill(_PDU_HEADER.size + length):
                self._take(sock.take(_PDU_HEADER.size + length)[_PDU_HEADER.size :])
            else:
                self.event_queue.put(_CLOSED)
        except OSError:
            self.event_queue.put(_CLOSED)
        return True

    def _take(self, data: memoryview) -> None:
        """Pass the presentation data values of a PDU on; all of them are whole, or none is."""
        at, values = 0, []
        while at < len(data):
            if len(data) - at < _PDV_HEADER.size:
                break
            length, context_id = _PDV_HEADER.unpack_from(data, at)
            end = at + 4 + length
            if end > len(data) or length < 1:
                break
            values.append((context_id, data[at + _PDV_HEADER.size : end]))
            at = end
        if at < len(data) or not values:
            self.event_queue.put(_INVALID)
            return
        for context_id, value in values:
            self.take(context_id, value)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Keep the association from being called idle while it is we who make the peer wait."""
        self._is_busy = True
        try:
            yield
        finally:
            self._idle_timer.restart()
            self._is_busy = False

    def idle_timer_expired(self) -> bool:
        """Return whether the peer has been silent for too long."""
        return not self._is_busy and super().idle_timer_expired()

    def run_reactor(self) -> None:
        """Serve the connection until it ends."""
        try:
            super().run_reactor()
        except InvalidEventError:
            # The peer broke the rules while our other thread was answering: its answer no longer
            # fits the state. The connection is closed when the association sees this thread end.
            logs.get().warning("association.violated", reason="a PDU that does not fit the state")
        finally:
            # Wakes a thread that still waits for an association request: without it each port
            # probe would hold a connection until the time-out.
            self.to_user_queue.put(None)  # what a time-out gives too

    def _decode_pdu(self, bytestream: bytearray) -> tuple[_PDUType, str]:
        kind = bytestream[0]
        if kind == _ASSOCIATE_RQ:
            bytestream[_AE_TITLES] = legible_ae_titles(bytes(bytestream[_AE_TITLES]))
        decoded, event = super()._decode_pdu(bytestream)
        if kind != _P_DATA:
            # What the library decodes but cannot express, such as an even context id or an unknown
            # source of an abort, must fail here, where it aborts the association; later it would
            # end this thread.
            decoded.to_primitive()
        return decoded, event
