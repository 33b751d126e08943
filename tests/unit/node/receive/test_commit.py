"""Instances that arrive at the same time share their syncs, and none is answered before them."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from node.cases import ReceivedInstance
from node.errors import InstanceConflictError, LedgerUnavailableError, SpoolUnwritableError
from node.ledger import Ledger
from node.receive import commit
from node.receive.commit import GroupCommit
from node.receive.instance import Intake
from node.spool import Spool
from tests.doors import make_instance, take_in
from tests.ledgers import MODEL, instance
from tests.waiting import wait_until


@pytest.fixture
def group(spool: Spool, ledger: Ledger) -> GroupCommit:
    return GroupCommit(spool, ledger, model_id=MODEL)


def _placed(spool: Spool, uid: str, sha256: str = "a" * 64) -> tuple[ReceivedInstance, Path]:
    """Return a synced file's row to be, and its folder."""
    name = spool.instance_name(study_instance_uid="1", sop_instance_uid=uid, sha256=sha256)
    part = spool.new_part()
    part.write_bytes(b"x")
    folder = spool.keep_instance(part, name)
    return replace(instance(uid, sha256=sha256), path=name), folder


def _all_at_once(
    group: GroupCommit, many: list[tuple[ReceivedInstance, Path]], ledger: Ledger
) -> list[BaseException | None]:
    """Keep the first alone while the ledger is held up, then all others, which have to wait."""

    def keep(one: tuple[ReceivedInstance, Path]) -> None:
        group.keep(*one)

    with ThreadPoolExecutor(len(many)) as pool:
        with ledger.engine.begin():
            first = pool.submit(keep, many[0])
            wait_until(lambda: group._is_busy, 5, "the first to commit")
            rest = [pool.submit(keep, one) for one in many[1:]]
            wait_until(lambda: len(group._queue) == len(rest), 5, "the others to wait")
        return [one.exception(30) for one in (first, *rest)]


def _on_commit(ledger: Ledger, tell: Callable[[str], None]) -> None:
    """Have SQLite itself tell each commit."""

    @sa.event.listens_for(ledger.engine, "connect")
    def _trace(connection: Any, _: object) -> None:  # noqa: ANN401 - the driver's own type
        connection.set_trace_callback(lambda text: tell("commit") if text == "COMMIT" else None)

    ledger.engine.dispose()  # those that are open are not traced


def _count_commits(ledger: Ledger) -> list[str]:
    commits: list[str] = []
    _on_commit(ledger, commits.append)
    return commits


def test_success_comes_after_file_folder_and_row(
    spool: Spool, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    fsync = os.fsync

    def watched(handle: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        path = Path(f"/proc/self/fd/{handle}").readlink()
        happened.append("folder" if is_folder else f"file {path.suffix}")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    _on_commit(ledger, happened.append)
    intake = Intake(spool, ledger, model_id=MODEL, limit_bytes=2**20)
    take_in(intake, make_instance())
    happened.append("answer")
    # The folder's own name first; reading connections commit, too, but nothing after the rows.
    assert [one for one in happened if one != "commit"] == [
        "folder",
        "file .dcm",
        "folder",
        "answer",
    ]
    assert happened[-2:] == ["commit", "answer"]
    with ledger.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL


def test_those_that_wait_share_one_transaction(
    group: GroupCommit, spool: Spool, ledger: Ledger
) -> None:
    many = [_placed(spool, f"1.{number}") for number in range(6)]
    commits = _count_commits(ledger)
    assert _all_at_once(group, many, ledger) == [None] * 6
    assert len(commits) == 3  # that which held it up, the first, the rest
    assert len(ledger.study_instances("1")) == 6


def test_a_conflict_in_a_group_is_its_own_affair(
    group: GroupCommit, spool: Spool, ledger: Ledger
) -> None:
    many = [
        _placed(spool, "1.0"),
        _placed(spool, "1.1"),
        _placed(spool, "1.1", sha256="b" * 64),
        _placed(spool, "1.0"),
        _placed(spool, "1.2"),
    ]
    kinds = [type(one) for one in _all_at_once(group, many, ledger)]
    assert sorted(kind.__name__ for kind in kinds) == [
        *("InstanceConflictError", "NoneType", "NoneType", "NoneType", "NoneType")
    ]
    assert kinds[0] is kinds[3] is kinds[4] is type(None)
    rows = {one.path for one in ledger.study_instances("1")}
    assert {path for path, _ in spool.instance_files()} == rows
    assert len(rows) == 3


def test_a_group_that_the_ledger_refuses_leaves_nothing(
    group: GroupCommit, spool: Spool, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [_placed(spool, f"1.{number}") for number in range(4)]
    _refuse_all_but_first(ledger, monkeypatch)
    errors = _all_at_once(group, many, ledger)
    assert [type(one) for one in errors] == [type(None), *[LedgerUnavailableError] * 3]
    assert [path for path, _ in spool.instance_files()] == [many[0][0].path]


def _refuse_all_but_first(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    record: Callable[..., object] = ledger.record_instances
    calls: list[int] = []

    def refusing(*arguments: object, **named: object) -> object:
        calls.append(1)
        if len(calls) > 1:
            raise sa.exc.OperationalError("INSERT", {}, OSError("database or disk is full"))
        return record(*arguments, **named)

    monkeypatch.setattr(ledger, "record_instances", refusing)


def test_a_folder_that_cannot_be_synced_is_no_success(
    group: GroupCommit, spool: Spool, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: Path) -> None:
        raise OSError(5, "Input/output error")

    one = _placed(spool, "1.1")
    monkeypatch.setattr(commit, "sync_folder", failing)
    with pytest.raises(SpoolUnwritableError):
        group.keep(*one)
    assert ledger.cases() == []
    assert list(spool.instance_files()) == []


def test_who_waits_too_long_withdraws_and_leaves_nothing(
    group: GroupCommit, spool: Spool, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = _placed(spool, "1.1"), _placed(spool, "1.2")
    with ledger.engine.begin():
        thread = threading.Thread(target=group.keep, args=first)
        thread.start()
        wait_until(lambda: group._is_busy, 5, "the first to commit")
        monkeypatch.setattr(commit, "_TURN_S", 0.05)
        with pytest.raises(LedgerUnavailableError, match="busy"):
            group.keep(*second)
    thread.join(30)
    assert [path for path, _ in spool.instance_files()] == [first[0].path]
    with pytest.raises(InstanceConflictError):
        group.keep(*_placed(spool, "1.1", sha256="c" * 64))


def test_a_file_that_a_check_of_the_spool_has_taken_in_meanwhile_is_kept(
    group: GroupCommit, spool: Spool, ledger: Ledger
) -> None:
    """A clock that is set forwards makes a fresh file look like one without a row."""
    one, folder = _placed(spool, "1.1")
    assert ledger.record_instance(one, model_id=MODEL)
    group.keep(one, folder)
    assert spool.instance_path(one.path).is_file()
    again, folder = _placed(spool, "1.1")
    group.keep(again, folder)
    assert not spool.instance_path(again.path).exists()
