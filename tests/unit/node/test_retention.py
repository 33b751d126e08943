"""Files go when they have served their time, and not a moment before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from node.cases import FINAL, CaseState, DeliveryReceipt, Ending, Transport
from node.clocks import SteadyClock
from node.errors import CasePurgedError
from node.ledger import Ledger
from node.peers import Destination
from node.receive import stored
from node.receive.reconcile import Reconciliation
from node.retention import Purger
from node.settings import Retention
from node.spool import Spool
from tests import ledgers
from tests.ledgers import CANCELLED, FAILED, MODEL, REJECTED

NEVER = Retention(
    volumes_days=0,
    delivered_days=0,
    superseded_days=0,
    cancelled_days=0,
    rejected_days=0,
    failed_days=0,
)
ARCHIVE = Destination(name="archive", transport=Transport.DIMSE, host="127.0.0.1", port=104)
_FILES = ("t1.nii", "channels.nii.gz", "labels.nii.gz", "seg.dcm")


def _purger(
    ledger: Ledger,
    spool: Spool,
    retention: Retention,
    *,
    days: float = 0.0,
    destinations: Iterable[Destination] = (),
) -> Purger:
    """Return a purger whose clock is so many days ahead."""
    return Purger(ledger, spool, retention, tuple(destinations), lambda: time.time() + days * 86400)


def _of(state: CaseState, days: float = 1.0) -> Retention:
    return NEVER.model_copy(update={f"{state.value}_days": days})


def _ended(ledger: Ledger, spool: Spool, state: CaseState, *, study: str = "1") -> str:
    """Return a case of a study of one instance in a final state, with all its files."""
    row = ledgers.opened(ledger, f"{study}.1.1", study=study)
    endings: dict[CaseState, Ending] = {
        CaseState.REJECTED: REJECTED,
        CaseState.FAILED: FAILED,
        CaseState.CANCELLED: CANCELLED,
    }
    if state in endings:
        ledger.end_case(row.case_id, endings[state])
    elif state is not CaseState.RECEIVING:
        ledgers.advanced(ledger, row, CaseState.DELIVERED)
        if state is CaseState.SUPERSEDED:
            ledger.move(row.case_id, state)
    _lay(ledger, spool, row.case_id)
    return row.case_id


def _lay(ledger: Ledger, spool: Spool, *case_ids: str) -> None:
    for one in ledger.instance_files():
        path = spool.instance_path(one.path)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(stored.expected_bytes(one)))
    for case_id in case_ids:
        for name in _FILES:
            (spool.case_folder(case_id) / name).write_bytes(b"x" * 10)
        ledger.note_folder(case_id, spool.case_bytes(case_id))


def _files(spool: Spool) -> set[str]:
    return {str(one.relative_to(spool.root)) for one in spool.root.rglob("*") if one.is_file()}


@pytest.mark.parametrize("state", FINAL)
def test_files_go_after_their_time_and_the_rows_stay(
    ledger: Ledger, spool: Spool, state: CaseState
) -> None:
    case_id = _ended(ledger, spool, state)
    before, row = _files(spool), ledger.case(case_id)
    _purger(ledger, spool, _of(state), days=0.9).look()
    _purger(ledger, spool, NEVER, days=10_000).look()
    assert _files(spool) == before
    for _ in range(2):
        _purger(ledger, spool, _of(state), days=1.1).look()
    assert _files(spool) == set()
    after = ledger.case(case_id)
    assert after.purged_at is not None
    assert (after.state, after.code, after.updated_at) == (row.state, row.code, row.updated_at)
    assert ledger.spool_bytes() == 0
    assert Reconciliation(spool, ledger, model_id=MODEL, limit_bytes=100).run() == []


@pytest.mark.parametrize("state", [CaseState.RECEIVING, CaseState.COMPLETE, CaseState.ENCODED])
def test_a_case_that_is_not_final_is_never_touched(
    ledger: Ledger, spool: Spool, state: CaseState
) -> None:
    row = ledgers.opened(ledger)
    if state is CaseState.COMPLETE:
        ledgers.closed(ledger, row)
    if state is CaseState.ENCODED:
        ledgers.advanced(ledger, row, state)
    _lay(ledger, spool, row.case_id)
    before = _files(spool)
    soon = dict.fromkeys(Retention.model_fields, 0.001)
    retention = Retention.model_validate({**soon, "make_room": True})
    spool.free_floor_bytes = 2**62
    _purger(ledger, spool, retention, days=10_000).look()
    assert not ledger.purge(row.case_id)
    ledger.purge_volumes(row.case_id, spool.working_files(row.case_id))
    assert ledger.doomed() == []
    assert _files(spool) == before


def test_instances_stay_while_another_revision_has_a_use_for_them(
    ledger: Ledger, spool: Spool
) -> None:
    first = _ended(ledger, spool, CaseState.DELIVERED)
    ledger.record_instance(ledgers.instance("1.1.2", at=99), model_id=MODEL)
    second = ledgers.newest(ledger).case_id
    _lay(ledger, spool, second)
    instances = {path for path, _ in spool.instance_files()}
    _purger(ledger, spool, _of(CaseState.DELIVERED), days=2).look()
    assert not (spool.root / "cases" / first).exists()
    assert {path for path, _ in spool.instance_files()} == instances
    ledger.end_case(second, REJECTED)
    _purger(ledger, spool, _of(CaseState.REJECTED), days=2).look()
    assert _files(spool) == set()


@pytest.mark.parametrize("state", [CaseState.DELIVERED, CaseState.FAILED])
def test_a_result_stays_until_every_destination_has_it(
    ledger: Ledger, spool: Spool, state: CaseState
) -> None:
    row = ledgers.opened(ledger)
    ledgers.advanced(ledger, row, CaseState.SEGMENTED)
    result = ledgers.encoded(row)
    ledger.save_result(result, summary={})
    if state is CaseState.FAILED:
        ledger.end_case(row.case_id, FAILED)
    else:
        ledger.move(row.case_id, state)  # a destination has been added since
    _lay(ledger, spool, row.case_id)
    before = _files(spool)
    purger = _purger(ledger, spool, _of(state), days=2, destinations=[ARCHIVE])
    purger.look()
    assert _files(spool) == before
    ledger.save_receipt(
        DeliveryReceipt(
            case_id=row.case_id,
            destination=ARCHIVE.name,
            transport=Transport.DIMSE,
            sop_instance_uid=result.sop_instance_uid,
            status_code="0x0000",
            attempt=1,
            delivered_at=datetime.now(UTC),
        )
    )
    purger.look()
    assert _files(spool) == set()
    assert len(ledger.receipts(row.case_id)) == len(ledger.results(row.case_id)) == 1


def test_working_volumes_go_first_and_the_result_stays(ledger: Ledger, spool: Spool) -> None:
    case_id = _ended(ledger, spool, CaseState.DELIVERED)
    retention = NEVER.model_copy(update={"volumes_days": 1.0})
    for _ in range(2):
        _purger(ledger, spool, retention, days=2).look()
    assert {one.name for one in spool.case_folder(case_id).iterdir()} == {
        *("labels.nii.gz", "seg.dcm")
    }
    row = ledger.case(case_id)
    assert row.volumes_purged_at is not None
    assert row.purged_at is None
    assert row.folder_bytes == 20
    assert len(list(spool.instance_files())) == 1


def test_below_the_floor_the_oldest_delivered_make_room(
    ledger: Ledger, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    studies = ("1", "2", "3", "4")
    cases = [_ended(ledger, spool, CaseState.DELIVERED, study=one) for one in studies]
    spool.free_floor_bytes = 1000
    # Each case that is purged frees 500 bytes; a tenth of the floor more is wanted.
    free: Callable[[Spool], int] = lambda one: 250 + 500 * (4 - len(one.case_ids()))  # noqa: E731
    monkeypatch.setattr(Spool, "free_bytes", free)
    _purger(ledger, spool, NEVER).look()
    assert len(spool.case_ids()) == 4
    for _ in range(2):
        _purger(ledger, spool, NEVER.model_copy(update={"make_room": True})).look()
    assert set(spool.case_ids()) == set(cases[2:])


@pytest.mark.parametrize("after", ["rows", "files"])
def test_a_purge_that_dies_is_finished_and_touches_nothing_that_came_meanwhile(
    ledger: Ledger, spool: Spool, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    case_id = _ended(ledger, spool, CaseState.DELIVERED)
    purger = _purger(ledger, spool, _of(CaseState.DELIVERED), days=2)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if after == "rows":
            patch.setattr(spool, "delete", die)
        else:
            patch.setattr(ledger, "forget_doomed", die)
        with pytest.raises(KeyboardInterrupt):
            purger.look()
    assert bool(_files(spool)) == (after == "rows")
    # The sender repeats the study: to the ledger it is new, and its file has another name.
    name = spool.instance_name(study_instance_uid="1", sop_instance_uid="1.1.1", sha256="a" * 64)
    part = spool.new_part()
    part.write_bytes(b"new")
    spool.keep_instance(part, name)
    assert ledger.record_instance(
        replace(ledgers.instance("1.1.1", at=999), path=name), model_id=MODEL
    )
    purger.look()
    assert _files(spool) == {name}
    assert ledger.doomed() == []
    assert ledgers.newest(ledger).revision == 2
    assert ledger.case(case_id).purged_at is not None


def test_a_clock_that_is_set_forwards_makes_no_file_old(ledger: Ledger, spool: Spool) -> None:
    case_id = _ended(ledger, spool, CaseState.DELIVERED)
    wall, elapsed = [datetime.now(UTC)], [0.0]
    clock = SteadyClock(lambda: wall[0], lambda: elapsed[0])
    retention = _of(CaseState.DELIVERED, 30.0).model_copy(update={"volumes_days": 2.0})
    purger = Purger(ledger, spool, retention, (), clock.timestamp)
    before = _files(spool)
    wall[0] += timedelta(days=400)
    purger.look()
    assert _files(spool) == before
    elapsed[0] = 31 * 86400.0
    purger.look()
    assert _files(spool) == set()
    assert ledger.case(case_id).purged_at is not None


def test_the_clock_of_a_purger_is_one_that_nobody_sets(ledger: Ledger, spool: Spool) -> None:
    purger = Purger(ledger, spool, NEVER, ())
    assert getattr(purger._clock, "__self__", None).__class__ is SteadyClock


def test_nobody_works_on_a_case_without_files(ledger: Ledger, spool: Spool) -> None:
    case_id = _ended(ledger, spool, CaseState.FAILED)
    _purger(ledger, spool, _of(CaseState.FAILED), days=2).look()
    with pytest.raises(CasePurgedError):
        ledger.reopen(case_id)
    with pytest.raises(CasePurgedError):
        ledger.choose_series(case_id, {}, roles=("flair",))
    assert ledger.case(case_id).state is CaseState.FAILED


def test_a_folder_that_is_gone_already_is_no_failure(ledger: Ledger, spool: Spool) -> None:
    case_id = _ended(ledger, spool, CaseState.DELIVERED)
    for name in _FILES:
        Path(spool.case_folder(case_id) / name).unlink()
    spool.case_folder(case_id).rmdir()
    _purger(ledger, spool, _of(CaseState.DELIVERED), days=2).look()
    assert _files(spool) == set()
