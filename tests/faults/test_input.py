"""Bad input at the C-STORE door: the right status, no stray file, and the door stays open."""

from __future__ import annotations

import hashlib
import random
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, MRImageStorage

from node import logs
from node.ledger import Ledger
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
from tests.waiting import wait_until

pytestmark = pytest.mark.faults

_CT = "1.2.840.10008.5.1.4.1.1.2"
_CONTEXTS = (
    (MRImageStorage, (ExplicitVRLittleEndian,)),
    (VERIFICATION, ("1.2.840.10008.1.2",)),
    (MRImageStorage, (DeflatedExplicitVRLittleEndian,)),
)
_DEFLATED_CONTEXT = 5
_LIMIT = 2**20
_ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
_RECEIVER = """
import sys
from pathlib import Path
from node import logs
from tests.doors import Door
logs.configure(level="ERROR")
door = Door(Path(sys.argv[1]))
print(door.port, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _no_thread_dies(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a thread of the receiver that ends by an error fail the test."""
    crashes: list[str] = []
    hook = lambda crash: crashes.append(crash.exc_type.__name__)  # noqa: E731 - one line is it
    monkeypatch.setattr(threading, "excepthook", hook)
    yield
    assert crashes == []


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with Door(tmp_path, max_instance_bytes=_LIMIT) as door:
        yield door


def _with_uid(keyword: str, value: bytes) -> Callable[[Dataset], bytes]:
    """Return an encoder that puts a raw value where a UID belongs."""

    def encode(ds: Dataset) -> bytes:
        before = ds[keyword].value
        marked = "1." + "7" * 40
        setattr(ds, keyword, marked)
        data = encoded(ds)
        setattr(ds, keyword, before)
        padded = value + b"\0" * (len(value) % 2)
        return data.replace(
            struct.pack("<2sH", b"UI", 42) + marked.encode(),
            struct.pack("<2sH", b"UI", len(padded)) + padded,
        )

    return encode


def _without(keyword: str) -> Callable[[Dataset], bytes]:
    def encode(ds: Dataset) -> bytes:
        less = deepcopy(ds)
        delattr(less, keyword)
        return encoded(less)

    return encode


def _other(**changes: str) -> Callable[[Dataset], bytes]:
    def encode(ds: Dataset) -> bytes:
        changed = deepcopy(ds)
        for keyword, value in changes.items():
            setattr(changed, keyword, value)
        return encoded(changed)

    return encode


def _nested(ds: Dataset) -> bytes:
    level = struct.pack("<HH2sHL", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF) + _ITEM
    return encoded(ds) + level * 10_000


def _claiming_4_gb(ds: Dataset) -> bytes:
    return encoded(ds) + struct.pack("<HH2sHL", 0x7FE1, 0x10, b"OW", 0, 0xFFFFFFFE)


_BAD_UIDS = {
    "empty": b"",
    "blank": b"    ",
    "path-like": b"../../../../etc/cron.d/evil",
    "too long": b"1." + b"2" * 63,
    "far too long": b"1." + b"2" * 5000,
    "NUL inside": b"1.2.3\0.4.5.6",
    "newline": b"1.2.3\n4",
    "two values": b"1.2.3\\1.2.4",
    "query": b"1';DROP TABLE instance;--",
    "not ASCII": b"1.2.\xff\xfe",
}
_CONTENTS: dict[str, tuple[Callable[[Dataset], bytes], int]] = {
    "no SOPClassUID": (_without("SOPClassUID"), 0xC000),
    "no SOPInstanceUID": (_without("SOPInstanceUID"), 0xC000),
    "no StudyInstanceUID": (_without("StudyInstanceUID"), 0xC000),
    "no SeriesInstanceUID": (_without("SeriesInstanceUID"), 0xC000),
    **{
        f"{name} StudyInstanceUID": (_with_uid("StudyInstanceUID", value), 0xC000)
        for name, value in _BAD_UIDS.items()
    },
    "path-like SeriesInstanceUID": (_with_uid("SeriesInstanceUID", b"/etc/passwd"), 0xC000),
    "path-like SOPInstanceUID": (_with_uid("SOPInstanceUID", b"..\\..\\x"), 0xC000),
    "other SOP instance": (_other(SOPInstanceUID="1.2.3.4"), 0xA900),
    "other SOP class": (_other(SOPClassUID=_CT), 0xA900),
    "truncated pixels": (lambda ds: encoded(ds)[:-100], 0xC000),
    "truncated by one byte": (lambda ds: encoded(ds)[:-1], 0xC000),
    "truncated header": (lambda ds: encoded(ds)[:101], 0xC000),
    "empty": (lambda _: b"", 0xC000),
    "garbage": (lambda _: random.Random(0).randbytes(5000), 0xC000),
    "zeros": (lambda _: bytes(5000), 0xC000),
    "text": (lambda _: b"GET / HTTP/1.1\r\n\r\n" * 100, 0xC000),
    "a whole file": (lambda ds: bytes(128) + b"DICM" + encoded(ds), 0xC000),
    "implicit in explicit": (lambda ds: encoded(ds, is_implicit=True), 0xC000),
    "trailing bytes": (lambda ds: encoded(ds) + b"abc", 0xC000),
    "twice": (lambda ds: encoded(ds) + encoded(ds), 0xC000),
    "deep nesting": (_nested, 0xC000),
    "too large": (lambda ds: encoded(ds) + bytes(_LIMIT), 0xA700),
    "claims 4 GB": (_claiming_4_gb, 0xC000),
}


@pytest.mark.parametrize("name", _CONTENTS)
def test_a_bad_data_set_is_refused_and_the_association_goes_on(door: Door, name: str) -> None:
    encode, status = _CONTENTS[name]
    bad, good = make_instance(), make_instance()
    data = encode(bad)
    with Peer(door.port, _CONTEXTS) as peer:
        answer = peer.store(data, sop_instance_uid=bad.SOPInstanceUID.encode())
        assert answer.status == status
        assert answer.comment
        assert door.files() == []
        assert door.ledger.cases() == []
        assert peer.store_dataset(good).status == 0
        peer.release()
    assert door.files() == [door.stored(good)]


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b" ",
        b"../../../tmp/evil",
        b"/etc/passwd",
        b"1." + b"2" * 63,
        b"1" * 3000,
        b"1.2\0.3",
        b"1.2\n.3",
        b"\xff" * 20,
    ],
)
@pytest.mark.parametrize("element", [0x0002, 0x1000])
def test_a_bad_uid_in_the_command_is_refused_and_the_association_goes_on(
    door: Door, element: int, value: bytes | None
) -> None:
    good = make_instance()
    with Peer(door.port) as peer:
        command = {
            0x0002: MRImageStorage.encode(),
            0x0100: struct.pack("<H", 1),
            0x0110: peer.next_message_id(),
            0x0800: struct.pack("<H", 0),
            0x1000: b"1.2.3",
            element: value,
        }
        peer.send_command(command, 1)
        peer.socket.sendall(pdv(1, 2, encoded(make_instance())))
        answer = peer.read_response()
        assert answer.status == 0xC000
        assert not {0x0002, 0x1000} & set(answer.elements)
        assert door.files() == []
        assert peer.store_dataset(good).status == 0


def test_another_sop_class_than_the_negotiated_one_is_not_supported(door: Door) -> None:
    ds = make_instance(SOPClassUID=_CT)
    uid = ds.SOPInstanceUID.encode()
    with Peer(door.port) as peer:
        answer = peer.store(encoded(ds), sop_class_uid=_CT.encode(), sop_instance_uid=uid)
        assert answer.status == 0x0122
        assert door.files() == []
        assert peer.store_dataset(make_instance()).status == 0


def test_verification_stores_nothing(door: Door) -> None:
    ds = make_instance(SOPClassUID=VERIFICATION)
    data = encoded(ds, is_implicit=True)
    uid = ds.SOPInstanceUID.encode()
    with Peer(door.port) as peer:
        answer = peer.store(
            data, sop_class_uid=VERIFICATION.encode(), sop_instance_uid=uid, context_id=3
        )
        assert answer.status == 0x0122
        assert door.files() == []


def test_a_request_without_a_data_set_is_refused(door: Door) -> None:
    with Peer(door.port) as peer:
        assert peer.store(b"", sop_instance_uid=b"1.2.3", has_data_set=False).status == 0xC000
        assert peer.store_dataset(make_instance()).status == 0


def _deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


@pytest.mark.parametrize(
    ("name", "status"), [("bomb", 0xA700), ("garbage", 0xC000), ("truncated", 0xC000)]
)
def test_a_bad_deflated_data_set_is_refused(door: Door, name: str, status: int) -> None:
    ds = make_instance(PixelData=None)
    bomb = encoded(ds) + struct.pack("<HH2sHL", 0x7FE0, 0x10, b"OW", 0, 2**28) + bytes(2**28)
    data = {
        "bomb": _deflated(bomb) if name == "bomb" else b"",
        "garbage": b"\xff" * 1000,
        "truncated": encoded(ds, is_deflated=True)[:-20],
    }[name]
    uid = ds.SOPInstanceUID.encode()
    with Peer(door.port, _CONTEXTS) as peer:
        answer = peer.store(data, sop_instance_uid=uid, context_id=_DEFLATED_CONTEXT)
        assert answer.status == status
        assert door.files() == []
        assert peer.store_dataset(make_instance()).status == 0


@pytest.mark.parametrize(
    "title",
    [
        b"\xc4\xd6\xdc\xe4\xf6\xfc",
        b"  LEADING",
        b"TRAILING  ",
        b"",
        b"\0" * 16,
        b"A\\B",
        b"A\nB\x1b[31m",
        b"../../../../tmp/x",
        b"\xff" * 16,
        b"{code}%s%n",
    ],
)
def test_an_odd_ae_title_is_served_and_leaves_no_trace(
    tmp_path: Path, title: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(level="DEBUG", strict=True)
    ds = make_instance()
    with Door(tmp_path) as door:
        with Peer(door.port, calling=title, called=title) as peer:
            assert peer.store_dataset(ds).status == 0
            assert peer.store(b"bad", sop_instance_uid=b"1.2.3").status == 0xC000
            peer.release()
        [row] = door.ledger.study_instances(ds.StudyInstanceUID)
    assert 1 <= len(row.calling_ae_title) <= 16
    assert row.calling_ae_title.isascii()
    assert row.calling_ae_title.isprintable()
    assert "\\" not in row.calling_ae_title
    printed = "".join(capsys.readouterr())
    assert "instance.stored" in printed
    for secret in (title.decode("latin-1").strip(" \0"), ds.SOPInstanceUID, ds.StudyInstanceUID):
        assert not secret or secret not in printed
    assert row.calling_ae_title == "?" or row.calling_ae_title not in printed


def test_below_the_free_floor_instances_wait_outside(door: Door) -> None:
    with Peer(door.port) as peer:
        door.spool.free_floor_bytes = 2**62
        answer = peer.store_dataset(make_instance())
        assert answer.status == 0xA700
        assert answer.comment.startswith("SPOOL_FULL")
        assert door.files() == []
        assert door.scp.refused == {"SPOOL_FULL": 1}
        door.spool.free_floor_bytes = 0
        assert peer.store_dataset(make_instance()).status == 0


def test_above_the_quota_instances_wait_outside(door: Door) -> None:
    door.spool.quota_bytes, door.spool.used_bytes = 3000, door.ledger.spool_bytes
    with Peer(door.port) as peer:
        statuses = [peer.store_dataset(make_instance()).status for _ in range(3)]
        assert statuses == [0, 0, 0xA700]  # each has 2 KB and some
        door.spool.quota_bytes = 10**6
        assert peer.store_dataset(make_instance()).status == 0


def test_without_room_associations_are_turned_away_and_come_in_again_later(door: Door) -> None:
    door.spool.free_floor_bytes = 2**62
    with pytest.raises(AbortedError, match="PDU 3, 00020302"):  # transient, local limit exceeded
        Peer(door.port).associate()
    with Peer(door.port, [(VERIFICATION, ("1.2.840.10008.1.2",))]) as peer:
        assert peer.echo(context_id=1).status == 0
        peer.release()
    wait_until(lambda: not _association_threads(), 5, "the threads to end")
    door.spool.free_floor_bytes = 0
    with Peer(door.port) as peer:
        assert peer.store_dataset(make_instance()).status == 0


def _limit_connections(ledger: Ledger, pragma: str) -> None:
    """Have every new connection of the ledger run a pragma."""

    @sa.event.listens_for(ledger._engine, "connect")
    def _run(connection: Any, _: object) -> None:  # noqa: ANN401 - the driver's own type
        connection.execute(pragma)

    ledger._engine.dispose()


def test_a_locked_ledger_is_answered_with_out_of_resources(door: Door) -> None:
    _limit_connections(door.ledger, "PRAGMA busy_timeout=50")
    ds = make_instance()
    with Peer(door.port) as peer:
        with door.ledger._engine.begin():
            answer = peer.store_dataset(ds)
            assert answer.status == 0xA700
            assert answer.comment.startswith("LEDGER_UNAVAILABLE")
            assert door.files() == []
        assert peer.store_dataset(ds).status == 0


def test_a_slow_ledger_is_waited_for_longer_than_a_silent_peer(tmp_path: Path) -> None:
    ds, is_locked = make_instance(), threading.Event()
    with Door(tmp_path, idle_timeout_s=0.5) as door, Peer(door.port) as peer:

        def lock() -> None:
            with door.ledger._engine.begin():
                is_locked.set()
                wait_until(door.files, 10, "the instance")
                released_at = time.monotonic() + 1.5
                wait_until(lambda: time.monotonic() > released_at, 5, "three idle timeouts")

        locking = threading.Thread(target=lock)
        locking.start()
        is_locked.wait()
        assert peer.store_dataset(ds).status == 0
        locking.join()


def test_a_full_ledger_is_answered_with_out_of_resources(door: Door) -> None:
    with Peer(door.port) as peer:
        assert peer.store_dataset(make_instance()).status == 0
        _limit_connections(door.ledger, "PRAGMA max_page_count=1")
        statuses = [peer.store_dataset(make_instance()).status for _ in range(100)]
    assert set(statuses) == {0, 0xA700}
    assert len(door.files()) == door.row_count() == 1 + statuses.count(0)


@pytest.mark.parametrize("ending", ["abort", "close", "reset", "mid-PDU"])
def test_a_peer_that_vanishes_in_mid_instance_leaves_nothing(door: Door, ending: str) -> None:
    peer = Peer(door.port).associate()
    peer.begin_store()
    peer.socket.sendall(pdv(1, 0, bytes(1000)))
    wait_until(door.files, 5, "the temporary file")
    if ending == "abort":
        peer.socket.sendall(pdu(7, bytes(4)))
    if ending == "mid-PDU":
        peer.socket.sendall(pdv(1, 0, bytes(1000))[:500])
    if ending == "reset":
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.socket.close()
    wait_until(lambda: not door.files(), 5, "the temporary file to go")
    assert _is_open(door)


def test_a_peer_that_stalls_in_mid_pdu_is_hung_up_on(tmp_path: Path) -> None:
    with Door(tmp_path, idle_timeout_s=1.0) as door, Peer(door.port) as peer:
        peer.socket.sendall(pdv(1, 3, bytes(1000))[:500])
        with pytest.raises(AbortedError):
            peer.read_response()
        assert _is_open(door)


_BROKEN_MESSAGES = {
    "data without a command": pdv(1, 2, b"data"),
    "context that was not accepted": pdv(99, 3, command_set({0x0100: b"\1\0", 0x0110: b"\1\0"})),
    "garbage command": pdv(1, 3, b"\xff" * 50),
    "empty command": pdv(1, 3, b""),
    "fragment without a header": pdu(4, struct.pack(">LB", 1, 1)),
    "fragment of length zero": pdu(4, struct.pack(">L", 0)),
    "fragment longer than its PDU": pdu(4, struct.pack(">LBB", 1000, 1, 3)),
    "endless command": pdv(1, 1, bytes(2**16 - 10)) * 2,
    "C-FIND on a storage context": pdv(
        1, 3, command_set({0x0100: b"\x20\0", 0x0110: b"\1\0", 0x0800: b"\1\0"})
    ),
    "a response nobody asked for": pdv(
        1, 3, command_set({0x0100: b"\1\x80", 0x0120: b"\1\0", 0x0800: b"\1\1", 0x0900: b"\0\0"})
    ),
    "two commands": pdv(
        1,
        3,
        command_set({0x0100: b"\1\0", 0x0110: b"\1\0", 0x0800: b"\0\0", 0x1000: b"1.2"}),
    )
    * 2,
    "unknown PDU": pdu(0x42, bytes(10)),
    "a second association request": pdu(1, bytes(68)),
    "an association reply": pdu(2, bytes(68)),
    "a PDU of 4 GB": struct.pack(">BBL", 4, 0, 0xFFFFFFFF) + bytes(1000),
}


@pytest.mark.parametrize("name", _BROKEN_MESSAGES)
def test_a_broken_message_ends_its_association_only(door: Door, name: str) -> None:
    with Peer(door.port) as bystander, Peer(door.port) as peer:
        peer.socket.sendall(_BROKEN_MESSAGES[name])
        with pytest.raises(AbortedError):
            peer.read_response()
        assert bystander.store_dataset(make_instance()).status == 0
    assert len(door.files()) == 1


_GARBAGE = {
    "nothing": b"",
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "zeros": bytes(1000),
    "ones": b"\xff" * 1000,
    "data before the association": pdv(1, 3, b"x"),
    "release before the association": pdu(5, bytes(4)),
    "an empty association request": pdu(1, b""),
    "an association request of zeros": pdu(1, bytes(68)),
    "an association request without contexts": pdu(1, b"\0\1\0\0" + b"A" * 32 + bytes(32)),
    "an item longer than the request": pdu(
        1, b"\0\1\0\0" + b"A" * 32 + bytes(32) + b"\x10\0\xff\xff1.2"
    ),
    "an association request of 4 GB": struct.pack(">BBL", 1, 0, 0xFFFFFFFF) + bytes(1000),
}


@pytest.mark.parametrize("name", _GARBAGE)
def test_garbage_at_the_port_leaves_it_open(door: Door, name: str) -> None:
    with socket.create_connection(("127.0.0.1", door.port), 5) as connection:
        connection.sendall(_GARBAGE[name])
        _listen_to_the_end(connection)
    assert _is_open(door)
    assert door.files() == []


def test_port_probes_do_not_use_up_the_connections(tmp_path: Path) -> None:
    with Door(tmp_path, max_associations=2) as door:
        for _ in range(60):
            socket.create_connection(("127.0.0.1", door.port), 5).close()
        assert wait_until(lambda: _is_open(door), 5, "an association")
        wait_until(lambda: not _association_threads(), 5, "the threads to end")


def test_a_flood_of_silent_connections_is_limited_and_passes(tmp_path: Path) -> None:
    with Door(tmp_path, max_associations=2, idle_timeout_s=1.0) as door:
        silent = [socket.create_connection(("127.0.0.1", door.port), 5) for _ in range(40)]
        assert len(_association_threads()) <= 24  # those that made room may still be ending
        assert _is_open(door)
        for connection in silent:
            connection.close()


def test_mutated_data_sets_are_answered_one_by_one(door: Door) -> None:
    rng = random.Random(20)
    acknowledged = 0
    with Peer(door.port) as peer:
        for _ in range(400):
            ds = make_instance()
            data = _mutated(encoded(ds), rng)
            answer = peer.store(data, sop_instance_uid=ds.SOPInstanceUID.encode())
            assert answer.status in {0, 0xA700, 0xA900, 0xC000}
            acknowledged += answer.status == 0
        peer.release()
    assert 0 < acknowledged < 400
    assert len(door.files()) == door.row_count() == acknowledged


def test_mutated_sessions_leave_the_door_open(door: Door) -> None:
    rng = random.Random(21)
    for turn in range(300):
        request, rest = _session(make_instance(PixelData=bytes(64)))
        if turn % 3 == 0:
            request = _mutated(request, rng)
        else:
            rest = _mutated(rest, rng)
        with socket.create_connection(("127.0.0.1", door.port), 5) as connection:
            connection.settimeout(5)
            with suppress(ConnectionError):
                connection.sendall(request)
                if turn % 3:
                    connection.recv(4096)
                connection.sendall(rest)
            _listen_to_the_end(connection)
    assert _is_open(door)
    wait_until(lambda: not _association_threads(), 10, "the threads to end")
    assert len(door.files()) == door.row_count()
    assert 10 < door.row_count() < 250


@pytest.mark.parametrize("seed", range(3))
def test_what_was_acknowledged_before_a_kill_is_there_after_it(tmp_path: Path, seed: int) -> None:
    acknowledged: dict[str, bytes] = {}
    enough = random.Random(seed).randint(20, 120)
    with _receiver(tmp_path) as (process, port):
        senders = [
            threading.Thread(target=_send_until_killed, args=(port, acknowledged)) for _ in range(3)
        ]
        for sender in senders:
            sender.start()
        wait_until(lambda: len(acknowledged) >= enough, 60, "instances", poll_s=0.001)
        process.kill()
        for sender in senders:
            sender.join(30)
    with Door(tmp_path) as door:
        assert not list(door.spool.root.glob("incoming/*"))
        for data in acknowledged.values():
            _check_durable(door, data)
        with Peer(door.port) as peer:
            for uid, data in acknowledged.items():
                assert peer.store(data, sop_instance_uid=uid.encode()).status == 0
        assert door.row_count() - len(acknowledged) in range(len(senders) + 1)


@contextmanager
def _receiver(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    with subprocess.Popen(
        [sys.executable, "-c", _RECEIVER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())


def _send_until_killed(port: int, acknowledged: dict[str, bytes]) -> None:
    with suppress(AbortedError, ConnectionError), Peer(port) as peer:
        while True:
            ds = make_instance()
            data = encoded(ds)
            if peer.store(data, sop_instance_uid=ds.SOPInstanceUID.encode()).status == 0:
                acknowledged[ds.SOPInstanceUID] = data


def _check_durable(door: Door, data: bytes) -> None:
    digest = hashlib.sha256(ExplicitVRLittleEndian.encode() + data).hexdigest()
    file = next(path for path in door.files() if digest[:16] in path.stem)
    ds = dcmread(file)
    assert door.stored(ds) == file
    assert file.read_bytes().endswith(data)
    assert door.ledger.digest_of(ds.SOPInstanceUID) == digest


def _is_open(door: Door) -> bool:
    try:
        with Peer(door.port) as peer:
            is_answered = peer.echo().status == 0
            peer.release()
    except AbortedError:
        return False
    return is_answered


def _listen_to_the_end(connection: socket.socket) -> None:
    """Say nothing more and read what comes; a door that keeps silent for long is a time-out."""
    with suppress(OSError):  # it was faster
        connection.shutdown(socket.SHUT_WR)
    with suppress(ConnectionError):
        while connection.recv(4096):
            pass


def _association_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "AcceptorThread" in thread.name]


def _mutated(data: bytes, rng: random.Random) -> bytes:
    """Return data with a few bytes changed, cut out or put in, as a seeded chance has it."""
    mutated = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        if not mutated:
            break
        at = rng.randrange(len(mutated))
        match rng.randrange(5):
            case 0:
                mutated[at] ^= 1 << rng.randrange(8)
            case 1:
                mutated[at : at + 4] = rng.choice([b"\xff" * 4, bytes(4), rng.randbytes(4)])
            case 2:
                del mutated[at : at + rng.randint(1, 50)]
            case 3:
                mutated[at:at] = rng.randbytes(rng.randint(1, 50))
            case _:
                del mutated[max(at, 1) :]
    return bytes(mutated) or b"\0"


def _session(ds: Dataset) -> tuple[bytes, bytes]:
    """Return what a peer says to associate, and then to store one instance and release."""
    request = Peer.__new__(Peer)
    request.contexts, request.max_length = _CONTEXTS, 0
    request.calling = request.called = b"FUZZ"
    command = command_set(
        {
            0x0002: MRImageStorage.encode(),
            0x0100: struct.pack("<H", 1),
            0x0110: struct.pack("<H", 1),
            0x0800: struct.pack("<H", 0),
            0x1000: ds.SOPInstanceUID.encode(),
        }
    )
    rest = pdv(1, 3, command) + pdv(1, 2, encoded(ds)) + pdu(5, bytes(4))
    return request.association_request(), rest
