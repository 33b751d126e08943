"""A whole node under load, hit again and again at random moments, and what that has cost.

Real processes, a real Orthanc, small studies and a small network, so that a blow costs a second
and finds the node at work. The moments and the victims are drawn by a seed; what they hit depends
on the machine.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests import tiny_models
from tests.faults.audit import Archive, Audit, asked, audit, delivered
from tests.faults.load import Load, lost
from tests.faults.power_cut import FragileDisk
from tests.nodes import RunningNode, children, destination, hit
from tests.small_studies import SmallStudies
from tests.waiting import wait_until

NODE = (sys.executable, "-m", "tests.faults.crashing_node")
_SECOND = "node-2"
_HEARTBEAT_S = 3.0
_OPTIONS = {
    "align": 'registration = "off"',  # most of a case's time, and not what this is about
    "assemble": "settle_s = 2.0\nquiet_s = 60.0\nreleased_quiet_s = 60.0\npoll_s = 0.1",
    "jobs": f"poll_s = 0.1\nsweep_s = 0.5\nheartbeat_timeout_s = {_HEARTBEAT_S}",
    "delivery": "first_delay_s = 0.2\nlongest_delay_s = 1.0",
}
_WAITING_STUDIES = 6
_BETWEEN_S = (0.2, 2.0)
_STILL_S = 5.0
_EVER = float("inf")
_PATIENCE_S = 600.0
_WHOLE_NODE = 0.05  # share of the blows that hit every process at once
_WEIGHTS = {"receive": 3, "work": 4, "starting": 2, "infer": 2, "web": 1}


@dataclass(slots=True)
class Outcome:
    """What a run was and what it has cost."""

    name: str
    blows: dict[str, int] = field(default_factory=dict)
    audit: Audit | None = None
    sent: int = 0
    retried: int = 0
    seconds: float = 0.0


class Scene:
    """A node, an archive and studies, in a folder; closed by `end`.

    Parameters
    ----------
    folder : Path
        Empty or absent.
    environment : dict, optional
        For the node's processes.
    preload : str, optional
        A library that they are to have loaded.
    """

    def __init__(
        self, folder: Path, environment: dict[str, str] | None = None, preload: str = ""
    ) -> None:
        self.studies = SmallStudies(folder / "drawn")
        model = tiny_models.written(folder / "model" / "tiny", skull="any")
        plan = folder / "poison"
        plan.write_text("{}", encoding="utf-8")
        self.archive = Archive(folder / "orthanc")
        self.archive.start()
        self._environment = {
            "NEUROSEG_MODEL__FOLDER": str(model),
            "CRASH_PLAN": str(folder / "no-plan"),
            "POISON_PLAN": str(plan),
            "OMP_NUM_THREADS": "1",
            **(environment or {}),
        }
        self.node = RunningNode(
            folder / "node",
            [destination("orthanc", port=self.archive.dicom_port, ae_title=self.archive.ae_title)],
            entry=NODE,
            environment=self._environment,
            options=_OPTIONS,
            is_warm=True,
            preload=preload,
        )
        self.spool = self.node.spool
        self.looking = threading.Lock()  # a reader, too, makes files beside a database
        self._retried: Counter[str] = Counter()

    def end(self) -> None:
        """Stop everything."""
        self.node.stop()
        self.archive.stop()

    def load(self) -> Load:
        """Return senders that keep a short queue before the node."""
        load = Load(self.studies, self.node.dicom_port, may_begin=lambda: self._is_short(load))
        return load

    def _is_short(self, load: Load) -> bool:
        return len(load.begun) - self.delivered_count() < _WAITING_STUDIES

    def delivered_count(self) -> int:
        """Return how many studies are done; none while there is nobody to ask."""
        with suppress(sqlite3.Error), self.looking:
            return len(delivered(self.spool))
        return 0

    def workers(self) -> dict[int, str]:
        """Return the processes that beat, by their id, with their names."""
        return dict(asked(self.spool, "SELECT pid, executor_id FROM worker"))

    def retry_crashed(self) -> None:
        """Retry, as an operator would, what has died five times in one stage: it was us."""
        query = "SELECT case_id FROM imaging_case WHERE state = 'failed' AND code = 'JOB_CRASHED'"
        with suppress(sqlite3.Error, httpx.TransportError):  # the next time, then
            for (case_id,) in asked(self.spool, query):
                address = f"{self.node.url}/api/v1/cases/{case_id}/retry"
                answer = httpx.post(address, timeout=10.0, trust_env=False)
                self._retried[case_id] += answer.is_success

    def settle(self, load: Load) -> None:
        """Wait until every study that was begun is delivered, or long enough."""
        load.finish()
        wanted = {one.study_instance_uid for one in load.begun}

        def is_done() -> bool:
            self.retry_crashed()
            return wanted <= delivered(self.spool)

        with suppress(TimeoutError):
            wait_until(is_done, _PATIENCE_S, "all to be delivered", poll_s=1)

    def outcome(self, name: str, blows: Counter[str], load: Load, began: float) -> Outcome:
        """Count what a run has cost."""
        studies = [one.study_instance_uid for one in load.begun]
        counted = audit(self.spool, self.archive, load.accepted, studies)
        return Outcome(
            name=name,
            blows=dict(blows),
            audit=counted,
            sent=load.sent_count,
            retried=self._retried.total(),
            seconds=time.monotonic() - began,
        )


@contextmanager
def staged(folder: Path) -> Iterator[Scene]:
    """Give a stage whose node is ready, and end it."""
    shutil.rmtree(folder, ignore_errors=True)
    stage = Scene(folder)
    try:
        stage.node.start()
        stage.node.wait_ready()
        yield stage
    finally:
        stage.end()


# -- kill -9 --------------------------------------------------------------------------------------


def kills(
    folder: Path, *, count: int, seed: int, say: Callable[[str], None], minutes: float = _EVER
) -> Outcome:
    """Kill a random process of a node `count` times at random moments, sometimes all of them."""
    chance, blows, began = random.Random(seed), Counter[str](), time.monotonic()
    with staged(folder) as stage, stage.load() as load:
        while blows.total() < count and time.monotonic() < began + 60 * minutes:
            _moment(chance, stage, load)
            name = _kill_some(stage, chance)
            if name:
                blows[name] += 1
                say(f"kill {blows.total()}: {name}, {len(load.accepted)} accepted")
        stage.settle(load)
        return stage.outcome("kill -9", blows, load, began)


def _moment(chance: random.Random, stage: Scene, load: Load) -> None:
    """Wait for a random moment, not before something has been accepted or delivered again."""
    stage.retry_crashed()
    before = len(load.accepted), stage.delivered_count()
    deadline = time.monotonic() + chance.uniform(*_BETWEEN_S)
    wait_until(lambda: time.monotonic() >= deadline, 60.0, "the moment to come", poll_s=0.005)
    with suppress(TimeoutError):  # it hangs: one more blow does no harm
        wait_until(
            lambda: before != (len(load.accepted), stage.delivered_count()),
            _STILL_S,
            "the node to be at work",
        )


def _kill_some(stage: Scene, chance: random.Random) -> str:
    """Kill one of the processes, or all; return which, nothing when it was gone already."""
    own = children(stage.node.process.pid)
    if chance.random() < _WHOLE_NODE:
        stage.node.kill()
        stage.node.start()
        return "all"
    if not own:
        return ""
    beating = stage.workers()
    names = {pid: beating.get(pid, "/starting").split("/")[1] for pid in sorted(own)}
    (pid,) = chance.choices([*names], [_WEIGHTS[name] for name in names.values()])
    name = names[pid]
    return name if hit(pid, signal.SIGKILL) else ""


# -- SIGSTOP --------------------------------------------------------------------------------------


def freezes(
    folder: Path, *, count: int, seed: int, say: Callable[[str], None], minutes: float = _EVER
) -> Outcome:
    """Stop a worker beside which a second one works, and wake it when it was taken over."""
    chance, blows, began = random.Random(seed), Counter[str](), time.monotonic()
    with staged(folder) as stage:
        second = [_second(stage, role) for role in ("work", "infer")]
        try:
            with stage.load() as load:
                while blows.total() < count and time.monotonic() < began + 60 * minutes:
                    _moment(chance, stage, load)
                    name = _freeze_one(stage, chance)
                    blows[name] += 1
                    say(f"freeze {blows.total()}: {name}, {len(load.accepted)} accepted")
                stage.settle(load)
            return stage.outcome("SIGSTOP", blows, load, began)
        finally:
            for one in second:
                one.stop()


def _second(stage: Scene, role: str) -> RunningNode:
    """Start the same role once more on the same spool, as a second machine would."""
    worker = stage.node.beside(role, {"NEUROSEG_JOBS__WORKER_NAME": _SECOND})
    worker.start()
    name = f"{_SECOND}/{role}"
    wait_until(lambda: name in stage.workers().values(), 120.0, f"{name} to beat")
    return worker


def _freeze_one(stage: Scene, chance: random.Random) -> str:
    able = {p: n for p, n in stage.workers().items() if n.endswith(("work", "infer"))}
    pid = chance.choice(sorted(able))
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + _HEARTBEAT_S + chance.uniform(1.5, 4.0)
    wait_until(lambda: time.monotonic() >= deadline, 60.0, "it to be taken over")
    os.kill(pid, signal.SIGCONT)
    return able[pid].split("/")[1]


# -- power cuts -----------------------------------------------------------------------------------


def cuts(
    folder: Path,
    shim: Path,
    *,
    count: int,
    seed: int,
    say: Callable[[str], None],
    minutes: float = _EVER,
) -> Outcome:
    """Cut the power of a whole node `count` times; what was accepted is looked for each time."""
    chance, blows, began = random.Random(seed), Counter[str](), time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    disk = FragileDisk(folder / "node" / "spool", folder / "shadow", shim)
    variables = {k: v for k, v in disk.environment.items() if k != "LD_PRELOAD"}
    stage = Scene(folder, environment=variables, preload=str(shim))
    try:
        disk.begin()
        stage.node.start()
        stage.node.wait_ready()
        with stage.load() as load:
            while blows.total() < count and time.monotonic() < began + 60 * minutes:
                for _ in range(chance.randint(1, 4)):
                    _moment(chance, stage, load)
                stage.node.kill()
                accepted = list(load.accepted)
                with stage.looking:
                    disk.cut()
                blows["all"] += 1
                missing = lost(accepted, stage.spool)
                say(f"cut {blows.total()}: {len(accepted)} accepted, {len(missing)} lost")
                if missing:
                    break  # the audit tells
                disk.begin()
                stage.node.start()
            stage.settle(load)
            return stage.outcome("power cut", blows, load, began)
    finally:
        stage.end()
