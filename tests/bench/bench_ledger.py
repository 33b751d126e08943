"""What each question to the ledger costs with 10,000 to 1,000,000 instances, and how that grows.

Run by hand: ``python -m tests.bench.bench_ledger``. Studies have 200 instances; all but the last
ten are delivered, with attempts and receipts as a study leaves them. Median milliseconds of a few
tries, and the slope of their logarithms: 0 does not grow, 1 grows as the ledger does. What the
receiver does for each instance, what each look of the worker asks and what a page shows must not
grow; sums over everything may, once.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from node import tables, tallies
from node.cases import CaseState, Stage
from node.ledger import Ledger
from tests.bench import comparison
from tests.ledgers import MODEL, instance

_TITLE: Final = "How questions grow with the ledger: 0 not at all, 1 as it does"
_OF_A_STUDY, _OPEN = 200, 10
_CHUNK = 50_000


def fill(ledger: Ledger, count: int) -> None:
    """Write the rows of so many instances."""
    pattern = asdict(instance("1.2"))
    now = time.time()
    for begin in range(0, count, _CHUNK):
        rows = [
            pattern
            | {
                "sop_instance_uid": f"1.2.{number}",
                "study_instance_uid": f"1.{number // _OF_A_STUDY}",
                "received_at": now,
                "path": f"instances/{number // _OF_A_STUDY:016d}/{number:032d}-{0:016d}.dcm",
            }
            for number in range(begin, min(begin + _CHUNK, count))
        ]
        with ledger.engine.begin() as connection:
            connection.execute(tables.instance.insert(), rows)
    studies = range(count // _OF_A_STUDY)
    open_from = len(studies) - _OPEN
    with ledger.engine.begin() as connection:
        connection.execute(
            tables.case.insert(), [_case(number, number >= open_from, now) for number in studies]
        )
        ended = [f"{number:032d}" for number in studies if number < open_from]
        connection.execute(
            tables.attempt.insert(),
            [
                {
                    "case_id": one,
                    "stage": stage.value,
                    "destination": "pacs" if stage is Stage.DELIVER else None,
                    "outcome": "done",
                    "started_at": now,
                    "ended_at": now,
                }
                for one in ended
                for stage in Stage
            ],
        )


def _case(number: int, is_open: bool, now: float) -> dict[str, Any]:  # noqa: FBT001
    state = CaseState.RECEIVING if is_open else CaseState.DELIVERED
    return {
        "case_id": f"{number:032d}",
        "study_instance_uid": f"1.{number}",
        "model_id": MODEL,
        "revision": 1,
        "state": state.value,
        "opened_at": now + number,
        "last_received_at": now + number,
        "updated_at": now + number,
        "closed_at": None if is_open else now + number,
        "reason": "",
        "summary": None if is_open else {"volumes_ml": {"oedema": 12.5, "core": 3.0}},
    }


def questions(ledger: Ledger, count: int) -> dict[str, Callable[[], object]]:
    """Return what is asked, by what it is for."""
    last_study = f"1.{count // _OF_A_STUDY - 1}"
    case_id = f"{count // _OF_A_STUDY // 2:032d}"
    numbers = itertools.count()

    def _record() -> object:
        return ledger.record_instance(
            instance(f"1.3.{next(numbers)}", study=last_study), model_id=MODEL
        )

    return {
        "receive: one instance": _record,
        "receive: bytes in the spool, seldom": ledger.spool_bytes,
        "closing: open cases": lambda: ledger.cases(CaseState.RECEIVING, limit=200),
        "closing: instances of a study": lambda: ledger.study_instances(last_study),
        "page: newest hundred cases": ledger.cases,
        "page: cases in each state": ledger.counts,
        "page: has anything changed?": ledger.mark,
        "page: one case": lambda: (ledger.case(case_id), ledger.attempts(case_id)),
        "page: destinations": lambda: ledger.last_deliveries(per_case=False),
        "metrics: sums of everything, seldom": lambda: tallies.read(ledger),
    }


def measure(count: int, rounds: int) -> dict[str, float]:
    """Return median milliseconds of each question."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(f"sqlite:///{Path(folder) / 'ledger.sqlite'}")
        fill(ledger, count)
        found = {
            name: statistics.median(_timed_ms(ask) for _ in range(rounds))
            for name, ask in questions(ledger, count).items()
        }
        ledger.close()
    return found


def _timed_ms(ask: Callable[[], object]) -> float:
    started = time.perf_counter()
    ask()
    return 1e3 * (time.perf_counter() - started)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--record", action="store_true", help="write docs/performance.md")
    arguments = parser.parse_args()
    counts = arguments.counts
    measured = [measure(count, arguments.rounds) for count in counts]
    found = {name: [one[name] for one in measured] for name in measured[0]}
    text = comparison.growth_table("milliseconds, by instances", counts, found, digits=2)
    sys.stdout.write(f"{text}\n")
    if arguments.record:
        slopes = {name: comparison.slope(counts, values) for name, values in found.items()}
        svg = comparison.growth_picture(_TITLE, slopes)
        comparison.record("ledger", _TITLE, svg, f"{text}\n\n{comparison.machine('sqlalchemy')}")


if __name__ == "__main__":
    main()
