"""Train the brain mask network on generated heads; see models/brain-mask/MODEL_CARD.md.

    python -m scripts.train_brain_mask --out var/brain-mask --steps 4000

Needs nilearn's packaged template beside the node's own packages (`pip install --no-deps nilearn`).
Every step draws its head from (seed, step), so that a run that was stopped goes on where it was:
the same command continues from the checkpoint in the output folder.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.networks import ResidualUNet
from scripts.generated_heads import Template, draw_head, read_template

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
    """A run and its state on disk."""

    def __init__(self, options: argparse.Namespace, template: Template) -> None:
        self.options, self.template = options, template
        self.network = ResidualUNet(1, 1, CHANNELS)
        if options.start is not None:
            weights = safetensors.torch.load_file(options.start)
            self.network.load_state_dict({name: one.float() for name, one in weights.items()})
        self.average = copy.deepcopy(self.network)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), betas=(0.9, 0.98))
        self.step, self.began = 0, time.monotonic()
        self._resume()

    @property
    def _checkpoint(self) -> Path:
        return Path(self.options.out) / "checkpoint.pt"

    def _resume(self) -> None:
        if not self._checkpoint.exists():
            return
        state = torch.load(self._checkpoint, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])
        print(f"goes on at step {self.step}")

    def run(self) -> None:
        """Train until the last step or the end of the time."""
        losses = []
        while self.step < self.options.steps:
            losses.append(self._one_step())
            if self.step % _EVERY == 0:
                seconds = time.monotonic() - self.began
                mean = float(np.mean(losses[-_EVERY:]))
                print(
                    f"step {self.step} of {self.options.steps}, {seconds:.0f} s, {mean:.4f}",
                    flush=True,
                )
                self._save()
            if time.monotonic() - self.began > self.options.seconds:
                break
        self._save()
        print(f"Dice on {_HELD_OUT_COUNT} unseen generated heads: {self._held_out():.4f}")

    def _one_step(self) -> float:
        rng = np.random.default_rng([self.options.seed, self.step])
        image, brain = draw_head(self.template, rng)
        spent = (time.monotonic() - self.began) / self.options.seconds
        done = min(1.0, max(self.step / self.options.steps, spent))
        rate = self.options.rate * min(1.0, (self.step + 1) / 30)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * (0.5 * (1 + math.cos(math.pi * done)) + 0.01)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = self.network(image[None, None])
        loss = _loss(scores.float()[0, 0], brain)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        with torch.no_grad():
            for kept, new in zip(self.average.parameters(), self.network.parameters(), strict=True):
                kept.lerp_(new, 1 - min(_AVERAGE, self.step / (self.step + 10)))
        return float(loss.detach())

    def _save(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }
        part = self._checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self._checkpoint)
        halves = {name: one.half().contiguous() for name, one in self.average.state_dict().items()}
        safetensors.torch.save_file(halves, self._checkpoint.with_name("model.safetensors"))

    def _held_out(self) -> float:
        scores = []
        for number in range(_HELD_OUT_COUNT):
            rng = np.random.default_rng([_HELD_OUT_SEED, number])
            image, brain = draw_head(self.template, rng)
            with torch.inference_mode():
                found = self.average.eval()(image[None, None])[0, 0] > 0
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
