"""Give a door many inputs and say what it did with them."""

from __future__ import annotations

import faulthandler
import importlib
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType
from typing import Final

from tests.fuzz.target import Folder, HangError, Target, Verdict
from tests.fuzz.watchman import Held, only_writing_to
from tests.waiting import wait_until

DOORS: Final = {
    "dicom-pdus": "dicom:Conversations",
    "dicom-data-sets": "dicom:DataSets",
    "dicom-series": "files:StoredSeries",
    "http": "web:Requests",
    "upload": "web:Uploads",
    "stow": "stow:Stores",
    "nifti": "files:Nifti",
    "manifest": "models:Manifests",
    "safetensors": "models:Weights",
    "checkpoint": "models:Checkpoints",
}
"""Where each door's class stands: importing all of them takes half a minute."""
PATIENCE_S: Final = 60.0
_WARM: Final = 20
"""Inputs after which caches are full: what is held before is measured then."""
_MOST_GROWN_BYTES: Final = 64 * 2**20
_MOST_KEPT: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """An input that a door did not answer as it promises, and how it failed."""

    number: int
    kind: str
    reason: str


@dataclass(slots=True, kw_only=True)
class Tally:
    """What a door did with its inputs."""

    door: str
    seed: int
    inputs: int = 0
    refused: int = 0
    accepted: int = 0
    findings: list[Finding] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    before: Held | None = None
    after: Held | None = None
    pools: int = 0
    seconds: float = 0.0

    def count(self, kind: str) -> int:
        """Return how many findings there are of a kind."""
        return sum(one.kind == kind for one in self.findings)

    @property
    def leaks(self) -> list[str]:
        """Return what is held afterwards and was not before."""
        if self.before is None or self.after is None:
            return []
        found = []
        grown = self.after.memory_bytes - self.before.memory_bytes
        if grown > _MOST_GROWN_BYTES:
            found.append(f"{grown / 2**20:.0f} MB of memory")
        if self.after.handles > self.before.handles + self.pools:
            found.append(f"{self.after.handles - self.before.handles} handles")
        if self.after.threads > self.before.threads + self.pools:
            found.append(f"{self.after.threads - self.before.threads} threads")
        return found

    @property
    def is_clean(self) -> bool:
        """Whether the door kept its promises."""
        return not (self.findings or self.problems or self.strays or self.leaks)


def opened(door: str, folder: Folder) -> Target:
    """Return a door with its component running."""
    module, _, name = DOORS[door].partition(":")
    target: Target = getattr(importlib.import_module(f"tests.fuzz.{module}"), name)(folder)
    return target


def input_of(target: Target, seed: int, number: int) -> bytes:
    """Return the input of a number; the same on every machine."""
    return target.make(Random(f"{seed}/{target.name}/{number}"))


def hunt(
    door: str,
    *,
    inputs: int,
    seed: int,
    first: int = 0,
    keep: Path | None = None,
    seconds: float = float("inf"),
) -> Tally:
    """Give a door its inputs and return the tally.

    Parameters
    ----------
    door : str
        One of `DOORS`.
    inputs : int
        How many.
    seed : int
        Of the inputs.
    first : int
        Number of the first input.
    keep : Path, optional
        Folder for inputs that are findings.
    seconds : float
        When to stop in any case.
    """
    tally = Tally(door=door, seed=seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="neuroseg-fuzz-") as place, _temporary(Path(place)):
        folder = Folder(Path(place))
        with only_writing_to(folder.root, *([keep.absolute()] if keep else [])) as strays:
            _give(tally, folder, range(first, first + inputs), keep, seconds)
        tally.strays = [*sorted(strays), *_outside(folder)]
    tally.seconds = time.monotonic() - began
    return tally


def _give(tally: Tally, folder: Folder, numbers: range, keep: Path | None, seconds: float) -> None:
    threads = Held.now().threads
    target = opened(tally.door, folder)
    tally.pools = target.pools
    until = time.monotonic() + seconds
    try:
        for number in numbers:
            if time.monotonic() > until:
                break
            if tally.inputs == _WARM:
                tally.before = _settled()
            _one(tally, target, number, keep)
        tally.problems = target.problems()
        tally.after = _settled()
    finally:
        target.close()
    wait_until(lambda: Held.now().threads <= threads, 10.0, "the door's threads to end")


def _settled() -> Held:
    """Return what is held once connections that have just ended are gone: the least of a second."""
    found: list[Held] = []
    ends_at = time.monotonic() + 1.0

    def is_over() -> bool:
        found.append(Held.now())
        return time.monotonic() > ends_at

    wait_until(is_over, 60.0, "what has just ended to go", poll_s=0.1)
    return Held(
        memory_bytes=min(one.memory_bytes for one in found),
        handles=min(one.handles for one in found),
        threads=min(one.threads for one in found),
    )


def _one(tally: Tally, target: Target, number: int, keep: Path | None) -> None:
    content = input_of(target, tally.seed, number)
    tally.inputs += 1
    try:
        with _patience():
            verdict = target.give(content)
    except HangError as error:
        finding = Finding(number=number, kind="hang", reason=str(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        finding = Finding(number=number, kind="crash", reason=_reason(error))
    else:
        tally.accepted += verdict is Verdict.ACCEPTED
        tally.refused += verdict is Verdict.REFUSED
        return
    tally.findings.append(finding)
    if keep is not None and len(tally.findings) <= _MOST_KEPT:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{tally.door}-{tally.seed}-{number}.bin").write_bytes(content)


def _reason(error: BaseException) -> str:
    """Return kind and message of an error, and the place in our code that it came from."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__} at {place}: {str(error)[:200]}"


@contextmanager
def _patience() -> Iterator[None]:
    """End what takes too long, wherever in Python it is."""

    def ring(_: int, __: FrameType | None) -> None:
        raise HangError(f"not done after {PATIENCE_S:.0f} s")

    earlier = signal.signal(signal.SIGALRM, ring)
    due = signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)  # pytest's own, perhaps
    faulthandler.dump_traceback_later(2 * PATIENCE_S, exit=True)  # not in Python: end it all
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
        signal.setitimer(signal.ITIMER_REAL, *due)


@contextmanager
def _temporary(place: Path) -> Iterator[None]:
    """Have temporary files made below a folder."""
    earlier, tempfile.tempdir = tempfile.tempdir, str(place / "work")
    (place / "work").mkdir(exist_ok=True)
    try:
        yield
    finally:
        tempfile.tempdir = earlier


def _outside(folder: Folder) -> list[str]:
    """Return files that are neither in the spool nor the ledger nor the fuzzer's own."""
    return [
        str(path)
        for path in folder.root.rglob("*")
        if path.is_file()
        and not path.is_relative_to(folder.spool)
        and not path.is_relative_to(folder.work)
        and not path.name.startswith("ledger.sqlite")
    ]
