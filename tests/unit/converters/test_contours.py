"""Outlines enclose exactly the voxels of a mask, by another algorithm than the gate's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as some
from numpy.typing import NDArray
from scipy import ndimage

from converters.contours import outlines

Mask = NDArray[np.bool_]
masks = some.arrays(
    np.bool_, some.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.booleans()
)


def enclosed(polygons: list[NDArray[np.float64]], shape: tuple[int, ...]) -> Mask:
    """Return which voxel centres a ray to the right leaves through an odd number of edges."""
    inside = np.zeros(shape, dtype=bool)
    for row, column in np.ndindex(shape):
        for corners in polygons:
            for one, other in zip(corners, np.roll(corners, -1, axis=0), strict=True):
                if (one[0] > row) != (other[0] > row) and one[1] > column:
                    inside[row, column] ^= True
    return inside


def area(corners: NDArray[np.float64]) -> float:
    rows, columns = corners.T
    return abs(float(rows @ np.roll(columns, 1) - columns @ np.roll(rows, 1))) / 2


@settings(max_examples=200, deadline=None)
@given(masks)
def test_exactly_the_voxels_of_the_mask_are_inside(mask: Mask) -> None:
    assert np.array_equal(enclosed(outlines(mask), mask.shape), mask)


@settings(max_examples=200, deadline=None)
@given(masks)
def test_the_area_within_is_that_of_the_voxels_and_each_piece_has_one_polygon(mask: Mask) -> None:
    found = outlines(mask)
    assert sum(map(area, found)) == mask.sum()
    assert len(found) == ndimage.label(mask)[1]


@settings(max_examples=100, deadline=None)
@given(masks)
def test_corners_lie_between_voxels_and_each_is_a_turn(mask: Mask) -> None:
    for corners in outlines(mask):
        assert (corners % 1 == 0.5).all()
        step = np.roll(corners, -1, axis=0) - corners
        assert (np.count_nonzero(step, axis=1) == 1).all()
        is_down = step[:, 0] != 0
        assert (is_down | np.roll(is_down, 1)).all()


def test_one_voxel_is_a_square() -> None:
    (square,) = outlines(np.ones((1, 1), dtype=bool))
    assert square.tolist() == [[-0.5, -0.5], [-0.5, 0.5], [0.5, 0.5], [0.5, -0.5]]


def test_a_hole_is_joined_by_a_channel_that_is_passed_twice() -> None:
    mask = np.ones((5, 6), dtype=bool)
    mask[2, 3] = False
    (found,) = outlines(mask)
    assert [1.5, -0.5] in found.tolist()  # where the channel leaves the outline
    assert found.tolist().count([1.5, -0.5]) == 2


@pytest.mark.parametrize("seed", range(5))
def test_rings_within_rings_keep_their_holes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    distance = np.hypot(*(np.indices((31, 37)) - rng.uniform(12, 20, (2, 1, 1))))
    mask = distance % 8 < 4
    assert np.array_equal(enclosed(outlines(mask), mask.shape), mask)


def test_nothing_has_no_outline() -> None:
    assert outlines(np.zeros((4, 5), dtype=bool)) == []
