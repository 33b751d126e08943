"""Speed, memory and labels of the engine against the plain MONAI call, in one run.

``python -m tests.bench engine``; for one network ``python -m tests.bench.bench_engine unet``. The
peer is what the reference project does: ``sliding_window_inference`` in torch with float32 on the
processor, windows of 96 with half of them shared, four at a time. Each measurement is a process of
its own, peer and engine take turns. The engine computes in float32 and, where the processor does
so, in bfloat16, the node's default there. Networks and image:
`tests.bench.engine_inputs`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import safetensors.torch
import torch
from monai.inferers.utils import sliding_window_inference
from numpy.typing import NDArray
from torch import Tensor, nn

from inference import choosing, networks, windows
from inference.activation import most_probable
from inference.choosing import Precision
from inference.manifest import Manifest
from inference.model import LoadedModel
from inference.runtime import OpenVinoRuntime
from tests.bench import comparison
from tests.bench.comparison import Comparison
from tests.bench.engine_inputs import (
    KEPT,
    NETWORKS,
    STEPS,
    WINDOW,
    Way,
    declared,
    fitted,
    measured_image,
    middle,
    save,
    say,
)

_AT_ONCE: Final = 4
_MOST_ROUNDS: Final = 3  # a round of the UNet takes a minute
_SAYS: Final = {
    "engine": "same windows",
    "half": "same windows, bfloat16",
    "crop": "brain box",
    "half-crop": "brain box, bfloat16",
}
_HALF: Final = ("half", "half-crop")


# -- one measurement, in a process of its own ----------------------------------------------------


def measure(name: str, way: Way, axes: tuple[int, ...]) -> dict[str, float]:
    """Compute the labels of the image once and return what it took."""
    threads = torch.get_num_threads()
    model = declared(name, way, axes)
    network = networks.build(model.network)
    network.load_state_dict(safetensors.torch.load_file(KEPT / "weights.safetensors"))
    network.eval()
    channels = torch.from_numpy(np.load(KEPT / "channels.npy"))
    precision: Precision = "auto" if way in _HALF else "float32"
    run = _plain(network, axes) if way == "monai" else _engine(network, model, threads, precision)
    wall, cpu = time.monotonic(), time.process_time()
    labels = run(channels)
    spent = {"wall_s": time.monotonic() - wall, "cpu_s": time.process_time() - cpu}
    np.save(KEPT / f"{way}.npy", labels)
    return {**spent, "peak_mib": comparison.peak_bytes() / 2**20}


def _plain(network: nn.Module, axes: tuple[int, ...]) -> Callable[[Tensor], NDArray[np.uint8]]:
    """Return the reference project's call; with mirrored copies as MONAI users write them."""

    def slide(image: Tensor) -> Tensor:
        with torch.inference_mode():
            scores = sliding_window_inference(image[None], WINDOW, _AT_ONCE, network, 0.5)
        if not isinstance(scores, Tensor):
            raise TypeError
        return scores[0]

    def run(channels: Tensor) -> NDArray[np.uint8]:
        copies = windows.mirrors(axes)
        if len(copies) == 1:
            return slide(channels).argmax(0).numpy().astype(np.uint8)
        mean = torch.zeros(1)
        for chosen in copies:
            turned = [axis + 1 for axis in chosen]
            mean = mean + torch.softmax(slide(channels.flip(turned)).flip(turned), 0) / len(copies)
        return mean.argmax(0).numpy().astype(np.uint8)

    return run


def _engine(
    network: nn.Module, model: Manifest, threads: int, precision: Precision
) -> Callable[[Tensor], NDArray[np.uint8]]:
    chosen = choosing.choose(
        network, "cpu", window=WINDOW, channels=4, threads=threads, precision=precision
    )
    if chosen.reason:  # not what the row's name says
        raise SystemExit(chosen.reason)
    loaded = LoadedModel(
        manifest=model,
        network=network,
        device="cpu",
        runtime=chosen.runtime,
        tta=bool(model.infer.tta_axes),
    )

    def run(channels: Tensor) -> NDArray[np.uint8]:
        labels = np.zeros(tuple(channels.shape[1:]), np.uint8)
        spans: tuple[slice, ...] = (slice(None),) * 3
        if model.infer.crop == "foreground":
            used = [np.flatnonzero((channels != 0).any(0).any(a).any(b)) for a, b in _OTHERS]
            spans = tuple(slice(int(one[0]), int(one[-1]) + 1) for one in used)
        part = channels[(slice(None), *spans)].contiguous()
        labels[spans] = most_probable(windows.run(part, loaded)).numpy()
        return labels

    return run


_OTHERS: Final = ((2, 1), (2, 0), (1, 0))  # axes to reduce, one after the other, for x, y, z


# -- the run --------------------------------------------------------------------------------------


def compare(rounds: int, names: Sequence[str] = tuple(NETWORKS)) -> list[Comparison]:
    """Return the engine's ways beside the plain call, for each network."""
    whole = measured_image()
    found = []
    for name in names:
        network = fitted(name, STEPS[name])
        image = whole if name == "unet" else middle(whole)
        np.save(KEPT / "channels.npy", image.channels.numpy())
        np.save(KEPT / "truth.npy", image.truth)
        save(network, KEPT / "weights.safetensors")
        can_halve = _can_halve(network)
        ways: list[Way] = ["engine", "half"] if can_halve else ["engine"]
        if image is whole:  # the middle lies within the brain
            ways.append("half-crop" if can_halve else "crop")
        found += [_compared(name, way, (), min(rounds, _MOST_ROUNDS)) for way in ways]
        found.append(_compared(name, "half" if can_halve else "engine", (0,), 1))
    return found


def _can_halve(network: nn.Module) -> bool:
    """Say whether the node would compute in half precision here."""
    chosen = choosing.choose(
        network, "cpu", window=WINDOW, channels=4, threads=torch.get_num_threads()
    )
    if chosen.reason:
        say(chosen.reason)
    return isinstance(chosen.runtime, OpenVinoRuntime) and chosen.runtime.half


def _compared(name: str, way: Way, axes: tuple[int, ...], rounds: int) -> Comparison:
    found: dict[str, list[dict[str, float]]] = {"monai": [], way: []}
    for _ in range(rounds):
        for one, rows in found.items():
            rows.append(_in_a_process(name, one, axes))
    peer, ours = (
        {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for rows in found.values()
    )
    theirs, labels = np.load(KEPT / "monai.npy"), np.load(KEPT / f"{way}.npy")
    truth = np.load(KEPT / "truth.npy")
    size = "whole" if name == "unet" else "middle"
    copies = f", {2 ** len(axes)} copies" if axes else ""
    return Comparison(
        name=f"{name}, {size}{copies}, {_SAYS[way]}",
        unit="s",
        peer="MONAI",
        ours=[row["wall_s"] for row in found[way]],
        theirs=[row["wall_s"] for row in found["monai"]],
        target=3.0,
        note=(
            f"labels equal {100 * float((theirs == labels).mean()):.4f} %, "
            f"Dice {_dices(theirs, labels)}; with the truth {_dices(truth, labels)}, "
            f"MONAI's {_dices(truth, theirs)}; peak {ours['peak_mib']:.0f} MiB, "
            f"MONAI's {peer['peak_mib']:.0f}; CPU ratio {peer['cpu_s'] / ours['cpu_s']:.2f}"
        ),
    )


def _dices(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> str:
    def dice(number: int) -> float:
        a, b = one == number, other == number
        both, all_of_them = np.count_nonzero(a & b), np.count_nonzero(a) + np.count_nonzero(b)
        return 2.0 * both / max(1.0, float(all_of_them))

    return " / ".join(f"{dice(number):.3f}" for number in (1, 2, 3))


def _in_a_process(name: str, way: str, axes: tuple[int, ...]) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.bench_engine", name, "--measure", way]
    command += ["--axes", ",".join(map(str, axes))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return row


def main() -> None:
    """Print the table, or take one measurement."""
    parser = argparse.ArgumentParser(description="Measure the engine against the plain MONAI call.")
    parser.add_argument("networks", nargs="*", help=f"of {', '.join(NETWORKS)}; all by default")
    parser.add_argument("--rounds", type=int, default=_MOST_ROUNDS)
    parser.add_argument("--measure", choices=("monai", *_SAYS), help=argparse.SUPPRESS)
    parser.add_argument("--axes", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        axes = tuple(int(axis) for axis in asked.axes.split(",") if axis)
        say(json.dumps(measure(asked.networks[0], asked.measure, axes)))
    else:
        say(comparison.table(compare(asked.rounds, asked.networks or tuple(NETWORKS))))


if __name__ == "__main__":
    main()
