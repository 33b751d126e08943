"""Results in a folder: whole or not there, never replaced, never where no folder is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from node.cases import EncodedObject, Transport
from node.deliver import results_folder, routes
from node.errors import FolderUnavailableError
from node.peers import Destination
from tests.full_disks import largest_file_bytes
from tests.scripted_peers import small_object


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "share"
    path.mkdir()
    return path


@pytest.fixture
def result(tmp_path: Path) -> tuple[EncodedObject, list[Path]]:
    """Return a SEG and its file, with a file that goes with it."""
    folder = tmp_path / "case"
    folder.mkdir()
    seg, file = small_object(folder)
    (folder / "labels.nii.gz").write_bytes(b"labels")
    return seg, [file, folder / "labels.nii.gz"]


def to(path: Path) -> Destination:
    return Destination(name="share", transport=Transport.FOLDER, path=str(path))


def deliver(result: tuple[EncodedObject, list[Path]], path: Path) -> str:
    seg, files = result
    routes.prepare([seg], files, to(path))
    receipt = routes.send(seg, files[0], to(path), calling_ae_title="NODE", attempt=2)
    assert (receipt.transport, receipt.attempt) == (Transport.FOLDER, 2)
    assert (receipt.case_id, receipt.sop_instance_uid) == (seg.case_id, seg.sop_instance_uid)
    return receipt.status_code


def test_a_case_becomes_a_folder_of_its_files(
    result: tuple[EncodedObject, list[Path]], target: Path
) -> None:
    assert deliver(result, target) == "stored"
    seg, files = result
    assert [one.name for one in target.iterdir()] == [seg.case_id]
    for one in files:
        assert (target / seg.case_id / one.name).read_bytes() == one.read_bytes()
    assert len(list((target / seg.case_id).iterdir())) == len(files)


def test_a_repeat_replaces_nothing_and_is_a_receipt(
    result: tuple[EncodedObject, list[Path]], target: Path
) -> None:
    deliver(result, target)
    (folder,) = target.iterdir()
    (folder / "labels.nii.gz").write_bytes(b"a reader's own")
    before = {one: one.stat().st_mtime_ns for one in folder.iterdir()}
    assert deliver(result, target) == "stored"
    assert {one: one.stat().st_mtime_ns for one in folder.iterdir()} == before


def test_what_was_not_wanted_before_is_added(
    result: tuple[EncodedObject, list[Path]], target: Path
) -> None:
    seg, files = result
    results_folder.place([seg], files[1:], to(target))
    deliver(result, target)
    assert {one.name for one in (target / seg.case_id).iterdir()} == {one.name for one in files}


def test_a_folder_that_is_not_there_is_not_made(
    result: tuple[EncodedObject, list[Path]], target: Path
) -> None:
    target.rmdir()
    with pytest.raises(FolderUnavailableError, match="no such folder"):
        deliver(result, target)
    with pytest.raises(FolderUnavailableError):
        routes.echo(to(target), calling_ae_title="NODE")
    assert not target.exists()


def test_nothing_is_visible_of_what_did_not_fit_and_a_retry_brings_it(
    result: tuple[EncodedObject, list[Path]], target: Path
) -> None:
    with largest_file_bytes(1000), pytest.raises(FolderUnavailableError):
        deliver(result, target)
    assert list(target.iterdir()) == []
    assert deliver(result, target) == "stored"


def test_nothing_is_visible_of_an_addition_that_did_not_fit(
    result: tuple[EncodedObject, list[Path]], target: Path
) -> None:
    seg, files = result
    results_folder.place([seg], files[1:], to(target))
    with largest_file_bytes(1000), pytest.raises(FolderUnavailableError):
        deliver(result, target)
    assert [one.name for one in (target / seg.case_id).iterdir()] == [files[1].name]


def test_what_a_dead_process_left_is_deleted(
    result: tuple[EncodedObject, list[Path]], target: Path
) -> None:
    seg, _ = result
    left = target / f".{seg.case_id}-abc.part"
    left.mkdir()
    (left / "seg.dcm").write_bytes(b"half")
    other = target / ".another-abc.part"
    other.mkdir()
    deliver(result, target)
    assert {one.name for one in target.iterdir()} == {seg.case_id, other.name}


def test_what_is_not_there_or_not_whole_is_no_receipt(
    result: tuple[EncodedObject, list[Path]], target: Path
) -> None:
    seg, files = result
    with pytest.raises(FolderUnavailableError, match="no such file"):
        routes.send(seg, files[0], to(target), calling_ae_title="NODE", attempt=1)
    deliver(result, target)
    longer = replace(seg, byte_count=seg.byte_count + 1)
    with pytest.raises(FolderUnavailableError, match="not whole"):
        routes.send(longer, files[0], to(target), calling_ae_title="NODE", attempt=1)


def test_trying_a_folder_leaves_nothing_there(target: Path) -> None:
    routes.echo(to(target), calling_ae_title="NODE")
    assert list(target.iterdir()) == []


def test_a_file_in_its_place_is_no_folder(
    result: tuple[EncodedObject, list[Path]], target: Path
) -> None:
    seg, _ = result
    (target / seg.case_id).write_bytes(b"")
    with pytest.raises(FolderUnavailableError) as caught:
        deliver(result, target)
    assert str(target) not in str(caught.value)
