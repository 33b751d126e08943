"""What a run of faults has cost: accepted, lost, doubled and stranded, counted from outside.

Asked are the spool, the ledger and a real Orthanc, which writes down every C-STORE that it is sent.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.cases import CaseState
from node.ledger import Ledger
from node.receive.reconcile import Reconciliation
from node.spool import Spool
from tests.faults.load import lost
from tests.peers import Orthanc

_EVERY_STORE = """
function ReceivedInstanceFilter(dicom, origin)
  print("received " .. dicom.SOPInstanceUID)
  return true
end
"""
_ALL = 100_000
_OBJECTS = 2  # SEG and report


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The counts of one run.

    Parameters
    ----------
    accepted : int
        Instances that were answered with 0x0000.
    lost : int
        Those of them without row, or without a file that has its digest.
    stray : int
        Whatever else spool and ledger do not tell alike.
    studies, cases : int
        Sent, and opened for them by the node; more cases than studies are revisions.
    stranded : int
        Studies without a case that has been delivered, or whose result the archive lacks.
    doubled : int
        Series and instances that the archive holds beside one SEG and one report a study.
    repeated : int
        C-STOREs of an object that the archive had already: the same UID and the same bytes.
    """

    accepted: int
    lost: int
    stray: int
    studies: int
    cases: int
    stranded: int
    doubled: int
    repeated: int

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, doubled or stranded."""
        wrong = self.lost, self.stray, self.cases - self.studies, self.stranded, self.doubled
        return not any(wrong)


class Archive(Orthanc):
    """An Orthanc that writes down what it is sent."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        script = folder / "received.lua"
        script.write_text(_EVERY_STORE, encoding="utf-8")
        super().__init__(folder, LuaScripts=[str(script)])

    def stores(self) -> Counter[str]:
        """Return how often each SOP Instance UID was sent to it."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return Counter(line.rsplit(" ", 1)[1] for line in lines if "received " in line)

    def series_by_study(self) -> dict[str, list[int]]:
        """Return how many instances each series of each study holds."""
        found: dict[str, list[int]] = {}
        uids = {one["ID"]: one["MainDicomTags"]["StudyInstanceUID"] for one in self._all("studies")}
        for one in self._all("series"):
            found.setdefault(uids[one["ParentStudy"]], []).append(len(one["Instances"]))
        return found

    def _all(self, level: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._get(f"/{level}", expand="").json()
        return found


def asked(spool_root: Path, query: str) -> list[tuple[Any, ...]]:
    """Return what a running node's ledger says, read in a way that cannot write anything.

    Another connection would tidy up when it is the last one, and do so behind the back of whoever
    watches what is synced.
    """
    url = f"file:{spool_root}/ledger.sqlite?mode=ro"
    with closing(sqlite3.connect(url, uri=True, timeout=30.0)) as connection:
        return connection.execute(query).fetchall()


def delivered(spool_root: Path) -> set[str]:
    """Return the studies that have a case which was delivered."""
    query = "SELECT study_instance_uid FROM imaging_case WHERE state = 'delivered'"
    return {str(study) for (study,) in asked(spool_root, query)}


def audit(
    spool_root: Path,
    archive: Archive,
    accepted: Iterable[str],
    studies: Iterable[str],
    url: str = "",
) -> Audit:
    """Count, while nothing is sent any more; the node may still run. `url` is the ledger's."""
    accepted, studies = list(accepted), list(studies)
    spool, ledger = Spool(spool_root), Ledger(url or f"sqlite:///{spool_root}/ledger.sqlite")
    check = Reconciliation(
        spool, ledger, model_id="-", limit_bytes=2**30, repairs=False, is_deep=True
    )
    stray = len(check.run())
    cases = ledger.cases(limit=_ALL)
    done = {row.study_instance_uid for row in cases if row.state is CaseState.DELIVERED}
    ledger.close()
    held = archive.series_by_study()
    whole = {study for study, many in held.items() if sum(many) >= _OBJECTS}
    return Audit(
        accepted=len(accepted),
        lost=len(lost(accepted, spool_root, url)),
        stray=stray,
        studies=len(studies),
        cases=len(cases),
        stranded=len(set(studies) - (done & whole)),
        doubled=sum(
            max(count - _OBJECTS, 0) for many in held.values() for count in (sum(many), len(many))
        ),
        repeated=sum(count - 1 for count in archive.stores().values()),
    )
