"""Mutual information against values known otherwise, and its slope against differences."""

from __future__ import annotations

import numpy as np
import pytest

from converters.likeness import Likeness, binned, coarser, pull_matrix
from converters.volume import Grid, Volume
from tests.moved_heads import cropped, with_values
from tests.phantoms import WrittenStudy

SLOPE = np.array([0.5, -0.25, 0.125])  # per millimetre of patient LPS


def even_field() -> Volume:
    """Return a volume whose values grow evenly through the patient."""
    matrix = np.diag([5.0, 1.0, 2.0, 1.0])
    matrix[:3, 3] = [-20.0, 7.0, 3.0]
    shape = (6, 17, 11)
    grid = Grid(shape=shape, index_to_lps_mm=matrix, frame_of_reference_uid="1.2")
    index = np.moveaxis(np.indices(shape), 0, -1).astype(np.float64)
    values = (grid.lps_mm(index) @ SLOPE).astype(np.float32)
    return Volume(intensities=values, grid=grid, role="t2")


@pytest.fixture(scope="module")
def pair(small_study: WrittenStudy) -> tuple[Volume, Volume]:
    volumes = small_study.study.volumes
    return coarser(volumes["t1"], 4.0), coarser(volumes["t1gd"], 4.0)


def likeness_of(pair: tuple[Volume, Volume], *, seed: int = 1) -> Likeness:
    moving, reference = (binned(volume) for volume in pair)
    return Likeness(reference, moving, reference.centre_mm, count=6000, seed=seed)


@pytest.mark.parametrize("seed", range(3))
def test_the_slope_is_that_of_the_value(pair: tuple[Volume, Volume], seed: int) -> None:
    within = cropped(pair[1], 7, 25)  # no sample comes in or leaves while the pull changes
    likeness = likeness_of((pair[0], within))
    pull = np.random.default_rng(seed).uniform(-9.0, 9.0, 6)
    value, slope = likeness.value_and_slope(pull)
    steps = 1e-3 * np.eye(6)  # smaller ones are lost in single precision
    wanted = [(likeness.value(pull + s) - likeness.value(pull - s)) / 2e-3 for s in steps]
    assert value == likeness.value(pull)
    assert slope == pytest.approx(wanted, abs=0.015 * float(np.linalg.norm(wanted)))


def test_the_right_place_tells_most(pair: tuple[Volume, Volume]) -> None:
    likeness = likeness_of(pair)
    best = likeness.value(np.zeros(6))
    steps = np.concatenate([8.0 * np.eye(6), -8.0 * np.eye(6)])
    assert best > 1.02 * max(likeness.value(step) for step in steps)


def test_the_same_samples_give_the_same_bits(pair: tuple[Volume, Volume]) -> None:
    pull = np.full(6, 3.0)
    first, other = likeness_of(pair), likeness_of(pair)
    assert first.value_and_slope(pull)[0] == other.value_and_slope(pull)[0]
    assert (first.value_and_slope(pull)[1] == other.value_and_slope(pull)[1]).all()
    assert first.value(pull) != likeness_of(pair, seed=2).value(pull)


def test_noise_tells_next_to_nothing(pair: tuple[Volume, Volume]) -> None:
    rng = np.random.default_rng(0)
    values = rng.random(pair[0].grid.shape, dtype=np.float32)
    noise = with_values(pair[0], values)
    assert likeness_of((noise, pair[1])).value(np.zeros(6)) < 0.15


def test_volumes_beside_each_other_tell_nothing(pair: tuple[Volume, Volume]) -> None:
    likeness, far = likeness_of(pair), np.array([0.0, 0.0, 0.0, 400.0, 0.0, 0.0])
    assert likeness.value(far) == 0.0
    value, slope = likeness.value_and_slope(far)
    assert value == 0.0
    assert not slope.any()


def test_a_volume_without_air_is_head_everywhere() -> None:
    flat = np.full((4, 5, 6), 7.0, dtype=np.float32)
    matrix = np.diag([3.0, 2.0, 2.0, 1.0])
    one = with_values(even_field(), flat, matrix)
    assert binned(one).is_head.all()
    assert np.isfinite(binned(one).values).all()


def test_blocks_keep_every_value_where_it_is() -> None:
    """A field that grows evenly has the same values at the same points, however coarse."""
    volume = even_field()
    small = coarser(volume, 4.0)
    assert small.grid.spacing_mm == pytest.approx((5.0, 4.0, 4.0))
    index = np.moveaxis(np.indices(small.grid.shape), 0, -1).astype(np.float64)
    wanted = small.grid.lps_mm(index) @ SLOPE
    assert np.allclose(small.intensities, wanted, atol=1e-3)


def test_an_axis_keeps_at_least_four_voxels() -> None:
    assert coarser(even_field(), 50.0).grid.shape == (6, 4, 5)


def test_a_pull_turns_about_the_centre() -> None:
    centre = np.array([10.0, 20.0, 30.0])
    matrix = pull_matrix(np.array([40.0, 0.0, 0.0, 1.0, 2.0, 3.0]), centre)
    assert (matrix @ [*centre, 1.0])[:3] == pytest.approx([11.0, 22.0, 33.0])
    angle = np.arccos((np.trace(matrix[:3, :3]) - 1) / 2)
    assert angle == pytest.approx(0.5)
