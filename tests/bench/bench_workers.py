"""Studies per minute by the number of workers, with PostgreSQL and small studies.

Run by hand: ``python -m tests.bench.bench_workers`` (ten minutes). A worker is a `work` process and
an `infer` process. The studies come first, while nobody works; then the workers start, and the
minutes are those between the start of the first attempt and the end of the last one, by the ledger.

All share this machine, so that its processors are a limit which several machines would not have.
The network is therefore one that takes ``--wait`` seconds without computing, as one on a GPU does
for the processor: what is measured is whether workers get in each other's way (in queue, ledger
and spool), not what a processor computes. ``--wait 0`` shows the limit of this machine. The numbers
of workers take turns, ``--rounds`` times, since other programs may run beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from node import database, tables
from node.cases import CaseState
from node.demo.archive import DemoArchive
from node.ledger import Ledger
from tests import poison, tiny_models
from tests.databases import Postgres
from tests.faults.load import Load
from tests.faults.storm import NODE
from tests.nodes import RunningNode, destination
from tests.small_studies import SmallStudies
from tests.waiting import wait_until

_PATIENCE_S: Final = 1800.0


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--wait", type=float, default=4.0, help="seconds that the network takes")
    parser.add_argument("--studies", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    figures: dict[int, list[float]] = {number: [] for number in asked.workers}
    with tempfile.TemporaryDirectory() as name, Postgres() as postgres:
        folder = Path(name)
        studies = SmallStudies(folder / "drawn")
        model = tiny_models.written(folder / "model" / "tiny", skull="any")
        (folder / "poison").write_text(json.dumps({poison.EVERY: asked.wait}), encoding="utf-8")
        sys.stdout.write(f"{len(os.sched_getaffinity(0))} processors, wait {asked.wait:g} s\n")
        for turn in range(asked.rounds):
            for workers in asked.workers:
                url = postgres.fresh_database()
                site = _Site(folder / f"{turn}-{workers}", model, url, studies)
                figures[workers].append(60.0 / site.run(workers, asked.studies))
                sys.stdout.write(f"round {turn}, {workers}: {figures[workers][-1]:.1f}\n")
                sys.stdout.flush()
    sys.stdout.write("workers  studies/min  of the first\n")
    best = {workers: max(found) for workers, found in figures.items()}
    for workers, figure in best.items():
        share = figure / best[asked.workers[0]]
        sys.stdout.write(f"{workers:7d}  {figure:11.1f}  {share:12.2f}\n")


class _Site:
    def __init__(self, folder: Path, model: Path, url: str, studies: SmallStudies) -> None:
        self._studies, self._ledger = studies, Ledger(url)
        self._archive = DemoArchive(folder / "archive")
        self._archive.start()
        self._node = RunningNode(
            folder / "node",
            [destination("archive", port=self._archive.port)],
            entry=NODE,
            environment={
                "NEUROSEG_MODEL__FOLDER": str(model),
                "CRASH_PLAN": str(folder / "no-plan"),
                "POISON_PLAN": str(model.parents[1] / "poison"),
                "OMP_NUM_THREADS": "1",
            },
            options={
                "align": 'registration = "off"',
                "ledger": f"url = '{url}'",
                "jobs": f"url = '{url}'\npoll_s = 0.1\nsweep_s = 1.0\nheartbeat_timeout_s = 60.0",
            },
            is_warm=True,
            role="receive",
        )

    def run(self, workers: int, count: int) -> float:
        """Return seconds for each study, from the first attempt's start to the last one's end."""
        with ExitStack() as ending:
            ending.callback(self._ledger.close)
            ending.callback(self._archive.stop)
            ending.enter_context(self._node)
            wait_until(self._ledger.workers, _PATIENCE_S, "the receiver")
            with Load(self._studies, self._node.dicom_port, count=count) as load:
                load.wait()
            for number in range(workers):
                for role in ("infer", "work"):
                    name = {"NEUROSEG_JOBS__WORKER_NAME": f"{role}-{number}"}
                    ending.enter_context(self._node.beside(role, name))
            wait_until(lambda: self._done() == count, _PATIENCE_S, "all to be delivered", poll_s=1)
            times = tables.attempt.c
            query = sa.select(sa.func.min(times.started_at), sa.func.max(times.ended_at))
            with database.reading(self._ledger.engine) as connection:
                first, last = connection.execute(query).one()
            return float(last - first) / count

    def _done(self) -> int:
        return len(self._ledger.cases(CaseState.DELIVERED, limit=100_000))


if __name__ == "__main__":
    main()
