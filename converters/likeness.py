"""How much two volumes tell of each other: mutual information with its gradient (pure numpy).

Copies are small and smooth; samples of the reference are looked up in the moving volume under a
rigid pull, and the joint histogram says how well one intensity predicts the other.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from converters import sampling
from converters.volume import Grid, Volume

BINS: Final = 32
ARM_MM: Final = 80.0
"""Radius of a head: a turn counts as the way that a point at this distance goes."""

_MARGIN_MM: Final = 7.0  # samples reach beyond the head, so that its outline counts
_FEWEST: Final = 4  # voxels along any axis of a copy, where the volume has them
_FOREGROUND: Final = 0.15  # of the bright tissue's intensity
_SMOOTH_MM: Final = 2.0
_OUTLIERS: Final = (0.5, 99.5)  # percentiles of the head beyond which intensities are cut
_LEAST_OVERLAP: Final = 0.3  # of the samples must lie within the moving volume
_HALF: Final = 0.5  # of a voxel belongs to it on either side of its centre
_TINY: Final = 1e-12
_NOWHERE: Final = BINS * BINS + BINS + 2  # the cell of samples outside
_CELLS: Final = _NOWHERE + BINS + 2

Array = NDArray[np.float64]
Samples = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Copy:
    """A small copy of a volume.

    Parameters
    ----------
    values : (slices, rows, columns) ndarray of float32
        Intensities scaled to histogram bins, 0 to just below ``BINS - 1``.
    index_to_lps_mm : (4, 4) ndarray of float64
        Centres of its voxels.
    is_head : (slices, rows, columns) ndarray of bool
        Brighter than air.
    """

    values: NDArray[np.float32]
    index_to_lps_mm: Array
    is_head: NDArray[np.bool_]

    @property
    def spacing_mm(self) -> Array:
        """Distance between neighbours along each axis."""
        return np.asarray(np.linalg.norm(self.index_to_lps_mm[:3, :3], axis=0))

    def lps_mm(self, index: Array) -> Array:
        """Return LPS positions (3, n) of indices (3, n)."""
        return _affine(self.index_to_lps_mm, index)

    @cached_property
    def near_head(self) -> NDArray[np.intp]:
        """Flat indices of the voxels in the head and near it."""
        reach = 2 * np.ceil(_MARGIN_MM / self.spacing_mm).astype(int) + 1
        return np.flatnonzero(ndimage.maximum_filter(self.is_head, size=tuple(reach)))

    @property
    def centre_mm(self) -> Array:
        """Centre of mass of the head's shape, LPS."""
        where = np.argwhere(self.is_head).mean(axis=0)
        return self.lps_mm(where[:, np.newaxis])[:, 0]


def coarser(volume: Volume, spacing_mm: float) -> Volume:
    """Return a volume of about the given spacing; an axis that is coarser already stays as it is.

    Notes
    -----
    Voxels are averaged in whole blocks: low pass and decimation in one, and no axis is
    interpolated, so that thick slices stay what they are.
    """
    grid = volume.grid
    block = [
        max(1, min(round(spacing_mm / spacing), count // _FEWEST))
        for spacing, count in zip(grid.spacing_mm, grid.shape, strict=True)
    ]
    values, matrix = sampling.block_means(volume.intensities, block), grid.index_to_lps_mm.copy()
    for axis, side in enumerate(block):
        matrix[:3, 3] += matrix[:3, axis] * ((side - 1) / 2)
        matrix[:3, axis] *= side
    shape = (values.shape[0], values.shape[1], values.shape[2])
    frame = grid.frame_of_reference_uid
    small = Grid(shape=shape, index_to_lps_mm=matrix, frame_of_reference_uid=frame)
    return Volume(intensities=values, grid=small, role=volume.role)


def binned(volume: Volume) -> Copy:
    """Return a volume as the histogram takes it."""
    is_head = _head(volume.intensities, np.array(volume.grid.spacing_mm))
    return Copy(
        values=_to_bins(volume.intensities, is_head),
        index_to_lps_mm=volume.grid.index_to_lps_mm,
        is_head=is_head,
    )


def _head(values: NDArray[np.float32], spacing_mm: Array) -> NDArray[np.bool_]:
    """Return where a volume is clearly brighter than air; everywhere if nowhere."""
    above = values - values.min()
    bright = np.percentile(above[above > 0], 98) if (above > 0).any() else 0.0
    is_head = ndimage.gaussian_filter(above, _SMOOTH_MM / spacing_mm) > _FOREGROUND * bright
    return np.asarray(is_head if is_head.any() else np.ones_like(is_head))


def _to_bins(values: NDArray[np.float32], is_head: NDArray[np.bool_]) -> NDArray[np.float32]:
    low, high = np.percentile(values[is_head], _OUTLIERS)
    low = min(low, float(values.min()))
    scaled = np.clip((values - low) / max(high - low, _TINY), 0.0, 1.0) * (BINS - 1.001)
    return np.asarray(scaled, dtype=np.float32)


def pull_matrix(pull: Array, centre_mm: Array) -> Array:
    """Return the matrix from reference LPS to moving LPS of a pull.

    Parameters
    ----------
    pull : (6,) ndarray of float64
        Rotation vector times ``ARM_MM``, then the shift; all mm.
    centre_mm : (3,) ndarray of float64
        Point of the reference that the rotation leaves where the shift puts it.
    """
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(pull[:3] / ARM_MM).as_matrix()
    matrix[:3, 3] = centre_mm + pull[3:] - matrix[:3, :3] @ centre_mm
    return matrix


class Likeness:
    """Mutual information of a fixed set of samples, as a function of the pull.

    Parameters
    ----------
    reference, moving : Copy
        Samples are drawn in and near the head of the one and looked up in the other.
    centre_mm : (3,) ndarray of float64
        As in `pull_matrix`.
    count, seed : int
        How many samples, and which.

    Notes
    -----
    Samples lie anywhere in their voxel, not at its centre: at centres a shift by whole voxels, and
    no shift first of all, would look better than it is, because only there nothing is blurred by
    interpolation. Sums run in one thread and in a fixed order; the same volumes give the same bits.

    References
    ----------
    Mattes et al., PET-CT image registration in the chest, IEEE TMI 22, 2003; linear windows here.
    """

    def __init__(
        self, reference: Copy, moving: Copy, centre_mm: Array, *, count: int, seed: int
    ) -> None:
        rng = np.random.default_rng(seed)
        near = reference.near_head
        drawn = np.sort(near[rng.integers(0, near.size, count)])  # neighbours lie side by side
        voxels = np.array(np.unravel_index(drawn, reference.values.shape), np.float64)
        last = np.array(reference.values.shape)[:, np.newaxis] - 1.0
        index = np.clip(voxels + rng.uniform(-_HALF, _HALF, (3, count)), 0.0, last)
        values = ndimage.map_coordinates(reference.values, index, order=1, mode="nearest")
        self._bin, self._share = _split(values)
        from_centre = reference.lps_mm(index) - centre_mm[:, np.newaxis]
        self._from_centre = from_centre.astype(np.float32)
        self._centre_mm, self._moving = centre_mm, moving
        self._to_index = np.linalg.inv(moving.index_to_lps_mm)

    def value(self, pull: Array) -> float:
        """Return the mutual information, nats; 0 where the volumes hardly overlap."""
        index, beyond = self._look_up(pull)
        values, _ = _interpolated(self._moving.values, index, has_slope=False)
        joint, *_ = self._joint(values, beyond)
        return float((joint * _log_ratio(joint)).sum())

    def value_and_slope(self, pull: Array) -> tuple[float, Array]:
        """Return the mutual information and its derivative by the pull, nats per mm."""
        index, beyond = self._look_up(pull)
        values, slopes = _interpolated(self._moving.values, index, has_slope=True)
        joint, cell, count = self._joint(values, beyond)
        ratio = _log_ratio(joint)
        gain = np.zeros(_CELLS, np.float32)
        gain[: ratio.size] = ratio.ravel() / count
        gain[:-1] = np.diff(gain)
        near, far = gain.take(cell), gain[BINS:].take(cell)
        slopes *= near + self._share * (far - near)
        slopes *= beyond == 0.0  # the outer half of the border is even
        return float((joint * ratio).sum()), self._by_pull(pull, slopes)

    def _look_up(self, pull: Array) -> tuple[Samples, Samples]:
        """Return where samples lie in the moving volume, and how far beyond its outer centres."""
        to_index = self._to_index @ pull_matrix(pull, self._centre_mm)
        to_index[:3, 3] += to_index[:3, :3] @ self._centre_mm
        index = _affine(to_index.astype(np.float32), self._from_centre)
        last = np.array(self._moving.values.shape, np.float32)[:, np.newaxis] - 1
        within = np.clip(index, 0.0, last)
        return within, np.abs(index - within)

    def _joint(self, values: Samples, beyond: Samples) -> tuple[Array, NDArray[np.intp], int]:
        """Return the joint frequencies (reference, moving), each sample's first cell, their number.

        Samples outside are put where no gain is; where most are, so are all.
        """
        is_inside = beyond.max(axis=0) <= _HALF
        count = int(np.count_nonzero(is_inside))
        if count < _LEAST_OVERLAP * len(values):
            count, is_inside = 1, np.zeros_like(is_inside)
        bins, share = _split(values)
        cell = np.where(is_inside, self._bin * BINS + bins, _NOWHERE)
        both, counts = self._share * share, np.zeros(_CELLS)
        for step, weights in (
            (0, 1 - self._share - share + both),
            (1, share - both),
            (BINS, self._share - both),
            (BINS + 1, both),
        ):
            counts[step:] += np.bincount(cell, weights, _CELLS)[: _CELLS - step]
        return counts[: BINS * BINS].reshape(BINS, BINS) / count, cell, count

    def _by_pull(self, pull: Array, pushes: Samples) -> Array:
        """Return what pushes of samples in the moving volume, per index, add up to."""
        sums = [(self._from_centre * push).sum(axis=1, dtype=np.float64) for push in pushes]
        turn = pull[:3] / ARM_MM
        moment = Rotation.from_rotvec(turn).as_matrix() @ np.transpose(sums)
        moment = moment @ self._to_index[:3, :3]
        skew = moment - moment.T
        torque = np.array([skew[1, 2], skew[2, 0], skew[0, 1]])
        shift = pushes.sum(axis=1, dtype=np.float64) @ self._to_index[:3, :3]
        return np.concatenate([_left_jacobian(turn).T @ torque / ARM_MM, shift])


def _affine(matrix: NDArray[Any], points: NDArray[Any]) -> NDArray[Any]:
    """Return (3, n) points mapped, without a matrix library that splits sums over threads."""
    x, y, z = points
    return np.stack([row[0] * x + row[1] * y + row[2] * z + row[3] for row in matrix[:3]])


def _split(values: Samples) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    bins = values.astype(np.intp)
    return bins, (values - bins).astype(np.float32)


def _log_ratio(joint: Array) -> Array:
    """Return log p(a, b) / p(a) p(b)."""
    expected = joint.sum(axis=1)[:, np.newaxis] * joint.sum(axis=0)
    return np.asarray(np.log((joint + _TINY) / (expected + _TINY)))


def _left_jacobian(turn: Array) -> Array:
    """Return how a rotation turns further when its vector changes."""
    angle = float(np.linalg.norm(turn))
    x, y, z = turn
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    if angle < 1e-6:  # noqa: PLR2004 - below it the quotients lose their digits
        return np.asarray(np.eye(3) + cross / 2)
    first, second = (1 - np.cos(angle)) / angle**2, (angle - np.sin(angle)) / angle**3
    return np.asarray(np.eye(3) + first * cross + second * cross @ cross)


def _interpolated(
    values: NDArray[np.float32], index: Samples, *, has_slope: bool
) -> tuple[Samples, Samples]:
    """Return values (n,) between voxel centres and their slopes (3, n) per index."""
    start, parts = np.zeros(index.shape[1], np.intp), []
    steps = [0, 0, 0]
    for axis, (at, count) in enumerate(zip(index, values.shape, strict=True)):
        base = np.minimum(at.astype(np.intp), max(count - 2, 0))
        parts.append(at - base.astype(np.float32))
        start = start * count + base
        steps[axis] = math.prod(values.shape[axis + 1 :]) if count > 1 else 0
    (z, y, x), flat = parts, values.ravel()
    corners = [sum(step) for step in itertools.product(*((0, step) for step in steps))]
    at = [flat[corner:].take(start) for corner in corners]
    along_x = [right - left for left, right in zip(at[::2], at[1::2], strict=True)]
    a, b, c, d = (left + x * along for left, along in zip(at[::2], along_x, strict=True))
    front_y, back_y = b - a, d - c
    front, back = a + y * front_y, c + y * back_y
    along_z = back - front
    found = front + z * along_z
    if not has_slope:
        return found, np.empty((3, 0), np.float32)
    p, q, r, s = along_x
    front_x, back_x = p + y * (q - p), r + y * (s - r)
    along_y = front_y + z * (back_y - front_y)
    return found, np.stack([along_z, along_y, front_x + z * (back_x - front_x)])
