"""Instances of several associations become durable together, and each is answered after that.

Whoever finds nobody at work commits for all that wait: each folder is synced once, one
transaction takes their rows. Who comes meanwhile waits for the next turn. A peer
that is alone pays no wait for it, and no thread is needed.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from node.cases import ReceivedInstance
from node.errors import (
    InstanceConflictError,
    LedgerUnavailableError,
    NodeError,
    SpoolUnwritableError,
)
from node.ledger import Ledger
from node.recording import Recorded
from node.spool import Spool, sync_folder

_TURN_S = 30.0  # how long an instance waits for the ledger; senders give up after about a minute


@dataclass(eq=False, slots=True)
class _Waiting:
    """An instance whose file is synced; `error` until folder and row are."""

    instance: ReceivedInstance
    folder: Path
    error: NodeError | None = field(default_factory=lambda: LedgerUnavailableError(kind="unknown"))
    is_over: bool = False
    is_new: bool = False


class GroupCommit:
    """Makes whole instances durable, as many at once as are waiting.

    Parameters
    ----------
    spool, ledger : Spool, Ledger
        Where files and rows go.
    model_id : str
        The model whose cases the instances open.
    """

    def __init__(self, spool: Spool, ledger: Ledger, *, model_id: str) -> None:
        self._spool, self._ledger, self._model_id = spool, ledger, model_id
        self._state = threading.Condition()
        self._queue: list[_Waiting] = []
        self._is_busy = False

    def keep(self, instance: ReceivedInstance, folder: Path) -> bool:
        """Return when the name and the row of a synced file would survive a power cut, too.

        False says that it was known, byte for byte, and that the file is not needed.

        Parameters
        ----------
        instance : ReceivedInstance
            As its row will be; the file has its name.
        folder : Path
            Where it lies.

        Raises
        ------
        InstanceConflictError
            Its SOP Instance UID is stored with other content.
        LedgerUnavailableError, SpoolUnwritableError
            The database or the file system refuses; nothing is left behind.
        """
        mine = _Waiting(instance, folder)
        with self._state:
            self._queue.append(mine)
            self._state.wait_for(lambda: mine.is_over or not self._is_busy, _TURN_S)
            if self._is_busy and mine in self._queue:
                self._queue.remove(mine)
                self.remove(instance)
                raise LedgerUnavailableError(kind="busy")
            # Whoever has it decides it, and the database's patience is limited, too.
            self._state.wait_for(lambda: mine.is_over or not self._is_busy)
            group = [] if mine.is_over else self._begin()
        if group:
            try:
                self._commit(group)
            finally:
                self._end(group)
        if mine.error is not None:
            raise mine.error
        return mine.is_new

    def _begin(self) -> list[_Waiting]:
        self._is_busy = True
        group, self._queue = self._queue, []
        return group

    def _end(self, group: Sequence[_Waiting]) -> None:
        with self._state:
            for one in group:
                one.is_over = True
            self._is_busy = False
            self._state.notify_all()

    def _commit(self, group: Sequence[_Waiting]) -> None:
        synced = self._synced(group)
        if synced:
            self._record(synced)

    def _synced(self, group: Sequence[_Waiting]) -> list[_Waiting]:
        """Return those whose names are durable."""
        inside: dict[Path, list[_Waiting]] = {}
        for one in group:
            inside.setdefault(one.folder, []).append(one)
        synced: list[_Waiting] = []
        for folder, many in inside.items():
            try:
                with on_the_spool:
                    sync_folder(folder)
                synced += many
            except SpoolUnwritableError as error:
                for one in many:
                    one.error = error
                    self.remove(one.instance)
        return synced

    def _record(self, synced: Sequence[_Waiting]) -> None:
        try:
            with in_the_ledger:
                found = self._ledger.record_instances(
                    [one.instance for one in synced], model_id=self._model_id
                )
        except LedgerUnavailableError as error:
            for one in synced:
                one.error = error
                self._take_back(one.instance)
            return
        for one, recorded in zip(synced, found, strict=True):
            one.error = InstanceConflictError() if recorded is Recorded.CONFLICT else None
            one.is_new = recorded is Recorded.NEW
            if recorded is not Recorded.NEW:  # by `neuroseg spool check` it may be this very file
                self._take_back(one.instance)

    def _take_back(self, instance: ReceivedInstance) -> None:
        """Remove a file that no row of ours names; keep it where that is not certain."""
        with suppress(LedgerUnavailableError), in_the_ledger:
            if self._ledger.path_of(instance.sop_instance_uid) != instance.path:
                self.remove(instance)

    def remove(self, instance: ReceivedInstance) -> None:
        """Delete a file that no row names; one that resists is found at the next start."""
        with suppress(OSError):
            self._spool.instance_path(instance.path).unlink(missing_ok=True)


class _OnTheSpool:
    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError):
            raise SpoolUnwritableError(reason=error.strerror or "unknown") from error


class _InTheLedger:
    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, SQLAlchemyError):
            raise LedgerUnavailableError(kind=type(error).__name__) from error


# Entered several times for each instance: as generators they took a tenth of the time.
on_the_spool: Final = _OnTheSpool()
"""Translates what the file system says."""
in_the_ledger: Final = _InTheLedger()
"""Translates what the database says."""
