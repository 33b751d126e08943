"""A connection that comes to an end, the secrets for it, and what may be said of its failures.

Both channels use the standard library: a connection of its own that is cut after a known time
whatever its other end does, that follows no redirect, and that knows neither proxies nor stored
credentials of the environment.
"""

from __future__ import annotations

import http.client
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from pydantic import SecretStr

from node import secret_files
from node.errors import NotificationFailedError

_SECRET_BYTES: Final = 4096
_FOREIGN: Final = (OSError, http.client.HTTPException, ValueError)
"""What the standard library raises where the other end is away, odd, or hangs up."""


@contextmanager
def connected(
    host: str, port: int, timeout_s: float, tls: ssl.SSLContext | None = None
) -> Iterator[socket.socket]:
    """Connect, and cut the connection after so long, be it in the middle of a byte.

    Parameters
    ----------
    host, port
        Where to; with `tls`, its certificate must be of that name.
    timeout_s : float
        For the connection to be made, and again for everything that it is used for.
    tls : SSLContext, optional
        Speak TLS from the first byte.
    """
    plain = socket.create_connection((host, port), timeout=timeout_s)
    with plain, plain.dup() as twin:  # TLS takes the first one over; the second still reaches it
        is_late = threading.Event()
        timer = threading.Timer(timeout_s, _cut, (twin, is_late))
        timer.daemon = True
        plain.settimeout(2 * timeout_s)  # the timer comes first
        timer.start()
        try:
            if tls is None:
                yield plain
            else:
                with tls.wrap_socket(plain, server_hostname=host) as wrapped:
                    yield wrapped
        except _FOREIGN as error:
            if is_late.is_set():
                raise TimeoutError from error
            raise
        finally:
            timer.cancel()
            timer.join()  # never cut a connection that has got our number since


def _cut(sock: socket.socket, is_late: threading.Event) -> None:
    is_late.set()
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def context_of(channel: str, ca_file: str) -> ssl.SSLContext:
    """Return what a server's certificate is checked with; its name always is.

    Raises
    ------
    NotificationFailedError
        The file cannot be read.
    """
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise failed(channel, "its ca_file cannot be read") from error


def secret_of(channel: str, value: SecretStr, file: str) -> str:
    """Return a secret of the settings, or the first line of the file that holds it.

    Raises
    ------
    NotificationFailedError
        The file cannot be read, or holds none.
    """
    if not file:
        return value.get_secret_value()
    try:
        found = secret_files.read(file, _SECRET_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise failed(channel, "the file with its secret cannot be read") from error
    if not found:
        raise failed(channel, "the file with its secret is empty")
    return found


def failed(channel: str, reason: str) -> NotificationFailedError:
    """Return our error; the reason holds words of ours alone, since others may quote secrets."""
    return NotificationFailedError(channel=channel, reason=reason)


@contextmanager
def translated(channel: str, timeout_s: float) -> Iterator[None]:
    """Let whatever the standard library says leave as our error, free of addresses."""
    try:
        yield
    except _FOREIGN as error:
        raise failed(channel, _reason(error, timeout_s)) from error


def _reason(error: Exception, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    if isinstance(error, ssl.SSLError):
        return "TLS connection failed"
    if isinstance(error, smtplib.SMTPException):
        return _mail_reason(error)
    if isinstance(error, (OSError, http.client.RemoteDisconnected)):
        return "connection failed"
    return "an answer that cannot be read"


def _mail_reason(error: smtplib.SMTPException) -> str:
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return f"credentials refused, status {error.smtp_code}"
    if isinstance(error, smtplib.SMTPResponseException):
        return f"refused with status {error.smtp_code}"
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        codes = {code for code, _ in error.recipients.values()}
        return f"all recipients refused, status {', '.join(map(str, sorted(codes)))}"
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return "the server lacks STARTTLS or a way to log in"
    return "connection lost"
