"""Deletes the files of cases that have ended long enough ago, or to make room.

Never those of a case that is not final, of a study that another case still needs, or of a result
that some destination lacks. The ledger keeps everything that it knows of a case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from node import logs, owed
from node.cases import CaseState
from node.clocks import SteadyClock
from node.ledger import Ledger
from node.peers import Destination
from node.settings import Retention
from node.spool import Spool

_DAY_S: Final = 86400.0
_AT_ONCE: Final = 100  # cases in one look
_WITH_VOLUMES: Final = (CaseState.DELIVERED, CaseState.SUPERSEDED)
_AWAITED: Final = (CaseState.DELIVERED, CaseState.FAILED)
_ROOM: Final = 0.1  # of floor or quota; less would have every other instance refused


class Purger:
    """Looks for files that have served their time.

    Parameters
    ----------
    ledger, spool : Ledger, Spool
        Which cases there are, and their files.
    retention : Retention
        How long files are kept.
    destinations : sequence of Destination
        Who must have a result before it goes.
    clock : callable, optional
        Seconds since 1970. A clock that is set forwards must make nothing look old.
    """

    def __init__(
        self,
        ledger: Ledger,
        spool: Spool,
        retention: Retention,
        destinations: Sequence[Destination],
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._ledger, self._spool, self._retention = ledger, spool, retention
        self._destinations, self._clock = destinations, clock or SteadyClock().timestamp

    def look(self) -> None:
        """Finish what an earlier look has begun, then purge what is due."""
        self._delete()
        self._purge_volumes()
        for state in _DAYS:
            self._purge(self._due(state))
        if self._retention.make_room:
            self._make_room()

    def _delete(self) -> None:
        if doomed := self._ledger.doomed():
            self._spool.delete(doomed)
            self._ledger.forget_doomed(doomed)

    def _before(self, days: float) -> float:
        return self._clock() - days * _DAY_S

    def _purge_volumes(self) -> None:
        if not self._retention.volumes_days:
            return
        before = self._before(self._retention.volumes_days)
        due = self._ledger.with_volumes(_WITH_VOLUMES, before=before)[:_AT_ONCE]
        for case_id in due:
            self._ledger.purge_volumes(case_id, self._spool.working_files(case_id))
        self._delete()
        for case_id in due:
            self._ledger.note_folder(case_id, self._spool.case_bytes(case_id))
        if due:
            logs.get().info("volumes.purged", path_count=len(due))

    def _due(self, state: CaseState) -> Iterator[str]:
        days: float = getattr(self._retention, _DAYS[state])
        if days:
            yield from self._settled(self._ledger.purgeable(state, before=self._before(days)))

    def _settled(self, case_ids: Iterable[str]) -> Iterator[str]:
        """Yield the cases whose results are wherever they are wanted."""
        for case_id in case_ids:
            row = self._ledger.case(case_id)
            if row.state not in _AWAITED or all(
                owed.is_served(case_id, self._ledger, one)
                for one in owed.routed(case_id, self._ledger, self._destinations)
            ):
                yield case_id

    def _purge(self, case_ids: Iterable[str]) -> None:
        for _, case_id in zip(range(_AT_ONCE), case_ids, strict=False):
            self._purge_case(case_id)

    def _purge_case(self, case_id: str) -> None:
        if self._ledger.purge(case_id):
            self._delete()
            logs.get().info("case.purged", case_id=case_id)

    def _make_room(self) -> None:
        wanted = int(_ROOM * (self._spool.quota_bytes or self._spool.free_floor_bytes))
        if self._spool.has_space():
            return
        oldest = self._ledger.purgeable(CaseState.DELIVERED, before=self._clock())
        for _, case_id in zip(range(_AT_ONCE), self._settled(oldest), strict=False):
            if self._spool.has_space(wanted):
                return
            self._purge_case(case_id)


_DAYS: Final = {
    CaseState.DELIVERED: "delivered_days",
    CaseState.SUPERSEDED: "superseded_days",
    CaseState.CANCELLED: "cancelled_days",
    CaseState.REJECTED: "rejected_days",
    CaseState.FAILED: "failed_days",
}
