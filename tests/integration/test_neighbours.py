"""One node, many cases: what is held, cancelled or poisoned stands in nobody's way."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from converters import phantom
from converters.phantom import PhantomFiles
from node.__main__ import main
from node.demo.archive import DemoArchive
from tests.nodes import POISONED, RunningNode, destination, push
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

SLOW_S = 0.8  # a window of `tests.poison`


@dataclass
class Site:
    """A node that holds results without T2w, its archive, and what some studies do to it."""

    folder: Path
    node: RunningNode
    archive: DemoArchive

    @property
    def gate(self) -> Path:
        """What slow studies wait for."""
        return self.folder / "gate"

    def plan(self, kinds: dict[str, str]) -> None:
        """Say what happens in the windows of studies."""
        (self.folder / "plan.json").write_text(json.dumps(kinds), encoding="utf-8")

    def study(self, seed: int) -> PhantomFiles:
        """Make a study."""
        made = phantom.make_study(seed, size="small")
        return phantom.write_study(made, self.folder / f"study-{seed}")

    def push(self, study: PhantomFiles, *, without: str = "") -> None:
        """Send a study."""
        some = [path for role, many in study.paths.items() if role != without for path in many]
        assert set(push(some, self.node.dicom_port)) == {0}

    def case(self, study: PhantomFiles, state: str, *, revision: int = 1) -> dict[str, Any]:
        """Wait until the case of a study is in a state; return it."""

        def _found() -> dict[str, Any] | None:
            wanted = (study.study_instance_uid, state, revision)
            keys = ("study_instance_uid", "state", "revision")
            every = self.node.cases()
            return next((one for one in every if tuple(one[key] for key in keys) == wanted), None)

        found = wait_until(_found, 120.0, f"a case to be {state}")
        assert found is not None
        return found

    def command(self, name: str, case: dict[str, Any]) -> None:
        """Act as an operator."""
        arguments = ["cases", "--config", str(self.node.config), name, case["case_id"]]
        assert CliRunner().invoke(main, arguments, catch_exceptions=False).exit_code == 0

    def lines(self, case: dict[str, Any]) -> list[dict[str, Any]]:
        """Return what was logged of a case."""
        return [one for one in self.node.log_lines() if one.get("case_id") == case["case_id"]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    archive = DemoArchive(folder / "archive")
    archive.start()
    node = RunningNode(
        folder / "node",
        [destination("archive", port=archive.port)],
        entry=POISONED,
        environment={
            "POISON_PLAN": str(folder / "plan.json"),
            "POISON_GATE": str(folder / "gate"),
        },
        options={
            "delivery": 'hold_codes = ["INPUT_MISSING"]',
            "align": 'registration = "off"',  # most of the time, and not what this is about
        },
    )
    made = Site(folder=folder, node=node, archive=archive)
    made.plan({})
    with node:
        node.wait_ready()
        yield made
    archive.stop()


def test_a_cancelled_study_makes_way_for_the_next_within_a_second(site: Site) -> None:
    slow, other = site.study(41), site.study(42)
    site.plan({slow.study_instance_uid: "slow"})
    for study in (slow, other):
        site.push(study)
        site.case(study, "assembled")
    site.gate.touch()
    wait_until(lambda: site.case(slow, "assembled")["progress"], 60.0, "windows to be counted")
    told_at = datetime.now(UTC)
    site.command("cancel", site.case(slow, "assembled"))
    site.case(other, "delivered")
    cancelled = site.case(slow, "cancelled")
    assert cancelled["code"] == "CASE_CANCELLED"
    assert cancelled["attempts"][-1]["outcome"] == "cancelled"
    assert not site.archive.find(slow.study_instance_uid, "SEG")
    own = site.lines(cancelled)
    assert not [line for line in own if line["level"] == "error"]
    (stopped,) = [line for line in own if line["event"] == "stage.stopped"]
    assert (stopped["role"], stopped["code"]) == ("infer", "PREDICTION_STOPPED")
    stopped_at = datetime.fromisoformat(stopped["time"])
    moved_at = datetime.fromisoformat(cancelled["updated_at"])
    sys.stdout.write(
        f"{stopped['sentence']}, of {SLOW_S} s each: "
        f"{(stopped_at - told_at).total_seconds():.2f} s from the command, "
        f"{(stopped_at - moved_at).total_seconds():.2f} s from the move\n"
    )
    assert (stopped_at - moved_at).total_seconds() < SLOW_S + 1.0


def test_a_held_result_waits_through_a_restart_and_goes_once_it_is_released(site: Site) -> None:
    doubtful, late = site.study(31), site.study(32)
    for study in (doubtful, late):
        site.push(study, without="t2")
    first, second = site.case(doubtful, "held"), site.case(late, "held")
    assert first["code"] == "RESULT_HELD"
    assert [note.split(":")[0] for note in first["held_for"]] == ["INPUT_MISSING"]
    assert site.node.get("/api/v1/health").json()["cases"]["held"] == 2

    assert site.node.stop() == 0
    site.node.start()
    site.node.wait_ready()

    # The missing series arrives: the result of the whole study takes the held one's place.
    assert set(push(late.paths["t2"], site.node.dicom_port)) == {0}
    site.case(late, "delivered", revision=2)
    assert site.node.case(second["case_id"])["state"] == "superseded"
    assert site.node.case(first["case_id"])["state"] == "held"
    assert not site.archive.find(doubtful.study_instance_uid, "SEG")

    site.command("release", first)
    site.case(doubtful, "delivered")
    (seg,) = site.archive.find(doubtful.study_instance_uid, "SEG")
    assert site.archive.arrivals[seg.sop_instance_uid] == 1
    events = [line["event"] for line in site.lines(first)]
    assert events.count("case.held") == events.count("case.released") == 1
    assert [line["level"] for line in site.lines(first)].count("error") == 0


def test_output_that_is_no_number_and_a_lack_of_memory_fail_their_own_cases_only(
    site: Site,
) -> None:
    broken, greedy, sound = site.study(51), site.study(52), site.study(53)
    site.plan({broken.study_instance_uid: "nan", greedy.study_instance_uid: "memory"})
    for study in (broken, greedy, sound):
        site.push(study)
    site.case(sound, "delivered")
    assert site.case(broken, "failed")["code"] == "MODEL_OUTPUT_INVALID"
    failed = site.case(greedy, "failed")
    assert failed["code"] == "DEVICE_MEMORY"
    tries = [one["outcome"] for one in failed["attempts"] if one["stage"] == "segment"]
    assert tries == ["retry", "retry", "failed"]
    assert [len(site.archive.find(one.study_instance_uid, "SEG")) for one in (broken, sound)] == [
        0,
        1,
    ]

    site.plan({})
    site.command("retry", failed)
    site.case(greedy, "delivered")
