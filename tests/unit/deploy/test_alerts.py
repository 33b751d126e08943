"""What Prometheus itself makes of the alerts and of the dashboard's questions."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import peers

DEPLOY = Path(__file__).parents[3] / "deploy"
STORIES = Path(__file__).with_name("alerts.test.yml")


@pytest.fixture
def rules() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus-alerts.yml").read_text("utf-8"))
    return found


def _promtool(*words: str) -> None:
    peers.require("prometheus")
    done = subprocess.run(
        [str(peers.program("promtool")), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_when_it_should_and_only_then(
    rules: dict[str, Any], tmp_path: Path
) -> None:
    (group,) = rules["groups"]
    for rule in group["rules"]:
        assert {"summary", "action"} == set(rule.pop("annotations"))  # else the stories repeat them
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    shutil.copy(STORIES, tmp_path)
    _promtool("test", "rules", str(tmp_path / STORIES.name))


def test_each_alert_has_a_story(rules: dict[str, Any]) -> None:
    stories = yaml.safe_load(STORIES.read_text("utf-8"))
    told = {
        check["alertname"]: bool(check.get("exp_alerts"))
        for story in stories["tests"]
        for check in sorted(story["alert_rule_test"], key=lambda one: "exp_alerts" in one)
    }
    (group,) = rules["groups"]
    assert told == {rule["alert"]: True for rule in group["rules"]}


def test_prometheus_understands_each_question_of_the_dashboard(tmp_path: Path) -> None:
    board = json.loads((DEPLOY / "grafana-dashboard.json").read_text("utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    records = [{"record": f"asked:{number}", "expr": one} for number, one in enumerate(asked)]
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": records}]}), "utf-8")
    _promtool("check", "rules", str(file))
