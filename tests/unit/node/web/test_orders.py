"""What operators order by HTTP is carried out once, where it makes sense."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from node.actions import Action
from node.cases import CaseState
from node.orders import OrderBook
from node.web import problems
from tests.unit.node.web.conftest import BASE
from tests.web_cases import WebNode


def state_of(node: WebNode, case_id: str) -> CaseState:
    return node.ledger.case(case_id).state


def test_a_failed_case_starts_again(node: WebNode, client: TestClient) -> None:
    case_id = node.failed("1.2.1")
    body = client.post(f"/api/v1/cases/{case_id}/retry").json()
    assert (body["case_id"], body["state"], body["run"]) == (case_id, "assembled", 2)
    assert body["actions"] == ["cancel", "priority"]


def test_a_held_result_is_released(node: WebNode, client: TestClient) -> None:
    case_id = node.held("1.2.1")
    assert client.get(f"/api/v1/cases/{case_id}").json()["actions"][0] == "release"
    assert client.post(f"/api/v1/cases/{case_id}/release").json()["state"] == "encoded"


def test_a_case_is_cancelled_and_completed(node: WebNode, client: TestClient) -> None:
    first, second = node.receive("1.2.1"), node.receive("1.2.2")
    assert client.post(f"/api/v1/cases/{first}/cancel").json()["state"] == "cancelled"
    assert client.post(f"/api/v1/cases/{second}/complete").json()["state"] == "receiving"
    assert node.ledger.case(second).completion_requested_at is not None


def test_haste_is_wanted_of_a_case_that_is_being_delivered(
    node: WebNode, client: TestClient
) -> None:
    case_id = node.receive("1.2.1")
    node.close(case_id)
    node.encode(case_id)
    for _ in range(2):
        assert client.post(f"/api/v1/cases/{case_id}/retry").status_code == 200
    book = OrderBook(node.ledger.engine)
    assert book.hasty() == [case_id]
    book.hastened(case_id)
    assert book.hasty() == []


def test_series_are_chosen_by_their_number(node: WebNode, client: TestClient) -> None:
    case_id = node.rejected("1.2.1")
    url = f"/api/v1/cases/{case_id}/choose"
    listed = client.get(f"/api/v1/cases/{case_id}").json()["series"]
    number = next(one["number"] for one in listed if one["role"] == "t2")
    body = client.post(url, json={"series": {"t1": number}}).json()
    assert [one["number"] for one in body["series"] if one["is_chosen"]] == [number]
    assert list(node.ledger.choices(case_id)) == ["t1"]
    assert client.post(url, json={"series": {}}).status_code == 200
    assert node.ledger.choices(case_id) == {}


def test_a_case_gets_another_priority_and_its_next_revision_keeps_it(
    node: WebNode, client: TestClient
) -> None:
    case_id = node.receive("1.2.1")
    url = f"/api/v1/cases/{case_id}/priority"
    assert client.get(f"/api/v1/cases/{case_id}").json()["priority"] == "normal"
    assert client.post(url, json={"priority": "high"}).json()["priority"] == "high"
    wrongs: tuple[object, ...] = ({"priority": "first"}, {"priority": 1}, {}, [])
    for wrong in wrongs:
        answer = client.post(url, json=wrong)
        assert (answer.status_code, answer.json()["code"]) == (400, "REQUEST_INVALID")
    for address in ("/", f"/cases/{case_id}"):
        assert "High priority" in client.get(address).text
    answer = client.post(f"/cases/{case_id}/priority", data={"priority": "low"})
    assert answer.status_code == 200  # of the page that it leads to
    assert "Low priority" in answer.text
    node.close(case_id)
    node.deliver(node.encode(case_id))
    newest = node.ledger.case(node.receive("1.2.1", slices=4))
    assert (newest.revision, newest.priority) == (2, "low")


@pytest.mark.parametrize(
    ("series", "code"),
    [
        ({"t1": 99}, "SERIES_UNKNOWN"),
        ({"pd": 1}, "ROLE_UNKNOWN"),
        ({"t1": 1, "t2": 1}, "SERIES_CHOSEN_TWICE"),
        ({"t1": "1"}, "REQUEST_INVALID"),
        ({"t1": True}, "REQUEST_INVALID"),
        ({"t1": 1.5}, "REQUEST_INVALID"),
        ({"t1": 99.0}, "SERIES_UNKNOWN"),
        ([], "REQUEST_INVALID"),
    ],
)
def test_a_choice_that_cannot_be_changes_nothing(
    node: WebNode, client: TestClient, series: object, code: str
) -> None:
    case_id = node.rejected("1.2.1")
    answer = client.post(f"/api/v1/cases/{case_id}/choose", json={"series": series})
    assert answer.status_code in (400, 422)
    assert answer.json()["code"] == code
    assert node.ledger.choices(case_id) == {}


@pytest.mark.parametrize(
    "body", [b"", b"[" * 9000, b'{"series": {"t1": 1}' + b" " * 20000, b"\xff"]
)
def test_a_body_that_is_no_choice_is_refused(
    node: WebNode, client: TestClient, body: bytes
) -> None:
    case_id = node.rejected("1.2.1")
    answer = client.post(f"/api/v1/cases/{case_id}/choose", content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "REQUEST_INVALID")


def test_what_makes_no_sense_is_refused_with_what_does(node: WebNode, client: TestClient) -> None:
    case_id = node.delivered("1.2.1")
    for action in set(Action) - {Action.CHOOSE}:
        answer = client.post(f"/api/v1/cases/{case_id}/{action}", json={"priority": "high"})
        assert (answer.status_code, answer.json()["code"]) == (409, "CASE_ACTION_UNAVAILABLE")
        assert "choose" in answer.json()["detail"]
    assert state_of(node, case_id) is CaseState.DELIVERED


def test_an_order_under_one_key_is_carried_out_once(node: WebNode, client: TestClient) -> None:
    case_id, other = node.failed("1.2.1"), node.failed("1.2.2")
    key = {"idempotency-key": "4711"}
    first = client.post(f"/api/v1/cases/{case_id}/retry", headers=key)
    again = client.post(f"/api/v1/cases/{case_id}/retry", headers=key)
    assert (first.status_code, again.status_code) == (200, 200)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert node.ledger.case(case_id).run == 2
    reused = client.post(f"/api/v1/cases/{other}/retry", headers=key)
    assert (reused.status_code, reused.json()["code"]) == (422, "ORDER_KEY_REUSED")
    assert state_of(node, other) is CaseState.FAILED


def test_a_refused_order_may_come_again_under_its_key(node: WebNode, client: TestClient) -> None:
    case_id = node.receive("1.2.1")
    key = {"idempotency-key": "4711"}
    assert client.post(f"/api/v1/cases/{case_id}/release", headers=key).status_code == 409
    node.close(case_id)
    node.encode(case_id, held_for=["INPUT_MISSING"])
    assert client.post(f"/api/v1/cases/{case_id}/release", headers=key).status_code == 200


def test_only_operators_order(tmp_path: Path) -> None:
    tokens = {role: f"{role}-token-of-enough-length" for role in ("viewer", "machine", "operator")}
    text = "\n".join(f"{role} {role}1 {token}" for role, token in tokens.items())
    node = WebNode.create(tmp_path, web={"tokens": text})
    case_id = node.failed("1.2.1")
    with TestClient(node.app(), base_url=BASE) as client:
        for role, status in (("viewer", 403), ("machine", 403), ("operator", 200)):
            headers = {"authorization": f"Bearer {tokens[role]}"}
            page = client.get(f"/cases/{case_id}", headers=headers)
            assert ("Start again" in page.text) is (role == "operator")
            answer = client.post(f"/api/v1/cases/{case_id}/retry", headers=headers)
            assert answer.status_code == status
    node.ledger.close()
    noted = (node.spool.root / "audit.jsonl").read_text(encoding="utf-8").splitlines()
    last = json.loads(noted[-1])
    assert last["ActiveParticipant"][0]["UserID"] == "operator1"
    assert case_id in last["ParticipantObjectIdentification"][0]["ParticipantObjectID"]


def test_another_site_orders_nothing(node: WebNode, client: TestClient) -> None:
    case_id = node.failed("1.2.1")
    for path in (f"/api/v1/cases/{case_id}/retry", f"/cases/{case_id}/retry"):
        answer = client.post(path, headers={"origin": "https://elsewhere.example"})
        assert answer.status_code == 403
    assert state_of(node, case_id) is CaseState.FAILED


def test_every_button_of_a_page_does_what_it_says(node: WebNode, client: TestClient) -> None:
    case_id = node.failed("1.2.1")
    page = client.get(f"/cases/{case_id}").text
    forms = re.findall(r'<form method="post" action="([^"]+)"', page)
    assert forms == [f"/cases/{case_id}/retry", f"/cases/{case_id}/choose"]
    answer = client.post(forms[0], headers={"origin": BASE})
    assert (answer.status_code, answer.url.path) == (200, f"/cases/{case_id}")
    assert state_of(node, case_id) is CaseState.ASSEMBLED
    assert "Cancel the case" in answer.text


def test_a_form_chooses_and_leaves_the_rest_to_the_node(node: WebNode, client: TestClient) -> None:
    case_id = node.rejected("1.2.1")
    page = client.get(f"/cases/{case_id}").text
    assert set(re.findall(r'<select id="choose-\w+" name="(\w+)"', page)) == set(
        node.manifest.roles
    )
    client.post(f"/cases/{case_id}/choose", data={"flair": "1", "t1": "", "t2": ""})
    assert list(node.ledger.choices(case_id)) == ["flair"]
    refused = client.post(f"/cases/{case_id}/choose", data={"flair": "x"})
    assert refused.status_code == 400
    assert "REQUEST_INVALID" in refused.text


def test_every_refusal_of_an_order_has_a_status(client: TestClient) -> None:
    for route in client.app.routes:  # type: ignore[attr-defined]
        for operation in getattr(route, "operations", ()):
            for error in operation.errors:
                assert any(kind in problems.STATUSES for kind in error.__mro__), error
