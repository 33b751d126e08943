"""A copy that was taken while a node was at work is a spool that a node can go on from."""

from __future__ import annotations

from pathlib import Path

import pytest

from node import backup as backups
from node.backup import backup
from node.errors import BackupTargetError
from node.ledger import Ledger
from node.receive.instance import Intake
from node.receive.reconcile import Kind, Reconciliation
from node.spool import Spool
from tests.doors import make_instance, take_in
from tests.ledgers import MODEL


def _node(folder: Path) -> tuple[Spool, Ledger, Intake]:
    spool = Spool(folder)
    ledger = Ledger(f"sqlite:///{folder / 'ledger.sqlite'}")
    return spool, ledger, Intake(spool, ledger, model_id=MODEL, limit_bytes=2**20)


def _findings(folder: Path) -> list[Kind]:
    spool, ledger, _ = _node(folder)
    found = Reconciliation(spool, ledger, model_id=MODEL, limit_bytes=2**20).run()
    ledger.close()
    return [one.kind for one in found]


def test_the_copy_holds_everything_and_fits(tmp_path: Path) -> None:
    spool, ledger, intake = _node(tmp_path / "spool")
    images = [make_instance() for _ in range(3)]
    for one in images:
        take_in(intake, one)
    (spool.root / "audit.jsonl").write_text("{}\n")
    assert backup(tmp_path / "spool", tmp_path / "copy") == 4
    ledger.close()
    assert _findings(tmp_path / "copy") == []
    copied, again, _ = _node(tmp_path / "copy")
    for one in images:
        (row,) = again.study_instances(one.StudyInstanceUID)
        assert copied.instance_path(row.path).read_bytes() == (spool.root / row.path).read_bytes()
    assert (copied.root / "audit.jsonl").read_text() == "{}\n"
    again.close()


def test_what_comes_in_meanwhile_is_taken_in_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ledger, intake = _node(tmp_path / "spool")
    take_in(intake, make_instance())
    files = backups._files

    def _late(spool: Path) -> list[Path]:
        take_in(intake, make_instance())  # after the ledger was copied
        return list(files(spool))

    monkeypatch.setattr(backups, "_files", _late)
    assert backup(tmp_path / "spool", tmp_path / "copy") == 2
    ledger.close()
    assert _findings(tmp_path / "copy") == [Kind.ADOPTED]
    assert _findings(tmp_path / "copy") == []


def test_what_is_purged_meanwhile_is_said_to_be_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, ledger, intake = _node(tmp_path / "spool")
    images = [make_instance() for _ in range(2)]
    for one in images:
        take_in(intake, one)
    files = backups._files

    def _fewer(root: Path) -> list[Path]:
        found = list(files(root))
        (row,) = ledger.study_instances(images[0].StudyInstanceUID)
        spool.instance_path(row.path).unlink()
        return found

    monkeypatch.setattr(backups, "_files", _fewer)
    assert backup(tmp_path / "spool", tmp_path / "copy") == 1
    ledger.close()
    assert _findings(tmp_path / "copy") == [Kind.ABSENT]


def test_half_written_files_stay_behind(tmp_path: Path) -> None:
    spool, ledger, _ = _node(tmp_path / "spool")
    (spool.case_folder("a" * 32) / ".seg.part").write_bytes(b"half")
    spool.new_part().write_bytes(b"half")
    assert backup(spool.root, tmp_path / "copy") == 0
    ledger.close()


def test_a_backup_that_was_broken_off_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ledger, intake = _node(tmp_path / "spool")
    take_in(intake, make_instance())

    def _full(*_: object) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backups, "_copied", _full)
    with pytest.raises(OSError, match="No space"):
        backup(tmp_path / "spool", tmp_path / "copy")
    assert not (tmp_path / "copy" / "ledger.sqlite").exists()
    ledger.close()


@pytest.mark.parametrize("what", ["full", "file", "no ledger"])
def test_a_target_that_cannot_be_one_is_refused(tmp_path: Path, what: str) -> None:
    spool, target = tmp_path / "spool", tmp_path / "copy"
    if what != "no ledger":
        _node(spool)[1].close()
    if what == "full":
        target.mkdir()
        (target / "mine").touch()
    if what == "file":
        target.touch()
    with pytest.raises(BackupTargetError) as raised:
        backup(spool, target)
    assert raised.value.code == "BACKUP_TARGET"
