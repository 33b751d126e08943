"""Instances per second of the C-STORE door against DCMTK's storescp, in the same rounds.

``python -m tests.bench receive``. Both receivers get the same files from the same number of
``storescu`` processes in turn, on a file system in memory where there is one: what a sync costs is
the disk's. Ours syncs every
instance and commits its row before it answers, storescp only writes. All run with
``TCP_NODELAY=1``, without which storescp waits 40 ms for each instance's delayed acknowledgement.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from node import logs, settings
from node.ledger import Ledger
from node.receive.scp import StorageScp
from node.spool import Spool
from tests.bench import comparison
from tests.bench.comparison import Comparison
from tests.peers import free_port

_PLACE = "/dev/shm" if Path("/dev/shm").is_dir() else None
_TICKS = os.sysconf("SC_CLK_TCK")
_PDU = "131072"
_PROCESSES = 2
_ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One round of one receiver."""

    instances_per_s: float
    cpu_ms: float
    peak_mb: float


def write_instances(folder: Path, count: int, rows: int) -> list[Path]:
    """Write classic MR images of rows x rows of 16 bits, all of one study."""
    study, rng = generate_uid(), np.random.default_rng(0)
    series = [generate_uid() for _ in range(4)]
    files = []
    for index in range(count):
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, generate_uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series[index % 4]
        ds.PatientName, ds.PatientID, ds.Modality = "Bench^Mark", "BENCH", "MR"
        ds.Rows = ds.Columns = rows
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit, ds.PixelRepresentation, ds.SamplesPerPixel = 15, 0, 1
        ds.PhotometricInterpretation = "MONOCHROME2"
        ds.PixelData = rng.integers(0, 4096, (rows, rows), dtype=np.uint16).tobytes()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        files.append(folder / f"{index:05d}.dcm")
        ds.save_as(files[-1], enforce_file_format=True)
    return files


def serve(folder: Path, port: int) -> None:
    """Receive into a folder until killed; print the port."""
    logs.configure(level="WARNING", role="receive")
    scp = StorageScp(
        settings.Receive(port=port, processes=_PROCESSES if port else 1),
        spool=Spool(folder),
        ledger=Ledger(f"sqlite:///{folder / 'ledger.sqlite'}"),
        model_id="bench@1",
    )
    scp.start()
    sys.stdout.write(f"{scp.port}\n")
    sys.stdout.flush()
    sys.stdin.read()


@contextmanager
def _ours(folder: Path, port: int = 0) -> Iterator[tuple[int, list[int]]]:
    command = [sys.executable, "-m", "tests.bench.bench_receive", "--serve", str(folder)]
    with subprocess.Popen(
        [*command, "--port", str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline()), [process.pid]
        process.kill()


@contextmanager
def _several(folder: Path) -> Iterator[tuple[int, list[int]]]:
    port = free_port()
    with ExitStack() as stack:
        started = [stack.enter_context(_ours(folder, port)) for _ in range(_PROCESSES)]
        yield port, [pid for _, pids in started for pid in pids]


@contextmanager
def _dcmtk(folder: Path) -> Iterator[tuple[int, list[int]]]:
    port = free_port()
    options = ["--fork", "-pdu", _PDU, "-od", str(folder)]
    with subprocess.Popen(["storescp", *options, str(port)], env=_ENVIRONMENT) as process:
        _wait_for(port)
        yield port, [process.pid]
        process.kill()


def _wait_for(port: int) -> None:
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionRefusedError:
            time.sleep(0.01)
        else:
            return
    raise TimeoutError("storescp does not listen")


def _cpu_s(pids: Sequence[int]) -> float:
    """Return user and system seconds of processes and of their children that have ended."""
    stats = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in pids]
    return sum(int(field) for fields in stats for field in fields[11:15]) / _TICKS


_RECEIVERS = {"ours": _ours, "several": _several, "storescp": _dcmtk}


def measure(name: str, files: Sequence[Path], senders: int) -> Measured:
    """Send all files to a fresh receiver through so many associations at once."""
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=_PLACE))
    with _RECEIVERS[name](folder) as (port, pids):
        before, started = _cpu_s(pids), time.perf_counter()
        command = ["storescu", "-R", "-pdu", _PDU, "--max-send-pdu", _PDU]
        running = [
            subprocess.Popen(
                [*command, "127.0.0.1", str(port), *map(str, files[index::senders])],
                env=_ENVIRONMENT,
            )
            for index in range(senders)
        ]
        codes = [process.wait() for process in running]
        seconds = time.perf_counter() - started
        time.sleep(0.3)  # for the children of storescp to be waited for
        measured = Measured(
            instances_per_s=len(files) / seconds,
            cpu_ms=1e3 * (_cpu_s(pids) - before) / len(files),
            peak_mb=max(map(comparison.peak_bytes, pids)) / 2**20,
        )
    assert not any(codes), "a sender failed"
    shutil.rmtree(folder)
    return measured


def compare(rounds: int) -> list[Comparison]:
    """Return the comparisons, for each size of instances and number of associations."""
    found = []
    for rows, count in ((256, 300), (512, 120)):
        source = Path(tempfile.mkdtemp(prefix="bench-source-", dir=_PLACE))
        files = write_instances(source, count, rows)
        for senders, name in ((1, "ours"), (4, "ours"), (4, "several")):
            ours, theirs = [], []
            for _ in range(rounds):
                ours.append(measure(name, files, senders))
                theirs.append(measure("storescp", files, senders))
            label = f"{rows * rows * 2 // 1000} KB, {senders} association{'s' * (senders > 1)}"
            label += f", {_PROCESSES} processes" * (name == "several")
            found.append(_comparison(label, ours, theirs))
        shutil.rmtree(source)
    return found


def _comparison(name: str, ours: Sequence[Measured], theirs: Sequence[Measured]) -> Comparison:
    cpu = [statistics.median(one.cpu_ms for one in many) for many in (ours, theirs)]
    peak_mb = max(one.peak_mb for one in ours)
    return Comparison(
        name=name,
        unit="instances/s",
        peer="storescp",
        ours=[one.instances_per_s for one in ours],
        theirs=[one.instances_per_s for one in theirs],
        target=1.3,
        note=f"CPU ms each {cpu[0]:.2f}, peer {cpu[1]:.2f}; peak {peak_mb:.0f} MB",
    )


def main() -> None:
    """Receive into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0, help="a port that several share")
    arguments = parser.parse_args()
    serve(arguments.serve, arguments.port)


if __name__ == "__main__":
    main()
