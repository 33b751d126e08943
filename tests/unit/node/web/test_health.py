"""Health, liveness and readiness."""

from __future__ import annotations

import sqlite3
import subprocess

import pytest
from starlette.testclient import TestClient

from node.cases import CaseState
from node.rows import place_of_processes
from node.spool import Spool
from node.web import health
from tests.web_cases import WebNode


def _age(node: WebNode, role: str, seconds: float) -> None:
    """Make a heartbeat older than it is; the ledger itself always writes the present."""
    with sqlite3.connect(node.spool.root / "ledger.sqlite") as connection:
        connection.execute(
            "UPDATE worker SET seen_at = seen_at - ? WHERE role = ?", (seconds, role)
        )
    connection.close()


def test_a_node_without_processes_is_degraded(client: TestClient) -> None:
    body = client.get("/api/v1/health").json()
    assert body["status"] == "degraded"
    assert body["model_loaded"] is False
    assert body["device"] is None
    assert body["queue_depth"] == 0
    assert body["missing"] == ["receive", "work", "infer", "model"]
    assert body["cases"] == {state.value: 0 for state in CaseState}


def test_a_whole_node_is_healthy_and_names_its_model(node: WebNode, client: TestClient) -> None:
    node.beat("receive", "work", "infer", "web")
    body = client.get("/api/v1/health").json()
    assert body["status"] == "ok"
    assert body["model_loaded"] is True
    assert body["device"] == "cpu"
    assert body["model"] == {
        "id": "demo-glioma",
        "version": node.manifest.version,
        "title": node.manifest.title,
        "demonstration": True,
    }
    assert {(worker["role"], worker["alive"]) for worker in body["workers"]} == {
        ("receive", True),
        ("work", True),
        ("infer", True),
        ("web", True),
    }


def test_cases_that_are_worked_on_are_the_queue(node: WebNode, client: TestClient) -> None:
    node.delivered("1.2.1")
    node.close(node.receive("1.2.2"))
    node.receive("1.2.3")
    waiting = node.receive("1.2.4")
    node.close(waiting)
    node.encode(waiting)
    body = client.get("/api/v1/health").json()
    assert body["queue_depth"] == 2
    assert body["cases"]["receiving"] == 1


def test_the_process_says_that_it_lives_whatever_is_missing(client: TestClient) -> None:
    assert client.get("/livez").status_code == 200


def test_readiness_follows_the_roles_one_by_one(node: WebNode, client: TestClient) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "NODE_NOT_READY"
    assert answer.json()["detail"] == "not ready: receive, work, infer, model missing"

    node.beat("receive", "work")
    assert client.get("/readyz").json()["detail"] == "not ready: infer, model missing"

    node.beat("infer", weights_sha256="0" * 64)
    assert client.get("/readyz").json()["detail"] == "not ready: model missing"

    node.beat("infer")
    assert client.get("/readyz").status_code == 200

    _age(node, "work", node.settings.jobs.heartbeat_timeout_s + 1)
    assert client.get("/readyz").json()["detail"] == "not ready: work missing"

    node.beat("work")
    assert client.get("/readyz").status_code == 200


def test_an_unreadable_ledger_is_a_problem_but_no_death(node: WebNode, client: TestClient) -> None:
    with sqlite3.connect(node.spool.root / "ledger.sqlite") as connection:
        connection.execute("DROP TABLE worker")
    connection.close()
    for path in ("/readyz", "/api/v1/health"):
        answer = client.get(path)
        assert answer.status_code == 503
        assert answer.json()["code"] == "LEDGER_UNREADABLE"
    page = client.get("/")
    assert page.status_code == 503
    assert "LEDGER_UNREADABLE" in page.text
    assert client.get("/livez").status_code == 200


@pytest.mark.parametrize(
    ("age_s", "condition"),
    [(0.0, "alive"), (20.0, "late"), (61.0, "silent"), (-7200.0, "silent")],  # the clock was set
)
def test_a_silent_role_is_shown_before_it_counts_as_dead(
    node: WebNode, age_s: float, condition: str
) -> None:
    node.beat("work")
    _age(node, "work", age_s)
    state = health.read(node.ledger, node.manifest, node.settings.jobs, node.spool)
    by_name = {role.name: role.condition for role in health.roles(state, node.settings.jobs)}
    assert by_name == {"receive": "absent", "work": condition, "infer": "absent"}


def test_a_role_lives_while_one_of_its_processes_does(node: WebNode, client: TestClient) -> None:
    node.beat("work")
    _age(node, "work", 3600.0)
    node.ledger.beat("node-2/work", role="work", host="h", pid=2)
    state = health.read(node.ledger, node.manifest, node.settings.jobs, node.spool)
    work = next(one for one in health.roles(state, node.settings.jobs) if one.name == "work")
    assert (work.condition, work.alive_count) == ("alive", 1)
    assert [one["alive"] for one in client.get("/api/v1/health").json()["workers"]] == [False, True]


@pytest.mark.parametrize(("place", "is_ready"), [(place_of_processes(), False), ("a pod", True)])
def test_what_has_ended_here_is_not_taken_for_ready(
    node: WebNode, client: TestClient, place: str, *, is_ready: bool
) -> None:
    """A node that is started again finds the beats of its last life; it cannot receive yet."""
    node.beat("receive", "work", "infer")
    ended = subprocess.Popen(["true"])
    ended.wait()
    node.ledger.beat(
        "node-1/receive", role="receive", host="h", pid=ended.pid, detail={"place": place}
    )
    assert (client.get("/readyz").status_code == 200) == is_ready  # where another counts, unknown


def test_a_disk_below_the_floor_makes_the_node_not_ready(node: WebNode) -> None:
    full = Spool(node.spool.root, free_floor_bytes=2**62)
    state = health.read(node.ledger, node.manifest, node.settings.jobs, full)
    assert state.status == "degraded"
    assert "free disk space" in state.missing
    roomy = health.read(node.ledger, node.manifest, node.settings.jobs, node.spool)
    assert "free disk space" not in roomy.missing
