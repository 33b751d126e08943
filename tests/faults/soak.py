"""A node at work without pause: what each of its processes holds, from beginning to end."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tests.faults.audit import delivered
from tests.faults.storm import Outcome, Scene, staged
from tests.nodes import children
from tests.waiting import wait_until

_SAMPLE_S: Final = 2.0
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_WARM_UP: Final = 1 / 3  # of the samples: caches fill
MOST_KB_A_STUDY: Final = 20.0
"""A process that gains 20 KB with each study has gained 200 MB after ten thousand."""
MOST_MORE: Final = 4
"""By so many may handles and threads differ at the end: what is under way at that moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a process holds when so many studies are delivered."""

    studies: int
    memory_bytes: int
    handles: int
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """How what a role holds has changed over a run, its first third left out."""

    role: str
    memory_mb: tuple[float, float]
    kb_a_study: float
    handles: tuple[int, int]
    threads: tuple[int, int]

    @property
    def is_flat(self) -> bool:
        """Whether all three stay within the bounds above."""
        grown = (self.handles[1] - self.handles[0], self.threads[1] - self.threads[0])
        return self.kb_a_study <= MOST_KB_A_STUDY and max(grown) <= MOST_MORE


def _sampled(pid: int, studies: int) -> Sample:
    folder = Path(f"/proc/{pid}")
    return Sample(
        studies=studies,
        memory_bytes=int((folder / "statm").read_text().split()[1]) * _PAGE_BYTES,
        handles=len(list((folder / "fd").iterdir())),
        threads=len(list((folder / "task").iterdir())),
    )


def held(role: str, samples: list[Sample]) -> Held:
    """Return how what was sampled has changed: a line fitted to memory, medians of the ends."""
    steady = samples[int(len(samples) * _WARM_UP) :]
    first, last = steady[: len(steady) // 4 + 1], steady[-(len(steady) // 4 + 1) :]
    studies = np.array([one.studies for one in steady], float)
    memory = np.array([one.memory_bytes for one in steady], float)
    slope = np.polyfit(studies, memory, 1)[0] if np.ptp(studies) else 0.0

    def ends(name: str) -> tuple[int, int]:
        begin, end = ([getattr(one, name) for one in part] for part in (first, last))
        return int(np.median(begin)), int(np.median(end))

    begin, end = ends("memory_bytes")
    return Held(
        role=role,
        memory_mb=(begin / 2**20, end / 2**20),
        kb_a_study=float(slope) / 2**10,
        handles=ends("handles"),
        threads=ends("threads"),
    )


def soak(folder: Path, *, seconds: float, say: Callable[[str], None]) -> tuple[Outcome, list[Held]]:
    """Send studies for so long; return what that has cost and what each role held."""
    began = time.monotonic()
    samples: dict[str, list[Sample]] = {}
    with staged(folder) as stage, stage.load() as load:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            _take(stage, samples)
            count = next(iter(samples.values()))[-1].studies
            say(f"{count} studies delivered")
        stage.settle(load)
        outcome = stage.outcome(f"soak of {seconds / 60:.0f} minutes", Counter(), load, began)
    return outcome, [held(role, many) for role, many in sorted(samples.items())]


def _take(stage: Scene, samples: dict[str, list[Sample]]) -> None:
    due = time.monotonic() + _SAMPLE_S
    wait_until(lambda: time.monotonic() >= due, 60.0, "the next sample", poll_s=0.1)
    studies, names = len(delivered(stage.spool)), stage.workers()
    for pid in children(stage.node.process.pid):
        with suppress(OSError):
            role = names.get(pid, "/starting").split("/")[1]
            samples.setdefault(role, []).append(_sampled(pid, studies))
