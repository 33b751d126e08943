"""Seconds that the comparison of spool and ledger takes at the start of the receiver.

Run by hand: ``python -m tests.bench.bench_reconcile``. The files are as long as they should be and
hold nothing; names and sizes are all that is looked at. A tenth of as many shows that it is linear.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

from node import logs, tables
from node.ledger import Ledger
from node.receive import stored
from node.receive.reconcile import Reconciliation
from node.spool import Spool
from tests.ledgers import MODEL, instance

_OF_A_STUDY = 500


def measure(count: int) -> tuple[float, float]:
    """Return seconds, and those of the processor, for so many instances of which none is wrong."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    spool, ledger = Spool(folder), Ledger(f"sqlite:///{folder / 'ledger.sqlite'}")
    rows = []
    for number in range(count):
        study, uid = f"1.{number // _OF_A_STUDY}", f"1.2.{number}"
        one = instance(uid, study=study)
        name = spool.instance_name(
            study_instance_uid=study, sop_instance_uid=uid, sha256=one.sha256
        )
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            file.truncate(stored.expected_bytes(one))
        rows.append(asdict(replace(one, path=name)) | {"received_at": 0.0})
    with ledger.engine.begin() as connection:
        connection.execute(tables.instance.insert(), rows)
    started, cpu = time.perf_counter(), time.process_time()
    found = Reconciliation(spool, ledger, model_id=MODEL, limit_bytes=1).run()
    seconds = time.perf_counter() - started, time.process_time() - cpu
    assert found == []
    ledger.close()
    shutil.rmtree(folder)
    return seconds


def main() -> None:
    """Print seconds for as many as are asked for, and for a tenth of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    count = parser.parse_args().count
    logs.configure(level="ERROR")
    for many in (count // 10, count):
        seconds, cpu = measure(many)
        print(f"{many:7d} instances  {seconds:6.2f} s  {cpu:6.2f} CPU s")  # noqa: T201


if __name__ == "__main__":
    main()
