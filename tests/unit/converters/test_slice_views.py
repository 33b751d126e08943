"""Slices to leaf through: the right one, the right way round, in true proportions."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from converters import planes, slice_views
from converters.planes import View
from converters.slice_views import Layout
from converters.volume import Grid, LabelMap, Shape, Volume
from tests.seg_examples import SEGMENTS
from tests.unit.converters.test_planes import STACKS, ball, labelled, stacked

COLORS = {one.number: one.color_rgb for one in SEGMENTS}
LEFT_FRONT_TOP = (40.0, -30.0, 20.0)


def picture(content: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))


def head_and_ball(grid: Grid) -> tuple[Volume, LabelMap]:
    """Return a dim head with a bright ball, labelled, left in front and high up."""
    small = ball(grid, LEFT_FRONT_TOP, 10.0)
    values = np.where(ball(grid, (0.0, 0.0, 0.0), 70.0), 60.0, 0.0)
    values[small] = 200.0
    return Volume(intensities=values.astype(np.float32), grid=grid, role="t1gd"), labelled(
        grid, small
    )


@pytest.mark.parametrize(("order", "signs"), STACKS[::3])
def test_the_ball_is_where_it_lies_in_the_patient_and_its_label_over_it(
    order: tuple[int, int, int], signs: tuple[float, ...]
) -> None:
    volume, label_map = head_and_ball(stacked(order, signs))
    layout, layers = slice_views.laid_out([volume], label_map)
    assert layers.shape == layout.layers_shape
    for view in planes.VIEWS:
        number = layout.first(view)
        width, height = layout.size(view)
        grey = picture(slice_views.grey_png(layers[0], layout, view, number))
        drawn = picture(slice_views.labels_png(layers[1], layout, view, number, COLORS))
        assert grey.shape[:2] == (height, width)
        fine = drawn.shape[0] // height
        assert fine * max(width, height) >= 800
        assert drawn.shape[:2] == (fine * height, fine * width)
        bright = np.argwhere(grey[..., 0] > 200).mean(axis=0)
        over = (np.argwhere(drawn[..., 3] > 0).mean(axis=0) + 0.5) / fine - 0.5
        assert over == pytest.approx(bright, abs=0.8)
        row, column = bright - (np.array([height, width]) - 1) / 2.0
        is_left, is_front, is_top = {
            "axial": (column > 2, row < -2, True),
            "coronal": (column > 2, True, row < -2),
            "sagittal": (True, column < -2, row < -2),
        }[view]
        assert (is_left, is_front, is_top) == (True, True, True), view


@pytest.mark.parametrize("spacing_mm", [(6.0, 1.0, 1.0), (1.0, 2.0, 0.5)])
def test_a_ball_is_round_whatever_the_voxels(spacing_mm: tuple[float, float, float]) -> None:
    matrix = np.zeros((4, 4))
    matrix[[2, 1, 0, 3], [0, 1, 2, 3]] = (*spacing_mm, 1.0)
    shape: Shape = tuple(round(72 / step) for step in spacing_mm)  # type: ignore[assignment]
    grid = Grid(shape=shape, index_to_lps_mm=matrix, frame_of_reference_uid="1.2")
    centre = tuple(float(one) for one in grid.lps_mm((np.array(shape) - 1) / 2.0))
    mask = ball(grid, centre, 24.0)  # type: ignore[arg-type]
    volume = Volume(intensities=mask.astype(np.float32), grid=grid, role="t1")
    layout, layers = slice_views.laid_out([volume], labelled(grid, mask))
    for view in planes.VIEWS:
        number = layout.count(view) // 2 + 1
        drawn = Image.fromarray(
            picture(slice_views.labels_png(layers[1], layout, view, number, COLORS))[..., 3]
        )
        left, top, right, bottom = drawn.getbbox() or (0, 0, 0, 0)
        assert (right - left) / (bottom - top) == pytest.approx(1.0, abs=0.15), view


def test_labels_have_a_border_and_a_light_filling_and_can_be_left_out() -> None:
    grid = stacked((2, 1, 0), (1.0, 1.0, 1.0))
    labels = np.zeros(grid.shape, np.uint8)
    labels[15:25, 15:25, 15:20], labels[15:25, 15:25, 20:25] = 1, 2
    label_map = LabelMap(labels=labels, grid=grid, segments=SEGMENTS, model_id="a@1")
    volume = Volume(intensities=np.ones(grid.shape, np.float32), grid=grid, role="t1")
    layout, layers = slice_views.laid_out([volume], label_map)
    both = picture(
        slice_views.labels_png(layers[1], layout, "axial", layout.first("axial"), COLORS)
    )
    found = {tuple(map(int, one)) for one in np.unique(both.reshape(-1, 4), axis=0)}
    assert found == {
        (0, 0, 0, 0),
        *((*COLORS[number], opacity) for number in (1, 2) for opacity in (76, 255)),
    }
    alone = picture(
        slice_views.labels_png(layers[1], layout, "axial", layout.first("axial"), {2: COLORS[2]})
    )
    is_first = (both[..., :3] == COLORS[1]).all(axis=-1)
    assert is_first.any()
    assert not alone[is_first][..., 3].any()


def test_what_lies_elsewhere_is_brought_onto_the_labels_grid() -> None:
    grid = stacked((2, 1, 0), (1.0, 1.0, 1.0))
    volume, label_map = head_and_ball(grid)
    other = stacked((0, 2, 1), (-1.0, 1.0, -1.0))
    second = Volume(intensities=head_and_ball(other)[0].intensities, grid=other, role="flair")
    layout, layers = slice_views.laid_out([volume, second], label_map)
    assert layout.roles == ("t1gd", "flair")
    apart = np.abs(layers[0].astype(int) - layers[1].astype(int))
    assert np.mean(apart > 40) < 0.03  # interpolated at the borders


def test_without_labels_the_planes_cross_in_the_middle() -> None:
    grid = stacked((2, 1, 0), (1.0, 1.0, 1.0))
    volume, _ = head_and_ball(grid)
    layout, layers = slice_views.laid_out([volume], labelled(grid, np.zeros(grid.shape, bool)))
    assert layout.at == tuple(count // 2 for count in layout.shape)
    assert layout.shape < grid.shape  # cut to the head
    drawn = picture(slice_views.labels_png(layers[1], layout, "coronal", 1, COLORS))
    assert not drawn.any()


def test_what_is_finer_than_a_screen_is_shown_reduced() -> None:
    layout = Layout(
        shape=(1000, 1200, 900), spacing_mm=(0.2, 0.2, 0.2), roles=("t1",), at=(0, 0, 0)
    )
    views: tuple[View, ...] = planes.VIEWS
    assert [layout.size(view) for view in views] == [(480, 640), (576, 640), (640, 533)]
