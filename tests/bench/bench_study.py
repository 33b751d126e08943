"""From the last image to the result in an archive, and how many studies an hour.

Run by hand: ``python -m tests.bench.bench_study``. A whole node with the demonstration model, and
an Orthanc beside it; generated studies of four series on clinical grids (some 200 images). First
one at a time: where the seconds go. Then all at once: the rate that the node keeps up, for as many
studies as are asked for, and how long its page takes to answer meanwhile. ``--record`` writes
docs/images/bench-study.svg and its part of docs/performance.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from converters import phantom
from node.reading import LedgerReader
from tests.bench import comparison
from tests.nodes import RunningNode, destination, push
from tests.peers import Orthanc

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_STEPS: Final = ("decide", "convert", "segment", "network", "encode", "deliver", "wait")
_COLOURS: Final = ("#a0aec0", "#3182ce", "#48bb78", "#2f855a", "#b7791f", "#805ad5", "#e2e8f0")


def written(count: int, folder: Path) -> list[list[Path]]:
    """Write so many studies; return the files of each."""
    found = []
    for seed in range(count):
        files = phantom.write_study(phantom.make_study(seed, size="clinical"), folder / str(seed))
        found.append([path for paths in files.paths.values() for path in paths])
    return found


def steps(case: dict[str, Any], network_s: float) -> dict[str, float]:
    """Return the seconds of each step of a delivered case, from its last image on.

    What the network took of the time of segmenting is a step of its own.
    """
    last, closed = (datetime.fromisoformat(case[one]) for one in ("last_received_at", "closed_at"))
    found = dict.fromkeys(_STEPS, 0.0) | {"decide": (closed - last).total_seconds()}
    ended = closed
    for attempt in case["attempts"]:
        began, done = (datetime.fromisoformat(attempt[one]) for one in ("started_at", "ended_at"))
        found["wait"] += max(0.0, (began - ended).total_seconds())
        found[attempt["stage"]] += (done - began).total_seconds()
        ended = max(ended, done)
    found["network"], found["segment"] = network_s, found["segment"] - network_s
    return found


def one_by_one(node: RunningNode, studies: Sequence[Sequence[Path]]) -> list[dict[str, float]]:
    """Send each study when the one before has been delivered; return the steps of each."""
    found = []
    for number, files in enumerate(studies, start=1):
        _send(node, files)
        delivered = node.wait_states("delivered", number, timeout_s=600.0)
        case_id = delivered[0]["case_id"]
        ran = {one["case_id"]: one for one in node.log_lines() if one["event"] == "network.ran"}
        found.append(steps(node.case(case_id), ran[case_id]["duration_s"]))
    return found


def cpu_s(node: RunningNode) -> dict[str, float]:
    """Return the processor seconds of each role's process so far."""
    ledger = LedgerReader(f"sqlite:///{node.spool}/ledger.sqlite")
    pids = {row.role: row.pid for row in ledger.workers()}
    ledger.close()
    found = {}
    for role, pid in sorted(pids.items()):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        found[role] = sum(int(field) for field in fields[11:13]) / _TICKS
    return found


def kept_mb(node: RunningNode, studies: int) -> float:
    """Return the megabytes on disk that a study has left."""
    files = (one for one in node.spool.rglob("*") if one.is_file())
    return sum(one.stat().st_size for one in files) / 1e6 / studies


def at_once(node: RunningNode, studies: Sequence[Sequence[Path]], before: int) -> float:
    """Send all studies one after another; return how many an hour are delivered."""
    started = time.monotonic()
    for files in studies:
        _send(node, files)
    node.wait_states("delivered", before + len(studies), timeout_s=300.0 * len(studies))
    return 3600.0 * len(studies) / (time.monotonic() - started)


@contextmanager
def visited(node: RunningNode) -> Iterator[list[float]]:
    """Look at the list of cases four times a second; give the seconds that each answer took."""
    took: list[float] = []
    ending = threading.Event()

    def _look() -> None:
        while not ending.wait(0.25):
            began = time.monotonic()
            node.get("/").raise_for_status()
            took.append(time.monotonic() - began)

    visitor = threading.Thread(target=_look)
    visitor.start()
    try:
        yield took
    finally:
        ending.set()
        visitor.join()


def _send(node: RunningNode, files: Sequence[Path]) -> None:
    if set(push(files, node.dicom_port)) != {0}:
        raise RuntimeError("an image was refused")


def told(
    found: Sequence[dict[str, float]],
    spent_s: dict[str, float],
    rate: float,
    count: int,
    images: int,
    kept: float,
) -> str:
    """Return what was measured, for the page."""
    costs = ", ".join(f"{role} {seconds:.1f}" for role, seconds in spent_s.items())
    usual = {step: statistics.median(one[step] for one in found) for step in _STEPS}
    totals = [sum(one.values()) for one in found]
    rows = "\n".join(f"| {step} | {seconds:.1f} |" for step, seconds in usual.items())
    rest = sum(usual.values()) - usual["network"]
    return (
        f"| step | seconds, median of {len(found)} |\n|---|---|\n{rows}\n"
        f"| **last image to result in the archive** | **{statistics.median(totals):.1f}** "
        f"({min(totals):.1f} to {max(totals):.1f}) |\n\n"
        f"All but the network: **{rest:.1f} s**. {count} studies of {images} images sent without a "
        f"pause: **{rate:.0f} studies an hour**.\n\n"
        f"Processor seconds of a study, by role: {costs}; together "
        f"**{sum(spent_s.values()):.1f}**. On disk until it is purged: {kept:.0f} MB."
    )


def answering(answers_s: Sequence[float]) -> str:
    """Return how long the page took to answer while studies came in and were worked on."""
    middle, late, slowest = 1000 * np.percentile(answers_s, [50, 95, 100])
    return (
        f"The page with the list of cases answered meanwhile in {middle:.0f} ms (95th percentile "
        f"{late:.0f}, slowest of {len(answers_s)}: {slowest:.0f})."
    )


def picture(found: Sequence[dict[str, float]]) -> str:
    """Return an SVG with a bar of the steps for each study."""
    most = max(sum(one.values()) for one in found)
    return comparison.stacked("Seconds from the last image", found, _COLOURS, most)


def main() -> None:
    """Measure and print; write down what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--single", type=int, default=4, help="studies one by one (%(default)s)")
    parser.add_argument("--many", type=int, default=8, help="studies at once (%(default)s)")
    parser.add_argument("--record", action="store_true", help="write docs/performance.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        studies = written(1 + arguments.single + arguments.many, folder / "studies")
        with Orthanc(folder / "orthanc") as pacs:
            back = destination("pacs", port=pacs.dicom_port, ae_title=pacs.ae_title)
            with RunningNode(folder / "node", [back]) as node:
                node.wait_ready()
                single = 1 + arguments.single
                found = one_by_one(node, studies[:single])[1:]  # the first loads tables
                before = cpu_s(node)
                with visited(node) as answers_s:
                    rate = at_once(node, studies[single:], single)
                spent_s = {
                    role: (seconds - before[role]) / arguments.many
                    for role, seconds in cpu_s(node).items()
                }
                kept = kept_mb(node, len(studies))
    text = told(found, spent_s, rate, arguments.many, len(studies[0]), kept)
    text = f"{text}\n\n{answering(answers_s)}"
    sys.stdout.write(f"{text}\n")
    if arguments.record:
        comparison.record("study", "Where the seconds go", picture(found), text)


if __name__ == "__main__":
    main()
