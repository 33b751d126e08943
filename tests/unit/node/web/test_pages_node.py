"""The pages of the node itself and of its model, what programs get of them, and a case's log."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path

from starlette.testclient import TestClient

from node import logs
from node.cases import Stage
from tests.web_cases import WebNode


def _words(page: str) -> str:
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)))


def test_the_system_says_how_a_destination_stands(node: WebNode, client: TestClient) -> None:
    (before,) = client.get("/api/v1/system").json()["destinations"]
    assert (before["name"], before["address"]) == ("pacs", "PACS@127.0.0.1:4242")
    assert (before["retry_count"], before["last_outcome"]) == (0, None)
    assert "Nothing was sent there yet" in _words(client.get("/system").text)
    cases = [node.receive(study) for study in ("1.2.1", "1.2.2")]
    for case_id in cases:
        node.close(case_id)
        node.encode(case_id)
        node.fail_delivery(case_id)
        node.fail_delivery(case_id)
    (tried,) = client.get("/api/v1/system").json()["destinations"]
    assert (tried["retry_count"], tried["last_outcome"]) == (2, "retry")
    assert tried["code"] == "PEER_UNAVAILABLE"
    page = _words(client.get("/system").text)
    assert "will be tried again PEER_UNAVAILABLE" in page
    node.deliver(node.ledger.results(cases[-1])[0])
    (after,) = client.get("/api/v1/system").json()["destinations"]
    assert (after["retry_count"], after["last_outcome"], after["code"]) == (1, "done", None)


def test_the_system_says_which_processes_live(node: WebNode, client: TestClient) -> None:
    assert "None was ever seen" in client.get("/system").text
    assert "NODE_NOT_READY" in client.get("/system").text
    node.beat("receive", "work", "infer")
    system = client.get("/api/v1/system").json()
    assert {one["role"]: one["is_alive"] for one in system["processes"]} == {
        "receive": True,
        "work": True,
        "infer": True,
    }
    (infer,) = (one for one in system["processes"] if one["role"] == "infer")
    assert (infer["device"], infer["host"]) == ("cpu", "h")
    assert "NODE_NOT_READY" not in client.get("/system").text


def test_the_system_says_what_fills_the_disk_and_what_waits(tmp_path: Path) -> None:
    logs.configure(role="web", strict=True)
    node = WebNode.create(tmp_path)
    limited = replace(node, spool=type(node.spool)(tmp_path, free_floor_bytes=5, quota_bytes=10**9))
    node.receive("1.2.1", slices=2)
    node.held("1.2.2")
    with TestClient(limited.app(), base_url="http://127.0.0.1") as client:
        system = client.get("/api/v1/system").json()
        page = _words(client.get("/system").text)
    assert system["disk"]["used_bytes"] >= 131072 * 8
    assert (system["disk"]["floor_bytes"], system["disk"]["quota_bytes"]) == (5, 10**9)
    assert system["disk"]["free_bytes"] > 0
    assert (system["queue"]["receiving"], system["queue"]["held"]) == (1, 1)
    assert "of 1.0 GB" in page
    assert "Held for review 1" in page
    node.ledger.close()


def test_the_model_shows_its_card(node: WebNode, client: TestClient) -> None:
    (card,) = client.get("/api/v1/models").json()["models"]
    assert card["weights_sha256"] == node.manifest.weights_sha256
    assert [one["label"] for one in card["labels"]] == [one.label for one in node.manifest.segments]
    assert [one["code"] for one in card["labels"]] == ["79654002", "C81175", "C113842"]
    assert [one["role"] for one in card["inputs"] if not one["is_required"]] == ["t2"]
    assert card["is_loaded"] is False
    page = client.get("/models").text
    words = _words(page)
    for said in (card["id"], card["weights_sha256"], "255 217 61", "NCIt C113842", "not loaded"):
        assert said in words
    assert "DEMONSTRATION" in words
    assert (node.manifest.folder / "MODEL_CARD.md").read_text()[:80] in unescape(page)
    node.beat("infer")
    assert "weights checked" in _words(client.get("/models").text)


def test_a_model_without_a_card_or_with_a_hostile_one_is_shown(
    node: WebNode, tmp_path: Path
) -> None:
    for content in (None, b"\xff\xfe\x00", b"<script>alert(1)</script>"):
        if content is not None:
            (tmp_path / "MODEL_CARD.md").write_bytes(content)
        other = replace(node, manifest=node.manifest.model_copy(update={"folder": tmp_path}))
        with TestClient(other.app(), base_url="http://127.0.0.1") as client:
            page = client.get("/models")
        assert page.status_code == 200
        assert "<script>alert" not in page.text


def test_every_page_leads_to_the_others(node: WebNode, client: TestClient) -> None:
    case_id = node.receive("1.2.1")
    sections = ("/", "/models", "/system")
    for address in (*sections, f"/cases/{case_id}", "/docs", "/nothing"):
        page = client.get(address).text
        (nav,) = re.findall(r'<nav class="sections".*?</nav>', page, re.DOTALL)
        links = re.findall(r'<a href="([^"]+)"( aria-current="page")?>', nav)
        assert [link for link, _ in links] == [*sections]
        assert [link for link, is_here in links if is_here] == [
            one for one in sections if one == address
        ]


def test_the_log_of_a_case_says_what_was_tried_and_names_nobody(
    node: WebNode, client: TestClient
) -> None:
    case_id = node.receive("1.2.7654321")
    node.close(case_id, description="DOE^JANE {}")
    seg = node.encode(case_id)
    node.fail_delivery(case_id, next_in_s=30.0)
    node.deliver(seg)
    answer = client.get(f"/api/v1/cases/{case_id}/log.jsonl")
    assert "attachment" in answer.headers["content-disposition"]
    assert "1.2.7654321" not in answer.text
    assert "DOE" not in answer.text
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert {line["case_id"] for line in lines} == {case_id}
    assert [line["event"] for line in lines][:2] == ["case.opened", "case.closed"]
    told = [(one["stage"], one["outcome"]) for one in lines if one["event"] == "attempt.ended"]
    assert told == [
        *[(stage.value, "done") for stage in (Stage.CONVERT, Stage.SEGMENT, Stage.ENCODE)],
        (Stage.DELIVER.value, "retry"),
        (Stage.DELIVER.value, "done"),
    ]
    assert (lines[-1]["event"], lines[-1]["state"]) == ("case.stands", "delivered")
    moments = [line["at"] for line in lines[:-1]]
    assert moments == sorted(moments)
    assert client.get(f"/api/v1/cases/{'0' * 32}/log.jsonl").status_code == 404
