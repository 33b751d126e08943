"""At the start spool and ledger tell the same story, or something is done about it and said."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydicom.dataset import Dataset

from node import logs, tables
from node.cases import CaseState
from node.errors import InstanceLostError, SpoolAbsentError
from node.ledger import Ledger
from node.receive import stored
from node.receive.instance import Intake
from node.receive.reconcile import Finding, Kind, Reconciliation
from node.spool import Spool
from tests import ledgers
from tests.doors import make_instance, take_in
from tests.ledgers import MODEL

_LIMIT = 2**20


@pytest.fixture
def intake(spool: Spool, ledger: Ledger) -> Intake:
    return Intake(spool, ledger, model_id=MODEL, limit_bytes=_LIMIT)


def _run(spool: Spool, ledger: Ledger, **options: bool) -> list[Finding]:
    return Reconciliation(spool, ledger, model_id=MODEL, limit_bytes=_LIMIT, **options).run()


def _kinds(spool: Spool, ledger: Ledger, **options: bool) -> list[Kind]:
    return [one.kind for one in _run(spool, ledger, **options)]


def _file(ds: Dataset, spool: Spool, ledger: Ledger) -> Path:
    path = ledger.path_of(ds.SOPInstanceUID)
    assert path is not None
    return spool.instance_path(path)


def _forget(ledger: Ledger) -> None:
    """Leave every file without its row, as a crash between the two does."""
    with ledger.engine.begin() as connection:
        for table in (tables.instance, tables.case):
            connection.execute(table.delete())


def _quarantined(spool: Spool) -> dict[str, str]:
    notes = (spool.root / "quarantine").glob("*.json")
    assert all(note.with_suffix("").exists() for note in (spool.root / "quarantine").glob("*.json"))
    return {one["path"]: one["code"] for one in (json.loads(note.read_text()) for note in notes)}


def test_where_nothing_is_wrong_nothing_is_found(
    intake: Intake, spool: Spool, ledger: Ledger
) -> None:
    ds = make_instance()
    take_in(intake, ds)
    before = ledger.study_instances(ds.StudyInstanceUID)
    assert _run(spool, ledger, is_deep=True) == []
    assert ledger.study_instances(ds.StudyInstanceUID) == before


def test_how_far_it_is_is_told(intake: Intake, spool: Spool, ledger: Ledger) -> None:
    for _ in range(3):
        take_in(intake, make_instance())
    told: list[tuple[int, int]] = []
    Reconciliation(spool, ledger, model_id=MODEL, limit_bytes=_LIMIT).run(
        lambda done, total: told.append((done, total))
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_whole_file_without_a_row_becomes_an_instance_and_its_repeat_is_the_same(
    intake: Intake, spool: Spool, ledger: Ledger
) -> None:
    ds = make_instance()
    take_in(intake, ds)
    (before,) = ledger.study_instances(ds.StudyInstanceUID)
    _forget(ledger)
    assert _kinds(spool, ledger) == [Kind.ADOPTED]
    (after,) = ledger.study_instances(ds.StudyInstanceUID)
    assert after.received_at > before.received_at
    same = [name for name in before.__slots__ if name != "received_at"]
    assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]
    take_in(intake, ds)
    assert ledger.study_instances(ds.StudyInstanceUID) == [after]
    assert [row.state for row in ledger.cases()] == [CaseState.RECEIVING]
    assert _run(spool, ledger, is_deep=True) == []


def test_a_torn_file_without_a_row_goes_into_quarantine(
    intake: Intake, spool: Spool, ledger: Ledger
) -> None:
    contents: dict[str, Callable[[bytes], bytes]] = {
        "truncated": lambda data: data[:-10],
        "other bytes": lambda data: data[:-10] + bytes([data[-10] ^ 1]) + data[-9:],
        "zeros": lambda data: bytes(len(data)),
        "empty": lambda _: b"",
        "meta alone": lambda data: data[:300],
    }
    paths = []
    for change in contents.values():
        ds = make_instance()
        take_in(intake, ds)
        file = _file(ds, spool, ledger)
        file.write_bytes(change(file.read_bytes()))
        paths.append(str(file.relative_to(spool.root)))
    (spool.root / "instances" / "stray").write_text("x")
    (spool.root / "instances" / "folder" / "in a folder").mkdir(parents=True)
    _forget(ledger)
    assert set(_kinds(spool, ledger)) == {Kind.STRANGE}
    assert set(_quarantined(spool)) == {*paths, "instances/stray", "instances/folder/in a folder"}
    assert ledger.cases() == []
    assert _run(spool, ledger) == []


def test_a_second_file_of_an_instance_goes_and_other_content_into_quarantine(
    intake: Intake, spool: Spool, ledger: Ledger
) -> None:
    ds = make_instance()
    take_in(intake, ds)
    first = _file(ds, spool, ledger)
    ds.PatientID = "OTHER"
    _forget(ledger)
    take_in(intake, ds)
    assert _kinds(spool, ledger) == [Kind.STRANGE]
    assert list(_quarantined(spool).values()) == ["INSTANCE_CONFLICT"]
    double = first.with_name(f"{_file(ds, spool, ledger).stem[:-8]}00000000.dcm")
    double.write_bytes(_file(ds, spool, ledger).read_bytes())
    assert _kinds(spool, ledger) == [Kind.DOUBLE]
    assert [path for path, _ in spool.instance_files()] == [ledger.path_of(ds.SOPInstanceUID)]


@pytest.mark.parametrize("how", ["absent", "short", "long", "deep"])
def test_a_lost_instance_fails_its_case_and_is_new_when_it_is_sent_again(
    intake: Intake, spool: Spool, ledger: Ledger, how: str
) -> None:
    lost = make_instance()
    kept = make_instance(StudyInstanceUID=lost.StudyInstanceUID)
    for one in (lost, kept):
        take_in(intake, one)
    file = _file(lost, spool, ledger)
    data = file.read_bytes()
    changed = {"short": data[:-1], "long": data + b"x", "deep": data[:-1] + b"x"}
    file.unlink() if how == "absent" else file.write_bytes(changed[how])
    kind = Kind.ABSENT if how == "absent" else Kind.DAMAGED
    assert _kinds(spool, ledger, is_deep=how == "deep") == [kind]
    assert len(_quarantined(spool)) == (how != "absent")
    (failed,) = ledger.cases()
    assert (failed.state, failed.code) == (CaseState.FAILED, "SPOOL_INSTANCE_LOST")
    for one in (kept, lost):
        take_in(intake, one)
    newest = ledgers.newest(ledger, lost.StudyInstanceUID)
    assert (newest.revision, newest.state) == (2, CaseState.RECEIVING)
    assert len(ledger.study_instances(lost.StudyInstanceUID)) == 2
    assert _run(spool, ledger, is_deep=True) == []


def test_a_file_that_an_earlier_version_wrote_is_as_long_as_it_says(
    intake: Intake, spool: Spool, ledger: Ledger
) -> None:
    ds = make_instance()
    take_in(intake, ds)
    file = _file(ds, spool, ledger)
    longer = file.read_bytes().replace(b"PEER", b"PEER  ")  # stands for another version name
    at = longer.index(b"AE\4\0")
    longer = longer[:at] + b"AE\6\0" + longer[at + 4 :]
    length = int.from_bytes(longer[140:144], "little") + 2
    file.write_bytes(longer[:140] + length.to_bytes(4, "little") + longer[144:])
    (row,) = ledger.study_instances(ds.StudyInstanceUID)
    assert stored.expected_bytes(row) == file.stat().st_size - 2
    assert _run(spool, ledger, is_deep=True) == []


def test_a_closed_case_never_goes_on_with_fewer_instances(spool: Spool, ledger: Ledger) -> None:
    row = ledgers.closed(ledger, ledgers.opened(ledger, "1.1", "1.2"))
    assert ledger.lose_instances(ledger.study_instances("1")[:1]) == [row.case_id]
    ledger.reopen(row.case_id)
    with pytest.raises(InstanceLostError) as caught:
        ledger.assembled(row.case_id)
    assert caught.value.evidence == {"count": 1}
    del spool


def test_a_case_with_its_result_does_not_need_the_instances_any_more(ledger: Ledger) -> None:
    row = ledgers.advanced(ledger, ledgers.opened(ledger), CaseState.ENCODED)
    assert ledger.lose_instances(ledger.study_instances("1")) == []
    assert ledger.case(row.case_id) == row


def test_a_result_that_is_lost_is_made_anew(spool: Spool, ledger: Ledger) -> None:
    row = ledgers.opened(ledger)
    _lay(spool, ledger)
    ledgers.held(ledger, row)
    assert _kinds(spool, ledger) == [Kind.RESULT]
    failed = ledger.case(row.case_id)
    assert (failed.state, failed.code) == (CaseState.FAILED, "SPOOL_RESULT_LOST")
    assert ledger.reopen(row.case_id).state is CaseState.COMPLETE


def _lay(spool: Spool, ledger: Ledger) -> None:
    """Give the instances of `tests.ledgers` files as long as theirs would be."""
    for one in ledger.instance_files():
        path = spool.instance_path(one.path)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(stored.expected_bytes(one)))


def test_leftovers_go_and_unknown_folders_into_quarantine(spool: Spool, ledger: Ledger) -> None:
    spool.new_part().write_bytes(b"half")
    known = ledgers.opened(ledger).case_id
    _lay(spool, ledger)
    (spool.case_folder(known) / "labels.nii.gz").write_bytes(bytes(100))
    (spool.case_folder("f" * 32) / "labels.nii.gz").write_bytes(b"x")
    assert sorted(_kinds(spool, ledger)) == sorted([Kind.HALF_WRITTEN, Kind.UNKNOWN_CASE])
    assert _quarantined(spool) == {f"cases/{'f' * 32}": "CASE_UNKNOWN"}
    assert ledger.case(known).folder_bytes == 100
    assert _run(spool, ledger) == []


def test_looking_changes_nothing_and_leaves_the_receiver_alone(
    intake: Intake, spool: Spool, ledger: Ledger
) -> None:
    old, fresh = make_instance(), make_instance()
    for one in (old, fresh):
        take_in(intake, one)
    file = _file(old, spool, ledger)
    os.utime(file, (0, 0))
    spool.new_part().write_bytes(b"half")
    _forget(ledger)
    for _ in range(2):
        found = _run(spool, ledger, repairs=False, is_live=True)
        assert [(one.kind, one.path) for one in found] == [
            (Kind.ADOPTED, str(file.relative_to(spool.root)))
        ]
    assert ledger.cases() == []


def test_beside_another_receiver_what_is_fresh_is_left_to_it(
    intake: Intake, spool: Spool, ledger: Ledger
) -> None:
    for _ in range(2):
        take_in(intake, make_instance())
    part = spool.new_part()
    part.write_bytes(b"half")
    _forget(ledger)
    assert _run(spool, ledger, has_company=True) == []
    assert part.exists()
    assert ledger.cases() == []
    assert set(_kinds(spool, ledger)) == {Kind.HALF_WRITTEN, Kind.ADOPTED}


@pytest.mark.parametrize("has_company", [False, True])
def test_another_disk_is_not_taken_for_a_loss(
    spool: Spool, ledger: Ledger, *, has_company: bool
) -> None:
    for number in range(21):
        ledger.record_instance(ledgers.instance(f"1.{number}"), model_id=MODEL)
    with pytest.raises(SpoolAbsentError):
        _run(spool, ledger, has_company=has_company)
    assert len(ledger.study_instances("1")) == 21
    assert set(_kinds(spool, ledger, is_live=True)) == {Kind.ABSENT}  # an operator's word
    assert ledger.study_instances("1") == []


def test_each_kind_is_counted_and_the_first_are_named(
    spool: Spool, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(strict=True)  # to where the test reads it
    for _ in range(25):
        spool.new_part().write_bytes(b"half")
    _run(spool, ledger)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (total,) = [line for line in lines if line["event"] == "spool.reconciled"]
    assert total["path_count"] == 25
    named = [line for line in lines if line["event"] == "spool.found"]
    assert len(named) == 20
    assert all(line["path"].startswith("incoming/") for line in named)


def test_a_purge_that_was_cut_off_is_finished(intake: Intake, spool: Spool, ledger: Ledger) -> None:
    ds = make_instance()
    take_in(intake, ds)
    (case,) = ledger.cases()
    ledger.end_case(case.case_id, ledgers.REJECTED)
    assert ledger.purge(case.case_id)
    assert set(_kinds(spool, ledger)) == {Kind.DOOMED}
    assert list(spool.instance_files()) == []
    assert _run(spool, ledger) == []
    with ledger.engine.connect() as connection:
        assert connection.execute(sa.select(tables.doomed_file)).all() == []
