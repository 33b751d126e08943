"""A label map onto the grid of another series, so that its Segmentation can lie there, too."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from converters.volume import Box, Grid, LabelMap

_NUDGE: Final = 1e-3
"""Of a voxel, by which samples are moved off the middle between two voxels: without it every such
sample would fall to the same side, and a lesion would lose (or gain) a whole layer of voxels."""


def transferred(
    label_map: LabelMap, grid: Grid, lps_to_labels_lps_mm: NDArray[np.float64]
) -> LabelMap:
    """Return the same labels on another grid.

    Parameters
    ----------
    label_map : LabelMap
        What was found.
    grid : Grid
        Where labels are wanted, in its own frame of reference.
    lps_to_labels_lps_mm : (4, 4) ndarray of float64
        From a point of `grid` (LPS, mm) to the same point in the frame of the label map; the
        identity where both positions hold in one frame.

    Notes
    -----
    Each label's share of a voxel is its mask, linear between voxel centres. A voxel of which labels
    together have the greater share gets the label with the greatest; the lower number of equal
    ones. Only the box that can hold labels is worked on, a slice at a time: beside the result and
    copies of the labels' own box, of one byte a voxel, no array is larger than some slices.
    """
    labels = np.zeros(grid.shape, dtype=np.uint8)
    box = _box_of(label_map.labels)
    if box is not None:
        own = np.pad(label_map.labels[box], 1)  # shares fall to 0 beyond the border
        to_own = _to_own(label_map.grid.part(box), grid, lps_to_labels_lps_mm)
        target = _seen(own.shape, to_own, grid)
        numbers = [int(one) for one in np.unique(own) if one]
        masks = [(own == number).view(np.uint8) for number in numbers]
        for index in range(target[0].start, target[0].stop):
            points = _points(to_own, index, target)
            labels[index][target[1:]] = _labels_at(masks, numbers, points)
    return LabelMap(
        labels=labels, grid=grid, segments=label_map.segments, model_id=label_map.model_id
    )


def _box_of(labels: NDArray[np.uint8]) -> Box | None:
    """Return the smallest box that holds all labels; None where there are none."""
    used = [
        np.flatnonzero(labels.any(axis=tuple(one for one in range(3) if one != axis)))
        for axis in range(3)
    ]
    if not len(used[0]):
        return None
    first, second, third = (slice(int(one[0]), int(one[-1]) + 1) for one in used)
    return first, second, third


def _to_own(part: Grid, grid: Grid, to_labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix from indices of the wanted grid to those of the padded labels."""
    matrix = np.linalg.inv(part.index_to_lps_mm) @ to_labels @ grid.index_to_lps_mm
    matrix[:3, 3] += 1.0 + _NUDGE * np.array([1.0, 1.1, 1.2])
    return np.asarray(matrix, dtype=np.float64)


def _seen(shape: tuple[int, ...], to_own: NDArray[np.float64], grid: Grid) -> Box:
    """Return the part of the wanted grid on which the padded labels lie; it may be empty."""
    corners = np.array(np.meshgrid(*((0, count - 1) for count in shape))).reshape(3, -1)
    back = np.linalg.inv(to_own)
    found = back[:3, :3] @ corners + back[:3, 3:]
    start = np.clip(np.floor(found.min(axis=1)), 0, grid.shape).astype(int)
    stop = np.clip(np.ceil(found.max(axis=1)) + 1, start, grid.shape).astype(int)
    first, second, third = (slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    return first, second, third


def _points(to_own: NDArray[np.float64], index: int, target: Box) -> NDArray[np.float64]:
    """Return where the voxels of one wanted slice lie among the padded labels, (3, rows, columns).

    Nothing but what `converters.align` does with intensities, for a part of the slice.
    """
    rows = np.arange(target[1].start, target[1].stop, dtype=np.float64)[:, np.newaxis]
    columns = np.arange(target[2].start, target[2].stop, dtype=np.float64)
    return np.stack(
        [
            at_origin + per_slice * index + per_row * rows + per_column * columns
            for per_slice, per_row, per_column, at_origin in to_own[:3]
        ]
    )


def _labels_at(
    masks: list[NDArray[np.uint8]], numbers: list[int], points: NDArray[np.float64]
) -> NDArray[np.uint8]:
    total = np.zeros(points.shape[1:], dtype=np.float32)
    most, best = np.zeros_like(total), np.zeros(total.shape, dtype=np.uint8)
    for mask, number in zip(masks, numbers, strict=True):
        share = ndimage.map_coordinates(mask, points, np.float32, order=1, prefilter=False)
        total += share
        best[share > most] = number
        np.maximum(most, share, out=most)
    best[total <= 0.5] = 0  # noqa: PLR2004 - half of the voxel
    return best
