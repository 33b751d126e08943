"""The instances of one series to a volume: read, check, sort, stack.

The gate refuses what is no evenly spaced stack of parallel slices and says which slice and why.
Slices and instances are counted from 0: `instance` and the slices of a mixed series in the order
of arrival, the slices of an uneven one in the order along the normal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from converters import geometry
from converters.attributes import (
    is_present,
    numbers,
    optional_number,
    optional_uid,
    optional_whole_number,
    texts,
    unusable,
    whole_number,
)
from converters.errors import (
    EmptyImageError,
    MixedFrameOfReferenceError,
    MixedMatrixError,
    MultiFrameError,
    TooFewSlicesError,
    TooManyVoxelsError,
)
from converters.headers import read_header
from converters.pixels import decode_into
from converters.volume import Grid, Role, Shape, Volume

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
_FRAME_COUNT: Final = Tag("NumberOfFrames")
_PER_FRAME: Final = Tag("PerFrameFunctionalGroupsSequence")
_IMAGE_TYPE: Final = Tag("ImageType")
_MOSAIC_COUNT: Final = Tag(0x0019, 0x100A)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stack:
    """Slices of one series in order, checked.

    Parameters
    ----------
    headers : tuple of Dataset
        Elements before the pixels, ascending along row cosines x column cosines.
    files : tuple of Path
        The instances in the same order.
    grid : Grid
        Where the voxels lie; its frame of reference is empty where the series names none.
    """

    headers: tuple[Dataset, ...]
    files: tuple[Path, ...]
    grid: Grid


def stack(paths: Sequence[Path]) -> Stack:
    """Return the instances of a series as a checked stack.

    Raises
    ------
    InputRejectedError
        As `read_headers` and `stack_headers`.
    """
    return stack_headers(read_headers(paths), paths)


def read_headers(paths: Sequence[Path]) -> tuple[Dataset, ...]:
    """Return the elements before the pixels of each file.

    Raises
    ------
    HeaderUnreadableError
        A file is not DICOM or is damaged.
    """
    return tuple(read_header(path, instance=instance) for instance, path in enumerate(paths))


def stack_headers(headers: Sequence[Dataset], files: Sequence[Path]) -> Stack:
    """Return headers already read as a checked stack.

    Parameters
    ----------
    headers : sequence of Dataset
        Elements before the pixels of every instance of one series, in any order.
    files : sequence of Path
        The instances in the same order.

    Raises
    ------
    MultiFrameError
        Enhanced or mosaic instances.
    TooFewSlicesError
        Less than `MINIMUM_SLICES` instances.
    MissingAttributeError
        A geometric attribute is absent or malformed.
    MixedMatrixError, MixedFrameOfReferenceError, MixedOrientationError
        The instances do not belong to one stack.
    DuplicateSliceError, MissingSliceError, IrregularSpacingError, ShearedStackError
        The slices are not evenly spaced along their normal.
    TooManyVoxelsError
        More than `MAXIMUM_VOXELS`.
    """
    _check_single_frame(headers)
    if len(headers) < MINIMUM_SLICES:
        raise TooFewSlicesError(slice_count=len(headers), minimum=MINIMUM_SLICES)
    axes = geometry.unit_axes(_table(headers, _ORIENTATION, 6))
    geometry.check_one_orientation(axes)
    rows, columns = (_common_count(headers, tag) for tag in (_ROWS, _COLUMNS))
    spacing_mm = _common_spacing_mm(headers)
    frame_of_reference_uid = _common_frame(headers)
    positions_mm = _table(headers, _POSITION, 3)
    normal = geometry.normal_of(axes[0])
    order = [int(index) for index in np.argsort(positions_mm @ normal, kind="stable")]
    positions_mm = positions_mm[order]
    geometry.check_even(positions_mm, normal)
    return Stack(
        headers=tuple(headers[index] for index in order),
        files=tuple(files[index] for index in order),
        grid=Grid(
            shape=_checked_shape(len(headers), rows, columns),
            index_to_lps_mm=geometry.index_to_lps_mm(positions_mm, axes[order[0]], spacing_mm),
            frame_of_reference_uid=frame_of_reference_uid,
        ),
    )


def _check_single_frame(headers: Sequence[Dataset]) -> None:
    for header in headers:
        frame_count = optional_number(header, _FRAME_COUNT) or 0
        is_mosaic = "MOSAIC" in texts(header, _IMAGE_TYPE)
        if is_mosaic:
            frame_count = optional_whole_number(header, _MOSAIC_COUNT) or 1
        if frame_count > 1 or is_mosaic or is_present(header, _PER_FRAME):
            raise MultiFrameError(frame_count=int(frame_count))


def _table(headers: Sequence[Dataset], tag: BaseTag, count: int) -> NDArray[np.float64]:
    """Return an element of every instance as an (n, count) array."""
    rows = [
        numbers(header, tag, instance=index, count=count) for index, header in enumerate(headers)
    ]
    return np.array(rows, dtype=np.float64)


def _common_count(headers: Sequence[Dataset], tag: BaseTag) -> int:
    """Return Rows or Columns, the same at least 1 in every instance."""
    counts = [whole_number(header, tag, instance=index) for index, header in enumerate(headers)]
    if min(counts) < 1:
        raise unusable(tag, counts.index(min(counts)))
    for index, count in enumerate(counts):
        if count != counts[0]:
            raise MixedMatrixError(keyword=keyword_for_tag(tag), slice_index=index)
    return counts[0]


def _common_spacing_mm(headers: Sequence[Dataset]) -> tuple[float, float]:
    """Return Pixel Spacing (0028,0030): between rows, then between columns."""
    spacings_mm = _table(headers, _SPACING, 2)
    is_odd = (spacings_mm < _SMALLEST_SPACING_MM) | (spacings_mm > _LARGEST_SPACING_MM)
    if is_odd.any():
        raise unusable(_SPACING, int(np.argmax(is_odd.any(axis=1))))
    is_other = (np.abs(spacings_mm / spacings_mm[0] - 1.0) > SPACING_TOLERANCE).any(axis=1)
    if is_other.any():
        raise MixedMatrixError(
            keyword=keyword_for_tag(_SPACING), slice_index=int(np.argmax(is_other))
        )
    return float(spacings_mm[0, 0]), float(spacings_mm[0, 1])


def _common_frame(headers: Sequence[Dataset]) -> str:
    """Return the Frame of Reference UID of all instances, '' where none of them has one."""
    frames = Counter(
        optional_uid(header, _FRAME, instance=index) for index, header in enumerate(headers)
    )
    if len(frames) > 1:
        raise MixedFrameOfReferenceError(found=len(frames), among=f"{len(headers)} slices")
    return next(iter(frames))


def _checked_shape(slices: int, rows: int, columns: int) -> Shape:
    voxel_count = slices * rows * columns
    if voxel_count > MAXIMUM_VOXELS:
        raise TooManyVoxelsError(voxel_count=voxel_count, maximum=MAXIMUM_VOXELS)
    return slices, rows, columns


def load(stack: Stack, role: Role) -> Volume:
    """Return the intensities of a stack.

    Raises
    ------
    PixelDecodeError, MissingAttributeError
        As `pixels.decode_into`.
    EmptyImageError
        Every voxel has the same value.

    Notes
    -----
    Every value is finite: stored values have at most 32 bits, and a slope or intercept that is no
    number of a usable size is refused before it is applied.
    """
    intensities = np.empty(stack.grid.shape, dtype=np.float32)
    for index, (file, header) in enumerate(zip(stack.files, stack.headers, strict=True)):
        decode_into(intensities[index], file, header, slice_index=index)
    if intensities.min() == intensities.max():
        raise EmptyImageError
    return Volume(intensities=intensities, grid=stack.grid, role=role)
