# ruff: noqa: PLR2004 - the numbers are shares from which samples are drawn
"""Train the demonstration model on generated studies; see models/demo-glioma/MODEL_CARD.md.

    python -m scripts.train_demo_model --out var/train-demo --steps 40000

Needs nilearn's packaged template beside the node's own packages (`pip install --no-deps nilearn`).
Scenes are drawn when they are first needed and kept in the output folder; every sample is drawn
from (seed, number of the sample). The same command goes on from the checkpoint in the output
folder; with `--seconds` a long training can be done in pieces. Runs on a GPU where there is one.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from inference.networks import StridedUNet
from scripts.generated_studies import anatomy, imaging
from scripts.generated_studies.fields import Rng
from scripts.generated_studies.scene import draw_scene
from scripts.training_run import TrainingRun, begin_with

CHANNELS = (24, 48, 96, 128)
FINE = 8
WINDOW = (80, 96, 80)
FIRST_SEED = 1000  # of the training scenes; smaller ones are held out
_CLASS_WEIGHTS = (1.0, 2.0, 2.5, 3.0)
_AVERAGE = 0.998
_EVERY = 50
_SHOWN = 100  # voxels from which on a region counts in the report
_AT_FIRST, _EVERY_NEW = 16, 25  # scenes to draw from at first; then one more every 25 samples
_REGIONS = ("whole tumour", "core", "enhancing")


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="scenes, checkpoint, weights")
    parser.add_argument("--steps", type=int, default=40_000, help="end of the whole training")
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after so long")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="highest learning rate")
    parser.add_argument("--scenes", type=int, default=400, help="different heads to draw from")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw samples")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--start", type=Path, help="weights (safetensors) to begin with")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    (options.out / "scenes").mkdir(parents=True, exist_ok=True)
    _Training(options).run()


class _Samples(IterableDataset[tuple[Tensor, Tensor]]):
    """Windows of generated studies, without end: (4, x, y, z) images and (x, y, z) labels."""

    def __init__(self, options: argparse.Namespace, first: int) -> None:
        self.options, self.first = options, first

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        torch.set_num_threads(1)
        worker = get_worker_info()
        number, every = (0, 1) if worker is None else (worker.id, worker.num_workers)
        number += self.first
        while True:
            yield self._sample(number)
            number += every

    def _sample(self, number: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self.options.seed, number])
        among = min(self.options.scenes, _AT_FIRST + number // _EVERY_NEW)
        scene = self._scene(FIRST_SEED + int(rng.integers(among)))
        window = _window(scene[imaging.LABELS], scene[imaging.PARTS], rng)
        brain = imaging.brain_sample(scene, rng)
        part = scene[(slice(None), *window)].contiguous()
        images = imaging.expose(part, rng, scan=imaging.draw_scan(rng), whole=brain)
        labels = part[imaging.LABELS].long()
        if rng.random() < 0.12:
            images[int(rng.choice(4, p=[0.15, 0.35, 0.15, 0.35]))] = 0.0
        axes = [axis for axis, share in enumerate((0.5, 0.15, 0.15)) if rng.random() < share]
        return images.flip([axis + 1 for axis in axes]), labels.flip(axes)

    def _scene(self, seed: int) -> Tensor:
        path = self.options.out / "scenes" / f"{seed:06d}.npy"
        if not path.exists():
            part = path.with_suffix(f".{os.getpid()}.npy")
            np.save(part, draw_scene(seed).numpy())
            part.replace(path)
        return torch.from_numpy(np.load(path, mmap_mode="c"))


def _window(labels: Tensor, parts: Tensor, rng: Rng) -> tuple[slice, ...]:
    """Return a window: around a voxel of the tumour in two of three, else of the brain."""
    tumour = torch.nonzero(labels[::2, ::2, ::2]) * 2
    places = tumour
    if len(tumour) == 0 or rng.random() > 0.66:
        places = torch.nonzero(parts[::4, ::4, ::4] == anatomy.BRAIN) * 4
    centre = places[int(rng.integers(len(places)))].numpy() + rng.integers(-16, 17, 3)
    first = [
        int(np.clip(at - size // 2, 0, extent - size))
        for at, size, extent in zip(centre, WINDOW, labels.shape, strict=True)
    ]
    return tuple(slice(low, low + size) for low, size in zip(first, WINDOW, strict=True))


class _Training:
    """The steps of a run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network = StridedUNet(4, 4, CHANNELS, FINE)
        begin_with(network, options.start)
        network.to(self.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-3, betas=(0.9, 0.98))
        self.state = TrainingRun(network, optimizer, options.out, keep=_AVERAGE, lag=20)
        self.weights = torch.tensor(_CLASS_WEIGHTS, device=self.device)

    def run(self) -> None:
        """Train until the last step or the end of the time."""
        options, state = self.options, self.state
        samples = DataLoader(
            _Samples(options, state.step * options.batch),
            batch_size=options.batch,
            num_workers=options.workers,
            prefetch_factor=8 if options.workers else None,
        )
        losses: list[list[float]] = []
        for images, labels in samples:
            if state.step >= options.steps or state.seconds > options.seconds:
                break
            losses.append(self._one_step(images, labels))
            if state.step % _EVERY == 0:
                self._report(losses[-4 * _EVERY :])
            if state.step % (5 * _EVERY) == 0:
                state.save()
        state.save()
        print(f"weights: {options.out / 'model.safetensors'}")

    def _report(self, losses: list[list[float]]) -> None:
        state, options = self.state, self.options
        pace = state.seconds / (state.step - state.first)
        left = min(options.seconds - state.seconds, (options.steps - state.step) * pace)
        mean = np.nanmean(losses, axis=0)
        regions = ", ".join(f"{n} {v:.3f}" for n, v in zip(_REGIONS, mean[1:], strict=True))
        print(
            f"step {state.step} of {options.steps}, {pace:.2f} s each, {left / 60:.0f} min"
            f" left, loss {mean[0]:.3f}, soft Dice: {regions}",
            flush=True,
        )

    def _one_step(self, images: Tensor, labels: Tensor) -> list[float]:
        state = self.state
        done = state.step / self.options.steps
        rate = self.options.rate * min(1.0, (state.step + 1) / 40)
        state.set_rate(rate * (0.5 * (1 + math.cos(math.pi * done)) + 0.005))
        images = images.to(self.device, memory_format=torch.channels_last_3d)
        labels = labels.to(self.device)
        is_cuda = self.device.type == "cuda"  # processors without it take a hundred times longer
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=is_cuda):
            scores = state.network(images)
        loss, regions = _loss(scores.float(), labels, self.weights)
        state.follow(loss)
        return [float(loss.detach()), *(float(one) for one in regions.detach())]


def _loss(scores: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return weighted cross-entropy plus soft Dice losses, and the regions' soft Dice.

    The soft Dice of a region that is hardly there is no number.
    """
    chances = scores.softmax(1)
    pairs = (
        (chances[:, 1:].sum(1), labels > 0),
        (chances[:, 2:].sum(1), labels > 1),
        (chances[:, 3], labels == 3),
        (chances[:, 1], labels == 1),
        (chances[:, 2], labels == 2),
    )
    dice = torch.stack(
        [
            1 - (2 * (chance * truth).sum() + 20) / (chance.sum() + truth.sum() + 20)
            for chance, truth in pairs
        ]
    )
    shown = torch.stack([truth.sum() > _SHOWN for _, truth in pairs[:3]])
    regions = torch.where(shown, 1 - dice[:3], torch.nan)
    return dice.mean() + functional.cross_entropy(scores, labels, weights), regions


if __name__ == "__main__":
    main()
