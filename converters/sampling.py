"""Values between the voxels of an array, on a regular lattice: linear, in single precision.

Tiles of a slice at a time, so that every array of the sum stays in the processor's cache; the
general spline routine of scipy takes three to four times as long for the same values.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

HALF: Final = 0.501
"""Of a voxel; a point that rounding puts a little beyond the border is still on it."""

_TILE: Final = 2**15  # voxels at a time; a quarter of it and four times as many are slower


def linear(
    values: NDArray[np.float32],
    to_index: NDArray[np.float64],
    shape: tuple[int, int, int],
    margin: NDArray[np.float64] | float = HALF,
) -> NDArray[np.float32]:
    """Return an array sampled at every index of a lattice.

    Parameters
    ----------
    values : (n, m, l) ndarray of float32
        What is sampled.
    to_index : (4, 4) ndarray of float64
        From an index of the lattice to where it lies among the voxels of `values`.
    shape : tuple of int
        Of the lattice.
    margin : float or (3,) ndarray of float64, optional
        How far beyond the outermost voxel centres, in voxels along each axis, the outermost values
        hold; what lies farther is 0.

    Returns
    -------
    ndarray of float32
        In the shape of the lattice.

    Notes
    -----
    Positions are good to a ten-thousandth of a voxel in arrays of a thousand voxels a side.
    """
    sampled = np.zeros(shape, np.float32)
    last = np.subtract(values.shape, 1.0)
    low, high = -np.broadcast_to(margin, 3), last + margin
    rows_at_once = max(1, min(_TILE // shape[2], shape[1]))
    tile = _Tile(values, rows_at_once, shape[2])
    for index, first in itertools.product(range(shape[0]), range(0, shape[1], rows_at_once)):
        target = sampled[index, first : first + rows_at_once]
        at = tile.place(to_index, index, first, len(target))
        corners = at[:, :: max(len(target) - 1, 1), :: max(shape[2] - 1, 1)].reshape(3, -1)
        lowest, highest = corners.min(axis=1), corners.max(axis=1)
        if (lowest > high).any() or (highest < low).any():
            continue
        beyond = None
        if (lowest < low).any() or (highest > high).any():
            ends = np.reshape((low, high), (2, 3, 1, 1)).astype(np.float32)
            beyond = ((at < ends[0]) | (at > ends[1])).any(axis=0)
        if (lowest < 0.0).any() or (highest > last).any():
            np.clip(at, 0.0, last.reshape(3, 1, 1).astype(np.float32), out=at)
        tile.sample(at, target)
        if beyond is not None:
            target[beyond] = 0.0
    return sampled


def block_means(values: NDArray[np.float32], block: Sequence[int]) -> NDArray[np.float32]:
    """Return the means of whole blocks of voxels; a rest that fills none is left out.

    Parameters
    ----------
    values : (n, m, l) ndarray of float32
        What becomes smaller.
    block : sequence of int
        Voxels of a block along each axis.
    """
    for axis, side in enumerate(block):
        end = values.shape[axis] // side * side
        cuts = [(slice(None),) * axis + (slice(part, end, side),) for part in range(side)]
        parts = [values[cut] for cut in cuts]
        values = functools.reduce(np.add, parts) / np.float32(side)
    return values


class _Tile:
    """Some rows of a slice of the lattice, and the arrays that their sums need."""

    def __init__(self, values: NDArray[np.float32], rows: int, columns: int) -> None:
        self._counts, self._flat = values.shape, np.ravel(values)
        steps = [math.prod(values.shape[axis + 1 :]) for axis in range(3)]
        steps = [step * (count > 1) for step, count in zip(steps, values.shape, strict=True)]
        self._corners = [sum(one) for one in itertools.product(*((0, step) for step in steps))]
        self._at = np.empty((3, rows, columns), np.float32)
        self._below = np.empty((rows, columns), np.float32)
        self._start, self._more = np.empty((2, rows, columns), np.intp)
        self._near = np.empty((8, rows, columns), np.float32)

    def place(
        self, to_index: NDArray[np.float64], index: int, first: int, count: int
    ) -> NDArray[np.float32]:
        """Return where rows of a slice lie among the voxels: (3, count, columns)."""
        at = self._at[:, :count]
        rows, columns = np.arange(first, first + count), np.arange(at.shape[2])
        for axis, (per_slice, per_row, per_column, origin) in enumerate(to_index[:3]):
            down = (origin + per_slice * index + per_row * rows).astype(np.float32)
            np.add(down[:, np.newaxis], (per_column * columns).astype(np.float32), out=at[axis])
        return at

    def sample(self, at: NDArray[np.float32], target: NDArray[np.float32]) -> None:
        """Fill rows of the lattice; `at`, which none lies outside of, becomes useless."""
        rows = len(target)
        below, start, more = self._below[:rows], self._start[:rows], self._more[:rows]
        start[...] = 0
        for along, count in zip(at, self._counts, strict=True):
            np.floor(along, out=below)
            np.minimum(below, max(count - 2, 0), out=below)
            np.subtract(along, below, out=along)
            start *= count
            more[...] = below
            start += more
        near: Any = self._near[:, :rows]
        for values, corner in zip(near, self._corners, strict=True):
            # "clip" alone writes straight to the array; no index needs it
            self._flat[corner:].take(start, out=values, mode="clip")
        for along, half in zip(at, (4, 2, 1), strict=True):
            one, other = near[:half], near[half : 2 * half]
            other -= one
            other *= along
            one += other
        target[...] = near[0]
