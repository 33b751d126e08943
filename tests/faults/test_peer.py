"""Destinations that are away, fall silent, break off or talk nonsense: each ends in time."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pynetdicom import evt

from node.deliver import routes, store_scu, stow_client
from node.demo.archive import DemoArchive
from node.errors import PeerUnavailableError
from node.peers import Destination
from tests.scripted_peers import (
    HttpPeer,
    Reply,
    accept_association,
    closed_port,
    dimse_destination,
    dimse_peer,
    json_reply,
    small_object,
    stored_answer,
    stow_destination,
    tcp_peer,
)

pytestmark = pytest.mark.faults

PATIENCE_S = 0.5
IN_TIME_S = 15.0
BIG_SIDE = 4096  # 32 MiB: more than the buffers of a loopback connection take


@pytest.fixture(autouse=True)
def _everything_ends_in_time() -> Iterator[None]:
    before = set(threading.enumerate())
    started = time.monotonic()
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(IN_TIME_S)
        assert not thread.is_alive()
    assert time.monotonic() - started < IN_TIME_S


def fails(folder: Path, destination: Destination, *, side: int = 64) -> str:
    """Return the reason why a delivery found its peer unavailable."""
    seg, file = small_object(folder, side=side)
    with pytest.raises(PeerUnavailableError) as caught:
        routes.send(seg, file, destination, calling_ae_title="NODE", attempt=1)
    assert caught.value.evidence["destination"] == "pacs"
    return str(caught.value.evidence["reason"])


def half_a_pdu(connection: socket.socket) -> None:
    connection.sendall(b"\x02\x00\x00\x00\x01\x00half")  # an A-ASSOCIATE-AC of 256 bytes


def nonsense(connection: socket.socket) -> None:
    connection.recv(6)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize("echo", [store_scu.echo, routes.echo])
def test_a_closed_port_is_an_unavailable_peer(echo: Callable[..., None], tmp_path: Path) -> None:
    destination = dimse_destination(closed_port(), timeout_s=PATIENCE_S)
    assert fails(tmp_path, destination) == "no connection"
    with pytest.raises(PeerUnavailableError, match="no connection"):
        echo(destination, calling_ae_title="NODE")


def test_an_unknown_host_is_an_unavailable_peer(tmp_path: Path) -> None:
    destination = dimse_destination(104).model_copy(update={"host": "no-such-host.invalid"})
    assert fails(tmp_path, destination) == "address not found"


@pytest.mark.parametrize("behave", [lambda _: None, half_a_pdu], ids=["silent", "half a PDU"])
def test_a_peer_that_accepts_and_never_answers_is_given_up(
    tmp_path: Path, behave: Callable[[socket.socket], None]
) -> None:
    with tcp_peer(behave) as port:
        reason = fails(tmp_path, dimse_destination(port, timeout_s=PATIENCE_S))
    assert reason in {"no answer within 0 s", "no answer within 1 s"}


def test_a_peer_that_talks_nonsense_is_unavailable(tmp_path: Path) -> None:
    with tcp_peer(nonsense) as port:
        reason = fails(tmp_path, dimse_destination(port, timeout_s=PATIENCE_S))
    assert reason == "association ended while it was negotiated"


def test_a_peer_that_hangs_up_at_once_is_unavailable(tmp_path: Path) -> None:
    with tcp_peer(socket.socket.close) as port:
        reason = fails(tmp_path, dimse_destination(port, timeout_s=PATIENCE_S))
    assert reason == "association ended while it was negotiated"


# pynetdicom as the peer leaves its end of an aborted connection to the garbage collector.
@pytest.mark.filterwarnings("ignore:.*unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_peer_that_never_answers_the_c_store_is_given_up(tmp_path: Path) -> None:
    over = threading.Event()

    def wait(_: evt.Event) -> int:
        over.wait(IN_TIME_S)
        return 0

    with dimse_peer(wait) as port:
        reason = fails(tmp_path, dimse_destination(port, timeout_s=PATIENCE_S))
        over.set()
    assert reason == "no answer within 1 s"


def test_a_peer_that_stops_reading_is_given_up(tmp_path: Path) -> None:
    with tcp_peer(accept_association) as port:
        destination = dimse_destination(port, timeout_s=PATIENCE_S)
        reason = fails(tmp_path, destination, side=BIG_SIDE)
    assert reason == "association ended without an answer"


def test_a_peer_that_aborts_is_unavailable(tmp_path: Path) -> None:
    def abort(event: evt.Event) -> int:
        event.assoc.abort()
        return 0

    with dimse_peer(abort) as port:
        reason = fails(tmp_path, dimse_destination(port))
    assert reason == "association ended without an answer"


def test_a_peer_that_is_stopped_in_mid_association_is_unavailable(tmp_path: Path) -> None:
    def hang_up(connection: socket.socket) -> None:
        accept_association(connection)
        connection.recv(10_000)
        connection.close()

    with tcp_peer(hang_up) as port:
        reason = fails(tmp_path, dimse_destination(port))
    assert reason == "association ended without an answer"


def test_a_peer_that_was_away_gets_the_same_object_once_it_is_back(tmp_path: Path) -> None:
    archive = DemoArchive(tmp_path / "archive", port=closed_port())
    destination = dimse_destination(archive.port, timeout_s=PATIENCE_S)
    seg, file = small_object(tmp_path)
    with pytest.raises(PeerUnavailableError):
        store_scu.send(seg, file, destination, calling_ae_title="NODE", attempt=1)
    archive.start()
    patient = dimse_destination(archive.port, timeout_s=IN_TIME_S)
    try:
        receipt = store_scu.send(seg, file, patient, calling_ae_title="NODE", attempt=2)
    finally:
        archive.stop()
    assert receipt.attempt == 2
    assert archive.arrivals == {seg.sop_instance_uid: 1}


def test_a_closed_http_port_is_an_unavailable_peer(tmp_path: Path) -> None:
    destination = stow_destination(f"http://127.0.0.1:{closed_port()}/dicom-web")
    assert fails(tmp_path, destination) == "connection failed"
    with pytest.raises(PeerUnavailableError, match="connection failed"):
        stow_client.echo(destination, calling_ae_title="NODE")


def test_a_web_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    over = threading.Event()
    with HttpPeer(Reply(), before=lambda: over.wait(IN_TIME_S)) as peer:
        reason = fails(tmp_path, stow_destination(peer.url, timeout_s=PATIENCE_S))
        over.set()
    assert reason.startswith("no answer within")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_web_server_with_an_unknown_certificate_gets_nothing(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    order = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1"
    order += " -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(
        [*order.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with HttpPeer(Reply(), tls=tls) as peer:
        reason = fails(tmp_path, stow_destination(peer.url, username="node", password="secret"))
    assert reason == "TLS connection failed"
    assert peer.requests == []


def test_a_web_server_that_stops_reading_is_given_up(tmp_path: Path) -> None:
    with tcp_peer(lambda _: None) as port:
        destination = stow_destination(f"http://127.0.0.1:{port}", timeout_s=PATIENCE_S)
        reason = fails(tmp_path, destination, side=BIG_SIDE)
    assert reason in {"no answer within 0 s", "connection failed"}


def test_a_web_server_that_hangs_up_is_unavailable(tmp_path: Path) -> None:
    with tcp_peer(socket.socket.close) as port:
        reason = fails(tmp_path, stow_destination(f"http://127.0.0.1:{port}"))
    assert reason == "connection failed"


def test_an_answer_that_breaks_off_is_no_success(tmp_path: Path) -> None:
    seg, file = small_object(tmp_path)
    whole = json_reply(stored_answer(seg.sop_instance_uid))
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\nContent-Length: %d\r\n\r\n"

    def break_off(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(head % (len(whole.body) + 1) + whole.body)
        connection.shutdown(socket.SHUT_RDWR)

    with tcp_peer(break_off) as port:
        destination = stow_destination(f"http://127.0.0.1:{port}")
        with pytest.raises(PeerUnavailableError):
            stow_client.send(seg, file, destination, calling_ae_title="NODE", attempt=1)
