"""Voxels and affines against two converters that share no code with ours.

dcm2niix turns rows upside down and may turn the stack; dicom2nifti keeps the order of the files.
Both are brought to (slice, row, column) by whole steps of axes, so that voxels compare exactly.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dicom2nifti
import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from converters import series
from converters.errors import InputRejectedError
from converters.volume import Role, Volume
from tests import peers, phantoms
from tests.phantoms import WrittenStudy

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
AFFINE_TOLERANCE_MM = 1e-4
POSITION_TOLERANCE_MM = 1e-3
"""For real series: others take the slice step from two slices, which adds up over the stack."""

READABLE = (
    "dcm_qa/cs_dl_philips/Philips/501_T1W_FFE_Sno_CS4",
    "dcm_qa/decubitus_HFDR/2_t1_fl2d_sag",
    "dcm_qa/frag_partial",
    "dicom2nifti/ge/anatomical/001",
    "dicom2nifti/ge/anatomical/001_implicit",
    "dicom2nifti/generic/anatomical/001",
    "dicom2nifti/generic/anatomical/001_implicit",
    "dicom2nifti/generic/anatomical/002_non_isotropic",
    "dicom2nifti/generic/compressed/001",
    "dicom2nifti/generic/compressed_j2k/001",
    "dicom2nifti/generic/compressed_jpeg/001",
    "dicom2nifti/generic/compressed_jpegls/001",
    "dicom2nifti/generic/compressed_rle/001",
    "dicom2nifti/hitachi/anatomical/001",
    "dicom2nifti/hitachi/anatomical/001_implicit",
    "dicom2nifti/philips/anatomical/001",
    "dicom2nifti/philips/anatomical/001_implicit",
    "dicom2nifti/siemens/anatomical/001",
    "dicom2nifti/siemens/anatomical/001_implicit",
)
REFUSED = {
    "dcm_qa/12bit/In": "SERIES_MULTIFRAME_UNSUPPORTED",
    "dcm_qa/enh_b0/In/Philips": "SERIES_MULTIFRAME_UNSUPPORTED",
    "dcm_qa/enh_b0/In/Siemens/XA10": "SERIES_MULTIFRAME_UNSUPPORTED",
    "dcm_qa/orientation/ax/axasc36": "SERIES_MULTIFRAME_UNSUPPORTED",
    "dcm_qa/pdt2/In/Siemens/VE11": "GEOM_DUPLICATE_SLICE",
    "dicom2nifti/failing/gantrytilting/001": "GEOM_SHEARED",
    "dicom2nifti/failing/notavolume/001": "GEOM_DUPLICATE_SLICE",
    "dicom2nifti/failing/slicecount/001": "GEOM_TOO_FEW_SLICES",
    "dicom2nifti/failing/sliceincrement/001": "GEOM_MISSING_SLICE",
    "dicom2nifti/failing/sliceincrement/002": "GEOM_MISSING_SLICE",
    "dicom2nifti/failing/sliceorientation/001": "GEOM_MIXED_ORIENTATION",
    "dicom2nifti/ge/anatomical/001_single_slice": "GEOM_TOO_FEW_SLICES",
    "dicom2nifti/generic/rgb/001": "PIXEL_UNREADABLE",
    "dicom2nifti/hyperfine/anatomical/001": "SERIES_MULTIFRAME_UNSUPPORTED",
    "dicom2nifti/philips_enhanced/anatomical/001": "SERIES_MULTIFRAME_UNSUPPORTED",
}
NOT_FOR_DCM2NIIX = {
    "dcm_qa/frag_partial",  # wants one fragment per frame
    "dicom2nifti/generic/compressed_jpegls/001",  # Debian builds it without JPEG-LS
}
RESCALED_TO_FLOAT = {"dicom2nifti/generic/anatomical/002_non_isotropic"}  # a slope for each slice


@dataclass(frozen=True, kw_only=True, eq=False)
class Oracle:
    """What another converter made of a folder; indices are those of its own file."""

    stored: NDArray[Any]
    slope: float
    intercept: float
    index_to_lps_mm: NDArray[np.float64]


def _read(path: Path) -> Oracle:
    image: Any = nib.Nifti1Image.from_filename(path)
    slope, intercept = image.dataobj.slope, image.dataobj.inter
    return Oracle(
        stored=np.asarray(image.dataobj.get_unscaled()),
        slope=float(slope),
        intercept=float(intercept),
        index_to_lps_mm=RAS_TO_LPS @ image.affine,
    )


def _dcm2niix(source: Path, folder: Path) -> Oracle:
    """Convert, for Philips by the standard's Rescale Slope and not by the private one (-p n)."""
    folder.mkdir()
    options = ["-b", "n", "-z", "n", "-p", "n", "-f", "out", "-o", str(folder)]
    subprocess.run(["dcm2niix", *options, source], check=True, capture_output=True, timeout=120)
    files = sorted(folder.glob("*.nii"))
    assert len(files) == 1, [file.name for file in files]
    return _read(files[0])


def _dicom2nifti(source: Path, folder: Path) -> Oracle:
    folder.mkdir()
    dicom2nifti.dicom_series_to_nifti(source, folder / "out.nii", reorient_nifti=False)
    return _read(folder / "out.nii")


def _assert_same_place(volume: Volume, oracle: Oracle, *, tolerance_mm: float) -> tuple[int, ...]:
    """Compare affines after whole steps of axes; return which of the oracle's axes ours are.

    An axis that runs the other way is given as ``-1 - axis``.
    """
    ours = volume.grid.index_to_lps_mm
    whole = np.rint(np.linalg.solve(oracle.index_to_lps_mm, ours))
    difference_mm = np.abs(oracle.index_to_lps_mm @ whole - ours)
    assert difference_mm[:3, :3].max() <= AFFINE_TOLERANCE_MM
    assert difference_mm.max() <= tolerance_mm
    axes = np.abs(whole[:3, :3]).argmax(axis=0)
    assert sorted(axes) == [0, 1, 2]
    return tuple(
        int(axis) if whole[axis, ours_axis] > 0 else -1 - int(axis)
        for ours_axis, axis in enumerate(axes)
    )


def _turned(stored: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    unsigned = [axis if axis >= 0 else -1 - axis for axis in axes]
    reversed_axes = tuple(at for at, axis in enumerate(axes) if axis < 0)
    turned: NDArray[Any] = np.flip(np.transpose(stored, unsigned), reversed_axes)
    return turned


def _assert_same(volume: Volume, oracle: Oracle, *, tolerance_mm: float) -> None:
    stored = _turned(oracle.stored, _assert_same_place(volume, oracle, tolerance_mm=tolerance_mm))
    if stored.dtype.kind == "f" or (oracle.slope, oracle.intercept) == (1.0, 0.0):
        assert np.array_equal(volume.intensities, stored.astype(np.float32))
        return
    back = (volume.intensities.astype(np.float64) - oracle.intercept) / oracle.slope
    assert np.array_equal(np.rint(back), stored)
    assert np.abs(back - stored).max() < 1e-3  # NIfTI keeps the slope as float32


def _ours(folder: Path) -> Volume:
    return series.load(series.stack(sorted(folder.iterdir())), "t1")


@pytest.mark.parametrize("role", ["flair", "t1", "t1gd", "t2"])
def test_a_generated_series_equals_dcm2niix(
    role: Role, full_study: WrittenStudy, tmp_path: Path
) -> None:
    peers.require("dcm2niix")
    folder = full_study.files.paths[role][0].parent
    oracle = _dcm2niix(folder, tmp_path / "out")
    _assert_same(_ours(folder), oracle, tolerance_mm=AFFINE_TOLERANCE_MM)


@pytest.mark.parametrize("role", ["flair", "t1", "t1gd", "t2"])
def test_a_generated_series_equals_dicom2nifti(
    role: Role, full_study: WrittenStudy, tmp_path: Path
) -> None:
    folder = full_study.files.paths[role][0].parent
    oracle = _dicom2nifti(folder, tmp_path / "out")
    _assert_same(_ours(folder), oracle, tolerance_mm=AFFINE_TOLERANCE_MM)


def test_signed_pixels_equal_dcm2niix(full_study: WrittenStudy, tmp_path: Path) -> None:
    peers.require("dcm2niix")
    phantoms.negative_values(full_study.files.paths["t1"], tmp_path / "signed")
    volume = _ours(tmp_path / "signed")
    oracle = _dcm2niix(tmp_path / "signed", tmp_path / "out")
    assert volume.intensities.min() < 0
    _assert_same(volume, oracle, tolerance_mm=AFFINE_TOLERANCE_MM)


@pytest.mark.parametrize("name", [name for name in READABLE if name not in NOT_FOR_DCM2NIIX])
def test_a_real_series_equals_dcm2niix(name: str, realdata: Path, tmp_path: Path) -> None:
    peers.require("dcm2niix")
    volume, oracle = _ours(realdata / name), _dcm2niix(realdata / name, tmp_path / "out")
    if name not in RESCALED_TO_FLOAT:
        _assert_same(volume, oracle, tolerance_mm=POSITION_TOLERANCE_MM)
        return
    axes = _assert_same_place(volume, oracle, tolerance_mm=POSITION_TOLERANCE_MM)
    one_rounding = np.finfo(np.float32).eps
    assert np.allclose(volume.intensities, _turned(oracle.stored, axes), rtol=one_rounding, atol=0)


@pytest.mark.parametrize("name", READABLE)
def test_a_real_series_equals_dicom2nifti(name: str, realdata: Path, tmp_path: Path) -> None:
    volume, oracle = _ours(realdata / name), _dicom2nifti(realdata / name, tmp_path / "out")
    _assert_same(volume, oracle, tolerance_mm=POSITION_TOLERANCE_MM)


@pytest.mark.parametrize(("name", "code"), REFUSED.items())
def test_a_real_series_that_is_no_volume_is_refused(name: str, code: str, realdata: Path) -> None:
    files = sorted((realdata / name).iterdir())
    with pytest.raises(InputRejectedError) as caught:
        series.load(series.stack(files), "t1")
    assert caught.value.code == code
