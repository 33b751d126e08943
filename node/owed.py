"""What each destination is owed of a case, and how far it has come with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from node import convert, measuring
from node.cases import CaseState, DeliveryReceipt, EncodedObject, ObjectKind, Stage, also_name
from node.peers import Destination
from node.reading import LedgerReader
from node.rows import AttemptRow, CaseRow
from node.spool import Spool

_BESIDE: Final = (convert.LABELS, convert.CHANNELS, measuring.FILE_NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a destination stands to a case that has a result.

    `state` is waiting, sending, retry (waiting for another attempt), committing (asked to keep the
    objects, no answer yet), failed (given up until somebody retries the case), held, stopped, and
    in the end stored or committed. `committed_count` is None where nobody asks for commitment.
    `next_at` is when something happens by itself; code and sentence are those of the last error,
    until the end is reached.
    """

    destination: str
    transport: str
    state: str
    object_count: int
    stored_count: int
    committed_count: int | None
    attempt_count: int
    next_at: datetime | None
    code: str | None
    sentence: str | None


def wanted(results: Sequence[EncodedObject], destination: Destination) -> list[EncodedObject]:
    """Return the objects that a destination wants."""
    return [one for one in results if _is_wanted(one, destination)]


def _is_wanted(one: EncodedObject, destination: Destination) -> bool:
    if one.kind is ObjectKind.ALSO:
        return Path(one.path).name in map(also_name, destination.also)
    return one.kind in destination.kinds


def routed(
    case_id: str, ledger: LedgerReader, destinations: Sequence[Destination]
) -> list[Destination]:
    """Return the destinations that the result of a case goes to, as was decided of it."""
    route = ledger.route(case_id)
    return [one for one in destinations if route is None or one.name in route.destinations]


def unserved(case_id: str, ledger: LedgerReader, destination: Destination) -> list[EncodedObject]:
    """Return the objects of a case that a destination wants and does not hold yet."""
    objects = wanted(ledger.results(case_id), destination)
    return _without(objects, _receipts(ledger.receipts(case_id), destination))


def uncommitted(
    case_id: str, ledger: LedgerReader, destination: Destination
) -> list[EncodedObject]:
    """Return the objects that a destination wants and has yet to promise to keep.

    None where it is not asked to.
    """
    objects = wanted(ledger.results(case_id), destination)
    return _unkept(objects, _receipts(ledger.receipts(case_id), destination), destination)


def _without(
    objects: Sequence[EncodedObject], receipts: Sequence[DeliveryReceipt]
) -> list[EncodedObject]:
    there = {one.sop_instance_uid for one in receipts}
    return [one for one in objects if one.sop_instance_uid not in there]


def _unkept(
    objects: Sequence[EncodedObject], receipts: Sequence[DeliveryReceipt], destination: Destination
) -> list[EncodedObject]:
    if not destination.commitment:
        return []
    return _without(objects, [one for one in receipts if one.committed_at is not None])


def is_served(case_id: str, ledger: LedgerReader, destination: Destination) -> bool:
    """Say whether a destination holds, and where asked keeps, all that it wants of a case.

    Results are purged (`node.retention`) only where this holds for each that it goes to.
    """
    return not (unserved(case_id, ledger, destination) or uncommitted(case_id, ledger, destination))


def files(
    case_id: str, objects: Sequence[EncodedObject], spool: Spool, destination: Destination
) -> list[Path]:
    """Return the files that a folder is to hold of a case, DICOM or not."""
    folder = spool.case_folder(case_id)
    beside = [folder / name for name in _BESIDE] if destination.nifti else []
    return [
        *(spool.instance_path(one.path) for one in objects),
        *(one for one in beside if one.is_file()),
    ]


def _receipts(
    receipts: Sequence[DeliveryReceipt], destination: Destination
) -> list[DeliveryReceipt]:
    return [one for one in receipts if one.destination == destination.name]


def standings(
    row: CaseRow, ledger: LedgerReader, destinations: Sequence[Destination]
) -> tuple[Standing, ...]:
    """Return how every destination stands to a case; nothing before the case has a result."""
    results = ledger.results(row.case_id)
    if not results:
        return ()
    receipts, attempts = ledger.receipts(row.case_id), ledger.attempts(row.case_id)
    return tuple(
        _standing(
            row,
            one,
            wanted(results, one),
            _receipts(receipts, one),
            [
                each
                for each in attempts
                if each.stage is Stage.DELIVER and each.destination == one.name
            ],
        )
        for one in routed(row.case_id, ledger, destinations)
    )


def _standing(
    row: CaseRow,
    destination: Destination,
    objects: Sequence[EncodedObject],
    receipts: Sequence[DeliveryReceipt],
    attempts: Sequence[AttemptRow],
) -> Standing:
    count, lacking = len(objects), len(_without(objects, receipts))
    open_count = len(_unkept(objects, receipts, destination))
    last = attempts[-1] if attempts else None
    if lacking or open_count:
        state = _open_state(row, last, is_stored=not lacking)
    else:
        state = "committed" if destination.commitment else "stored"
    failed = next((one for one in reversed(attempts) if one.code), None)
    is_over = state in ("stored", "committed")
    return Standing(
        destination=destination.name,
        transport=destination.transport.value,
        state=state,
        object_count=count,
        stored_count=count - lacking,
        committed_count=count - open_count if destination.commitment else None,
        attempt_count=len(attempts),
        next_at=last.next_at if last and state in ("retry", "committing") else None,
        code=None if is_over or failed is None else failed.code,
        sentence=None if is_over or failed is None else failed.sentence,
    )


def _open_state(row: CaseRow, last: AttemptRow | None, *, is_stored: bool) -> str:
    if row.state is CaseState.HELD:
        return "held"
    stood = row.resume_state if row.state is CaseState.FAILED else row.state
    if stood is not CaseState.ENCODED:
        return "stopped"
    if last is None:
        return "waiting"
    states = {None: "sending", "retry": "retry", "done": "committing" if is_stored else "waiting"}
    if row.state is CaseState.FAILED:
        states["failed"] = "failed"
    return states.get(last.outcome, "waiting")
