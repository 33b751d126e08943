"""How long each role takes from its process to work, and what it holds then.

Run by hand: ``python -m tests.bench.bench_start``. Each role is started alone, in turns, with the
demonstration model; ``--help`` of the command line beside them. Starts are given relative to
Python's own with numpy imported, in the same rounds, as every role needs both. ``--record`` writes
the part of docs/performance.md.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from node.supervise import ROLES
from tests.bench import comparison
from tests.nodes import RunningNode
from tests.waiting import wait_until

_HELP: Final = ("-m", "node", "--help")
_PEER: Final = ("-c", "import numpy")


def command_s(*arguments: str) -> float:
    """Return the seconds that a Python command takes to its end."""
    began = time.monotonic()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def role_s(folder: Path, role: str) -> tuple[float, float]:
    """Return the seconds until a role says that it has started, and the megabytes it then holds."""
    began = time.monotonic()
    with RunningNode(folder / role, role=role) as node:
        log = node.log_path
        wait_until(lambda: "role.started" in log.read_text(), 120.0, f"{role} to start")
        took_s = time.monotonic() - began
        status = Path(f"/proc/{node.process.pid}/status").read_text()
    held = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return took_s, int(held.split()[1]) / 1024


def told(rounds: int, folder: Path) -> str:
    """Measure in turns; return the table for the page."""
    peer: list[float] = []
    commands: dict[str, list[float]] = {"neuroseg --help": []}
    roles: dict[str, list[tuple[float, float]]] = {role: [] for role in ROLES}
    for number in range(rounds):
        peer.append(command_s(*_PEER))
        commands["neuroseg --help"].append(command_s(*_HELP))
        for role in ROLES:
            roles[role].append(role_s(folder / str(number), role))
    middle: Callable[[list[float]], float] = statistics.median
    rows = [
        f"| `{name}` | {middle(took):.2f} | {middle(took) / middle(peer):.1f} | |"
        for name, took in commands.items()
    ]
    for role, many in roles.items():
        took, held = (list(one) for one in zip(*many, strict=True))
        rows.append(
            f"| {role} | {middle(took):.1f} | {middle(took) / middle(peer):.0f} "
            f"| {middle(held):.0f} MB |"
        )
    head = "| what | seconds | times `import numpy` | resident when it works |\n|---|---|---|---|\n"
    return f"{head}{chr(10).join(rows)}\n\nMedians of {rounds} starts, files in the page cache."


def main() -> None:
    """Measure and print; write down what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--record", action="store_true", help="write docs/performance.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        text = told(arguments.rounds, Path(place))
    sys.stdout.write(f"{text}\n")
    if arguments.record:
        comparison.put("start", text)


if __name__ == "__main__":
    main()
