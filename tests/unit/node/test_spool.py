"""Files appear whole or not at all, under names of our own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from node.errors import SpoolFullError, SpoolQuotaError
from node.spool import STOWED, Spool
from tests.waiting import wait_until

HOSTILE = ["../../etc/passwd", "/etc/passwd", "a/b", "1.2\0.3", "\udcff\udce4", ".", "x" * 500]
DIGEST = "5" * 64


def _files(spool: Spool) -> set[str]:
    return {str(path.relative_to(spool.root)) for path in spool.root.rglob("*") if path.is_file()}


def _kept(spool: Spool, study: str, instance: str, sha256: str = DIGEST) -> str:
    part = spool.new_part()
    part.write_bytes(sha256.encode())
    name = spool.instance_name(study_instance_uid=study, sop_instance_uid=instance, sha256=sha256)
    spool.keep_instance(part, name)
    return name


def test_a_kept_instance_lies_where_the_relative_path_says(spool: Spool) -> None:
    relative = _kept(spool, "1.2", "1.2.3")
    assert spool.instance_path(relative).read_bytes() == DIGEST.encode()
    assert _files(spool) == {relative}


@pytest.mark.parametrize("uid", HOSTILE)
def test_no_name_comes_from_a_peer(spool: Spool, uid: str) -> None:
    relative = _kept(spool, uid, uid)
    assert re.fullmatch(r"instances/[0-9a-f]{16}/[0-9a-f]{32}-5{16}-[0-9a-f]{8}\.dcm", relative)
    assert _files(spool) == {relative}


def test_no_name_is_used_twice(spool: Spool) -> None:
    first, second = _kept(spool, "1", "2"), _kept(spool, "1", "2")
    assert first != second
    assert _files(spool) == {first, second}


def test_instances_of_one_study_can_be_kept_at_the_same_time(spool: Spool) -> None:
    with ThreadPoolExecutor(4) as pool:
        kept = list(pool.map(lambda number: _kept(spool, "1", f"1.{number}"), range(60)))
    assert _files(spool) == set(kept)
    assert len(set(kept)) == 60


def test_a_sweep_removes_parts_and_nothing_else(spool: Spool) -> None:
    relative = _kept(spool, "1", "2")
    fresh, old = (spool.case_folder("c" * 32) / f".{name}.part.nii" for name in "ab")
    for part in (spool.new_part(), spool.new_part(), fresh, old):
        part.write_bytes(b"half")
    os.utime(old, (0, 0))
    for part in spool.parts():
        part.unlink()
    assert _files(spool) == {relative, str(fresh.relative_to(spool.root))}


def test_each_door_sweeps_its_own_temporary_files(spool: Spool) -> None:
    received, stowed = spool.new_part(), spool.new_part(STOWED)
    for part in (received, stowed):
        part.write_bytes(b"half")
    assert spool.parts() == [received]  # by STOW-RS another process may be writing
    os.utime(stowed, (0, 0))
    assert set(spool.parts()) == {received, stowed}
    spool.sweep_stowed()
    assert spool.parts() == [received]


def test_the_free_space_floor_refuses_below_and_allows_above(tmp_path: Path) -> None:
    Spool(tmp_path, free_floor_bytes=1).check_space()
    with pytest.raises(SpoolFullError) as caught:
        Spool(tmp_path, free_floor_bytes=2**62).check_space()
    assert caught.value.evidence["floor_bytes"] == 2**62


def test_above_the_quota_nothing_is_let_in(tmp_path: Path) -> None:
    spool = Spool(tmp_path, quota_bytes=100)
    spool.used_bytes = lambda: 99
    spool.check_space()
    assert not spool.has_space(1)
    with pytest.raises(SpoolQuotaError) as caught:
        spool.check_space(1)
    assert caught.value.evidence == {"used_bytes": 100, "quota_bytes": 100}


def test_what_is_quarantined_has_its_reason_beside_it(spool: Spool) -> None:
    relative = _kept(spool, "1", "2")
    spool.quarantine(relative, code="INSTANCE_UNREADABLE", reason="torn")
    note, file = sorted((spool.root / "quarantine").iterdir(), key=lambda one: one.suffix == ".dcm")
    assert file.read_bytes() == DIGEST.encode()
    content = json.loads(note.read_text())
    assert (content["path"], content["reason"]) == (relative, "torn")
    assert note.name == f"{file.name}.json"


def test_deleting_is_idempotent_and_spares_the_neighbours(spool: Spool) -> None:
    gone, stays = _kept(spool, "1", "2"), _kept(spool, "1", "3")
    (spool.case_folder("c" * 32) / "seg.dcm").write_bytes(b"x")
    for _ in range(2):
        spool.delete([gone, "cases/" + "c" * 32])
    assert _files(spool) == {stays}
    spool.delete([stays])
    assert list((spool.root / "instances").iterdir()) == []
    again = _kept(spool, "1", "4")
    assert _files(spool) == {again}


def test_a_published_file_is_whole_and_alone(spool: Spool) -> None:
    final = spool.case_folder("c" * 32) / "labels.nii.gz"
    names: list[str] = []

    def write(part: Path) -> None:
        names.append(part.name)
        part.write_bytes(b"labels")

    spool.publish(final, write)
    assert final.read_bytes() == b"labels"
    assert [path.name for path in final.parent.iterdir()] == ["labels.nii.gz"]
    assert names[0].endswith(".nii.gz")


def test_a_failing_writer_leaves_what_was_there(spool: Spool) -> None:
    final = spool.case_folder("c" * 32) / "seg.dcm"
    spool.publish(final, lambda part: part.write_bytes(b"first"))

    def write(part: Path) -> None:
        part.write_bytes(b"sec")
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        spool.publish(final, write)
    assert final.read_bytes() == b"first"
    assert [path.name for path in final.parent.iterdir()] == ["seg.dcm"]


def test_a_killed_writer_leaves_no_file_under_the_final_name(spool: Spool) -> None:
    folder = spool.case_folder("d" * 32)
    code = """
import os, pathlib, sys, time
from node.spool import STOWED, Spool
def write(part):
    part.write_bytes(b"half")
    time.sleep(60)
Spool(pathlib.Path(sys.argv[1])).publish(pathlib.Path(sys.argv[2]), write)
"""
    arguments = [sys.executable, "-c", code, str(spool.root), str(folder / "seg.dcm")]
    with subprocess.Popen(arguments, cwd=Path(__file__).parents[3]) as writer:
        wait_until(lambda: list(folder.glob(".*.part*")), 20, "the writer to be in the middle")
        spool.sweep_case("d" * 32)
        assert list(folder.iterdir()), "half a file of one that lives is left to it"
        os.kill(writer.pid, signal.SIGKILL)
    assert not (folder / "seg.dcm").exists()
    spool.sweep_case("d" * 32)
    assert list(folder.iterdir()) == []


def test_readers_never_see_half_a_file(spool: Spool) -> None:
    final = spool.case_folder("e" * 32) / "labels.bin"
    contents = [bytes([number]) * 100_000 for number in range(20)]
    spool.publish(final, lambda part: part.write_bytes(contents[0]))

    def rewrite() -> None:
        for content in contents:
            spool.publish(final, partial(Path.write_bytes, data=content))

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(rewrite)
        seen = [final.read_bytes()]
        while not writing.done():
            seen.append(final.read_bytes())
        writing.result()
    assert {len(set(content)) for content in seen} == {1}
    assert {len(content) for content in seen} == {100_000}
    assert final.read_bytes() == contents[-1]


def test_a_case_folder_that_was_removed_is_made_again(spool: Spool) -> None:
    folder = spool.case_folder("f" * 32)
    folder.rmdir()
    assert spool.case_folder("f" * 32).is_dir()
