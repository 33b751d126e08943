"""A whole node that holds results back: nothing arrives until somebody lets it go, then once."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from converters import phantom
from node.demo.archive import DemoArchive
from tests.nodes import PLAIN, ROOT, RunningNode, destination, push

pytestmark = pytest.mark.integration


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[DemoArchive]:
    archive = DemoArchive(tmp_path / "archive")
    archive.start()
    yield archive
    archive.stop()


def _study(folder: Path, seed: int) -> phantom.PhantomFiles:
    return phantom.write_study(phantom.make_study(seed, size="small"), folder / f"study-{seed}")


def _without_t2(study: phantom.PhantomFiles) -> list[Path]:
    return [path for role, paths in study.paths.items() if role != "t2" for path in paths]


def _release(node: RunningNode, case: dict[str, Any]) -> None:
    command = [*PLAIN, "cases", "--config", str(node.config), "release", case["case_id"]]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)


@pytest.mark.timeout(300)
def test_a_held_result_waits_through_a_restart_and_goes_once_it_is_released(
    tmp_path: Path, archive: DemoArchive
) -> None:
    doubtful, late = _study(tmp_path, 31), _study(tmp_path, 32)
    node = RunningNode(
        tmp_path / "node",
        [destination("archive", port=archive.port)],
        options={
            "delivery": 'hold_codes = ["INPUT_MISSING"]',
            "align": 'registration = "off"',  # not what this is about, and most of the time
        },
    )
    with node:
        node.wait_ready()
        for study in (doubtful, late):
            assert set(push(_without_t2(study), node.dicom_port)) == {0}
        held = {one["study_instance_uid"]: one for one in node.wait_states("held", 2)}
        first, second = held[doubtful.study_instance_uid], held[late.study_instance_uid]
        assert first["code"] == "RESULT_HELD"
        assert [note.split(":")[0] for note in first["held_for"]] == ["INPUT_MISSING"]
        assert node.get("/api/v1/health").json()["cases"]["held"] == 2

        assert node.stop() == 0
        node.start()
        node.wait_ready()

        # The missing series arrives: the result of the whole study takes the held one's place.
        assert set(push(late.paths["t2"], node.dicom_port)) == {0}
        (whole,) = node.wait_states("delivered")
        assert (whole["study_instance_uid"], whole["revision"]) == (late.study_instance_uid, 2)
        assert node.case(second["case_id"])["state"] == "superseded"
        assert node.case(first["case_id"])["state"] == "held"
        assert {one.study_instance_uid for one in archive.instances()} == {late.study_instance_uid}

        _release(node, first)
        node.wait_states("delivered", 2)
    assert len(archive.find(doubtful.study_instance_uid, "SEG")) == 1
    assert set(archive.arrivals.values()) == {1}
    events = [line["event"] for line in node.log_lines() if line.get("case_id") == first["case_id"]]
    assert events.count("case.held") == events.count("case.released") == 1
