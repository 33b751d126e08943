"""How often each peer may come: so many times a minute, all at once or one after the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

_MINUTE_S: Final = 60.0
_MOST_PEERS: Final = 10_000


class Rates:
    """Counts what peers ask for; a minute's worth may come at once and is given back evenly.

    Parameters
    ----------
    per_minute : int
        How much each may ask for; 0: whatever it likes.
    clock : callable, optional
        Seconds of a clock that only runs.
    """

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute, self._clock = per_minute, clock
        self._lock = threading.Lock()
        self._left: dict[str, tuple[float, float]] = {}

    def is_over(self, peer: str) -> bool:
        """Count one more of a peer; say whether it is too many. What is refused counts nothing."""
        if not self.per_minute:
            return False
        now = self._clock()
        with self._lock:
            if len(self._left) >= _MOST_PEERS:
                self._forget(now)
            left = self._now(peer, now)
            self._left[peer] = (left if left < 1.0 else left - 1.0), now
        return left < 1.0

    def _now(self, peer: str, now: float) -> float:
        left, at = self._left.get(peer, (float(self.per_minute), now))
        return min(left + (now - at) * self.per_minute / _MINUTE_S, float(self.per_minute))

    def _forget(self, now: float) -> None:
        """Drop those who may ask for everything again; all, where there are none."""
        kept = {
            peer: one for peer, one in self._left.items() if self._now(peer, now) < self.per_minute
        }
        self._left = kept if len(kept) < _MOST_PEERS else {}
