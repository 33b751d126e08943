"""Voxels and affines against two converters that share no code with ours.

dcm2niix turns rows upside down and may turn the stack; dicom2nifti keeps the order of the files.
Both are brought to (slice, row, column) by whole steps of axes, so that voxels compare exactly.
A series of several acquisitions must give as many volumes there as it has parts here, one equal to
each. Most real series are a few slices, so that the gate for whole heads is left out, except where
it is what is tested.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dicom2nifti
import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from converters import series
from converters.errors import InputRejectedError
from converters.mr_writer import write_series
from converters.series import Part
from converters.volume import Grid, Role, Volume
from tests import peers, phantoms
from tests.phantoms import WrittenStudy

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
AFFINE_TOLERANCE_MM = 1e-4
EPSILON = np.finfo(np.float32).eps

READABLE = (
    "dcm_qa/cs_dl_philips/Philips/201_T1W_TSE_Sno_CSno_CSAIno",
    "dcm_qa/cs_dl_philips/Philips/401_T1W_FFE_Sno_CS2",
    "dcm_qa/cs_dl_philips/Philips/501_T1W_FFE_Sno_CS4",
    "dcm_qa/cs_dl_philips/Philips/501_T1W_TSE_Sno_CSno_CSAI2",
    "dcm_qa/decubitus_HFDR/2_t1_fl2d_sag",
    "dcm_qa/frag_partial",
    "dcm_qa/pdt2/In/Siemens/VE11",
    "dcm_qa/enh_b0/In/Philips",
    "dcm_qa/enh_b0/In/Siemens/XA10",
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
    "dicom2nifti/hyperfine/anatomical/001",
    "dicom2nifti/philips/anatomical/001",
    "dicom2nifti/philips/anatomical/001_implicit",
    "dicom2nifti/philips_enhanced/anatomical/001",
    "dicom2nifti/philips_enhanced/anatomical/001_implicit",
    "dicom2nifti/siemens/anatomical/001",
    "dicom2nifti/siemens/anatomical/001_implicit",
)
REFUSED = {
    "dcm_qa/12bit/In": "SERIES_MOSAIC_UNSUPPORTED",
    "dcm_qa/cs_dl_philips/Philips/201_T1W_TSE_Sno_CSno_CSAIno": "GEOM_COVERAGE",
    "dcm_qa/orientation/ax/axasc36": "SERIES_MOSAIC_UNSUPPORTED",
    "dcm_qa/orientation/cor/cordesc36": "SERIES_MOSAIC_UNSUPPORTED",
    "dcm_qa/orientation/sag/sagint36": "SERIES_MOSAIC_UNSUPPORTED",
    "dcm_qa/enh_b0/In/Siemens/XA10": "GEOM_DUPLICATE_SLICE",
    "dcm_qa/pdt2/In/Siemens/VE11": "GEOM_DUPLICATE_SLICE",
    "dicom2nifti/failing/gantrytilting/001": "GEOM_SHEARED",
    "dicom2nifti/failing/notavolume/001": "GEOM_DUPLICATE_SLICE",
    "dicom2nifti/failing/slicecount/001": "GEOM_TOO_FEW_SLICES",
    "dicom2nifti/failing/sliceincrement/001": "GEOM_MISSING_SLICE",
    "dicom2nifti/failing/sliceincrement/002": "GEOM_MISSING_SLICE",
    "dicom2nifti/failing/sliceorientation/001": "GEOM_MIXED_ORIENTATION",
    "dicom2nifti/ge/anatomical/001": "GEOM_TOO_FEW_SLICES",
    "dicom2nifti/ge/anatomical/001_single_slice": "GEOM_TOO_FEW_SLICES",
    "dicom2nifti/generic/anatomical/002_non_isotropic": "GEOM_FIELD_OF_VIEW",
    "dicom2nifti/hyperfine/anatomical/001": "GEOM_TOO_FEW_SLICES",
    "dicom2nifti/philips_enhanced/anatomical/001": "GEOM_TOO_FEW_SLICES",
}
"""Of whole folders, with the gate for heads; several acquisitions are no stack as a whole."""

HEADS = (
    "dcm_qa/cs_dl_philips/Philips/501_T1W_FFE_Sno_CS4",
    "dcm_qa/decubitus_HFDR/2_t1_fl2d_sag",
    "dcm_qa/frag_partial",
)
"""Series on grids that a head may have; two of them show measuring objects."""

NOT_FOR_DCM2NIIX = {
    "dcm_qa/frag_partial",  # wants one fragment per frame
    "dicom2nifti/generic/compressed_jpegls/001",  # Debian builds it without JPEG-LS
}
NOT_FOR_DICOM2NIFTI = {
    "dcm_qa/enh_b0/In/Philips",  # scales the magnitude with the slope of the field map
    "dcm_qa/enh_b0/In/Siemens/XA10",  # ends in an IndexError
}
FROM_TWO_SLICES = {"dcm_qa/decubitus_HFDR/2_t1_fl2d_sag"}
"""dcm2niix takes the step from two slices; the positions' six digits add up to 1.5e-4 mm."""

_OBLIQUE = np.linalg.qr(np.array([[0.9, 0.2, -0.1], [-0.3, 0.8, 0.3], [0.1, -0.2, 0.9]]))[0]
ORIENTATIONS = {
    "axial": np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]),
    "axial from above": np.array([[0, 0, 1], [0, -1, 0], [-1, 0, 0]]),
    "coronal": np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]]),
    "sagittal": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "on the side": np.array([[0, 1, 0], [0, 0, -1], [1, 0, 0]]),
    "oblique": _OBLIQUE,
}
"""Directions of slice, row and column index as columns, LPS."""

ENCODINGS: dict[str, UID] = {
    "implicit": ImplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
}
ENCODERS = {RLELossless: "pydicom", JPEGLSLossless: "pyjpegls", JPEG2000Lossless: "pylibjpeg"}
DCMTK_ENCODINGS = {"JPEG lossless first-order": "+e1", "JPEG lossless": "+el", "JPEG 12 bit": "+ee"}
UNKNOWN_TO_DCM2NIIX = {"JPEG-LS", "deflated", "JPEG 12 bit"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Oracle:
    """What another converter made of one acquisition; indices are those of its own file."""

    stored: NDArray[Any]
    slope: float
    intercept: float
    index_to_lps_mm: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Ours:
    """What we make of one acquisition."""

    intensities: NDArray[np.float32]
    grid: Grid


def _read(path: Path) -> Iterator[Oracle]:
    image: Any = nib.Nifti1Image.from_filename(path)
    stored = np.asarray(image.dataobj.get_unscaled())
    for one in np.moveaxis(stored, 3, 0) if stored.ndim == 4 else [stored]:
        yield Oracle(
            stored=one,
            slope=float(image.dataobj.slope),
            intercept=float(image.dataobj.inter),
            index_to_lps_mm=RAS_TO_LPS @ image.affine,
        )


def _dcm2niix(source: Path, folder: Path) -> list[Oracle]:
    """Convert, for Philips by the standard's Rescale Slope and not by the private one (-p n)."""
    folder.mkdir()
    options = ["-b", "n", "-z", "n", "-p", "n", "-f", "out", "-o", str(folder)]
    subprocess.run(["dcm2niix", *options, source], check=True, capture_output=True, timeout=120)
    return [one for file in sorted(folder.glob("*.nii")) for one in _read(file)]


def _dicom2nifti(source: Path, folder: Path) -> list[Oracle]:
    folder.mkdir()
    dicom2nifti.dicom_series_to_nifti(source, folder / "out.nii", reorient_nifti=False)
    return list(_read(folder / "out.nii"))


def _ours(folder: Path) -> list[Ours]:
    """Convert every acquisition, without the gate for heads."""
    files = sorted(folder.iterdir())
    return [_volume(part) for part in series.parts(series.read_headers(files), files)]


def _volume(part: Part) -> Ours:
    volume = series.load(part.stack(None), "t1", None)
    return Ours(intensities=volume.intensities, grid=volume.grid)


def _turned(oracle: Oracle, grid: Grid, tolerance_mm: float) -> NDArray[Any] | None:
    """Return the oracle's voxels in our order, None where they lie elsewhere."""
    whole = np.rint(np.linalg.solve(oracle.index_to_lps_mm, grid.index_to_lps_mm))
    off_mm = np.abs(oracle.index_to_lps_mm @ whole - grid.index_to_lps_mm)
    steps = whole[:3, :3].astype(int)
    is_permutation = np.array_equal(np.abs(steps) @ np.abs(steps).T, np.eye(3))
    if off_mm[:3, :3].max() > AFFINE_TOLERANCE_MM or off_mm.max() > tolerance_mm:
        return None
    if not is_permutation:
        return None
    backwards = tuple(int(at) for at in np.flatnonzero(steps.sum(axis=0) < 0))
    turned: NDArray[Any] = np.flip(oracle.stored.transpose(np.abs(steps).argmax(axis=0)), backwards)
    return turned if turned.shape == grid.shape else None


def _is_same(ours: Ours, oracle: Oracle, tolerance_mm: float) -> bool:
    stored = _turned(oracle, ours.grid, tolerance_mm)
    if stored is None:
        return False
    if stored.dtype.kind == "f":  # scaled already, in float32 by some
        bound = EPSILON * float(np.abs(stored).max())
        return bool(np.abs(ours.intensities - stored).max() <= bound)
    back = (ours.intensities.astype(np.float64) - oracle.intercept) / oracle.slope
    is_near = np.abs(back - stored).max() < 1e-3  # NIfTI keeps the slope as float32
    return bool(is_near and np.array_equal(np.rint(back), stored))


def _assert_same(
    ours: list[Ours], oracles: list[Oracle], tolerance_mm: float = AFFINE_TOLERANCE_MM
) -> None:
    """Assert that every volume of ours is exactly one of theirs."""
    assert len(ours) == len(oracles)
    found = [[_is_same(one, oracle, tolerance_mm) for oracle in oracles] for one in ours]
    assert np.array_equal(np.sum(found, axis=0), np.ones(len(ours)))
    assert np.array_equal(np.sum(found, axis=1), np.ones(len(ours)))


@pytest.mark.parametrize("role", ["flair", "t1", "t1gd", "t2"])
def test_a_generated_series_equals_both(
    role: Role, full_study: WrittenStudy, tmp_path: Path
) -> None:
    peers.require("dcm2niix")
    folder = full_study.files.paths[role][0].parent
    ours = _ours(folder)
    _assert_same(ours, _dcm2niix(folder, tmp_path / "dcm2niix"))
    _assert_same(ours, _dicom2nifti(folder, tmp_path / "dicom2nifti"))


def test_signed_pixels_equal_both(full_study: WrittenStudy, tmp_path: Path) -> None:
    peers.require("dcm2niix")
    phantoms.negative_values(full_study.files.paths["t1"], tmp_path / "signed")
    ours = _ours(tmp_path / "signed")
    assert ours[0].intensities.min() < 0
    _assert_same(ours, _dcm2niix(tmp_path / "signed", tmp_path / "dcm2niix"))
    _assert_same(ours, _dicom2nifti(tmp_path / "signed", tmp_path / "dicom2nifti"))


@pytest.fixture(scope="module")
def turned_volumes() -> dict[str, Volume]:
    """Return noise in every orientation, with steps of three sizes and no two extents equal."""
    rng = np.random.default_rng(3)
    found = {}
    for name, directions in ORIENTATIONS.items():
        matrix = np.eye(4)
        matrix[:3, :3] = directions @ np.diag([3.3, 1.25, 0.8])
        matrix[:3, 3] = [-31.25, 17.5, -42.125]
        found[name] = Volume(
            intensities=rng.integers(0, 4096, (14, 40, 50)).astype(np.float32),
            grid=Grid(shape=(14, 40, 50), index_to_lps_mm=matrix, frame_of_reference_uid="2.25.9"),
            role="t1",
        )
    return found


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_every_orientation_equals_both(
    name: str, turned_volumes: dict[str, Volume], tmp_path: Path
) -> None:
    peers.require("dcm2niix")
    write_series(turned_volumes[name], tmp_path / "in")
    ours = _ours(tmp_path / "in")
    _assert_same(ours, _dcm2niix(tmp_path / "in", tmp_path / "dcm2niix"))
    _assert_same(ours, _dicom2nifti(tmp_path / "in", tmp_path / "dicom2nifti"))


def _encode(files: list[Path], folder: Path, syntax: UID) -> None:
    folder.mkdir()
    for file in files:
        ds = dcmread(file)
        if syntax in ENCODERS:
            ds.compress(syntax, encoding_plugin=ENCODERS[syntax])
            ds.save_as(folder / file.name)
            continue
        if syntax == ExplicitVRBigEndian:
            ds.PixelData = ds.pixel_array.astype(">u2").tobytes()
        again = Dataset()  # a data set that was read keeps its byte order
        again.update(ds)
        again.file_meta = ds.file_meta
        again.file_meta.TransferSyntaxUID = syntax
        again.save_as(folder / file.name, enforce_file_format=True)


@pytest.mark.parametrize("name", [*ENCODINGS, *DCMTK_ENCODINGS])
def test_every_encoding_equals_those_that_read_it(
    name: str, turned_volumes: dict[str, Volume], tmp_path: Path
) -> None:
    peers.require("dcm2niix")
    files = write_series(turned_volumes["oblique"], tmp_path / "plain")
    source = tmp_path / "in"
    if name in ENCODINGS:
        _encode(files, source, ENCODINGS[name])
    else:
        peers.require("dcmtk")
        source.mkdir()
        for file in files:
            command = ["dcmcjpeg", DCMTK_ENCODINGS[name], str(file), str(source / file.name)]
            subprocess.run(command, check=True, timeout=60, capture_output=True)
    ours = _ours(source)
    if name != "JPEG 12 bit":
        assert np.array_equal(ours[0].intensities, _ours(tmp_path / "plain")[0].intensities)
        _assert_same(ours, _dicom2nifti(source, tmp_path / "dicom2nifti"))
    if name not in UNKNOWN_TO_DCM2NIIX:
        _assert_same(ours, _dcm2niix(source, tmp_path / "dcm2niix"))


@pytest.mark.parametrize("name", [name for name in READABLE if name not in NOT_FOR_DCM2NIIX])
def test_a_real_series_equals_dcm2niix(name: str, realdata: Path, tmp_path: Path) -> None:
    peers.require("dcm2niix")
    tolerance_mm = 2e-4 if name in FROM_TWO_SLICES else AFFINE_TOLERANCE_MM
    _assert_same(_ours(realdata / name), _dcm2niix(realdata / name, tmp_path / "out"), tolerance_mm)


@pytest.mark.parametrize("name", [name for name in READABLE if name not in NOT_FOR_DICOM2NIFTI])
def test_a_real_series_equals_dicom2nifti(name: str, realdata: Path, tmp_path: Path) -> None:
    _assert_same(_ours(realdata / name), _dicom2nifti(realdata / name, tmp_path / "out"))


@pytest.mark.parametrize("name", HEADS)
def test_a_real_series_of_a_heads_size_passes_the_gate(name: str, realdata: Path) -> None:
    series.load(series.stack(sorted((realdata / name).iterdir())), "t1")


@pytest.mark.parametrize(("name", "code"), REFUSED.items())
def test_a_real_series_that_is_no_whole_head_is_refused(
    name: str, code: str, realdata: Path
) -> None:
    files = sorted((realdata / name).iterdir())
    with pytest.raises(InputRejectedError) as caught:
        series.load(series.stack(files), "t1")
    assert caught.value.code == code


def test_colour_is_refused_when_it_is_decoded(realdata: Path) -> None:
    with pytest.raises(InputRejectedError) as caught:
        _ours(realdata / "dicom2nifti/generic/rgb/001")
    assert caught.value.code == "PIXEL_UNREADABLE"
