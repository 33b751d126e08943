"""dicom2nifti for pixels in an encoding that has no decoder here, behind our own geometry.

It is asked only where the encoding itself is unknown (`pixels.NO_DECODER`), never where a decoder
refused a stream: the decoders below it fill what is missing of a damaged stream with grey, and
GDCM among them ends the process. It therefore runs in a process of its own, and its voxels count
only where they lie on the grid that our gate found.

Notes
-----
With all decoders of the node installed no series of our real data needs it: dicom2nifti reads
pixels through pydicom, too, and adds GDCM alone. It is of use where JPEG decoders were left out.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from converters.errors import PixelDecodeError
from converters.pixels import NO_DECODER
from converters.volume import Grid

TOLERANCE_MM: Final = 1e-4
"""How far an axis step or the origin of the other converter may lie from ours."""

TIMEOUT_S: Final = 120.0
"""dicom2nifti takes about a second for a hundred slices, and as long to start."""

_RAS_TO_LPS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
_PROGRAM: Final = (
    "import sys, dicom2nifti;"
    "dicom2nifti.dicom_series_to_nifti(sys.argv[1], sys.argv[2], reorient_nifti=False)"
)


def intensities(files: tuple[Path, ...], grid: Grid, error: PixelDecodeError) -> NDArray[Any]:
    """Return the voxels of a series by dicom2nifti, on our grid.

    Parameters
    ----------
    files : tuple of Path
        The instances of one stack; each one holds one slice.
    grid : Grid
        Where the gate says that their voxels lie.
    error : PixelDecodeError
        Why they could not be decoded.

    Returns
    -------
    (slices, rows, columns) ndarray of float32
        After the modality LUT.

    Raises
    ------
    PixelDecodeError
        `error`: it is not the encoding that is unknown, dicom2nifti reads it neither, or finds
        another geometry.
    """
    if error.evidence["reason"] != NO_DECODER:
        raise error
    with tempfile.TemporaryDirectory(prefix="neuroseg-") as folder:
        found = _converted(files, Path(folder))
        aligned = None if found is None else _on_grid(*found, grid)
    if aligned is None:
        raise error
    return aligned


def _converted(
    files: tuple[Path, ...], folder: Path
) -> tuple[NDArray[np.float32], NDArray[np.float64]] | None:
    """Return another converter's voxels and affine, index to LPS mm; None when it fails."""
    source, target = folder / "series", folder / "out.nii"
    source.mkdir()
    for number, file in enumerate(files):
        shutil.copyfile(file, source / f"{number:06d}.dcm")
    command = [sys.executable, "-c", _PROGRAM, str(source), str(target)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S)  # noqa: S603 - no word of it is a peer's
    except subprocess.SubprocessError:
        return None
    import nibabel as nib  # noqa: PLC0415 - takes half a second, and is nearly never needed

    image: Any = nib.Nifti1Image.from_filename(target)
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    return voxels, np.asarray(_RAS_TO_LPS @ image.affine, dtype=np.float64)


def _on_grid(
    voxels: NDArray[np.float32], index_to_lps_mm: NDArray[np.float64], grid: Grid
) -> NDArray[np.float32] | None:
    """Return voxels with axes in our order; None where they do not lie on our grid."""
    whole = np.rint(np.linalg.solve(index_to_lps_mm, grid.index_to_lps_mm))
    off_mm = np.abs(index_to_lps_mm @ whole - grid.index_to_lps_mm).max()
    steps = whole[:3, :3].astype(int)
    if off_mm > TOLERANCE_MM or not np.array_equal(np.abs(steps) @ np.abs(steps).T, np.eye(3)):
        return None
    axes = np.abs(steps).argmax(axis=0)
    backwards = tuple(int(at) for at in np.flatnonzero(steps.sum(axis=0) < 0))
    turned = np.flip(voxels.transpose(axes), backwards) if voxels.ndim == len(axes) else voxels
    return np.ascontiguousarray(turned) if turned.shape == grid.shape else None
