"""Train the brain mask network on generated heads; see models/brain-mask/MODEL_CARD.md.

    python -m scripts.train_brain_mask --out var/brain-mask --steps 4000

Needs nilearn's packaged template beside the node's own packages (`pip install --no-deps nilearn`).
Every step draws its head from (seed, step), so that a run that was stopped goes on where it was:
the same command continues from the checkpoint in the output folder.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from inference.networks import ResidualUNet
from scripts.generated_heads import Template, draw_head, read_template
from scripts.training_run import TrainingRun, begin_with

CHANNELS = (8, 16, 32, 64)
_HELD_OUT_SEED = 10_000_019
_HELD_OUT_COUNT = 8
_AVERAGE = 0.99
_EVERY = 50


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint and weights")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after so long")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--start", type=Path, help="weights (safetensors) to begin with")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    _Training(options, read_template()).run()


class _Training:
    """The steps of a run."""

    def __init__(self, options: argparse.Namespace, template: Template) -> None:
        self.options, self.template = options, template
        network = ResidualUNet(1, 1, CHANNELS)
        begin_with(network, options.start)
        optimizer = torch.optim.AdamW(network.parameters(), betas=(0.9, 0.98))
        self.state = TrainingRun(network, optimizer, options.out, keep=_AVERAGE, lag=10)

    def run(self) -> None:
        """Train until the last step or the end of the time."""
        state, losses = self.state, []
        while state.step < self.options.steps:
            losses.append(self._one_step())
            if state.step % _EVERY == 0:
                mean = float(np.mean(losses[-_EVERY:]))
                print(
                    f"step {state.step} of {self.options.steps}, {state.seconds:.0f} s, {mean:.4f}",
                    flush=True,
                )
                state.save()
            if state.seconds > self.options.seconds:
                break
        state.save()
        print(f"Dice on {_HELD_OUT_COUNT} unseen generated heads: {self._held_out():.4f}")

    def _one_step(self) -> float:
        state = self.state
        rng = np.random.default_rng([self.options.seed, state.step])
        image, brain = draw_head(self.template, rng)
        spent = state.seconds / self.options.seconds
        done = min(1.0, max(state.step / self.options.steps, spent))
        rate = self.options.rate * min(1.0, (state.step + 1) / 30)
        state.set_rate(rate * (0.5 * (1 + math.cos(math.pi * done)) + 0.01))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = state.network(image[None, None])
        loss = _loss(scores.float()[0, 0], brain)
        state.follow(loss)
        return float(loss.detach())

    def _held_out(self) -> float:
        scores = []
        for number in range(_HELD_OUT_COUNT):
            rng = np.random.default_rng([_HELD_OUT_SEED, number])
            image, brain = draw_head(self.template, rng)
            with torch.inference_mode():
                found = self.state.average.eval()(image[None, None])[0, 0] > 0
            both = float((found & (brain > 0)).sum())
            scores.append(2 * both / float(found.sum() + brain.sum()))
        return float(np.mean(scores))


def _loss(scores: Tensor, brain: Tensor) -> Tensor:
    """Return soft Dice loss and cross-entropy together."""
    share = scores.sigmoid()
    dice = (2 * (share * brain).sum() + 1) / (share.sum() + brain.sum() + 1)
    return 1 - dice + functional.binary_cross_entropy_with_logits(scores, brain)


if __name__ == "__main__":
    main()
