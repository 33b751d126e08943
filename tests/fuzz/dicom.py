"""The DICOM port: whole conversations, and data sets over an association that goes on."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from random import Random
from typing import Final

from pydicom.uid import MRImageStorage

from tests.doors import (
    VERIFICATION,
    AbortedError,
    Door,
    Peer,
    command_set,
    encoded,
    make_instance,
    pdu,
    pdv,
)
from tests.fuzz import seeds
from tests.fuzz.mutation import mutated
from tests.fuzz.target import CrashError, Folder, HangError, Verdict
from tests.waiting import wait_until

_PATIENCE_S: Final = 20.0
_LIMIT_BYTES: Final = 2**20
_STATUSES: Final = {0x0000, 0xA700, 0xA900, 0xC000, 0xC111, 0x0122}
_PDUS: Final = tuple(struct.pack(">BBL", kind, 0, length) for kind in range(9) for length in (0, 4))


class _OpenDoor:
    """A receiver with its spool below a folder; notes threads of it that die."""

    def __init__(self, folder: Folder, *, idle_s: float) -> None:
        self.deaths: list[str] = []
        self._hook = threading.excepthook
        threading.excepthook = lambda crash: self.deaths.append(crash.exc_type.__name__)
        self.door = Door(folder.root, idle_timeout_s=idle_s, max_instance_bytes=_LIMIT_BYTES)

    def problems(self) -> list[str]:
        """Return what became of the receiver."""
        found = [f"a thread died: {name}" for name in self.deaths]
        try:
            wait_until(_no_association, _PATIENCE_S, "the associations to end")
            with Peer(self.door.port) as peer:
                if peer.echo().status != 0:
                    found.append("C-ECHO is not answered with success")
                peer.release()
        except (AbortedError, OSError, TimeoutError) as error:
            found.append(f"the door is shut: {error}")
        wait_until(_no_association, _PATIENCE_S, "the associations to end")
        files, rows = len(self.door.files()), self.door.row_count()
        if files != rows:
            found.append(f"{files} files for {rows} rows")
        return found

    def close(self) -> None:
        """Stop the receiver."""
        self.door.__exit__(None, None, None)
        threading.excepthook = self._hook


def _no_association() -> bool:
    return not any("AcceptorThread" in thread.name for thread in threading.enumerate())


class Conversations:
    """Bytes of a whole association, from the first PDU to the end of the connection.

    The input is the request, preceded by its length, and all that follows it.
    """

    name = "dicom-pdus"
    pools = 0

    def __init__(self, folder: Folder) -> None:
        self._open = _OpenDoor(folder, idle_s=_PATIENCE_S / 4)

    def make(self, rng: Random) -> bytes:
        """Return a conversation with something wrong in it."""
        request, rest = _conversation(rng)
        place = rng.random()
        if place < 0.3:
            request = mutated(request, rng, _PDUS)
        elif place < 0.65:
            at = rng.randrange(len(rest))  # in one of its PDUs, the length of which is right
            rest[at] = _with_its_length(mutated(rest[at], rng))
        else:
            rest = [mutated(b"".join(rest), rng, _PDUS)]
        said = b"".join(rest)
        return struct.pack(">L", len(request)) + request + said

    def give(self, content: bytes) -> Verdict:
        """Return whether anything was stored or verified."""
        length = int.from_bytes(content[:4], "big")
        request, rest = content[4 : 4 + length], content[4 + length :]
        address = ("127.0.0.1", self._open.door.port)
        answered = b""
        with socket.create_connection(address, _PATIENCE_S) as connection:
            try:
                with suppress(ConnectionError):
                    connection.sendall(request)
                    if request[:1] == b"\1" and _is_whole(request):
                        answered += connection.recv(65536)
                    connection.sendall(rest)
                    connection.shutdown(socket.SHUT_WR)
                with suppress(ConnectionError):
                    while piece := connection.recv(65536):
                        answered += piece
            except TimeoutError as error:
                raise HangError("neither an answer nor an end") from error
            except OSError:
                pass  # the door was faster
        if self._open.deaths:
            raise CrashError(f"a thread died: {self._open.deaths.pop()}")
        return Verdict.ACCEPTED if _SUCCESS in _joined(answered) else Verdict.REFUSED

    def problems(self) -> list[str]:
        """Return what became of the receiver."""
        return self._open.problems()

    def close(self) -> None:
        """Stop the receiver."""
        self._open.close()


_SUCCESS: Final = struct.pack("<HHLH", 0, 0x0900, 2, 0)


def _is_whole(request: bytes) -> bool:
    return len(request) >= 6 and int.from_bytes(request[2:6], "big") == len(request) - 6


def _with_its_length(one: bytes) -> bytes:
    return one[:2] + struct.pack(">L", max(len(one) - 6, 0)) + one[6:]


def _joined(answered: bytes) -> bytes:
    """Return what the P-DATA PDUs of an answer say, fragments joined."""
    said, at = b"", 0
    while at + 12 <= len(answered):
        length = int.from_bytes(answered[at + 2 : at + 6], "big")
        if answered[at] == 4:
            said += answered[at + 12 : at + 6 + length]  # the door sends one fragment a PDU
        at += 6 + length
    return said


def _conversation(rng: Random) -> tuple[bytes, list[bytes]]:
    """Return what a peer says to associate, and to verify, store and release."""
    peer = Peer.__new__(Peer)
    peer.contexts = Peer.contexts
    peer.max_length = rng.choice((0, 0, 1, 7, 4096, 2**32 - 1))
    peer.calling = rng.choice((b"PEER", b"../../x", b"A\\B", b"\xff" * 16))
    peer.called = b"NEUROSEG"
    ds = make_instance(PixelData=bytes(64))
    numbers = {0x0110: struct.pack("<H", rng.randrange(2**16))}
    store = command_set(
        {
            0x0002: MRImageStorage.encode(),
            0x0100: struct.pack("<H", 1),
            **numbers,
            0x0800: struct.pack("<H", 0),
            0x1000: ds.SOPInstanceUID.encode(),
        }
    )
    echo = command_set(
        {
            0x0002: VERIFICATION.encode(),
            0x0100: struct.pack("<H", 0x30),
            **numbers,
            0x0800: struct.pack("<H", 0x0101),
        }
    )
    data = encoded(ds)
    middle = rng.randrange(len(data))
    pieces = [pdv(1, 3, store), pdv(1, 0, data[:middle]), pdv(1, 2, data[middle:])]
    if rng.random() < 0.4:
        pieces.insert(rng.randrange(4), pdv(3, 3, echo))
    if rng.random() < 0.2:
        rng.shuffle(pieces)
    end = rng.choice((pdu(5, bytes(4)), pdu(7, bytes(4)), b""))
    return peer.association_request(), [*pieces, *([end] if end else [])]


class DataSets:
    """Data sets by C-STORE; one association takes them all and refuses what is wrong.

    The input is the number of the presentation context, the SOP Instance UID of the command,
    preceded by its length, and the data set.
    """

    name = "dicom-data-sets"
    pools = 0

    def __init__(self, folder: Folder) -> None:
        self._open = _OpenDoor(folder, idle_s=300.0)
        offered = [*seeds.contexts(), (VERIFICATION, ("1.2.840.10008.1.2",))]
        with Peer(self._open.door.port, offered) as peer:
            accepted = {(identifier - 1) // 2 for identifier in peer.accepted}
            peer.release()
        self._contexts = [one for at, one in enumerate(offered) if at in accepted]
        self._index = {(sop, syntaxes[0]): at for at, (sop, syntaxes) in enumerate(self._contexts)}
        self._peer: Peer | None = None

    def make(self, rng: Random) -> bytes:
        """Return a data set of any kind, mutated."""
        if rng.random() < 0.2:
            one = seeds.with_values(rng.randrange(seeds.SLICES), rng, seeds.nasty)
            data = one.data
        else:
            one = rng.choice(seeds.instances())
            data = mutated(one.data, rng, seeds.TOKENS) if rng.random() < 0.95 else one.data
        fitting = self._index.get((one.sop_class_uid, one.syntax), 0)
        context = fitting if rng.random() < 0.95 else rng.randrange(len(self._contexts))
        uid = one.sop_instance_uid.encode("ascii", "replace")[:64]
        if rng.random() < 0.05:
            uid = mutated(uid or b"1.2", rng)[:64]
        return bytes([context, len(uid)]) + uid + data

    def give(self, content: bytes) -> Verdict:
        """Return whether the data set was stored."""
        context, length = content[0], content[1]
        uid, data = content[2 : 2 + length], content[2 + length :]
        peer = self._connected()
        sop_class_uid = self._contexts[context][0].encode()
        try:
            answer = peer.store(
                data, sop_class_uid=sop_class_uid, sop_instance_uid=uid, context_id=2 * context + 1
            )
        except (AbortedError, ConnectionError) as error:
            peer.socket.close()
            self._peer = None
            raise CrashError("a bad data set ended its association") from error
        except TimeoutError as error:
            peer.socket.close()
            self._peer = None
            raise HangError("no response") from error
        if self._open.deaths:
            raise CrashError(f"a thread died: {self._open.deaths.pop()}")
        if answer.status not in _STATUSES or (answer.status and not answer.comment):
            raise CrashError(f"status 0x{answer.status:04X} {answer.comment!r}")
        return Verdict.REFUSED if answer.status else Verdict.ACCEPTED

    def _connected(self) -> Peer:
        if self._peer is None:
            self._peer = Peer(self._open.door.port, self._contexts).associate()
        return self._peer

    def problems(self) -> list[str]:
        """Return what became of the receiver."""
        found = []
        if self._peer is not None:
            try:
                self._peer.release()
            except (AbortedError, OSError) as error:
                found.append(f"the association did not last: {error}")
            self._peer.socket.close()
            self._peer = None
        return [*found, *self._open.problems()]

    def close(self) -> None:
        """Stop the receiver."""
        if self._peer is not None:
            self._peer.socket.close()
        self._open.close()
