"""The pure geometry of a stack, against second formulas and hand-made positions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from converters import geometry
from converters.errors import (
    DuplicateSliceError,
    IrregularSpacingError,
    MissingAttributeError,
    MissingSliceError,
    MixedOrientationError,
    ShearedStackError,
)

NORMAL = np.array([0.0, 0.0, 1.0])
angles = st.floats(-3.1, 3.1)


def _rotation(first: float, second: float, third: float) -> NDArray[np.float64]:
    def about(angle: float, fixed: int) -> NDArray[np.float64]:
        turn = np.eye(3)
        one, two = (axis for axis in range(3) if axis != fixed)
        turn[one, one] = turn[two, two] = np.cos(angle)
        turn[one, two], turn[two, one] = -np.sin(angle), np.sin(angle)
        return turn

    return np.asarray(about(first, 0) @ about(second, 1) @ about(third, 2))


def _along(*heights_mm: float) -> NDArray[np.float64]:
    return np.outer(np.array(heights_mm), NORMAL)


@given(angles, angles, angles, st.integers(0, 30), st.integers(0, 40), st.integers(0, 50))
def test_the_matrix_is_the_equation_of_the_standard(
    first: float, second: float, third: float, slice_index: int, row: int, column: int
) -> None:
    turn = _rotation(first, second, third)
    row_cosines, column_cosines, normal = turn.T
    origin = np.array([-100.0, 33.0, 7.0])
    positions = origin + 2.5 * np.outer(np.arange(31), normal)
    matrix = geometry.index_to_lps_mm(
        positions, np.array([row_cosines, column_cosines]), (0.7, 0.9)
    )
    # PS3.3 equation C.7.6.2.1-1: the column index runs along the row cosines
    wanted = positions[slice_index] + row_cosines * 0.9 * column + column_cosines * 0.7 * row
    found = matrix @ np.array([slice_index, row, column, 1.0])
    assert np.allclose(found[:3], wanted, atol=1e-9)
    assert np.allclose(geometry.normal_of(turn.T[:2]), normal, atol=1e-12)


def test_cosines_are_brought_to_unit_length() -> None:
    axes = geometry.unit_axes(np.array([[0.9996, 0.0, 0.0, 0.0, 1.0004, 0.0]]))
    assert np.allclose(axes, [[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]], atol=0)


@pytest.mark.parametrize(
    "cosines",
    [
        [0.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        [1.0, 0.0, 0.0, 0.0, 1.1, 0.0],
        [1.0, 0.0, 0.0, 1.0, 0.0, 0.0],
        [1.0, 0.0, 0.0, 0.01, 0.99995, 0.0],
    ],
)
def test_cosines_that_are_no_two_perpendicular_directions_are_refused(cosines: list[float]) -> None:
    with pytest.raises(MissingAttributeError) as caught:
        geometry.unit_axes(np.array([[1.0, 0.0, 0.0, 0.0, 1.0, 0.0], cosines]))
    assert caught.value.evidence == {"keyword": "ImageOrientationPatient", "instance": 1}


def test_a_turned_slice_is_found_with_its_angle() -> None:
    upright = np.eye(3)[:2]
    turned = (_rotation(np.radians(2.0), 0.0, 0.0) @ np.eye(3))[:, :2].T
    with pytest.raises(MixedOrientationError) as caught:
        geometry.check_one_orientation(np.array([upright, upright, turned]))
    assert caught.value.evidence["slice_index"] == 2
    assert caught.value.evidence["angle_deg"] == pytest.approx(2.0)


def test_an_opposite_orientation_is_turned_by_half_a_circle() -> None:
    upright = np.eye(3)[:2]
    with pytest.raises(MixedOrientationError) as caught:
        geometry.check_one_orientation(np.array([upright, -upright]))
    assert caught.value.evidence["angle_deg"] == pytest.approx(180.0)


def test_an_orientation_written_with_rounding_is_one_orientation() -> None:
    exact = _rotation(0.1, 0.2, 0.3).T[:2]
    geometry.check_one_orientation(np.array([exact, np.round(exact, 4)]))


@pytest.mark.parametrize("jitter_mm", [0.0, 0.0007])
def test_even_positions_pass_with_the_jitter_of_real_scanners(jitter_mm: float) -> None:
    signs = np.array([0, 1, -1, 1, -1, 0])
    geometry.check_even(_along(*(4.0 * np.arange(6) + jitter_mm * signs)), NORMAL)


def test_positions_written_to_a_hundredth_of_a_millimetre_are_even() -> None:
    geometry.check_even(_along(*np.round(0.6 * np.arange(200) + 0.004, 2)), NORMAL)


@pytest.mark.parametrize(
    ("heights_mm", "index", "gap_mm", "expected_mm"),
    [
        ((0.0, 2.5, 5.0, 10.0, 12.5), 3, 5.0, 2.5),
        ((0.0, 2.0, 3.0, 4.0), 1, 2.0, 1.0),
        ((0.0, 2.0, 3.0), 1, 2.0, 1.0),
        ((0.0, 1.0, 2.0, 3.0, 7.003, 8.0), 4, 4.003, 1.0),
    ],
)
def test_a_gap_of_whole_slices_is_a_missing_slice(
    heights_mm: tuple[float, ...], index: int, gap_mm: float, expected_mm: float
) -> None:
    with pytest.raises(MissingSliceError) as caught:
        geometry.check_even(_along(*heights_mm), NORMAL)
    assert caught.value.evidence["slice_index"] == index
    assert caught.value.evidence["gap_mm"] == pytest.approx(gap_mm)
    assert caught.value.evidence["expected_mm"] == pytest.approx(expected_mm)


@pytest.mark.parametrize(
    ("heights_mm", "index"),
    [
        ((0.0, 2.5, 5.0, 8.5, 11.0, 13.5), 3),
        ((0.0, 2.5, 5.0, 6.0, 8.5), 3),
        ((0.0, 1.0, 2.0, 3.5, 4.5), 3),
    ],
)
def test_a_gap_of_another_size_is_uneven(heights_mm: tuple[float, ...], index: int) -> None:
    with pytest.raises(IrregularSpacingError) as caught:
        geometry.check_even(_along(*heights_mm), NORMAL)
    assert caught.value.evidence["slice_index"] == index


def test_gaps_that_drift_are_uneven_although_each_is_nearly_usual() -> None:
    gaps_mm = np.linspace(0.995, 1.005, 150)
    with pytest.raises(IrregularSpacingError) as caught:
        geometry.check_even(_along(0.0, *np.cumsum(gaps_mm)), NORMAL)
    assert 60 < int(caught.value.evidence["slice_index"]) < 90


@pytest.mark.parametrize(
    ("heights_mm", "count", "index"),
    [((0.0, 1.0, 1.0, 2.0), 2, 1), ((0.0, 0.0, 1.0, 1.0), 4, 0), ((0.0, 1.0, 1.005), 2, 1)],
)
def test_slices_at_one_position_are_duplicates(
    heights_mm: tuple[float, ...], count: int, index: int
) -> None:
    with pytest.raises(DuplicateSliceError) as caught:
        geometry.check_even(_along(*heights_mm), NORMAL)
    assert caught.value.evidence == {"count": count, "slice_index": index}


def test_slices_displaced_within_their_plane_are_sheared() -> None:
    positions = _along(0.0, 1.0, 2.0, 3.0) + np.outer(np.arange(4), [0.0, 0.3, 0.0])
    with pytest.raises(ShearedStackError) as caught:
        geometry.check_even(positions, NORMAL)
    assert caught.value.evidence["shift_mm"] == pytest.approx(0.9)
