"""Kill -9 around a prediction: it is computed again, and nothing is left of it.

That one which kills its process again and again fails is shown in the unit tests of the queue.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import predictions, tiny_models
from tests.nodes import RunningNode
from tests.predictions import form, head
from tests.waiting import wait_until

pytestmark = pytest.mark.faults

CRASHING = (sys.executable, "-m", "tests.faults.crashing_node")
URL = "/api/v1/predict"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.written(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def upload() -> bytes:
    content: bytes = head().to_bytes()
    return content


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plan") / "crash-plan"


@pytest.fixture(scope="module")
def node(
    folder: Path, plan: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningNode]:
    environment = {"NEUROSEG_MODEL__FOLDER": str(folder), "CRASH_PLAN": str(plan)}
    running = RunningNode(tmp_path_factory.mktemp("node"), entry=CRASHING, environment=environment)
    with running:
        running.wait_ready()
        yield running


def _sent(node: RunningNode, content: bytes) -> str:
    answer = httpx.post(
        f"{node.url}{URL}",
        **form(content),
        headers={"prefer": "respond-async"},
        timeout=60.0,
        trust_env=False,
    )
    assert answer.status_code == 202, answer.text
    return answer.headers["location"]


def _over(node: RunningNode, url: str) -> dict[str, Any]:
    def is_over() -> bool:
        return node.get(url).json()["state"] in ("done", "failed")

    wait_until(is_over, 120.0, "the prediction to be over")
    body: dict[str, Any] = node.get(url).json()
    return body


def _crashes(node: RunningNode) -> int:
    exits = [line for line in node.log_lines() if line["event"] == "role.exited"]
    return sum(line["kind"] == "infer" for line in exits)


@pytest.mark.timeout(300)
def test_a_prediction_survives_the_death_of_its_process(
    node: RunningNode, plan: Path, upload: bytes
) -> None:
    plan.write_text("predict:written", encoding="utf-8")
    url = _sent(node, upload)
    body = _over(node, url)
    exits = [line["kind"] for line in node.log_lines() if line["event"] == "role.exited"]
    assert (body["state"], exits) == ("done", ["infer"])
    assert node.get(body["labels_url"]).is_success
    assert httpx.delete(f"{node.url}{url}", trust_env=False).status_code == 204


@pytest.mark.timeout(300)
def test_a_web_process_that_dies_leaves_no_file_of_those_who_waited(
    node: RunningNode, upload: bytes
) -> None:
    def send() -> None:
        with pytest.raises(httpx.TransportError):
            httpx.post(f"{node.url}{URL}", **form(upload), timeout=120.0, trust_env=False)

    waiting = threading.Thread(target=send)
    waiting.start()
    wait_until(lambda: bool(list(node.spool.glob("predictions/*/input.nii"))), 60.0, "the upload")
    assert node.kill_role("web")
    waiting.join(60)
    wait_until(lambda: predictions.files(node.spool / "predictions") == [], 60.0, "the files to go")
    wait_until(node.is_ready, 60.0, "the node to be ready")
    assert node.get("/health").json()["model_loaded"]
