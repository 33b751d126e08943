"""An e-mail goes over a secured connection or not at all, and a second copy shows as one."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from email import message_from_bytes, policy
from pathlib import Path

import pytest

from node.errors import NotificationFailedError
from node.notify import mail
from node.outbox import Notice
from node.peers import Email
from tests import certificates
from tests.mail_server import MailServer
from tests.scripted_peers import closed_port, tcp_peer

PASSWORD = "open-sesame-open-sesame"
PAGE = "https://neuroseg.example.org"
NOTICE = Notice(
    notification_id="1" * 32,
    event="case.held",
    case_id="2" * 32,
    code="RESULT_HELD",
    happened_at=datetime(2025, 1, 15, 10, 0, tzinfo=UTC),
)


def post(port: int, **more: object) -> Email:
    values = {
        "host": "127.0.0.1",
        "port": port,
        "security": "none",
        "sender": "node@example.org",
        "recipients": ["it@example.org", "pacs@example.org"],
        "timeout_s": 5.0,
        **more,
    }
    return Email.model_validate_json(json.dumps(values))


def _send(email: Email) -> None:
    mail.send(NOTICE, email, page_url=PAGE)


def test_a_message_says_what_happened_and_where_to_look() -> None:
    with MailServer() as server:
        _send(post(server.port))
        _send(post(server.port))
    first, second = (message_from_bytes(one, policy=policy.default) for one in server.messages)
    assert first["Subject"] == f"NeuroSeg Node: case.held RESULT_HELD {NOTICE.case_id}"
    assert first["To"] == "it@example.org, pacs@example.org"
    assert first["Message-ID"] == second["Message-ID"] == f"<{'1' * 32}@neuroseg-node>"
    assert first["Date"].datetime == NOTICE.happened_at
    text = first.get_content()
    assert text.splitlines()[0] == "A result waits to be released."
    assert f"link: {PAGE}/cases/{NOTICE.case_id}" in text
    assert [line for line in server.lines if line.startswith(("MAIL", "RCPT"))][:3] == [
        "MAIL FROM:<node@example.org>",
        "RCPT TO:<it@example.org>",
        "RCPT TO:<pacs@example.org>",
    ]


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_the_password_travels_over_tls_alone(tmp_path: Path, security: str) -> None:
    tls, certificate = certificates.made(tmp_path)
    login = ("node", PASSWORD)
    with MailServer(tls=tls, is_wrapped=security == "tls", login=login) as server:
        own = {"security": security, "ca_file": str(certificate), "username": "node"}
        _send(post(server.port, password=PASSWORD, **own))
        (tmp_path / "password").write_text(f"{PASSWORD}\n")
        _send(post(server.port, password_file=str(tmp_path / "password"), **own))
        mail.probe(post(server.port, password=PASSWORD, **own))
        with pytest.raises(NotificationFailedError, match="credentials refused") as caught:
            _send(post(server.port, password="another-word", **own))
        assert "another-word" not in str(caught.value)
        strangers = {**own, "ca_file": ""}
        with pytest.raises(NotificationFailedError, match="TLS connection failed"):
            _send(post(server.port, password=PASSWORD, **strangers))
    assert len(server.messages) == 2


def test_a_server_without_starttls_gets_neither_password_nor_message() -> None:
    with MailServer() as server:
        email = post(server.port, security="starttls", username="node", password=PASSWORD)
        with pytest.raises(NotificationFailedError, match="lacks STARTTLS"):
            _send(email)
    assert server.messages == []
    assert all(line.startswith(("EHLO", "QUIT")) for line in server.lines)


@pytest.mark.parametrize(
    ("refusals", "told"),
    [
        ({"MAIL": "451 later"}, "status 451"),
        ({"DATA": "452 full"}, "status 452"),
        ({"RCPT": "550 nobody"}, "all recipients refused, status 550"),
        ({"EHLO": "421 closing", "HELO": "421 closing"}, "status 421"),
    ],
)
def test_what_the_server_does_not_take_is_a_failure(refusals: dict[str, str], told: str) -> None:
    with (
        MailServer(refusals=refusals) as server,
        pytest.raises(NotificationFailedError, match=told),
    ):
        _send(post(server.port))
    assert server.messages == []


def test_one_recipient_that_is_refused_does_not_keep_it_from_the_others() -> None:
    with MailServer(refusals={"RCPT TO:<it@example.org>": "550 nobody"}) as server:
        _send(post(server.port))
    assert len(server.messages) == 1


def test_a_server_that_is_away_or_silent_is_a_failure_in_time() -> None:
    with pytest.raises(NotificationFailedError, match="connection failed"):
        _send(post(closed_port()))
    started = time.monotonic()
    with (
        tcp_peer(lambda _: None) as port,
        pytest.raises(NotificationFailedError, match=r"no answer within 0\.5 s"),
    ):
        _send(post(port, timeout_s=0.5))
    assert time.monotonic() - started < 15.0
