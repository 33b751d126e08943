"""Where the brain is: heads with their skull, stripped brains, and what is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from converters import phantom
from converters.phantom import PhantomStudy
from converters.volume import Grid, Volume
from inference import brain_mask, mask_model, preprocess
from inference.brain_mask import BrainMask
from inference.errors import BrainNotFoundError, ModelUnusableError
from inference.mask_model import MaskModel

FOLDER = Path(__file__).parents[3] / "models" / "brain-mask"


@pytest.fixture(scope="module")
def network() -> MaskModel:
    return mask_model.load(FOLDER)


@pytest.fixture(scope="module")
def head() -> PhantomStudy:
    return phantom.make_study(1, size="small", has_skull=True)


@pytest.fixture(scope="module")
def stripped() -> PhantomStudy:
    return phantom.make_study(1, size="small")


@pytest.fixture(scope="module")
def found(head: PhantomStudy, network: MaskModel) -> BrainMask:
    return brain_mask.find(list(head.volumes.values()), head.volumes["t1gd"].grid, network)


def true_brain(grid: Grid) -> NDArray[np.bool_]:
    """Return where the generated head of `head` has its brain."""
    lesions = (phantom.usual_lesion(1),)
    scene = phantom._scene(1, lesions, "small", has_skull=True)
    inside = ndimage.binary_fill_holes(scene.anatomy.is_brain).astype(np.float32)
    drawn = Volume(intensities=inside, grid=scene.lattice, role="brain")
    return np.asarray(preprocess.resample(drawn, grid) >= 0.5)


def test_the_brain_and_its_tumour_are_kept_and_the_scalp_is_not(
    head: PhantomStudy, found: BrainMask
) -> None:
    grid = head.volumes["t1gd"].grid
    inside = found.on(grid)
    brain = true_brain(grid)
    assert found.source == "network"
    assert inside[brain].mean() > 0.97
    assert inside[head.truth["t1gd"] > 0].mean() > 0.99
    far = ndimage.distance_transform_edt(~brain, sampling=grid.spacing_mm)
    assert inside[far > 20.0].mean() < 0.05  # its base is filled with tissue like brain


def test_a_stripped_study_keeps_the_mask_that_it_came_with(
    stripped: PhantomStudy, network: MaskModel
) -> None:
    for volume in stripped.volumes.values():
        found = brain_mask.find([volume], volume.grid, network)
        assert found.source == "input"
        assert found.is_usual
        outside = ~found.on(volume.grid, below_mm=-4.0)
        assert not volume.intensities[outside].any()


def test_ringing_around_a_stripped_brain_changes_nothing(
    stripped: PhantomStudy, network: MaskModel
) -> None:
    volume = stripped.volumes["t2"]
    rng = np.random.default_rng(0)
    ringing = rng.normal(0.0, 0.002 * volume.intensities.max(), volume.intensities.shape)
    rung = Volume(
        intensities=(volume.intensities + ringing).astype(np.float32), grid=volume.grid, role="t2"
    )
    clean = brain_mask.find([volume], volume.grid, network)
    noisy = brain_mask.find([rung], volume.grid, network)
    assert noisy.source == "input"
    assert noisy.volume_ml == pytest.approx(clean.volume_ml, rel=0.03)


def test_the_orientation_of_a_series_does_not_matter(
    head: PhantomStudy, found: BrainMask, network: MaskModel
) -> None:
    turned = []
    for volume in head.volumes.values():
        matrix = volume.grid.index_to_lps_mm[:, [2, 0, 1, 3]].copy()
        matrix[:3, 3] += matrix[:3, 1] * (volume.grid.shape[0] - 1)
        matrix[:3, 1] *= -1
        voxels = volume.intensities[::-1].transpose(2, 0, 1).copy()
        grid = Grid(shape=voxels.shape, index_to_lps_mm=matrix, frame_of_reference_uid="")
        turned.append(Volume(intensities=voxels, grid=grid, role=volume.role))
    again = brain_mask.find(turned, turned[0].grid, network)
    assert again.volume_ml == pytest.approx(found.volume_ml, rel=0.02)


def test_depth_shrinks_and_widens_the_mask(head: PhantomStudy, found: BrainMask) -> None:
    grid = head.volumes["t1gd"].grid
    inner, usual, outer = (found.on(grid, below_mm=depth) for depth in (6.0, 0.0, -6.0))
    assert inner.sum() < usual.sum() < outer.sum()
    assert not (inner & ~usual).any()
    assert not (usual & ~outer).any()
    moved = np.eye(4)
    moved[:3, 3] = 2000.0
    far = Grid(shape=(3, 3, 3), index_to_lps_mm=moved, frame_of_reference_uid="")
    assert not found.on(far, below_mm=-1000.0).any()


def test_coverage_is_the_share_of_the_brain_in_the_field_of_view(
    head: PhantomStudy, found: BrainMask
) -> None:
    volume = head.volumes["t1gd"]
    assert brain_mask.coverage(volume, found) > 0.99
    half = volume.intensities.shape[0] // 2
    part = Volume(
        intensities=volume.intensities[:half].copy(),
        grid=Grid(
            shape=(half, *volume.grid.shape[1:]),
            index_to_lps_mm=volume.grid.index_to_lps_mm,
            frame_of_reference_uid="",
        ),
        role="t1gd",
    )
    assert 0.2 < brain_mask.coverage(part, found) < 0.8


def test_samples_are_taken_at_the_same_points(head: PhantomStudy, found: BrainMask) -> None:
    volume = head.volumes["t1gd"]
    twin = Volume(intensities=2.0 * volume.intensities, grid=volume.grid, role="twin")
    taken = brain_mask.samples([volume, twin], found)
    assert taken["t1gd"].size > 20000
    np.testing.assert_allclose(taken["twin"], 2.0 * taken["t1gd"], rtol=1e-5)


@pytest.mark.parametrize("level", [0.0, 300.0])
def test_what_holds_no_brain_is_refused(network: MaskModel, level: float) -> None:
    grid = Grid(
        shape=(6, 50, 50),
        index_to_lps_mm=np.diag([5.0, 1.0, 1.0, 1.0]),
        frame_of_reference_uid="",
    )
    volume = Volume(intensities=np.full(grid.shape, level, np.float32), grid=grid, role="t1")
    with pytest.raises(BrainNotFoundError, match="mL of the images look like brain"):
        brain_mask.find([volume], grid, network)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    for name in ("mask.toml", "model.safetensors"):
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff")
    with pytest.raises(ModelUnusableError, match="digest"):
        mask_model.load(tmp_path)
    (tmp_path / "mask.toml").unlink()
    with pytest.raises(ModelUnusableError, match=r"mask\.toml"):
        mask_model.load(tmp_path)
