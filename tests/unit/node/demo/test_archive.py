"""The built-in archive keeps what it is sent and counts it."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.deliver import store_scu
from node.demo.archive import DemoArchive, OrthancArchive, choose_archive
from node.errors import PeerUnavailableError
from tests.scripted_peers import data_set_bytes, dimse_destination, small_object


def test_an_instance_is_found_by_study_and_modality(archive: DemoArchive, tmp_path: Path) -> None:
    seg, file = small_object(tmp_path)
    destination = dimse_destination(archive.port)
    store_scu.send(seg, file, destination, calling_ae_title="NODE", attempt=1)
    (found,) = archive.find(seg.study_instance_uid, "MR")
    assert found.sop_instance_uid == seg.sop_instance_uid
    assert found.sop_class_uid == seg.sop_class_uid
    assert found.series_instance_uid == seg.series_instance_uid
    assert data_set_bytes(found.path) == data_set_bytes(file)
    assert archive.find(seg.study_instance_uid, "SEG") == []
    assert archive.find(seg.series_instance_uid, "MR") == []


def test_the_same_instance_twice_is_one_instance_and_two_arrivals(
    archive: DemoArchive, tmp_path: Path
) -> None:
    seg, file = small_object(tmp_path)
    destination = dimse_destination(archive.port)
    for attempt in (1, 2):
        store_scu.send(seg, file, destination, calling_ae_title="NODE", attempt=attempt)
    assert len(archive.instances()) == 1
    assert archive.arrivals == {seg.sop_instance_uid: 2}
    assert len(list(archive.folder.iterdir())) == 1


def test_what_lies_in_the_folder_is_held_after_a_restart(
    archive: DemoArchive, tmp_path: Path
) -> None:
    seg, file = small_object(tmp_path)
    destination = dimse_destination(archive.port)
    store_scu.send(seg, file, destination, calling_ae_title="NODE", attempt=1)
    archive.stop()
    again = DemoArchive(archive.folder)
    again.start()
    again.stop()
    assert again.instances() == archive.instances()


def test_a_stopped_archive_does_not_answer(archive: DemoArchive) -> None:
    archive.stop()
    with pytest.raises(PeerUnavailableError):
        store_scu.echo(dimse_destination(archive.port), calling_ae_title="NODE")


def test_orthanc_is_chosen_where_it_is_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "Orthanc"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    chosen = choose_archive(tmp_path / "archive")
    assert isinstance(chosen, OrthancArchive)
    with pytest.raises(PeerUnavailableError, match="it did not start"):
        chosen.start()
