"""Receiving into the ledger and closing a case: nothing is lost, nothing doubled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from node import tables
from node.cases import AssembledCase, CaseState, ClosedBy, Ending, ReceivedInstance
from node.errors import CaseUnknownError, InstanceConflictError
from node.ledger import Ledger
from tests.ledgers import (
    DECISION,
    FAILED,
    MODEL,
    REJECTED,
    START,
    advanced,
    assembled,
    closed,
    instance,
    newest,
    opened,
)

pytestmark = pytest.mark.databases


# -- receiving ------------------------------------------------------------------------------------


def test_the_first_instance_opens_a_case(ledger: Ledger) -> None:
    assert ledger.record_instance(instance("1.1.1"), model_id=MODEL)
    (row,) = ledger.cases()
    assert (row.state, row.revision, row.run) == (CaseState.RECEIVING, 1, 1)
    assert row.opened_at == row.last_received_at == START
    assert ledger.study_instances("1") == [instance("1.1.1")]


def test_a_further_instance_touches_the_open_case(ledger: Ledger) -> None:
    row = opened(ledger, "1.1.1", "1.1.2", "1.1.3")
    assert (row.opened_at, row.last_received_at) == (START, START + timedelta(seconds=2))
    assert len(ledger.cases()) == 1


def test_the_same_instance_twice_is_one_instance(ledger: Ledger) -> None:
    before = opened(ledger)
    assert not ledger.record_instance(instance("1.1.1", at=9), model_id=MODEL)
    assert ledger.study_instances("1") == [instance("1.1.1")]
    assert newest(ledger) == before


def test_the_same_uid_with_other_bytes_is_refused_and_changes_nothing(ledger: Ledger) -> None:
    before = opened(ledger)
    with pytest.raises(InstanceConflictError):
        ledger.record_instance(instance("1.1.1", sha256="c" * 64, at=9), model_id=MODEL)
    assert ledger.digest_of("1.1.1") == "a" * 64
    assert newest(ledger) == before


def test_the_same_uid_in_another_study_is_refused_when_its_bytes_differ(ledger: Ledger) -> None:
    opened(ledger)
    with pytest.raises(InstanceConflictError):
        ledger.record_instance(instance("1.1.1", study="2", sha256="c" * 64), model_id=MODEL)
    assert [row.study_instance_uid for row in ledger.cases()] == ["1"]


@pytest.mark.parametrize(
    "state", [CaseState.ASSEMBLED, CaseState.SEGMENTED, CaseState.ENCODED, CaseState.DELIVERED]
)
def test_a_late_instance_opens_the_next_revision_and_leaves_the_closed_case(
    ledger: Ledger, state: CaseState
) -> None:
    before = advanced(ledger, opened(ledger), state)
    ledger.record_instance(instance("1.1.2", at=99), model_id=MODEL)
    row = newest(ledger)
    assert (row.revision, row.state) == (2, CaseState.RECEIVING)
    assert row.case_id != before.case_id
    assert ledger.case(before.case_id) == before


@pytest.mark.parametrize("ending", [REJECTED, FAILED])
def test_a_late_instance_supersedes_a_case_that_was_refused(ledger: Ledger, ending: Ending) -> None:
    before = opened(ledger)
    ledger.end_case(before.case_id, ending)
    ledger.record_instance(instance("1.1.2", at=99), model_id=MODEL)
    assert ledger.case(before.case_id).state is CaseState.SUPERSEDED
    assert (newest(ledger).revision, newest(ledger).state) == (2, CaseState.RECEIVING)


def test_two_models_have_cases_of_their_own(ledger: Ledger) -> None:
    opened(ledger)
    ledger.record_instance(instance("1.1.2"), model_id="other@1")
    assert {(row.model_id, row.revision) for row in ledger.cases()} == {(MODEL, 1), ("other@1", 1)}


def test_four_threads_that_record_at_once_lose_and_double_nothing(ledger: Ledger) -> None:
    studies = ("1", "2", "3")
    wanted = [(f"{study}.{number}", study) for number in range(25) for study in studies]
    start = threading.Barrier(4)

    def record(turn: int) -> int:
        start.wait(10)
        # Each thread sends everything, from another place on, as four impatient senders would.
        order = wanted[turn * 19 :] + wanted[: turn * 19]
        return sum(
            ledger.record_instance(instance(uid, study=study), model_id=MODEL)
            for uid, study in order
        )

    with ThreadPoolExecutor(4) as pool:
        new = list(pool.map(record, range(4)))
    assert sum(new) == len(wanted)
    assert [len(ledger.study_instances(study)) for study in studies] == [25, 25, 25]
    assert sorted((row.study_instance_uid, row.revision) for row in ledger.cases()) == [
        (study, 1) for study in studies
    ]


def test_two_processes_share_a_ledger(ledger: Ledger, database_url: str) -> None:
    opened(ledger)
    other = Ledger(database_url)
    try:
        assert other.record_instance(instance("1.1.2"), model_id=MODEL)
        assert len(ledger.study_instances("1")) == 2
    finally:
        other.close()


def test_a_killed_writer_leaves_whole_transactions(database_url: str) -> None:
    code = """
import sys
from node.ledger import Ledger
from tests import ledgers as t
ledger = Ledger(sys.argv[1])
for number in range(100_000):
    ledger.record_instance(t.instance(f"1.{number}"), model_id=t.MODEL)
    print(number, flush=True)
"""
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(
        [sys.executable, "-c", code, database_url],
        cwd=root,
        stdout=subprocess.PIPE,
        env=environment,
    ) as writer:
        assert writer.stdout is not None
        lines = [int(writer.stdout.readline()) for _ in range(10)]
        os.kill(writer.pid, signal.SIGKILL)
        lines += [int(line) for line in writer.stdout.read().split(b"\n")[:-1]]
    ledger = Ledger(database_url)
    held = {one.sop_instance_uid for one in ledger.study_instances("1")}
    assert {f"1.{number}" for number in lines} <= held
    assert len(held) <= len(lines) + 1
    (row,) = ledger.cases()
    assert row.state is CaseState.RECEIVING
    ledger.close()


# -- closing --------------------------------------------------------------------------------------


def test_closing_records_members_reason_and_decisions(ledger: Ledger) -> None:
    row = opened(ledger, "1.1.1", "1.1.2")
    case = assembled(ledger, row)
    after = closed(ledger, row)
    assert (after.state, after.closed_by) == (CaseState.COMPLETE, ClosedBy.COMPLETE)
    assert (after.reason, after.reference_role) == ("all sequences whole", "flair")
    assert after.closed_at is not None
    assert ledger.assembled(row.case_id) == case
    assert ledger.decisions(row.case_id) == [DECISION]


def test_a_case_is_not_closed_when_more_arrived_than_was_seen(ledger: Ledger) -> None:
    row = opened(ledger, "1.1.1", "1.1.2")
    case = assembled(ledger, row)
    ledger.record_instance(instance("1.1.3"), model_id=MODEL)
    assert not ledger.close_case(case, [DECISION], "whole", seen_instances=2)
    assert newest(ledger).state is CaseState.RECEIVING
    assert ledger.decisions(row.case_id) == []
    with pytest.raises(CaseUnknownError):
        ledger.assembled(row.case_id)


def test_a_case_is_closed_once(ledger: Ledger) -> None:
    row = opened(ledger)
    case = assembled(ledger, row)
    assert ledger.close_case(case, [DECISION], "first", seen_instances=1)
    assert not ledger.close_case(case, [DECISION], "second", seen_instances=1)
    assert ledger.case(row.case_id).reason == "first"


def test_an_instance_that_arrives_while_a_case_closes_is_in_exactly_one_revision(
    ledger: Ledger,
) -> None:
    for number in range(12):
        study = f"9.{number}"
        row = opened(ledger, f"{study}.1", study=study)
        case = assembled(ledger, row)
        late = instance(f"{study}.2", study=study)
        start = threading.Barrier(2)

        def close(case: AssembledCase = case, start: threading.Barrier = start) -> bool:
            start.wait(10)
            return ledger.close_case(case, [DECISION], "whole", seen_instances=1)

        def record(late: ReceivedInstance = late, start: threading.Barrier = start) -> bool:
            start.wait(10)
            return ledger.record_instance(late, model_id=MODEL)

        with ThreadPoolExecutor(2) as pool:
            was_closed, is_new = pool.submit(close), pool.submit(record)
            assert is_new.result()
            assert newest(ledger, study).revision == (2 if was_closed.result() else 1)
            assert newest(ledger, study).state is CaseState.RECEIVING


def test_an_open_case_is_refused_with_its_reason(ledger: Ledger) -> None:
    row = opened(ledger)
    assert ledger.refuse_open_case(row.case_id, REJECTED, [DECISION], seen_instances=1)
    after = ledger.case(row.case_id)
    assert (after.state, after.code) == (CaseState.REJECTED, "GEOM_MISSING_SLICE")
    assert (after.sentence, after.advice) == ("a gap", "Send it.")
    assert after.resume_state is CaseState.RECEIVING
    assert ledger.decisions(row.case_id) == [DECISION]


def test_an_open_case_is_not_refused_when_more_arrived_than_was_seen(ledger: Ledger) -> None:
    row = opened(ledger, "1.1.1", "1.1.2")
    assert not ledger.refuse_open_case(row.case_id, REJECTED, [], seen_instances=1)
    assert ledger.case(row.case_id).state is CaseState.RECEIVING


def test_a_case_that_is_unknown_is_neither_closed_nor_refused(ledger: Ledger) -> None:
    assert not ledger.refuse_open_case("0" * 32, REJECTED, [], seen_instances=0)


@pytest.mark.databases
def test_another_machine_is_company_while_it_beats(ledger: Ledger) -> None:
    def beat(name: str, role: str) -> None:
        ledger.beat(f"{name}/{role}", role=role, host=name, pid=1)

    beat("a", "receive")
    beat("b", "work")
    assert not ledger.has_others("receive", "a")
    beat("b", "receive")
    assert ledger.has_others("receive", "a")
    with ledger.engine.begin() as connection:
        connection.execute(tables.worker.update().values(seen_at=tables.worker.c.seen_at - 61))
    assert not ledger.has_others("receive", "a")
