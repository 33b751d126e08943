"""Pure geometry of a stack of slices: axes, order, evenness and the map into the patient.

All arrays are float64, positions are patient LPS in millimetres at voxel centres.

References
----------
DICOM PS3.3 C.7.6.2.1.1 Image Position and Image Orientation.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from converters.errors import (
    DuplicateSliceError,
    IrregularSpacingError,
    MissingAttributeError,
    MissingSliceError,
    MixedOrientationError,
    ShearedStackError,
)

Array: TypeAlias = NDArray[np.float64]

COSINE_TOLERANCE: Final = 1e-3
"""Cosines written with four decimals are wrong by 5e-5; anything beyond 1e-3 is no rounding."""

ORIENTATION_TOLERANCE_DEG: Final = 0.05
"""Moves the corner of a 256 mm field by 0.16 mm; real series repeat theirs to 1e-6 degrees."""

DUPLICATE_TOLERANCE_MM: Final = 0.01
"""The finest slices of patients lie 0.3 mm apart; positions are often written to 0.01 mm."""

GAP_TOLERANCE: Final = 0.01
"""Fraction of the usual gap: rounding moves a gap by 1e-4 of it, a shifted slice by far more."""

POSITION_TOLERANCE_MM: Final = 0.1
"""How far a slice may lie off the evenly spaced line: a tenth of the finest usual voxel."""


def unit_axes(cosines: Array) -> Array:
    """Return row and column cosines of unit length.

    Parameters
    ----------
    cosines : (n, 6) ndarray of float64
        Image Orientation (Patient) of each instance.

    Returns
    -------
    (n, 2, 3) ndarray of float64
        Direction of a row (its columns grow) and of a column (its rows grow).

    Raises
    ------
    MissingAttributeError
        Cosines that are not two perpendicular directions of unit length.
    """
    axes = cosines.reshape(-1, 2, 3)
    lengths = np.linalg.norm(axes, axis=2)
    across = np.abs((axes[:, 0] * axes[:, 1]).sum(axis=1))
    is_off = (np.abs(lengths - 1.0) > COSINE_TOLERANCE).any(axis=1) | (across > COSINE_TOLERANCE)
    if is_off.any():
        raise MissingAttributeError(
            keyword="ImageOrientationPatient", instance=int(np.argmax(is_off))
        )
    unit: Array = axes / lengths[:, :, np.newaxis]
    return unit


def check_one_orientation(axes: Array) -> None:
    """Raise `MixedOrientationError` unless all (n, 2, 3) axes point along the first ones."""
    chords = np.linalg.norm(axes - axes[0], axis=2).max(axis=1)
    angles_deg = np.degrees(2.0 * np.arcsin(np.minimum(chords / 2.0, 1.0)))
    is_turned = angles_deg > ORIENTATION_TOLERANCE_DEG
    if is_turned.any():
        index = int(np.argmax(is_turned))
        raise MixedOrientationError(slice_index=index, angle_deg=float(angles_deg[index]))


def normal_of(axes: Array) -> Array:
    """Return the unit normal of one slice's (2, 3) axes: row cosines x column cosines."""
    normal = np.cross(axes[0], axes[1])
    unit: Array = normal / np.linalg.norm(normal)
    return unit


def check_even(positions_mm: Array, normal: Array) -> None:
    """Raise unless slices lie one over the other at even distances.

    Parameters
    ----------
    positions_mm : (n, 3) ndarray of float64
        Image Position (Patient) of each slice, ascending along the normal; n >= 2.
    normal : (3,) ndarray of float64
        Unit normal: row cosines x column cosines.

    Raises
    ------
    DuplicateSliceError
        Slices share a position.
    MissingSliceError
        A gap is a whole multiple of the usual one.
    IrregularSpacingError
        Gaps differ otherwise, or drift.
    ShearedStackError
        Slices are displaced within their plane.

    Notes
    -----
    Slice Thickness (0018,0050) and Spacing Between Slices (0018,0088) are ignored: the first is
    the excited slab, the second is written as distance by some vendors and as gap by others.
    """
    along_mm = (positions_mm - positions_mm[0]) @ normal
    gaps_mm = np.diff(along_mm)
    _check_apart(gaps_mm)
    _check_gaps(gaps_mm)
    _check_drift(along_mm, gaps_mm)
    shifts_mm = positions_mm - positions_mm[0] - np.outer(along_mm, normal)
    shift_mm = float(np.linalg.norm(shifts_mm, axis=1).max())
    if shift_mm > POSITION_TOLERANCE_MM:
        raise ShearedStackError(shift_mm=shift_mm)


def _check_apart(gaps_mm: Array) -> None:
    is_shared = gaps_mm <= DUPLICATE_TOLERANCE_MM
    if is_shared.any():
        shares = np.append(is_shared, False) | np.append(False, is_shared)
        raise DuplicateSliceError(count=int(shares.sum()), slice_index=int(np.argmax(shares)))


def _check_gaps(gaps_mm: Array) -> None:
    # the lower median: of the two gaps that one missing slice among four leaves, the usual one
    usual_mm = float(np.sort(gaps_mm)[(len(gaps_mm) - 1) // 2])
    tolerance_mm = max(GAP_TOLERANCE * usual_mm, DUPLICATE_TOLERANCE_MM)
    is_odd = np.abs(gaps_mm - usual_mm) > tolerance_mm
    if not is_odd.any():
        return
    index = int(np.argmax(is_odd))
    gap_mm = float(gaps_mm[index])
    steps = round(gap_mm / usual_mm)
    is_multiple = steps > 1 and abs(gap_mm - steps * usual_mm) <= steps * tolerance_mm
    kind = MissingSliceError if is_multiple else IrregularSpacingError
    raise kind(slice_index=index + 1, gap_mm=gap_mm, expected_mm=usual_mm)


def _check_drift(along_mm: Array, gaps_mm: Array) -> None:
    """Refuse gaps that differ little from one to the next, but add up."""
    step_mm = float(along_mm[-1]) / len(gaps_mm)
    off_mm = np.abs(along_mm - step_mm * np.arange(len(along_mm)))
    index = int(np.argmax(off_mm))
    if off_mm[index] > POSITION_TOLERANCE_MM:
        gap_mm = float(gaps_mm[index - 1])
        raise IrregularSpacingError(slice_index=index, gap_mm=gap_mm, expected_mm=step_mm)


def index_to_lps_mm(
    positions_mm: Array, axes: Array, pixel_spacing_mm: tuple[float, float]
) -> Array:
    """Return the (4, 4) matrix from (slice, row, column) to patient LPS millimetres.

    Parameters
    ----------
    positions_mm : (n, 3) ndarray of float64
        Image Position (Patient) in slice order, n >= 2.
    axes : (2, 3) ndarray of float64
        Unit row and column cosines.
    pixel_spacing_mm : tuple of float
        Pixel Spacing (0028,0030): between rows, then between columns.

    Notes
    -----
    The slice step is the mean one from first to last position, so that rounding of single
    positions does not add up.
    """
    between_rows_mm, between_columns_mm = pixel_spacing_mm
    matrix = np.eye(4)
    matrix[:3, 0] = (positions_mm[-1] - positions_mm[0]) / (len(positions_mm) - 1)
    matrix[:3, 1] = axes[1] * between_rows_mm
    matrix[:3, 2] = axes[0] * between_columns_mm
    matrix[:3, 3] = positions_mm[0]
    return matrix
