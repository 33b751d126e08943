"""How each step grows with what it is given, and how near the network is to the processor's limit.

Run by hand: ``python -m tests.bench.bench_scaling``. The slope is the exponent by which the seconds
grow (1: linear); nothing may be worse. The network's rate is the arithmetic of its convolutions and
products (`torch.utils.flop_counter`) over the seconds that the windows took in the runtime which
the node chooses, beside a large product of matrices in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from converters import series
from converters.mr_writer import write_series
from converters.seg import SegIdentity, build_segmentation
from converters.volume import Grid, LabelMap, Volume
from inference import manifest, model
from inference.model import LoadedModel, granted_cores
from inference.runtime import IN_FLIGHT, OpenVinoRuntime, never
from tests.bench import comparison

_MODEL: Final = Path(__file__).parents[2] / "models" / "demo-glioma"
_TITLE: Final = "How seconds grow: 0 not at all, 1 as slices or windows do"
_SLICES: Final = (100, 200, 400)
_WINDOWS: Final = (1, 2, 4, 8)
_SIDE: Final = 256
_SQUARE: Final = 3072  # a matrix that no cache holds


def main() -> None:
    """Print two tables and the rates; write down what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--record", action="store_true", help="write docs/performance.md")
    arguments = parser.parse_args()
    loaded = model.load(manifest.load(_MODEL), device="cpu", precision="float32")
    with tempfile.TemporaryDirectory() as folder:
        slices = _slices(arguments.rounds, Path(folder))
    windows = _windows(loaded, arguments.rounds)
    named = " x ".join(map(str, loaded.manifest.infer.window))
    text = "\n\n".join(
        [
            comparison.growth_table(f"s, by slices of {_SIDE} x {_SIDE}", _SLICES, slices, 3),
            comparison.growth_table(f"s, by windows of {named}", _WINDOWS, windows, 3),
            _rates(loaded, windows["network"][-1] / _WINDOWS[-1], arguments.rounds),
            *_in_half(arguments.rounds),
            comparison.machine("torch", "openvino"),
        ]
    )
    sys.stdout.write(f"{text}\n")
    if arguments.record:
        slopes = {name: comparison.slope(_SLICES, values) for name, values in slices.items()}
        slopes |= {name: comparison.slope(_WINDOWS, values) for name, values in windows.items()}
        comparison.record("scaling", _TITLE, comparison.growth_picture(_TITLE, slopes), text)


def _slices(rounds: int, folder: Path) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"series to volume": [], "labels to SEG": []}
    for count in _SLICES:
        grid = Grid(
            shape=(count, _SIDE, _SIDE), index_to_lps_mm=np.eye(4), frame_of_reference_uid="2.25.1"
        )
        noise = np.random.default_rng(0).integers(0, 500, grid.shape).astype(np.float32)
        files = write_series(
            Volume(intensities=noise, grid=grid, role="t1gd"), folder / str(count), series_number=2
        )
        stack = series.stack(files)
        labels = np.zeros(grid.shape, np.uint8)
        labels[:, 60:120, 60:120] = 1
        described = manifest.load(_MODEL)
        label_map = LabelMap(
            labels=labels,
            grid=stack.grid,
            segments=described.segments,
            model_id=described.model_id,
        )
        identity = _identity(label_map)
        found["series to volume"].append(
            _usual_s(lambda files=files: series.load(series.stack(files), "t1gd"), rounds)  # type: ignore[misc]
        )
        found["labels to SEG"].append(
            _usual_s(
                lambda one=label_map, heads=stack.headers, who=identity: build_segmentation(  # type: ignore[misc]
                    one, heads, who
                ),
                rounds,
            )
        )
    return found


def _identity(label_map: LabelMap) -> SegIdentity:
    return SegIdentity(
        sop_instance_uid="2.25.2",
        series_instance_uid="2.25.3",
        dimension_organization_uid="2.25.4",
        tracking_uids={one.number: f"2.25.{10 + one.number}" for one in label_map.segments},
        series_number=9001,
        series_description="bench",
        content_description="bench",
        algorithm_name="bench",
        algorithm_version="1",
        device_serial_number="1",
        software_versions=("1",),
        created_at=datetime(2025, 3, 1, tzinfo=UTC),
    )


def _windows(loaded: LoadedModel, rounds: int) -> dict[str, list[float]]:
    one = torch.randn(1, len(loaded.manifest.inputs), *loaded.manifest.infer.window)
    seconds = [
        _usual_s(
            lambda count=count: list(  # type: ignore[misc]
                loaded.runtime.scores((one for _ in range(count)), lambda: False)
            ),
            rounds,
        )
        for count in _WINDOWS
    ]
    return {"network": seconds}


def _in_half(rounds: int) -> list[str]:
    """Return the rates in half precision, where the node takes it here."""
    loaded = model.load(manifest.load(_MODEL), device="cpu")
    if not (isinstance(loaded.runtime, OpenVinoRuntime) and loaded.runtime.half):
        return []
    return [
        _rates(loaded, _windows(loaded, rounds)["network"][-1] / _WINDOWS[-1], rounds, half=True)
    ]


def _rates(loaded: LoadedModel, window_s: float, rounds: int, *, half: bool = False) -> str:
    """Return how much arithmetic a second the windows got, beside a product of matrices."""
    one = torch.randn(1, len(loaded.manifest.inputs), *loaded.manifest.infer.window)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        loaded.network(one)
    flops = counter.get_total_flops()
    peak, rate = _product(rounds, half=half), flops / window_s
    return (
        f"The network in {loaded.runtime.name}: **{rate / 1e9:.0f} GFLOP/s**, "
        f"{flops / 1e9:.1f} GFLOP a window (counted as plain convolutions); a product of two "
        f"matrices of {_SQUARE} x {_SQUARE} of the same precision, in the same run: "
        f"{peak / 1e9:.0f} GFLOP/s; share **{100 * rate / peak:.0f} %**."
    )


def _product(rounds: int, *, half: bool) -> float:
    """Return the operations a second of a large product, in torch or OpenVINO, what is faster."""
    square = torch.randn(_SQUARE, _SQUARE)
    layer = nn.Linear(_SQUARE, _SQUARE, bias=False).eval()
    openvino = OpenVinoRuntime(layer, granted_cores(), half=half)
    several = [square[None]] * 2 * IN_FLIGHT
    seconds = _usual_s(lambda: list(openvino.scores(several, never)), rounds) / len(several)
    if half:
        square = square.bfloat16()
    return 2 * _SQUARE**3 / min(seconds, _usual_s(lambda: torch.matmul(square, square), rounds))


def _usual_s(work: Callable[[], object], rounds: int) -> float:
    work()
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


if __name__ == "__main__":
    main()
