"""Whether an uploaded NIfTI file can be used, found out without holding it in memory.

The header is judged first, then every voxel passes by in blocks: a file of any size, packed or not,
costs a few megabytes.
"""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import nibabel as nib
import numpy as np

from converters import nifti
from converters.errors import NiftiChannelsError, NiftiUnusableError
from converters.volume import Grid, Role

_Header: Any = nib.Nifti1Header  # only half of nibabel is typed

HEADER_BYTES: Final = 348
_SINGLE_FILE: Final = b"n+1\0"
_BLOCK_BYTES: Final = 2**20
_LARGEST_OFFSET: Final = 16 * 2**20  # readers hold the extensions before the voxels in memory
_DIMENSIONS: Final = 4
_EXTENDER_BYTES: Final = 4
_EXTENSION_HEAD_BYTES: Final = 8
_LEAST_EXTENSION_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedFile:
    """What a file that can be used holds; the shape is (column, row, slice) as in the file."""

    shape: tuple[int, int, int]
    is_packed: bool


def open_content(path: Path) -> tuple[BinaryIO, bool]:
    """Return a file's content unpacked as it is read, and whether it is packed.

    The first bytes decide; what a file is called says nothing.
    """
    with path.open("rb") as file:
        is_packed = file.read(len(nifti.GZIP)) == nifti.GZIP
    stream: Any = gzip.open(path) if is_packed else path.open("rb")  # noqa: SIM115 - the caller's
    return stream, is_packed


def read_header(stream: BinaryIO) -> Any:  # noqa: ANN401 - half of nibabel is typed
    """Return the header that a stream begins with, as every reader of the project sees it.

    Raises
    ------
    NiftiUnusableError
        There is none, or its data lie in another file.
    """
    block = stream.read(HEADER_BYTES)
    if len(block) < HEADER_BYTES or block[-len(_SINGLE_FILE) :] != _SINGLE_FILE:
        raise NiftiUnusableError(reason="no NIfTI-1 header of a single file")
    return _Header(block)  # repaired and refused as by the reader


def check_channels(path: Path, roles: Sequence[Role], *, max_values: int) -> CheckedFile:
    """Return what a 4-D file of one channel per role holds, once all of it was seen to be usable.

    Parameters
    ----------
    path : Path
        The file; packed or not.
    roles : sequence of str
        What the channels are, in order.
    max_values : int
        How many values the file may hold, whatever its size on disk.

    Raises
    ------
    NiftiChannelsError
        The file has another number of dimensions or channels.
    NiftiUnusableError
        The file is damaged or cut off, too large, not of real numbers, not placed in space in
        millimetres, or holds values that are not finite.
    """
    stream, is_packed = open_content(path)
    with stream:
        try:
            header = read_header(stream)
            shape = _checked_header(header, roles, max_values)
            _check_values(stream, header, math.prod(shape) * len(roles))
        except nifti.UNREADABLE as error:
            raise NiftiUnusableError(reason=f"unreadable ({type(error).__name__})") from error
    return CheckedFile(shape=shape, is_packed=is_packed)


def _checked_header(header: Any, roles: Sequence[Role], max_values: int) -> tuple[int, int, int]:  # noqa: ANN401
    shape = tuple(int(size) for size in header.get_data_shape())
    if len(shape) != _DIMENSIONS or shape[-1] != len(roles):
        found = f"{len(shape)} dimensions" if len(shape) != _DIMENSIONS else f"{shape[-1]} channels"
        raise NiftiChannelsError(found=found, expected=len(roles), roles=", ".join(roles))
    if min(shape) < 1 or math.prod(shape) > max_values:
        raise NiftiUnusableError(reason=f"{math.prod(shape)} values, expected 1 to {max_values}")
    nifti.check_meaning(header)
    offset = float(header["vox_offset"])
    if not HEADER_BYTES <= offset <= _LARGEST_OFFSET:
        reason = f"its voxels begin at byte {offset:.0f}, expected at most {_LARGEST_OFFSET}"
        raise NiftiUnusableError(reason=reason)
    columns, rows, slices = shape[:3]
    try:
        Grid(
            shape=(slices, rows, columns),
            index_to_lps_mm=header.get_best_affine(),
            frame_of_reference_uid="",
        )
    except ValueError as error:
        raise NiftiUnusableError(reason="its affine places no voxel") from error
    return columns, rows, slices


def _check_values(stream: BinaryIO, header: Any, count: int) -> None:  # noqa: ANN401
    """Read every value once, a block at a time, and what follows, for the sake of its checksum."""
    kind = header.get_data_dtype()
    slope, inter = (1.0 if part is None else part for part in _scaling(header))
    _check_extensions(stream.read(int(header["vox_offset"]) - HEADER_BYTES), header.endianness)
    left = count * kind.itemsize
    while left:
        block = stream.read(min(_BLOCK_BYTES, left))  # a multiple of every size of value
        if len(block) % kind.itemsize or not block:
            seen = count - left // kind.itemsize
            raise NiftiUnusableError(reason=f"cut off after {seen} of {count} values")
        left -= len(block)
        values = np.frombuffer(block, kind)
        with np.errstate(all="ignore"):  # what overflows is found here
            ends = np.array([values.min(), values.max()], np.float64) * slope + inter
            if not np.isfinite(ends.astype(np.float32)).all():
                raise NiftiUnusableError(reason="values that are not finite")
    stream.read(_BLOCK_BYTES)


def _check_extensions(content: bytes, endianness: str) -> None:
    """Refuse extensions that do not end before the voxels: readers read as much as one claims.

    References
    ----------
    nifti1.h, "HEADER EXTENSIONS": four bytes, then each with its size and code.
    """
    at = _EXTENDER_BYTES
    while content[:1] > b"\0" and len(content) - at >= _LEAST_EXTENSION_BYTES:
        (size,) = struct.unpack_from(f"{endianness}i", content, at)
        if not _EXTENSION_HEAD_BYTES <= size <= len(content) - at:
            reason = f"a header extension of {size} bytes, there are {len(content) - at}"
            raise NiftiUnusableError(reason=reason)
        at += size


def _scaling(header: Any) -> tuple[float | None, float | None]:  # noqa: ANN401
    slope, inter = header.get_slope_inter()
    return (None, None) if slope is None else (slope, inter)
