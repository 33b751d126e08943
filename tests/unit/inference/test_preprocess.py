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

DEMO = manifest.load(Path(__file__).parents[3] / "models" / "demo-glioma")
DEMO = DEMO.model_copy(update={"space": DEMO.space.model_copy(update={"skull": "any"})})
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
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


def test_no_normalisation_leaves_intensities_but_for_the_bounds() -> None:
    found = some_image()
    preprocess.normalise(found, as_asked(kind="none", mask="all", clip=(10.0, 90.0)))
    np.testing.assert_array_equal(found, some_image().clip(10.0, 90.0))


def test_a_model_that_needs_the_brain_is_unusable_without() -> None:
    grid = GRIDS["axial"]
    volumes = [
        Volume(intensities=smooth_image(grid.shape, 1), grid=grid, role=role) for role in DEMO.roles
    ]
    by_brain = DEMO.normalise.model_copy(update={"mask": "brain"})
    stripped = DEMO.space.model_copy(update={"skull": "stripped"})
    for update in ({"normalise": by_brain}, {"space": stripped}):
        with pytest.raises(ModelUnusableError, match="brain mask"):
            preprocess.prepare(volumes, grid, DEMO.model_copy(update=update))


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
    box, box_grid = preprocess.cropped(channels, grid)
    assert box.shape == (2, 4, 5, 13)
    assert np.array_equal(box, channels[:, 2:6, 4:9, 20:33])
    np.testing.assert_allclose(
        box_grid.lps_mm(np.array([1.0, 2.0, 3.0])), grid.lps_mm(np.array([3.0, 6.0, 23.0]))
    )


def test_an_empty_image_is_not_cropped_away() -> None:
    grid = preprocess.model_grid(GRIDS["axial"], (2.0, 2.0, 2.0))
    channels = np.zeros((4, *grid.shape), np.float32)
    box, box_grid = preprocess.cropped(channels, grid)
    assert box is channels
    assert box_grid is grid


def test_channels_stand_in_the_given_order_on_one_grid() -> None:
    volumes = [
        Volume(intensities=smooth_image(GRIDS[name].shape, seed), grid=GRIDS[name], role=role)
        for seed, (name, role) in enumerate(zip(GRIDS, DEMO.roles, strict=True))
    ]
    reference = GRIDS["oblique"]
    prepared = preprocess.prepare(volumes, reference, DEMO)
    turned = preprocess.prepare(volumes[::-1], reference, DEMO)
    assert prepared.reference is reference
    assert tuple(prepared.channels.shape) == (4, *prepared.grid.shape)
    assert torch.equal(prepared.channels.flip(0), turned.channels)
    assert not torch.equal(prepared.channels[0], prepared.channels[1])


def test_without_the_crop_the_whole_grid_is_kept() -> None:
    whole = DEMO.model_copy(update={"infer": DEMO.infer.model_copy(update={"crop": "none"})})
    grid = oblique_grid((20, 20, 20), (2.0, 2.0, 2.0))
    image = np.zeros(grid.shape, np.float32)
    image[5:9, 6:12, 7:10] = np.arange(72, dtype=np.float32).reshape(4, 6, 3) + 1
    volumes = [Volume(intensities=image, grid=grid, role=role) for role in DEMO.roles]
    assert preprocess.prepare(volumes, grid, whole).channels.shape == (4, 20, 20, 20)
    assert preprocess.prepare(volumes, grid, DEMO).channels.shape == (4, 3, 6, 4)
