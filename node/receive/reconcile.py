"""Spool and ledger are brought to tell the same story, before the door opens or by an operator.

An orphan is a file without a row: its sender was never answered, or the answer got lost. If it is
whole it becomes an instance as if it had just arrived, which harms nobody, since what the sender
repeats is the same object. A row without its whole file is taken out, so that the instance is new
when it is sent again, and the cases that need it are failed and say so. What belongs to nothing is
put into quarantine with the reason beside it.

At the start names and sizes are compared, nothing is opened that fits; `is_deep` compares digests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from node import logs
from node.cases import CaseState, ReceivedInstance
from node.errors import (
    InstanceConflictError,
    InstanceUnreadableError,
    NodeError,
    SpoolAbsentError,
)
from node.filing import InstanceFile, Unsent
from node.ledger import Ledger
from node.receive import stored
from node.spool import CASES, Spool

LOGGED: Final = 20  # findings of a kind that get a line of their own
_A_FEW: Final = 20  # instances whose files may all be lost without the disk being another one


class Kind(StrEnum):
    """What can be wrong, with what is done about it."""

    HALF_WRITTEN = "half-written file: deleted"
    DOOMED = "file of a purged case: deleted"
    ADOPTED = "whole file without a row: taken in"
    DOUBLE = "second file of an instance: deleted"
    STRANGE = "file that is no instance: put into quarantine"
    ABSENT = "instance without its file: to be sent again"
    DAMAGED = "instance with a damaged file: put into quarantine, to be sent again"
    RESULT = "result without its whole file: case failed, to be retried"
    UNKNOWN_CASE = "folder of an unknown case: put into quarantine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong; `path` is relative to the spool and made of our own names."""

    kind: Kind
    path: str
    reason: str = ""


class Reconciliation:
    """One comparison of spool and ledger.

    Parameters
    ----------
    spool, ledger : Spool, Ledger
        What is compared.
    model_id : str
        The model whose cases adopted instances open.
    limit_bytes : int
        Largest data set that is adopted.
    repairs : bool
        Whether anything is done about the findings.
    is_deep : bool
        Whether the digest of every instance is compared.
    is_live : bool
        Whether an operator asks while a receiver may be at work.
    has_company : bool
        Whether receivers of other machines may be at work: as with `is_live`, what has just been
        written is left to them.
    """

    def __init__(  # noqa: PLR0913 - options, each with its default
        self,
        spool: Spool,
        ledger: Ledger,
        *,
        model_id: str,
        limit_bytes: int,
        repairs: bool = True,
        is_deep: bool = False,
        is_live: bool = False,
        has_company: bool = False,
    ) -> None:
        self._spool, self._ledger = spool, ledger
        self._model_id, self._limit_bytes = model_id, limit_bytes
        self._repairs, self._is_deep = repairs, is_deep
        self._is_live = is_live
        self._settled_s = 60.0 if is_live or has_company else 0.0

    def run(self, progress: Callable[[int, int], None] | None = None) -> list[Finding]:
        """Return what was found, all of it logged.

        `progress` is told how many instances of all were compared.

        Raises
        ------
        SpoolAbsentError
            Not one of many instances has a file. That is another disk; nothing was changed.
        """
        findings = [
            *self._leftovers(),
            *self._instances(progress or (lambda _, __: None)),
            *self._results(),
            *self._folders(),
        ]
        _log(findings)
        return findings

    # -- what is left over -------------------------------------------------------------------

    def _leftovers(self) -> Iterator[Finding]:
        doomed = self._ledger.doomed()
        parts = self._spool.parts(older_than_s=self._settled_s)
        if self._repairs:
            self._spool.delete(doomed)
            self._ledger.forget_doomed(doomed)
            for part in parts:
                part.unlink(missing_ok=True)
        yield from (Finding(kind=Kind.DOOMED, path=one) for one in doomed)
        root = self._spool.root
        yield from (
            Finding(kind=Kind.HALF_WRITTEN, path=str(one.relative_to(root))) for one in parts
        )

    # -- instances ---------------------------------------------------------------------------

    def _instances(self, progress: Callable[[int, int], None]) -> Iterator[Finding]:
        files = dict(self._spool.instance_files())
        total, count, lost = len(files), 0, []
        for count, one in enumerate(self._ledger.instance_files(), start=1):
            kind = self._judged(one, files.pop(one.path, None))
            progress(count, max(total, count))
            if kind is not None:
                lost.append((one, kind))
        absent = sum(kind is Kind.ABSENT for _, kind in lost)
        if absent == count > _A_FEW and not self._is_live:
            raise SpoolAbsentError(count=count)
        yield from self._lost(lost)
        doomed = set(self._ledger.doomed())
        for path in files.keys() - doomed:
            yield from self._orphan(path)

    def _judged(self, one: InstanceFile, file_bytes: int | None) -> Kind | None:
        """Return what is wrong with an instance, None when nothing is."""
        if file_bytes == stored.expected_bytes(one) and not self._is_deep:
            return None
        path = self._spool.instance_path(one.path)
        if file_bytes is None:  # it may have come since the files were listed
            if not path.is_file():
                return Kind.ABSENT
            file_bytes = path.stat().st_size
        if not stored.is_as_long(path, one, file_bytes):
            return Kind.DAMAGED
        if self._is_deep and not _is_intact(one, self._spool):
            return Kind.DAMAGED
        return None

    def _lost(self, lost: list[tuple[InstanceFile, Kind]]) -> Iterator[Finding]:
        still = [
            (one, kind)
            for one, kind in lost
            if self._ledger.path_of(one.sop_instance_uid) == one.path
        ]
        if self._repairs and still:
            for case_id in self._ledger.lose_instances(one for one, _ in still):
                logs.get().error("case.failed", case_id=case_id, code="SPOOL_INSTANCE_LOST")
        for one, kind in still:
            if kind is Kind.DAMAGED:
                self._put_away(one.path, "SPOOL_INSTANCE_LOST", "length or digest is not its row's")
            yield Finding(kind=kind, path=one.path)

    def _orphan(self, relative: str) -> Iterator[Finding]:
        age_s = self._spool.age_s(self._spool.root / relative)
        if age_s < self._settled_s:
            return  # it is gone, or its row is on the way
        found = self._read(relative)
        if isinstance(found, NodeError):
            self._put_away(relative, found.code, str(found))
            yield Finding(kind=Kind.STRANGE, path=relative, reason=found.code)
        elif (path := self._ledger.path_of(found.sop_instance_uid)) is None:
            if self._repairs:
                self._ledger.record_instance(found, model_id=self._model_id)
            yield Finding(kind=Kind.ADOPTED, path=relative)
        elif path != relative:
            if self._repairs:
                self._spool.delete([relative])
            yield Finding(kind=Kind.DOUBLE, path=relative)

    def _read(self, relative: str) -> ReceivedInstance | NodeError:
        """Return what an orphan holds, or why it can be no instance."""
        path = self._spool.root / relative
        try:
            found = stored.read(path, relative, limit_bytes=self._limit_bytes)
        except NodeError as error:
            return error
        except (OSError, ValueError) as error:
            return InstanceUnreadableError(reason=type(error).__name__)
        if self._ledger.digest_of(found.sop_instance_uid) not in (None, found.sha256):
            return InstanceConflictError()
        return found

    # -- cases -------------------------------------------------------------------------------

    def _results(self) -> Iterator[Finding]:
        lost = [one for one in self._ledger.unsent_results() if not self._is_there(one)]
        if self._repairs:
            self._ledger.lose_results(Counter(one.result.case_id for one in lost))
        yield from (Finding(kind=Kind.RESULT, path=one.result.path) for one in lost)

    def _is_there(self, one: Unsent) -> bool:
        path = self._spool.instance_path(one.result.path)
        try:
            if path.stat().st_size == one.result.byte_count:
                return True
        except FileNotFoundError:
            pass
        return self._ledger.case(one.result.case_id).state not in (
            CaseState.ENCODED,
            CaseState.HELD,
        )

    def _folders(self) -> Iterator[Finding]:
        names = self._spool.case_ids()
        known = self._ledger.folder_sizes()  # asked after: a case is there before its folder
        for name in names:
            relative = f"{CASES}/{name}"
            if name not in known:
                self._put_away(relative, "CASE_UNKNOWN", "the ledger knows no such case")
                yield Finding(kind=Kind.UNKNOWN_CASE, path=relative)
            elif self._repairs and (now := self._spool.case_bytes(name)) != known[name]:
                self._ledger.note_folder(name, now)

    def _put_away(self, relative: str, code: str, reason: str) -> None:
        if self._repairs:
            self._spool.quarantine(relative, code=code, reason=reason)


def _is_intact(one: InstanceFile, spool: Spool) -> bool:
    try:
        return stored.digest(spool.instance_path(one.path)) == one.sha256
    except (InstanceUnreadableError, OSError):
        return False


def _log(findings: list[Finding]) -> None:
    """Log every kind with its count, and the first of each one by one."""
    for kind, count in Counter(one.kind for one in findings).items():
        logs.get().warning("spool.reconciled", kind=kind.value, path_count=count)
        of_kind = [one for one in findings if one.kind is kind]
        for one in of_kind[:LOGGED]:
            logs.get().warning("spool.found", kind=kind.value, path=one.path, reason=one.reason)
