"""Kill -9 anywhere: every study ends in exactly one SEG at the archive."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from node.cases import Stage
from node.demo.archive import DemoArchive
from node.reading import LedgerReader
from tests.faults import storm
from tests.nodes import PLAIN, POISONED, ROOT, RunningNode, destination, push
from tests.peers import Orthanc, require
from tests.small_studies import SmallStudies

pytestmark = pytest.mark.faults

BOUNDARIES = [
    "convert:start",  # the start of a later stage leaves what the end of the one before it does
    *("convert:written", "convert:done", "segment:written", "segment:done"),
    *("encode:written", "encode:done", "deliver:sent", "deliver:done"),
]
# Registration takes most of a case's time, and is not what this is about.
QUICK = {"align": 'registration = "off"'}
CRASHING = (sys.executable, "-m", "tests.faults.crashing_node")


class Scene:
    """A node with a small network, a plan of what is to happen in it, and studies by number."""

    def __init__(
        self,
        folder: Path,
        studies: SmallStudies,
        model: Path,
        destination: str,
        entry: tuple[str, ...] = CRASHING,
    ) -> None:
        self._folder, self._studies = folder, studies
        self.plan = folder / "plan"
        self.gate = folder / "gate"
        nothing = folder / "nothing"
        nothing.write_text("{}", encoding="utf-8")
        variables = {
            "CRASH_PLAN": str(self.plan),
            "POISON_PLAN": str(self.plan if entry is POISONED else nothing),
            "POISON_GATE": str(self.gate),
        }
        self.node = RunningNode(
            folder / "node",
            [destination],
            entry=entry,
            environment={"NEUROSEG_MODEL__FOLDER": str(model), **variables},
            options=QUICK,
            is_warm=True,
        )

    def uid(self, number: int) -> str:
        """Return the Study Instance UID of a study."""
        return self._studies.study(number).study_instance_uid

    def send(self, number: int) -> None:
        """Push a study; every instance is accepted."""
        paths = self._studies.written(number, self._folder / f"study-{number}")
        assert set(push(paths, self.node.dicom_port)) == {0}


def _to(archive: DemoArchive) -> str:
    return destination("archive", port=archive.port)


@pytest.mark.timeout(600)
def test_a_crash_at_every_stage_boundary_still_gives_exactly_one_result(
    tmp_path: Path, archive: DemoArchive, studies: SmallStudies, model: Path
) -> None:
    scene = Scene(tmp_path, studies, model, _to(archive))
    with scene.node as node:
        node.wait_ready()
        for number, boundary in enumerate(BOUNDARIES):
            scene.plan.write_text(boundary, encoding="utf-8")
            scene.send(number)
            node.wait_states("delivered", number + 1)
            assert not scene.plan.exists(), f"no process passed {boundary}"
            assert len(archive.find(scene.uid(number), "SEG")) == 1, boundary
    exits = [line for line in node.log_lines() if line["event"] == "role.exited"]
    assert len(exits) == len(BOUNDARIES)
    assert len(archive.instances()) == 2 * len(BOUNDARIES)  # SEG and report


@pytest.mark.timeout(600)
def test_a_study_that_kills_its_process_again_and_again_is_failed_and_can_be_retried(
    tmp_path: Path, archive: DemoArchive, studies: SmallStudies, model: Path
) -> None:
    scene = Scene(tmp_path, studies, model, _to(archive), POISONED)
    poison, sound = 1, 2
    scene.plan.write_text(json.dumps({scene.uid(poison): "crash"}), encoding="utf-8")
    with scene.node as node:
        node.wait_ready()
        for number in (poison, sound):
            scene.send(number)
        (delivered,) = node.wait_states("delivered", 1, timeout_s=400.0)  # after five starts
        assert delivered["study_instance_uid"] == scene.uid(sound)
        (failed,) = node.wait_states("failed", timeout_s=200.0)
        assert failed["code"] == "JOB_CRASHED"
        scene.plan.write_text("{}", encoding="utf-8")
        retry = [*PLAIN, "cases", "--config", str(node.config), "retry", failed["case_id"]]
        subprocess.run(retry, cwd=ROOT, check=True, timeout=60)
        node.wait_states("delivered", 2)
    assert [len(archive.find(scene.uid(one), "SEG")) for one in (poison, sound)] == [1, 1]


@pytest.mark.timeout(300)
def test_a_node_stopped_in_mid_study_drains_and_goes_on_where_it_stood(
    tmp_path: Path, archive: DemoArchive, studies: SmallStudies, model: Path
) -> None:
    scene = Scene(tmp_path, studies, model, _to(archive), POISONED)
    scene.plan.write_text(json.dumps({scene.uid(3): "slow"}), encoding="utf-8")
    with scene.node as node:
        node.wait_ready()
        scene.send(3)
        node.wait_states("assembled")
        node.process.terminate()
        scene.gate.touch()
        assert node.stop() == 0
        node.start()
        (case,) = node.wait_states("delivered")
    assert len(archive.find(scene.uid(3), "SEG")) == 1
    ledger = LedgerReader(f"sqlite:///{node.spool}/ledger.sqlite")
    stages = [one.stage for one in ledger.attempts(case["case_id"])]
    ledger.close()
    assert stages.count(Stage.CONVERT) == 1


@pytest.mark.timeout(600)
def test_kills_at_random_moments_lose_and_double_nothing(tmp_path: Path) -> None:
    """The form of `make faults` that is short enough for every run."""
    require("orthanc")
    outcome = storm.kills(tmp_path / "storm", count=4, seed=20261123, say=print)
    assert outcome.audit is not None
    assert outcome.audit.is_clean, outcome
    assert outcome.audit.accepted > 0


@pytest.mark.timeout(600)
def test_crashes_around_the_question_of_commitment_lead_to_a_committed_result(
    tmp_path: Path, orthanc: Orthanc, studies: SmallStudies, model: Path
) -> None:
    pacs = destination("orthanc", port=orthanc.dicom_port, ae_title=orthanc.ae_title)
    asking = f"{pacs}commitment = true\ncommitment_timeout_s = 10.0\n"
    scene = Scene(tmp_path, studies, model, asking)
    with scene.node as node:
        node.wait_ready()
        orthanc.know("NEUROSEG", node.dicom_port)
        for number, boundary in enumerate(("deliver:asking", "deliver:asked")):
            scene.plan.write_text(boundary, encoding="utf-8")
            scene.send(20 + number)
            cases = node.wait_states("delivered", number + 1)
            assert not scene.plan.exists(), f"no process passed {boundary}"
            assert len(orthanc.find_instances(scene.uid(20 + number), "SEG")) == 1
            (standing,) = cases[0]["destinations"]
            assert (standing["state"], standing["committed_count"]) == ("committed", 2)


@pytest.mark.timeout(600)
def test_a_copy_that_was_taken_at_work_goes_on_where_the_node_was(
    tmp_path: Path, archive: DemoArchive, studies: SmallStudies, model: Path
) -> None:
    scene = Scene(tmp_path, studies, model, _to(archive))
    with scene.node as node:
        node.wait_ready()
        scene.send(1)
        node.wait_states("delivered", 1)
        scene.send(2)
        command = [*PLAIN, "spool", "--config", str(node.config), "backup", str(tmp_path / "copy")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        node.kill()
    before = len(archive.instances())
    shutil.rmtree(node.spool)
    (tmp_path / "copy").rename(node.spool)
    node.start()
    node.wait_states("delivered", 2)
    assert node.stop() == 0
    assert len(archive.find(scene.uid(1), "SEG")) == len(archive.find(scene.uid(2), "SEG")) == 1
    assert before >= 2  # the first study's; it is not delivered again
    assert len(archive.instances()) == 4
