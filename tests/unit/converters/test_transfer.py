"""A label map on another series' grid, against the truth of phantoms and against resampling."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from converters import phantom
from converters.phantom import PhantomStudy
from converters.transfer import transferred
from converters.volume import Grid, LabelMap, Role
from inference import manifest
from tests.moved_heads import rigid
from tests.nodes import MODEL

SEGMENTS = manifest.load(MODEL).segments
STILL = np.eye(4)
PARTS = ((1,), (2,), (3,), (2, 3), (1, 2, 3))


def label_map(labels: NDArray[np.uint8], grid: Grid) -> LabelMap:
    return LabelMap(labels=labels, grid=grid, segments=SEGMENTS, model_id="some-model@1")


def plain_grid(shape: tuple[int, int, int], origin: tuple[float, float, float]) -> Grid:
    matrix = np.eye(4)[:, [2, 1, 0, 3]] * [2.0, 1.0, 1.0, 1.0]
    matrix[:3, 3] = origin
    return Grid(shape=shape, index_to_lps_mm=matrix, frame_of_reference_uid="2.25.1")


def elsewhere(grid: Grid, motion: NDArray[np.float64]) -> Grid:
    """Return where a grid's headers put it when the patient moved by the inverse of a motion."""
    matrix = np.linalg.inv(motion) @ grid.index_to_lps_mm
    return Grid(shape=grid.shape, index_to_lps_mm=matrix, frame_of_reference_uid="2.25.2")


@pytest.fixture(scope="module", params=[0, 1])
def study(request: pytest.FixtureRequest) -> PhantomStudy:
    return phantom.make_study(request.param, size="clinical")


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2 * np.count_nonzero(one & other) / (one.sum() + other.sum()))


def centre_mm(mask: NDArray[np.bool_], grid: Grid) -> NDArray[np.float64]:
    return np.asarray(grid.lps_mm(np.argwhere(mask).astype(np.float64)).mean(axis=0))


def nearest(found: LabelMap, grid: Grid) -> NDArray[np.uint8]:
    """Return the labels as scipy resamples them onto a grid of the same frame."""
    matrix = np.linalg.inv(found.grid.index_to_lps_mm) @ grid.index_to_lps_mm
    return np.asarray(ndimage.affine_transform(found.labels, matrix, None, grid.shape, order=0))


@pytest.mark.parametrize("role", ["flair", "t2"])
def test_labels_on_a_moved_series_are_those_that_are_there(study: PhantomStudy, role: Role) -> None:
    found = label_map(study.truth["t1gd"], study.volumes["t1gd"].grid)
    grid = study.volumes[role].grid
    motion = rigid(study.seed, 8.0, 10.0, grid.lps_mm(np.array(grid.shape) / 2))
    there = elsewhere(grid, motion)
    carried, truth = transferred(found, there, motion).labels, study.truth[role]
    resampled = nearest(found, grid)
    for numbers in PARTS:
        own, true, other = (np.isin(one, numbers) for one in (carried, truth, resampled))
        assert dice(own, true) > max(0.94, dice(other, true))
        volume_ml = np.isin(found.labels, numbers).sum() * found.grid.voxel_volume_mm3 / 1000
        assert volume_ml > 5.0
        own_ml = own.sum() * grid.voxel_volume_mm3 / 1000
        assert own_ml == pytest.approx(volume_ml, rel=0.03)
        assert own_ml == pytest.approx(true.sum() * grid.voxel_volume_mm3 / 1000, rel=0.03)
        apart = centre_mm(own, there) - centre_mm(true, there)
        assert np.linalg.norm(apart) < np.linalg.norm(grid.spacing_mm) / 2


def test_the_very_same_grid_gives_the_very_same_labels(study: PhantomStudy) -> None:
    found = label_map(study.truth["t1gd"], study.volumes["t1gd"].grid)
    assert np.array_equal(transferred(found, found.grid, STILL).labels, found.labels)


@pytest.mark.parametrize("turned", [False, True])
def test_a_mirrored_order_of_slices_stays_in_its_place(turned: bool) -> None:  # noqa: FBT001
    labels = np.random.default_rng(4).integers(0, 4, (5, 6, 7)).astype(np.uint8)
    found = label_map(labels, plain_grid((5, 6, 7), (1.0, 2.0, 3.0)))
    flip = np.diag([-1.0, 1.0, -1.0 if turned else 1.0, 1.0])
    flip[:3, 3] = [4, 0, 6 if turned else 0]
    grid = Grid(
        shape=(5, 6, 7),
        index_to_lps_mm=found.grid.index_to_lps_mm @ flip,
        frame_of_reference_uid="2.25.1",
    )
    expected = labels[::-1, :, ::-1] if turned else labels[::-1]
    assert np.array_equal(transferred(found, grid, STILL).labels, expected)


@pytest.mark.parametrize("by_mm", [(0.5, 0.0, 0.0), (0.0, -0.5, 0.0), (0.0, 0.0, 1.0)])
def test_half_a_voxel_aside_no_layer_is_lost(by_mm: tuple[float, float, float]) -> None:
    labels = np.zeros((9, 20, 20), dtype=np.uint8)
    labels[2:6, 4:14, 5:15] = 2
    found = label_map(labels, plain_grid((9, 20, 20), (0.0, 0.0, 0.0)))
    carried = transferred(found, plain_grid((9, 20, 20), by_mm), STILL).labels
    assert np.count_nonzero(carried) == pytest.approx(np.count_nonzero(labels), abs=2)  # corners


def test_labels_at_the_border_and_beyond_the_other_series_are_cut() -> None:
    labels = np.full((4, 6, 6), 3, dtype=np.uint8)
    found = label_map(labels, plain_grid((4, 6, 6), (0.0, 0.0, 0.0)))
    small = plain_grid((2, 3, 9), (3.0, 1.0, 2.0))
    carried = transferred(found, small, STILL).labels
    assert carried[:, :, :3].all()  # columns 3 to 5 of the labels
    assert not carried[:, :, 3:].any()


@pytest.mark.parametrize("far_mm", [0.0, 500.0])
def test_nothing_found_or_nothing_seen_is_empty(far_mm: float) -> None:
    labels = np.zeros((4, 6, 6), dtype=np.uint8)
    labels[1, 2, 3] = 1 if far_mm else 0
    found = label_map(labels, plain_grid((4, 6, 6), (0.0, 0.0, 0.0)))
    carried = transferred(found, plain_grid((3, 5, 5), (far_mm, 0.0, 0.0)), STILL)
    assert not carried.labels.any()
    assert carried.grid.shape == (3, 5, 5)


def test_labels_that_together_are_the_most_win_over_background() -> None:
    labels = np.zeros((1, 1, 4), dtype=np.uint8)
    labels[0, 0] = [1, 2, 2, 0]
    found = label_map(labels, plain_grid((1, 1, 4), (0.0, 0.0, 0.0)))
    carried = transferred(found, plain_grid((1, 1, 4), (0.4, 0.0, 0.0)), STILL)
    assert carried.labels[0, 0].tolist() == [1, 2, 2, 0]
