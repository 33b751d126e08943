"""What the ledger knows of files: which instances lie where, what is lost, what is to be deleted.

The rule of every purge: one transaction says that the files are gone and lists them; then they are
deleted; then the list is. Whoever dies in between leaves a list that the next one finishes, and
nobody ever relies on a file that is about to go.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from node import rows, tables
from node.cases import FINAL, NEEDING_INSTANCES, CaseState, EncodedObject, ReceivedInstance
from node.disposition import ending_of
from node.errors import InstanceLostError, ResultLostError
from node.moving import CaseMoves
from node.spool import CASES

_case, _instance, _doomed = tables.case, tables.instance, tables.doomed_file
_BATCH = 500  # values in one statement


class InstanceFile(NamedTuple):
    """What a stored instance says of its file, see `ReceivedInstance`; cheap, as there are many."""

    path: str
    byte_count: int
    sha256: str
    study_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsent:
    """A file of a result that a destination still waits for."""

    result: EncodedObject
    state: CaseState


class CaseFiles(CaseMoves):
    """The part of the ledger that speaks of files."""

    # -- what should be there ----------------------------------------------------------------

    def instance_files(self) -> Iterator[InstanceFile]:
        """Yield the file of every instance, in no order."""
        query = sa.select(*(_instance.c[name] for name in InstanceFile._fields))
        with self._reading() as connection:
            for row in connection.execute(query.execution_options(yield_per=10 * _BATCH)):
                yield InstanceFile(*row)

    def unsent_results(self) -> list[Unsent]:
        """Return the files that cases need which still have somewhere to go."""
        table, needing = tables.result, (CaseState.ENCODED.value, CaseState.HELD.value)
        query = sa.select(table, _case.c.state).join(_case, _case.c.case_id == table.c.case_id)
        with self._reading() as connection:
            return [
                Unsent(result=rows.encoded_object(row), state=CaseState(row.state))
                for row in connection.execute(query.where(_case.c.state.in_(needing)))
            ]

    def folder_sizes(self) -> dict[str, int]:
        """Return the bytes in the folder of each case, as far as they were noted."""
        with self._reading() as connection:
            found = connection.execute(sa.select(_case.c.case_id, _case.c.folder_bytes))
            return {row.case_id: row.folder_bytes for row in found}

    def note_folder(self, case_id: str, byte_count: int) -> None:
        """Record how much a case's folder holds."""
        with self._engine.begin() as connection:
            connection.execute(
                _case.update().where(_case.c.case_id == case_id).values(folder_bytes=byte_count)
            )

    # -- what is not there -------------------------------------------------------------------

    def lose_instances(self, lost: Iterable[InstanceFile | ReceivedInstance]) -> list[str]:
        """Take instances out, so that they are new when they are sent again.

        Returns the cases that this fails: those that need the instances and have no result yet.
        """
        by_study: dict[str, list[str]] = {}
        for one in lost:
            by_study.setdefault(one.study_instance_uid, []).append(one.sop_instance_uid)
        failed: list[str] = []
        for study, uids in by_study.items():
            with self._engine.begin() as connection:
                for at in range(0, len(uids), _BATCH):
                    is_lost = _instance.c.sop_instance_uid.in_(uids[at : at + _BATCH])
                    connection.execute(_instance.delete().where(is_lost))
                failed += self._fail_for_lost(connection, study, len(uids))
        return failed

    def _fail_for_lost(self, connection: Connection, study: str, count: int) -> list[str]:
        needing = [state.value for state in NEEDING_INSTANCES]
        found = connection.execute(
            sa.select(_case.c.case_id).where(
                _case.c.study_instance_uid == study, _case.c.state.in_(needing)
            )
        )
        case_ids = [row.case_id for row in found]
        for case_id in case_ids:
            ending = ending_of(InstanceLostError(count=count), CaseState.FAILED)
            self._end(connection, case_id, ending)
        return case_ids

    def lose_results(self, counts: Mapping[str, int]) -> None:
        """Fail cases so many files of whose results are lost; a retry begins at the volumes."""
        for case_id, count in counts.items():
            ending = ending_of(ResultLostError(count=count), CaseState.FAILED)
            with self._engine.begin() as connection:
                self._end(connection, case_id, ending)
                connection.execute(
                    _case.update()
                    .where(_case.c.case_id == case_id)
                    .values(resume_state=CaseState.COMPLETE.value)
                )

    # -- what is to go -----------------------------------------------------------------------

    def purgeable(self, state: CaseState, *, before: float) -> list[str]:
        """Return the cases that reached a state before then and have files, oldest first."""
        return self._purgeable([state], _case.c.purged_at.is_(None), before)

    def with_volumes(self, states: Collection[CaseState], *, before: float) -> list[str]:
        """Return the cases that reached one of the states before then and have volumes."""
        return self._purgeable(states, _case.c.volumes_purged_at.is_(None), before)

    def _purgeable(
        self, states: Collection[CaseState], has_files: sa.ColumnElement[bool], before: float
    ) -> list[str]:
        query = (
            sa.select(_case.c.case_id)
            .where(_case.c.state.in_([state.value for state in states]), has_files)
            .where(_case.c.updated_at <= before)
            .order_by(_case.c.updated_at)
        )
        with self._reading() as connection:
            return [row.case_id for row in connection.execute(query)]

    def purge_volumes(self, case_id: str, paths: Collection[str]) -> None:
        """Doom files that a case with a result was worked out with."""
        with self._engine.begin() as connection:
            if self._locked(connection, case_id).state not in FINAL:
                return
            connection.execute(
                _case.update()
                .where(_case.c.case_id == case_id)
                .values(volumes_purged_at=time.time())
            )
            self._doom(connection, paths)

    def purge(self, case_id: str) -> bool:
        """Doom the files of a case, and its study's instances where no other case has a use.

        Returns False, and changes nothing, for a case that is not final or was purged before.
        """
        with self._engine.begin() as connection:
            row = self._locked(connection, case_id)
            if row.state not in FINAL or row.purged_at is not None:
                return False
            now = time.time()
            values = {"purged_at": now, "volumes_purged_at": row.volumes_purged_at or now}
            connection.execute(
                _case.update().where(_case.c.case_id == case_id).values(**values, folder_bytes=0)
            )
            self._doom(connection, [f"{CASES}/{case_id}"])
            self._doom_instances(connection, row.study_instance_uid)
        return True

    def _doom_instances(self, connection: Connection, study: str) -> None:
        of_study = _case.c.study_instance_uid == study
        kept = connection.execute(
            sa.select(_case.c.case_id).where(of_study, _case.c.purged_at.is_(None))
        ).first()
        if kept is not None:
            return
        of_study = _instance.c.study_instance_uid == study
        found = connection.execute(sa.select(_instance.c.path).where(of_study))
        self._doom(connection, [row.path for row in found])
        connection.execute(_instance.delete().where(of_study))

    @staticmethod
    def _doom(connection: Connection, paths: Collection[str]) -> None:
        known = {row.path for row in connection.execute(sa.select(_doomed.c.path))}
        if new := [{"path": path} for path in paths if path not in known]:
            connection.execute(_doomed.insert(), new)

    def doomed(self) -> list[str]:
        """Return the files and folders that are to be deleted, relative to the spool."""
        with self._reading() as connection:
            return [row.path for row in connection.execute(sa.select(_doomed.c.path))]

    def forget_doomed(self, paths: Collection[str]) -> None:
        """Note that files are gone, durably."""
        wanted = list(paths)
        with self._engine.begin() as connection:
            for at in range(0, len(wanted), _BATCH):
                are_gone = _doomed.c.path.in_(wanted[at : at + _BATCH])
                connection.execute(_doomed.delete().where(are_gone))
