"""What is no whole head is refused: each code from a broken variant, and what must pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from converters import gate, series
from converters.errors import InputRejectedError
from converters.gate import Limits
from converters.volume import Grid, Volume
from tests import broken_heads, phantoms
from tests.phantoms import WrittenStudy

Break = Callable[[list[Path], Path], list[Path]]

HEADS = {
    "a sagittal millimetre volume": ((176, 256, 256), (1.0, 1.0, 1.0)),
    "seven tesla": ((320, 640, 640), (0.5, 0.3, 0.3)),
    "portable, 64 millitesla": ((36, 138, 112), (5.0, 1.61, 1.59)),
    "five millimetre slices with a gap": ((20, 256, 208), (6.0, 0.9, 0.9)),
    "stripped research data": ((155, 240, 240), (1.0, 1.0, 1.0)),
    "the clinical exam": ((26, 208, 256), (5.5, 0.898, 0.898)),
    "an infant": ((45, 256, 208), (2.0, 0.625, 0.625)),
    "coarse screening": ((14, 128, 128), (10.0, 2.0, 2.0)),
    "echo planar": ((32, 64, 64), (4.0, 4.0, 4.0)),
}
NO_HEADS = {
    "a slab": ((12, 256, 256), (5.0, 1.0, 1.0), "GEOM_COVERAGE"),
    "a localizer": ((3, 256, 256), (10.0, 1.0, 1.0), "GEOM_TOO_FEW_SLICES"),
    "centimetres": ((160, 256, 256), (0.1, 0.05, 0.1), "GEOM_SPACING"),
    "wide gaps": ((12, 256, 256), (15.0, 1.0, 1.0), "GEOM_SPACING"),
    "a pituitary": ((60, 256, 256), (2.0, 0.4, 0.4), "GEOM_FIELD_OF_VIEW"),
    "a body": ((60, 256, 256), (5.0, 2.5, 2.5), "GEOM_FIELD_OF_VIEW"),
    "a narrow field": ((60, 256, 64), (3.0, 1.0, 1.0), "GEOM_FIELD_OF_VIEW"),
    "a whole spine": ((200, 256, 256), (3.0, 1.0, 1.0), "GEOM_FIELD_OF_VIEW"),
}


def _grid(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Grid:
    """Return a grid with slices along x, rows along z and columns along y: sagittal."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag(spacing_mm)[[0, 2, 1]] * [1, -1, 1]
    return Grid(shape=shape, index_to_lps_mm=matrix, frame_of_reference_uid="")


def _head(count: int = 30) -> NDArray[np.float32]:
    """Return noise on a grid of 5 mm cubes, 40 x 40 of them in a slice."""
    return np.random.default_rng(0).uniform(1, 9, (count, 40, 40)).astype(np.float32)


def _volume(intensities: NDArray[np.float32]) -> Volume:
    shape = (intensities.shape[0], intensities.shape[1], intensities.shape[2])
    return Volume(intensities=intensities, grid=_grid(shape, (5.0, 5.0, 5.0)), role="t1")


def _refusal(intensities: NDArray[np.float32]) -> InputRejectedError:
    with pytest.raises(InputRejectedError) as caught:
        gate.check_volume(_volume(intensities))
    return caught.value


@pytest.mark.parametrize("name", HEADS)
def test_a_plausible_head_passes(name: str) -> None:
    gate.check_grid(_grid(*HEADS[name]))


@pytest.mark.parametrize("name", NO_HEADS)
def test_what_is_no_whole_head_is_refused(name: str) -> None:
    shape, spacing_mm, code = NO_HEADS[name]
    with pytest.raises(InputRejectedError) as caught:
        gate.check_grid(_grid(shape, spacing_mm))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("shape", "spacing_mm"),
    [((9, 120, 120), (10.0, 1.0, 1.0)), ((450, 120, 600), (1.0, 1.0, 1.0))],
)
def test_a_limit_itself_is_allowed(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> None:
    gate.check_grid(_grid(shape, spacing_mm))


def test_limits_are_settings() -> None:
    grid = _grid((12, 256, 256), (5.0, 1.0, 1.0))
    gate.check_grid(grid, Limits(coverage_mm=60.0))
    with pytest.raises(InputRejectedError) as caught:
        gate.check_grid(grid, Limits(coverage_mm=60.5))
    assert str(caught.value) == "the slices cover 60.0 mm, expected at least 60.5 mm"


def test_the_sentences_name_what_was_found_and_expected() -> None:
    with pytest.raises(InputRejectedError) as caught:
        gate.check_grid(_grid((60, 256, 64), (3.0, 1.0, 1.0)))
    assert str(caught.value) == ("the columns cover 64.0 mm, expected 120.0 to 600.0 mm for a head")
    with pytest.raises(InputRejectedError) as caught:
        gate.check_grid(_grid((60, 256, 256), (3.0, 0.01, 1.0)))
    assert str(caught.value) == (
        "neighbouring rows are 0.0100 mm apart, expected 0.10 to 10.00 mm for a head"
    )


def test_an_image_with_noise_passes() -> None:
    gate.check_volume(_volume(_head()))


def test_a_stripped_brain_with_blank_ends_passes() -> None:
    intensities = _head(40)
    intensities[:10] = intensities[-4:] = 0
    intensities[:, :10] = 0
    gate.check_volume(_volume(intensities))


def test_a_constant_image_is_refused() -> None:
    assert _refusal(np.full_like(_head(), 7)).code == "IMAGE_CONSTANT"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_refused_with_its_slice(value: float) -> None:
    intensities = _head()
    intensities[4, 3, 2] = intensities[9, 1, 1] = value
    error = _refusal(intensities)
    assert error.code == "IMAGE_NOT_FINITE"
    assert error.evidence == {"voxel_count": 2, "slice_index": 4}


def test_blank_slices_between_others_are_refused_with_the_first() -> None:
    intensities = _head()
    intensities[0] = intensities[7:9] = intensities[20] = 0
    error = _refusal(intensities)
    assert error.code == "IMAGE_BLANK_SLICES"
    assert error.evidence == {"count": 3, "slice_index": 7}


def test_a_slab_in_a_blank_stack_is_refused() -> None:
    intensities = _head()
    intensities[:10] = intensities[22:] = 0
    error = _refusal(intensities)
    assert error.code == "GEOM_COVERAGE"
    assert error.evidence == {"covered_mm": 60.0, "minimum_mm": 90.0}


def test_slices_of_one_value_each_cover_nothing() -> None:
    intensities = np.zeros_like(_head()) + np.arange(30, dtype=np.float32)[:, None, None]
    assert _refusal(intensities).evidence["covered_mm"] == 0.0


def test_a_mask_is_too_little_of_a_head() -> None:
    intensities = np.zeros_like(_head())
    intensities[:, :5, :5] = 1
    error = _refusal(intensities)
    assert error.code == "IMAGE_NEARLY_EMPTY"
    assert str(error) == "94 ml differ from the darkest value, expected at least 300 ml of a head"


@pytest.mark.parametrize(
    ("break_series", "code"),
    [
        (broken_heads.slab, "GEOM_COVERAGE"),
        (partial(broken_heads.slab, extent_mm=30.0), "GEOM_TOO_FEW_SLICES"),
        (partial(broken_heads.scaled, factor=0.01), "GEOM_SPACING"),
        (partial(broken_heads.scaled, factor=10.0), "GEOM_SPACING"),
        (partial(broken_heads.scaled, factor=0.5), "GEOM_FIELD_OF_VIEW"),
        (partial(broken_heads.zoomed, factor=0.5), "GEOM_FIELD_OF_VIEW"),
        (partial(broken_heads.zoomed, factor=4.0), "GEOM_FIELD_OF_VIEW"),
        (partial(broken_heads.blank_slices, indices=[5, 6]), "IMAGE_BLANK_SLICES"),
        (partial(broken_heads.blank_slices, indices=range(11, 99)), "GEOM_COVERAGE"),
        (phantoms.constant_image, "IMAGE_CONSTANT"),
        (broken_heads.mostly_empty, "IMAGE_NEARLY_EMPTY"),
        (broken_heads.not_finite, "IMAGE_NOT_FINITE"),
        (partial(broken_heads.not_finite, value=np.inf), "IMAGE_NOT_FINITE"),
        (broken_heads.truncated_pixels, "PIXEL_UNREADABLE"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # pydicom's own complaint about a length
def test_a_broken_series_is_refused_with_its_code(
    break_series: Break, code: str, small_study: WrittenStudy, tmp_path: Path
) -> None:
    files = break_series(small_study.files.paths["t1"], tmp_path)
    with pytest.raises(InputRejectedError) as caught:
        series.load(series.stack(files), "t1")
    assert caught.value.code == code
    assert caught.value.advice
