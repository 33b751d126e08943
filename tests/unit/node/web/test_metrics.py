"""``/metrics``: what is counted of a node with cases in every state, read by the library itself."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from converters.errors import RoleMissingError
from tests.web_cases import WebNode

DEPLOY = Path(__file__).parents[4] / "deploy"


def samples(client: TestClient) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in text_string_to_metric_families(answer.text)
        for one in family.samples
    }


def of(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"neuroseg_{name}", frozenset(labels.items())


def test_refusals_of_all_doors_are_counted(node: WebNode, client: TestClient) -> None:
    told = (
        ("node-1.receive0", "receive", {"INSTANCE_TOO_LARGE": 2}),
        ("node-1.receive1", "receive", {"INSTANCE_TOO_LARGE": 1, "SPOOL_FULL": 4}),
        ("node-1", "web", {"INSTANCE_UNREADABLE": 5}),
    )
    for name, role, refused in told:
        detail = {"port": 1, "refused": refused}
        node.ledger.beat(f"{name}/{role}", role=role, host="h", pid=1, detail=detail)
    found = samples(client)
    assert found[of("refusals_total", door="dimse", code="INSTANCE_TOO_LARGE")] == 3
    assert found[of("refusals_total", door="dimse", code="SPOOL_FULL")] == 4
    assert found[of("refusals_total", door="stow", code="INSTANCE_UNREADABLE")] == 5


def test_cases_attempts_and_deliveries_are_counted(node: WebNode, client: TestClient) -> None:
    node.delivered("1.2.1")
    node.delivered("1.2.2")
    node.rejected("1.2.3")
    node.failed("1.2.4")
    found = samples(client)
    assert found[of("cases", state="delivered")] == 2
    assert found[of("cases", state="failed")] == 1
    assert found[of("cases_with_code", state="rejected", code=RoleMissingError.code)] == 1
    done = of("attempts_total", stage="encode", destination="", outcome="done", code="")
    assert found[done] == 2
    failed = of(
        "attempts_total",
        stage="segment",
        destination="",
        outcome="failed",
        code="MODEL_OUTPUT_INVALID",
    )
    assert found[failed] == 1
    taken = of("delivered_objects_total", destination="pacs", transport="dimse", status="0x0000")
    assert found[taken] == 2
    assert found[of("stage_seconds_count", stage="segment")] == 2
    assert found[of("stage_seconds_bucket", stage="segment", le="+Inf")] == 2
    assert found[of("turnaround_seconds_count")] == 2
    assert found[of("instances_kept")] > 0
    assert found[of("recent_results")] == 2
    assert found[of("recent_volume_ml", label="Oedema", quantile="0.5")] == pytest.approx(48.31)
    assert found[of("recent_entropy", label="Oedema", quantile="0.95")] == pytest.approx(0.31)


def test_an_empty_node_has_figures_and_is_not_ready(empty_client: TestClient) -> None:
    found = samples(empty_client)
    assert found[of("ready")] == 0
    assert found[of("turnaround_seconds_count")] == 0
    assert found[of("disk_bytes", kind="free")] > 0
    assert found[of("workers_alive", role="infer")] == 0


def test_nothing_in_it_names_a_study(node: WebNode, client: TestClient) -> None:
    node.delivered("1.2.7654321", description="{} of Doe")
    text = client.get("/metrics").text
    assert "1.2.7654321" not in text
    assert "Doe" not in text


def test_dashboard_and_alerts_ask_for_figures_that_exist(node: WebNode, client: TestClient) -> None:
    waiting = node.receive("1.2.5")
    node.close(waiting)
    node.encode(waiting)
    node.fail_delivery(waiting)
    node.delivered("1.2.1")
    node.rejected("1.2.3")
    node.beat("infer")
    known: dict[str, dict[str, set[str]]] = {}
    for name, pairs in samples(client):
        values = known.setdefault(name, {})
        for label, value in pairs:
            values.setdefault(label, set()).add(value)
    board = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
    targets = [target for panel in board["panels"] for target in panel.get("targets", [])]
    rules = yaml.safe_load((DEPLOY / "prometheus-alerts.yml").read_text(encoding="utf-8"))
    asked = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    assert len(asked) + len(targets) > 15
    for expression in [*asked, *(target["expr"] for target in targets)]:
        found = re.findall(r"(neuroseg_\w+)(?:\{([^}]*)\})?", expression)
        assert found, expression
        labels: dict[str, set[str]] = {}
        for name, matchers in found:
            labels |= known[name]
            for label, relation, value in re.findall(r'(\w+)(=~|!=|=)"([^"]*)"', matchers):
                wanted = set(value.split("|") if relation == "=~" else [value])
                assert wanted <= known[name][label], expression
        grouped = re.findall(r"(?:by|ignoring) ?\(([\w, ]+)\)", expression)
        assert set(re.findall(r"\w+", " ".join(grouped))) <= labels.keys(), expression
    for target in targets:
        (name,) = set(re.findall(r"neuroseg_\w+", target["expr"]))
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert shown <= known[name].keys(), target


def test_a_destination_that_takes_nothing_is_counted(node: WebNode, client: TestClient) -> None:
    assert samples(client)[of("cases_to_try_again", destination="pacs")] == 0
    cases = [node.receive(study) for study in ("1.2.1", "1.2.2")]
    for case_id in cases:
        node.close(case_id)
        node.encode(case_id)
        node.fail_delivery(case_id)
    node.deliver(node.ledger.results(cases[0])[0])
    with TestClient(node.app(), base_url="http://127.0.0.1") as later:
        found = samples(later)
    assert found[of("cases_to_try_again", destination="pacs")] == 1
    assert found[of("cases", state="failed")] == 0
