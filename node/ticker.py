"""A thread that does one thing again and again."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from node import logs


class Ticker(threading.Thread):
    """Calls a function again and again until it is stopped; `stop` waits for a running call."""

    def __init__(self, name: str, period_s: float, action: Callable[[], object]) -> None:
        super().__init__(name=name, daemon=True)
        self._period_s = period_s
        self._action = action
        self._stopping = threading.Event()

    def run(self) -> None:
        """Call the action, wait, call it again; an unforeseen error ends the whole process.

        A role that has lost one of its threads would look well and do half of its work; its
        supervisor starts a new one instead.
        """
        try:
            while not self._stopping.is_set():
                self._call()
                self._stopping.wait(self._period_s)
        except BaseException:
            os.kill(os.getpid(), signal.SIGTERM)
            raise

    def _call(self) -> None:
        try:
            self._action()
        except (SQLAlchemyError, OSError) as error:
            # A full disk or an absent database passes; the next round does the same again.
            logs.get().warning("database.failed", kind=type(error).__name__)

    def stop(self) -> None:
        """End after the present call."""
        self._stopping.set()
        self.join()
