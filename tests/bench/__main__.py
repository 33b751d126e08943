"""Every benchmark against its peers, in turns on the same data: ``python -m tests.bench``.

``--record`` writes tables and pictures into docs/performance.md and the ratios into
docs/performance.json; ``--guard`` ends with 1 where a ratio is a fifth below the recorded one in
every round. Ratios only: seconds of a shared machine say little. Missing peers are named and left
out. The recognition of series has a command of its own (``make bench-sequences``), since it is
judged by its answers.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tests.bench import comparison
from tests.bench.comparison import Comparison


@dataclass(frozen=True, slots=True)
class _Bench:
    title: str
    command: str = ""  # of the peer, where that is no package
    version: tuple[str, str] = ("", "")  # the option that tells it, and where it stands there
    packages: tuple[str, ...] = ()  # whose versions matter


_BENCHES: Final = {
    "receive": _Bench(
        "Receive: instances a second, times DCMTK's storescp",
        "storescp",
        ("--version", r"v(\d[\d.]+)"),
        ("pynetdicom",),
    ),
    "convert": _Bench(
        "Series to volumes, times dcm2niix", "dcm2niix", ("-v", r"version v?(\S+)"), ("pydicom",)
    ),
    "engine": _Bench(
        "The engine on the processor, times MONAI's call in torch",
        packages=("torch", "monai", "openvino"),
    ),
    "encode": _Bench(
        "SEG and report, read back and proven, times highdicom's SEG alone",
        packages=("highdicom", "pydicom"),
    ),
}


def main() -> int:
    """Run what is asked for; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(_BENCHES)}")
    parser.add_argument("--rounds", type=int, default=5, help="of each comparison (%(default)s)")
    parser.add_argument("--record", action="store_true", help="write docs/performance.md")
    parser.add_argument("--guard", action="store_true", help="compare with what is recorded")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(_BENCHES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(_BENCHES)}")
    found: dict[str, list[Comparison]] = {}
    for name in arguments.names or _BENCHES:
        peer = _BENCHES[name].command
        if peer and not shutil.which(peer):
            _say(f"{name}: left out, {peer} is not installed")
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
    for name, rows in found.items():
        bench = _BENCHES[name]
        with_what = comparison.machine(*bench.packages)
        if bench.command:
            told = comparison.version(bench.command, *bench.version)
            with_what = f"{with_what[:-1]}, {bench.command} {told}."
        text = f"{comparison.table(rows)}\n\n{with_what}"
        comparison.record(name, bench.title, comparison.picture(bench.title, rows), text)
        comparison.record_ratios(rows)


def _guard(found: Mapping[str, list[Comparison]]) -> int:
    fallen = [one for rows in found.values() for one in comparison.losses(rows)]
    _say("\n".join(fallen) if fallen else "no ratio has fallen")
    return 1 if fallen else 0


if __name__ == "__main__":
    sys.exit(main())
