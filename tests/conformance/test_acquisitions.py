"""Series of several acquisitions and of multi-frame instances against converters by others.

dcm2niix turns rows upside down and may turn the stack; it puts time points into one file.
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
from converters.volume import Volume
from tests import enhanced, peers
from tests.phantoms import WrittenStudy

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
STEP_TOLERANCE_MM = 1e-4
POSITION_TOLERANCE_MM = 1e-3
"""Others take the slice step from two slices, which adds up over a stack."""

ACQUISITIONS = {
    "dcm_qa/pdt2/In/Siemens/VE11": ("EchoTime=11", "EchoTime=92"),
    "dcm_qa/enh_b0/In/Philips": ("ImageType=1", "ImageType=2"),
    "dcm_qa/enh_b0/In/Siemens/XA10": tuple(
        f"TemporalPositionIdentifier={number}" for number in (1, 2, 3, 4)
    ),
    "dcm_qa/cs_dl_philips/Philips/201_T1W_TSE_Sno_CSno_CSAIno": ("",),
    "dcm_qa/cs_dl_philips/Philips/401_T1W_FFE_Sno_CS2": ("",),
    "dcm_qa/cs_dl_philips/Philips/501_T1W_TSE_Sno_CSno_CSAI2": ("",),
    "dicom2nifti/hyperfine/anatomical/001": ("",),
    "dicom2nifti/philips_enhanced/anatomical/001": ("",),
    "dicom2nifti/philips_enhanced/anatomical/001_implicit": ("",),
}
READ_BY_DICOM2NIFTI = tuple(name for name in ACQUISITIONS if name.startswith("dicom2nifti"))


@dataclass(frozen=True, kw_only=True, eq=False)
class Oracle:
    """One volume of another converter; indices are those of its own file."""

    stored: NDArray[Any]
    slope: float
    intercept: float
    index_to_lps_mm: NDArray[np.float64]


def read(path: Path) -> list[Oracle]:
    """Return the volumes of a NIfTI file, one for each time point."""
    image: Any = nib.Nifti1Image.from_filename(path)
    stored = np.asarray(image.dataobj.get_unscaled())
    return [
        Oracle(
            stored=one,
            slope=float(image.dataobj.slope),
            intercept=float(image.dataobj.inter),
            index_to_lps_mm=RAS_TO_LPS @ image.affine,
        )
        for one in np.moveaxis(stored.reshape(*stored.shape[:3], -1), -1, 0)
    ]


def dcm2niix(source: Path, folder: Path) -> list[Oracle]:
    """Convert, for Philips by the standard's Rescale Slope and not by the private one (-p n)."""
    peers.require("dcm2niix")
    folder.mkdir()
    options = ["-b", "n", "-z", "n", "-p", "n", "-f", "%s_%e", "-o", str(folder)]
    subprocess.run(["dcm2niix", *options, source], check=True, capture_output=True, timeout=120)
    return [one for file in sorted(folder.glob("*.nii")) for one in read(file)]


def is_same(volume: Volume, oracle: Oracle) -> bool:
    """Say whether both hold the same voxels at the same places."""
    whole = np.rint(np.linalg.solve(oracle.index_to_lps_mm, volume.grid.index_to_lps_mm))
    difference_mm = np.abs(oracle.index_to_lps_mm @ whole - volume.grid.index_to_lps_mm)
    if (
        difference_mm.max() > POSITION_TOLERANCE_MM
        or difference_mm[:, :3].max() > STEP_TOLERANCE_MM
    ):
        return False
    axes = np.abs(whole[:3, :3]).argmax(axis=0)
    backwards = tuple(int(at) for at in range(3) if whole[axes[at], at] < 0)
    stored = np.flip(np.transpose(oracle.stored, axes), backwards)
    values = (volume.intensities.astype(np.float64) - oracle.intercept) / oracle.slope
    is_close = np.abs(values - stored).max() < 1e-3  # NIfTI keeps the slope as float32
    return bool(is_close and np.array_equal(np.rint(values), np.rint(stored)))


def volumes(folder: Path) -> dict[str, Volume]:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    found = series.parts(series.read_headers(files), files)
    return {one.name: series.load(one.stack(limits=None), "t1", limits=None) for one in found}


def assert_same(ours: dict[str, Volume], others: list[Oracle]) -> None:
    """Compare every acquisition with exactly one volume of the other converter."""
    assert len(ours) == len(others)
    matches = [[is_same(volume, other) for other in others] for volume in ours.values()]
    assert [sum(row) for row in matches] == [1] * len(ours), matches
    assert [sum(column) for column in zip(*matches, strict=True)] == [1] * len(ours)


@pytest.mark.parametrize(("name", "parts"), ACQUISITIONS.items())
def test_every_acquisition_of_a_real_series_equals_dcm2niix(
    name: str, parts: tuple[str, ...], realdata: Path, tmp_path: Path
) -> None:
    ours = volumes(realdata / name)
    assert tuple(ours) == parts
    assert_same(ours, dcm2niix(realdata / name, tmp_path / "out"))


@pytest.mark.parametrize("name", READ_BY_DICOM2NIFTI)
def test_a_real_enhanced_series_equals_dicom2nifti(
    name: str, realdata: Path, tmp_path: Path
) -> None:
    dicom2nifti.dicom_series_to_nifti(realdata / name, tmp_path / "out.nii", reorient_nifti=False)
    assert_same(volumes(realdata / name), read(tmp_path / "out.nii"))


def test_echoes_in_enhanced_instances_of_one_series_equal_dcm2niix(
    small_study: WrittenStudy, tmp_path: Path
) -> None:
    files = small_study.files.paths["t1"]
    echoes = [
        enhanced.frames(files, echo_time_ms=11.0),
        enhanced.frames(files, echo_time_ms=92.0, slope=2),
    ]
    folder = tmp_path / "in"
    enhanced.instances(echoes, folder)
    ours = volumes(folder)
    assert tuple(ours) == ("EchoTime=11", "EchoTime=92")
    assert_same(ours, dcm2niix(folder, tmp_path / "out"))


@pytest.mark.parametrize("kind", ["enhanced", "legacy converted"])
def test_a_generated_multi_frame_series_equals_dcm2niix(
    kind: str, small_study: WrittenStudy, tmp_path: Path
) -> None:
    files, folder = small_study.files.paths["t1gd"], tmp_path / "in"
    if kind == "enhanced":
        enhanced.enhanced(enhanced.frames(files), folder / "one.dcm")
    else:
        enhanced.legacy_converted(files, folder / "one.dcm")
    assert_same(volumes(folder), dcm2niix(folder, tmp_path / "out"))
