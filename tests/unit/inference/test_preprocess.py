"""The way in: the model's grid, one resampling, z-scores; checked against MONAI and by formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.meta_tensor import MetaTensor
from monai.transforms.intensity.array import (
    NormalizeIntensity,
    ScaleIntensityRange,
    ScaleIntensityRangePercentiles,
)
from monai.transforms.spatial.array import Orientation, Spacing
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from converters.volume import Grid, Volume
from inference import manifest, preprocess
from inference.declarations import Normalise
from inference.errors import ModelUnusableError

STRIPPED = manifest.load(Path(__file__).parents[2] / "stripped_model")
ANY = STRIPPED.model_copy(update={"space": STRIPPED.space.model_copy(update={"skull": "any"})})
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
PLAN = ANY.infer.model_copy(update={"crop": "brain"})
PLAIN = Normalise(kind="zscore", mask="nonzero", per_channel=True)


def oblique_grid(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    turns_deg: tuple[float, float, float] = (0.0, 0.0, 0.0),
    *,
    flips: tuple[int, int, int] = (1, 1, 1),
    order: tuple[int, int, int] = (2, 1, 0),
) -> Grid:
    axes = np.eye(3)[:, list(order)] * np.array(flips, dtype=float)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", turns_deg, degrees=True).as_matrix() @ axes
    matrix[:3, :3] *= spacing_mm
    middle = (np.array(shape) - 1) / 2
    matrix[:3, 3] = [37.0, -21.0, 55.0] - matrix[:3, :3] @ middle
    return Grid(shape=shape, index_to_lps_mm=matrix, frame_of_reference_uid="1.2.3")


def smooth_image(shape: tuple[int, int, int], seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    s, r, c = np.indices(shape) / 3.0
    wave = np.sin(s + rng.normal()) + np.cos(r * 0.7 + rng.normal()) * np.sin(c * 0.9)
    image = np.asarray(300.0 + 100.0 * wave, dtype=np.float32)
    image[:, :4] = 0.0
    return image


def field_at(grid: Grid) -> NDArray[np.float32]:
    """Return a linear function of the patient position, which linear interpolation keeps."""
    lps = grid.lps_mm(np.moveaxis(np.indices(grid.shape), 0, -1).astype(float))
    return np.asarray(500.0 + lps @ [1.0, -2.0, 3.0], dtype=np.float32)


def wave_at(grid: Grid) -> NDArray[np.float32]:
    lps = grid.lps_mm(np.moveaxis(np.indices(grid.shape), 0, -1).astype(float))
    return np.asarray(np.sin(lps / 4.0).sum(axis=-1), dtype=np.float32)


GRIDS = {
    "axial": oblique_grid((14, 30, 26), (5.53, 0.89, 0.91)),
    "oblique": oblique_grid((14, 30, 26), (5.53, 0.91, 0.83), (17.0, -5.5, 8.0)),
    "sagittal": oblique_grid((20, 30, 26), (1.21, 1.03, 1.12), (3.0, 9.0, -4.0), order=(0, 2, 1)),
    "upside_down": oblique_grid(
        (20, 24, 26), (3.1, 1.29, 1.11), (-8.0, 4.0, 6.0), flips=(-1, 1, -1)
    ),
}


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (1.5, 2.0, 0.7)])
@pytest.mark.parametrize("name", GRIDS)
def test_the_way_in_equals_monais_transforms(
    name: str, spacing_mm: tuple[float, float, float]
) -> None:
    grid = GRIDS[name]
    volume = Volume(intensities=smooth_image(grid.shape, 3), grid=grid, role="t1")
    affine = torch.from_numpy(TO_RAS @ grid.index_to_lps_mm)
    image = MetaTensor(torch.from_numpy(volume.intensities.copy())[None], affine=affine)
    labels = (("L", "R"), ("P", "A"), ("I", "S"))
    theirs = Spacing(spacing_mm, mode="bilinear")(Orientation("RAS", labels=labels)(image))
    scored = NormalizeIntensity(nonzero=True, channel_wise=True)(theirs)

    found_grid = preprocess.model_grid(grid, spacing_mm)
    found = preprocess.resample(volume, found_grid)
    assert isinstance(theirs, MetaTensor)
    assert found.shape == tuple(theirs.shape[1:])
    np.testing.assert_allclose(
        TO_RAS @ found_grid.index_to_lps_mm, theirs.affine.numpy(), rtol=0, atol=1e-9
    )
    preprocess.normalise(found, PLAIN)
    np.testing.assert_allclose(found, np.asarray(scored)[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("orientation", ["LPS", "SPL", "ASR", "PIR"])
@pytest.mark.parametrize("name", ["axial", "sagittal"])
def test_any_orientation_is_monais(name: str, orientation: str) -> None:
    """nnU-Net's arrays of files that are stored LPS grow to S, P and L."""
    grid, spacing_mm = GRIDS[name], (2.0, 1.5, 0.7)
    volume = Volume(intensities=smooth_image(grid.shape, 3), grid=grid, role="t1")
    affine = torch.from_numpy(TO_RAS @ grid.index_to_lps_mm)
    image = MetaTensor(torch.from_numpy(volume.intensities.copy())[None], affine=affine)
    labels = (("L", "R"), ("P", "A"), ("I", "S"))
    theirs = Spacing(spacing_mm, mode="bilinear")(Orientation(orientation, labels=labels)(image))
    found_grid = preprocess.model_grid(grid, spacing_mm, orientation)
    assert isinstance(theirs, MetaTensor)
    np.testing.assert_allclose(
        TO_RAS @ found_grid.index_to_lps_mm, theirs.affine.numpy(), rtol=0, atol=1e-9
    )
    found = preprocess.resample(volume, found_grid)
    np.testing.assert_allclose(found, np.asarray(theirs)[0], rtol=0, atol=2e-2)


def test_cubic_splines_are_nearer_to_a_smooth_image_than_lines() -> None:
    grid = oblique_grid((24, 24, 24), (2.0, 2.0, 2.0))
    inner = oblique_grid((20, 20, 20), (1.1, 1.1, 1.1))
    here, there = (wave_at(one) for one in (grid, inner))
    volume = Volume(intensities=here, grid=grid, role="t1")
    off = {
        how: np.abs(preprocess.resample(volume, inner, how) - there).max()
        for how in ("linear", "cubic")
    }
    assert off["cubic"] < off["linear"] / 5


def test_a_grid_that_already_is_the_models_changes_no_value() -> None:
    grid = oblique_grid((9, 11, 13), (1.0, 1.0, 1.0), order=(0, 1, 2), flips=(-1, -1, 1))
    volume = Volume(intensities=smooth_image(grid.shape, 1), grid=grid, role="t1")
    target = preprocess.model_grid(grid, (1.0, 1.0, 1.0))
    assert target.is_same_place(grid, tolerance_mm=0.0)
    assert np.array_equal(preprocess.resample(volume, target), volume.intensities)


def test_a_common_exam_gets_monais_shape() -> None:
    """239 mm in steps of 2 mm end half a voxel over; MONAI gives 121 voxels, and so do we."""
    grid = oblique_grid((155, 240, 240), (1.0, 1.0, 1.0), flips=(1, -1, -1))
    assert preprocess.model_grid(grid, (2.0, 2.0, 2.0)).shape == (121, 121, 78)


@pytest.mark.parametrize("reference", GRIDS)
@pytest.mark.parametrize("source", GRIDS)
def test_a_value_stays_at_its_patient_point(source: str, reference: str) -> None:
    volume = Volume(intensities=field_at(GRIDS[source]), grid=GRIDS[source], role="t2")
    grid = preprocess.model_grid(GRIDS[reference], (2.0, 1.7, 2.3))
    found = preprocess.resample(volume, grid)
    lps = grid.lps_mm(np.moveaxis(np.indices(grid.shape), 0, -1).astype(float))
    inverse = np.linalg.inv(GRIDS[source].index_to_lps_mm)
    index = lps @ inverse[:3, :3].T + inverse[:3, 3]
    inside = ((index >= 0) & (index <= np.subtract(GRIDS[source].shape, 1))).all(axis=-1)
    assert inside.sum() > 100
    np.testing.assert_allclose(found[inside], field_at(grid)[inside], atol=1e-3)


def test_what_a_series_did_not_image_is_no_data() -> None:
    reference = oblique_grid((20, 20, 20), (2.0, 2.0, 2.0))
    small = Grid(
        shape=(5, 20, 20),
        index_to_lps_mm=reference.index_to_lps_mm,
        frame_of_reference_uid="1.2.3",
    )
    volume = Volume(intensities=np.full(small.shape, 7.0, np.float32), grid=small, role="t2")
    found = preprocess.resample(volume, preprocess.model_grid(reference, (2.0, 2.0, 2.0)))
    assert (found[:, :, :5] == 7.0).all()
    assert (found[:, :, 5:] == 0.0).all()


@settings(max_examples=60, deadline=None)
@given(
    turns=st.tuples(*[st.floats(-40.0, 40.0)] * 3),
    flips=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    order=st.permutations([0, 1, 2]),
    steps=st.tuples(*[st.floats(0.5, 6.0)] * 3),
)
def test_the_models_grid_covers_the_reference(
    turns: tuple[float, float, float],
    flips: tuple[int, int, int],
    order: list[int],
    steps: tuple[float, float, float],
) -> None:
    axes = (order[0], order[1], order[2])
    reference = oblique_grid((7, 12, 9), steps, turns, flips=flips, order=axes)
    grid = preprocess.model_grid(reference, (2.0, 1.0, 3.0))
    np.testing.assert_allclose(grid.spacing_mm, (2.0, 1.0, 3.0), rtol=1e-12)
    ras = (TO_RAS @ grid.index_to_lps_mm)[:3, :3]
    assert np.linalg.det(ras) > 0
    assert np.trace(ras / grid.spacing_mm) > 0
    ends = np.array(np.meshgrid(*[[0, n - 1] for n in reference.shape])).reshape(3, -1).T
    inverse = np.linalg.inv(grid.index_to_lps_mm)
    places = reference.lps_mm(ends.astype(float)) @ inverse[:3, :3].T + inverse[:3, 3]
    assert places.min() > -0.5 - 1e-9
    assert (places.max(axis=0) < np.array(grid.shape) - 0.5 + 1e-9).all()


def test_normalising_clips_to_percentiles_of_the_tissue() -> None:
    rng = np.random.default_rng(0)
    channel = np.zeros((10, 20, 30), np.float32)
    tissue = rng.gamma(4.0, 100.0, 3000).astype(np.float32)
    channel.reshape(-1)[:3000] = tissue
    preprocess.normalise(
        channel,
        Normalise.model_validate(
            {
                "kind": "zscore",
                "mask": "nonzero",
                "per_channel": True,
                "clip_percentiles": (0.5, 99.5),
            }
        ),
    )
    ordered = np.sort(tissue.astype(np.float64))
    low, high = (np.interp(q * 2999, np.arange(3000), ordered) for q in (0.005, 0.995))
    held = tissue.clip(low, high)
    expected = (held - held.mean()) / np.sqrt(((held - held.mean()) ** 2).mean())
    np.testing.assert_allclose(channel.reshape(-1)[:3000], expected, atol=1e-4)
    assert (channel.reshape(-1)[3000:] == 0.0).all()


def as_asked(**said: object) -> Normalise:
    return Normalise.model_validate({"per_channel": True, **said})


def some_image() -> NDArray[np.float32]:
    rng = np.random.default_rng(1)
    image = rng.gamma(3.0, 50.0, (12, 13, 14)).astype(np.float32)
    image[:5] = 0.0
    return image


def test_percentiles_and_ranges_are_monais() -> None:
    image = some_image()
    pairs: tuple[tuple[Normalise, Any], ...] = (
        (
            as_asked(kind="percentile", mask="all", percentiles=(1.0, 99.0), clip=(0.0, 1.0)),
            ScaleIntensityRangePercentiles(1.0, 99.0, 0.0, 1.0, clip=True),
        ),
        (
            as_asked(kind="percentile", mask="all", percentiles=(5.0, 95.0)),
            ScaleIntensityRangePercentiles(5.0, 95.0, 0.0, 1.0),
        ),
        (
            as_asked(kind="range", mask="all", range=(20.0, 300.0), clip=(0.0, 1.0)),
            ScaleIntensityRange(20.0, 300.0, 0.0, 1.0, clip=True),
        ),
        (as_asked(kind="zscore", mask="all"), NormalizeIntensity()),
    )
    for ours, theirs in pairs:
        found = image.copy()
        preprocess.normalise(found, ours)
        expected = np.asarray(theirs(torch.from_numpy(image)[None]))[0]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_only_the_mask_counts_and_the_rest_is_nothing() -> None:
    image, brain = some_image(), np.zeros((12, 13, 14), np.bool_)
    brain[3:9, 2:10, 2:10] = True
    found = image.copy()
    preprocess.normalise(found, as_asked(kind="zscore", mask="brain", clip=(-1.0, 2.0)), brain)
    values = image[brain].astype(np.float64)
    expected = ((values - values.mean()) / values.std()).clip(-1.0, 2.0)
    np.testing.assert_allclose(found[brain], expected, atol=1e-5)
    assert (found[~brain] == 0.0).all()


def test_what_is_outside_may_keep_its_place_among_the_numbers() -> None:
    """As the training does it; a second formula, percentiles and all."""
    image, brain = some_image(), np.zeros((12, 13, 14), np.bool_)
    brain[3:9, 2:10, 2:10] = True
    found = image.copy()
    how = as_asked(
        kind="zscore", mask="brain", outside="kept", clip_percentiles=(5.0, 90.0), clip=(-2.0, 4.0)
    )
    preprocess.normalise(found, how, brain)
    ordered = np.sort(image[5:9, 2:10, 2:10].reshape(-1).astype(np.float64))  # slice 5 on: not 0
    places = np.arange(ordered.size)
    low, high = (np.interp(q * (ordered.size - 1), places, ordered) for q in (0.05, 0.9))
    held = ordered.clip(low, high)
    deviation = np.sqrt(((held - held.mean()) ** 2).mean())
    expected = ((image - held.mean()) / deviation).clip(-2.0, 4.0)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert found[brain].max() > (high - held.mean()) / deviation + 0.1  # bounded by clip alone
    assert (found[0] == found[0, 0, 0]).all()
    assert found[0, 0, 0] < -0.5  # air is not the brain's mean


@pytest.mark.parametrize(
    "said",
    [
        {"kind": "percentile", "mask": "nonzero", "percentiles": (1.0, 99.0)},
        {"kind": "range", "mask": "brain", "range": (20.0, 300.0)},
        {"kind": "none", "mask": "brain"},
    ],
)
def test_inside_the_mask_it_is_the_same_whether_the_outside_is_kept(said: dict[str, Any]) -> None:
    brain = np.zeros((12, 13, 14), np.bool_)
    brain[6:9, 2:10, 2:10] = True
    kept, zeroed = some_image(), some_image()
    preprocess.normalise(kept, as_asked(**said, outside="kept"), brain)
    preprocess.normalise(zeroed, as_asked(**said), brain)
    assert np.array_equal(kept[brain], zeroed[brain])
    assert not np.array_equal(kept, zeroed)


@pytest.mark.parametrize("outside", ["zero", "kept"])
def test_a_series_that_shows_nothing_of_the_brain_becomes_zero(outside: str) -> None:
    image, brain = some_image(), np.zeros((12, 13, 14), np.bool_)
    brain[:5] = True
    how = as_asked(kind="zscore", mask="brain", outside=outside, clip_percentiles=(1.0, 99.0))
    preprocess.normalise(image, how, brain & (image != 0.0))
    assert (image == 0.0).all()


def test_no_normalisation_leaves_intensities_but_for_the_bounds() -> None:
    found = some_image()
    preprocess.normalise(found, as_asked(kind="none", mask="all", clip=(10.0, 90.0)))
    np.testing.assert_array_equal(found, some_image().clip(10.0, 90.0))


def test_a_model_that_needs_the_brain_is_unusable_without() -> None:
    grid = GRIDS["axial"]
    volumes = [
        Volume(intensities=smooth_image(grid.shape, 1), grid=grid, role=role) for role in ANY.roles
    ]
    by_brain = ANY.normalise.model_copy(update={"mask": "brain"})
    stripped = ANY.space.model_copy(update={"skull": "stripped"})
    around = ANY.infer.model_copy(update={"crop": "brain"})
    clipped = ANY.postprocess.model_copy(update={"clip_to_brain": True})
    for update, field in (
        ({"normalise": by_brain}, "normalise.mask"),
        ({"space": stripped}, "space.skull"),
        ({"infer": around}, "infer.crop"),
        ({"postprocess": clipped}, "postprocess.clip_to_brain"),
    ):
        with pytest.raises(ModelUnusableError, match="brain mask") as caught:
            preprocess.prepare(volumes, grid, ANY.model_copy(update=update))
        assert caught.value.evidence["field"] == field


@pytest.mark.parametrize("value", [0.0, 5.0])
def test_a_constant_channel_becomes_zero(value: float) -> None:
    channel = np.full((3, 4, 5), value, np.float32)
    preprocess.normalise(channel, PLAIN)
    assert (channel == 0.0).all()


def test_cropping_keeps_every_voxel_at_its_patient_point() -> None:
    grid = preprocess.model_grid(GRIDS["oblique"], (2.0, 2.0, 2.0))
    channels = np.zeros((2, *grid.shape), np.float32)
    channels[0, 3:6, 4:9, 20:30] = 1.0
    channels[1, 2:4, 5:6, 25:33] = 2.0
    brain = channels[1] == 2.0
    for plan, margin_mm, expected in (
        (ANY.infer, 0.0, (slice(2, 6), slice(4, 9), slice(20, 33))),
        (PLAN, 0.0, (slice(2, 4), slice(5, 6), slice(25, 33))),
        (PLAN, 2.0, (slice(1, 5), slice(4, 7), slice(24, 34))),
        (PLAN, 5.0, (slice(0, 7), slice(2, 9), slice(22, 36))),  # 2 voxels are too few
    ):
        asked = plan.model_copy(update={"crop_margin_mm": margin_mm})
        assert preprocess.box_of(channels, brain, asked, grid.spacing_mm) == expected


@pytest.mark.parametrize("crop", ["foreground", "brain", "none"])
def test_an_empty_image_is_not_cropped_away(crop: str) -> None:
    channels, brain = np.zeros((4, 5, 6, 7), np.float32), np.zeros((5, 6, 7), np.bool_)
    plan = ANY.infer.model_copy(update={"crop": crop})
    whole = (slice(0, 5), slice(0, 6), slice(0, 7))
    assert preprocess.box_of(channels, brain, plan, (2.0, 2.0, 2.0)) == whole


def test_channels_stand_in_the_given_order_on_one_grid() -> None:
    volumes = [
        Volume(intensities=smooth_image(GRIDS[name].shape, seed), grid=GRIDS[name], role=role)
        for seed, (name, role) in enumerate(zip(GRIDS, ANY.roles, strict=True))
    ]
    reference = GRIDS["oblique"]
    prepared = preprocess.prepare(volumes, reference, ANY)
    turned = preprocess.prepare(volumes[::-1], reference, ANY)
    assert prepared.reference is reference
    assert tuple(prepared.channels.shape) == (4, *prepared.grid.shape)
    assert torch.equal(prepared.channels.flip(0), turned.channels)
    assert not torch.equal(prepared.channels[0], prepared.channels[1])


def test_without_the_crop_the_whole_grid_is_kept() -> None:
    whole = ANY.model_copy(update={"infer": ANY.infer.model_copy(update={"crop": "none"})})
    grid = oblique_grid((20, 20, 20), (2.0, 2.0, 2.0))
    image = np.zeros(grid.shape, np.float32)
    image[5:9, 6:12, 7:10] = np.arange(72, dtype=np.float32).reshape(4, 6, 3) + 1
    volumes = [Volume(intensities=image, grid=grid, role=role) for role in ANY.roles]
    assert preprocess.prepare(volumes, grid, whole).channels.shape == (4, 20, 20, 20)
    assert preprocess.prepare(volumes, grid, ANY).channels.shape == (4, 3, 6, 4)


# -- whole heads ----------------------------------------------------------------------------------

BRAIN_LPS_MM, BRAIN_RADII_MM = np.array([37.0, -25.0, 60.0]), np.array([14.0, 18.0, 11.0])
WHOLE_HEADS = ANY.model_copy(
    update={
        "space": ANY.space.model_copy(update={"spacing_mm": (1.5, 1.5, 1.5)}),
        "normalise": as_asked(
            kind="zscore",
            mask="brain",
            outside="kept",
            clip_percentiles=(0.5, 99.5),
            clip=(-5.0, 5.0),
        ),
        "infer": PLAN.model_copy(update={"crop_margin_mm": 4.0}),
    }
)


def an_ellipsoid(grid: Grid) -> NDArray[np.bool_]:
    lps = grid.lps_mm(np.moveaxis(np.indices(grid.shape), 0, -1).astype(float))
    return np.asarray((((lps - BRAIN_LPS_MM) / BRAIN_RADII_MM) ** 2).sum(axis=-1) <= 1.0)


def head_on(grid: Grid, role: str, scalp: float) -> Volume:
    values = 200.0 + 50.0 * wave_at(grid)
    values = np.where(an_ellipsoid(grid), values, scalp).astype(np.float32)
    return Volume(intensities=values, grid=grid, role=role)


@settings(max_examples=20, deadline=None)
@given(scalp=st.floats(0.0, 1e5, width=32), missing=st.sampled_from([None, "t2"]))
def test_the_brain_gives_the_same_numbers_with_its_skull_and_without(
    scalp: float, missing: str | None
) -> None:
    grid = oblique_grid((34, 40, 36), (1.5, 1.5, 1.5), order=(0, 1, 2), flips=(-1, -1, 1))

    def prepared(scalp: float) -> preprocess.Prepared:
        volumes = [None if r == missing else head_on(grid, r, scalp) for r in ANY.roles]
        return preprocess.prepare(volumes, grid, WHOLE_HEADS, brain=an_ellipsoid)

    bare, whole = prepared(0.0), prepared(scalp)
    brain = torch.from_numpy(an_ellipsoid(whole.grid))
    assert 1000 < brain.sum() < brain.numel() / 2
    assert torch.equal(bare.channels[:, brain], whole.channels[:, brain])
    inside = whole.channels[0, brain].double()
    assert abs(float(inside.mean())) < 0.02
    assert abs(float(inside.std()) - 1.0) < 0.02
    assert torch.equal(whole.channels[3] == 0.0, torch.full_like(brain, missing is not None))
    if scalp > 1000.0:
        assert (whole.channels[0, ~brain] == 5.0).all()
        assert (bare.channels[0, ~brain] < -2.0).all()


@pytest.mark.parametrize("name", GRIDS)
def test_the_box_is_that_of_the_brain_whatever_way_the_slices_lie(name: str) -> None:
    """On another orientation too, every side lies the margin away from the brain's surface."""
    axes = GRIDS[name]
    middle = (np.array((40, 44, 42)) - 1) / 2
    matrix = axes.index_to_lps_mm.copy()
    matrix[:3, :3] = matrix[:3, :3] / axes.spacing_mm * (2.0, 1.7, 1.9)
    matrix[:3, 3] = BRAIN_LPS_MM + np.array([3.0, -2.0, 1.0]) - matrix[:3, :3] @ middle
    grid = Grid(shape=(40, 44, 42), index_to_lps_mm=matrix, frame_of_reference_uid="")
    volumes = [head_on(grid, role, 900.0) for role in ANY.roles]
    found = preprocess.prepare(volumes, grid, WHOLE_HEADS, brain=an_ellipsoid)
    directions = found.grid.index_to_lps_mm[:3, :3] / 1.5
    reach_mm = np.linalg.norm(directions.T * BRAIN_RADII_MM, axis=1)
    centre = (BRAIN_LPS_MM - found.grid.index_to_lps_mm[:3, 3]) @ directions
    last_mm = (np.array(found.grid.shape) - 1) * 1.5
    for margin in (centre - reach_mm, last_mm - centre - reach_mm):
        # 4 mm are 3 voxels; the outermost voxels of an ellipsoid lie a little inside of it.
        assert (margin > 4.5 - 1e-6 - 1.5).all()
        assert (margin < 4.5 + 1e-6).all()
    inner = found.channels[0][torch.from_numpy(an_ellipsoid(found.grid))]
    assert float(inner.mean()) == pytest.approx(0.0, abs=0.1)


def test_a_short_field_of_view_does_not_shift_the_numbers() -> None:
    grid = oblique_grid((34, 40, 36), (1.5, 1.5, 1.5))
    full = head_on(grid, "t2", 900.0)
    low = Grid(
        shape=(20, 40, 36), index_to_lps_mm=grid.index_to_lps_mm, frame_of_reference_uid="1.2.3"
    )
    short = Volume(intensities=full.intensities[:20].copy(), grid=low, role="t2")
    others = [head_on(grid, role, 900.0) for role in ANY.roles[:3]]
    found = preprocess.prepare([*others, short], grid, WHOLE_HEADS, brain=an_ellipsoid)
    values = found.channels[3].numpy()
    brain = an_ellipsoid(found.grid)
    seen = brain & (values != values.min())
    assert 0.2 < seen.sum() / brain.sum() < 0.8
    assert values[seen].mean() == pytest.approx(0.0, abs=0.02)
    assert values[seen].std() == pytest.approx(1.0, abs=0.02)
    assert (values[:, :, -2:] == values.min()).all()
    assert values.min() < -2.0  # like air


def test_rounding_does_not_make_something_of_nothing() -> None:
    """A series that ends on a voxel of the model's grid, but for what is next to nothing."""
    grid = oblique_grid((34, 40, 36), (1.5, 1.5, 1.5))
    intensities = head_on(grid, "t2", 900.0).intensities.copy()
    intensities[20:] = 0.0
    image = Volume(intensities=intensities, grid=grid, role="t2")
    matrix = grid.index_to_lps_mm.copy()
    matrix[:3, 3] += matrix[:3, 0] * 1e-5
    shifted = Grid(shape=grid.shape, index_to_lps_mm=matrix, frame_of_reference_uid="1.2.3")
    moved = Volume(intensities=intensities, grid=shifted, role="t2")
    others = [head_on(grid, role, 900.0) for role in ANY.roles[:3]]
    one, other = (
        preprocess.prepare([*others, last], grid, WHOLE_HEADS, brain=an_ellipsoid).channels[3]
        for last in (image, moved)
    )
    np.testing.assert_allclose(one, other, atol=1e-3)
