"""SIGTERM and SIGINT: how a process is told to end."""

from __future__ import annotations

import _thread
import signal
from collections.abc import Callable
from types import FrameType


def when_told(end: Callable[[str], None]) -> None:
    """Have `end` called with the name of each SIGTERM and SIGINT, in a thread of its own.

    A handler interrupts the main thread wherever it is: an event that it sets or a line that it
    logs would wait for ever where that thread has just taken the lock of either. `Thread.start`
    takes locks, too; the function beneath it takes none.
    """

    def _on_signal(number: int, _: FrameType | None) -> None:
        _thread.start_new_thread(end, (signal.Signals(number).name,))

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _on_signal)
