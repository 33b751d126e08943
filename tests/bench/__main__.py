"""Every benchmark against its peers, in turns on the same data: ``python -m tests.bench``.

``--record`` writes tables and pictures into docs/performance.md and the ratios into
docs/performance.json; ``--guard`` ends with 1 where a ratio is a fifth below the recorded one in
every round. Ratios only: seconds of a shared machine say little. Missing peers are named and left
out. The engine and the recognition of series have commands of their own (``make bench-engine``,
``make bench-sequences``), since their answers are judged, too.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.bench import comparison
from tests.bench.comparison import Comparison

_ROOT: Final = Path(__file__).parents[2]
_PAGE, _RATIOS = _ROOT / "docs" / "performance.md", _ROOT / "docs" / "performance.json"
_TITLES: Final = {
    "receive": "Receive: instances a second, times DCMTK's storescp",
    "convert": "Series to volumes, times dcm2niix",
    "encode": "SEG and report, read back and proven, times highdicom's SEG alone",
}
_PEERS: Final = {"receive": "storescp", "convert": "dcm2niix", "encode": ""}


def main() -> int:
    """Run what is asked for; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(_TITLES)}")
    parser.add_argument("--rounds", type=int, default=5, help="of each comparison (%(default)s)")
    parser.add_argument("--record", action="store_true", help="write docs/performance.md")
    parser.add_argument("--guard", action="store_true", help="compare with what is recorded")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(_TITLES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(_TITLES)}")
    found: dict[str, list[Comparison]] = {}
    for name in arguments.names or _TITLES:
        if _PEERS[name] and not shutil.which(_PEERS[name]):
            _say(f"{name}: left out, {_PEERS[name]} is not installed")
            continue
        _say(f"{name}: {arguments.rounds} rounds")
        module = importlib.import_module(f"tests.bench.bench_{name}")
        found[name] = module.compare(arguments.rounds)
        _say(comparison.table(found[name]))
    if arguments.record:
        _record(found)
    return _guard(found) if arguments.guard else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _record(found: Mapping[str, list[Comparison]]) -> None:
    ratios = _recorded()
    for name, rows in found.items():
        svg = _PAGE.parent / "images" / f"bench-{name}.svg"
        svg.write_text(comparison.picture(_TITLES[name], rows), encoding="utf-8")
        told = f"![{_TITLES[name]}](images/{svg.name})\n\n{comparison.table(rows)}\n\n{_machine()}"
        comparison.put(_PAGE, name, told)
        ratios |= {one.name: round(one.ratio, 3) for one in rows}
    _RATIOS.write_text(json.dumps(ratios, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _recorded() -> dict[str, float]:
    if not _RATIOS.exists():
        return {}
    found: dict[str, float] = json.loads(_RATIOS.read_text(encoding="utf-8"))
    return found


def _guard(found: Mapping[str, list[Comparison]]) -> int:
    fallen = [one for rows in found.values() for one in comparison.losses(rows, _recorded())]
    _say("\n".join(fallen) if fallen else "no ratio has fallen")
    return 1 if fallen else 0


def _machine() -> str:
    """Return what the figures were measured with."""
    parts = [f"Python {platform.python_version()}", f"{len(os.sched_getaffinity(0))} cores"]
    parts += [f"load {os.getloadavg()[0]:.1f} at the end"]
    for command, pattern in (("storescp", r"v(\d[\d.]+)"), ("dcm2niix", r"version v?(\S+)")):
        if shutil.which(command):
            option = "--version" if command == "storescp" else "-v"
            told = subprocess.run([command, option], capture_output=True, text=True, check=False)
            if version := re.search(pattern, told.stdout):
                name = "DCMTK" if command == "storescp" else command
                parts.append(f"{name} {version[1]}")
    for package in ("highdicom", "pydicom", "pynetdicom"):
        parts.append(f"{package} {importlib.import_module(package).__version__}")
    return f"Measured with {', '.join(parts)}."


if __name__ == "__main__":
    sys.exit(main())
