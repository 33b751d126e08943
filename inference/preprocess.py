"""Volumes of one patient frame to the network's input, remembering the way back.

Every volume is resampled once, straight from its own grid to the model's grid: each further
interpolation would blur.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, optimize
from torch import Tensor

from converters import sampling
from converters.sampling import HALF
from converters.volume import Box, Grid, Volume
from inference.declarations import Infer, Normalise
from inference.errors import ModelUnusableError
from inference.manifest import Manifest

_IN_LPS: Final = {
    "L": (1.0, 0.0, 0.0),
    "R": (-1.0, 0.0, 0.0),
    "P": (0.0, 1.0, 0.0),
    "A": (0.0, -1.0, 0.0),
    "S": (0.0, 0.0, 1.0),
    "I": (0.0, 0.0, -1.0),
}
_CUBIC: Final = 3
_NOTHING: Final = 1e-4  # of the largest value: how far off a place among 1,000 voxels may be
_EDGE = 1e-6  # voxels; keeps what ends on a border inside it


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """The network's input, and both grids of the way back.

    Parameters
    ----------
    channels : (channels, x, y, z) tensor of float32
        Normalised intensities; x, y, z grow to where the manifest's orientation says.
    grid : Grid
        Where the tensor's voxels lie; its index is (x, y, z).
    reference : Grid
        Grid on which the label map is wanted; its index is (slice, row, column).
    """

    channels: Tensor
    grid: Grid
    reference: Grid


def prepare(
    volumes: Sequence[Volume | None],
    reference: Grid,
    manifest: Manifest,
    *,
    brain: Callable[[Grid], NDArray[np.bool_]] | None = None,
) -> Prepared:
    """Return the volumes, in the given order, as the network wants to see them.

    Parameters
    ----------
    volumes : sequence of Volume or None
        One per input, in the network's channel order; each on its own grid, all in one patient
        frame. A channel of zeros stands for None.
    reference : Grid
        The grid from which the model's grid derives and to which labels go back.
    manifest : Manifest
        Orientation, spacing, interpolation, crop and normalisation.
    brain : callable, optional
        Says which voxels of a grid are brain. For a model of stripped images the others become 0;
        normalisation and crop may ask for it too.

    Raises
    ------
    ModelUnusableError
        The manifest needs to know where the brain is, and nobody says it.
    """
    grid, inside = _needed(reference, manifest, brain)
    channels = np.zeros((len(volumes), *grid.shape), dtype=np.float32)
    for channel, volume in zip(channels, volumes, strict=True):
        if volume is not None:
            channel[...] = resample(volume, grid, manifest.space.interpolation)
            _clear(channel)
    if manifest.space.skull == "stripped":
        np.copyto(channels, 0.0, where=~inside)
    box = box_of(channels, inside, manifest.infer, grid.spacing_mm)
    channels, inside, grid = np.ascontiguousarray(channels[:, *box]), inside[box], grid.part(box)
    for channel, volume in zip(channels, volumes, strict=True):
        if volume is not None:
            normalise(channel, manifest.normalise, inside)
    return Prepared(channels=torch.from_numpy(channels), grid=grid, reference=reference)


def _clear(channel: NDArray[np.float32]) -> None:
    """Make 0 again what is there only because voxels are placed in single precision.

    What a series did not image is 0, and neither counts for the numbers of normalising nor for the
    box of the foreground.
    """
    least = _NOTHING * max(channel.max(), -channel.min())
    channel[(channel < least) & (channel > -least)] = 0.0


def _needed(
    reference: Grid, manifest: Manifest, brain: Callable[[Grid], NDArray[np.bool_]] | None
) -> tuple[Grid, NDArray[np.bool_]]:
    """Return the part of the model's grid that the network can need, and which voxels count."""
    if brain is None and manifest.needs_brain_for:
        raise ModelUnusableError(
            field=manifest.needs_brain_for[0], reason="it needs a brain mask network"
        )
    space = manifest.space
    grid = model_grid(reference, space.spacing_mm, space.orientation)
    if brain is None or not manifest.needs_brain_for:
        return grid, np.ones(grid.shape, dtype=np.bool_)
    inside = brain(grid)
    if space.skull != "stripped" and manifest.infer.crop != "brain":
        return grid, inside
    box = _around(inside, manifest.infer, grid.spacing_mm)
    return grid.part(box), inside[box]


def model_grid(
    reference: Grid, spacing_mm: tuple[float, float, float], orientation: str = "RAS"
) -> Grid:
    """Return the grid of the model that covers a reference grid.

    The reference's axes are permuted and flipped so that they grow nearest to where the letters of
    `orientation` say, and keep their directions; the first voxel's centre stays where it is; the
    last one lies within half a model voxel of the reference's last.

    Notes
    -----
    This is the grid of MONAI's ``Orientation(orientation)`` followed by ``Spacing``, where it was
    compared: axes at right angles, ``scale_extent=False``. Where the last reference voxel lies
    exactly between two model voxels, MONAI may have one voxel less.
    """
    steps_mm = np.asarray(reference.spacing_mm)
    wanted = np.array([_IN_LPS[letter] for letter in orientation])
    towards = (wanted @ reference.index_to_lps_mm[:3, :3]) / steps_mm
    _, axes = optimize.linear_sum_assignment(-np.abs(towards))
    signs = np.sign(towards[range(3), axes])
    counts = np.asarray(reference.shape)[axes]
    first = np.zeros(3)
    first[axes] = np.where(signs < 0, counts - 1, 0)
    matrix = np.eye(4)
    scale = signs * np.asarray(spacing_mm) / steps_mm[axes]
    matrix[:3, :3] = reference.index_to_lps_mm[:3, axes] * scale
    matrix[:3, 3] = reference.lps_mm(first)
    # Half a voxel over counts as one more; the margin keeps that from hanging on rounding errors.
    shape = np.floor((counts - 1) * steps_mm[axes] / spacing_mm + 1.5 + _EDGE).astype(int)
    return Grid(
        shape=(int(shape[0]), int(shape[1]), int(shape[2])),
        index_to_lps_mm=matrix,
        frame_of_reference_uid=reference.frame_of_reference_uid,
    )


def resample(
    volume: Volume, grid: Grid, interpolation: Literal["linear", "cubic"] = "linear"
) -> NDArray[np.float32]:
    """Return a volume's intensities on another grid of the same patient frame.

    A voxel of `grid` whose cell does not touch the volume becomes 0. Between
    a volume's outermost centres and its border the outermost values hold.

    Parameters
    ----------
    volume : Volume
        Where the intensities come from.
    grid : Grid
        Where they are wanted; any index order.
    interpolation : {"linear", "cubic"}
        Degree of the splines between voxels.

    Returns
    -------
    ndarray of float32
        In the shape of `grid`.

    Notes
    -----
    The source is not smoothed where `grid` is coarser: smoothing lowered the demonstration
    model's Dice on generated studies (enhancing 0.787 against 0.795, core 0.740 against 0.749).
    MONAI's ``Spacing`` does not smooth either; unlike it, which repeats the border for ever, what
    lies outside a volume is 0 here, that is no data.
    """
    to_source = np.linalg.inv(volume.grid.index_to_lps_mm) @ grid.index_to_lps_mm
    reach = np.abs(to_source[:3, :3]).max(axis=1)  # source voxels per step of the grid
    margin = HALF * np.maximum(reach, 1.0)
    if interpolation == "linear":
        return sampling.linear(volume.intensities, to_source, grid.shape, margin)
    values: NDArray[np.float32] = ndimage.affine_transform(
        volume.intensities,
        to_source[:3, :3],
        to_source[:3, 3],
        grid.shape,
        order=_CUBIC,
        mode="nearest",
    )
    for axis, count in enumerate(volume.grid.shape):
        index = _along(to_source, axis, grid.shape)
        values[(index < -margin[axis]) | (index > count - 1 + margin[axis])] = 0.0
    return values


def _along(
    matrix: NDArray[np.float64], axis: int, shape: tuple[int, int, int]
) -> NDArray[np.float64]:
    """Return one coordinate of the mapped index at every index of a grid."""
    x, y, z = np.ogrid[: shape[0], : shape[1], : shape[2]]
    a, b, c, offset = matrix[axis]
    return np.asarray(a * x + b * y + c * z + offset)


def normalise(
    channel: NDArray[np.float32], how: Normalise, brain: NDArray[np.bool_] | None = None
) -> None:
    """Turn one channel, in place, into the network's numbers; see `Normalise`.

    A constant channel becomes 0, by z-score or percentiles.

    Parameters
    ----------
    channel : (x, y, z) ndarray of float32
        Intensities.
    how : Normalise
        What the manifest says.
    brain : (x, y, z) ndarray of bool, optional
        Needed where the mask is the brain.
    """
    inside = _inside(channel, how, brain)
    values = channel[inside]
    if values.size == 0:
        channel[...] = 0.0
        return
    _bound(values, how)
    offset, scale = _offset_and_scale(values, how)
    numbers = ((channel if how.outside == "kept" else values) - offset) / scale
    if how.clip is not None:
        np.clip(numbers, *how.clip, out=numbers)
    if how.outside == "kept":
        channel[...] = numbers
    else:
        channel[...] = 0.0
        channel[inside] = numbers


def _inside(
    channel: NDArray[np.float32], how: Normalise, brain: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    """Return the voxels that the numbers are found from."""
    if how.mask == "nonzero":
        return np.asarray(channel != 0.0)
    if how.mask == "all" or brain is None:
        return np.ones(channel.shape, dtype=np.bool_)
    # What a series did not image is 0; it would shift the numbers of all that it did.
    return np.asarray(brain & (channel != 0.0)) if how.outside == "kept" else brain


def _bound(values: NDArray[np.float32], how: Normalise) -> None:
    """Clip values, in place, to the percentiles that the manifest asks for."""
    if how.clip_percentiles is not None:
        low, high = np.percentile(values, how.clip_percentiles)
        np.clip(values, low, high, out=values)


def _offset_and_scale(values: NDArray[np.float32], how: Normalise) -> tuple[np.float64, np.float64]:
    """Return what is taken off an intensity, and what the rest is then divided by."""
    one = np.float64(1.0)
    if how.kind == "zscore":
        return values.mean(dtype=np.float64), values.std(dtype=np.float64) or one
    if how.percentiles is not None:
        low, high = np.percentile(values, how.percentiles).astype(np.float64)
    elif how.range is not None:
        low, high = np.array(how.range)
    else:
        return np.float64(0.0), one
    return low, (high - low) or one


def box_of(
    channels: NDArray[np.float32],
    brain: NDArray[np.bool_],
    plan: Infer,
    spacing_mm: tuple[float, float, float],
) -> Box:
    """Return the part of the model's grid that the windows are laid over.

    That of all voxels that are not 0 in some channel, or of the brain with a margin. The windows
    then see brain instead of air: with instance norm the share of air in a window changes the
    result. Where there is no such voxel it is all of the grid.

    Parameters
    ----------
    channels : (channels, x, y, z) ndarray of float32
        Intensities.
    brain : (x, y, z) ndarray of bool
        What is brain.
    plan : Infer
        The manifest's crop and margin; a margin is rounded up to whole voxels.
    spacing_mm : tuple of float
        Of the grid.
    """
    if plan.crop == "brain":
        return _around(brain, plan, spacing_mm)
    return _around((channels != 0.0).any(axis=0), plan, spacing_mm)


def _around(kept: NDArray[np.bool_], plan: Infer, spacing_mm: tuple[float, float, float]) -> Box:
    """Return the box of what is kept, with the plan's margin; everything where that is nothing."""
    whole = (slice(0, kept.shape[0]), slice(0, kept.shape[1]), slice(0, kept.shape[2]))
    (found,) = ndimage.find_objects(kept, max_label=1)
    if plan.crop == "none" or found is None:
        return whole
    more = [math.ceil(plan.crop_margin_mm / step - _EDGE) for step in spacing_mm]
    x, y, z = (
        slice(max(0, span.start - count), min(all_of_it.stop, span.stop + count))
        for span, count, all_of_it in zip(found, more, whole, strict=True)
    )
    return x, y, z
