"""The state of a training on disk, and one step of it, whatever is trained."""

from __future__ import annotations

import copy
import time
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class TrainingRun:
    """A network, its average over the last steps and its optimizer; goes on where it was stopped.

    Parameters
    ----------
    network : nn.Module
        What is trained, on its device.
    optimizer : Optimizer
        Of its parameters.
    folder : Path
        Of ``checkpoint.pt`` and of the averaged weights, ``model.safetensors`` in half precision.
    keep : float
        How much of the average a step leaves, once there have been many.
    lag : int
        About how many steps it takes until there have been.
    """

    def __init__(
        self, network: nn.Module, optimizer: Optimizer, folder: Path, *, keep: float, lag: int
    ) -> None:
        self.network, self.optimizer, self.folder = network, optimizer, folder
        self.average = copy.deepcopy(network)
        self._keep, self._lag = keep, lag
        self.step, self.began = 0, time.monotonic()
        self._resume()
        self.first = self.step

    @property
    def seconds(self) -> float:
        """How long this piece of the training has run."""
        return time.monotonic() - self.began

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def _resume(self) -> None:
        if not self._checkpoint.exists():
            return
        state = torch.load(self._checkpoint, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])
        print(f"goes on at step {self.step}", flush=True)

    def set_rate(self, rate: float) -> None:
        """Give every parameter this learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def follow(self, loss: Tensor) -> None:
        """Go one step down the gradient of a loss."""
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        keep = min(self._keep, self.step / (self.step + self._lag))
        with torch.no_grad():
            for kept, new in zip(self.average.parameters(), self.network.parameters(), strict=True):
                kept.lerp_(new, 1 - keep)

    def save(self) -> None:
        """Write checkpoint and averaged weights."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }
        part = self._checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self._checkpoint)
        halves = {
            name: one.half().contiguous().cpu() for name, one in self.average.state_dict().items()
        }
        safetensors.torch.save_file(halves, self.folder / "model.safetensors")


def begin_with(network: nn.Module, weights: Path | None) -> None:
    """Fill a network with weights that were kept; None leaves it as it is."""
    if weights is not None:
        kept = safetensors.torch.load_file(weights)
        network.load_state_dict({name: one.float() for name, one in kept.items()})
