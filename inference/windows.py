"""Run a network over a volume in windows: the one sliding-window engine of the project."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn

from inference.declarations import Infer
from inference.errors import DeviceMemoryError, InvalidOutputError, PredictionStoppedError
from inference.model import LoadedModel

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the windows done and the windows in all."""

Stop: TypeAlias = Callable[[], bool]
"""Says whether the result is no longer wanted; asked often, so it has to answer at once."""

_BATCH = 1  # windows at a time; a batch of 2 cost memory and gained nothing on CPU
_CPU_EXHAUSTED = "can't allocate memory"  # torch has no class for it, only these words


class _Counting(nn.Module):
    """Report each window that a network has done."""

    def __init__(self, network: nn.Module, total: int, progress: Progress, stop: Stop) -> None:
        super().__init__()
        self.network, self.total, self.progress, self.stop = network, total, progress, stop
        self.done = 0

    def forward(self, window: Tensor) -> Tensor:
        if self.stop():
            raise PredictionStoppedError(windows_done=self.done, window_count=self.total)
        scores: Tensor = self.network(window)
        self.done += window.shape[0]
        self.progress(self.done, self.total)
        return scores


def run(
    channels: Tensor,
    model: LoadedModel,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Tensor:
    """Return the network's scores before activation, on the grid of its input.

    Parameters
    ----------
    channels : (channels, x, y, z) tensor of float32
        Normalised intensities. A volume smaller than the window is padded with 0 on both sides.
    model : LoadedModel
        The network and its window plan.
    progress : callable, optional
        Called after each window.
    stop : callable, optional
        Asked before each window.

    Returns
    -------
    (classes, x, y, z) tensor of float32
        On the CPU, whatever the device.

    Raises
    ------
    DeviceMemoryError
        The device has too little memory for one window, or the machine for the scores.
    PredictionStoppedError
        `stop` said so.
    """
    plan = model.manifest.infer
    total = count_windows(tuple(channels.shape[1:]), plan)
    network = _Counting(model.network, total, progress or _silent, stop or _never).eval()
    exhausted = DeviceMemoryError(window_count=total, voxels=math.prod(plan.window))
    try:
        return _slide(channels, network, plan, model.device)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise exhausted from error
    except RuntimeError as error:
        if _CPU_EXHAUSTED not in str(error):
            raise
        raise exhausted from error


def _silent(_done: int, _total: int) -> None:
    """Report to nobody."""


def _never() -> bool:
    return False


def count_windows(extent: tuple[int, ...], plan: Infer) -> int:
    """Return how many windows the engine lays over a volume."""
    total = 1
    for size, side in zip(extent, plan.window, strict=True):
        step = max(1, int(side * (1.0 - plan.overlap)))
        total *= 1 if size <= side else math.ceil((size - side) / step) + 1
    return total


def _slide(channels: Tensor, network: nn.Module, plan: Infer, device: str) -> Tensor:
    with torch.inference_mode():
        batch = sliding_window_inference(
            channels[None],
            plan.window,
            _BATCH,
            network,
            overlap=plan.overlap,
            mode=plan.blending,
            sw_device=device,
            device="cpu",
        )
    if not isinstance(batch, Tensor):
        raise InvalidOutputError(reason="several outputs, expected one")
    return batch[0]
