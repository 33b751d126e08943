"""Whether the work on a case is still wanted, for those who work on it for long."""

from __future__ import annotations

import threading
from typing import Final, Self

from node.errors import CaseUnknownError
from node.reading import LedgerReader
from node.rows import CaseRow
from node.ticker import Ticker

PERIOD_S: Final = 0.3


class Watch:
    """Says that a case is no longer what it was: cancelled, for one, or started again.

    A context manager. Inside, the ledger is looked at three times a second by a thread of its own,
    so that calling the watch costs nothing, however often it is asked.

    Parameters
    ----------
    ledger : LedgerReader
        Where the case stands.
    row : CaseRow
        The case as it was when the work began; another state or run ends it.
    """

    def __init__(self, ledger: LedgerReader, row: CaseRow) -> None:
        self._ledger = ledger
        self._row = row
        self._has_changed = threading.Event()
        self._ticker = Ticker("watch", PERIOD_S, self._look)

    def __enter__(self) -> Self:
        """Begin to look."""
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Look no more."""
        self._ticker.stop()

    def __call__(self) -> bool:
        """Say whether the work is no longer wanted."""
        return self._has_changed.is_set()

    def _look(self) -> None:
        try:
            found = self._ledger.case(self._row.case_id)
        except CaseUnknownError:
            self._has_changed.set()
            return
        if (found.state, found.run) != (self._row.state, self._row.run):
            self._has_changed.set()
