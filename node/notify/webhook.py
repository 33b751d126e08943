"""A notice as an HTTP POST of JSON that its receiver can trust.

The signature is an HMAC over the moment of sending and the body, so that a receiver knows who sent
it and how old it is: ``docs/notifications.md`` shows the check.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import SplitResult, urlsplit

from node.notify import message, wire
from node.outbox import Notice
from node.peers import SECRET_LENGTH, Webhook

CHANNEL: Final = "webhook"
TIMESTAMP: Final = "X-NeuroSeg-Timestamp"
SIGNATURE: Final = "X-NeuroSeg-Signature"
_PORTS: Final = {"http": 80, "https": 443}


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Return ``v1=`` and the HMAC-SHA256 of timestamp, full stop and body, hexadecimal."""
    signed = timestamp.encode() + b"." + body
    return f"v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"


def send(notice: Notice, webhook: Webhook, *, page_url: str, now: datetime) -> None:
    """Post a notice; any status of 200 to 299 acknowledges it.

    Parameters
    ----------
    notice : Notice
        What is told.
    webhook : Webhook
        Whom; its `timeout_s` bounds the whole exchange.
    page_url : str
        Where the status page is, empty where nobody should be led to it.
    now : datetime
        What the signature says of its age.

    Raises
    ------
    NotificationFailedError
        It was not acknowledged.
    """
    secret = wire.secret_of(CHANNEL, webhook.secret, webhook.secret_file)
    if len(secret) < SECRET_LENGTH:
        raise wire.failed(CHANNEL, f"its secret has less than {SECRET_LENGTH} characters")
    body = json.dumps(message.facts_of(notice, page_url)).encode()
    timestamp = str(int(now.timestamp()))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "NeuroSeg-Node",
        "Connection": "close",
        TIMESTAMP: timestamp,
        SIGNATURE: signature(secret, timestamp, body),
    }
    with wire.translated(CHANNEL, webhook.timeout_s):
        status = _post(webhook, body, headers)
    if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        is_redirect = HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST
        more = ", redirects are not followed" if is_redirect else ""
        raise wire.failed(CHANNEL, f"HTTP {status}{more}")


def probe(webhook: Webhook) -> None:
    """Connect and, where it is https, check the certificate; post nothing.

    Raises
    ------
    NotificationFailedError
        Nobody is there, or it cannot be trusted.
    """
    wire.secret_of(CHANNEL, webhook.secret, webhook.secret_file)
    with wire.translated(CHANNEL, webhook.timeout_s), _connection(webhook):
        pass


def _post(webhook: Webhook, body: bytes, headers: dict[str, str]) -> int:
    """Return the status; nothing of the answer's body is read."""
    url = urlsplit(webhook.url)
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    with _connection(webhook) as sock:
        asking = http.client.HTTPConnection(str(url.hostname), _port(url))
        asking.default_port = _PORTS[url.scheme]
        asking.sock = sock
        asking.request("POST", path, body=body, headers=headers)
        with asking.getresponse() as response:
            return response.status


@contextmanager
def _connection(webhook: Webhook) -> Iterator[socket.socket]:
    url = urlsplit(webhook.url)
    host = str(url.hostname)
    context = wire.context_of(CHANNEL, webhook.ca_file) if url.scheme == "https" else None
    with wire.connected(host, _port(url), webhook.timeout_s, context) as sock:
        yield sock


def _port(url: SplitResult) -> int:
    return url.port or _PORTS[url.scheme]
