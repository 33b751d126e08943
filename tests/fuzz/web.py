"""The web role's port: requests of every kind, and uploads."""

from __future__ import annotations

import logging
import re
import socket
from contextlib import ExitStack, suppress
from random import Random
from typing import Final

from node import logs
from node.ticker import Ticker
from node.web.serving import Connection
from tests import predictions
from tests.fuzz.files import nifti_input, nifti_seeds
from tests.fuzz.mutation import mutated
from tests.fuzz.target import CrashError, Folder, HangError, Verdict
from tests.predictions import InstantInfer, multipart_body
from tests.waiting import wait_until
from tests.web_cases import WebNode, served

_PATIENCE_S: Final = 20.0
_STATUS: Final = re.compile(rb"HTTP/1\.1 ([0-9]{3})")
TOKENS: Final = (
    *(
        b"\r\n",
        b"\n",
        b"\r\n\r\n",
        b"\0",
        b"%00",
        b"%2e%2e%2f",
        b"../../../../etc/passwd",
        b"?",
        b"&",
    ),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 99999999999\r\n",
    ),
    *(
        b"Expect: 100-continue\r\n",
        b"Upgrade: websocket\r\nConnection: upgrade\r\n",
        b"Host: x\r\n",
    ),
    *(
        b"\r\n--xyz\r\n",
        b"\r\n--xyz--\r\n",
        b"--xyz",
        b"Prefer: respond-async\r\n",
        b"A: " + b"a" * 70_000,
    ),
    *(
        b"Range: bytes=0-,5-\r\n",
        b"Range: bytes=-99999999999999999999\r\n",
        b"HTTP/0.9",
        b"HTTP/1.0",
    ),
)
_GETS: Final = (
    *("/", "/api/v1/cases", "/api/v1/cases?state=delivered&limit=5", "/api/v1/health", "/health"),
    *("/livez", "/readyz", "/static/app.css", "/api/v1/cases/{id}", "/cases/{id}", "/docs"),
    *("/api/v1/cases/{id}/files/seg.dcm", "/api/v1/cases/{id}/preview", "/metrics"),
    *("/api/v1/predictions/{id}", "/api/v1/cases?offset=3", "/?state=failed"),
)


class Served:
    """The real application on a real server, with an infer role that answers at once."""

    def __init__(self, folder: Folder) -> None:
        self._stack = ExitStack()
        logs.configure(role="web", level="ERROR", strict=False)
        self.node = WebNode.create(
            folder.spool,
            predict={"max_upload_bytes": 2**20, "silence_s": 1.0, "patience_s": 9.0},
            stow={"max_request_bytes": 2**21, "silence_s": 1.0, "patience_s": 9.0},
            receive={"max_instance_bytes": 2**20},
        )
        self.case_id = self.node.delivered("1.2.3.4")
        ticker = Ticker("infer", 0.01, InstantInfer(self.node).look)
        ticker.start()
        self._stack.callback(self.node.ledger.close)
        self._stack.callback(ticker.stop)
        self._stack.callback(setattr, Connection, "head_s", Connection.head_s)
        Connection.head_s = 0.5
        address = self._stack.enter_context(served(self.node.app()))
        self.port = int(address.rpartition(":")[2])
        self.errors = _Errors()
        logging.getLogger("uvicorn.error").addHandler(self.errors)
        self._stack.callback(logging.getLogger("uvicorn.error").removeHandler, self.errors)

    def answer(self, content: bytes) -> Verdict:
        """Return what became of the bytes of a connection."""
        answered = b""
        with socket.create_connection(("127.0.0.1", self.port), _PATIENCE_S) as connection:
            try:
                with suppress(ConnectionError):
                    connection.sendall(content)
                with suppress(ConnectionError):
                    while piece := connection.recv(65536):
                        answered += piece
            except TimeoutError as error:
                raise HangError("neither an answer nor an end") from error
        if self.errors.found:
            raise CrashError(f"the server: {self.errors.found.pop()}")
        statuses = [int(one) for one in _STATUS.findall(answered)]
        if 500 in statuses:
            raise CrashError(f"500: {answered[-600:]!r}")
        return Verdict.ACCEPTED if any(one < 400 for one in statuses) else Verdict.REFUSED

    def problems(self) -> list[str]:
        """Return what is wrong with the web role after all of it."""
        found = list(self.errors.found)
        request = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        if self.answer(request) is not Verdict.ACCEPTED:
            found.append("/livez is not answered")
        return found

    def close(self) -> None:
        """Stop the server."""
        self._stack.close()


class _Errors(logging.Handler):
    """Remembers what the server calls an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message and the kind of its error."""
        kind = record.exc_info[0] if record.exc_info else None
        self.found.append(f"{record.getMessage().strip()} {kind.__name__ if kind else ''}")


class Door:
    """What the doors of the port share."""

    pools = 60

    def __init__(self, folder: Folder) -> None:
        self._served = Served(folder)

    def give(self, content: bytes) -> Verdict:
        """Return whether anything was answered with success."""
        return self._served.answer(content)

    def problems(self) -> list[str]:
        """Return what is wrong with the web role after all of it."""
        found = self._served.problems()
        with suppress(TimeoutError):
            wait_until(lambda: not self._left(), 30.0, "uploads that were given up to go")
        return [*found, *(f"left of an upload: {name}" for name in self._left())]

    def _left(self) -> list[str]:
        root = self._served.node.spool.root
        return [*predictions.files(root / "predictions"), *predictions.files(root / "incoming")]

    def close(self) -> None:
        """Stop the server."""
        self._served.close()


class Requests(Door):
    """Requests that read, one or several on a connection."""

    name = "http"

    def make(self, rng: Random) -> bytes:
        """Return one to three requests with something wrong in them."""
        more = b"".join(
            self._request(rng, "keep-alive") for _ in range(rng.choice((0, 0, 0, 1, 2)))
        )
        return mutated(more + self._request(rng, "close"), rng, TOKENS)

    def _request(self, rng: Random, connection: str) -> bytes:
        method = rng.choice(("GET",) * 6 + ("HEAD", "OPTIONS", "DELETE", "POST", "PUT", "X"))
        path = rng.choice(_GETS).format(id=self._served.case_id)
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: {connection}\r\n"
        body = rng.choice((b"", b"", b"", b"x" * 20))
        if body:
            head += f"Content-Length: {len(body)}\r\n"
        return f"{head}\r\n".encode() + body


class Uploads(Door):
    """Files by ``POST /api/v1/predict``: the request, the multipart body, the file in it."""

    name = "upload"

    def make(self, rng: Random) -> bytes:
        """Return an upload with something wrong in the file, in the body or in the request."""
        is_file = rng.random() < 0.4
        content = nifti_input(rng) if is_file else rng.choice(nifti_seeds())
        body, headers = multipart_body(content)
        place = rng.random()
        if not is_file and place < 0.6:
            body = mutated(body, rng, TOKENS)
        kind = headers["content-type"]
        whole = posted("/api/v1/predict", body, kind, rng)
        return mutated(whole, rng, TOKENS) if not is_file and place >= 0.6 else whole


def posted(path: str, body: bytes, content_type: str, rng: Random) -> bytes:
    """Return a whole request, by chance in two chunks."""
    is_chunked = rng.random() < 0.3
    length = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {len(body)}"
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\n"
    head += f"{length}\r\nConnection: close\r\n\r\n"
    if is_chunked:
        middle = rng.randint(1, len(body) - 1) if len(body) > 1 else 1
        body = b"".join(
            f"{len(one):x}\r\n".encode() + one + b"\r\n"
            for one in (body[:middle], body[middle:], b"")
            if one or body[middle:]
        )
    return head.encode() + body
