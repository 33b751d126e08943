"""A notice as an e-mail of a few lines.

The Message-ID is the notice's own id: mail systems drop a second copy by it.
"""

from __future__ import annotations

import smtplib
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Final

from node import logs
from node.notify import message, wire
from node.outbox import Notice
from node.peers import Email

CHANNEL: Final = "email"
_WORDS: Final = {
    "case.failed": "A case has failed",
    "case.held": "A result waits to be released",
    "case.rejected": "A case was rejected",
    "delivery.failed": "A delivery was given up",
    message.TEST: "This is a test",
}
_ADVICE: Final = "`neuroseg cases show` with the case's id says what happened and what to do."
_COUNTED: Final = "That is the first of them; `neuroseg cases` lists them all."


class _Client(smtplib.SMTP):
    """The library's client on a connection that is bounded."""

    def __init__(self, sock: socket.socket, email: Email) -> None:
        self._own = sock
        super().__init__(email.host, email.port, timeout=email.timeout_s)

    def _get_socket(self, *_: object) -> socket.socket:
        return self._own


def send(notice: Notice, email: Email, *, page_url: str) -> None:
    """Hand an e-mail to the mail server.

    Parameters
    ----------
    notice : Notice
        What is told.
    email : Email
        Whom, and by which server; its `timeout_s` bounds the whole exchange.
    page_url : str
        Where the status page is, empty where nobody should be led to it.

    Raises
    ------
    NotificationFailedError
        The server did not take it for any recipient.
    """
    with wire.translated(CHANNEL, email.timeout_s), _client(email) as client:
        refused = client.send_message(
            _message(notice, email, page_url), email.sender, email.recipients
        )
        with suppress(OSError):  # it is theirs already
            client.quit()
    if refused:
        logs.get().warning("notification.recipients_refused", failed_count=len(refused))


def probe(email: Email) -> None:
    """Connect and log in; send nothing.

    Raises
    ------
    NotificationFailedError
        Nobody is there, or it cannot be trusted, or does not know us.
    """
    with wire.translated(CHANNEL, email.timeout_s), _client(email) as client:
        client.noop()


@contextmanager
def _client(email: Email) -> Iterator[smtplib.SMTP]:
    password = wire.secret_of(CHANNEL, email.password, email.password_file)
    context = wire.context_of(CHANNEL, email.ca_file)
    wrapping = context if email.security == "tls" else None
    with wire.connected(email.host, email.port, email.timeout_s, wrapping) as sock:
        client = _Client(sock, email)
        try:
            if email.security == "starttls":
                client.starttls(context=context)
            if email.username:
                client.login(email.username, password)
            yield client
        finally:
            client.close()


def _message(notice: Notice, email: Email, page_url: str) -> EmailMessage:
    facts = message.facts_of(notice, page_url)
    said = EmailMessage()
    which = notice.case_id if notice.count == 1 else f"{notice.count} cases"
    about = " ".join(filter(None, (notice.event, notice.code, which)))
    said["Subject"] = f"NeuroSeg Node: {about}"
    said["From"], said["To"] = email.sender, ", ".join(email.recipients)
    said["Date"] = format_datetime(notice.happened_at)
    said["Message-ID"] = f"<{notice.notification_id}@neuroseg-node>"
    said["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's absence answers it
    lines = [f"{name}: {fact}" for name, fact in facts.items()]
    closing = [_ADVICE] if notice.case_id else []
    closing += [_COUNTED] if notice.count > 1 else []
    said.set_content("\n".join([f"{_WORDS[notice.event]}.", "", *lines, "", *closing]) + "\n")
    return said
