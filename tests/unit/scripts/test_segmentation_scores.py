"""`scripts.segmentation_scores` against formulas, MONAI and the challenge's definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import hausdorff_distance, meandice
from numpy.typing import NDArray
from scipy import ndimage

from scripts import segmentation_scores as scores
from scripts.segmentation_scores import Mask, Spacing

CUBIC: Spacing = (1.0, 1.0, 1.0)


def ball(
    centre_mm: tuple[float, float, float],
    radius_mm: float,
    spacing_mm: Spacing = CUBIC,
    size_mm: float = 60.0,
) -> Mask:
    axes = [np.arange(0.0, size_mm, step) for step in spacing_mm]
    at = np.meshgrid(*axes, indexing="ij")
    squares = [(part - middle) ** 2 for part, middle in zip(at, centre_mm, strict=True)]
    return np.asarray(sum(squares) <= radius_mm**2)


def blobs(seed: int, shape: tuple[int, int, int] = (18, 26, 22)) -> Mask:
    noise = np.random.default_rng(seed).standard_normal(shape)
    return np.asarray(ndimage.gaussian_filter(noise, 1.5) > 0.12)


def test_balls_within_each_other_have_the_dice_of_their_volumes() -> None:
    small, large = ball((30, 30, 30), 10), ball((30, 30, 30), 20)
    assert scores.dice(small, large) == pytest.approx(2 / (1 + 8), rel=0.01)
    assert scores.volume_ml(large, CUBIC) == pytest.approx(4 / 3 * np.pi * 8.0, rel=0.01)


def test_balls_within_each_other_are_apart_by_the_difference_of_their_radii() -> None:
    found = scores.score(ball((30, 30, 30), 10), ball((30, 30, 30), 20), CUBIC)
    assert found.hd95_mm == pytest.approx(10.0, abs=0.6)
    assert found.lesions.hd95_mm == pytest.approx(found.hd95_mm)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_distances_are_millimetres_along_each_axis(axis: int) -> None:
    spacing = (4.0, 1.0, 0.5)
    plate = np.zeros((20, 40, 40), dtype=np.bool_)
    plate[6:8, 10:30, 10:30] = True
    plate = np.moveaxis(plate, 0, axis)
    moved = np.roll(plate, 5, axis=axis)
    # a plate that is thin along the axis: nearly its whole surface moves by five voxels
    assert scores.hd95_mm(moved, plate, spacing) == pytest.approx(5 * spacing[axis])


def test_scores_do_not_depend_on_the_grid() -> None:
    pair = [((20.0, 20.0, 20.0), 9.0), ((22.0, 20.0, 20.0), 9.0)]

    def _scored(spacing: Spacing) -> scores.RegionScores:
        one, other = (ball(at, radius, spacing, 44.0) for at, radius in pair)
        return scores.score(one, other, spacing)

    fine, coarse = _scored(CUBIC), _scored((2.0, 1.0, 0.5))
    assert fine.dice == pytest.approx(coarse.dice, abs=0.02)
    assert fine.hd95_mm == pytest.approx(coarse.hd95_mm, abs=0.5)
    assert fine.found_ml == pytest.approx(coarse.found_ml, rel=0.02)


@pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges:FutureWarning")
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing", [CUBIC, (5.5, 0.9, 0.9)])
def test_dice_and_hd95_are_those_of_monai(seed: int, spacing: Spacing) -> None:
    pair = blobs(seed), blobs(seed + 100)
    one, other = (torch.from_numpy(mask[None, None].astype(np.float32)) for mask in pair)
    assert scores.dice(*pair) == pytest.approx(float(meandice.compute_dice(one, other)), abs=1e-6)
    theirs = hausdorff_distance.compute_hausdorff_distance(
        one, other, include_background=True, percentile=95, spacing=list(spacing)
    )
    assert scores.hd95_mm(*pair, spacing) == pytest.approx(float(theirs), rel=1e-5)


def test_two_empty_masks_agree() -> None:
    nothing = np.zeros((8, 9, 10), dtype=np.bool_)
    found = scores.score(nothing, nothing, CUBIC)
    assert (found.dice, found.hd95_mm) == (1.0, 0.0)
    assert (found.lesions.dice, found.lesions.hd95_mm) == (1.0, 0.0)
    assert (found.found_ml, found.reference_ml) == (0.0, 0.0)


@pytest.mark.parametrize("is_found", [True, False])
def test_one_empty_mask_is_as_bad_as_can_be(is_found: bool) -> None:  # noqa: FBT001
    something, nothing = ball((30, 30, 30), 9), np.zeros((60, 60, 60), dtype=np.bool_)
    found = scores.score(
        something if is_found else nothing, nothing if is_found else something, CUBIC
    )
    assert (found.dice, found.hd95_mm) == (0.0, 374.0)
    assert (found.lesions.dice, found.lesions.hd95_mm) == (0.0, 374.0)
    assert (found.lesions.missed_count, found.lesions.false_count) == (not is_found, is_found)


def test_a_missed_lesion_halves_the_lesion_wise_score() -> None:
    large, small = ball((20, 20, 20), 12), ball((48, 48, 48), 4)
    found = scores.score(large, large | small, CUBIC)
    assert found.dice > 0.95
    assert found.lesions.dice == pytest.approx(0.5)
    assert found.lesions.hd95_mm == pytest.approx(374.0 / 2)
    assert (found.lesions.lesion_count, found.lesions.missed_count) == (2, 1)


def test_a_false_component_counts_as_a_lesion() -> None:
    lesion, false = ball((20, 20, 20), 12), ball((48, 48, 48), 1)
    found = scores.score(lesion | false, lesion, CUBIC)
    assert found.lesions.dice == pytest.approx(0.5)
    assert found.lesions.hd95_mm == pytest.approx(374.0 / 2)
    assert (found.lesions.lesion_count, found.lesions.false_count) == (1, 1)


def test_lesions_of_fifty_cubic_millimetres_do_not_count() -> None:
    reference = ball((20, 20, 20), 12)
    reference[50, 40:50, 40:45] = True  # 50 mm3
    found = scores.score(ball((20, 20, 20), 12), reference, CUBIC)
    assert (found.lesions.dice, found.lesions.lesion_count) == (1.0, 1)
    reference[50, 50, 40] = True
    found = scores.score(ball((20, 20, 20), 12), reference, CUBIC)
    assert (found.lesions.dice, found.lesions.missed_count) == (0.5, 1)


def test_what_touches_a_lesion_too_small_to_count_is_not_false() -> None:
    speck = np.zeros((60, 60, 60), dtype=np.bool_)
    speck[50, 50, 48:50] = True
    lesion = ball((20, 20, 20), 12)
    assert scores.score(lesion | speck, lesion | speck, CUBIC).lesions.dice == 1.0


@pytest.mark.parametrize(("gap", "count"), [(6, 1), (7, 2)])
def test_lesions_are_joined_up_to_six_voxels_of_one_millimetre(gap: int, count: int) -> None:
    reference = np.zeros((20, 20, 40), dtype=np.bool_)
    reference[5:12, 5:12, 3:10] = True
    reference[5:12, 5:12, 10 + gap : 17 + gap] = True
    found = scores.lesion_scores(reference, reference, CUBIC)
    assert found.lesion_count == count


def test_lesions_are_joined_by_millimetres_and_not_by_voxels() -> None:
    reference = np.zeros((20, 20, 40), dtype=np.bool_)
    reference[3:7, 5:12, 5:12] = True
    reference[9:13, 5:12, 5:12] = True  # two slices between
    assert scores.lesion_scores(reference, reference, CUBIC).lesion_count == 1
    assert scores.lesion_scores(reference, reference, (5.5, 1.0, 1.0)).lesion_count == 2


def test_at_one_millimetre_a_voxel_grows_as_by_three_steps_of_its_eighteen_neighbours() -> None:
    point = np.zeros((9, 9, 9), dtype=np.bool_)
    point[4, 4, 4] = True
    steps = ndimage.binary_dilation(point, ndimage.generate_binary_structure(3, 2), iterations=3)
    assert np.array_equal(scores._joining(CUBIC), steps[1:-1, 1:-1, 1:-1])


def as_the_challenge_does(found: Mask, reference: Mask) -> tuple[float, float]:
    """Return the lesion-wise measures at 1 mm, step by step as ``get_LesionWiseScores``."""
    near = ndimage.generate_binary_structure(3, 2)
    all_around = np.ones((3, 3, 3))
    components, _ = ndimage.label(found, all_around)
    dilated = ndimage.binary_dilation(reference, near, iterations=3)
    combined = ndimage.label(dilated, all_around)[0] * reference
    dices, distances, touched = [], [], []
    for number in range(1, int(combined.max()) + 1):
        lesion = combined == number
        reach = ndimage.binary_dilation(lesion, near, iterations=3)
        touching = [one for one in np.unique(components * reach) if one]
        touched += touching
        if lesion.sum() > 50:
            answer = np.isin(components, touching)
            dices.append(scores.dice(answer, lesion))
            distances.append(scores.hd95_mm(answer, lesion, CUBIC))
    false = len(set(np.unique(components)) - set(touched) - {0})
    total = len(dices) + false
    return sum(dices) / total, (sum(distances) + 374 * false) / total


@pytest.mark.parametrize("seed", range(6))
def test_lesion_wise_measures_are_those_of_the_challenge(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found, reference = (np.zeros((60, 60, 60), dtype=np.bool_) for _ in range(2))
    for _ in range(9):
        at = rng.uniform(6, 54, 3)
        one = ball((at[0], at[1], at[2]), rng.uniform(1.0, 7.0))
        reference |= one
        shift = tuple(int(step) for step in rng.integers(-5, 6, 3))
        found |= np.roll(one, shift, axis=(0, 1, 2)) & (rng.random() < 0.7)
    mine = scores.lesion_scores(found, reference, CUBIC)
    assert (mine.dice, mine.hd95_mm) == pytest.approx(as_the_challenge_does(found, reference))


def test_regions_are_whole_tumour_core_and_enhancing() -> None:
    labels: NDArray[np.uint8] = np.zeros((9, 9, 9), dtype=np.uint8)
    labels[1:8, 1:8, 1:8], labels[2:7, 2:7, 2:7], labels[3:6, 3:6, 3:6] = 1, 3, 2
    found = scores.score_labels(labels, labels, (1.0, 2.0, 5.0))
    assert {name: round(one.found_ml * 100) for name, one in found.items()} == {
        "WT": 343,
        "TC": 125,
        "ET": 98,
    }
    assert all(one.dice == 1.0 for one in found.values())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), axis=st.integers(0, 2), step=st.sampled_from([0.5, 1.0, 3.3]))
def test_agreement_is_symmetric_and_does_not_know_where_it_lies(
    seed: int, axis: int, step: float
) -> None:
    found, reference = blobs(seed), blobs(seed + 1)
    spacing = (step, 1.0, 1.0)
    one = scores.score(found, reference, spacing)
    other = scores.score(reference, found, spacing)
    assert one.dice == other.dice
    assert one.hd95_mm == other.hd95_mm
    wider = [(4, 7) if k == axis else (1, 2) for k in range(3)]
    moved = scores.score(np.pad(found, wider), np.pad(reference, wider), spacing)
    assert moved.dice == one.dice
    assert moved.hd95_mm == pytest.approx(one.hd95_mm)
