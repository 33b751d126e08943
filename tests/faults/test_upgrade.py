"""A new version takes over what an older one has under way; the backup is the way back.

The steps are those of docs/operate.md, *Upgrade*. No older program is at hand: its ledger is made
of today's rows in the tables that it wrote (`tests/schemas`).
"""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from node import tables
from node.demo.archive import DemoArchive
from tests.faults.audit import asked
from tests.faults.storm import NODE
from tests.nodes import PLAIN, ROOT, RunningNode, destination, push
from tests.small_studies import SmallStudies
from tests.waiting import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

_DUMPS = sorted((ROOT / "tests" / "schemas").glob("*.sql"))
_NEWER = tables.SCHEMA_VERSION + 1


def _asked(spool: Path, query: str) -> list[Any]:
    with suppress(sqlite3.Error):
        return [found for (found,) in asked(spool, query)]
    return []  # it is not there yet


def _version(spool: Path) -> int:
    (found,) = _asked(spool, "SELECT schema_version FROM ledger_meta")
    return int(found)


def _write_as(dump: Path, ledger: Path) -> None:
    """Replace a ledger by one with the same rows as a program of an older schema writes it."""
    newer = ledger.rename(ledger.with_name("newer"))
    for rest in ("-wal", "-shm"):
        ledger.with_name(f"{ledger.name}{rest}").unlink(missing_ok=True)
    with closing(sqlite3.connect(ledger)) as connection:
        connection.executescript(dump.read_text(encoding="utf-8"))
        connection.execute("ATTACH DATABASE ? AS newer", [str(newer)])
        names = connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")
        for (name,) in names.fetchall():
            if name == "ledger_meta":
                continue
            columns = ", ".join(row[1] for row in connection.execute(f"PRAGMA table_info({name})"))
            connection.execute(f"DELETE FROM main.{name}")
            connection.execute(
                f"INSERT INTO main.{name} ({columns}) SELECT {columns} FROM newer.{name}"
            )
        connection.commit()
    newer.unlink()


@pytest.fixture
def node(tmp_path: Path, archive: DemoArchive, model: Path) -> Callable[..., RunningNode]:
    (tmp_path / "nothing").write_text("{}", encoding="utf-8")

    def _node(role: str = "") -> RunningNode:
        return RunningNode(
            tmp_path / "node",
            [destination("archive", port=archive.port)],
            entry=NODE,
            environment={
                "NEUROSEG_MODEL__FOLDER": str(model),
                "CRASH_PLAN": str(tmp_path / "no-plan"),
                "POISON_PLAN": str(tmp_path / "nothing"),
            },
            options={"align": 'registration = "off"', "assemble": "quiet_s = 60.0"},
            is_warm=True,
            role=role,
        )

    return _node


@pytest.mark.parametrize("dump", _DUMPS, ids=lambda one: one.stem)
def test_studies_under_way_are_finished_by_the_new_version_and_from_the_backup(
    tmp_path: Path,
    archive: DemoArchive,
    studies: SmallStudies,
    node: Callable[..., RunningNode],
    dump: Path,
) -> None:
    whole, half = (studies.written(number, tmp_path / str(number)) for number in (1, 2))
    old, copy = node("receive"), tmp_path / "copy"
    with old, old.beside("work", {}):  # nobody infers: the first study stops in mid pipeline
        wait_until(
            lambda: len(_asked(old.spool, "SELECT role FROM worker")) == 2, 90.0, "both roles"
        )
        assert set(push(half[:9], old.dicom_port)) == set(push(whole, old.dicom_port)) == {0}
        states = "SELECT state FROM imaging_case ORDER BY state"
        under_way = ["assembled", "receiving"]
        wait_until(lambda: _asked(old.spool, states) == under_way, 90.0, "both to be there")
    _write_as(dump, old.spool / "ledger.sqlite")
    command = [*PLAIN, "spool", "--config", str(old.config), "backup", str(copy)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)

    with node() as new:
        new.wait_ready()
        assert set(push(half[9:], new.dicom_port)) == {0}
        new.wait_states("delivered", 2)
    assert _version(new.spool) == tables.SCHEMA_VERSION
    results = {one.sop_instance_uid for one in archive.instances()}
    assert len(results) == 4  # SEG and report of each

    assert _version(copy) == int(dump.stem)  # what the old program can go on with
    new.spool.rename(tmp_path / "upgraded")
    copy.rename(new.spool)
    with node() as back:
        back.wait_ready()
        assert set(push(half, back.dicom_port)) == {0}  # what came after the backup is sent again
        back.wait_states("delivered", 2)
    assert {one.sop_instance_uid for one in archive.instances()} == results


def test_an_older_program_refuses_a_newer_ledger_and_says_so(
    node: Callable[..., RunningNode],
) -> None:
    newer = node("receive")
    newer.spool.mkdir(parents=True)
    with closing(sqlite3.connect(newer.spool / "ledger.sqlite")) as connection:
        connection.execute("CREATE TABLE ledger_meta (schema_version INTEGER NOT NULL)")
        connection.execute("INSERT INTO ledger_meta VALUES (?)", [_NEWER])
        connection.commit()
    command = [*PLAIN, "serve", "--role", "receive", "--config", str(newer.config)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "LEDGER_SCHEMA" in said
    assert f"version {_NEWER}, this program needs version {tables.SCHEMA_VERSION}" in said
    assert _version(newer.spool) == _NEWER
