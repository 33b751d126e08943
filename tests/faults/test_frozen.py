"""A process that stands still in the middle of a stage, is taken over, and wakes up again.

Both are threads of this process here: the sleeper is stopped at a point of its work, the other one
does the same job, and somewhere within it, or when all is delivered, the sleeper goes on. A real
SIGSTOP of real processes under load is part of `make faults`.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from node.cases import CaseState, Stage
from node.demo.archive import DemoArchive
from node.jobs import Job
from node.ledger import Ledger
from node.pipeline import Pipeline, next_jobs
from node.spool import Spool
from tests.small_studies import SmallStudies
from tests.stages import at, close, parts, run_all, take_in

pytestmark = pytest.mark.faults

_WAIT_S = 60.0
_STATES = {
    Stage.CONVERT: CaseState.COMPLETE,
    Stage.SEGMENT: CaseState.ASSEMBLED,
    Stage.ENCODE: CaseState.SEGMENTED,
    Stage.DELIVER: CaseState.ENCODED,
}


class _Points:
    """Calls a function the first time that its process comes to a point, also within a write."""

    def __init__(self, point: str, act: Callable[[], None]) -> None:
        self._point, self._act = point, act
        self.was_there = False

    def __call__(self, point: str) -> None:
        if point == self._point and not self.was_there:
            self.was_there = True
            self._act()


class _Spool(Spool):
    """A spool with a point in the middle of each file that is published."""

    def __init__(self, root: Path, points: _Points) -> None:
        super().__init__(root)
        self._points = points

    def publish(self, final: Path, write: Callable[[Path], object]) -> None:
        def halfway(part: Path) -> None:
            write(part)
            self._points(f"half {final.name}")

        super().publish(final, halfway)


class _Sleeper:
    """A pipeline in a thread that stands still at a point until it is woken."""

    def __init__(self, point: str) -> None:
        self._asleep, self._awake = threading.Event(), threading.Event()
        self.points = _Points(point, self._sleep)
        self._thread: threading.Thread | None = None

    def _sleep(self) -> None:
        self._asleep.set()
        assert self._awake.wait(_WAIT_S)

    def begin(self, pipeline: Pipeline, job: Job) -> None:
        self._thread = threading.Thread(target=pipeline.perform, args=(job,))
        self._thread.start()
        assert self._asleep.wait(_WAIT_S), "it never came there"

    def wake(self) -> None:
        """Let it go on and wait until it is done."""
        assert self._thread is not None
        self._awake.set()
        self._thread.join(_WAIT_S)
        assert not self._thread.is_alive()


CASES = [
    (Stage.CONVERT, "convert:start", "half channels.nii.gz"),
    (Stage.CONVERT, "half channels.nii.gz", "half channels.nii.gz"),
    (Stage.CONVERT, "convert:written", "the end"),
    (Stage.SEGMENT, "segment:start", "half labels.nii.gz"),
    (Stage.SEGMENT, "half labels.nii.gz", "half labels.nii.gz"),
    (Stage.SEGMENT, "segment:written", "the end"),
    (Stage.ENCODE, "encode:start", "half seg.dcm"),
    (Stage.ENCODE, "half seg.dcm", "half sr.dcm"),
    (Stage.ENCODE, "half sr.dcm", "deliver:start"),
    (Stage.ENCODE, "encode:start", "deliver:start"),
    (Stage.ENCODE, "encode:written", "the end"),
    (Stage.DELIVER, "deliver:start", "deliver:sent"),
    (Stage.DELIVER, "deliver:start", "the end"),
    (Stage.DELIVER, "deliver:sent", "the end"),
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one folder a stage, in which a case stands where the stage begins."""
    made, folder = tmp_path_factory.mktemp("stages"), tmp_path_factory.mktemp("case")
    study = SmallStudies(tmp_path_factory.mktemp("drawn")).written(1, folder / "study")
    for stage, state in _STATES.items():
        spool, ledger = Spool(folder / "spool"), Ledger(f"sqlite:///{folder}/ledger.sqlite")
        if stage is Stage.CONVERT:
            take_in(study, spool, ledger)
            close(spool, ledger)
        run_all(parts(spool, ledger, at(1)), ledger.cases()[0].case_id, until=state)
        ledger.close()
        shutil.copytree(folder, made / stage)
    return made


class _Scene:
    """A case that stands where a stage begins, and an archive for it."""

    def __init__(self, prepared: Path, folder: Path) -> None:
        shutil.copytree(prepared, folder, dirs_exist_ok=True)
        self.root = folder / "spool"
        self.ledger = Ledger(f"sqlite:///{folder}/ledger.sqlite")
        self.archive = DemoArchive(folder / "archive")
        self.archive.start()
        self.case_id = self.ledger.cases()[0].case_id

    def end(self) -> None:
        self.archive.stop()
        self.ledger.close()

    def job(self) -> Job:
        row = self.ledger.case(self.case_id)
        (job,) = next_jobs(row, self.ledger, [at(self.archive.port)])
        return job

    def pipeline(self, points: _Points) -> Pipeline:
        made = parts(_Spool(self.root, points), self.ledger, at(self.archive.port))
        return Pipeline(replace(made, boundary=points))

    def state(self) -> tuple[CaseState, str | None, dict[str, str]]:
        row, folder = self.ledger.case(self.case_id), self.root / "cases" / self.case_id
        files = {
            one.name: hashlib.sha256(one.read_bytes()).hexdigest()
            for one in folder.iterdir()
            if one.suffix in (".dcm", ".gz")
        }
        return row.state, row.code, files


@pytest.fixture
def scene(prepared: Path, tmp_path: Path, stage: Stage) -> Iterator[_Scene]:
    scene = _Scene(prepared / stage, tmp_path)
    yield scene
    scene.end()


@pytest.mark.parametrize(("stage", "stops_at", "goes_on_at"), CASES)
def test_one_that_wakes_up_after_it_was_taken_over_doubles_spoils_and_fails_nothing(
    scene: _Scene, stops_at: str, goes_on_at: str
) -> None:
    job, sleeper = scene.job(), _Sleeper(stops_at)
    sleeper.begin(scene.pipeline(sleeper.points), job)
    waking = _Points(goes_on_at, sleeper.wake)
    other, queue = scene.pipeline(waking), [job]
    while queue:
        queue.extend(other.perform(queue.pop(0)))
    before = scene.state()
    assert waking.was_there == (goes_on_at != "the end")
    if goes_on_at == "the end":
        sleeper.wake()
    assert before[:2] == (CaseState.DELIVERED, None)
    assert scene.state() == before
    assert len(scene.archive.instances()) == 2  # SEG and report
    repeated = scene.archive.arrivals.total() - 2
    assert repeated == ("deliver:sent" in (stops_at, goes_on_at))  # it was on the wire already
