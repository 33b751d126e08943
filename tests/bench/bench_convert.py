"""Four series to volumes, against dcm2niix on the same files in the same rounds.

``python -m tests.bench convert``. Ours is what the node does in a process that
runs already: read headers, check, sort, decode, check the content. dcm2niix converts the same
folders to uncompressed NIfTI on the same disk (a RAM disk where there is one); ``+ write`` is ours
with the NIfTI files written, too. On two cores each side works with two processes, half of the
series each. Memory is the peak of a fresh process over what it used before, as a multiple of the
volume that it loaded.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from converters import nifti, series
from converters.mr_writer import write_series
from converters.volume import Grid, Shape, Volume
from tests.bench import comparison
from tests.bench.comparison import Comparison

CLINICAL: Final = {
    "flair": (44, 256, 256),
    "t1": (44, 256, 256),
    "t2": (44, 256, 256),
    "t1gd": (176, 256, 256),
}
LARGE: Final = dict.fromkeys(CLINICAL, (200, 512, 512))
_HEIGHT_MM: Final = 176.0
_WIDTH_MM: Final = 256.0
_OPTIONS: Final = ("-b", "n", "-z", "n", "-p", "n", "-f", "out")

Work = Callable[[Path, Path], None]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Series of one size, in the order of their folders."""

    name: str
    folders: tuple[Path, ...]


def write_case(name: str, shapes: dict[str, Shape], folder: Path) -> Case:
    """Write a series of noise over a gradient for each role."""
    rng = np.random.default_rng(0)
    folders = []
    for number, (role, shape) in enumerate(shapes.items(), start=1):
        matrix = np.diag([_HEIGHT_MM / shape[0], _WIDTH_MM / shape[1], _WIDTH_MM / shape[2], 1.0])
        matrix = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]]) @ matrix
        grid = Grid(shape=shape, index_to_lps_mm=matrix, frame_of_reference_uid="2.25.1")
        ramp = np.linspace(0, 3000, shape[2], dtype=np.float32)
        noise = rng.integers(0, 1000, shape, dtype=np.uint16)
        volume = Volume(intensities=ramp + noise, grid=grid, role=role)
        folders.append(folder / name / role)
        write_series(volume, folders[-1], series_number=number)
    return Case(name=name, folders=tuple(folders))


def load(folder: Path, _: Path) -> None:
    """Convert one series."""
    series.load(series.stack(sorted(folder.iterdir())), "t1")


def load_and_write(folder: Path, target: Path) -> None:
    """Convert one series to a NIfTI file."""
    volume = series.load(series.stack(sorted(folder.iterdir())), "t1")
    nifti.write_volume(volume, target / f"ours-{folder.name}.nii")


def dcm2niix(folder: Path, target: Path) -> None:
    """Have dcm2niix convert one series."""
    own = target / f"theirs-{folder.name}"
    own.mkdir(exist_ok=True)
    command = ["dcm2niix", *_OPTIONS, "-w", "1", "-o", str(own), str(folder)]
    subprocess.run(command, check=True, capture_output=True)


WORKERS: Final[dict[str, Work]] = {
    "ours": load,
    "ours + write": load_and_write,
    "dcm2niix": dcm2niix,
}


def _do(name: str, folders: Sequence[Path], target: Path) -> None:
    for folder in folders:
        WORKERS[name](folder, target)


def seconds(pool: ProcessPoolExecutor, name: str, case: Case, cores: int, target: Path) -> float:
    """Return how long all series of a case take on so many cores."""
    shares = [case.folders[start::cores] for start in range(cores)]
    started = time.perf_counter()
    running = [pool.submit(_do, name, share, target) for share in shares]
    for one in running:
        one.result()
    return time.perf_counter() - started


def measure(case: Case, cores: int, rounds: int, target: Path) -> list[Comparison]:
    """Return the comparisons of one case, without and with the files written."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cores, mp_context=context) as pool:
        found: dict[str, list[float]] = {name: [] for name in WORKERS}
        for name in WORKERS:
            seconds(pool, name, case, cores, target)  # warm: files in memory, modules imported
        for _ in range(rounds):
            for name, times in found.items():
                times.append(seconds(pool, name, case, cores, target))
    return [
        Comparison(
            name=f"{case.name}, {cores} core{'s' * (cores > 1)}{name.removeprefix('ours')}",
            unit="s",
            peer="dcm2niix",
            ours=found[name],
            theirs=found["dcm2niix"],
            target=1.0,
        )
        for name in ("ours", "ours + write")
    ]


def print_memory(folder: Path) -> None:
    """Print how much more memory a process needed than before, over the size of its volume."""
    files = sorted(folder.iterdir())
    before = comparison.peak_bytes()
    volume = series.load(series.stack(files), "t1")
    sys.stdout.write(f"{(comparison.peak_bytes() - before) / volume.intensities.nbytes:.2f}")


def compare(rounds: int) -> list[Comparison]:
    """Return the comparisons on one and two cores, with memory."""
    shared = Path("/dev/shm")
    target = Path(tempfile.mkdtemp(prefix="bench-", dir=shared if shared.is_dir() else None))
    found: list[Comparison] = []
    try:
        for name, shapes, share in (("clinical", CLINICAL, 1), ("large", LARGE, 2)):
            case = write_case(name, shapes, target)
            rows = [
                one
                for cores in (1, 2)
                for one in measure(case, cores, max(1, rounds // share), target)
            ]
            command = [sys.executable, "-m", "tests.bench.bench_convert", "--memory"]
            told = subprocess.run(
                [*command, str(case.folders[-1])], check=True, capture_output=True, text=True
            )
            note = f"memory {told.stdout} x the volume"
            found += [replace(rows[0], note=note), *rows[1:]]
            for folder in case.folders:
                shutil.rmtree(folder)
    finally:
        shutil.rmtree(target)
    return found


def main() -> None:
    """Load one series and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", type=Path, required=True)
    print_memory(parser.parse_args().memory)


if __name__ == "__main__":
    main()
