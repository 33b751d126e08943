"""Run a network over a volume in windows: the one sliding-window engine of the project.

Windows lie, and are blended, as in MONAI's ``sliding_window_inference``, with whose result a test
compares voxel for voxel. What differs is what it costs: windows of nothing but zeros are computed
once, the next windows compute while one is blended, and a computation can be stopped.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from torch import Tensor
from torch.nn import functional

from inference.activation import activated, scores_of
from inference.declarations import Infer
from inference.errors import DeviceMemoryError, InvalidOutputError, PredictionStoppedError
from inference.model import LoadedModel
from inference.runtime import Runtime, Stop, StoppedError, never

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the windows done and the windows in all."""

_CPU_EXHAUSTED: Final = "can't allocate memory"  # torch has no class for it, only these words


@dataclass(slots=True)
class _Count:
    """Windows done of all, over every mirrored copy."""

    total: int
    progress: Progress
    done: int = 0

    def one_more(self) -> None:
        self.done += 1
        self.progress(self.done, self.total)


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
        The network, its window plan, and whether mirrored copies are averaged.
    progress : callable, optional
        Called after each window.
    stop : callable, optional
        Asked all the time; True ends the computation within a fraction of a second.

    Returns
    -------
    (classes, x, y, z) tensor of float32
        On the CPU, whatever the device. Of several mirrored copies those scores whose activation
        is the mean of the copies' probabilities.

    Raises
    ------
    DeviceMemoryError
        The device has too little memory for one window, or the machine for the scores.
    PredictionStoppedError
        `stop` said so.
    InvalidOutputError
        The network gives no single output on the grid of its input.
    """
    plan = _plan_for(channels, model.manifest.infer)
    copies = mirrors(plan.tta_axes if model.tta else ())
    extent = tuple(channels.shape[1:])
    count = _Count(len(copies) * count_windows(extent, plan), progress or _silent)
    try:
        return _mean_of_copies(channels, model, plan, copies, count, stop or never)
    except StoppedError as error:
        raise PredictionStoppedError(windows_done=count.done, window_count=count.total) from error
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _exhausted(plan, count) from error
    except RuntimeError as error:
        if _CPU_EXHAUSTED not in str(error):
            raise
        raise _exhausted(plan, count) from error


def _exhausted(plan: Infer, count: _Count) -> DeviceMemoryError:
    return DeviceMemoryError(window_count=count.total, voxels=math.prod(plan.window))


def _silent(_done: int, _total: int) -> None:
    """Report to nobody."""


def _plan_for(channels: Tensor, plan: Infer) -> Infer:
    """Return the plan; for a whole image that of one window that holds all of it."""
    if plan.mode == "sliding":
        return plan
    step = plan.multiple_of
    sides = tuple(step * math.ceil(extent / step) for extent in channels.shape[1:])
    return plan.model_copy(update={"window": sides, "overlap": 0.0, "blending": "constant"})


def mirrors(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Return every combination of axes to mirror, none of them first."""
    counts = range(len(axes) + 1)
    return [chosen for count in counts for chosen in itertools.combinations(axes, count)]


def _mean_of_copies(
    channels: Tensor,
    model: LoadedModel,
    plan: Infer,
    copies: list[tuple[int, ...]],
    count: _Count,
    stop: Stop,
) -> Tensor:
    if len(copies) == 1:
        return _slide(channels, model.runtime, plan, count, stop)
    activation = model.manifest.output.activation
    mean: Tensor | None = None
    for axes in copies:
        turned = [axis + 1 for axis in axes]
        scores = _slide(channels.flip(turned), model.runtime, plan, count, stop).flip(turned)
        share = activated(scores, activation).div_(len(copies))
        mean = share if mean is None else mean.add_(share)
    if mean is None:
        raise InvalidOutputError(reason="no copy was run")
    return scores_of(mean, activation)


# -- windows --------------------------------------------------------------------------------------


def _steps(extent: Sequence[int], plan: Infer) -> tuple[int, ...]:
    """Return how far windows move along each axis; along one that holds a single one: its side."""
    pairs = zip(extent, plan.window, strict=True)
    return tuple(
        side if size <= side else max(1, int(side * (1.0 - plan.overlap))) for size, side in pairs
    )


def count_windows(extent: tuple[int, ...], plan: Infer) -> int:
    """Return how many windows the engine lays over a volume."""
    total = 1
    for size, side, step in zip(extent, plan.window, _steps(extent, plan), strict=True):
        total *= 1 if size <= side else math.ceil((size - side) / step) + 1
    return total


def _slide(channels: Tensor, runtime: Runtime, plan: Infer, count: _Count, stop: Stop) -> Tensor:
    """Return the blended scores of all windows over a volume."""
    sizes = channels.shape[1:]
    before = [max(side - size, 0) // 2 for size, side in zip(sizes, plan.window, strict=True)]
    padded = _padded(channels, plan.window, before)
    extent = tuple(padded.shape[1:])
    places = dense_patch_slices(extent, plan.window, _steps(extent, plan))
    is_empty = [not bool(padded[(slice(None), *place)].any()) for place in places]
    blended = _Blend(extent, plan)
    with contextlib.closing(runtime.scores(_to_compute(padded, places, is_empty), stop)) as found:
        of_nothing = next(found) if any(is_empty) else None
        for place, empty in zip(places, is_empty, strict=True):
            scores = of_nothing if empty and of_nothing is not None else next(found)
            blended.add(scores[0], place)
            count.one_more()
    spans = (slice(start, start + size) for start, size in zip(before, sizes, strict=True))
    return blended.mean()[(slice(None), *spans)]


def _padded(channels: Tensor, window: Sequence[int], before: Sequence[int]) -> Tensor:
    sizes = zip(channels.shape[1:], window, before, strict=True)
    pads = [(start, max(side - size, 0) - start) for size, side, start in sizes]
    if not any(map(any, pads)):
        return channels
    return functional.pad(channels, [count for pair in reversed(pads) for count in pair])


def _to_compute(
    padded: Tensor, places: Sequence[tuple[slice, ...]], is_empty: Sequence[bool]
) -> Iterator[Tensor]:
    """Return the windows that are computed: one of zeros for all empty ones, then the others."""
    if any(is_empty):
        yield torch.zeros_like(padded[(slice(None), *places[0])])[None]
    for place, empty in zip(places, is_empty, strict=True):
        if not empty:
            yield padded[(slice(None), *place)][None]


class _Blend:
    """The weighted mean of overlapping windows."""

    def __init__(self, extent: tuple[int, ...], plan: Infer) -> None:
        self._window = tuple(plan.window)
        self._weight = compute_importance_map(self._window, mode=plan.blending)
        self._weights = torch.zeros(extent)
        self._sum: Tensor | None = None

    def add(self, scores: Tensor, place: tuple[slice, ...]) -> None:
        """Add the (classes, x, y, z) scores of one window."""
        if tuple(scores.shape[1:]) != self._window:
            reason = f"scores lie on {tuple(scores.shape[1:])}, expected {self._window}"
            raise InvalidOutputError(reason=reason)
        if self._sum is None:
            self._sum = torch.zeros(scores.shape[0], *self._weights.shape)
        self._sum[(slice(None), *place)].addcmul_(scores, self._weight)
        self._weights[place] += self._weight

    def mean(self) -> Tensor:
        """Return the (classes, x, y, z) mean; every voxel was under some window."""
        if self._sum is None:
            raise InvalidOutputError(reason="no window was run")
        return self._sum.div_(self._weights)
