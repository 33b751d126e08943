"""Volumes and label maps to NIfTI files and back.

Arrays lie in the file as (column, row, slice), which is the memory order of (slice, row, column);
the affine maps those indices to patient RAS millimetres, the opposite of LPS in the first two axes.
"""

from __future__ import annotations

import gzip
import io
import itertools
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, ImageDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from converters.errors import NiftiUnusableError
from converters.volume import Grid, LabelMap, Layers, Role, Segment, Volume

_Image: Any = nib.Nifti1Image  # only half of nibabel is typed
new_header: Any = nib.Nifti1Header

_MAX_VALUES: Final = 2**30
"""4 GiB of float32; four sequences at half a millimetre have half of it."""

_RAS_TO_LPS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
_REVERSED: Final = np.array(
    [[0.0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
)  # (slice, row, column) to (column, row, slice) and back
_SCANNER: Final = 1  # sform and qform code: positions of the scanner
_WITH_GZIP_HEADER: Final = 31  # of the largest window, 15
GZIP: Final = b"\x1f\x8b"
_UNITS: Final = ("mm", "unknown")

UNREADABLE: Final = (
    ArithmeticError,
    EOFError,
    HeaderDataError,
    ImageDataError,
    ImageFileError,
    LookupError,
    MemoryError,
    OSError,
    TypeError,
    ValueError,
    WrapStructError,
    zlib.error,
)


def write_volume(volume: Volume, path: Path) -> None:
    """Write one volume as 3-D float32; compressed where the name ends in ``.gz``."""
    save(_header(volume.grid, np.float32), [volume.intensities], path)


def write_channels(volumes: Sequence[Volume], path: Path) -> None:
    """Write volumes that share a grid as one 4-D float32 file, channel last.

    Raises
    ------
    ValueError
        The volumes lie on different grids.
    """
    grid = volumes[0].grid
    if not all(volume.grid.is_same_place(grid) for volume in volumes):
        raise ValueError("channels lie on different grids")
    header = _header(grid, np.float32, len(volumes))
    save(header, [volume.intensities for volume in volumes], path)


def write_label_map(label_map: LabelMap, path: Path) -> None:
    """Write labels as 3-D uint8; compressed where the name ends in ``.gz``."""
    save(_header(label_map.grid, np.uint8), [label_map.labels], path)


def write_layers(layers: Layers, path: Path) -> None:
    """Write layers as one 4-D uint8 file, segment last; as `write_volume`."""
    save(_header(layers.grid, np.uint8, len(layers.values)), layers.values, path)


def _header(grid: Grid, dtype: type, *more: int) -> Any:  # noqa: ANN401
    """Return the header of arrays on a grid; `more` is the length of a fourth axis."""
    header, affine = new_header(), _RAS_TO_LPS @ grid.index_to_lps_mm @ _REVERSED
    header.set_data_dtype(dtype)
    header.set_data_shape((*grid.shape[::-1], *more))
    header.set_sform(affine, code=_SCANNER)
    header.set_qform(affine, code=_SCANNER)
    header.set_xyzt_units("mm")
    return header


def save(header: Any, arrays: Iterable[NDArray[Any]], path: Path) -> None:  # noqa: ANN401
    """Write a header of nibabel and, one behind the other, arrays of its type.

    Parameters
    ----------
    header : Nifti1Header
        Of all of them as one array of (column, row, slice).
    arrays : iterable of (slices, rows, columns) ndarray
        The voxels.
    path : Path
        Compressed where the name ends in ``.gz``. Neither name nor time go into the file, so that
        the same case gives the same bytes.
    """
    header.set_slope_inter(1.0, 0.0)  # values are as they stand
    head = io.BytesIO()
    header.write_to(head)
    voxels = (np.ascontiguousarray(one).data for one in arrays)
    contents: Iterable[bytes | memoryview] = itertools.chain([head.getvalue()], voxels)
    with path.open("wb") as file:
        if path.suffix != ".gz":
            file.writelines(contents)
            return
        # Only runs of equal bytes are shortened, and the rest is coded by frequency: noise has no
        # other repetitions, and looking for them takes two to three times as long.
        packer = zlib.compressobj(zlib.Z_BEST_SPEED, wbits=_WITH_GZIP_HEADER, strategy=zlib.Z_RLE)
        file.writelines(packer.compress(content) for content in contents)
        file.write(packer.flush())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Content:
    """What a file holds, turned to the project's axes: (slice, row, column), channels first."""

    values: NDArray[np.float32]
    index_to_lps_mm: NDArray[np.float64]

    def grid(self, frame_of_reference_uid: str) -> Grid:
        """Return where the voxels lie."""
        slices, rows, columns = self.values.shape[-3:]
        try:
            return Grid(
                shape=(slices, rows, columns),
                index_to_lps_mm=self.index_to_lps_mm,
                frame_of_reference_uid=frame_of_reference_uid,
            )
        except ValueError as error:
            raise NiftiUnusableError(reason="its affine places no voxel") from error


def read_volume(path: Path, *, role: Role, frame_of_reference_uid: str) -> Volume:
    """Return a 3-D file as a volume.

    Raises
    ------
    NiftiUnusableError
        The file is damaged, not 3-D, not placed in space, or holds values that are not finite.
    """
    content = _read(path, dimensions=3)
    grid = content.grid(frame_of_reference_uid)
    return Volume(intensities=content.values, grid=grid, role=role)


def read_channels(path: Path, roles: Sequence[Role]) -> tuple[Volume, ...]:
    """Return a 4-D file, channel last, as one volume per role.

    The frame of reference is empty: NIfTI files name none.

    Raises
    ------
    NiftiUnusableError
        The file is damaged, not 4-D, has another number of channels, is not placed in space, or
        holds values that are not finite.
    """
    content = _read(path, dimensions=4)
    if len(content.values) != len(roles):
        reason = f"{len(content.values)} channels, expected {len(roles)}"
        raise NiftiUnusableError(reason=reason)
    grid = content.grid("")
    return tuple(
        Volume(intensities=channel, grid=grid, role=role)
        for channel, role in zip(content.values, roles, strict=True)
    )


def read_label_map(
    path: Path, *, segments: tuple[Segment, ...], model_id: str, frame_of_reference_uid: str
) -> LabelMap:
    """Return a 3-D file of whole numbers as a label map.

    Raises
    ------
    NiftiUnusableError
        The file is damaged, not 3-D, not placed in space, or holds a value that is no label.
    """
    content = _read(path, dimensions=3)
    labels = _whole(content.values, len(segments))
    if labels is None:
        raise NiftiUnusableError(reason=f"values beside 0 and {len(segments)} labels")
    return LabelMap(
        labels=labels,
        grid=content.grid(frame_of_reference_uid),
        segments=segments,
        model_id=model_id,
    )


def read_layers(
    path: Path,
    *,
    most: int,
    segments: tuple[Segment, ...],
    model_id: str,
    frame_of_reference_uid: str,
) -> Layers:
    """Return a 4-D file of whole numbers from 0 to `most`, segment last, as layers.

    Raises
    ------
    NiftiUnusableError
        The file is damaged, not 4-D, not placed in space, or has other layers or other values.
    """
    content = _read(path, dimensions=4)
    values = content.values
    if len(values) != len(segments):
        raise NiftiUnusableError(reason=f"{len(values)} layers, expected {len(segments)}")
    whole = _whole(values, most)
    if whole is None:
        raise NiftiUnusableError(reason=f"values that are not whole or not 0 to {most}")
    return Layers(
        values=whole,
        most=most,
        grid=content.grid(frame_of_reference_uid),
        segments=segments,
        model_id=model_id,
    )


def _whole(values: NDArray[np.float32], most: int) -> NDArray[np.uint8] | None:
    """Return values as bytes; None where one is not whole or not 0 to `most`, which is a byte."""
    if values.min() < 0 or values.max() > most:
        return None
    whole = values.astype(np.uint8)
    return whole if np.array_equal(whole, values) else None


def _read(path: Path, *, dimensions: int) -> _Content:
    with path.open("rb") as file:
        is_packed = file.read(len(GZIP)) == GZIP
        file.seek(0)
        try:
            stream = gzip.GzipFile(fileobj=file) if is_packed else file
            image = _Image.from_stream(stream)
            _check_header(image, dimensions)
            with np.errstate(all="ignore"):  # what overflows is found below
                values = np.array(image.get_fdata(dtype=np.float32))
        except UNREADABLE as error:
            raise NiftiUnusableError(reason=f"unreadable ({type(error).__name__})") from error
    if not np.isfinite([values.min(), values.max()]).all():
        raise NiftiUnusableError(reason="values that are not finite")
    return _Content(values=values.T, index_to_lps_mm=_RAS_TO_LPS @ image.affine @ _REVERSED)


def _check_header(image: Any, dimensions: int) -> None:  # noqa: ANN401 - half of nibabel is typed
    """Refuse before any voxel is read what cannot be used or would not fit into memory."""
    shape, header = image.shape, image.header
    if len(shape) != dimensions:
        raise NiftiUnusableError(reason=f"{len(shape)} dimensions, expected {dimensions}")
    if min(shape) < 1 or math.prod(shape) > _MAX_VALUES:
        raise NiftiUnusableError(reason=f"{math.prod(shape)} values, at most {_MAX_VALUES}")
    check_meaning(header)


def check_meaning(header: Any) -> None:  # noqa: ANN401
    """Refuse a header whose values are no real numbers, or have no place in millimetres.

    Raises
    ------
    NiftiUnusableError
        It is such a header.
    """
    if header.get_data_dtype().kind not in "uif":
        raise NiftiUnusableError(reason="values that are not real numbers")
    if header.get_xyzt_units()[0] not in _UNITS:
        raise NiftiUnusableError(reason="lengths that are not millimetres")
    if not (header["sform_code"] or header["qform_code"]):
        raise NiftiUnusableError(reason="neither sform nor qform places the voxels")
