"""Work items by HTTP: created, claimed, told of, completed; illegal moves are conflicts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from node import logs
from tests.web_cases import WebNode

BASE = "http://127.0.0.1:8080"
ROOT = "/dicom-web/workitems"
_JSON = {"content-type": "application/dicom+json"}
STUDY = {"0020000D": {"vr": "UI", "Value": ["1.2.3"]}}
ITEM = {
    "00741202": {"vr": "LO", "Value": ["glioma"]},
    "00404021": {"vr": "SQ", "Value": [STUDY]},
}
_END = {"00404051": {"vr": "DT", "Value": ["20260101"]}, "00404033": {"vr": "SQ"}}
TOLD = {"00741216": {"vr": "SQ", "Value": [_END]}}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    logs.configure(role="web", strict=True)
    node = WebNode.create(tmp_path / "spool")
    with TestClient(node.app(), base_url=BASE, follow_redirects=False) as made:
        yield made
    node.ledger.close()


def _created(client: TestClient, uid: str = "1.9") -> str:
    answer = client.post(f"{ROOT}?{uid}", json=[ITEM], headers=_JSON)
    assert (answer.status_code, answer.headers["content-location"]) == (201, f"{ROOT}/{uid}")
    return f"{ROOT}/{uid}"


def _moved(client: TestClient, address: str, state: str, transaction: str = "") -> httpx.Response:
    asked: dict[str, Any] = {"00741000": {"vr": "CS", "Value": [state]}}
    if transaction:
        asked["00081195"] = {"vr": "UI", "Value": [transaction]}
    answer: httpx.Response = client.put(f"{address}/state", json=[asked], headers=_JSON)
    return answer


def _state(client: TestClient, address: str) -> str:
    (found,) = client.get(address).json()
    assert "00081195" not in found
    return str(found["00741000"]["Value"][0])


def test_a_work_item_goes_its_way_and_nobody_else_moves_it(client: TestClient) -> None:
    address = _created(client)
    assert _state(client, address) == "SCHEDULED"
    assert _moved(client, address, "COMPLETED", "5.5").status_code == 409
    assert _moved(client, address, "IN PROGRESS").status_code == 400
    assert _moved(client, address, "IN PROGRESS", "5.5").status_code == 200
    second = _moved(client, address, "IN PROGRESS", "6.6")
    assert (second.status_code, second.json()["code"]) == (400, "WORKITEM_REFUSED")
    assert "Transaction UID" in second.headers["warning"]
    assert client.post(address, json=[TOLD], headers=_JSON).status_code == 400
    assert client.post(f"{address}?6.6", json=[TOLD], headers=_JSON).status_code == 400
    assert _moved(client, address, "COMPLETED", "5.5").status_code == 409  # no outputs yet
    assert client.post(f"{address}?5.5", json=[TOLD], headers=_JSON).status_code == 200
    assert _moved(client, address, "COMPLETED", "5.5").status_code == 200
    again = _moved(client, address, "COMPLETED", "5.5")
    assert (again.status_code, "already" in again.headers["warning"]) == (200, True)
    assert _moved(client, address, "CANCELED", "5.5").status_code == 409
    assert client.post(f"{address}/cancelrequest").status_code == 409
    assert _state(client, address) == "COMPLETED"


def test_what_nobody_has_claimed_is_cancelled_at_once(client: TestClient) -> None:
    address = _created(client)
    reason = {"00741238": {"vr": "LT", "Value": ["wrong patient"]}}
    assert client.post(f"{address}/cancelrequest", json=[reason], headers=_JSON).status_code == 202
    assert _state(client, address) == "CANCELED"
    again = client.post(f"{address}/cancelrequest")
    assert (again.status_code, "already" in again.headers["warning"]) == (202, True)


def test_a_performer_is_asked_to_cancel(client: TestClient) -> None:
    address = _created(client)
    assert _moved(client, address, "IN PROGRESS", "5.5").status_code == 200
    assert client.post(f"{address}/cancelrequest").status_code == 202
    assert _state(client, address) == "IN PROGRESS"
    assert _moved(client, address, "CANCELED", "5.5").status_code == 200


def test_work_items_are_found_by_what_they_say(client: TestClient) -> None:
    assert client.get(ROOT).status_code == 204
    for uid in ("1.1", "1.2", "1.3"):
        _created(client, uid)
    assert _moved(client, f"{ROOT}/1.2", "IN PROGRESS", "5.5").status_code == 200

    def _uids(query: str) -> list[str]:
        found = client.get(f"{ROOT}?{query}")
        return [one["00080018"]["Value"][0] for one in found.json()] if found.content else []

    assert _uids("ProcedureStepState=SCHEDULED") == ["1.1", "1.3"]
    assert _uids("00741000=IN PROGRESS&WorklistLabel=glioma") == ["1.2"]
    assert _uids("StudyInstanceUID=1.2.3&limit=1&offset=1") == ["1.2"]
    assert _uids("WorklistLabel=other") == []
    assert client.get(f"{ROOT}?NoSuchThing=1").status_code == 400


@pytest.mark.parametrize("body", [b"", b"[", b"[[]]", b'{"a":{"vr":"CS"}}', b'{"00080018":7}'])
def test_what_is_no_data_set_is_refused(client: TestClient, body: bytes) -> None:
    answer = client.post(f"{ROOT}?1.9", content=body, headers=_JSON)
    assert (answer.status_code, answer.json()["code"]) == (400, "WORKITEM_INVALID")


def test_what_is_there_and_what_is_not(client: TestClient) -> None:
    address = _created(client)
    again = client.post(f"{ROOT}?1.9", json=[ITEM], headers=_JSON)
    assert (again.status_code, again.json()["code"]) == (409, "WORKITEM_EXISTS")
    for asked in (client.get(f"{ROOT}/1.8"), _moved(client, f"{ROOT}/1.8", "IN PROGRESS", "5.5")):
        assert (asked.status_code, asked.json()["code"]) == (404, "WORKITEM_UNKNOWN")
    assert _moved(client, address, "DONE", "5.5").status_code == 400
    assert client.post(f"{ROOT}?../x", json=[ITEM], headers=_JSON).status_code == 400
