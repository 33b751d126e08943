"""No clock that somebody sets tells how long anything has lasted."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import node
from node.arrivals import Arrivals
from node.clocks import SteadyClock
from node.ledger import Ledger
from node.rows import CaseRow
from tests import ledgers

START = datetime(2025, 1, 15, 10, 0, tzinfo=UTC)
STEPS_S = [-86400.0 * 365, -7200.0, -5.0, 5.0, 7200.0, 86400.0 * 365]
_NODE = Path(str(node.__file__)).parent
_STAMPS = {  # what writes moments down; none of them compares one with the present
    "clocks.py",
    "commitments.py",
    "filing.py",
    "ledger.py",
    "moving.py",
    "steering.py",
}
_COMPARES = {
    "jobs.py",  # the engine's own delays are moments: see `wake_overslept`
    "spool.py",  # ages of files, which have only stamps: too old, and the commit sees to it
}


def _calls(path: Path) -> Iterator[str]:
    for one in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(one, ast.Call):
            yield ast.unparse(one)


def test_every_moment_is_utc_and_few_files_ask_the_wall_clock_for_seconds() -> None:
    asking = set()
    for path in sorted(_NODE.rglob("*.py")):
        calls = set(_calls(path))
        naive = {"datetime.now()", "datetime.utcnow()", "time.localtime()", "date.today()"}
        assert not calls & naive, path
        if "time.time()" in calls:
            asking.add(path.name)
    assert asking == (_STAMPS | _COMPARES) - {"clocks.py"}


def test_a_steady_clock_begins_with_the_wall_clock_and_then_only_runs() -> None:
    wall, elapsed = [START], [100.0]
    clock = SteadyClock(lambda: wall[0], lambda: elapsed[0])
    assert clock() == START
    wall[0] += timedelta(days=400)
    elapsed[0] += 2.5
    assert clock() == START + timedelta(seconds=2.5)
    assert clock.timestamp() == START.timestamp() + 2.5


class _Watch:
    """An open case as looks find it, a second apart; stamps are those of another clock."""

    def __init__(self, ledger: Ledger) -> None:
        self.now = START
        self.row = ledgers.opened(ledger)
        self.arrivals = Arrivals(lambda: self.now)

    def look(
        self, *, received: datetime | None = None, released: datetime | None = None
    ) -> CaseRow:
        """Return what a look finds, an instance having come with that stamp."""
        self.now += timedelta(seconds=1)
        if received is not None:
            self.row = replace(self.row, last_received_at=received)
        if released is not None:
            self.row = replace(self.row, released_at=released)
        self.arrivals.begin_look()
        return self.arrivals.told_steadily(self.row)

    def silence_s(self, row: CaseRow) -> float:
        return (self.now - row.last_received_at).total_seconds()


def test_with_a_clock_that_nobody_sets_silence_is_exact(ledger: Ledger) -> None:
    watch = _Watch(ledger)
    for _ in range(3):
        watch.look()
    row = watch.look(received=watch.now + timedelta(seconds=0.75))
    assert watch.silence_s(row) == 0.25
    assert watch.silence_s(watch.look()) == 1.25


@pytest.mark.parametrize("step_s", STEPS_S)
def test_a_clock_that_was_set_makes_silence_never_longer_and_shorter_by_one_look_at_most(
    ledger: Ledger, step_s: float
) -> None:
    watch = _Watch(ledger)
    opened = watch.look().opened_at
    for _ in range(20):  # a transfer goes on, stamped by the clock that was set
        stamp = watch.now + timedelta(seconds=step_s + 0.5)
        assert watch.silence_s(watch.look(received=stamp)) == 0.0
    silences = [watch.silence_s(watch.look()) for _ in range(3)]
    assert silences == [1.0, 2.0, 3.0]
    assert watch.look().opened_at == opened


@pytest.mark.parametrize("step_s", STEPS_S)
def test_a_process_that_begins_takes_no_old_stamp_for_silence(
    ledger: Ledger, step_s: float
) -> None:
    watch = _Watch(ledger)
    watch.row = replace(
        watch.row,
        opened_at=START - timedelta(seconds=step_s),
        last_received_at=START - timedelta(seconds=step_s),
    )
    row = watch.look()
    assert watch.silence_s(row) == 0.0
    assert row.opened_at == row.last_received_at


def test_a_case_that_an_operator_has_decided_anew_does_not_wait_again(ledger: Ledger) -> None:
    watch = _Watch(ledger)
    long_ago = START - timedelta(hours=1)
    watch.row = replace(watch.row, run=2, opened_at=long_ago, last_received_at=long_ago)
    assert watch.silence_s(watch.look()) == 3601.0


def test_whether_a_sender_has_hung_up_is_told_by_one_clock(ledger: Ledger) -> None:
    watch = _Watch(ledger)
    far = START + timedelta(days=30)
    assert watch.look(received=far).released_at is None
    hung_up = watch.look(released=far + timedelta(seconds=1))
    assert hung_up.released_at == hung_up.last_received_at
    assert watch.look(received=far + timedelta(seconds=2)).released_at is None
    watch.arrivals.forget(watch.row.case_id)
    assert watch.silence_s(watch.look()) == 0.0
