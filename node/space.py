"""How much the spool holds, by the ledger's sums: nobody walks through folders for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from node.reading import LedgerReader

_FRESH_S: Final = 1.0
_SHARE: Final = 0.05  # of the time, spent on asking at most


class Meter:
    """Answers with the ledger's sum, which is asked for once a second at most.

    Less often where the sum takes long: 0.3 s of a million instances, so every six seconds. What
    arrives meanwhile is not counted yet; the free-space floor holds.
    """

    def __init__(
        self, reader: LedgerReader, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._reader, self._clock = reader, clock
        self._turn = threading.Lock()
        self._used, self._due_at = 0, clock()

    def __call__(self) -> int:
        """Return the bytes in the spool."""
        with self._turn:
            if (began := self._clock()) >= self._due_at:
                self._used = self._reader.spool_bytes()
                ended = self._clock()
                self._due_at = ended + max(_FRESH_S, (ended - began) / _SHARE)
            return self._used
