"""What a socket hands on, however its peer cuts it up, and how long it waits for the rest."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from queue import Queue
from types import SimpleNamespace
from typing import Any, cast

import pytest

from node.receive.transport import WaitingSocket

_LONGEST = 64
_PATIENCE_S = 0.2


@pytest.fixture
def ends() -> Iterator[tuple[WaitingSocket, socket.socket]]:
    """Our end of a connection, and the peer's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname())
        connection, _ = server.accept()
    assoc = SimpleNamespace(
        ae=SimpleNamespace(maximum_pdu_size=_LONGEST),
        dul=SimpleNamespace(event_queue=Queue[str](), to_provider_queue=Queue[object]()),
        acse_timeout=30.0,
        is_established=True,
    )
    with connection, peer:
        yield WaitingSocket(cast(Any, assoc), connection, pdu_timeout_s=_PATIENCE_S), peer


@pytest.mark.parametrize("piece", [1, 7, 64, 1000])
def test_every_byte_comes_once_and_in_order(
    ends: tuple[WaitingSocket, socket.socket], piece: int
) -> None:
    ours, peer = ends
    sent = bytes(index % 251 for index in range(1000))
    for at in range(0, len(sent), piece):
        peer.sendall(sent[at : at + piece])
    assert ours.ready
    assert ours.fill(6)
    assert ours.peek(6) == sent[:6]
    got = b"".join(ours.recv(count) for count in (6, 64, 1, 300, 70, 559))  # some beyond a PDU
    assert got == sent


def test_a_peer_that_closes_gives_what_it_has_sent(
    ends: tuple[WaitingSocket, socket.socket],
) -> None:
    ours, peer = ends
    peer.sendall(b"123")
    peer.shutdown(socket.SHUT_WR)
    assert not ours.fill(6)
    assert ours.recv(6) == b"123"
    assert ours.ready  # the library finds out by reading nothing
    assert ours.recv(6) == b""


def test_bytes_that_dribble_in_do_not_prolong_the_wait(
    ends: tuple[WaitingSocket, socket.socket],
) -> None:
    ours, peer = ends
    is_over = threading.Event()

    def dribble() -> None:
        while not is_over.wait(_PATIENCE_S / 4):
            peer.send(b"1")

    thread = threading.Thread(target=dribble)
    thread.start()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        ours.fill(60)
    is_over.set()
    thread.join()
    assert _PATIENCE_S <= time.monotonic() - began < 5 * _PATIENCE_S
