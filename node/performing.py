"""The node as performer of a worklist: claims, has the study worked on, and completes.

Who has claimed what stands in the ledger, so that a restart goes on with it.

References
----------
IHE RAD AI Workflow for Imaging (AIW-I), task performer; DICOM PS3.4 CC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from node import logs, uids
from node.cases import FINAL, CaseState, EncodedObject
from node.disposition import ending_of
from node.door_errors import SecretAbsentError, TlsUnusableError
from node.errors import CancelledByOperatorError, PeerRefusedError, PeerUnavailableError
from node.ledger import Ledger
from node.manager import ManagerWorklist
from node.peers import SOURCE
from node.pull_orders import PullOrders, PullState
from node.rows import CaseRow
from node.settings import Settings
from node.ticker import Ticker
from node.work_errors import WorkitemConflictError
from node.workitems import Workitem, Worklist
from node.worksteps import (
    ENDED,
    OUTPUTS,
    PERCENT,
    PERFORMED,
    PROGRESS,
    PROGRESS_TEXT,
    READINESS,
    REASON,
    SERIES,
    STARTED,
    STATE,
    STUDY,
    WORKLIST_LABEL,
    Item,
    StepState,
    items_of,
    study_of,
    value_of,
)

PERFORMER: Final = "node"
_LOOK_S: Final = 1.0
_PERCENT: Final = {
    CaseState.RECEIVING: 10,
    CaseState.COMPLETE: 20,
    CaseState.ASSEMBLED: 40,
    CaseState.SEGMENTED: 70,
    CaseState.ENCODED: 90,
    CaseState.HELD: 90,
}
_NO_STUDY: Final = "WORKITEM_NO_STUDY"


class Steps(Protocol):
    """A worklist, here or elsewhere, with the words of `Worklist`."""

    def search(self, keys: Mapping[str, str]) -> list[Workitem]:
        """Return the work items whose attributes have these values."""
        ...

    def change(
        self, uid: str, wanted: StepState, transaction_uid: str, *, performer: str | None = None
    ) -> bool:
        """Move a work item."""
        ...

    def update(self, uid: str, change: Item, transaction_uid: str) -> None:
        """Change what a work item says."""
        ...

    def performed_by(self, performer: str) -> list[Workitem]:
        """Return what is claimed and not ended."""
        ...


class Performing:
    """Works the worklist off; `look` is called again and again by one thread.

    Parameters
    ----------
    settings : Settings
        Say what is claimed.
    ledger : Ledger
        Knows work items, studies and results.
    steps : Steps, optional
        The worklist; the node's own without.
    """

    def __init__(self, settings: Settings, ledger: Ledger, steps: Steps | None = None) -> None:
        self._label, self._can_pull = settings.worklist.label, settings.source.transport != "none"
        self._ledger, self._list = ledger, steps or Worklist(ledger.engine)
        self._has_failed = False
        self._pulls = PullOrders(ledger.engine)

    def look(self) -> None:
        """Claim what can be done, and tell how far the rest is."""
        try:
            self._look()
        except (PeerUnavailableError, PeerRefusedError, TlsUnusableError, SecretAbsentError) as no:
            if not self._has_failed:  # once an outage
                logs.get().warning("worklist.failed", code=no.code, sentence=str(no))
            self._has_failed = True
        else:
            self._has_failed = False

    def _look(self) -> None:
        for one in self._list.search({STATE: StepState.SCHEDULED}):
            if self._is_ours(one.content):
                self._claim(one)
        for one in self._list.performed_by(PERFORMER):
            try:
                self._attend(one)
            except WorkitemConflictError:
                continue  # another process of this node was faster

    def _is_ours(self, item: Item) -> bool:
        is_labelled = not self._label or value_of(item, WORKLIST_LABEL) == self._label
        return is_labelled and value_of(item, READINESS) == "READY" and bool(study_of(item))

    def _claim(self, one: Workitem) -> None:
        transaction = uids.derived_uid(one.uid, PERFORMER, "transaction")
        started = {STARTED: _now(), ENDED: {"vr": "DT"}, OUTPUTS: {"vr": "SQ"}}
        try:
            self._list.change(one.uid, StepState.IN_PROGRESS, transaction, performer=PERFORMER)
            self._list.update(one.uid, {PERFORMED: _sequence(started)}, transaction)
        except WorkitemConflictError:
            return  # somebody else was faster
        study = study_of(one.content)
        if self._can_pull and not self._ledger.cases_of_study(study):
            self._pulls.want_once(study, SOURCE)
        logs.get().info("workitem.claimed")

    def _attend(self, one: Workitem) -> None:
        """Do for a claimed work item what is due."""
        cases = self._newest(study_of(one.content))
        if one.is_cancel_requested:
            self._cancel_cases(cases)
            self._end(one, StepState.CANCELED, [])
            return
        pull = self._pulls.find(study_of(one.content))
        if not cases and (pull is None or pull.state is PullState.FAILED):
            self._give_up(one, pull.code if pull is not None and pull.code else _NO_STUDY)
        elif cases and all(row.state in FINAL for row in cases):
            self._conclude(one, cases)
        else:
            states = [row.state for row in cases] or [CaseState.RECEIVING]
            self._tell(one, states)

    def _newest(self, study: str) -> list[CaseRow]:
        """Return the newest case of each model."""
        newest: dict[str, CaseRow] = {}
        for row in self._ledger.cases_of_study(study):
            known = newest.get(row.model_id)
            if known is None or row.revision > known.revision:
                newest[row.model_id] = row
        return list(newest.values())

    def _conclude(self, one: Workitem, cases: Sequence[CaseRow]) -> None:
        """Complete where there is a result, give up where every case has ended without."""
        results = [
            result
            for row in cases
            if row.state is CaseState.DELIVERED
            for result in self._ledger.results(row.case_id)
        ]
        if results:
            self._end(one, StepState.COMPLETED, results)
        else:
            self._give_up(one, next((row.code for row in cases if row.code), "CASE_CANCELLED"))

    def _give_up(self, one: Workitem, code: str) -> None:
        self._list.update(one.uid, {REASON: {"vr": "LT", "Value": [code]}}, _transaction(one))
        self._end(one, StepState.CANCELED, [])

    def _end(self, one: Workitem, state: StepState, results: Sequence[EncodedObject]) -> None:
        (performed,) = items_of(one.content, PERFORMED) or [{STARTED: _now()}]
        told = {**performed, ENDED: _now(), OUTPUTS: _outputs(results)}
        change = {PERFORMED: _sequence(told)}
        if state is StepState.COMPLETED:
            change |= {PROGRESS: _progress(100, "done")}
        self._list.update(one.uid, change, _transaction(one))
        self._list.change(one.uid, state, _transaction(one))
        logs.get().info("workitem.ended", state=state.value)

    def _tell(self, one: Workitem, states: Sequence[CaseState]) -> None:
        """Say how far it is, where that has changed."""
        slowest = min(states, key=lambda state: _PERCENT.get(state, 100))
        told = _progress(_PERCENT.get(slowest, 100), slowest.value)
        if one.content.get(PROGRESS) != told:
            self._list.update(one.uid, {PROGRESS: told}, _transaction(one))

    def _cancel_cases(self, cases: Sequence[CaseRow]) -> None:
        for row in cases:
            if row.state not in FINAL:
                ending = ending_of(CancelledByOperatorError(), CaseState.CANCELLED)
                self._ledger.end_case(row.case_id, ending)


def tickers(settings: Settings, ledger: Ledger) -> list[Ticker]:
    """Return the not yet started threads that perform work items of the settings' worklists."""
    found = []
    if settings.worklist.perform:
        found.append(Ticker("performer", _LOOK_S, Performing(settings, ledger).look))
    manager = settings.worklist.manager
    if manager.url:
        steps = ManagerWorklist(manager.as_destination(), Worklist(ledger.engine, is_mirror=True))
        look = Performing(settings, ledger, steps).look
        found.append(Ticker("manager", manager.poll_s, look))
    return found


def _transaction(one: Workitem) -> str:
    return one.transaction_uid or ""


def _now() -> dict[str, Any]:
    return {"vr": "DT", "Value": [f"{datetime.now(UTC):%Y%m%d%H%M%S}+0000"]}


def _sequence(*items: Item) -> dict[str, Any]:
    return {"vr": "SQ", "Value": list(items)}


def _progress(percent: int, words: str) -> dict[str, Any]:
    said = {
        PERCENT: {"vr": "DS", "Value": [percent]},
        PROGRESS_TEXT: {"vr": "ST", "Value": [words]},
    }
    return _sequence(said)


def _outputs(results: Sequence[EncodedObject]) -> dict[str, Any]:
    """Return Output Information Sequence: an item for each series (PS3.4 CC.2.5, Table 10-3)."""
    by_series: dict[str, list[EncodedObject]] = {}
    for one in results:
        by_series.setdefault(one.series_instance_uid, []).append(one)
    return _sequence(
        *(
            {
                "0040E020": {"vr": "CS", "Value": ["DICOM"]},
                STUDY: {"vr": "UI", "Value": [many[0].study_instance_uid]},
                SERIES: {"vr": "UI", "Value": [series]},
                "00081199": _sequence(*map(_reference, many)),
            }
            for series, many in by_series.items()
        )
    )


def _reference(one: EncodedObject) -> Item:
    return {
        "00081150": {"vr": "UI", "Value": [one.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [one.sop_instance_uid]},
    }
