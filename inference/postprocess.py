"""Scores on the model's grid to labels on the reference grid.

Probabilities are interpolated, labels are not: the boundary between two classes then lies where
their probabilities cross, and not on the edge of a coarse voxel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from converters.volume import Grid
from inference.errors import InvalidOutputError

_SLAB = 16  # reference slices at a time; bounds memory whatever the study's size
_EDGE = 1e-6  # voxels; keeps points on the grid's border inside it


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
    scores: Tensor, grid: Grid, reference: Grid, output_indices: tuple[int, ...]
) -> NDArray[np.uint8]:
    """Return the label of every voxel of the reference grid.

    Parameters
    ----------
    scores : (classes, x, y, z) tensor of float32
        The network's output before softmax.
    grid : Grid
        Where the scores lie; its axes are parallel to the reference's.
    reference : Grid
        Where labels are wanted.
    output_indices : tuple of int
        Network channel of label 0 (background), 1, 2, ...

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
    _check(scores, (len(output_indices), *grid.shape))
    labels = np.zeros(reference.shape, dtype=np.uint8)
    axes = sides(grid, reference)
    turned = scores.permute(0, *(1 + side.model_axis for side in axes))
    found = turned.argmax(dim=0) != output_indices[0]
    if not found.any():
        return labels
    spans = [_span(found, axis, side.positions) for axis, side in enumerate(axes)]
    box = turned[(slice(None), *(span.box for span in spans))]
    probabilities = torch.softmax(box[list(output_indices)], dim=0)
    slices, rows, columns = spans
    for first in range(0, slices.positions.size, _SLAB):
        block = _interpolated(probabilities, 1, slices.positions[first : first + _SLAB])
        block = _interpolated(block, 2, rows.positions)
        block = _interpolated(block, 3, columns.positions)
        start = slices.start + first
        target = labels[start : start + block.shape[1], rows.target, columns.target]
        target[...] = block.argmax(dim=0).numpy()
    return labels


def clip(
    labels: NDArray[np.uint8], brain: Callable[[Grid], NDArray[np.bool_]], reference: Grid
) -> None:
    """Set labels outside the brain to background, in place; only their box is looked at."""
    used = np.argwhere(labels)
    if used.size == 0:
        return
    first, last = used.min(axis=0), used.max(axis=0)
    box = tuple(slice(low, high + 1) for low, high in zip(first, last, strict=True))
    matrix = reference.index_to_lps_mm.copy()
    matrix[:3, 3] = reference.lps_mm(first.astype(np.float64))
    shape = tuple(int(count) for count in last - first + 1)
    part = Grid(
        shape=(shape[0], shape[1], shape[2]),
        index_to_lps_mm=matrix,
        frame_of_reference_uid=reference.frame_of_reference_uid,
    )
    labels[box][~brain(part)] = 0


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


def _check(scores: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(scores.shape) != expected:
        reason = f"shape is {tuple(scores.shape)}, expected {expected}"
        raise InvalidOutputError(reason=reason)
    bad_count = int((~torch.isfinite(scores)).sum())
    if bad_count:
        raise InvalidOutputError(reason=f"{bad_count} values are not finite")
