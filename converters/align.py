"""The volumes of one case onto one grid, by the geometry of their headers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from converters.errors import MissingAttributeError, MixedFrameOfReferenceError
from converters.volume import Grid, Volume

_HALF: Final = 0.5 + 1e-6
"""Of a voxel; a point that rounding puts a little beyond the border is still on it."""


def check_one_frame(volumes: Sequence[Volume]) -> None:
    """Raise unless the positions of all volumes hold in one frame of reference.

    Raises
    ------
    MissingAttributeError
        A volume names no frame, so that nothing says how it lies to the others.
    MixedFrameOfReferenceError
        The volumes name different frames.
    """
    frames = [volume.grid.frame_of_reference_uid for volume in volumes]
    if "" in frames:
        role = volumes[frames.index("")].role
        raise MissingAttributeError(keyword="FrameOfReferenceUID", instance=0, role=role)
    if len(set(frames)) > 1:
        raise MixedFrameOfReferenceError(found=len(set(frames)), among=f"{len(frames)} series")


def on_grid(volume: Volume, grid: Grid) -> Volume:
    """Return a volume sampled at the voxel centres of a grid.

    Parameters
    ----------
    volume : Volume
        Its positions hold in the frame of reference of `grid`; see `check_one_frame`.
    grid : Grid
        Where samples are wanted.

    Returns
    -------
    Volume
        Linear between voxel centres; 0 outside the outermost voxels, whose outer half has their
        own value. Where both grids put every voxel on the same point, the very same intensities.

    Notes
    -----
    One target slice at a time: beside the result no array is larger than a slice.
    """
    if volume.grid.is_same_place(grid):
        return Volume(intensities=volume.intensities, grid=grid, role=volume.role)
    to_source = np.linalg.inv(volume.grid.index_to_lps_mm) @ grid.index_to_lps_mm
    sampled = np.empty(grid.shape, dtype=np.float32)
    for index in range(grid.shape[0]):
        _sample(volume.intensities, to_source, index, sampled[index])
    return Volume(intensities=sampled, grid=grid, role=volume.role)


def _sample(
    source: NDArray[np.float32],
    to_source: NDArray[np.float64],
    slice_index: int,
    plane: NDArray[np.float32],
) -> None:
    """Fill one target slice."""
    rows = np.arange(plane.shape[0], dtype=np.float64)[:, np.newaxis]
    columns = np.arange(plane.shape[1], dtype=np.float64)
    points = np.empty((3, *plane.shape))
    for axis, (per_slice, per_row, per_column, at_origin) in enumerate(to_source[:3]):
        points[axis] = at_origin + per_slice * slice_index + per_row * rows
        points[axis] += per_column * columns
    counts = np.reshape(source.shape, (3, 1, 1))
    is_inside = ((points >= -_HALF) & (points <= counts - 1 + _HALF)).all(axis=0)
    if is_inside.any():
        ndimage.map_coordinates(source, points, plane, order=1, mode="nearest", prefilter=False)
    plane[~is_inside] = 0.0
