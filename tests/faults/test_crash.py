"""Kill -9 anywhere: every study ends in exactly one SEG at the archive."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from converters import phantom
from node.cases import Stage
from node.demo.archive import DemoArchive
from node.reading import LedgerReader
from tests.nodes import PLAIN, POISONED, ROOT, RunningNode, destination, push
from tests.peers import Orthanc
from tests.waiting import wait_until

pytestmark = pytest.mark.faults

BOUNDARIES = [
    f"{stage}:{where}"
    for stage, middle in (
        ("convert", "written"),
        ("segment", "written"),
        ("encode", "written"),
        ("deliver", "sent"),
    )
    for where in ("start", middle, "done")
]
# Registration takes most of a case's time, and is not what this is about.
QUICK = {"align": 'registration = "off"'}
CRASHING = (sys.executable, "-m", "tests.faults.crashing_node")


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[DemoArchive]:
    archive = DemoArchive(tmp_path / "archive")
    archive.start()
    yield archive
    archive.stop()


def _study(folder: Path, seed: int) -> phantom.PhantomFiles:
    return phantom.write_study(phantom.make_study(seed, size="small"), folder / f"study-{seed}")


def _interleaved(files: phantom.PhantomFiles) -> list[Path]:
    rounds = itertools.zip_longest(*files.paths.values())
    return [path for one in rounds for path in one if path is not None]


def _segs(archive: DemoArchive, study: phantom.PhantomFiles) -> int:
    return len(archive.find(study.study_instance_uid, "SEG"))


@pytest.mark.timeout(600)
def test_a_crash_at_every_stage_boundary_still_gives_exactly_one_result(
    tmp_path: Path, archive: DemoArchive
) -> None:
    plan = tmp_path / "crash-plan"
    node = RunningNode(
        tmp_path / "node",
        [destination("archive", port=archive.port)],
        entry=CRASHING,
        environment={"CRASH_PLAN": str(plan)},
        options=QUICK,
    )
    with node:
        node.wait_ready()
        for seed, boundary in enumerate(BOUNDARIES):
            plan.write_text(boundary, encoding="utf-8")
            study = _study(tmp_path, seed)
            assert set(push(_interleaved(study), node.dicom_port)) == {0}
            node.wait_states("delivered", seed + 1)
            assert not plan.exists(), f"no process passed {boundary}"
            assert _segs(archive, study) == 1, boundary
    exits = [line for line in node.log_lines() if line["event"] == "role.exited"]
    assert len(exits) == len(BOUNDARIES)
    assert len(archive.instances()) == 2 * len(BOUNDARIES)  # SEG and report


@pytest.mark.timeout(600)
def test_a_study_that_kills_its_process_again_and_again_is_failed_and_can_be_retried(
    tmp_path: Path, archive: DemoArchive
) -> None:
    plan = tmp_path / "plan.json"
    poison, sound = _study(tmp_path, 1), _study(tmp_path, 2)
    plan.write_text(json.dumps({poison.study_instance_uid: "crash"}), encoding="utf-8")
    node = RunningNode(
        tmp_path / "node",
        [destination("archive", port=archive.port)],
        entry=POISONED,
        environment={"POISON_PLAN": str(plan)},
        options=QUICK,
    )
    with node:
        node.wait_ready()
        for study in (poison, sound):
            push(_interleaved(study), node.dicom_port)
        (delivered,) = node.wait_states("delivered", 1, timeout_s=400.0)  # after five starts
        assert delivered["study_instance_uid"] == sound.study_instance_uid
        (failed,) = node.wait_states("failed", timeout_s=200.0)
        assert failed["code"] == "JOB_CRASHED"
        plan.write_text("{}", encoding="utf-8")
        retry = [*PLAIN, "cases", "--config", str(node.config), "retry", failed["case_id"]]
        subprocess.run(retry, cwd=ROOT, check=True, timeout=60)
        node.wait_states("delivered", 2)
    assert [_segs(archive, study) for study in (poison, sound)] == [1, 1]


@pytest.mark.timeout(300)
def test_a_node_stopped_in_mid_study_drains_and_goes_on_where_it_stood(
    tmp_path: Path, archive: DemoArchive
) -> None:
    study = _study(tmp_path, 3)
    node = RunningNode(
        tmp_path / "node", [destination("archive", port=archive.port)], options=QUICK
    )
    with node:
        node.wait_ready()
        push(_interleaved(study), node.dicom_port)
        node.wait_states("assembled")
        assert node.stop() == 0
        node.start()
        (case,) = node.wait_states("delivered")
    assert _segs(archive, study) == 1
    ledger = LedgerReader(f"sqlite:///{node.spool}/ledger.sqlite")
    stages = [one.stage for one in ledger.attempts(case["case_id"])]
    ledger.close()
    assert stages.count(Stage.CONVERT) == 1


@pytest.mark.timeout(900)
def test_kills_at_random_moments_lose_and_double_nothing(
    tmp_path: Path, archive: DemoArchive
) -> None:
    chance = random.Random(20261123)
    studies = [_study(tmp_path, seed) for seed in range(8)]
    node = RunningNode(
        tmp_path / "node", [destination("archive", port=archive.port)], options=QUICK
    )
    with node:
        node.wait_ready()
        for study in studies:
            _push_until_stored(_interleaved(study), node)
            role = chance.choice(["receive", "work", "work", "infer", "infer", "web"])
            wait_until(partial(node.kill_role, role), 30.0, f"{role} to be killed")
        node.kill()  # the supervisor, and with it everything
        node.start()
        node.wait_states("delivered", len(studies), timeout_s=300.0)
    assert [_segs(archive, study) for study in studies] == [1] * len(studies)
    assert len(archive.instances()) == 2 * len(studies)  # SEG and report


def _push_until_stored(paths: list[Path], node: RunningNode) -> None:
    """Send what was not answered with success again, as a PACS does."""

    def _all_stored() -> bool:
        nonlocal paths
        statuses = push(paths, node.dicom_port)
        paths = [path for path, status in zip(paths, statuses, strict=True) if status != 0]
        return not paths

    wait_until(_all_stored, 60.0, "the study to be stored")


@pytest.mark.timeout(600)
def test_crashes_around_the_question_of_commitment_lead_to_a_committed_result(
    tmp_path: Path, orthanc: Orthanc
) -> None:
    plan = tmp_path / "crash-plan"
    pacs = destination("orthanc", port=orthanc.dicom_port, ae_title=orthanc.ae_title)
    node = RunningNode(
        tmp_path / "node",
        [f"{pacs}commitment = true\ncommitment_timeout_s = 10.0\n"],
        entry=CRASHING,
        environment={"CRASH_PLAN": str(plan)},
        options=QUICK,
    )
    with node:
        node.wait_ready()
        orthanc.know("NEUROSEG", node.dicom_port)
        for seed, boundary in enumerate(("deliver:asking", "deliver:asked")):
            plan.write_text(boundary, encoding="utf-8")
            study = _study(tmp_path, 20 + seed)
            assert set(push(_interleaved(study), node.dicom_port)) == {0}
            cases = node.wait_states("delivered", seed + 1)
            assert not plan.exists(), f"no process passed {boundary}"
            assert len(orthanc.find_instances(study.study_instance_uid, "SEG")) == 1
            (standing,) = cases[0]["destinations"]
            assert (standing["state"], standing["committed_count"]) == ("committed", 2)
