"""The preview shows the right slice, the right way round, in true proportions."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from converters.errors import GridMismatchError
from converters.preview import render_preview
from converters.volume import Code, Grid, LabelMap, Segment, Shape, Volume

CODE = Code(value="79654002", scheme="SCT", meaning="Edema")
RED, BLUE = (255, 40, 40), (60, 120, 255)
SEGMENTS = (
    Segment(number=1, label="Rim", category=CODE, type_code=CODE, color_rgb=RED),
    Segment(number=2, label="Core", category=CODE, type_code=CODE, color_rgb=BLUE),
)
LEGEND_WIDTH = 264
LEFT, POSTERIOR, SUPERIOR = np.eye(3)

# Patient directions of the slice, row and column index.
PLANES = {
    "axial": (SUPERIOR, POSTERIOR, LEFT),
    "axial from the top": (-SUPERIOR, POSTERIOR, LEFT),
    "axial seen from above": (SUPERIOR, POSTERIOR, -LEFT),
    "prone": (SUPERIOR, -POSTERIOR, -LEFT),
    "sagittal": (LEFT, -SUPERIOR, POSTERIOR),
    "sagittal from the left": (-LEFT, -SUPERIOR, POSTERIOR),
    "coronal": (POSTERIOR, -SUPERIOR, LEFT),
    "tilted axial": (
        SUPERIOR * 0.94 - POSTERIOR * 0.342,
        POSTERIOR * 0.94 + SUPERIOR * 0.342,
        LEFT,
    ),
}


def make_grid(plane: str, shape: Shape, spacing_mm: tuple[float, float, float]) -> Grid:
    matrix = np.eye(4)
    matrix[:3, :3] = np.column_stack(PLANES[plane]) * spacing_mm
    matrix[:3, 3] = -matrix[:3, :3] @ ((np.array(shape) - 1) / 2.0)
    return Grid(shape=shape, index_to_lps_mm=matrix, frame_of_reference_uid="")


def towards(grid: Grid, direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far each voxel lies in a patient direction, mm from the middle."""
    index = np.moveaxis(np.indices(grid.shape), 0, -1).astype(np.float64)
    return np.asarray(grid.lps_mm(index) @ direction)


def head(grid: Grid) -> tuple[Volume, LabelMap]:
    """Return a grey box with a red mark left in front and a blue one right behind, high up."""
    x, y, z = (towards(grid, axis) for axis in (LEFT, POSTERIOR, SUPERIOR))
    inside = (np.abs(x) < 60) & (np.abs(y) < 80) & (np.abs(z) < 70)
    labels = np.zeros(grid.shape, np.uint8)
    is_high = np.abs(z - 30) < 18
    labels[is_high & (np.abs(x - 30) < 14) & (np.abs(y + 45) < 14)] = 1
    labels[is_high & (np.abs(x + 30) < 14) & (np.abs(y - 45) < 14)] = 2
    intensities = np.where(inside, 500.0 + 2 * z, 0.0).astype(np.float32)
    volume = Volume(intensities=intensities, grid=grid, role="t1gd")
    label_map = LabelMap(labels=labels, grid=grid, segments=SEGMENTS, model_id="some@1")
    return volume, label_map


def rendered(volume: Volume, label_map: LabelMap, caption: str = "Some model") -> Image.Image:
    picture = Image.open(io.BytesIO(render_preview(volume, label_map, caption=caption)))
    picture.load()
    return picture


def slice_part(picture: Image.Image) -> NDArray[np.int64]:
    """Return the pixels beside the legend."""
    return np.asarray(picture)[:, :-LEGEND_WIDTH].astype(np.int64)


def places(pixels: NDArray[np.int64], color: tuple[int, int, int]) -> NDArray[np.int64]:
    """Return row and column of the pixels of a colour."""
    return np.argwhere(np.abs(pixels - np.array(color)).max(axis=2) < 30)


@pytest.mark.parametrize("plane", PLANES)
def test_the_patients_left_is_on_the_right_and_front_on_top(plane: str) -> None:
    shape = (64, 72, 68)
    pixels = slice_part(rendered(*head(make_grid(plane, shape, (2.9, 2.9, 2.9)))))
    middle = np.array(pixels.shape[:2]) / 2
    red, blue = places(pixels, RED).mean(axis=0), places(pixels, BLUE).mean(axis=0)
    assert red[0] < middle[0] < blue[0]
    assert blue[1] < middle[1] < red[1]


@pytest.mark.parametrize("spacing_mm", [(6.0, 1.0, 1.0), (3.0, 1.5, 0.75), (2.0, 1.0, 2.5)])
def test_proportions_are_those_of_the_patient(spacing_mm: tuple[float, float, float]) -> None:
    counts = [int(extent / step) for extent, step in zip((180, 200, 160), spacing_mm, strict=True)]
    grid = make_grid("axial", (counts[0], counts[1], counts[2]), spacing_mm)
    pixels = slice_part(rendered(*head(grid)))
    rows, columns = places(pixels, RED).T
    assert np.ptp(rows) / np.ptp(columns) == pytest.approx(1.0, abs=0.15)


def test_it_is_as_high_as_the_page_expects() -> None:
    picture = rendered(*head(make_grid("axial", (40, 100, 80), (4.0, 2.0, 2.0))))
    assert (picture.height, picture.format) == (640, "PNG")


def test_a_very_wide_slice_still_fits_the_page() -> None:
    grid = make_grid("axial", (40, 20, 150), (4.0, 1.0, 1.0))
    picture = rendered(*head(grid))
    assert picture.size == (760 + LEGEND_WIDTH, 640)


def test_the_slice_with_the_largest_area_is_shown() -> None:
    grid = make_grid("axial", (20, 60, 60), (5.0, 3.0, 3.0))
    volume, label_map = head(grid)
    labels = np.zeros(grid.shape, np.uint8)
    labels[3, 20:30, 20:30] = 1
    labels[11, 20:32, 20:30] = 2
    pixels = slice_part(rendered(volume, replace(label_map, labels=labels)))
    assert len(places(pixels, BLUE)) > 100
    assert len(places(pixels, RED)) == 0


def test_without_a_label_the_middle_slice_is_shown_without_outlines() -> None:
    grid = make_grid("axial", (21, 60, 60), (5.0, 3.0, 3.0))
    volume, label_map = head(grid)
    intensities = np.zeros(grid.shape, np.float32)
    intensities[10, 10:50, 10:50] = 900.0
    lit = replace(volume, intensities=intensities)
    nothing = replace(label_map, labels=np.zeros(grid.shape, np.uint8))
    pixels = slice_part(rendered(lit, nothing))
    assert (pixels.min(axis=2) > 240).mean() > 0.3
    assert len(places(pixels, RED)) == len(places(pixels, BLUE)) == 0


def test_a_single_voxel_is_still_outlined() -> None:
    grid = make_grid("axial", (21, 200, 160), (5.0, 1.0, 1.0))
    volume, label_map = head(grid)
    labels = np.zeros(grid.shape, np.uint8)
    labels[10, 90, 80] = 1
    assert len(places(slice_part(rendered(volume, replace(label_map, labels=labels))), RED)) > 2


def test_an_outline_leaves_the_inside_open() -> None:
    grid = make_grid("axial", (40, 100, 80), (4.0, 2.0, 2.0))
    pixels = slice_part(rendered(*head(grid)))
    rows, columns = places(pixels, RED).mean(axis=0).astype(int)
    centre = pixels[rows, columns]
    assert np.ptp(centre) < 12


def test_legend_and_caption_change_with_what_they_say() -> None:
    grid = make_grid("axial", (40, 100, 80), (4.0, 2.0, 2.0))
    volume, label_map = head(grid)
    first = rendered(volume, label_map)
    other = rendered(volume, label_map, caption="Another model with a title of several lines " * 2)
    renamed = replace(
        label_map, segments=(replace(SEGMENTS[0], label="Something else"), SEGMENTS[1])
    )
    box = (first.width - LEGEND_WIDTH, 0, first.width, 640)
    assert first.crop(box).tobytes() != other.crop(box).tobytes()
    assert first.crop(box).tobytes() != rendered(volume, renamed).crop(box).tobytes()
    assert np.array_equal(slice_part(first), slice_part(other))


def test_the_same_result_gives_the_same_picture() -> None:
    volume, label_map = head(make_grid("coronal", (40, 50, 60), (4.0, 3.0, 3.0)))
    first = render_preview(volume, label_map, caption="x")
    assert render_preview(volume, label_map, caption="x") == first


def test_an_image_without_signal_gives_a_picture() -> None:
    grid = make_grid("axial", (10, 30, 30), (4.0, 3.0, 3.0))
    volume = Volume(intensities=np.zeros(grid.shape, np.float32), grid=grid, role="t1")
    nothing = LabelMap(
        labels=np.zeros(grid.shape, np.uint8), grid=grid, segments=SEGMENTS, model_id="some@1"
    )
    assert rendered(volume, nothing).height == 640


def test_a_volume_on_another_grid_is_refused() -> None:
    volume, _ = head(make_grid("axial", (20, 60, 60), (5.0, 3.0, 3.0)))
    _, label_map = head(make_grid("axial", (20, 60, 60), (5.0, 3.0, 3.1)))
    with pytest.raises(GridMismatchError, match="preview"):
        render_preview(volume, label_map, caption="x")
