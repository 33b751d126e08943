"""The healthy brain of the synthetic study: tissue fractions as functions of the position.

Everything is drawn by formulas from a seed, nothing is taken from a template or a patient. Shapes
are in brain coordinates: millimetres from the middle of the brain, left, posterior and superior
positive, and mirrored at the midline where the brain is. Depths are millimetres below a surface,
positive inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Field: TypeAlias = NDArray[np.float32]
"""Values at points, float32: (slices, rows, columns) on a lattice, or (n,) inside the brain."""

Position: TypeAlias = tuple[Field, Field, Field]
"""Brain coordinates x, y, z of points, mm."""

Line: TypeAlias = Sequence[tuple[float, float, float, float]]

_GYRUS_PERIOD_MM = 20.0  # two sulci a period, so gyri about 10 mm wide
_CORTEX_MM = 2.8
_NOISE_STEP_MM = 2.5
_NOISE_EXTENT_MM = 200.0

# Centre lines of the left side's cavities, of the midline's and of the brainstem: x, y, z, radius.
_LATERAL: tuple[Line, ...] = (
    ((7, -34, 3, 2.5), (9, -25, 9, 5.5), (9, -6, 17, 5.0), (13, 12, 18, 5.0), (23, 29, 9, 6.5)),
    ((23, 29, 9, 6.0), (22, 52, 6, 1.5)),
    ((23, 29, 9, 5.0), (32, 14, -12, 3.0), (31, -4, -20, 2.0)),
)
_MIDDLE: tuple[Line, ...] = (
    ((0, -8, -4, 2.5), (0, 10, 1, 2.5)),
    ((0, 31, -30, 5.0), (0, 33, -40, 3.0)),
)
_BRAINSTEM: Line = ((0, 6, -8, 17.0), (0, 14, -30, 14.0), (0, 26, -64, 8.0))
# Grey nuclei of the left side: centre and half axes.
_NUCLEI = (
    ((13.5, -24, 7), (5, 10, 9)),  # head of the caudate
    ((26, -5, 2), (5.5, 16, 10)),  # putamen
    ((19, -1, 0), (4, 9, 7)),  # pallidum
    ((10, 12, 5), (8, 14, 9)),  # thalamus
)
_EQUATOR_MM = 8.0  # height of the cerebrum's widest section
_INSULA_MM = 37.0  # distance of the insular surface from the midline


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Anatomy:
    """Tissue fractions inside the brain.

    Parameters
    ----------
    is_brain : (slices, rows, columns) ndarray of bool
        Inside the brain's hull, sulci included.
    fractions : (5, n) ndarray of float32
        Sulcal CSF, ventricular CSF, cortex, nuclei and white matter at the n points of `is_brain`;
        they sum to one.
    """

    is_brain: NDArray[np.bool_]
    fractions: Field

    def spread(self, values: Field) -> Field:
        """Return (n,) values inside the brain as an array of the lattice, 0 outside."""
        out = np.zeros(self.is_brain.shape, np.float32)
        out[self.is_brain] = values
        return out


def _spline_matrix(count: int, scale: float) -> Field:
    """Return the cubic B-spline weights of coarse nodes at `count` fine positions."""
    at = np.arange(count) / scale
    node, t = np.floor(at).astype(int), at - np.floor(at)
    weights = np.array([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 1 + 3 * t * (1 + t - t**2), t**3])
    matrix = np.zeros((count, int(node[-1]) + 4), np.float32)
    for offset, weight in enumerate(weights / 6.0):
        matrix[np.arange(count), node + offset] = weight
    return matrix


def smooth_noise(shape: Sequence[int], scale: float, rng: np.random.Generator) -> Field:
    """Return noise of mean 0 and deviation 1 that varies smoothly over about `scale` voxels."""
    along = [_spline_matrix(count, scale) for count in shape]
    coarse = rng.standard_normal([part.shape[1] for part in along], dtype=np.float32)
    noise = along[1] @ np.tensordot(along[0], coarse, 1) @ along[2].T
    return np.asarray((noise - noise.mean()) / noise.std(), dtype=np.float32)


def _ripples(rng: np.random.Generator) -> tuple[Field, Field]:
    """Return a periodic cube of noise whose waves all have about one period, and its slope."""
    count = round(_NOISE_EXTENT_MM / _NOISE_STEP_MM)
    first, last = np.fft.fftfreq(count, _NOISE_STEP_MM), np.fft.rfftfreq(count, _NOISE_STEP_MM)
    frequency = np.sqrt(first[:, None, None] ** 2 + first[None, :, None] ** 2 + last**2)
    ring = np.exp(-(((frequency * _GYRUS_PERIOD_MM - 1.0) / 0.2) ** 2))
    white = np.fft.rfftn(rng.standard_normal((count,) * 3))
    noise = np.fft.irfftn(white * ring, s=(count,) * 3, axes=(0, 1, 2)).astype(np.float32)
    slope = np.sqrt(sum(part**2 for part in np.gradient(noise, _NOISE_STEP_MM)))
    return noise, np.asarray(slope, dtype=np.float32)


def _ellipsoid_mm(at: Position, half_axes: Sequence[float | Field], power: float = 2.0) -> Field:
    """Return the approximate depth below a (super-)ellipsoid around the origin."""
    terms = [np.abs(part / half) ** power for part, half in zip(at, half_axes, strict=True)]
    total = terms[0] + terms[1] + terms[2]
    mean = sum(term * half for term, half in zip(terms, half_axes, strict=True)) / (total + 1e-6)
    return np.asarray((1.0 - total ** (1.0 / power)) * mean, dtype=np.float32)


def _tube_mm(at: Position, line: Line) -> Field:
    """Return the depth below the surface of a bent tube of changing width."""
    best = np.full(at[0].shape, -1e3, np.float32)
    for (*start, first), (*end, last) in pairwise(line):
        step = [b - a for a, b in zip(start, end, strict=True)]
        away = [part - a for part, a in zip(at, start, strict=True)]
        along = sum(d * s for d, s in zip(away, step, strict=True)) / sum(s * s for s in step)
        along = np.clip(along, 0.0, 1.0)
        square = sum((d - along * s) ** 2 for d, s in zip(away, step, strict=True))
        np.maximum(best, first + along * (last - first) - np.sqrt(square), out=best)
    return best


def _soft(depth_mm: Field, width_mm: float) -> Field:
    """Return 1 inside and 0 outside, with an edge of twice `width_mm`."""
    return np.asarray(np.clip(0.5 + depth_mm / (2.0 * width_mm), 0.0, 1.0), dtype=np.float32)


def _hulls_mm(at: Position) -> tuple[Field, Field, Field]:
    """Return the depths below the hulls of cerebrum, cerebellum and brainstem."""
    x, y, z = at
    side: Field = np.abs(x)
    wide = 67.0 * (1.0 - 0.13 * _soft(-y - 20.0, 50.0))
    high = np.where(z > _EQUATOR_MM, np.float32(60.0), np.float32(37.0))
    upper = _ellipsoid_mm((x, y, z - _EQUATOR_MM), (wide, 86.0, high), 2.25)
    temporal = _ellipsoid_mm((side - 41.0, y + 4.0, z + 21.0), (24.0, 44.0, 25.0))
    cerebellum = _ellipsoid_mm((side - 20.0, y - 50.0, z + 39.0), (33.0, 31.0, 24.0))
    return np.maximum(upper, temporal), cerebellum, _tube_mm(at, _BRAINSTEM)


def _sulci_mm(at: Position, beyond: Field, rng: np.random.Generator) -> Field:
    """Return the distance to the nearest sulcus: sheets that stand on the brain's surface.

    The sheets are the zeros of a noise that is read at the point's projection towards the hull, so
    that they run radially. `beyond` is how much deeper than the sulci's ends a point lies, mm.
    """
    noise, slope = _ripples(rng)
    x, y, z = at
    radius = np.sqrt((x / 67.0) ** 2 + (y / 86.0) ** 2 + (z / 62.0) ** 2)
    pull = np.maximum(radius, 0.4) ** np.float32(-0.7)
    middle = _NOISE_EXTENT_MM / 2.0
    where = np.stack([(part * pull + middle) / _NOISE_STEP_MM for part in (z, y, x)])
    height, steepness = (
        ndimage.map_coordinates(cube, where, order=1, mode="grid-wrap") for cube in (noise, slope)
    )
    sheet = np.abs(height) / (np.maximum(steepness, 0.03 * slope.mean()) * pull)
    return np.asarray(np.sqrt(sheet**2 + np.maximum(beyond, 0.0) ** 2), dtype=np.float32)


def _fissures_mm(at: Position) -> tuple[Field, Field]:
    """Return the distances to the interhemispheric fissure and to the Sylvian fissures."""
    x, y, z = at
    side: Field = np.abs(x)
    callosum = _ellipsoid_mm((0.0 * x, y + 1.0, z - 6.0), (1e3, 41.0, 22.0))
    middle = np.sqrt((x + 0.8 * np.sin(y / 19.0)) ** 2 + np.maximum(callosum, 0.0) ** 2)
    height = z + 6.0 - 0.25 * (y + 10.0)
    ends = np.maximum(np.abs(y + 4.0) - 30.0, 0.0)
    cleft = np.maximum(_INSULA_MM - side, np.abs(height + 2.0 * np.sin(side / 6.0)))
    island = np.maximum(np.abs(side - _INSULA_MM), np.abs(height - 5.0) - 9.0)
    return middle, np.sqrt(np.minimum(cleft, island) ** 2 + ends**2)


def _lower_white(at: Position, cerebellum: Field, stem: Field, uneven: Field) -> Field:
    """Return the white fraction below the tentorium: the stem, and a core with thin leaves."""
    _, y, z = at
    ring = np.sqrt((y - 24.0) ** 2 + (z + 34.0) ** 2)
    leaves = 0.5 + 0.5 * np.sin(1.15 * ring + 2.0 * uneven)
    leaves = 0.75 * leaves * _soft(cerebellum - 2.5, 2.0)
    return np.maximum(np.maximum(_soft(cerebellum - 13.0, 3.0), leaves), _soft(stem, 1.5))


def _cavities_mm(at: Position) -> Field:
    """Return the depth below the walls of the ventricles."""
    left = (np.abs(at[0]), at[1], at[2])
    tubes = [_tube_mm(left, line) for line in _LATERAL]
    tubes += [_tube_mm(at, line) for line in _MIDDLE]
    return np.asarray(np.maximum.reduce(tubes), dtype=np.float32)


def _nuclei(at: Position) -> Field:
    """Return the fraction of deep grey matter."""
    x, y, z = at
    side: Field = np.abs(x)
    inside = [
        _ellipsoid_mm((side - cx, y - cy, z - cz), half_axes) for (cx, cy, cz), half_axes in _NUCLEI
    ]
    return _soft(np.asarray(np.maximum.reduce(inside), dtype=np.float32), 0.9)


def _cerebral_cortex(
    at: Position, depth: Field, noises: Sequence[Field], rng: np.random.Generator
) -> tuple[Field, Field]:
    """Return the fractions of sulcal CSF and of the cortical ribbon around it."""
    uneven, fine = noises
    middle, sylvian = _fissures_mm(at)
    fissure = np.minimum(middle, sylvian)
    beyond = np.minimum(depth - 14.0 - 4.0 * uneven, fissure - 6.0 - 3.0 * uneven)
    beyond = np.maximum(beyond, _ellipsoid_mm((at[0], at[1], at[2] - 4.0), (38.0, 52.0, 24.0)))
    pial = np.minimum(_sulci_mm(at, beyond, rng), fissure)
    opening = 0.55 + 0.2 * uneven + 0.7 * _soft(3.0 - depth, 4.0)
    csf = _soft(opening - pial, 0.8)
    ribbon = _CORTEX_MM + 0.4 * fine
    return csf, _soft(ribbon - np.minimum(pial - opening, depth - 0.6), 0.8)


def draw(position: Position, seed: int) -> Anatomy:
    """Return the tissue fractions on a lattice.

    Parameters
    ----------
    position : tuple of (slices, rows, columns) ndarray
        Brain coordinates of each voxel, mm; displaced where a tumour pushes.
    seed : int
        Another seed folds another cortex.
    """
    rng = np.random.default_rng([seed, 1])
    shape = position[0].shape
    x, y, z = (part + 1.6 * smooth_noise(shape, 26.0, rng) for part in position)
    hulls = _hulls_mm((x, y, z))
    is_brain = np.maximum.reduce(hulls) > 0.0
    at = (x[is_brain], y[is_brain], z[is_brain])
    cerebrum, cerebellum, stem = (hull[is_brain] for hull in hulls)
    noises = [smooth_noise(shape, scale, rng)[is_brain] for scale in (14.0, 3.5)]

    csf, grey = _cerebral_cortex(at, cerebrum, noises, rng)
    is_lower = _soft(np.maximum(cerebellum, stem) + np.minimum(-10.0 - at[2], 4.0) - 3.0, 1.0)
    grey = grey + is_lower * (1.0 - _lower_white(at, cerebellum, stem, noises[0]) - grey)
    tentorium = np.abs(cerebellum) + 40.0 * (stem > 0.0) + 40.0 * (at[2] > 0.0)
    csf = np.maximum(csf * (1.0 - is_lower), _soft(1.0 - tentorium, 0.8))
    csf = np.maximum(csf, 0.7 * _soft(0.6 - np.maximum.reduce([cerebrum, cerebellum, stem]), 0.8))

    ventricle = _soft(_cavities_mm(at), 0.7)
    csf = csf * (1.0 - ventricle)
    rest = 1.0 - csf - ventricle
    nuclei = _nuclei(at) * rest
    cortex = grey * (rest - nuclei)
    parts = [csf, ventricle, cortex, nuclei, rest - nuclei - cortex]
    return Anatomy(is_brain=is_brain, fractions=np.stack(parts).astype(np.float32))


def head_depth_mm(at: Position) -> Field:
    """Return the depth below the scalp's surface at undisplaced brain coordinates."""
    return _ellipsoid_mm((at[0], at[1] - 1.0, at[2] + 1.0), (82.0, 102.0, 86.0), 2.2)


def shells(
    depth_mm: Field, is_brain: NDArray[np.bool_], levels: tuple[float, float, float, float, float]
) -> Field:
    """Return the signal around the brain: scalp, bone, marrow, soft tissue and fluid; air is 0."""
    scalp, bone, marrow, soft, fluid = levels
    is_near = ndimage.binary_dilation(is_brain, iterations=2)
    inner = np.where(is_near, np.float32(fluid), np.float32(soft))
    conditions = [depth_mm < part for part in (0.0, 5.0, 7.0, 9.5, 11.5)]
    return np.select(conditions, [0.0, scalp, bone, marrow, bone], inner).astype(np.float32)
