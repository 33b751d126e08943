"""Memory, handles and threads of this process, and where it writes."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_MAKING: Final = ("os.mkdir", "os.rename", "os.link", "os.symlink", "os.truncate", "shutil.move")
_OURS: Final = ("/dev/", "/proc/self/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What this process holds."""

    memory_bytes: int
    handles: int
    threads: int

    @classmethod
    def now(cls) -> Held:
        """Return what is held at this moment, garbage collected."""
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return cls(
            memory_bytes=pages * _PAGE_BYTES,
            handles=len(list(Path("/proc/self/fd").iterdir())) - 1,
            threads=len(threading.enumerate()),
        )


class _Writes:
    """Every path that this process opens for writing, makes or moves, while it is watched."""

    def __init__(self) -> None:
        self._allowed: tuple[str, ...] | None = None
        self.strays: set[str] = set()
        self._is_hooked = False

    def watch(self, allowed: Sequence[Path]) -> None:
        """Note from now on what is written outside of some folders; a hook cannot be taken off."""
        self._allowed = (*_OURS, *(f"{os.path.realpath(one)}" for one in allowed))
        self.strays = set()
        if not self._is_hooked:
            sys.addaudithook(self._hook)
            self._is_hooked = True

    def end(self) -> None:
        """Note nothing more."""
        self._allowed = None

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if self._allowed is None:
            return
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
            self._note(arguments[:1])
        elif event in _MAKING:
            self._note(arguments[:2])

    def _note(self, paths: Sequence[object]) -> None:
        allowed = self._allowed or ()
        for path in paths:
            if isinstance(path, bytes):
                path = os.fsdecode(path)  # noqa: PLW2901 - the same path
            if not isinstance(path, (str, os.PathLike)):
                continue
            real = os.path.realpath(path)
            if not real.startswith(allowed) and "__pycache__" not in real:
                self.strays.add(real)


_WRITES: Final = _Writes()


@contextmanager
def only_writing_to(*folders: Path) -> Iterator[set[str]]:
    """Yield the paths, empty at first, that are written outside of folders within the block."""
    _WRITES.watch(folders)
    try:
        yield _WRITES.strays
    finally:
        _WRITES.end()
