"""What the headers of a series say about where its slices lie, as arrays; order and grid of them.

A series may hold several acquisitions, so any subset of its slices can be asked whether it is an
evenly spaced stack of parallel slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from converters import geometry
from converters.attributes import numbers, optional_uid, unusable, whole_number
from converters.errors import (
    MixedFrameOfReferenceError,
    MixedMatrixError,
    TooFewSlicesError,
    TooManyVoxelsError,
)
from converters.volume import Grid

MINIMUM_SLICES: Final = 3
"""Two gaps are the fewest that can contradict each other, so that evenness can be checked."""

MAXIMUM_VOXELS: Final = 2**29
"""2 GiB of float32; an isotropic half-millimetre head has a quarter of it."""

SPACING_TOLERANCE: Final = 1e-4
"""Relative; moves the edge of a 256 mm field by 0.01 mm. Real series repeat theirs exactly."""

_SMALLEST_SPACING_MM: Final = 0.01
_LARGEST_SPACING_MM: Final = 100.0

_POSITION: Final = Tag("ImagePositionPatient")
_ORIENTATION: Final = Tag("ImageOrientationPatient")
_SPACING: Final = Tag("PixelSpacing")
_ROWS: Final = Tag("Rows")
_COLUMNS: Final = Tag("Columns")
_FRAME: Final = Tag("FrameOfReferenceUID")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slices:
    """Geometry of n slices, LPS mm; `of` gives any of them in any order.

    Parameters
    ----------
    positions_mm : (n, 3) ndarray of float64
        Image Position (Patient).
    axes : (n, 2, 3) ndarray of float64
        Unit row and column cosines.
    spacings_mm : (n, 2) ndarray of float64
        Pixel Spacing: between rows, then between columns.
    matrices : (n, 2) ndarray of int64
        Rows and Columns.
    frames_of_reference : (n,) ndarray of str
        Frame of Reference UID, '' where there is none.
    """

    positions_mm: NDArray[np.float64]
    axes: NDArray[np.float64]
    spacings_mm: NDArray[np.float64]
    matrices: NDArray[np.int64]
    frames_of_reference: NDArray[np.str_]

    def __len__(self) -> int:
        """Return how many slices there are."""
        return len(self.positions_mm)

    def of(self, members: NDArray[np.intp]) -> Self:
        """Return some of the slices."""
        return type(self)(
            positions_mm=self.positions_mm[members],
            axes=self.axes[members],
            spacings_mm=self.spacings_mm[members],
            matrices=self.matrices[members],
            frames_of_reference=self.frames_of_reference[members],
        )


def read_slices(headers: Sequence[Dataset]) -> Slices:
    """Return the geometry of one header per slice.

    Raises
    ------
    TooFewSlicesError
        Less than `MINIMUM_SLICES`.
    MissingAttributeError
        An attribute is absent, malformed or of no usable size; `instance` counts the headers.
    """
    if len(headers) < MINIMUM_SLICES:
        raise TooFewSlicesError(slice_count=len(headers), minimum=MINIMUM_SLICES)
    return Slices(
        axes=geometry.unit_axes(_table(headers, _ORIENTATION, 6)),
        matrices=np.column_stack([_counts(headers, tag) for tag in (_ROWS, _COLUMNS)]),
        spacings_mm=_spacings_mm(headers),
        frames_of_reference=np.array(
            [optional_uid(header, _FRAME, instance=at) for at, header in enumerate(headers)]
        ),
        positions_mm=_table(headers, _POSITION, 3),
    )


def _table(headers: Sequence[Dataset], tag: BaseTag, count: int) -> NDArray[np.float64]:
    """Return an element of every header as an (n, count) array."""
    rows = [numbers(header, tag, instance=at, count=count) for at, header in enumerate(headers)]
    return np.array(rows, dtype=np.float64)


def _counts(headers: Sequence[Dataset], tag: BaseTag) -> NDArray[np.int64]:
    """Return Rows or Columns, at least 1 in every header."""
    counts = [whole_number(header, tag, instance=at) for at, header in enumerate(headers)]
    if min(counts) < 1:
        raise unusable(tag, counts.index(min(counts)))
    return np.array(counts, dtype=np.int64)


def _spacings_mm(headers: Sequence[Dataset]) -> NDArray[np.float64]:
    spacings_mm = _table(headers, _SPACING, 2)
    is_odd = (spacings_mm < _SMALLEST_SPACING_MM) | (spacings_mm > _LARGEST_SPACING_MM)
    if is_odd.any():
        raise unusable(_SPACING, int(np.argmax(is_odd.any(axis=1))))
    return spacings_mm


def stacked(slices: Slices) -> tuple[NDArray[np.intp], Grid]:
    """Return the order of slices along their normal, and the grid that they make up.

    Raises
    ------
    TooFewSlicesError
        Less than `MINIMUM_SLICES`.
    MixedMatrixError, MixedFrameOfReferenceError, MixedOrientationError
        The slices do not belong to one stack.
    DuplicateSliceError, MissingSliceError, IrregularSpacingError, ShearedStackError
        The slices are not evenly spaced along their normal.
    TooManyVoxelsError
        More than `MAXIMUM_VOXELS`.
    """
    if len(slices) < MINIMUM_SLICES:
        raise TooFewSlicesError(slice_count=len(slices), minimum=MINIMUM_SLICES)
    geometry.check_one_orientation(slices.axes)
    _check_one_matrix(slices)
    found = len(set(slices.frames_of_reference))
    if found > 1:
        raise MixedFrameOfReferenceError(found=found, among=f"{len(slices)} slices")
    normal = geometry.normal_of(slices.axes[0])
    order = np.argsort(slices.positions_mm @ normal, kind="stable")
    positions_mm = slices.positions_mm[order]
    geometry.check_even(positions_mm, normal)
    rows, columns = (int(count) for count in slices.matrices[0])
    voxel_count = len(slices) * rows * columns
    if voxel_count > MAXIMUM_VOXELS:
        raise TooManyVoxelsError(voxel_count=voxel_count, maximum=MAXIMUM_VOXELS)
    between_rows_mm, between_columns_mm = (float(gap) for gap in slices.spacings_mm[0])
    matrix = geometry.index_to_lps_mm(
        positions_mm, slices.axes[order[0]], (between_rows_mm, between_columns_mm)
    )
    return order, Grid(
        shape=(len(slices), rows, columns),
        index_to_lps_mm=matrix,
        frame_of_reference_uid=str(slices.frames_of_reference[0]),
    )


def _check_one_matrix(slices: Slices) -> None:
    other = (slices.matrices != slices.matrices[0]).any(axis=0)
    for at, tag in enumerate((_ROWS, _COLUMNS)):
        if other[at]:
            index = int(np.argmax(slices.matrices[:, at] != slices.matrices[0, at]))
            raise MixedMatrixError(keyword=keyword_for_tag(tag), slice_index=index)
    change = np.abs(slices.spacings_mm / slices.spacings_mm[0] - 1.0).max(axis=1)
    if (change > SPACING_TOLERANCE).any():
        index = int(np.argmax(change > SPACING_TOLERANCE))
        raise MixedMatrixError(keyword=keyword_for_tag(_SPACING), slice_index=index)
