"""A copy of ledger and spool that a node can go on from, taken while the node is at work.

The ledger is copied first, as SQLite copies itself: whole, at one moment. Every file that it names
was there before it was named, so that the files are copied afterwards; what comes in meanwhile is
taken in at the first start on the copy, as after a crash (`node.receive.reconcile`). Jobs are left
out: a case without one gets one (`node.closing`).
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from node.errors import BackupTargetError
from node.spool import CASES, INSTANCES

_LEDGER: Final = "ledger.sqlite"
_AUDIT: Final = "audit.jsonl"


def backup(spool: Path, target: Path, told: Callable[[int], None] = lambda _: None) -> int:
    """Copy ledger and spool into a new folder; return how many files were copied.

    Parameters
    ----------
    spool : Path
        The node's spool, which holds its ledger.
    target : Path
        Absent or empty; best on another disk.
    told : callable
        Is given the number of files so far, again and again.

    Raises
    ------
    BackupTargetError
        The target holds something, or the spool holds no SQLite ledger.
    OSError, sqlite3.Error
        It cannot be copied; the target is no backup then.
    """
    if not (spool / _LEDGER).exists():
        raise BackupTargetError(reason=f"{spool} holds no {_LEDGER}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BackupTargetError(reason=f"{target} is not empty")
    target.mkdir(parents=True, exist_ok=True)
    part = target / f".{_LEDGER}.part"
    with (
        closing(sqlite3.connect(f"file:{spool / _LEDGER}?mode=ro", uri=True)) as theirs,
        closing(sqlite3.connect(part)) as ours,
    ):
        theirs.backup(ours)
    count = 0
    for path in _files(spool):
        if _copied(spool / path, target / path):
            count += 1
            told(count)
    for folder, _, _ in os.walk(target):
        _sync(Path(folder))
    _sync(part)
    part.rename(target / _LEDGER)  # last: without it the folder is no backup
    _sync(target)
    return count


def _files(spool: Path) -> Iterator[Path]:
    """Yield what lies in instances and cases, and the audit trail; nothing half written."""
    if (spool / _AUDIT).exists():
        yield Path(_AUDIT)
    for kept in (INSTANCES, CASES):
        for folder, _, names in os.walk(spool / kept):
            for name in sorted(names):
                if not name.startswith("."):
                    yield (Path(folder) / name).relative_to(spool)


def _copied(source: Path, target: Path) -> bool:
    """Copy a file and sync it; False for one that was purged meanwhile."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copy2(source, target)
    except FileNotFoundError:
        target.unlink(missing_ok=True)
        return False
    _sync(target)
    return True


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
