"""Programs ask for a study by its UID, and learn how far it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from node.pull_orders import PullOrders, Tally
from tests.unit.node.web.conftest import BASE
from tests.web_cases import WebNode

URL = "/api/v1/studies/1.2.3/process"
ARCHIVE = {"transport": "qido", "url": "http://127.0.0.1:8042/dicom-web"}
TOKENS = "\n".join(f"{role} {role} {role}-{'x' * 24}" for role in ("viewer", "machine"))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[WebNode]:
    """Return a node with an archive, whose work role is the test."""
    made = WebNode.create(tmp_path, source=ARCHIVE, web={"tokens": TOKENS})
    yield made
    made.ledger.close()


def _headers(role: str) -> dict[str, str]:
    return {"authorization": f"Bearer {role}-{'x' * 24}"}


def test_a_study_is_asked_for_once_and_told_until_it_is_there(
    node: WebNode, client: TestClient
) -> None:
    client.headers.update(_headers("machine"))
    assert client.get(URL).json()["code"] == "PULL_UNKNOWN"
    for _ in range(2):
        answer = client.post(URL)
        assert (answer.status_code, answer.headers["location"]) == (202, URL)
        assert answer.json()["state"] == "wanted"
    orders = PullOrders(node.ledger.engine)
    row = orders.take("work")
    assert row is not None
    assert orders.take("other") is None
    assert client.post(URL).json()["state"] == "running"  # goes on as it is
    half = Tally(series_count=5, series_wanted=4, images_wanted=8, images_here=4)
    assert orders.planned(row, {"1.2.3.1": 8}, half)
    assert client.get(URL).json()["tally"]["images_here"] == 4
    case_id = node.receive("1.2.3")
    assert orders.finish(row, half)
    told = client.get(URL).json()
    assert (told["state"], told["case_ids"], told["attempt_count"]) == ("done", [case_id], 1)
    assert client.post(URL).json()["state"] == "wanted"


def test_who_may_only_read_asks_for_nothing(client: TestClient) -> None:
    assert client.post(URL, headers=_headers("viewer")).json()["code"] == "NOT_ALLOWED"
    assert client.get(URL, headers=_headers("viewer")).status_code == 404


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/v1/studies/1.2.3/process?from=elsewhere", 422, "PULL_SOURCE"),
        ("/api/v1/studies/Jane%5EDoe/process", 400, "REQUEST_INVALID"),
        (f"/api/v1/studies/{'1' * 65}/process", 400, "REQUEST_INVALID"),
    ],
)
def test_what_cannot_be_pulled_is_refused(
    client: TestClient, path: str, status: int, code: str
) -> None:
    answer = client.post(path, headers=_headers("machine"))
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "Jane" not in answer.text


def test_the_audit_trail_does_not_name_the_study(node: WebNode) -> None:
    with TestClient(node.app(), base_url=BASE, headers=_headers("machine")) as client:
        client.post(URL)
    trail = (node.spool.root / "audit.jsonl").read_text()
    assert "POST /api/v1/studies/{study_instance_uid}/process" in trail
    assert "1.2.3" not in trail
