"""Scores on the model's grid to labels on the reference grid.

Probabilities are interpolated, labels are not: the boundary between two classes then lies where
their probabilities cross, and not on the edge of a coarse voxel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from converters.volume import PROBABILITY_OF_ONE, Grid
from inference.activation import Activation, activated, most_probable
from inference.errors import InvalidOutputError
from inference.manifest import Manifest

_SLAB = 16  # reference slices at a time; bounds memory whatever the study's size
_EDGE = 1e-6  # voxels; keeps points on the grid's border inside it
HALF: Final = 0.5
"""From which probability on a region holds, unless the manifest says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the channels of a network's output mean.

    Parameters
    ----------
    activation : {"softmax", "sigmoid"}
        One class each, or regions by themselves that are painted in order.
    output_indices : tuple of int
        Channel of label 0 (background; softmax only), 1, 2, ...
    thresholds : tuple of float
        From which probability on label 1, 2, ... holds (sigmoid only).
    """

    activation: Activation
    output_indices: tuple[int, ...]
    thresholds: tuple[float, ...] = ()


def reading_of(manifest: Manifest) -> Reading:
    """Return what a manifest says of the network's output."""
    activation = manifest.output.activation
    thresholds = tuple(entry.threshold or HALF for entry in manifest.labels)
    return Reading(
        activation=activation,
        output_indices=manifest.output_indices,
        thresholds=thresholds if activation == "sigmoid" else (),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Side:
    """Where the voxels along one axis of the reference lie along one axis of the model."""

    model_axis: int
    positions: NDArray[np.float64]


def sides(grid: Grid, reference: Grid) -> tuple[Side, Side, Side]:
    """Return, for each axis of the reference, its voxels' places on the model's grid.

    Both grids have parallel axes (`preprocess.model_grid`), so that one number per axis says it.
    """
    to_model = np.linalg.inv(grid.index_to_lps_mm) @ reference.index_to_lps_mm

    def side(axis: int) -> Side:
        model_axis = int(np.abs(to_model[:3, axis]).argmax())
        step, start = to_model[model_axis, axis], to_model[model_axis, 3]
        positions = start + step * np.arange(reference.shape[axis])
        return Side(model_axis=model_axis, positions=positions)

    return side(0), side(1), side(2)


def labels_on_reference(
    scores: Tensor, grid: Grid, reference: Grid, reading: Reading
) -> NDArray[np.uint8]:
    """Return the label of every voxel of the reference grid.

    Parameters
    ----------
    scores : (classes, x, y, z) tensor of float32
        The network's output before activation.
    grid : Grid
        Where the scores lie; its axes are parallel to the reference's.
    reference : Grid
        Where labels are wanted.
    reading : Reading
        What each channel means.

    Returns
    -------
    (slices, rows, columns) ndarray of uint8
        Outside the model's grid everything is background.

    Raises
    ------
    InvalidOutputError
        Wrong number of channels, wrong extent, or a value that is not finite.

    Notes
    -----
    Only the box around voxels that are not background is interpolated: between voxels that are
    all background, background stays the most probable.
    """
    check(scores, (len(reading.output_indices), *grid.shape))
    labels = np.zeros(reference.shape, dtype=np.uint8)
    axes = sides(grid, reference)
    turned = scores.permute(0, *(1 + side.model_axis for side in axes))
    found = _is_something(turned, reading)
    if not found.any():
        return labels
    spans = [_span(found, axis, side.positions) for axis, side in enumerate(axes)]
    box = turned[(slice(None), *(span.box for span in spans))]
    probabilities = activated(box, reading.activation)[list(reading.output_indices)]
    slices, rows, columns = spans
    for first in range(0, slices.positions.size, _SLAB):
        block = _interpolated(probabilities, 1, slices.positions[first : first + _SLAB])
        block = _interpolated(block, 2, rows.positions)
        block = _interpolated(block, 3, columns.positions)
        start = slices.start + first
        target = labels[start : start + block.shape[1], rows.target, columns.target]
        target[...] = _labels(block, reading).numpy()
    return labels


def _is_something(scores: Tensor, reading: Reading) -> Tensor:
    """Return where some label holds, from (classes, ...) scores in the network's order."""
    found = torch.zeros_like(scores[0], dtype=torch.bool)
    if reading.activation == "softmax":
        background, *labels = reading.output_indices
        for index in labels:
            found |= scores[index] > scores[background]
        return found
    for index, threshold in zip(reading.output_indices, reading.thresholds, strict=True):
        found |= scores[index] >= math.log(threshold / (1.0 - threshold))
    return found


def _labels(probabilities: Tensor, reading: Reading) -> Tensor:
    """Return the labels of (labels, ...) probabilities in the order of the label numbers."""
    if reading.activation == "softmax":
        return most_probable(probabilities)
    labels = torch.zeros(probabilities.shape[1:], dtype=torch.uint8)
    for number, threshold in enumerate(reading.thresholds, start=1):
        labels[probabilities[number - 1] >= threshold] = number
    return labels


def on_reference(field: Tensor, grid: Grid, reference: Grid) -> NDArray[np.float32]:
    """Return an (x, y, z) field of the model's grid on the reference grid; 0 where that ends."""
    values = np.zeros(reference.shape, dtype=np.float32)
    for target, block in _slabs(field[None], grid, reference):
        values[target] = block[0].numpy()
    return values


def probabilities_on_reference(
    scores: Tensor, grid: Grid, reference: Grid, reading: Reading
) -> NDArray[np.uint8]:
    """Return the probability of each label on the reference grid, 255 for 1; 0 beyond the model's.

    Parameters
    ----------
    scores, grid, reference, reading
        As in `labels_on_reference`, which has checked the scores. A label's probability is that of
        its channel.

    Returns
    -------
    (labels, slices, rows, columns) ndarray of uint8
        The nearest step; a slab at a time is computed, so that nothing larger is held.
    """
    channels = list(reading.output_indices)
    first = 1 if reading.activation == "softmax" else 0  # the background's is the rest
    values = np.zeros((len(channels) - first, *reference.shape), dtype=np.uint8)
    for target, block in _slabs(
        scores, grid, reference, lambda part: activated(part, reading.activation)[channels[first:]]
    ):
        values[:, *target] = (block * PROBABILITY_OF_ONE).round_().to(torch.uint8).numpy()
    return values


def _slabs(
    fields: Tensor,
    grid: Grid,
    reference: Grid,
    prepare: Callable[[Tensor], Tensor] = lambda part: part,
) -> Iterator[tuple[tuple[slice, slice, slice], Tensor]]:
    """Yield parts of the reference that the model's grid covers, with the fields there.

    `prepare` is applied to what a part needs of the fields, before it is interpolated.
    """
    axes = sides(grid, reference)
    turned = fields.permute(0, *(1 + side.model_axis for side in axes))
    seen = [
        np.flatnonzero((side.positions >= -HALF) & (side.positions <= count - HALF))
        for side, count in zip(axes, turned.shape[1:], strict=True)
    ]
    if not all(indices.size for indices in seen):
        return
    last = turned.shape[1] - 1
    rows, columns = (slice(int(indices[0]), int(indices[-1]) + 1) for indices in seen[1:])
    for start in range(0, seen[0].size, _SLAB):
        slices = seen[0][start : start + _SLAB]
        places = np.clip(axes[0].positions[slices], 0.0, last)
        low, high = math.floor(places.min()), min(last, math.ceil(places.max()))
        block = prepare(turned[:, low : high + 1])
        block = _interpolated(block, 1, places - low)
        block = _interpolated(block, 2, axes[1].positions[seen[1]])
        block = _interpolated(block, 3, axes[2].positions[seen[2]])
        yield (slice(int(slices[0]), int(slices[-1]) + 1), rows, columns), block


def clip(
    labels: NDArray[np.uint8], brain: Callable[[Grid], NDArray[np.bool_]], reference: Grid
) -> float:
    """Set labels outside the brain to background, in place, and return which share of all it was.

    Only the box of all labels is looked at; where there are none, the share is 0.
    """
    (box,) = ndimage.find_objects(labels != 0, max_label=1)
    if box is None:
        return 0.0
    part = labels[box]
    found = part != 0
    outside = found & ~brain(reference.part(box))
    part[outside] = 0
    return float(np.count_nonzero(outside) / np.count_nonzero(found))


def share_outside(
    labels: NDArray[np.uint8], brain: Callable[[Grid], NDArray[np.bool_]], reference: Grid
) -> float:
    """Return which share of the labelled voxels lies outside the brain; 0 where there are none."""
    return clip(labels.copy(), brain, reference)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Span:
    """The part of one axis that can hold labels.

    `box` is the part of the scores that is needed, `start` the first reference voxel, `positions`
    the places of that one and its successors within the box.
    """

    box: slice
    start: int
    positions: NDArray[np.float64]

    @property
    def target(self) -> slice:
        return slice(self.start, self.start + self.positions.size)


def _span(found: Tensor, axis: int, positions: NDArray[np.float64]) -> _Span:
    others = tuple(other for other in range(3) if other != axis)
    used = np.flatnonzero(found.any(dim=others).numpy())
    last = found.shape[axis] - 1
    low, high = max(0, int(used[0]) - 1), min(last, int(used[-1]) + 1)
    near = (positions > used[0] - 1) & (positions < used[-1] + 1)
    near &= (positions >= -0.5 - _EDGE) & (positions <= last + 0.5 + _EDGE)
    indices = np.flatnonzero(near)
    start = int(indices[0]) if indices.size else 0
    return _Span(box=slice(low, high + 1), start=start, positions=positions[indices] - low)


def _interpolated(block: Tensor, axis: int, positions: NDArray[np.float64]) -> Tensor:
    """Return a block at places along one axis; beyond its ends the end values hold."""
    last = block.shape[axis] - 1
    places = np.clip(positions, 0.0, last)
    lower = np.floor(places).astype(np.int64)
    weight = torch.from_numpy((places - lower).astype(np.float32))
    shape = [1] * block.ndim
    shape[axis] = -1
    return torch.lerp(
        block.index_select(axis, torch.from_numpy(lower)),
        block.index_select(axis, torch.from_numpy(np.minimum(lower + 1, last))),
        weight.view(shape),
    )


def check(scores: Tensor, expected: tuple[int, ...]) -> None:
    """Raise `InvalidOutputError` unless scores have a shape and are finite."""
    if tuple(scores.shape) != expected:
        reason = f"shape is {tuple(scores.shape)}, expected {expected}"
        raise InvalidOutputError(reason=reason)
    bad_count = int((~torch.isfinite(scores)).sum())
    if bad_count:
        raise InvalidOutputError(reason=f"{bad_count} values are not finite")
