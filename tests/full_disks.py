"""A disk that is full, and one that is as far as one process can tell."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def largest_file_bytes(limit: int) -> Iterator[None]:
    """Have the kernel refuse larger files, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def full(disk: Path, *, but_bytes: int = 0) -> Iterator[None]:
    """Leave no more than that free on a disk."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for block in (2**20, 2**12):
            try:
                while file.write(bytes(block)) == block:
                    pass
            except OSError:  # it is full
                continue
        file.truncate(max(file.tell() - but_bytes, 0))
    try:
        yield
    finally:
        ballast.unlink()
