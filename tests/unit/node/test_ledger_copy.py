"""A ledger in SQLite becomes one in PostgreSQL, whole, and a node goes on with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from node import database, ledger_copy, tables
from node.cases import CaseState, Stage
from node.errors import LedgerBusyError, LedgerOccupiedError
from node.ledger import Ledger
from tests.ledgers import MODEL, instance, opened

pytestmark = pytest.mark.databases


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{tmp_path}/source.sqlite")
    row = opened(ledger)
    for number in range(5):
        ledger.record_instance(instance(f"1.9.{number}", study="1.9"), model_id=MODEL)
    ledger.end_attempt(ledger.begin_attempt(row.case_id, Stage.CONVERT), outcome="done")
    yield ledger
    ledger.close()


def _counts(ledger: Ledger) -> dict[str, int]:
    with database.reading(ledger.engine) as connection:
        return {
            table.name: connection.execute(
                sa.select(sa.func.count()).select_from(table)
            ).scalar_one()
            for table in tables.metadata.sorted_tables
        }


def test_every_row_is_there_and_the_new_ledger_goes_on(source: Ledger, ledger: Ledger) -> None:
    expected = _counts(source)
    told: dict[str, int] = {}
    total = ledger_copy.copy(source.engine, ledger.engine, patience_s=1.0, told=told.__setitem__)
    assert _counts(ledger) == expected
    assert total == sum(told.values())
    assert {one.case_id: one for one in ledger.cases()} == {
        one.case_id: one for one in source.cases()
    }
    (row,) = ledger.cases_of_study("1.9")
    assert ledger.study_instances("1.9") == source.study_instances("1.9")
    known = {one.attempt_id for case in ledger.cases() for one in ledger.attempts(case.case_id)}
    assert ledger.begin_attempt(row.case_id, Stage.CONVERT) not in known
    assert not ledger.record_instance(instance("1.9.0", study="1.9"), model_id=MODEL)
    assert ledger.record_instance(instance("1.9.9", study="1.9"), model_id=MODEL)
    assert ledger.case(row.case_id).state is CaseState.RECEIVING


def test_a_ledger_that_is_worked_with_is_not_copied(source: Ledger, ledger: Ledger) -> None:
    source.beat("node-1/work", role="work", host="here", pid=1, detail={})
    with pytest.raises(LedgerBusyError, match="work"):
        ledger_copy.copy(source.engine, ledger.engine, patience_s=60.0)
    assert not ledger.cases()


def test_nothing_is_written_over(source: Ledger, ledger: Ledger) -> None:
    opened(ledger)
    before = _counts(ledger)
    with pytest.raises(LedgerOccupiedError):
        ledger_copy.copy(source.engine, ledger.engine, patience_s=1.0)
    assert _counts(ledger) == before


def test_a_copy_that_breaks_off_leaves_an_empty_ledger(source: Ledger, ledger: Ledger) -> None:
    def _break(table: str, count: int) -> None:
        if count:
            raise RuntimeError(table)

    with pytest.raises(RuntimeError):
        ledger_copy.copy(source.engine, ledger.engine, patience_s=1.0, told=_break)
    assert not ledger.cases()
    assert ledger_copy.copy(source.engine, ledger.engine, patience_s=1.0)
