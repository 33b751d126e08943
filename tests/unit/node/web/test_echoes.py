"""Operators ask destinations whether they are there; nobody else does, and nobody too often."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from node.cases import Transport
from node.demo.archive import DemoArchive
from node.peers import Destination
from node.web import echoes
from tests.scripted_peers import HttpPeer, Reply, closed_port, dimse_destination, stow_destination
from tests.unit.node.web.conftest import BASE
from tests.waiting import wait_until
from tests.web_cases import WebNode, served

TOKENS = "\n".join(f"{role} {role} {role}-{'x' * 24}" for role in ("viewer", "machine"))


def _named(name: str, destination: Destination) -> Destination:
    return destination.model_copy(update={"name": name})


def _address(name: str) -> str:
    return f"/api/v1/destinations/{name}/echo"


def test_each_kind_of_destination_is_asked_in_its_own_way(
    tmp_path: Path, archive: DemoArchive
) -> None:
    with HttpPeer(Reply(status=401)) as refusing:
        destinations = (
            _named("here", dimse_destination(archive.port)),
            _named("away", dimse_destination(closed_port())),
            _named("locked", stow_destination(refusing.url)),
            Destination(name="share", transport=Transport.FOLDER, path=str(tmp_path)),
            Destination(name="unmounted", transport=Transport.FOLDER, path=str(tmp_path / "mnt")),
        )
        node = WebNode.create(tmp_path / "spool", destinations=destinations)
        with TestClient(node.app(), base_url=BASE) as client:
            answers = {one.name: client.post(_address(one.name)) for one in destinations}
            unknown = client.post(_address("elsewhere"))
        node.ledger.close()
    assert {one.status_code for one in answers.values()} == {200}
    said = {name: one.json() for name, one in answers.items()}
    assert {name: one["code"] for name, one in said.items()} == {
        "here": None,
        "away": "PEER_UNAVAILABLE",
        "locked": "PEER_REFUSED",
        "share": None,
        "unmounted": "FOLDER_UNAVAILABLE",
    }
    assert all(0.0 <= one["duration_s"] < 5.0 for one in said.values())
    assert said["locked"]["sentence"] == "locked refused with status HTTP 401"
    assert all(said[name]["advice"] for name in ("away", "locked", "unmounted"))
    assert [*tmp_path.glob(".neuroseg-*")] == []
    assert (unknown.status_code, unknown.json()["code"]) == (404, "RESOURCE_UNKNOWN")


def test_only_operators_ask(tmp_path: Path) -> None:
    with HttpPeer(Reply(body=b"[]")) as peer:
        destinations = (_named("pacs", stow_destination(peer.url)),)
        node = WebNode.create(tmp_path, destinations=destinations, web={"tokens": TOKENS})
        with TestClient(node.app(), base_url=BASE) as client:
            assert client.post(_address("pacs")).json()["code"] == "NOT_LOGGED_IN"
            for role in ("viewer", "machine"):
                headers = {"authorization": f"Bearer {role}-{'x' * 24}"}
                answer = client.post(_address("pacs"), headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (403, "NOT_ALLOWED")
                form = client.post("/destinations/pacs/echo", headers=headers)
                assert (form.status_code, "NOT_ALLOWED" in form.text) == (403, True)
            viewer = {"authorization": f"Bearer viewer-{'x' * 24}"}
            page = client.get("/system", headers=viewer).text
        node.ledger.close()
    assert '<button type="submit">Echo' not in page
    assert "neuroseg echo" in page
    assert peer.requests == []


def test_a_form_is_answered_with_the_page_and_nothing_is_kept(
    tmp_path: Path, archive: DemoArchive
) -> None:
    destinations = (
        _named("pacs", dimse_destination(archive.port)),
        _named("away", dimse_destination(closed_port())),
    )
    node = WebNode.create(tmp_path / "spool", destinations=destinations)
    with TestClient(node.app(), base_url=BASE) as client:
        page = client.post("/destinations/pacs/echo").text
        said = unescape(
            re.sub(r"<[^>]+>", "", re.findall(r'id="echo-\w+">(.*?)</div>', page, re.DOTALL)[0])
        )
        assert re.fullmatch(r"\s*yes answers C-ECHO, \d+ ms\s*", said)
        assert "refresh" not in page  # it would ask for the answer once more, or for another page
        assert "PEER_UNAVAILABLE" in client.post("/destinations/away/echo").text
        later = client.get("/system").text
        assert "answers C-ECHO" not in later
        assert "PEER_UNAVAILABLE" not in later
        assert client.get("/destinations/pacs/echo").status_code == 405
    assert not node.spool.root.joinpath("audit.jsonl").exists()
    node.ledger.close()


def test_two_who_ask_at_once_get_one_answer_and_nobody_else_waits(tmp_path: Path) -> None:
    goes_on = threading.Event()
    with HttpPeer(Reply(body=b"[]"), before=lambda: goes_on.wait(30.0)) as peer:
        destinations = (_named("pacs", stow_destination(peer.url)),)
        node = WebNode.create(tmp_path, destinations=destinations)
        with served(node.app()) as address, ThreadPoolExecutor(2) as people:
            asking = [people.submit(httpx.post, address + _address("pacs")) for _ in range(2)]
            wait_until(lambda: len(peer.requests) == 1, 20.0, "the question")
            assert httpx.get(f"{address}/livez").status_code == 200
            goes_on.set()
            first, second = (one.result().json() for one in asking)
        node.ledger.close()
    assert first == second
    assert first["code"] is None
    assert len(peer.requests) == 1


def test_an_answer_comes_however_long_a_destination_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(echoes, "LONGEST_S", 0.2)
    goes_on = threading.Event()
    with HttpPeer(Reply(body=b"[]"), before=lambda: goes_on.wait(30.0)) as peer:
        destinations = (_named("pacs", stow_destination(peer.url)),)
        node = WebNode.create(tmp_path, destinations=destinations)
        with served(node.app()) as address:
            answers = [httpx.post(address + _address("pacs")).json() for _ in range(2)]
            goes_on.set()
        node.ledger.close()
    assert [one["code"] for one in answers] == ["PEER_UNAVAILABLE"] * 2
    assert answers[0]["sentence"] == "pacs does not answer (no answer within 0 s)"
    assert len(peer.requests) == 1  # the first one goes on
