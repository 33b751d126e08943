"""What a manifest asks to be done with labels: small pieces, small labels, holes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from converters.volume import Grid
from inference.declarations import Holes, Postprocess, SmallLabel

ANY_NEIGHBOUR: Final = np.ones((3, 3, 3), dtype=np.bool_)
"""26 neighbours: voxels that touch at a corner are of one piece."""


def clean(labels: NDArray[np.uint8], how: Postprocess, grid: Grid) -> None:
    """Change labels, in place, as the manifest says, in the order of `Postprocess`.

    Parameters
    ----------
    labels : (slices, rows, columns) ndarray of uint8
        0 is background.
    how : Postprocess
        What is asked for.
    grid : Grid
        Where the voxels lie; volumes are by its voxels.
    """
    box = _box(labels)
    if box is None:
        return
    part = labels[box]
    if how.min_component_mm3 > 0.0:
        _drop_small_pieces(part, how.min_component_mm3 / grid.voxel_volume_mm3)
    for one in how.small_labels:
        _turn_small(part, one, grid.voxel_volume_mm3)
    for hole in how.fill_holes:
        _fill(part, hole)


def pieces(labels: NDArray[np.uint8], least_voxels: float) -> int:
    """Return how many pieces (26 neighbours) of some size all labels together have."""
    box = _box(labels)
    if box is None:
        return 0
    numbered, _ = ndimage.label(labels[box] != 0, ANY_NEIGHBOUR)
    return int(np.count_nonzero(np.bincount(numbered.ravel())[1:] >= least_voxels))


def _box(labels: NDArray[np.uint8]) -> tuple[slice, slice, slice] | None:
    """Return the box that holds every label; None where there is none."""
    (found,) = ndimage.find_objects(labels != 0, max_label=1)
    return None if found is None else (found[0], found[1], found[2])


def _drop_small_pieces(labels: NDArray[np.uint8], least_voxels: float) -> None:
    numbered, count = ndimage.label(labels != 0, ANY_NEIGHBOUR)
    sizes = np.bincount(numbered.ravel(), minlength=count + 1)
    is_small = sizes < least_voxels
    is_small[0] = False
    labels[is_small[numbered]] = 0


def _turn_small(labels: NDArray[np.uint8], one: SmallLabel, voxel_mm3: float) -> None:
    is_label = labels == one.label
    if 0 < np.count_nonzero(is_label) * voxel_mm3 < one.below_mm3:
        labels[is_label] = one.becomes


def _fill(labels: NDArray[np.uint8], hole: Holes) -> None:
    is_wall = np.isin(labels, _numbers(hole.labels))
    labels[ndimage.binary_fill_holes(is_wall) & ~is_wall] = hole.becomes


def _numbers(labels: Sequence[int]) -> NDArray[np.uint8]:
    return np.array(labels, dtype=np.uint8)
