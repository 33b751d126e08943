"""dicom2nifti where no decoder is: its voxels on our grid, or the refusal as it was."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000MC, JPEGLSLossless

from converters import fallback, series
from converters.errors import PixelDecodeError
from converters.series import Stack
from converters.volume import Grid
from tests import phantoms
from tests.phantoms import WrittenStudy

UNKNOWN = PixelDecodeError(slice_index=0, reason="no decoder")


@pytest.fixture(scope="module")
def stack(small_study: WrittenStudy, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """Return an oblique series in JPEG-LS."""

    def compress(_: int, ds: Dataset) -> None:
        ds.compress(JPEGLSLossless, encoding_plugin="pyjpegls")

    files = small_study.files.paths["t1"]
    return series.stack(phantoms.edited(files, tmp_path_factory.mktemp("ls"), compress))


def _turned(grid: Grid, **changes: object) -> Grid:
    return replace(grid, **changes)  # type: ignore[arg-type]


def test_its_voxels_are_ours_on_our_grid(stack: Stack) -> None:
    found = fallback.intensities(stack.files, stack.grid, UNKNOWN)
    assert np.array_equal(found, series.load(stack, "t1").intensities)


def test_axes_may_run_another_way(stack: Stack) -> None:
    matrix = stack.grid.index_to_lps_mm.copy()
    last = np.array([stack.grid.shape[0] - 1, 0, 0, 1.0])
    matrix[:3, 3] = (matrix @ last)[:3]
    matrix[:3, 0] *= -1
    found = fallback.intensities(stack.files, _turned(stack.grid, index_to_lps_mm=matrix), UNKNOWN)
    assert np.array_equal(found, series.load(stack, "t1").intensities[::-1])


def test_another_geometry_is_refused(stack: Stack) -> None:
    moved = stack.grid.index_to_lps_mm.copy()
    moved[0, 3] += 0.001
    count, rows, columns = stack.grid.shape
    stretched = stack.grid.index_to_lps_mm @ np.diag([2.0, 1.0, 1.0, 1.0])
    for grid in (
        _turned(stack.grid, index_to_lps_mm=moved),
        _turned(stack.grid, index_to_lps_mm=stretched),
        _turned(stack.grid, shape=(count - 1, rows, columns)),
    ):
        with pytest.raises(PixelDecodeError) as caught:
            fallback.intensities(stack.files, grid, UNKNOWN)
        assert caught.value is UNKNOWN


def test_what_it_cannot_read_stays_refused(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(b"no DICOM")
    with pytest.raises(PixelDecodeError) as caught:
        fallback.intensities((tmp_path / "x.dcm",), stack.grid, UNKNOWN)
    assert caught.value is UNKNOWN


def test_a_stream_that_a_decoder_refused_is_not_tried_again(stack: Stack) -> None:
    refused = PixelDecodeError(slice_index=3, reason="ValueError")
    with pytest.raises(PixelDecodeError) as caught:
        fallback.intensities(stack.files, stack.grid, refused)
    assert caught.value is refused


def test_dicom2nifti_is_loaded_only_when_it_is_needed() -> None:
    program = "import sys, converters.fallback; sys.exit('dicom2nifti' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_series_that_nobody_reads_is_refused_as_before(stack: Stack, tmp_path: Path) -> None:
    def relabel(_: int, ds: Dataset) -> None:
        ds.file_meta.TransferSyntaxUID = JPEG2000MC

    files = phantoms.edited(stack.files, tmp_path, relabel)
    with pytest.raises(PixelDecodeError) as caught:
        series.load(series.stack(files), "t1")
    assert caught.value.evidence == {"slice_index": 0, "reason": "no decoder"}
