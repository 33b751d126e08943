"""``python -m tests.fuzz``: the nightly form; see docs/reliability.md, "Hostile input".

Prints one line a door: inputs, refused, accepted, crashes, hangs, leaks, files outside of the
spool. Inputs that are findings stay in ``var/fuzz`` as DOOR-SEED-NUMBER.bin.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from node import logs
from tests.fuzz.hunt import DOORS, Tally, hunt

_KEPT = Path("var/fuzz")
_SLOW = {"checkpoint": 20}  # a process each: one input in twenty
_HEAD = (
    *("door", "inputs", "refused", "accepted", "crashes", "hangs", "outside"),
    *("MB before", "after", "handles", "after", "threads", "after", "s"),
)


def main() -> int:
    """Give every door its inputs; the exit code says whether all kept their promises."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="for each door")
    parser.add_argument("--door", action="append", help="a door, or the beginning of its name")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--number", type=int, help="replay this input alone")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="for each door")
    asked = parser.parse_args()
    logs.configure(level="CRITICAL")
    warnings.simplefilter("ignore")
    doors = [one for one in DOORS if not asked.door or one.startswith(tuple(asked.door))]
    print(_line(_HEAD), flush=True)
    is_clean = True
    for door in doors:
        is_one = asked.number is not None
        tally = hunt(
            door,
            inputs=1 if is_one else max(asked.inputs // _SLOW.get(door, 1), 1),
            seed=asked.seed,
            first=asked.number if is_one else 0,
            keep=_KEPT,
            seconds=60 * asked.minutes,
        )
        _print(tally)
        is_clean = is_clean and tally.is_clean
    return 0 if is_clean else 1


def _print(tally: Tally) -> None:
    before, after = tally.before, tally.after
    held: list[object] = ["-"] * 6
    if before is not None and after is not None:
        held = [
            *(before.memory_bytes // 2**20, after.memory_bytes // 2**20),
            *(before.handles, after.handles, before.threads, after.threads),
        ]
    counts = tally.inputs, tally.refused, tally.accepted, tally.count("crash"), tally.count("hang")
    print(_line((tally.door, *counts, len(tally.strays), *held, round(tally.seconds))))
    for finding in tally.findings[:20]:
        print(f"  {finding.kind} seed {tally.seed} number {finding.number}: {finding.reason}")
    for problem in (*tally.problems, *tally.strays[:20], *(f"leak: {one}" for one in tally.leaks)):
        print(f"  {problem}")
    sys.stdout.flush()


def _line(parts: tuple[object, ...]) -> str:
    first, *rest = parts
    return f"{first!s:<16}" + "".join(f"{one!s:>10}" for one in rest)


if __name__ == "__main__":
    sys.exit(main())
