"""The volumes of one case onto one grid, by the geometry of their headers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converters import sampling
from converters.errors import MissingAttributeError, MixedFrameOfReferenceError
from converters.volume import Grid, Volume


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
    """
    if volume.grid.is_same_place(grid):
        return Volume(intensities=volume.intensities, grid=grid, role=volume.role)
    to_source = np.linalg.inv(volume.grid.index_to_lps_mm) @ grid.index_to_lps_mm
    sampled = sampling.linear(volume.intensities, to_source, grid.shape)
    return Volume(intensities=sampled, grid=grid, role=volume.role)
