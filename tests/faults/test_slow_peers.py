"""Peers that do nothing, or a byte now and then, are sent away and keep nobody out."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from node.receive.transport import Pace
from tests.doors import AbortedError, Door, Peer, make_instance, pdv
from tests.fuzz.watchman import Held
from tests.waiting import wait_until

pytestmark = pytest.mark.faults

_TOO_MANY = "PDU 3, 00020302"  # transient, local limit exceeded


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with Door(tmp_path, idle_timeout_s=2.0, max_associations=5) as door:
        yield door


def _threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if "AcceptorThread" in one.name]


def _is_verified(door: Door) -> bool:
    with Peer(door.port) as peer:
        is_answered = peer.echo().status == 0
        peer.release()
    return is_answered


def _seconds_until_cut(connection: socket.socket, pieces: Iterator[bytes]) -> float:
    """Send a piece whenever nothing has come for a while; return how long that was possible."""
    began = time.monotonic()
    connection.settimeout(0.1)
    for piece in pieces:
        try:
            connection.sendall(piece)
            if not connection.recv(4096):
                break
        except TimeoutError:
            continue
        except ConnectionError:
            break
        if time.monotonic() - began > 60:
            break
    return time.monotonic() - began


def test_a_data_set_that_comes_byte_by_byte_is_cut_off(door: Door) -> None:
    """Each of its PDUs would put off a deadline that asks for silence."""
    with Peer(door.port) as peer:
        peer.begin_store()
        assert _is_verified(door)  # nobody waits for it
        seconds = _seconds_until_cut(peer.socket, iter(lambda: pdv(1, 0, b"\0"), b""))
    assert seconds < 30
    wait_until(lambda: not door.files(), 10, "the temporary file to go")
    wait_until(lambda: not _threads(), 10, "the association to end")


@pytest.mark.parametrize("is_command", [True, False])
def test_whatever_comes_byte_by_byte_is_cut_off(door: Door, is_command: bool) -> None:  # noqa: FBT001
    with Peer(door.port) as peer:
        if is_command:
            pieces = iter(lambda: pdv(1, 1, b"\0"), b"")
        else:  # the bytes of one PDU
            pieces = iter([pdv(1, 1, bytes(1000))[at : at + 1] for at in range(1000)])
        assert _seconds_until_cut(peer.socket, pieces) < 30
    assert _is_verified(door)


def test_an_association_request_that_comes_byte_by_byte_is_cut_off(door: Door) -> None:
    request = Peer(door.port).association_request()
    with socket.create_connection(("127.0.0.1", door.port), 20) as connection:
        pieces = iter([request[at : at + 1] for at in range(len(request))])
        assert _seconds_until_cut(connection, pieces) < 30
    assert _is_verified(door)


def test_a_slow_sender_is_waited_for() -> None:
    """A kilobyte a second is enough, after a time in which nothing is asked."""
    now = [0.0]
    pace = Pace(clock=lambda: now[0])
    assert not pace.is_too_slow(1, 60.0)
    now[0] = 59.0
    assert not pace.is_too_slow(1, 60.0)
    now[0] = 61.5
    assert pace.is_too_slow(1, 60.0)
    assert not pace.is_too_slow(1, None)
    pace.restart()
    for second in range(62, 1000):
        now[0] = float(second)
        assert not pace.is_too_slow(1024, 60.0)


@contextmanager
def _nothing_is_kept() -> Iterator[None]:
    """Compare handles, threads and memory before and after."""
    before = Held.now()
    yield

    def is_as_before() -> bool:
        now = Held.now()
        return now.handles <= before.handles and now.threads <= before.threads

    wait_until(is_as_before, 30, "handles and threads to be as before")
    assert Held.now().memory_bytes - before.memory_bytes < 64 * 2**20


def test_five_hundred_silent_connections_keep_nobody_out(door: Door) -> None:
    assert _is_verified(door)
    wait_until(lambda: not _threads(), 10, "the association to end")
    with _nothing_is_kept(), ExitStack() as stack:
        for _ in range(500):
            address = ("127.0.0.1", door.port)
            stack.enter_context(socket.create_connection(address, 20))
        assert len(_threads()) <= 2 * 15
        assert _is_verified(door)
        with Peer(door.port) as peer:
            assert peer.store_dataset(make_instance()).status == 0


def test_of_five_hundred_idle_associations_the_limit_is_held_and_the_rest_told_why(
    door: Door,
) -> None:
    assert _is_verified(door)
    wait_until(lambda: not _threads(), 10, "the association to end")
    with _nothing_is_kept():
        peers, reasons = [], []
        for _ in range(500):
            peer = Peer(door.port)
            try:
                peers.append(peer.associate())
            except AbortedError as error:
                reasons.append(str(error))
        assert len(_threads()) <= 2 * 15
        assert reasons.count(_TOO_MANY) >= 0.9 * len(reasons)
        wait_until(lambda: not _threads(), 30, "the idle ones to be sent away")
        assert _is_verified(door)
        for peer in peers:
            with suppress(OSError):
                peer.socket.close()
    assert 5 <= len(peers) < 500
