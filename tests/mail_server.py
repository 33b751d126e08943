"""A mail server on loopback: enough of SMTP (RFC 5321, 3207, 4954) for the standard client."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
from collections.abc import Mapping
from typing import BinaryIO, Self

LOOPBACK = "127.0.0.1"


class MailServer:
    """Takes mail, and remembers it; a context manager.

    Parameters
    ----------
    tls : SSLContext, optional
        Offers STARTTLS with it.
    is_wrapped : bool
        Speaks TLS from the first byte instead.
    login : tuple of str, optional
        Name and password that it insists on (AUTH PLAIN, offered over TLS alone).
    refusals : mapping of str to str
        What it answers to a verb, or to a whole line, such as ``{"DATA": "452 full"}``.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        is_wrapped: bool = False,
        login: tuple[str, str] | None = None,
        refusals: Mapping[str, str] | None = None,
    ) -> None:
        self.messages: list[bytes] = []
        self.lines: list[str] = []
        self._tls, self._is_wrapped, self._login = tls, is_wrapped, login
        self._refusals = dict(refusals or {})
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(10.0)
            try:
                if self._tls is not None and self._is_wrapped:
                    connection = self._tls.wrap_socket(connection, server_side=True)
                _Talk(connection, self).run()
            except OSError:
                connection.close()  # a client that trusts nobody hangs up


class _Talk:
    """One connection."""

    def __init__(self, connection: socket.socket, server: MailServer) -> None:
        self._connection, self._server = connection, server
        self._file: BinaryIO = connection.makefile("rb")
        self._is_secure = server._is_wrapped
        self._is_known = server._login is None

    def run(self) -> None:
        try:
            self._talk()
        finally:
            self._file.close()
            self._connection.close()

    def _talk(self) -> None:
        self._say("220 mail.test ESMTP")
        while read := self._file.readline().decode("ascii").rstrip("\r\n"):
            verb = read.split(" ")[0].upper()
            line = verb + read[len(verb) :]
            self._server.lines.append(line)
            refusal = self._server._refusals.get(line, self._server._refusals.get(verb))
            if refusal is not None:
                self._say(refusal)
                continue
            if not self._answer(verb, line):
                return

    def _say(self, text: str) -> None:
        self._connection.sendall(f"{text}\r\n".encode("ascii"))

    def _answer(self, verb: str, line: str) -> bool:
        if verb == "EHLO":
            self._say("\r\n".join(self._offers()))
        elif verb == "STARTTLS" and self._server._tls is not None:
            self._say("220 go ahead")
            self._secure(self._server._tls)
        elif verb == "AUTH":
            self._identify(line)
        elif verb == "DATA":
            self._take()
        elif verb == "QUIT":
            self._say("221 bye")
            return False
        elif verb in ("MAIL", "RCPT", "NOOP", "RSET"):
            self._say("250 ok" if self._is_known else "530 who are you")
        else:
            self._say("502 no such command")
        return True

    def _offers(self) -> list[str]:
        offers = ["mail.test"]
        if self._server._tls is not None and not self._is_secure:
            offers.append("STARTTLS")
        if self._server._login is not None and self._is_secure:
            offers.append("AUTH PLAIN")
        dashed = [f"250-{one}" for one in offers[:-1]]
        return [*dashed, f"250 {offers[-1]}"]

    def _secure(self, tls: ssl.SSLContext) -> None:
        self._file.close()
        self._connection = tls.wrap_socket(self._connection, server_side=True)
        self._file = self._connection.makefile("rb")
        self._is_secure = True

    def _identify(self, line: str) -> None:
        _, name, password = base64.b64decode(line.split(" ")[2]).decode().split("\0")
        self._is_known = (name, password) == self._server._login
        self._say("235 welcome" if self._is_known else "535 wrong password")

    def _take(self) -> None:
        self._say("354 go on")
        content = b""
        while not content.endswith(b"\r\n.\r\n"):
            content += self._file.readline()
        self._server.messages.append(content)
        self._say("250 taken")
