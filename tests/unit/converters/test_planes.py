"""Planes through a head: sides, proportions, and outlines where the labels end."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from converters import planes
from converters.planes import Head, Outlines, Plane, View
from converters.volume import Grid, LabelMap, Shape, Volume
from tests.seg_examples import SEGMENTS

# Every way in which a scanner stacks: which patient axis each array axis runs along, and whether
# it runs against it.
STACKS = [
    (order, signs)
    for order in ((2, 1, 0), (0, 2, 1), (1, 2, 0))
    for signs in itertools.product((1.0, -1.0), repeat=3)
]


def stacked(order: tuple[int, int, int], signs: tuple[float, ...], step_mm: float = 4.0) -> Grid:
    """Return a cube of 40 voxels a side around the origin, a little oblique."""
    turn = np.linalg.qr(np.eye(3) + 0.1 * np.random.default_rng(1).standard_normal((3, 3)))[0]
    turn *= np.sign(np.diag(turn))
    matrix = np.eye(4)
    for axis, (patient, sign) in enumerate(zip(order, signs, strict=True)):
        matrix[:3, axis] = turn[:, patient] * sign * step_mm
    matrix[:3, 3] = -matrix[:3, :3] @ np.full(3, 19.5)
    return Grid(shape=(40, 40, 40), index_to_lps_mm=matrix, frame_of_reference_uid="1.2")


def indices_mm(grid: Grid) -> NDArray[np.float64]:
    return grid.lps_mm(np.moveaxis(np.indices(grid.shape), 0, -1).astype(np.float64))


def ball(grid: Grid, centre_mm: tuple[float, float, float], radius_mm: float) -> NDArray[np.bool_]:
    return np.asarray(np.linalg.norm(indices_mm(grid) - centre_mm, axis=-1) <= radius_mm)


def volume(grid: Grid, values: NDArray[np.bool_]) -> Volume:
    return Volume(intensities=values.astype(np.float32) * 100.0, grid=grid, role="t1gd")


def labelled(grid: Grid, labels: NDArray[np.bool_]) -> LabelMap:
    return LabelMap(labels=labels.astype(np.uint8), grid=grid, segments=SEGMENTS, model_id="a@1")


def head(grid: Grid, half_mm: float = 80.0) -> Head:
    ends = np.full(3, half_mm)
    return Head(axes=planes.body_axes(grid), low_mm=-ends, high_mm=ends)


@pytest.mark.parametrize(("order", "signs"), STACKS)
@pytest.mark.parametrize("view", planes.VIEWS)
def test_the_letters_at_the_borders_say_which_side_of_the_patient_is_there(
    order: tuple[int, int, int], signs: tuple[float, ...], view: View
) -> None:
    grid = stacked(order, signs)
    plane = head(grid).plane(view, np.zeros(3), (50, 60), 2.0)
    at_left, at_right, at_top, at_bottom = list(planes.LETTERS[view])
    for letter, way in (
        (at_right, plane.right),
        (at_left, -plane.right),
        (at_bottom, plane.down),
        (at_top, -plane.down),
    ):
        axis = int(np.abs(way).argmax())
        assert letter == ("RL", "AP", "FH")[axis][int(way[axis] > 0)]


@pytest.mark.parametrize(("order", "signs"), STACKS[::5])
def test_what_lies_in_the_left_front_top_of_the_patient_is_drawn_there(
    order: tuple[int, int, int], signs: tuple[float, ...]
) -> None:
    grid = stacked(order, signs)
    shown = volume(grid, ball(grid, (40.0, -30.0, 20.0), 10.0))
    places: dict[View, tuple[float, float]] = {
        "axial": (-30.0, 40.0),
        "coronal": (-20.0, 40.0),
        "sagittal": (-20.0, -30.0),
    }
    for view, expected in places.items():
        plane = head(grid).plane(view, np.array([40.0, -30.0, 20.0]), (101, 101), 2.0)
        grey = np.asarray(planes.grey(shown, plane, (0.0, 100.0)))
        middle = np.argwhere(grey > 128).mean(axis=0)
        assert middle == pytest.approx(np.array(expected) / 2.0 + 50.0, abs=9.0)  # oblique


@pytest.mark.parametrize("spacing_mm", [(6.0, 1.0, 1.0), (1.0, 2.0, 0.5)])
def test_a_ball_is_round_whatever_the_voxels(spacing_mm: tuple[float, float, float]) -> None:
    matrix = np.zeros((4, 4))
    matrix[[2, 1, 0, 3], [0, 1, 2, 3]] = (*spacing_mm, 1.0)
    shape: Shape = tuple(round(72 / step) for step in spacing_mm)  # type: ignore[assignment]
    grid = Grid(shape=shape, index_to_lps_mm=matrix, frame_of_reference_uid="1.2")
    centre = tuple(float(one) for one in grid.lps_mm((np.array(shape) - 1) / 2.0))
    outlines = Outlines(labelled(grid, ball(grid, centre, 24.0)))  # type: ignore[arg-type]
    for view in planes.VIEWS:
        plane = head(grid, 60.0).plane(view, np.array(centre), (240, 240), 0.5)
        ((_, opacity),) = outlines.within(plane)
        left, top, right, bottom = opacity.getbbox() or (0, 0, 0, 0)
        assert right - left == pytest.approx(96, abs=14)  # half a voxel of 6 mm on either side
        assert bottom - top == pytest.approx(96, abs=14)


def test_outlines_run_along_the_inner_side_of_the_border() -> None:
    grid = stacked((2, 1, 0), (1.0, 1.0, 1.0))
    labels = np.zeros(grid.shape, bool)
    labels[10:30, 12:25, 8:33] = True
    inner = grid.index_to_lps_mm[:3, :3] / 4.0
    plane = Plane(
        origin_mm=grid.lps_mm(np.array([20.0, 0.0, 0.0])),
        down=inner[:, 1],
        right=inner[:, 2],
        size=(160, 160),
        step_mm=1.0,
    )
    ((color, opacity),) = Outlines(labelled(grid, labels)).within(plane)
    assert color == SEGMENTS[0].color_rgb
    rows, columns = np.nonzero(np.asarray(opacity) > 100)
    top, bottom, left, right = 4 * 11.5, 4 * 24.5, 4 * 7.5, 4 * 32.5
    inside = np.stack([rows - top, bottom - rows, columns - left, right - columns])
    assert inside.min() >= -0.5
    assert inside.min(axis=0).max() <= 2.0  # nothing but a line
    assert (rows.min(), rows.max()) == (46, 98)
    assert (columns.min(), columns.max()) == (30, 130)


def test_a_plane_beside_a_segment_has_no_outline_of_it() -> None:
    grid = stacked((2, 1, 0), (1.0, 1.0, 1.0))
    labels = np.zeros(grid.shape, bool)
    labels[10:20, 12:25, 8:33] = True
    outlines = Outlines(labelled(grid, labels))
    whole = head(grid)
    above = grid.lps_mm(np.array([30.0, 20.0, 20.0]))
    assert outlines.within(whole.plane("axial", above, (80, 80), 2.0)) == []
    within = whole.plane("axial", grid.lps_mm(np.array([15.0, 20.0, 20.0])), (80, 80), 2.0)
    assert len(outlines.within(within)) == 1
    assert outlines.within(within.part((0, 4), (0, 4))) == []  # a corner of the picture
    nearly = whole.plane("axial", grid.lps_mm(np.array([20.4, 20.0, 20.0])), (80, 80), 2.0)
    assert outlines.within(nearly) == []  # within the voxels that stand around the mask


def test_a_mask_that_the_picture_cuts_has_no_border_along_the_cut() -> None:
    grid = stacked((2, 1, 0), (1.0, 1.0, 1.0))
    outlines = Outlines(labelled(grid, np.ones(grid.shape, bool)))
    plane = head(grid).plane("axial", np.zeros(3), (40, 40), 1.0)
    assert outlines.within(plane) == []


def test_the_head_is_found_without_what_lies_beside_it() -> None:
    grid = stacked((2, 1, 0), (1.0, 1.0, 1.0))
    values = ball(grid, (0.0, 0.0, 0.0), 50.0)
    values[0, 0, 0] = values[39, 39, 39] = True
    found = planes.find_head(volume(grid, values), planes.body_axes(grid))
    assert found.centre_mm == pytest.approx(np.zeros(3), abs=4.0)
    assert found.high_mm - found.low_mm == pytest.approx(np.full(3, 100.0), abs=9.0)
    assert found.step_mm("axial", (55, 110), margin_mm=5.0) == pytest.approx(2.0, abs=0.2)


def test_a_neck_is_not_part_of_the_head() -> None:
    grid = stacked((2, 1, 0), (1.0, 1.0, 1.0), step_mm=7.0)
    around = indices_mm(grid) @ planes.body_axes(grid).T
    values = np.linalg.norm(around[..., :2], axis=-1) < 60.0
    found = planes.find_head(volume(grid, values), planes.body_axes(grid))
    assert found.high_mm[2] - found.low_mm[2] == pytest.approx(190.0)
    assert found.high_mm[2] == pytest.approx(136.5, abs=7.0)


def test_without_a_head_the_whole_volume_is_shown() -> None:
    grid = stacked((2, 1, 0), (1.0, 1.0, 1.0))
    black = volume(grid, np.zeros(grid.shape, bool))
    found = planes.find_head(black, planes.body_axes(grid))
    assert found.high_mm - found.low_mm == pytest.approx(np.full(3, 156.0), abs=1e-6)
    low, high = planes.tissue_window(black)
    assert low < high


def test_the_window_is_that_of_the_brain_though_fat_is_brighter() -> None:
    grid = stacked((2, 1, 0), (1.0, 1.0, 1.0), step_mm=5.0)
    away_mm = np.linalg.norm(indices_mm(grid), axis=-1)
    noise = np.random.default_rng(2).uniform(80.0, 120.0, grid.shape)
    values = np.where(away_mm < 70.0, noise, 0.0)
    values[(away_mm >= 70.0) & (away_mm < 80.0)] = 1000.0  # scalp
    scan = Volume(intensities=values.astype(np.float32), grid=grid, role="t1")
    low, high = planes.tissue_window(scan)
    assert 75.0 < low < 85.0
    assert 115.0 < high < 135.0


@pytest.mark.parametrize("depth", [1.0, 1.5, 3.0, 4.2])
def test_the_core_of_an_area_lies_deeper_than_asked(depth: float) -> None:
    noise = np.random.default_rng(4).random((60, 70))
    area = ndimage.gaussian_filter(noise, 3.0) > 0.48
    expected = ndimage.distance_transform_edt(area) > depth
    assert expected.any()
    np.testing.assert_array_equal(planes.core(area, depth), expected)


def test_where_the_picture_ends_an_area_does_not() -> None:
    assert planes.core(np.ones((9, 9), np.bool_), 3.0).all()
