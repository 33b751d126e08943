"""Senders that keep a node busy with small studies, and repeat what was not answered.

Each sender does as a PACS does: one association a study, the next one when the first broke off,
until every instance has its 0x0000. What was answered so is what the node must never lose.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Self

from pydicom.dataset import Dataset
from pynetdicom.presentation import build_context

from node.errors import InstanceUnreadableError
from node.reading import LedgerReader
from node.receive import stored
from node.requesting import RequestingEntity
from node.spool import Spool
from tests.small_studies import SmallStudies, SmallStudy

_MR = "1.2.840.10008.5.1.4.1.1.4"
_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_PAUSE_S = 0.2
_PATIENCE_S = 5.0  # for an answer: of a connection that dies while it waits, pynetdicom hears late


class Load:
    """Several senders in threads; a context manager that lets them finish their studies.

    Parameters
    ----------
    studies : SmallStudies
        What is sent, by number.
    port : int
        Where the node listens.
    senders : int
        How many associations at a time.
    first, count : int
        Numbers of the studies; None for studies without end.
    may_begin : callable
        Says whether the next study may be begun: keeps the queue short.
    hosts : sequence of str
        Asked in turn, an association each, as behind a balancer that knows nothing of them.
    """

    def __init__(  # noqa: PLR0913 - options, each with its default
        self,
        studies: SmallStudies,
        port: int,
        *,
        senders: int = 2,
        first: int = 1,
        count: int | None = None,
        may_begin: Callable[[], bool] = lambda: True,
        hosts: Sequence[str] = ("127.0.0.1",),
    ) -> None:
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # nobody there: no news here
        self._studies, self._port, self._may_begin = studies, port, may_begin
        numbers = itertools.count(first) if count is None else iter(range(first, first + count))
        self._numbers = numbers
        self._hosts = itertools.cycle(hosts)
        self._lock = threading.Lock()
        self._ending, self._aborting = threading.Event(), threading.Event()
        self.threads = [threading.Thread(target=self._run) for _ in range(senders)]
        self.begun: list[SmallStudy] = []
        self.accepted: dict[str, str] = {}
        self.sent_count = 0
        self.errors: list[BaseException] = []

    def __enter__(self) -> Self:
        """Begin to send."""
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Begin no further study; wait until those that were begun are stored."""
        if kind is not None:
            self.abandon()
        self.finish()

    def finish(self) -> None:
        """Begin no further study; wait until those that were begun are stored."""
        self._ending.set()
        for thread in self.threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def abandon(self) -> None:
        """Send nothing more, as when nobody will ever answer."""
        self._ending.set()
        self._aborting.set()
        for thread in self.threads:
            thread.join()

    def wait(self) -> None:
        """Wait until a limited number of studies is stored."""
        for thread in self.threads:
            thread.join()
        self.finish()

    def _run(self) -> None:
        try:
            while not self._ending.is_set():
                if not self._may_begin():
                    self._ending.wait(_PAUSE_S)
                    continue
                with self._lock:
                    number = next(self._numbers, None)
                if number is None:
                    return
                study = self._studies.study(number)
                with self._lock:
                    self.begun.append(study)
                self._store(list(study.instances))
        except BaseException as error:  # noqa: BLE001 - told by `finish`
            self.errors.append(error)

    def _store(self, wanted: list[Dataset]) -> None:
        while wanted and not self._aborting.is_set():
            wanted = self._store_once(wanted)
            if wanted:
                self._aborting.wait(_PAUSE_S)

    def _store_once(self, wanted: list[Dataset]) -> list[Dataset]:
        """Send over one association; return what was not answered with success."""
        entity = RequestingEntity("STORM")
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _PATIENCE_S
        entity.connection_timeout = _PATIENCE_S
        entity.requested_contexts = [build_context(_MR, _EXPLICIT_VR_LITTLE_ENDIAN)]
        assoc = entity.associate(next(self._hosts), self._port, ae_title="NEUROSEG")
        open_ones = []
        for ds in wanted:
            status = None
            if assoc.is_established and not self._aborting.is_set():
                self.sent_count += 1
                try:
                    status = assoc.send_c_store(ds).get("Status")
                except RuntimeError:  # it has just ended
                    status = None
            if status == 0:
                self.accepted[str(ds.SOPInstanceUID)] = str(ds.StudyInstanceUID)
            else:
                open_ones.append(ds)
        if assoc.is_established:
            assoc.release()
        return open_ones


def lost(accepted: Iterable[str], spool_root: Path, url: str = "") -> list[str]:
    """Return the instances that have no row, or no file with the digest of their row."""
    spool = Spool(spool_root)
    ledger = LedgerReader(url or f"sqlite:///{spool_root}/ledger.sqlite")
    missing = []
    for uid in list(accepted):
        path, sha256 = ledger.path_of(uid), ledger.digest_of(uid)
        if path is None or not _is_whole(spool.instance_path(path), sha256):
            missing.append(uid)
    ledger.close()
    return missing


def _is_whole(path: Path, sha256: str | None) -> bool:
    try:
        return stored.digest(path) == sha256
    except (InstanceUnreadableError, OSError):
        return False
