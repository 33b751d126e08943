"""Studies per minute by the number of `work` processes, with PostgreSQL and a small network.

Run by hand: ``python -m tests.bench.bench_workers --workers 1 2 4``. The studies come first, while
nobody works; then the processes start, and the minutes are those between the start of the
first attempt and the end of the last one, by the ledger. All share this machine: what several can
win here is the time that one spends waiting (for the disk, the database and the archive), and no
more than its processors have left. Whether several machines win more is not measured by it.
"""

from __future__ import annotations

import argparse
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
from tests import tiny_models
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
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--infer", type=int, default=1, help="infer processes beside them")
    parser.add_argument("--studies", type=int, default=12)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Postgres() as postgres:
        folder = Path(name)
        studies = SmallStudies(folder / "drawn")
        model = tiny_models.written(folder / "model" / "tiny", skull="any")
        (folder / "poison").write_text("{}", encoding="utf-8")
        sys.stdout.write(f"{len(os.sched_getaffinity(0))} processors\n")
        sys.stdout.write("work  infer  studies  studies/min  s/study\n")
        for workers in asked.workers:
            url = postgres.fresh_database()
            site = _Site(folder / str(workers), model, url, studies)
            seconds = site.run(workers, asked.infer, asked.studies)
            sys.stdout.write(
                f"{workers:4d}  {asked.infer:5d}  {asked.studies:7d}"
                f"  {60.0 * asked.studies / seconds:11.1f}  {seconds / asked.studies:7.2f}\n"
            )
            sys.stdout.flush()


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

    def run(self, workers: int, infers: int, count: int) -> float:
        """Return the seconds between the first attempt's start and the last one's end."""
        with ExitStack() as ending:
            ending.callback(self._ledger.close)
            ending.callback(self._archive.stop)
            ending.enter_context(self._node)
            wait_until(self._ledger.workers, _PATIENCE_S, "the receiver")
            with Load(self._studies, self._node.dicom_port, count=count) as load:
                load.wait()
            for role, many in (("infer", infers), ("work", workers)):
                for number in range(many):
                    name = {"NEUROSEG_JOBS__WORKER_NAME": f"{role}-{number}"}
                    ending.enter_context(self._node.beside(role, name))
            wait_until(lambda: self._done() == count, _PATIENCE_S, "all to be delivered", poll_s=1)
            times = tables.attempt.c
            query = sa.select(sa.func.min(times.started_at), sa.func.max(times.ended_at))
            with database.reading(self._ledger.engine) as connection:
                first, last = connection.execute(query).one()
            return float(last - first)

    def _done(self) -> int:
        return len(self._ledger.cases(CaseState.DELIVERED, limit=100_000))


if __name__ == "__main__":
    main()
