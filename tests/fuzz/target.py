"""What a door is to the fuzzing: it makes an input, is given it, and says what it did with it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Protocol


class Verdict(StrEnum):
    """What a door did with an input; anything else is a finding."""

    ACCEPTED = "accepted"
    REFUSED = "refused"


class CrashError(Exception):
    """The door answered, but not with one of its own codes."""


class HangError(Exception):
    """The door did not answer in time."""


class Target(Protocol):
    """A door with the component behind it, living in a folder of its own."""

    name: str
    pools: int
    """Threads, and handles of databases, that are opened once and kept: what may be added."""

    def make(self, rng: Random) -> bytes:
        """Return an input; the same state of `rng` gives the same one."""
        ...

    def give(self, content: bytes) -> Verdict:
        """Return what the door did with an input.

        Raises
        ------
        Exception
            Anything but a coded error: a finding.
        """
        ...

    def problems(self) -> list[str]:
        """Return what is wrong with the door after all that it was given."""
        ...

    def close(self) -> None:
        """Stop the component."""
        ...


class Folder:
    """Where a target may write: `spool` is its own, everything else below `root` is not."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spool = root / "spool"
        self.work = root / "work"
        self.work.mkdir(parents=True, exist_ok=True)
