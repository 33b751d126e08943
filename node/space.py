"""How much the spool holds, by the ledger's sums: nobody walks through folders for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from node.reading import LedgerReader

_FRESH_S: Final = 1.0


class Meter:
    """Answers with the ledger's sum, which is asked for once a second at most.

    What arrives within that second is not counted yet; the free-space floor holds meanwhile.
    """

    def __init__(
        self, reader: LedgerReader, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._reader, self._clock = reader, clock
        self._turn = threading.Lock()
        self._used, self._asked_at = 0, -_FRESH_S

    def __call__(self) -> int:
        """Return the bytes in the spool."""
        with self._turn:
            if self._clock() - self._asked_at >= _FRESH_S:
                self._used, self._asked_at = self._reader.spool_bytes(), self._clock()
            return self._used
