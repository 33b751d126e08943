"""Whoever listens is told when something changed, and holds nothing up."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from node import logs
from node.cases import CaseState, Stage
from node.tls import ServerTls
from node.web import changes
from tests import certificates
from tests.waiting import wait_until
from tests.web_cases import WebNode, served

ADDRESS = "/api/v1/changes"
TOKEN = "t" * 24


@contextmanager
def listening(client: httpx.Client) -> Iterator[Iterator[str]]:
    """Yield what is told, line by line, once somebody listens."""
    with client.stream("GET", ADDRESS, timeout=30.0) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert next(lines).startswith("retry: ")
        yield lines


def is_told(lines: Iterator[str]) -> bool:
    """Say whether what is told next is that something changed."""
    return next(line for line in lines if line) == "data: changed"


def test_whatever_a_page_shows_leaves_a_mark_and_a_beat_alone_leaves_none(node: WebNode) -> None:
    marks = [node.ledger.mark()]

    def has_changed() -> bool:
        marks.append(node.ledger.mark())
        return marks[-1] != marks[-2]

    assert not has_changed()
    case_id = node.receive("1.2.1")
    assert has_changed()
    node.close(case_id)
    assert has_changed()
    attempt_id = node.ledger.begin_attempt(case_id, Stage.CONVERT)
    assert has_changed()
    node.ledger.end_attempt(attempt_id, outcome="retry", code="X", sentence="x")
    assert has_changed()
    node.ledger.move(case_id, CaseState.ASSEMBLED)
    assert has_changed()
    node.run_windows(case_id, 1, 9)
    assert has_changed()
    node.run_windows(case_id, 1, 9)
    assert not has_changed()
    node.run_windows(case_id, 2, 9)
    assert has_changed()


def test_changes_are_told_to_all_who_listen(node: WebNode) -> None:
    with (
        served(node.app()) as address,
        httpx.Client(base_url=address) as client,
        listening(client) as first,
        listening(client) as second,
    ):
        is_told(first)  # that somebody looks from now on
        for study in ("1.2.1", "1.2.2"):
            node.receive(study)
            assert is_told(first)
            assert is_told(second)


def test_a_server_that_stops_waits_for_nobody_who_listens(node: WebNode) -> None:
    with httpx.Client() as client, ExitStack() as held:
        with served(node.app()) as address:
            client.base_url = httpx.URL(address)
            lines = held.enter_context(listening(client))
            assert is_told(lines)
            begun = time.monotonic()
        # The server itself would have waited for five seconds, then cut the connection.
        assert time.monotonic() - begun < 4
        assert [line for line in lines if line] == []


def test_no_more_listen_than_may(node: WebNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "MOST", 1)
    with served(node.app()) as address, httpx.Client(base_url=address) as client:
        with listening(client):
            refused = client.get(ADDRESS)
            assert (refused.status_code, refused.json()["code"]) == (429, "LISTENERS_BUSY")

        def is_let_in() -> bool:
            with client.stream("GET", ADDRESS) as answer:
                return answer.status_code == 200

        wait_until(is_let_in, 20, "the place of who went away")


def test_it_is_told_for_a_while_only(node: WebNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "LONGEST_S", 0.0)
    with served(node.app()) as address:
        assert httpx.get(address + ADDRESS).text == "retry: 3000\n\n"


def test_one_who_only_asks_whether_it_is_there_is_answered(client: TestClient) -> None:
    assert client.head(ADDRESS).status_code == 200


def test_over_tls_and_behind_a_login_only_who_is_known_is_told(tmp_path: Path) -> None:
    logs.configure(role="web", strict=True)
    _, own = certificates.made(tmp_path)
    node = WebNode.create(tmp_path / "spool", web={"tokens": f"viewer somebody {TOKEN}"})
    tls = ServerTls(str(own), str(tmp_path / "key.pem"), "", needs_client=False)
    trusting = ssl.create_default_context(cafile=str(own))
    with (
        served(node.app(), tls) as address,
        httpx.Client(base_url=address, verify=trusting) as client,
    ):
        assert client.get(ADDRESS).status_code == 401
        client.post("/login", data={"token": TOKEN})
        with listening(client) as lines:
            assert is_told(lines)
            node.receive("1.2.1")
            assert is_told(lines)
    node.ledger.close()
