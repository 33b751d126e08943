"""Linear sampling on a lattice: scipy's spline of the first degree, and 0 beyond the border."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from converters import sampling

_SIZES = st.tuples(*[st.integers(1, 9)] * 3)
_ANGLES = st.tuples(*[st.floats(-180.0, 180.0)] * 3)
_STEPS = st.tuples(*[st.floats(0.2, 3.0)] * 3)
_SHIFTS = st.tuples(*[st.floats(-6.0, 12.0)] * 3)


def _scipys(
    values: NDArray[np.float32], to_index: NDArray[np.float64], shape: tuple[int, int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return scipy's samples, the border repeated, and how far beyond the border each lies."""
    lattice = np.indices(shape, np.float64).reshape(3, -1)
    at = to_index[:3, :3] @ lattice + to_index[:3, 3:]
    last = np.reshape(np.subtract(values.shape, 1.0), (3, 1))
    found = ndimage.map_coordinates(values, at, np.float32, order=1, mode="nearest")
    beyond = np.abs(at - np.clip(at, 0.0, last)).max(axis=0)
    return found.reshape(shape), beyond.reshape(shape)


@settings(max_examples=200, deadline=None)
@given(size=_SIZES, shape=_SIZES, angles=_ANGLES, steps=_STEPS, shift=_SHIFTS)
def test_any_lattice_is_sampled_as_scipy_does(
    size: tuple[int, int, int],
    shape: tuple[int, int, int],
    angles: tuple[float, float, float],
    steps: tuple[float, float, float],
    shift: tuple[float, float, float],
) -> None:
    values = np.random.default_rng(1).random(size, np.float32) + 1.0
    to_index = np.eye(4)
    to_index[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * steps
    to_index[:3, 3] = shift
    expected, beyond = _scipys(values, to_index, shape)
    found = sampling.linear(values, to_index, shape)
    np.testing.assert_allclose(found[beyond <= 0.5], expected[beyond <= 0.5], atol=1e-4)
    assert not found[beyond > 0.502].any()


@pytest.mark.parametrize("tile", [1, 40, 1000])
def test_tiles_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    values = np.random.default_rng(2).random((7, 20, 30), np.float32)
    to_index = np.eye(4)
    to_index[:3, :3] = Rotation.from_euler("xyz", (8, -5, 20), degrees=True).as_matrix() * 0.9
    whole = sampling.linear(values, to_index, (9, 22, 31))
    monkeypatch.setattr(sampling, "_TILE", tile)
    np.testing.assert_array_equal(sampling.linear(values, to_index, (9, 22, 31)), whole)


def test_voxels_that_coincide_keep_their_values() -> None:
    values = np.random.default_rng(3).random((5, 6, 7), np.float32)
    flipped = np.diag([1.0, -1.0, 1.0, 1.0])
    flipped[1, 3] = 5.0
    np.testing.assert_array_equal(sampling.linear(values, flipped, values.shape), values[:, ::-1])


def test_the_outermost_values_hold_as_far_as_the_margin_reaches() -> None:
    values = np.full((3, 3, 3), 4.0, np.float32)
    to_index = np.diag([0.5, 0.5, 0.5, 1.0])
    to_index[:3, 3] = (-2.0, 0.0, 0.0)
    found = sampling.linear(values, to_index, (10, 1, 1), np.array([1.0, 0.501, 0.501]))
    assert found[:, 0, 0].tolist() == [0.0, 0.0, *[4.0] * 8]


def test_blocks_are_averaged_and_a_rest_is_left_out() -> None:
    values = np.random.default_rng(4).random((7, 8, 9), np.float32)
    found = sampling.block_means(values, (2, 1, 4))
    expected = values[:6, :, :8].reshape(3, 2, 8, 1, 2, 4).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
