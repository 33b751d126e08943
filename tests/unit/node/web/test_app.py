"""The application as a whole."""

from __future__ import annotations

import socket
import subprocess
import sys

import httpx

from tests.web_cases import WebNode, served


def test_the_web_role_loads_neither_the_engine_nor_the_queue() -> None:
    script = (
        "import sys, node.web.app; "
        "print(sorted({'torch', 'monai', 'dbos', 'pynetdicom', 'highdicom'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_real_server_answers_pages_and_files(node: WebNode) -> None:
    case_id = node.delivered("1.2.1")
    with served(node.app()) as address, httpx.Client(base_url=address) as client:
        assert case_id[:8] in client.get("/").text
        assert client.get("/livez").json() == {"status": "alive"}
        file = f"/api/v1/cases/{case_id}/files/seg.dcm"
        whole = client.get(file).content
        assert len(whole) > 90_000
        part = client.get(file, headers={"range": "bytes=128-131"})
        assert (part.status_code, part.content) == (206, b"DICM")
        assert client.get("/", headers={"host": "evil.example"}).status_code == 400


def test_a_path_that_climbs_out_reaches_nothing_on_a_real_server(node: WebNode) -> None:
    case_id = node.delivered("1.2.1")
    (node.spool.root / "secret").write_text("secret")
    with served(node.app()) as address:
        for path in (
            "/static/../../../secret",
            f"/api/v1/cases/{case_id}/files/../../../secret",
            f"/api/v1/cases/{case_id}/files/..%2f..%2f..%2fsecret",
        ):
            host, port = address.removeprefix("http://").split(":")
            assert b"secret" not in _raw(host, int(port), path).partition(b"\r\n\r\n")[2]


def _raw(host: str, port: int, path: str) -> bytes:
    """Send a path that an ordinary client would have shortened."""
    with socket.create_connection((host, port), timeout=10) as connection:
        request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer
