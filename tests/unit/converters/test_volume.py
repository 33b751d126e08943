"""The shared nouns: what they refuse, what they answer, and that they cannot be changed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from converters.volume import Code, Grid, LabelMap, Segment, Volume

CODE = Code(value="1", scheme="SCT", meaning="thing")


def _matrix() -> NDArray[np.float64]:
    """Return an oblique map with steps of 4, 2 and 1 millimetres."""
    cosine, sine = np.cos(0.3), np.sin(0.3)
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[0, 0, 1], [-4 * sine, 2 * cosine, 0], [4 * cosine, 2 * sine, 0]])
    matrix[:3, 3] = (10.0, -20.0, 30.0)
    return matrix


def _grid(matrix: NDArray[np.float64] | None = None) -> Grid:
    return Grid(
        shape=(3, 4, 5),
        index_to_lps_mm=_matrix() if matrix is None else matrix,
        frame_of_reference_uid="1.2",
    )


def _segment(number: int = 1, label: str = "x", color: int = 0) -> Segment:
    return Segment(
        number=number, label=label, category=CODE, type_code=CODE, color_rgb=(color, 0, 0)
    )


def _changed(row: int, column: int, value: float) -> NDArray[np.float64]:
    matrix = _matrix()
    matrix[row, column] = value
    return matrix


@pytest.mark.parametrize(
    ("matrix", "complaint"),
    [
        (_changed(0, 0, np.nan), "not a finite 4x4"),
        (np.eye(3), "not a finite 4x4"),
        (_changed(3, 0, 1.0), "not affine"),
        (np.diag([1.0, 1.0, 0.0, 1.0]), "not invertible"),
    ],
)
def test_a_grid_needs_an_invertible_affine_matrix(
    matrix: NDArray[np.float64], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        _grid(matrix)


def test_a_grid_needs_voxels() -> None:
    with pytest.raises(ValueError, match="three positive counts"):
        Grid(shape=(3, 0, 5), index_to_lps_mm=_matrix(), frame_of_reference_uid="")


def test_spacing_and_voxel_volume_follow_from_the_matrix() -> None:
    assert _grid().spacing_mm == pytest.approx((4.0, 2.0, 1.0))
    assert _grid().voxel_volume_mm3 == pytest.approx(8.0)


@given(st.lists(st.tuples(*[st.floats(-500, 500)] * 3), min_size=1, max_size=4))
def test_an_index_comes_back_from_its_position(indices: list[tuple[float, float, float]]) -> None:
    grid, index = _grid(), np.array(indices)
    matrix = grid.index_to_lps_mm
    back = np.linalg.solve(matrix[:3, :3], (grid.lps_mm(index) - matrix[:3, 3]).T).T
    assert np.allclose(back, index, atol=1e-9)


def test_a_matrix_cannot_be_changed_afterwards() -> None:
    matrix = _matrix()
    grid = _grid(matrix)
    matrix[0, 0] = 99.0
    assert grid.index_to_lps_mm[0, 0] == _matrix()[0, 0]
    with pytest.raises(ValueError, match="read-only"):
        grid.index_to_lps_mm[0, 0] = 1.0


def test_grids_are_one_place_when_every_voxel_is() -> None:
    assert _grid().is_same_place(_grid(_changed(0, 3, 10.0005)))
    assert not _grid().is_same_place(_grid(_changed(0, 3, 10.1)))
    assert not _grid().is_same_place(_grid(_changed(0, 2, 1.1)))
    other = Grid(shape=(3, 4, 6), index_to_lps_mm=_matrix(), frame_of_reference_uid="1.2")
    assert not _grid().is_same_place(other)


def test_a_part_of_a_grid_keeps_its_voxels_in_place() -> None:
    part = _grid().part((slice(1, 3), slice(2, 3), slice(0, 4)))
    assert part.shape == (2, 1, 4)
    assert part.frame_of_reference_uid == "1.2"
    last, same = np.array([1.0, 0.0, 3.0]), np.array([2.0, 2.0, 3.0])
    np.testing.assert_allclose(part.lps_mm(last), _grid().lps_mm(same))


def test_a_volume_holds_float32_on_its_grid() -> None:
    values = np.zeros((3, 4, 5), dtype=np.float32)
    volume = Volume(intensities=values, grid=_grid(), role="t1")
    with pytest.raises(ValueError, match="read-only"):
        volume.intensities[0, 0, 0] = 1.0
    with pytest.raises(ValueError, match="expected float32"):
        Volume(intensities=values.astype(np.float64), grid=_grid(), role="t1")
    with pytest.raises(ValueError, match="lies on a grid"):
        Volume(intensities=values[:2], grid=_grid(), role="t1")


@pytest.mark.parametrize("role", ["", "T1", "t1 gd", "../t1", "t" * 17])
def test_a_role_is_a_short_lower_case_word(role: str) -> None:
    with pytest.raises(ValueError, match="short lower-case word"):
        Volume(intensities=np.zeros((3, 4, 5), dtype=np.float32), grid=_grid(), role=role)


def test_a_code_is_whole() -> None:
    with pytest.raises(ValueError, match="needs value, scheme and meaning"):
        Code(value="1", scheme="", meaning="thing")


@pytest.mark.parametrize(
    ("number", "label", "color", "complaint"),
    [
        (0, "x", 0, "outside 1 to 255"),
        (256, "x", 0, "outside 1 to 255"),
        (1, "", 0, "1 to 64 characters"),
        (1, "x" * 65, 0, "1 to 64 characters"),
        (1, "x", 256, "not sRGB"),
    ],
)
def test_a_segment_keeps_within_dicoms_limits(
    number: int, label: str, color: int, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        _segment(number, label, color)


def _label_map(labels: NDArray[np.uint8], segments: tuple[Segment, ...]) -> LabelMap:
    return LabelMap(labels=labels, grid=_grid(), segments=segments, model_id="m@1")


def test_a_label_map_knows_the_volume_of_each_segment() -> None:
    labels = np.zeros((3, 4, 5), dtype=np.uint8)
    labels[0, 0, :3] = 2
    label_map = _label_map(labels, (_segment(1), _segment(2)))
    assert label_map.volumes_ml() == pytest.approx({1: 0.0, 2: 0.024})
    with pytest.raises(ValueError, match="read-only"):
        label_map.labels[0, 0, 0] = 1


@pytest.mark.parametrize(
    ("labels", "numbers", "complaint"),
    [
        (np.zeros((3, 4, 5), dtype=np.int16), (1,), "expected uint8"),
        (np.zeros((3, 4, 4), dtype=np.uint8), (1,), "lies on a grid"),
        (np.zeros((3, 4, 5), dtype=np.uint8), (1, 3), "not numbered"),
        (np.full((3, 4, 5), 2, dtype=np.uint8), (1,), "label 2 has no segment"),
    ],
)
def test_a_label_map_is_described_whole(
    labels: NDArray[np.uint8], numbers: tuple[int, ...], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        _label_map(labels, tuple(_segment(number) for number in numbers))
