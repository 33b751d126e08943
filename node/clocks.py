"""Time that nobody sets: what the node measures silences, ages and beats by.

Moments that are written down are wall-clock time in UTC, since people and other machines read
them. How long something has lasted is never told by comparing one of them with the present: the
wall clock may have been set in between, by an administrator, by NTP, or by a virtual machine that
was moved.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


def utc_now() -> datetime:
    """Return the wall clock's time."""
    return datetime.now(UTC)


class SteadyClock:
    """The time, aware UTC, as it was when this process began, and what has gone by since.

    Parameters
    ----------
    wall : callable, optional
        The wall clock, asked once.
    elapsed : callable, optional
        Seconds of a clock that only runs.
    """

    def __init__(
        self,
        wall: Callable[[], datetime] = utc_now,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._elapsed = elapsed
        self._began, self._began_at = elapsed(), wall()

    def __call__(self) -> datetime:
        """Return the time."""
        return self._began_at + timedelta(seconds=self._elapsed() - self._began)

    def timestamp(self) -> float:
        """Return the time in seconds since 1970."""
        return self().timestamp()
