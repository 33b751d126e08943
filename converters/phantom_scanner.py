"""The scanner of the synthetic study: the grids of a protocol and what imaging does to a signal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from converters.phantom_anatomy import Field, Position
from converters.volume import Grid, Role, Shape

ROLES: tuple[Role, ...] = ("flair", "t1", "t1gd", "t2")
Size = Literal["clinical", "small"]

BRAIN_CENTRE_LPS_MM = np.array([4.0, -11.0, 17.0])
_FULL_SCALE = (
    2400.0  # stored value of signal 1, the brightest normal tissue; leaves room in 12 bits
)
_MAX_STORED = 4095.0
_NOISE = 0.015  # standard deviation of each of the two receiver channels, as a fraction of signal 1
_HALF = 0.5
_SLAB_TO_SIGMA = 2.6  # full width of a Gaussian slice profile, a little above its FWHM of 2.355


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How one series lies in the patient; spacing along slice, row and column index, mm."""

    shape: Shape
    spacing_mm: tuple[float, float, float]
    tilt_deg: float = 0.0
    turn_deg: float = 0.0
    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)


# No two extents are alike, so that a mixed-up axis or series cannot go unnoticed.
_CLINICAL: Mapping[Role, Protocol] = {
    "flair": Protocol(shape=(40, 256, 256), spacing_mm=(4.0, 1.0, 1.0)),
    "t1": Protocol(
        shape=(41, 256, 232),
        spacing_mm=(4.0, 0.9375, 0.9375),
        tilt_deg=1.5,
        turn_deg=0.6,
        shift_mm=(1.5, -2.0, 1.0),
    ),
    "t1gd": Protocol(
        shape=(80, 256, 248),
        spacing_mm=(2.0, 0.9375, 0.9375),
        tilt_deg=2.0,
        turn_deg=-0.4,
        shift_mm=(-1.0, 1.0, 0.5),
    ),
    "t2": Protocol(
        shape=(36, 320, 288),
        spacing_mm=(4.4, 0.78125, 0.78125),
        tilt_deg=-1.0,
        shift_mm=(0.5, 3.0, -0.5),
    ),
}
_SMALL: Mapping[Role, Protocol] = {
    "flair": Protocol(shape=(24, 112, 96), spacing_mm=(6.0, 1.9, 1.9)),
    "t1": replace(_CLINICAL["t1"], shape=(23, 104, 88), spacing_mm=(6.2, 2.0, 2.0)),
    "t1gd": replace(_CLINICAL["t1gd"], shape=(32, 112, 104), spacing_mm=(4.5, 1.875, 1.875)),
    "t2": replace(_CLINICAL["t2"], shape=(22, 120, 108), spacing_mm=(6.4, 1.75, 1.75)),
}
_PROTOCOLS: Mapping[Size, Mapping[Role, Protocol]] = {"clinical": _CLINICAL, "small": _SMALL}
_LATTICE_MM: Mapping[Size, float] = {"clinical": 1.2, "small": 1.8}
_LATTICE_EXTENT_MM = np.array([154.0, 198.0, 148.0])  # left, posterior, superior
_HEAD_EXTENT_MM = np.array([168.0, 208.0, 176.0])


def protocol(role: Role, size: Size, *, has_odd_matrix: bool) -> Protocol:
    """Return a series' protocol; an odd matrix has rows x columns that is no multiple of 8."""
    usual = _PROTOCOLS[size][role]
    if not has_odd_matrix:
        return usual
    slices, rows, columns = usual.shape
    return replace(usual, shape=(slices, rows - 1, columns - 3))


def grid_of(plan: Protocol, frame_of_reference_uid: str) -> Grid:
    """Return the grid of a protocol, around the middle of the brain."""
    tilt, turn = np.radians([plan.tilt_deg, plan.turn_deg])
    about_x = [[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]
    about_z = [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    directions = (np.array(about_x) @ np.array(about_z))[:, ::-1]  # of slice, row, column index
    return _centred(
        plan.shape,
        directions * np.array(plan.spacing_mm),
        BRAIN_CENTRE_LPS_MM + np.array(plan.shift_mm),
        frame_of_reference_uid,
    )


def lattice(size: Size, *, has_skull: bool) -> Grid:
    """Return the axial, isotropic grid on which brain or head are drawn."""
    spacing = _LATTICE_MM[size]
    extent = _HEAD_EXTENT_MM if has_skull else _LATTICE_EXTENT_MM
    counts = np.ceil(extent[::-1] / spacing).astype(int)
    shape = (int(counts[0]), int(counts[1]), int(counts[2]))
    return _centred(shape, np.fliplr(np.eye(3)) * spacing, BRAIN_CENTRE_LPS_MM, "")


def _centred(
    shape: Shape, steps: NDArray[np.float64], centre_lps_mm: NDArray[np.float64], frame: str
) -> Grid:
    matrix = np.eye(4)
    matrix[:3, :3] = steps
    matrix[:3, 3] = centre_lps_mm - steps @ ((np.array(shape) - 1) / 2.0)
    return Grid(shape=shape, index_to_lps_mm=matrix, frame_of_reference_uid=frame)


def brain_coordinates(grid: Grid) -> Position:
    """Return x, y, z of every voxel, mm from the middle of the brain (left, posterior, up)."""
    matrix = grid.index_to_lps_mm.astype(np.float32)
    start = (grid.index_to_lps_mm[:3, 3] - BRAIN_CENTRE_LPS_MM).astype(np.float32)
    along = [np.arange(count, dtype=np.float32) for count in grid.shape]
    x, y, z = (
        (matrix[axis, 0] * along[0] + start[axis])[:, None, None]
        + (matrix[axis, 1] * along[1])[:, None]
        + matrix[axis, 2] * along[2]
        for axis in range(3)
    )
    return x, y, z


def sample(values: Field, source: Grid, target: Grid) -> Field:
    """Return `values` read at the voxels of `target`, linearly, 0 outside."""
    way = np.linalg.inv(source.index_to_lps_mm) @ target.index_to_lps_mm
    read = ndimage.affine_transform(
        values, way[:3, :3], way[:3, 3], output_shape=target.shape, order=1, prefilter=False
    )
    return np.asarray(read, dtype=np.float32)


def _bias(at: Position, rng: np.random.Generator) -> Field:
    """Return the sensitivity of the coil at brain coordinates, about 1."""
    slope, bend = rng.normal(0.0, 7e-4, 3), rng.normal(0.0, 5e-6, 3)
    terms = [
        part * (np.float32(first) + np.float32(second) * part)
        for part, first, second in zip(at, slope, bend, strict=True)
    ]
    return np.asarray(1.0 + terms[0] + terms[1] + terms[2], dtype=np.float32)


def acquire(
    signal: Field,
    is_object: NDArray[np.bool_],
    drawn_on: Grid,
    grid: Grid,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Return stored values on a grid: slices of a thickness, coil sensitivity, Rician noise.

    Parameters
    ----------
    signal : ndarray
        Noise-free, on the lattice `drawn_on`; 1 is the brightest normal tissue.
    is_object : ndarray of bool
        Where there is tissue on the lattice. Everything else is exactly 0 in the result, as after
        skull stripping.
    """
    sigma = grid.spacing_mm[0] / drawn_on.spacing_mm[0] / _SLAB_TO_SIGMA
    weight = is_object.astype(np.float32)
    blurred = ndimage.gaussian_filter1d(signal * weight, sigma, axis=0)
    # Normalised, so that the object's edge does not fade into a background that is no tissue.
    blurred /= np.maximum(ndimage.gaussian_filter1d(weight, sigma, axis=0), 0.02)
    is_seen = sample(weight, drawn_on, grid) > _HALF
    seen = sample(blurred, drawn_on, grid)[is_seen]
    x, y, z = (part[is_seen] for part in brain_coordinates(grid))
    noise = rng.standard_normal((2, seen.size), dtype=np.float32) * np.float32(_NOISE)
    noisy = np.sqrt((seen * _bias((x, y, z), rng) + noise[0]) ** 2 + noise[1] ** 2)
    stored = np.zeros(grid.shape, np.float32)
    stored[is_seen] = np.clip(np.rint(noisy * _FULL_SCALE), 1.0, _MAX_STORED)
    return stored
