"""A webhook is signed, comes to an end, follows nobody, and tells nothing that it should not."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from node.errors import NotificationFailedError
from node.notify import webhook
from node.outbox import Notice
from node.peers import Webhook
from tests import certificates
from tests.scripted_peers import HttpPeer, Reply, Request, closed_port, tcp_peer

SECRET = "sixteen-or-more-characters"
EXAMPLE = "v1=c6178071bd6a10e9a5c24d2d8eb02a7ca515ced6a566da3817ae8709120508f3"
NOW = datetime(2025, 1, 15, 10, 0, 30, tzinfo=UTC)
NOTICE = Notice(
    notification_id="1" * 32,
    event="delivery.failed",
    case_id="2" * 32,
    destination="pacs",
    code="PEER_REFUSED",
    happened_at=datetime(2025, 1, 15, 10, 0, tzinfo=UTC),
)


def hook(url: str, **more: object) -> Webhook:
    return Webhook.model_validate({"url": url, "secret": SECRET, "timeout_s": 5.0, **more})


def _send(one: Webhook, page_url: str = "", now: datetime = NOW) -> None:
    webhook.send(NOTICE, one, page_url=page_url, now=now)


def _is_genuine(request: Request, *, secret: str, now: float, window_s: float = 300.0) -> bool:
    """Check a request as docs/notifications.md tells a receiver to."""
    timestamp = request.headers["X-NeuroSeg-Timestamp"]
    signed = timestamp.encode() + b"." + request.body
    expected = "v1=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    is_fresh = abs(now - int(timestamp)) <= window_s
    return is_fresh and hmac.compare_digest(expected, request.headers["X-NeuroSeg-Signature"])


def test_the_receiver_can_tell_who_sent_it_and_when() -> None:
    with HttpPeer(Reply(status=204)) as peer:
        _send(hook(peer.url))
    (request,) = peer.requests
    assert (request.method, request.headers["Content-Type"]) == ("POST", "application/json")
    at = NOW.timestamp()
    assert _is_genuine(request, secret=SECRET, now=at + 299)
    assert not _is_genuine(request, secret=SECRET, now=at + 301)
    assert not _is_genuine(request, secret=f"{SECRET}x", now=at)
    other = Request(**{**vars(request), "body": request.body.replace(b"pacs", b"paks")})
    assert not _is_genuine(other, secret=SECRET, now=at)
    later = Request(
        **{**vars(request), "headers": {**request.headers, "X-NeuroSeg-Timestamp": "1736935999"}}
    )
    assert not _is_genuine(later, secret=SECRET, now=1736935999)


def test_the_signature_is_that_of_a_known_example() -> None:
    # printf '1736935230.{}' | openssl dgst -sha256 -hmac sixteen-or-more-characters
    assert webhook.signature(SECRET, "1736935230", b"{}") == EXAMPLE


def test_it_tells_the_facts_and_where_to_look() -> None:
    with HttpPeer(Reply()) as peer:
        _send(hook(peer.url), page_url="https://neuroseg.example.org/")
        _send(hook(f"{peer.url}?team=it"))
    linked, plain = (json.loads(one.body) for one in peer.requests)
    link = linked.pop("link")
    assert link == f"https://neuroseg.example.org/cases/{NOTICE.case_id}"
    assert linked == plain
    assert plain == {
        "id": NOTICE.notification_id,
        "event": "delivery.failed",
        "case_id": NOTICE.case_id,
        "code": "PEER_REFUSED",
        "destination": "pacs",
        "time": "2025-01-15T10:00:00+00:00",
    }
    assert peer.requests[1].path == "/dicom-web?team=it"


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 429, 500, 503])
def test_whatever_is_no_success_is_a_failure_without_the_address(status: int) -> None:
    with HttpPeer(Reply()) as other:
        reply = Reply(status=status, headers={"Location": other.url}, body=b"x" * 10**6)
        with HttpPeer(reply) as peer, pytest.raises(NotificationFailedError) as caught:
            _send(hook(peer.url))
    assert f"HTTP {status}" in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)
    assert other.requests == []


def test_a_receiver_that_is_away_is_a_failure() -> None:
    with pytest.raises(NotificationFailedError, match="connection failed"):
        _send(hook(f"http://127.0.0.1:{closed_port()}/"))


def _drip(connection: socket.socket) -> None:
    """Answer a byte every 50 ms: no single wait is ever long."""
    connection.recv(65536)
    pause = threading.Event()
    for _ in range(200):
        try:
            connection.sendall(b"H")
        except OSError:
            return
        pause.wait(0.05)


@pytest.mark.parametrize("behave", [lambda _: None, _drip], ids=["silent", "dripping"])
def test_one_that_never_comes_to_an_end_is_cut_off(behave: object) -> None:
    assert callable(behave)
    started = time.monotonic()
    with tcp_peer(behave) as port, pytest.raises(NotificationFailedError) as caught:
        _send(hook(f"http://127.0.0.1:{port}/", timeout_s=0.5))
    assert "no answer within 0.5 s" in str(caught.value)
    assert time.monotonic() - started < 15.0


def test_noise_in_place_of_an_answer_is_a_failure() -> None:
    def _noise(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"\x00\x01 no HTTP at all\r\n\r\n")

    with tcp_peer(_noise) as port, pytest.raises(NotificationFailedError, match="cannot be read"):
        _send(hook(f"http://127.0.0.1:{port}/"))


def test_a_certificate_has_to_be_trusted_and_of_that_name(tmp_path: Path) -> None:
    tls, certificate = certificates.made(tmp_path)
    with HttpPeer(Reply(), tls=tls) as peer:
        _send(hook(peer.url, ca_file=str(certificate)))
        with pytest.raises(NotificationFailedError, match="TLS connection failed"):
            _send(hook(peer.url))
        webhook.probe(hook(peer.url, ca_file=str(certificate)))
    assert len(peer.requests) == 1
    tls, certificate = certificates.made(tmp_path, "DNS:other.example.org")
    with (
        HttpPeer(Reply(), tls=tls) as peer,
        pytest.raises(NotificationFailedError, match="TLS connection failed"),
    ):
        _send(hook(peer.url, ca_file=str(certificate)))
    with pytest.raises(NotificationFailedError, match="ca_file cannot be read"):
        _send(hook("https://127.0.0.1:1/", ca_file=str(tmp_path / "none")))


def test_a_secret_from_a_file_is_read_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    with HttpPeer(Reply()) as peer:
        one = hook(peer.url, secret="", secret_file=str(file))
        with pytest.raises(NotificationFailedError, match="cannot be read"):
            _send(one)
        file.write_text("short\n")
        with pytest.raises(NotificationFailedError, match="less than 16"):
            _send(one)
        for secret in ("the first secret of ours", "the second secret of ours"):
            file.write_text(f"{secret}\n")
            _send(one)
            assert _is_genuine(peer.requests[-1], secret=secret, now=NOW.timestamp())
    assert len(peer.requests) == 2
