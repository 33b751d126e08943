"""A ledger of every version that was released becomes one of this version, whole or not at all."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from node import schema, tables
from node.ledger import Ledger
from tests.ledgers import MODEL, instance

_DUMPS = sorted((Path(__file__).parents[2] / "schemas").glob("*.sql"))


def _written(dump: Path, folder: Path) -> Path:
    file = folder / "ledger.sqlite"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(dump.read_text(encoding="utf-8"))
    return file


def _rows(file: Path) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(file)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {
            name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall())
            for (name,) in names.fetchall()
        }


def test_there_is_a_ledger_of_every_version_and_a_step_to_this_one() -> None:
    versions = [int(one.stem) for one in _DUMPS]
    assert versions == list(range(schema.OLDEST, tables.SCHEMA_VERSION))
    config = Config()
    config.set_main_option("script_location", "node:schema")
    assert ScriptDirectory.from_config(config).get_heads() == [f"{tables.SCHEMA_VERSION:04d}"]


@pytest.mark.parametrize("dump", _DUMPS, ids=lambda one: one.stem)
def test_an_older_ledger_is_brought_forward_with_what_it_holds(dump: Path, tmp_path: Path) -> None:
    file = _written(dump, tmp_path)
    before = _rows(file)
    ledger = Ledger(f"sqlite:///{file}")
    with ledger.engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, tables.metadata) == []
    for name, rows in before.items():
        if name != "ledger_meta":
            after = _rows(file)[name]
            assert [row[: len(rows[0])] for row in after] == rows, name
    (case,) = ledger.cases()
    assert len(ledger.study_instances(case.study_instance_uid)) == 3
    assert ledger.record_instance(instance("1.2.99"), model_id=MODEL)  # it goes on
    ledger.close()
    Ledger(f"sqlite:///{file}").close()  # and opens again


def test_a_new_ledger_is_the_same_as_one_that_was_brought_forward(tmp_path: Path) -> None:
    old = _written(_DUMPS[0], tmp_path)
    for file in (old, tmp_path / "new.sqlite"):
        Ledger(f"sqlite:///{file}").close()
    shown = []
    for file in (old, tmp_path / "new.sqlite"):
        with closing(sqlite3.connect(file)) as connection:
            columns = {
                (table, row[1], row[2], row[3], row[5])
                for (table,) in connection.execute("SELECT name FROM sqlite_master").fetchall()
                for row in connection.execute(f"PRAGMA table_info({table})")
            }
            versions = connection.execute(
                "SELECT version_num, schema_version FROM alembic_version, ledger_meta"
            ).fetchall()
        shown.append((columns, versions))
    assert shown[0] == shown[1]


def test_a_step_that_fails_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _written(_DUMPS[0], tmp_path)
    before = _rows(file)

    def _half(connection: Any, found: int, wanted: int) -> None:  # noqa: ANN401
        del found, wanted
        connection.exec_driver_sql("ALTER TABLE instance ADD COLUMN half INTEGER")
        connection.exec_driver_sql("UPDATE ledger_meta SET schema_version = 99")
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(schema, "upgrade", _half)
        with pytest.raises(RuntimeError):
            Ledger(f"sqlite:///{file}")
    assert _rows(file) == before
    Ledger(f"sqlite:///{file}").close()
