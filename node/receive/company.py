"""Whether other processes receive into a spool: of this machine by a lock, of others by their beat.

The first to come has the spool to itself while it compares it with the ledger; who comes meanwhile
waits. The kernel lets go of the lock when a process ends, however it ends.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from node.ledger import Ledger
from node.spool import Spool

_NAME: Final = "receive.lock"


class Company:
    """Those that receive, this process among them until it leaves."""

    def __init__(self, lock: Path, *, is_there: bool) -> None:
        self._file = lock.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._file, fcntl.LOCK_SH)
            is_there = True
        self.is_there = is_there

    def let_in(self) -> None:
        """Let those come in that wait."""
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def leave(self) -> None:
        """Give the lock back."""
        self._file.close()


@contextmanager
def company(spool: Spool, ledger: Ledger, worker_name: str) -> Iterator[Company]:
    """Join those that receive into a spool, waiting for one that wants to be alone."""
    folder = spool.root / "run"
    folder.mkdir(parents=True, exist_ok=True)
    found = Company(folder / _NAME, is_there=ledger.has_others("receive", worker_name))
    try:
        yield found
    finally:
        found.leave()
