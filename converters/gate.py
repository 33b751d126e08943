"""Whether a volume can be a patient's whole head: size, spacing, coverage and content.

What is refused here is evenly spaced and readable, but no image that a brain can be segmented in: a
slab, a phantom's coil test, a field of view in the wrong unit, a series whose pixels were lost. The
limits leave room for every head from a newborn's up; who is right about a doubtful image is
not decided here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from converters.errors import (
    BlankSlicesError,
    CoverageError,
    EmptyImageError,
    FieldOfViewError,
    NearlyEmptyError,
    NotFiniteError,
    SpacingError,
    TooFewSlicesError,
)
from converters.volume import MM3_PER_ML, Grid, Volume

_AXES: Final = ("slices", "rows", "columns")
_ROUNDING: Final = (
    1e-3  # relative; a limit that is met but for the rounding of header values is met
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a head's image may measure; each limit itself is allowed.

    Parameters
    ----------
    finest_mm, coarsest_mm : float
        Distance between neighbouring voxels along any axis. Scanners interpolate to 0.2 mm at 7 T;
        10 mm is 7 mm slices with 3 mm gaps, the coarsest protocol of a brain that is still in use.
    narrowest_mm, widest_mm : float
        Field of view along rows and along columns. An adult's brain is 140 mm wide and 170 mm long,
        a newborn's head 95 mm wide in a coil that images more; no bore lets in 600 mm.
    longest_mm : float
        Extent of the slices along their normal; more is a spine or several stations in one.
    coverage_mm : float
        Least extent of the slices along their normal, blank ones at the ends left out. An adult's
        cerebrum is 93 mm high, its shortest extent; 20 slices of 5 mm are a sparse exam of it.
    fewest_slices : int
        `coverage_mm` in slices of `coarsest_mm`.
    content_ml : float
        Least volume that is not the darkest value. A newborn's stripped brain has 370 ml, a
        stripped adult's 1100 to 1700 ml; with the air's noise a head's image has several litres.
    blank_slices : int
        Most slices of one single value that may lie between others. Stripping leaves them at the
        ends; within a head each was lost on its way.
    """

    finest_mm: float = 0.1
    coarsest_mm: float = 10.0
    narrowest_mm: float = 120.0
    widest_mm: float = 600.0
    longest_mm: float = 450.0
    coverage_mm: float = 90.0
    fewest_slices: int = 9
    content_ml: float = 300.0
    blank_slices: int = 0


DEFAULT: Final = Limits()


def check_grid(grid: Grid, limits: Limits = DEFAULT) -> None:
    """Raise unless the grid is a plausible acquisition of a whole head.

    Raises
    ------
    SpacingError, FieldOfViewError
        Voxels or extent of a size that no image of a head has.
    TooFewSlicesError, CoverageError
        A slab, a localizer, a part of a series.
    """
    extents_mm = [
        count * spacing_mm for count, spacing_mm in zip(grid.shape, grid.spacing_mm, strict=True)
    ]
    for axis, spacing_mm in zip(_AXES, grid.spacing_mm, strict=True):
        if _is_outside(spacing_mm, limits.finest_mm, limits.coarsest_mm):
            raise SpacingError(
                axis=axis,
                spacing_mm=spacing_mm,
                minimum_mm=limits.finest_mm,
                maximum_mm=limits.coarsest_mm,
            )
    for axis, extent_mm in zip(_AXES[1:], extents_mm[1:], strict=True):
        _check_extent(axis, extent_mm, limits.narrowest_mm, limits.widest_mm)
    if grid.shape[0] < limits.fewest_slices:
        raise TooFewSlicesError(slice_count=grid.shape[0], minimum=limits.fewest_slices)
    _check_coverage(extents_mm[0], limits)
    _check_extent(_AXES[0], extents_mm[0], limits.coverage_mm, limits.longest_mm)


def _is_outside(value: float, least: float, most: float) -> bool:
    return not least * (1.0 - _ROUNDING) <= value <= most * (1.0 + _ROUNDING)


def _check_extent(axis: str, extent_mm: float, minimum_mm: float, maximum_mm: float) -> None:
    if _is_outside(extent_mm, minimum_mm, maximum_mm):
        raise FieldOfViewError(
            axis=axis, extent_mm=extent_mm, minimum_mm=minimum_mm, maximum_mm=maximum_mm
        )


def _check_coverage(covered_mm: float, limits: Limits) -> None:
    if covered_mm < limits.coverage_mm * (1.0 - _ROUNDING):
        raise CoverageError(covered_mm=covered_mm, minimum_mm=limits.coverage_mm)


def check_volume(volume: Volume, limits: Limits = DEFAULT) -> None:
    """Raise unless the intensities are an image that covers a head.

    Raises
    ------
    NotFiniteError
        A voxel is infinite or no number.
    EmptyImageError
        Every voxel has the same value.
    BlankSlicesError, CoverageError
        Slices of one single value between others, or too many of them at the ends.
    NearlyEmptyError
        Too little that differs from the darkest value.
    """
    # slice by slice: one fits the processor's cache, so that memory is read once
    extremes = [(plane.min(), plane.max()) for plane in volume.intensities]
    lowest, highest = np.array(extremes).T
    _check_finite(volume, lowest, highest)
    darkest = lowest.min()
    if darkest == highest.max():
        raise EmptyImageError
    _check_slices(volume.grid, lowest < highest, limits)
    _check_content(volume, float(darkest), limits)


def _check_finite(
    volume: Volume, lowest: NDArray[np.float32], highest: NDArray[np.float32]
) -> None:
    is_finite = np.isfinite(lowest) & np.isfinite(highest)
    if not is_finite.all():
        count = int(np.count_nonzero(~np.isfinite(volume.intensities)))
        raise NotFiniteError(voxel_count=count, slice_index=int(np.argmin(is_finite)))


def _check_slices(grid: Grid, has_content: NDArray[np.bool_], limits: Limits) -> None:
    """Check that slices with content follow one another and cover a head."""
    filled = np.flatnonzero(has_content)
    span = int(filled[-1] - filled[0] + 1) if len(filled) else 0
    blank_count = span - len(filled)
    if blank_count > limits.blank_slices:
        first = int(filled[np.argmax(np.diff(filled) > 1)]) + 1
        raise BlankSlicesError(count=blank_count, slice_index=first)
    _check_coverage(span * grid.spacing_mm[0], limits)


def _check_content(volume: Volume, darkest: float, limits: Limits) -> None:
    """Count voxels, from the middle on, until there are enough."""
    planes = volume.intensities
    content_ml = 0.0
    for index in np.argsort(np.abs(np.arange(len(planes)) - len(planes) // 2)):
        voxel_count = int(np.count_nonzero(planes[index] > darkest))
        content_ml += voxel_count * volume.grid.voxel_volume_mm3 / MM3_PER_ML
        if content_ml >= limits.content_ml:
            return
    raise NearlyEmptyError(content_ml=content_ml, minimum_ml=limits.content_ml)
