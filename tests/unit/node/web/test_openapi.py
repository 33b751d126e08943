"""The description of the interface names what is routed, and what is answered has its shapes."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter
from starlette.routing import Mount
from starlette.testclient import TestClient

from node.actions import Action
from node.web.api import BriefHealth, CasesView, ModelsView, StatusView
from node.web.health import Health
from node.web.machine import SystemView
from node.web.openapi import Problem
from node.web.operations import Endpoint
from node.web.views import CaseView
from tests.web_cases import WebNode

_FORMS = {
    "/destinations/{destination}/echo",
    *(f"/cases/{{case_id}}/{action}" for action in Action),
}
_READ = ("/", "/cases/{case_id}", "/system", "/models", "/login")
PAGES = {*_READ, "/logout", "/search", *_FORMS}


@pytest.fixture
def document(empty_client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = empty_client.get("/openapi.json").json()
    return found


def nested(value: object) -> Iterator[dict[str, Any]]:
    """Yield every object of a document."""
    if isinstance(value, dict):
        yield value
        for one in value.values():
            yield from nested(one)
    elif isinstance(value, list):
        for one in value:
            yield from nested(one)


def test_all_that_is_no_page_is_described(node: WebNode, document: dict[str, Any]) -> None:
    routes = [route for route in node.app().routes if not isinstance(route, Mount)]
    described = {route.path for route in routes if isinstance(route, Endpoint)}
    assert {getattr(route, "path", "") for route in routes} - described == PAGES
    assert described == set(document["paths"])
    for route in routes:
        if isinstance(route, Endpoint):
            methods = {name.upper() for name in document["paths"][route.path]}
            assert set(route.methods or ()) - {"HEAD"} == methods


def test_every_reference_leads_somewhere_and_every_name_is_one(document: dict[str, Any]) -> None:
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    used = {str(one["$ref"]) for one in nested(document) if "$ref" in one}
    assert used <= known
    operations = [one for path in document["paths"].values() for one in path.values()]
    ids = [one["operationId"] for one in operations]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z]\w+", one) for one in ids)
    assert all(one["summary"].endswith(".") or one["tags"] == ["description"] for one in operations)
    for path, methods in document["paths"].items():
        for one in methods.values():
            named = {each["name"] for each in one["parameters"] if each["in"] == "path"}
            assert named == set(re.findall(r"\{(\w+)\}", path))


def test_answers_have_the_shapes_that_are_described(node: WebNode, client: TestClient) -> None:
    node.delivered("1.2.1")
    node.held("1.2.2")
    node.rejected("1.2.3")
    node.failed("1.2.4")
    case_id = node.receive("1.2.5")
    shapes = {
        "/api/v1/cases": CasesView,
        f"/api/v1/cases/{case_id}": CaseView,
        "/api/v1/health": Health,
        "/api/v1/system": SystemView,
        "/api/v1/models": ModelsView,
        "/health": BriefHealth,
        "/livez": StatusView,
        "/readyz": Problem,
        f"/api/v1/cases/{'0' * 32}": Problem,
    }
    for path, shape in shapes.items():
        text = client.get(path).text
        adapter: TypeAdapter[Any] = TypeAdapter(shape)
        back = json.loads(adapter.dump_json(adapter.validate_json(text)))
        assert _names(back) == _names(json.loads(text)), path


def _names(value: object) -> object:
    """Return the names in an answer, without its values."""
    if isinstance(value, dict):
        return {name: _names(one) for name, one in value.items()}
    return [_names(one) for one in value] if isinstance(value, list) else None


def test_refusals_have_the_status_that_is_described(
    document: dict[str, Any], client: TestClient
) -> None:
    tried = {
        "/readyz": "/readyz",
        "/api/v1/cases": "/api/v1/cases?limit=0",
        "/api/v1/cases/{case_id}": f"/api/v1/cases/{'0' * 32}",
        "/api/v1/cases/{case_id}/files/{name}": f"/api/v1/cases/{'0' * 32}/files/seg.dcm",
        "/api/v1/predictions/{prediction_id}": f"/api/v1/predictions/{'0' * 32}",
    }
    for path, url in tried.items():
        answer = client.get(url)
        said = document["paths"][path]["get"]["responses"][str(answer.status_code)]
        assert answer.json()["code"] in said["description"].split(", ")
        assert answer.headers["content-type"] in said["content"]


def test_a_client_that_has_the_answer_is_told_so(node: WebNode, client: TestClient) -> None:
    case_id = node.delivered("1.2.1")
    known = {}
    for path in ("/api/v1/cases", f"/api/v1/cases/{case_id}"):
        first = client.get(path)
        known[path] = {"if-none-match": f'"other", W/{first.headers["etag"]}'}
        again = client.get(path, headers=known[path])
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
    node.receive("1.2.2")
    changed = client.get("/api/v1/cases", headers=known["/api/v1/cases"])
    assert changed.status_code == 200
    assert changed.json()["total"] == 2


def test_links_lead_through_the_whole_list(node: WebNode, client: TestClient) -> None:
    wanted = [node.receive(f"1.2.{number}") for number in range(1, 6)]
    answers = [client.get("/api/v1/cases?state=receiving&limit=2")]
    while "next" in answers[-1].links:
        answers.append(client.get(answers[-1].links["next"]["url"]))
    parts = [[one["case_id"] for one in answer.json()["cases"]] for answer in answers]
    assert sorted(itertools.chain(*parts)) == sorted(wanted)
    assert len(parts) == 3
    back = client.get(answers[2].links["prev"]["url"]).json()["cases"]
    assert [one["case_id"] for one in back] == parts[1]


def test_the_page_holds_every_operation_and_its_links_lead_somewhere(
    document: dict[str, Any], empty_client: TestClient
) -> None:
    page = empty_client.get("/docs").text
    anchors = set(re.findall(r' id="([^"]+)"', page))
    links = set(re.findall(r'href="#([^"]+)"', page))
    assert links <= anchors
    assert {
        one["operationId"] for each in document["paths"].values() for one in each.values()
    } <= anchors
    assert {f"shape-{name}" for name in document["components"]["schemas"]} <= anchors
    assert "Research use only" in page
