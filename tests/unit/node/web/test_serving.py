"""Connections that do nothing, or nearly nothing, are dropped and keep nobody out."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from node import logs
from node.web import serving
from tests.waiting import wait_until
from tests.web_cases import WebNode, served

HEAD = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n"
WHOLE = HEAD + b"Connection: close\r\n\r\n"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.Connection, "head_s", 1.0)
    monkeypatch.setattr(serving.Connection, "stall_s", 1.0)
    monkeypatch.setattr(serving.Connection, "most", 30)


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    node = WebNode.create(tmp_path)
    with served(node.app()) as address:
        yield int(address.rpartition(":")[2])
    node.ledger.close()


@contextmanager
def _connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        yield connection


def _rest(connection: socket.socket) -> bytes:
    """Return what comes until the server ends the connection."""
    answered = b""
    try:
        while piece := connection.recv(65536):
            answered += piece
    except ConnectionError:
        pass
    return answered


def _send_for_ever(connection: socket.socket, request: bytes) -> None:
    while True:
        connection.sendall(request)


def _handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _is_answered(port: int) -> bool:
    with _connected(port) as connection:
        connection.sendall(WHOLE)
        return _rest(connection).startswith(b"HTTP/1.1 200")


def test_a_connection_that_says_nothing_is_dropped(port: int) -> None:
    with _connected(port) as connection:
        assert _rest(connection) == b""


def _trickle(connection: socket.socket) -> bytes:
    """Send a byte whenever nothing has come for a while; return what came until the end."""
    answered = b""
    connection.settimeout(0.05)
    ends_at = time.monotonic() + 20
    while time.monotonic() < ends_at:
        try:
            connection.sendall(b"G")
            piece = connection.recv(65536)
        except TimeoutError:
            continue
        except ConnectionError:
            return answered
        if not piece:
            return answered
        answered += piece
    raise TimeoutError("the connection is still held")


@pytest.mark.parametrize("first", [b"", WHOLE.replace(b"close", b"keep-alive")])
def test_a_head_that_comes_byte_by_byte_is_given_up(port: int, first: bytes) -> None:
    """Each byte would put off a deadline that asks for silence."""
    with _connected(port) as connection:
        connection.sendall(first)
        assert _is_answered(port)  # nobody waits for it
        answered = _trickle(connection)
    _, is_said, slow = answered.partition(b"HTTP/1.1 408 ")
    if is_said:  # else the end of the connection has overtaken it
        assert json.loads(slow.partition(b"\r\n\r\n")[2])["code"] == "REQUEST_SLOW"


def test_the_body_of_an_answered_request_is_not_taken_for_ever(port: int) -> None:
    with _connected(port) as connection:
        connection.sendall(HEAD + b"Content-Length: 99999999\r\n\r\n")
        assert _trickle(connection).startswith(b"HTTP/1.1 200")


def test_a_client_that_does_not_read_its_answers_is_dropped(port: int) -> None:
    request = b"GET /static/style.css HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with _connected(port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        with pytest.raises(ConnectionError):
            _send_for_ever(connection, request * 100)
    assert _is_answered(port)


def test_a_request_that_turns_into_nonsense_is_no_error_of_ours(
    port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server refuses it while the application still waits for its body."""
    logs.configure(role="web", strict=True)
    head = b"POST /api/v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n"
    with _connected(port) as connection:
        connection.sendall(head + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n")
        connection.sendall(b"5\r\nhellono chunk\r\n")
        assert _rest(connection).startswith(b"HTTP/1.1 400 ")
    said: list[str] = []

    def is_over() -> bool:
        said.append(capsys.readouterr().out)
        return "prediction.refused" in "".join(said)

    wait_until(is_over, 20, "the application to have noticed")
    assert _is_answered(port)
    assert "request.failed" not in "".join([*said, capsys.readouterr().out])


def test_five_hundred_idle_connections_keep_nobody_out(port: int) -> None:
    assert _is_answered(port)
    before = _handles()
    with ExitStack() as stack:
        idle = [stack.enter_context(_connected(port)) for _ in range(500)]
        assert _is_answered(port)
        idle[-1].sendall(WHOLE)  # the newest of them is still served
        assert _rest(idle[-1]).startswith(b"HTTP/1.1 200")
    wait_until(lambda: _handles() <= before, 20, "the connections to go")
