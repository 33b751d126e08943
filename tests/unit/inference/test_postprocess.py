"""The way back: exact places, probabilities interpolated, everything else background."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation
from torch import Tensor

from converters.volume import Grid
from inference import manifest, postprocess, preprocess
from inference.errors import InvalidOutputError
from inference.postprocess import Reading

PLAIN = Reading(activation="softmax", output_indices=(0, 1, 2))


def reference_grid(
    shape: tuple[int, int, int] = (18, 40, 36),
    spacing_mm: tuple[float, float, float] = (4.5, 0.9, 1.1),
    turns_deg: tuple[float, float, float] = (12.0, -7.0, 5.0),
) -> Grid:
    axes = Rotation.from_euler("xyz", turns_deg, degrees=True).as_matrix()[:, ::-1] * [-1, 1, 1]
    matrix = np.eye(4)
    matrix[:3, :3] = axes * spacing_mm
    matrix[:3, 3] = [-11.0, 23.0, 31.0]
    return Grid(shape=shape, index_to_lps_mm=matrix, frame_of_reference_uid="1.2.3")


def positions_lps_mm(grid: Grid) -> NDArray[np.float64]:
    return grid.lps_mm(np.moveaxis(np.indices(grid.shape), 0, -1).astype(float))


def ball(grid: Grid, centre_lps_mm: NDArray[np.float64], radius_mm: float) -> NDArray[np.bool_]:
    distance_mm = np.linalg.norm(positions_lps_mm(grid) - centre_lps_mm, axis=-1)
    return np.asarray(distance_mm < radius_mm)


def as_scores(labels: NDArray[np.integer], class_count: int = 3) -> Tensor:
    one_hot = np.stack([labels == number for number in range(class_count)])
    return torch.from_numpy(20.0 * one_hot.astype(np.float32))


REFERENCES = {
    "thick": reference_grid(),
    "fine": reference_grid((60, 50, 44), (0.8, 1.0, 0.7)),
    "straight": reference_grid((30, 24, 28), (1.5, 2.0, 1.0), (0.0, 0.0, 0.0)),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_the_way_back_is_exact_to_a_millionth_of_a_millimetre(name: str) -> None:
    reference = REFERENCES[name]
    grid = preprocess.model_grid(reference, (2.0, 1.3, 1.7))
    s, r, c = np.indices(reference.shape).reshape(3, -1)
    index = np.empty((s.size, 3))
    for side, own in zip(postprocess.sides(grid, reference), (s, r, c), strict=True):
        index[:, side.model_axis] = side.positions[own]
    wanted = reference.lps_mm(np.stack([s, r, c], axis=1).astype(float))
    assert np.abs(grid.lps_mm(index) - wanted).max() < 1e-6


@pytest.mark.parametrize("name", REFERENCES)
def test_a_lesion_painted_for_the_model_lands_on_its_patient_point(name: str) -> None:
    reference = REFERENCES[name]
    grid = preprocess.model_grid(reference, (2.0, 2.0, 2.0))
    centre = reference.lps_mm(np.array(reference.shape) * [0.55, 0.4, 0.62])
    painted = ball(grid, centre, 8.0)
    labels = postprocess.labels_on_reference(as_scores(2 * painted), grid, reference, PLAIN)
    assert set(np.unique(labels)) == {0, 2}
    drawn_mm = positions_lps_mm(grid)[painted].mean(axis=0)
    found_mm = positions_lps_mm(reference)[labels == 2].mean(axis=0)
    off_voxels = np.linalg.inv(reference.index_to_lps_mm)[:3, :3] @ (found_mm - drawn_mm)
    assert np.abs(off_voxels).max() < 0.5
    drawn_ml = painted.sum() * grid.voxel_volume_mm3
    assert (labels == 2).sum() * reference.voxel_volume_mm3 == pytest.approx(drawn_ml, rel=0.1)


@pytest.mark.parametrize("name", REFERENCES)
def test_labels_equal_interpolating_every_probability_everywhere(name: str) -> None:
    """The box, the slabs and the three passes must not show."""
    reference = REFERENCES[name]
    grid = preprocess.model_grid(reference, (2.0, 2.0, 2.0))
    rng = np.random.default_rng(5)
    noise = rng.normal(size=(3, *grid.shape))
    scores = np.stack([ndimage.gaussian_filter(part, 1.0) * 15 for part in noise])
    scores[0] += 2.0
    scores[0, :4] += 50.0
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=0)
    way = np.linalg.inv(grid.index_to_lps_mm) @ reference.index_to_lps_mm
    everywhere = np.stack(
        [
            ndimage.affine_transform(
                part, way[:3, :3], way[:3, 3], reference.shape, order=1, mode="nearest"
            )
            for part in probabilities
        ]
    )
    expected = everywhere.argmax(axis=0)
    labels = postprocess.labels_on_reference(
        torch.from_numpy(scores.astype(np.float32)), grid, reference, PLAIN
    )
    ordered = np.sort(everywhere, axis=0)
    clear = ordered[-1] - ordered[-2] > 1e-5
    assert clear.mean() > 0.99
    assert np.array_equal(labels[clear], expected[clear])
    assert len(np.unique(labels)) == 3


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_kept_probabilities_are_at_most_half_a_step_off(
    name: str, activation: Literal["softmax", "sigmoid"]
) -> None:
    reference = REFERENCES[name]
    grid = preprocess.model_grid(reference, (2.0, 2.0, 2.0))
    scores = 3.0 * np.random.default_rng(5).normal(size=(3, *grid.shape))
    if activation == "softmax":
        reading = Reading(activation=activation, output_indices=(1, 2, 0))
        shares = (np.exp(scores) / np.exp(scores).sum(axis=0))[[2, 0]]
    else:
        reading = Reading(activation=activation, output_indices=(2, 0, 1), thresholds=(0.5,) * 3)
        shares = (1.0 / (1.0 + np.exp(-scores)))[[2, 0, 1]]
    found = postprocess.probabilities_on_reference(
        torch.from_numpy(scores.astype(np.float32)), grid, reference, reading
    )
    way = np.linalg.inv(grid.index_to_lps_mm) @ reference.index_to_lps_mm
    expected = np.stack(
        [
            ndimage.affine_transform(
                part, way[:3, :3], way[:3, 3], reference.shape, order=1, mode="nearest"
            )
            for part in shares
        ]
    )
    index = np.moveaxis(np.indices(reference.shape), 0, -1) @ way[:3, :3].T + way[:3, 3]
    inside = ((index > -0.49) & (index < np.array(grid.shape) - 0.51)).all(axis=-1)
    assert found.dtype == np.uint8
    assert np.abs(found / 255 - expected)[:, inside].max() < 0.5 / 255 + 1e-5
    assert inside.mean() > 0.9


def test_outside_the_models_grid_everything_is_background() -> None:
    reference = reference_grid((20, 20, 20), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    whole = preprocess.model_grid(reference, (2.0, 2.0, 2.0))
    span = (slice(4, 9), slice(5, 12), slice(6, 10))
    box = whole.part(span)
    everything = as_scores(np.ones(box.shape, int))
    labels = postprocess.labels_on_reference(everything, box, reference, PLAIN)
    assert labels.sum() == 5 * 7 * 4
    marked = positions_lps_mm(reference)[labels == 1]
    drawn = positions_lps_mm(whole)[span].reshape(-1, 3)
    np.testing.assert_allclose(sorted(marked.tolist()), sorted(drawn.tolist()), atol=1e-9)


def test_output_channels_are_read_by_their_declared_index() -> None:
    reference = REFERENCES["straight"]
    grid = preprocess.model_grid(reference, (2.0, 2.0, 2.0))
    truth = np.zeros(grid.shape, int)
    truth[3:8, 4:9, 5:9], truth[10:15, 4:9, 5:9] = 1, 2
    expected = postprocess.labels_on_reference(as_scores(truth), grid, reference, PLAIN)
    turned = as_scores(truth)[[1, 2, 0]]
    found = postprocess.labels_on_reference(
        turned, grid, reference, replace(PLAIN, output_indices=(2, 0, 1))
    )
    assert set(np.unique(expected)) == {0, 1, 2}
    assert np.array_equal(found, expected)


def test_nothing_found_is_a_label_map_of_background() -> None:
    reference = REFERENCES["thick"]
    grid = preprocess.model_grid(reference, (2.0, 2.0, 2.0))
    labels = postprocess.labels_on_reference(
        as_scores(np.zeros(grid.shape, int)), grid, reference, PLAIN
    )
    assert labels.dtype == np.uint8
    assert labels.shape == reference.shape
    assert not labels.any()


@pytest.mark.parametrize("spacing_mm", [(12.0, 2.0, 2.0), (2.0, 12.0, 2.0), (2.0, 2.0, 12.0)])
def test_a_speck_between_coarse_voxels_may_vanish_but_breaks_nothing(
    spacing_mm: tuple[float, float, float],
) -> None:
    reference = reference_grid((7, 8, 9), spacing_mm, (0.0, 0.0, 0.0))
    grid = preprocess.model_grid(reference, (2.0, 2.0, 2.0))
    speck = np.zeros(grid.shape, int)
    speck[3, 3, 3] = 1
    labels = postprocess.labels_on_reference(as_scores(speck), grid, reference, PLAIN)
    assert not labels.any()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused(value: float) -> None:
    reference = REFERENCES["thick"]
    grid = preprocess.model_grid(reference, (2.0, 2.0, 2.0))
    scores = torch.zeros(3, *grid.shape)
    scores[1, 2, 3, 4] = value
    with pytest.raises(InvalidOutputError, match="1 values are not finite"):
        postprocess.labels_on_reference(scores, grid, reference, PLAIN)


@pytest.mark.parametrize("class_count", [2, 4])
def test_scores_of_another_number_of_classes_are_refused(class_count: int) -> None:
    reference = REFERENCES["thick"]
    grid = preprocess.model_grid(reference, (2.0, 2.0, 2.0))
    with pytest.raises(InvalidOutputError, match="expected"):
        postprocess.labels_on_reference(
            torch.zeros(class_count, *grid.shape), grid, reference, PLAIN
        )


# -- overlapping regions --------------------------------------------------------------------------

REGIONS = Reading(activation="sigmoid", output_indices=(1, 0, 2), thresholds=(0.5, 0.5, 0.5))


def nested(grid: Grid) -> tuple[Tensor, NDArray[np.uint8]]:
    """Return scores of core, whole and enhancing tumour (the zoo's order), and their labels."""
    centre = grid.lps_mm(np.array(grid.shape) * 0.5)
    whole, core, enhancing = (ball(grid, centre, radius_mm) for radius_mm in (14.0, 9.0, 5.0))
    scores = np.stack([core, whole, enhancing]).astype(np.float32) * 20.0 - 10.0
    labels = np.zeros(grid.shape, np.uint8)
    labels[whole], labels[core], labels[enhancing] = 1, 2, 3
    return torch.from_numpy(scores), labels


def test_regions_are_painted_in_the_order_of_their_labels() -> None:
    reference = reference_grid((30, 24, 28), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    grid = preprocess.model_grid(reference, (2.0, 2.0, 2.0))
    scores, labels = nested(grid)
    found = postprocess.labels_on_reference(scores, grid, reference, REGIONS)
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    at = tuple(side.model_axis for side in postprocess.sides(grid, reference))
    expected = labels.transpose(at)
    flips = tuple(
        axis
        for axis, side in enumerate(postprocess.sides(grid, reference))
        if side.positions[0] > side.positions[-1]
    )
    assert np.array_equal(found, np.flip(expected, flips))


def test_a_region_holds_from_its_threshold_on() -> None:
    reference = reference_grid((6, 6, 6), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    grid = preprocess.model_grid(reference, (2.0, 2.0, 2.0))
    scores = torch.logit(torch.tensor([0.1, 0.62, 0.1])).view(3, 1, 1, 1).expand(3, *grid.shape)
    for threshold, label in ((0.6, 1), (0.65, 0)):
        reading = replace(REGIONS, thresholds=(threshold, 0.5, 0.5))
        found = postprocess.labels_on_reference(scores, grid, reference, reading)
        assert set(np.unique(found)) == {label}


def test_a_field_comes_back_to_its_patient_points() -> None:
    reference = REFERENCES["thick"]
    grid = preprocess.model_grid(reference, (2.0, 2.0, 2.0))
    linear = (positions_lps_mm(grid) @ [1.0, -0.5, 2.0]).astype(np.float32)
    found = postprocess.on_reference(torch.from_numpy(linear), grid, reference)
    expected = positions_lps_mm(reference) @ [1.0, -0.5, 2.0]
    inner = (slice(1, -1), slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(found[inner], expected[inner], rtol=0, atol=1e-3)
    part = grid.part((slice(5, 9), slice(5, 9), slice(5, 9)))
    ones = postprocess.on_reference(torch.ones(part.shape), part, reference)
    assert 0.0 < ones.mean() < 0.1
    assert set(np.unique(ones)) == {0.0, 1.0}


def test_the_share_outside_the_brain_is_by_voxels() -> None:
    reference = REFERENCES["straight"]
    labels = np.zeros(reference.shape, np.uint8)
    labels[10:14, 5:9, 6:10] = 2

    def upper(grid: Grid) -> NDArray[np.bool_]:
        offset = grid.index_to_lps_mm[:3, 3] - reference.index_to_lps_mm[:3, 3]
        first = np.linalg.inv(reference.index_to_lps_mm[:3, :3]) @ offset
        return np.asarray(np.indices(grid.shape)[0] + round(float(first[0])) >= 11)

    assert postprocess.share_outside(labels, upper, reference) == pytest.approx(0.25)
    assert postprocess.share_outside(np.zeros_like(labels), upper, reference) == 0.0
    assert postprocess.clip(labels, upper, reference) == pytest.approx(0.25)
    assert labels[10].sum() == 0
    assert labels[11:14].any()


def test_what_a_manifest_says_of_its_output_is_read() -> None:
    demo = manifest.load(Path(__file__).parents[3] / "models" / "demo-glioma")
    found = postprocess.reading_of(demo)
    assert found == Reading(activation="softmax", output_indices=(0, 1, 2, 3))
