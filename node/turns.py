"""Turns on the device: one computation at a time, in the order in which they were asked for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock that goes to whoever has waited longest.

    Two threads that each want it again and again alternate; with a plain lock, the one that has
    just given it back usually takes it again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._is_taken = False

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn and hold it."""
        self._take()
        try:
            yield
        finally:
            self._give()

    def _take(self) -> None:
        called = threading.Event()
        with self._lock:
            if not self._is_taken:
                self._is_taken = True
                return
            self._waiting.append(called)
        called.wait()

    def _give(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()  # handed on without ever being free
            else:
                self._is_taken = False
