"""Host check and security headers."""

from __future__ import annotations

import socket

import pytest
from starlette.testclient import TestClient

from node.web.guard import SECURITY_HEADERS, Hosts
from tests.web_cases import WebNode


@pytest.mark.parametrize(
    "header",
    ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080"],
)
def test_the_loopback_is_always_answered_for(header: str) -> None:
    assert Hosts("127.0.0.1").accepts(header)
    assert Hosts("0.0.0.0").accepts(header)


@pytest.mark.parametrize(
    "header",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.0.2.7",
        "",
        " localhost",
        "localhost:80:80",
        "localhost/",
        "user@localhost",
        "[::1",
        "[evil]",
        "localhost\x00",
    ],
)
def test_a_foreign_host_is_refused_on_the_loopback(header: str) -> None:
    assert not Hosts("127.0.0.1").accepts(header)


def test_a_node_open_to_the_network_takes_addresses_and_its_own_name_only() -> None:
    hosts = Hosts("0.0.0.0")
    assert hosts.accepts("192.0.2.7:8080")
    assert hosts.accepts("[2001:db8::7]:8080")
    assert hosts.accepts(socket.gethostname())
    assert not hosts.accepts("evil.example")


def test_the_configured_name_is_answered_for() -> None:
    assert Hosts("node.hospital.example").accepts("Node.Hospital.Example:8080")


def test_a_request_for_a_foreign_host_reads_nothing(node: WebNode, client: TestClient) -> None:
    node.delivered("1.2.1")
    for path in ("/", "/api/v1/cases", "/livez", "/static/style.css"):
        answer = client.get(path, headers={"host": "evil.example"})
        assert answer.status_code == 400
        assert answer.json()["code"] == "HOST_REFUSED"


def test_two_host_headers_are_refused(client: TestClient) -> None:
    headers = [("host", "127.0.0.1"), ("host", "evil.example")]
    assert client.get("/", headers=headers).status_code == 400


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/livez", 200),
        ("/api/v1/health", 200),
        ("/static/style.css", 200),
        ("/nothing", 404),
        ("/api/v1/nothing", 404),
        ("/static/../app.py", 404),
        ("/static/%2e%2e/app.py", 404),
        ("/readyz", 503),
        ("/?limit=0", 400),
    ],
)
def test_every_answer_carries_the_security_headers(
    empty_client: TestClient, path: str, status: int
) -> None:
    answer = empty_client.get(path)
    assert answer.status_code == status
    for name, value in SECURITY_HEADERS.items():
        assert answer.headers[name] == value


def test_the_policy_allows_nothing_from_elsewhere() -> None:
    policy = SECURITY_HEADERS["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert SECURITY_HEADERS["referrer-policy"] == "same-origin"


def test_a_reverse_proxys_name_is_answered_for_when_it_is_configured() -> None:
    assert not Hosts("127.0.0.1").accepts("ai.hospital.example")
    assert Hosts("127.0.0.1", ["ai.hospital.example"]).accepts("AI.hospital.example:443")
