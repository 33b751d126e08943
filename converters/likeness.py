"""How much two volumes tell of each other: mutual information with its gradient (pure numpy).

Copies are small and smooth; samples of the reference are looked up in the moving volume under a
rigid pull, and the joint histogram says how well one intensity predicts the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

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

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
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
    values, matrix = volume.intensities, volume.grid.index_to_lps_mm.copy()
    for axis, spacing in enumerate(volume.grid.spacing_mm):
        count = values.shape[axis]
        block = max(1, min(round(spacing_mm / spacing), count // _FEWEST))
        end = count // block * block
        cuts = [(slice(None),) * axis + (slice(part, end, block),) for part in range(block)]
        values = np.mean([values[cut] for cut in cuts], axis=0, dtype=np.float32)
        matrix[:3, 3] += matrix[:3, axis] * ((block - 1) / 2)
        matrix[:3, axis] *= block
    shape = (values.shape[0], values.shape[1], values.shape[2])
    frame = volume.grid.frame_of_reference_uid
    grid = Grid(shape=shape, index_to_lps_mm=matrix, frame_of_reference_uid=frame)
    return Volume(intensities=values, grid=grid, role=volume.role)


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
        reach = 2 * np.ceil(_MARGIN_MM / reference.spacing_mm).astype(int) + 1
        near = ndimage.maximum_filter(reference.is_head, size=tuple(reach))
        voxels = np.argwhere(near).T.astype(np.float64)
        voxels = voxels[:, rng.integers(0, voxels.shape[1], count)]
        last = np.array(reference.values.shape)[:, np.newaxis] - 1.0
        index = np.clip(voxels + rng.uniform(-_HALF, _HALF, (3, count)), 0.0, last)
        values = ndimage.map_coordinates(reference.values, index, order=1, mode="nearest")
        self._bin, self._share = _split(values)
        self._from_centre = reference.lps_mm(index) - centre_mm[:, np.newaxis]
        self._centre_mm, self._moving = centre_mm, moving
        self._to_index = np.linalg.inv(moving.index_to_lps_mm)

    def value(self, pull: Array) -> float:
        """Return the mutual information, nats; 0 where the volumes hardly overlap."""
        index, is_inside = self._look_up(pull)
        if is_inside.mean() < _LEAST_OVERLAP:
            return 0.0
        values, _ = _interpolated(self._moving.values, index[:, is_inside], has_slope=False)
        joint, _ = self._joint(values, is_inside)
        return float((joint * _log_ratio(joint)).sum())

    def value_and_slope(self, pull: Array) -> tuple[float, Array]:
        """Return the mutual information and its derivative by the pull, nats per mm."""
        index, is_inside = self._look_up(pull)
        if is_inside.mean() < _LEAST_OVERLAP:
            return 0.0, np.zeros(6)
        values, slopes = _interpolated(self._moving.values, index[:, is_inside], has_slope=True)
        joint, cell = self._joint(values, is_inside)
        ratio = _log_ratio(joint)
        table = np.append(ratio.ravel(), np.zeros(BINS + 2))
        share = self._share[is_inside]
        gain = (1 - share) * (table[cell + 1] - table[cell])
        gain += share * (table[cell + BINS + 1] - table[cell + BINS])
        last = np.array(self._moving.values.shape)[:, np.newaxis] - 1.0
        index = index[:, is_inside]
        slopes[(index <= 0.0) | (index >= last)] = 0.0  # the outer half of the border is even
        pushes = slopes * (gain / len(gain))
        return float((joint * ratio).sum()), self._by_pull(pull, pushes, is_inside)

    def _look_up(self, pull: Array) -> tuple[Array, NDArray[np.bool_]]:
        to_index = self._to_index @ pull_matrix(pull, self._centre_mm)
        to_index[:3, 3] += to_index[:3, :3] @ self._centre_mm
        index = _affine(to_index, self._from_centre)
        last = np.array(self._moving.values.shape)[:, np.newaxis] - 1.0
        is_inside = np.all((index >= -_HALF) & (index <= last + _HALF), axis=0)
        return np.clip(index, 0.0, last, out=index), is_inside

    def _joint(self, values: Array, is_inside: NDArray[np.bool_]) -> tuple[Array, NDArray[np.intp]]:
        """Return the joint frequencies (reference, moving) and each sample's first cell."""
        bins, share = _split(values)
        cell = self._bin[is_inside] * BINS + bins
        weight = self._share[is_inside]
        counts = np.zeros(BINS * BINS + BINS + 2)
        for step, weights in (
            (0, (1 - weight) * (1 - share)),
            (1, (1 - weight) * share),
            (BINS, weight * (1 - share)),
            (BINS + 1, weight * share),
        ):
            counts += np.bincount(cell + step, weights, counts.size)
        joint = counts[: BINS * BINS].reshape(BINS, BINS) / len(values)
        return joint, cell

    def _by_pull(self, pull: Array, pushes: Array, is_inside: NDArray[np.bool_]) -> Array:
        """Return what pushes of samples in the moving volume, per index, add up to."""
        by_index = np.einsum("an,bn->ab", self._from_centre[:, is_inside], pushes)
        turn = pull[:3] / ARM_MM
        moment = Rotation.from_rotvec(turn).as_matrix() @ by_index
        moment = moment @ self._to_index[:3, :3]
        skew = moment - moment.T
        torque = np.array([skew[1, 2], skew[2, 0], skew[0, 1]])
        shift = pushes.sum(axis=1) @ self._to_index[:3, :3]
        return np.concatenate([_left_jacobian(turn).T @ torque / ARM_MM, shift])


def _affine(matrix: Array, points: Array) -> Array:
    """Return (3, n) points mapped, without a matrix library that splits sums over threads."""
    x, y, z = points
    return np.stack([row[0] * x + row[1] * y + row[2] * z + row[3] for row in matrix[:3]])


def _split(values: Array) -> tuple[NDArray[np.intp], Array]:
    bins = values.astype(np.intp)
    return bins, values - bins


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
    values: NDArray[np.float32], index: Array, *, has_slope: bool
) -> tuple[Array, Array]:
    """Return values (n,) between voxel centres and their slopes (3, n) per index."""
    shape = np.array(values.shape)
    base = np.minimum(index.astype(np.intp), np.maximum(shape - 2, 0)[:, np.newaxis])
    (z, y, x), flat = index - base, values.ravel()
    steps = np.array([shape[1] * shape[2], shape[2], 1]) * (shape > 1)
    start = base[0] * steps[0] + base[1] * steps[1] + base[2]
    near, far = ((start, start + steps[1]), (start + steps[0], start + steps[0] + steps[1]))
    lines = [(flat[at], flat[at + steps[2]]) for at in (*near, *far)]
    a, b, c, d = (left + x * (right - left) for left, right in lines)
    front, back = a + y * (b - a), c + y * (d - c)
    found = np.asarray(front + z * (back - front), dtype=np.float64)
    if not has_slope:
        return found, np.empty((3, 0))
    along = [right - left for left, right in lines]
    by_x = (along[0] * (1 - y) + along[1] * y) * (1 - z) + (along[2] * (1 - y) + along[3] * y) * z
    return found, np.stack([back - front, (b - a) * (1 - z) + (d - c) * z, by_x])
