"""Volumes, lesions and diameters against objects whose size is known, and against a second way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from converters.diameters import Diameters, longest
from converters.measure import LEAST_LESION_MM3, MOST_LESIONS, Measurements, Region, measure
from converters.phantom import PhantomStudy
from converters.volume import Code, Grid, LabelMap, Segment, Shape
from tests.phantoms import WrittenStudy

CATEGORY = Code(value="49755003", scheme="SCT", meaning="Morphologically Abnormal Structure")
NEOPLASM = Code(value="108369006", scheme="SCT", meaning="Neoplasm")
EDEMA, CORE, ENHANCING = 1, 2, 3
SEGMENTS = tuple(
    Segment(
        number=number,
        label=label,
        category=CATEGORY,
        type_code=Code(value=value, scheme=scheme, meaning=label),
        color_rgb=(number, 0, 0),
    )
    for number, label, value, scheme in (
        (EDEMA, "Edema", "79654002", "SCT"),
        (CORE, "Core", "C81175", "NCIt"),
        (ENHANCING, "Enhancing", "C113842", "NCIt"),
    )
)
WHOLE = Region(label="Whole", numbers=(1, 2, 3), category=CATEGORY, type_code=NEOPLASM)
SOLID = Region(label="Solid", numbers=(2, 3), category=CATEGORY, type_code=NEOPLASM)


def a_grid(
    shape: Shape, spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0), *, seed: int = 0
) -> Grid:
    """Return a grid that is turned in all three angles, unless the seed is 0."""
    turn = np.eye(3)
    if seed:
        turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))[0]
    between, down, right = spacing_mm
    matrix = np.eye(4)
    matrix[:3, :3] = np.column_stack(
        [np.cross(turn[:, 0], turn[:, 1]) * between, turn[:, 1] * down, turn[:, 0] * right]
    )
    matrix[:3, 3] = [-41.3, 27.9, 12.4]
    return Grid(shape=shape, index_to_lps_mm=matrix, frame_of_reference_uid="2.25.7")


def measured(labels: NDArray[np.uint8], grid: Grid) -> Measurements:
    found = LabelMap(labels=labels, grid=grid, segments=SEGMENTS, model_id="some-model@1.2.3")
    return measure(found, (WHOLE, SOLID))


def from_middle_mm(grid: Grid, at: ArrayLike) -> NDArray[np.float64]:
    """Return the vector in the patient from a place of the grid to every voxel centre."""
    index = np.moveaxis(np.indices(grid.shape), 0, -1).astype(np.float64)
    return grid.lps_mm(index) - grid.lps_mm(np.array(at, dtype=np.float64))


def ellipsoid(grid: Grid, at: ArrayLike, radii_mm: Sequence[float], seed: int) -> NDArray[np.bool_]:
    axes = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))[0]
    away = from_middle_mm(grid, at) @ axes / np.array(radii_mm)
    return np.asarray(np.sum(away**2, axis=-1) <= 1.0)


def volume_errors(
    spacing_mm: tuple[float, float, float],
    seed: int,
    radii_mm: tuple[float, float, float],
    placements: int,
) -> NDArray[np.float64]:
    """Return by which share measured volumes of an ellipsoid miss the true one."""
    counts = [2 * int(max(radii_mm) / step) + 6 for step in spacing_mm]
    grid = a_grid((counts[0], counts[1], counts[2]), spacing_mm, seed=seed)
    truth_ml = 4.0 / 3.0 * np.pi * float(np.prod(radii_mm)) / 1000.0
    assert truth_ml >= 1.0
    errors = []
    for number in range(placements):
        at = np.array(counts) / 2.0 + np.random.default_rng(number).uniform(-0.5, 0.5, 3)
        labels = np.where(ellipsoid(grid, at, radii_mm, seed=number + 1), EDEMA, 0)
        found = measured(labels.astype(np.uint8), grid)
        assert found.whole_ml == found.lesions[0].volume_ml == found.segments_ml[0]
        errors.append(found.whole_ml / truth_ml - 1.0)
    return np.array(errors)


RADII_MM = [(9.0, 9.0, 9.0), (16.0, 11.0, 7.0), (30.0, 18.0, 24.0)]


@pytest.mark.parametrize(
    ("spacing_mm", "seed"),
    [((1.0, 1.0, 1.0), 0), ((1.2, 0.9, 0.8), 0), ((1.5, 0.6, 0.7), 5)],
    ids=["cubic", "anisotropic", "oblique"],
)
@pytest.mark.parametrize("radii_mm", RADII_MM)
def test_volumes_of_ellipsoids_are_right_within_a_percent(
    spacing_mm: tuple[float, float, float], seed: int, radii_mm: tuple[float, float, float]
) -> None:
    assert np.abs(volume_errors(spacing_mm, seed, radii_mm, 4)).max() < 0.01


@pytest.mark.parametrize(("spacing_mm", "seed"), [((3.3, 0.9, 0.8), 5), ((5.0, 0.7, 0.7), 9)])
@pytest.mark.parametrize("radii_mm", RADII_MM)
def test_thick_slices_scatter_volumes_and_do_not_shift_them(
    spacing_mm: tuple[float, float, float], seed: int, radii_mm: tuple[float, float, float]
) -> None:
    errors = volume_errors(spacing_mm, seed, radii_mm, 24)
    assert abs(errors.mean()) < 0.01
    assert np.abs(errors).max() < 0.08  # three slices through a lesion of 3 mL


@settings(max_examples=60, deadline=None)
@given(
    long_mm=st.floats(8.0, 50.0),
    flatness=st.floats(0.35, 1.0),
    angle=st.floats(0.0, np.pi),
    down=st.floats(0.5, 1.3),
    right=st.floats(0.5, 1.3),
    shift=st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)),
    seed=st.integers(0, 5),
)
def test_diameters_of_ellipses_are_right_within_a_voxel(  # noqa: PLR0913 - what may vary
    *,
    long_mm: float,
    flatness: float,
    angle: float,
    down: float,
    right: float,
    shift: tuple[float, float],
    seed: int,
) -> None:
    # An end that is more pointed than a voxel has no voxel of its own: it is not in the labels.
    assume(long_mm / 2.0 * flatness**2 >= max(down, right) / 2.0)
    side = int(long_mm / min(down, right)) + 8
    grid = a_grid((3, side, side), (4.0, down, right), seed=seed)
    rows, columns = (
        (part - side / 2.0 - off) * step
        for part, off, step in zip(np.indices((side, side)), shift, (down, right), strict=True)
    )
    along = rows * np.sin(angle) + columns * np.cos(angle)
    across = rows * np.cos(angle) - columns * np.sin(angle)
    labels = np.zeros(grid.shape, np.uint8)
    labels[1][np.hypot(along, across / flatness) <= long_mm / 2.0] = ENHANCING
    found = longest(labels == ENHANCING, labels == ENHANCING, grid)
    assert found is not None
    assert found.slice_index == 1
    voxel_mm = float(np.hypot(down, right))  # from corner to corner
    assert abs(found.long_mm - long_mm) <= voxel_mm
    assert abs(found.short_mm - long_mm * flatness) <= voxel_mm
    check_ends(found, grid)


def check_ends(found: Diameters, grid: Grid) -> None:
    """Fail unless the ends lie in the slice, as far apart as is said, and at right angles."""
    long_ends, short_ends = np.array(found.long_ends_lps_mm), np.array(found.short_ends_lps_mm)
    to_index = np.linalg.inv(grid.index_to_lps_mm)
    for ends in (long_ends, short_ends):
        index = ends @ to_index[:3, :3].T + to_index[:3, 3]
        assert np.allclose(index[:, 0], found.slice_index)
    lines = (long_ends[1] - long_ends[0], short_ends[1] - short_ends[0])
    assert np.allclose(np.linalg.norm(lines[0]), found.long_mm)
    assert np.allclose(np.linalg.norm(lines[1]), found.short_mm)
    assert abs(lines[0] @ lines[1]) < 1e-6 * found.product_mm2 + 1e-9


def by_exhaustion(is_object: NDArray[np.bool_], grid: Grid) -> tuple[float, float]:
    """Return both lengths of one slice by trying every pair of points, without a hull.

    The perpendicular is sought on the lines through every point; where those leave the object's
    convex outline is found by trying every pair again, so that it is a lower bound.
    """
    points = np.argwhere(is_object)[:, None] + np.array(
        [[0, 0.5, 0], [0, -0.5, 0], [0, 0, 0.5], [0, 0, -0.5]]
    )
    places = grid.lps_mm(points.reshape(-1, 3).astype(np.float64))
    away = places[:, None] - places[None]
    lengths = np.linalg.norm(away, axis=-1)
    first, second = np.unravel_index(lengths.argmax(), lengths.shape)
    along = (places[second] - places[first]) / lengths.max()
    is_across = np.abs(away @ along) < 1e-6
    return float(lengths.max()), float(lengths[is_across].max())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_diameters_are_those_of_every_pair_of_points(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid = a_grid((1, 9, 8), (3.0, 0.9, 0.7), seed=seed % 7)
    is_object = rng.random(grid.shape) < rng.uniform(0.02, 0.6)
    is_object[0, rng.integers(9), rng.integers(8)] = True
    found = longest(is_object, np.ones(grid.shape, np.bool_), grid)
    assert found is not None
    long_mm, short_mm = by_exhaustion(is_object, grid)
    assert found.long_mm == pytest.approx(long_mm)
    assert short_mm <= found.short_mm + 1e-6 <= found.long_mm + 2e-6
    check_ends(found, grid)


def test_a_single_voxel_measures_one_voxel() -> None:
    is_object = np.zeros((1, 5, 5), np.bool_)
    is_object[0, 2, 2] = True
    found = longest(is_object, is_object, a_grid((1, 5, 5), (3.0, 0.9, 0.7)))
    assert found is not None
    assert (found.long_mm, found.short_mm) == pytest.approx((0.9, 0.7))
    assert found.product_mm2 == pytest.approx(0.63)


def test_a_ring_is_measured_across_its_hole() -> None:
    grid = a_grid((3, 40, 40))
    away = np.linalg.norm(from_middle_mm(grid, (1, 20, 20))[1], axis=-1)
    labels = np.zeros(grid.shape, np.uint8)
    labels[1] = np.select([away < 8, away < 12, away < 16], [CORE, ENHANCING, EDEMA], 0)
    (lesion,) = measured(labels, grid).lesions
    assert lesion.enhancing is not None
    assert abs(lesion.enhancing.long_mm - 24.0) < 1.0
    broken = np.array(labels)
    broken[1, :, 18:22][broken[1, :, 18:22] == ENHANCING] = CORE  # two halves, one core
    (again,) = measured(broken, grid).lesions
    assert again.enhancing is not None
    assert abs(again.enhancing.long_mm - 24.0) < 1.2


def two_nodules(joined_by: int) -> tuple[NDArray[np.uint8], Grid]:
    grid = a_grid((5, 40, 60))
    labels = np.zeros(grid.shape, np.uint8)
    labels[1:4, 5:35, 3:57] = joined_by
    for at, radius in (((2, 20, 12), 6.0), ((2, 20, 45), 9.0)):
        away = np.linalg.norm(from_middle_mm(grid, at) * [1.0, 1.0, 4.0], axis=-1)
        labels[away < radius] = ENHANCING
    return labels, grid


def test_two_nodules_in_one_oedema_are_not_measured_across() -> None:
    labels, grid = two_nodules(EDEMA)
    found = measured(labels, grid)
    (lesion,) = found.lesions
    assert lesion.enhancing is not None
    assert abs(lesion.enhancing.long_mm - 18.0) < 1.0
    assert lesion.enhancing.slice_index == 2
    assert found.enhancing_ml(lesion) == found.segments_ml[ENHANCING - 1]


def test_every_lesion_is_measured_by_itself_largest_first() -> None:
    labels, grid = two_nodules(0)
    labels[0, 0, 0] = EDEMA
    found = measured(labels, grid)
    assert [one.number for one in found.lesions] == [1, 2]
    lengths = [one.enhancing.long_mm for one in found.lesions if one.enhancing is not None]
    assert lengths == pytest.approx([18.0, 12.0], abs=1.0)
    assert sum(one.volume_ml for one in found.lesions) + found.small_ml == pytest.approx(
        found.whole_ml
    )
    assert found.small_count == 1
    assert found.small_ml == pytest.approx(0.001)
    centre_mm = grid.lps_mm(np.array([2.0, 20, 45]))
    assert np.allclose(found.lesions[0].centre_lps_mm, centre_mm, atol=0.1)


def test_of_very_many_lesions_the_largest_are_measured_and_all_are_counted() -> None:
    grid = a_grid((24, 24, 60))
    labels = np.zeros(grid.shape, np.uint8)
    labels[np.ix_(*(np.arange(count) % 6 < 4 for count in grid.shape))] = ENHANCING
    labels[6:10, 6:10, 11] = EDEMA  # one of them is larger
    found = measured(labels, grid)
    assert (found.lesion_count, len(found.lesions)) == (160, MOST_LESIONS)
    volumes_ml = [one.volume_ml for one in found.lesions]
    assert volumes_ml == pytest.approx([0.080, *[0.064] * (MOST_LESIONS - 1)])


def test_voxels_that_touch_at_a_corner_are_one_lesion() -> None:
    grid = a_grid((20, 20, 20))
    labels = np.zeros(grid.shape, np.uint8)
    labels[2:7, 2:7, 2:7] = EDEMA
    labels[7:12, 7:12, 7:12] = EDEMA
    assert len(measured(labels, grid).lesions) == 1
    labels[7, 7, 7] = 0
    assert len(measured(labels, grid).lesions) == 2


def test_a_lesion_has_at_least_its_least_volume() -> None:
    grid = a_grid((5, 9, 9))
    labels = np.zeros(grid.shape, np.uint8)
    labels[2, 1:8, 1:8] = EDEMA
    labels[1, 4, 4] = EDEMA
    assert measured(labels, grid).whole_ml * 1000.0 == LEAST_LESION_MM3
    assert len(measured(labels, grid).lesions) == 1
    labels[1, 4, 4] = 0
    found = measured(labels, grid)
    assert (found.lesions, found.small_count) == ((), 1)


def test_what_does_not_enhance_has_no_diameter() -> None:
    grid = a_grid((5, 20, 20))
    labels = np.zeros(grid.shape, np.uint8)
    labels[1:4, 5:15, 5:15] = CORE
    (lesion,) = measured(labels, grid).lesions
    assert lesion.enhancing is None


def test_no_tumour_measures_nothing() -> None:
    grid = a_grid((4, 6, 5))
    found = measured(np.zeros(grid.shape, np.uint8), grid)
    assert (found.whole_ml, found.lesions, found.small_count) == (0.0, (), 0)
    assert found.segments_ml == (0.0, 0.0, 0.0)


def test_regions_are_sums_and_the_whole_is_the_models_own() -> None:
    labels, grid = two_nodules(EDEMA)
    found = measured(labels, grid)
    assert found.whole is WHOLE
    assert found.regions == (SOLID,)
    assert found.regions_ml == pytest.approx([sum(found.segments_ml[1:])])
    assert found.whole_ml == pytest.approx(sum(found.segments_ml))


def test_a_model_without_regions_or_enhancing_tumour_is_measured_as_far_as_it_goes() -> None:
    labels, grid = two_nodules(0)
    plain = replace(SEGMENTS[0], number=1)
    found = measure(
        LabelMap(
            labels=np.minimum(labels, 1), grid=grid, segments=(plain,), model_id="some-model@1"
        )
    )
    assert (found.whole.label, found.whole.numbers) == ("Whole tumour", (1,))
    assert (found.enhancing, found.regions) == ((), ())
    assert all(one.enhancing is None for one in found.lesions)
    assert all(found.enhancing_ml(one) == 0.0 for one in found.lesions)


def test_measuring_does_not_depend_on_where_the_patient_lies() -> None:
    labels, grid = two_nodules(EDEMA)
    turned = a_grid(grid.shape, seed=3)
    one, other = measured(labels, grid), measured(labels, turned)
    for first, second in zip(one.lesions, other.lesions, strict=True):
        assert first.enhancing is not None
        assert second.enhancing is not None
        assert first.enhancing.long_mm == pytest.approx(second.enhancing.long_mm)
        assert first.enhancing.short_mm == pytest.approx(second.enhancing.short_mm)


def test_the_phantoms_volumes_are_those_that_were_drawn(small_study: WrittenStudy) -> None:
    study: PhantomStudy = small_study.study
    grid, truth = study.volumes["t1gd"].grid, study.truth["t1gd"]
    found = measured(truth, grid)
    for segment, volume_ml in zip(found.segments, found.segments_ml, strict=True):
        expected = np.count_nonzero(truth == segment.number) * np.prod(grid.spacing_mm) / 1000.0
        assert volume_ml == pytest.approx(float(expected))
    assert found.lesions


def test_simpleitk_measures_the_same() -> None:
    sitk = pytest.importorskip("SimpleITK")
    labels, grid = two_nodules(0)
    image = sitk.GetImageFromArray((labels > 0).astype(np.uint8))
    image.SetSpacing(grid.spacing_mm[::-1])
    pieces = sitk.ConnectedComponent(image, True)  # noqa: FBT003 - fully connected
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.ComputeFeretDiameterOn()
    shapes.Execute(pieces)
    volumes = sorted((shapes.GetPhysicalSize(one) for one in shapes.GetLabels()), reverse=True)
    found = measured(labels, grid).lesions
    assert [one.volume_ml * 1000.0 for one in found] == pytest.approx(volumes)
