"""Since when open cases are silent, by a clock that nobody sets.

The receiver stamps arrivals with the wall clock, and another process looks at them. A stamp says
*that* something has arrived; when, is told by the look that first finds it. The stamp makes that
exact where it lies between this look and the one before; where it does not, a clock was set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

from node.rows import CaseRow


class _Moment(NamedTuple):
    """A stamp of the ledger, and when it was on the steady clock."""

    stamp: datetime
    at: datetime


class Arrivals:
    """Tells open cases with their moments on the steady clock.

    A process that begins knows of no silence before it: a case that it finds waits as if its last
    instance had just come. While the node is down, nobody can send anything. Only a case that an
    operator had decided anew does not wait again, by its stamps.

    Parameters
    ----------
    clock : callable
        The steady clock, aware UTC.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._opened: dict[str, _Moment] = {}
        self._received: dict[str, _Moment] = {}
        self._now = self._earlier = clock()

    def begin_look(self) -> None:
        """Begin to look at cases; all that one shows anew has come since the look before."""
        self._earlier, self._now = self._now, self._clock()

    def told_steadily(self, row: CaseRow) -> CaseRow:
        """Return an open case as if all its stamps had been made by the steady clock."""
        is_reopened = row.run > 1 and row.case_id not in self._received
        longest = timedelta.max if is_reopened else self._now - self._earlier
        opened = self._at(self._opened, row.case_id, row.opened_at, longest)
        received = self._at(self._received, row.case_id, row.last_received_at, longest)
        # All that counts is whether the sender has hung up since the last instance.
        has_hung_up = row.released_at is not None and row.released_at >= row.last_received_at
        return replace(
            row,
            opened_at=min(opened, received),
            last_received_at=received,
            released_at=received if has_hung_up else None,
        )

    def _at(
        self, known: dict[str, _Moment], case_id: str, stamp: datetime, longest: timedelta
    ) -> datetime:
        found = known.get(case_id)
        if found is None or found.stamp != stamp:
            age = self._now - stamp
            is_possible = timedelta(0) <= age <= longest
            known[case_id] = found = _Moment(stamp, self._now - age if is_possible else self._now)
        return found.at

    def forget(self, case_id: str) -> None:
        """Drop what is known of a case that is closed."""
        self._opened.pop(case_id, None)
        self._received.pop(case_id, None)
