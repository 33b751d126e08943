"""``python -m tests.faults``: the long proofs; see docs/reliability.md, "The storm".

Kills and freezes processes of a whole node at random moments under load, cuts its power, and lets
it work for a while; counts what was accepted, lost, doubled and stranded. What was counted last of
each kind stays in ``var/faults`` and, with ``--record``, in the table of docs/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from node import logs
from tests.faults import power_cut, storm
from tests.faults.soak import Held, soak
from tests.faults.storm import Outcome

_ROOT = Path(__file__).resolve().parents[2]
_KEPT = _ROOT / "var" / "faults"
_PAGE = _ROOT / "docs" / "reliability.md"
_BEGIN, _END = "<!-- storm: written by `make faults` -->", "<!-- end of storm -->"
_HEAD = (
    *("run", "hit", "studies", "sent", "accepted", "lost", "stray"),
    *("revisions", "doubled", "stranded", "retried", "repeated C-STOREs", "min"),
)
_HEAD_HELD = ("role", "MB", "KB a study", "handles", "threads", "flat")


def main() -> int:
    """Run the parts that are asked for; the exit code says whether all kept their promises."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--freezes", type=int, default=30)
    parser.add_argument("--cuts", type=int, default=30)
    parser.add_argument("--soak-minutes", type=float, default=10.0)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="for each but the soak")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--record", action="store_true", help="write the table into the docs")
    asked = parser.parse_args()
    logs.configure(level="CRITICAL")
    _KEPT.mkdir(parents=True, exist_ok=True)
    is_clean = True
    for name, run in _parts(asked).items():
        outcome, holding = run()
        is_clean &= outcome.audit is not None and outcome.audit.is_clean
        is_clean &= all(one.is_flat for one in holding)
        _keep(name, outcome, holding)
        print("\n".join(_tables()), flush=True)
    if asked.record:
        _record()
    return 0 if is_clean else 1


_Part = Callable[[], tuple[Outcome, list[Held]]]


def _parts(asked: argparse.Namespace) -> dict[str, _Part]:
    say = partial(print, file=sys.stderr, flush=True)
    found: dict[str, _Part] = {}

    def add(name: str, count: float, run: Callable[..., Outcome]) -> None:
        if count:
            folder = _KEPT / name
            more = {"count": int(count), "seed": asked.seed, "say": say, "minutes": asked.minutes}
            found[name] = lambda: (run(folder, **more), [])

    add("kills", asked.kills, storm.kills)
    add("freezes", asked.freezes, storm.freezes)
    add("cuts", asked.cuts, partial(storm.cuts, shim=_shim()) if asked.cuts else storm.kills)
    if asked.soak_minutes:
        seconds = 60.0 * asked.soak_minutes
        found["soak"] = lambda: soak(_KEPT / "soak", seconds=seconds, say=say)
    return found


def _shim() -> Path:
    return power_cut.library(_KEPT)


def _keep(name: str, outcome: Outcome, holding: list[Held]) -> None:
    kept = {
        "outcome": asdict(outcome),
        "held": [{**asdict(one), "is_flat": one.is_flat} for one in holding],
    }
    (_KEPT / f"{name}.json").write_text(json.dumps(kept, indent=1), encoding="utf-8")


def _tables() -> list[str]:
    """Return the tables of what was counted last."""
    kept = [
        json.loads(path.read_text(encoding="utf-8"))
        for name in ("kills", "freezes", "cuts", "soak")
        if (path := _KEPT / f"{name}.json").exists()
    ]
    rows = [_row(one["outcome"]) for one in kept]
    lines = [*_head(_HEAD), *(_line(row) for row in rows)]
    holding = [one for part in kept for one in part["held"]]
    if holding:
        lines += ["", *_head(_HEAD_HELD), *(_line(_held_row(one)) for one in holding)]
    return lines


def _row(outcome: dict) -> tuple[object, ...]:  # type: ignore[type-arg]  # JSON
    audit = outcome["audit"]
    blows = outcome["blows"]
    hit = ", ".join(f"{name} {count}" for name, count in sorted(blows.items()))
    return (
        *(
            outcome["name"],
            f"{sum(blows.values())}: {hit}" if blows else "-",
            audit["studies"],
            outcome["sent"],
            audit["accepted"],
        ),
        *(audit["lost"], audit["stray"], audit["cases"] - audit["studies"], audit["doubled"]),
        *(
            audit["stranded"],
            outcome["retried"],
            audit["repeated"],
            round(outcome["seconds"] / 60, 1),
        ),
    )


def _held_row(one: dict) -> tuple[object, ...]:  # type: ignore[type-arg]  # JSON
    memory = ", ".join(f"{value:.0f}" for value in one["memory_mb"])
    pairs = [", ".join(map(str, one[name])) for name in ("handles", "threads")]
    is_flat = "yes" if one["is_flat"] else "no"
    return f"`{one['role']}`", memory, f"{one['kb_a_study']:.1f}", *pairs, is_flat


def _head(names: tuple[str, ...]) -> list[str]:
    return [_line(names), "|---" * len(names) + "|"]


def _line(parts: tuple[object, ...]) -> str:
    return (
        "| "
        + " | ".join(f"{part:,}" if isinstance(part, int) else str(part) for part in parts)
        + " |"
    )


def _record() -> None:
    text = _PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    table = "\n".join(_tables())
    _PAGE.write_text(f"{before}{_BEGIN}\n\n{table}\n\n{_END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
