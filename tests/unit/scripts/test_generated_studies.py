"""The generator: what every sequence must show holds in every draw, and a seed gives one scene."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from scripts.generated_studies import anatomy, draw_study, imaging, tumours
from scripts.generated_studies.fields import blurred, noise
from scripts.generated_studies.scene import draw_scene

HELD_OUT = 3
SIDE = 24
TISSUES = 5


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def plain_scene() -> Tensor:
    """Return a block of white matter in air, with oedema, a rim, a dead core and a cyst in it."""
    planes = torch.zeros((imaging.PLANES, SIDE, SIDE, SIDE), dtype=torch.uint8)
    planes[imaging.PARTS] = anatomy.AIR
    inside = (slice(2, -2),) * 3
    planes[imaging.PARTS][inside] = anatomy.BRAIN
    planes[TISSUES - 1][inside] = 255
    planes[0][2:-2, 2:-2, 2:5] = 255  # sulcal fluid along one face
    planes[TISSUES - 1][2:-2, 2:-2, 2:5] = 0
    codes = planes[imaging.LESION]
    codes[4:10, 6:18, 8:18] = tumours.OEDEMA
    codes[10:13, 6:18, 8:18] = tumours.ENHANCING
    codes[13:17, 6:18, 8:18] = tumours.NECROSIS
    codes[17:20, 6:18, 8:18] = tumours.CYST
    planes[imaging.STRENGTH] = (codes > 0).to(torch.uint8) * 255
    planes[imaging.LABELS] = torch.tensor(tumours.LABEL, dtype=torch.uint8)[codes.long()]
    return planes


SCENE = plain_scene()
FLAT = torch.zeros((SIDE, SIDE, SIDE))


def levels(look: imaging.Look, channel: int) -> dict[str, float]:
    """Return how bright each tissue of the plain scene is in one sequence, without unevenness."""
    image = imaging.paint(SCENE, look, channel, FLAT, FLAT)
    lesion = SCENE[imaging.LESION]
    white = (SCENE[TISSUES - 1] > 0) & (lesion == 0)
    where = {
        "white": white,
        "fluid": SCENE[0] > 0,
        "oedema": lesion == tumours.OEDEMA,
        "rim": lesion == tumours.ENHANCING,
        "dead": lesion == tumours.NECROSIS,
        "cyst": lesion == tumours.CYST,
    }
    return {name: float(image[place].mean()) for name, place in where.items()}


@pytest.mark.parametrize("seed", range(60))
def test_every_draw_shows_what_its_sequence_must_show(seed: int) -> None:
    look = imaging.draw_look(rng(seed))
    flair, before, after, t2 = (levels(look, channel) for channel in range(4))
    assert flair["oedema"] > flair["white"] > flair["fluid"]
    assert t2["fluid"] > t2["white"]
    assert t2["oedema"] > t2["white"]
    assert before["dead"] < before["white"]
    assert after["rim"] > before["rim"]
    assert after["rim"] - before["rim"] > after["dead"] - before["dead"]
    assert t2["cyst"] > t2["white"]


def test_a_resection_cavity_is_no_tumour_and_all_other_tissue_of_a_lesion_is() -> None:
    assert tumours.LABEL[tumours.CAVITY] == 0
    others = [label for code, label in enumerate(tumours.LABEL) if code not in (0, tumours.CAVITY)]
    assert set(others) == {1, 2, 3}
    assert len(tumours.LABEL) <= tumours.PER_LESION


def test_only_small_pieces_of_enhancement_are_specks() -> None:
    enhancing = torch.zeros((SIDE, SIDE, SIDE), dtype=torch.bool)
    enhancing[2:6, 2:6, 2:6] = True
    enhancing[15:17, 15:17, 15] = True
    specks = tumours._specks(enhancing)
    assert int(specks.sum()) == 4
    assert bool(specks[15, 15, 15])


def test_images_are_normalised_by_the_brain_alone() -> None:
    scan = imaging.draw_scan(rng(), thick=False, skull="head")
    images = imaging.expose(SCENE, rng(1), scan=scan, whole=imaging.brain_sample(SCENE, rng(2)))
    inside = SCENE[imaging.PARTS] == anatomy.BRAIN
    for image in images:
        assert abs(float(image[inside].mean())) < 0.5
        assert 0.5 < float(image[inside].std()) < 2.0
        assert float(image[~inside].mean()) < float(image[inside].mean())


def test_stripping_leaves_nothing_around_the_brain_and_a_head_keeps_it() -> None:
    planes = SCENE.clone()
    planes[imaging.PARTS][SCENE[imaging.PARTS] == anatomy.AIR] = anatomy.FAT
    corner = (slice(None), 0, 0, 0)
    for skull, found in (("stripped", False), ("head", True)):
        scan = imaging.draw_scan(rng(4), thick=False, skull=skull)
        images = imaging.expose(planes, rng(5), scan=scan)
        assert bool((images[corner] > 0.05).any()) is found


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("thick", [2.0, 3.3, 4.7])
def test_slices_keep_a_constant_and_a_ramp(axis: int, thick: float) -> None:
    shape = [12, 12, 12]
    shape[axis] = 40
    ramp = torch.arange(40.0).view([-1 if one == axis else 1 for one in range(3)]).expand(shape)
    inner = ramp[tuple(slice(8, -8) if one == axis else slice(None) for one in range(3))]
    found = imaging.sliced(ramp, thick, axis, offset=0.4)
    kept = found[tuple(slice(8, -8) if one == axis else slice(None) for one in range(3))]
    torch.testing.assert_close(kept, inner, atol=0.05, rtol=0)
    constant = torch.full(shape, 7.0)
    torch.testing.assert_close(imaging.sliced(constant, thick, axis, offset=0.4), constant)


def test_slices_average_what_is_thinner_than_they_are() -> None:
    line = torch.zeros((40, 4, 4))
    line[20] = 1.0
    found = imaging.sliced(line, 5.0, 0, offset=0.0)
    assert float(found.max()) == pytest.approx(0.2, abs=0.01)
    assert float(found.sum()) == pytest.approx(16.0, rel=0.05)


@pytest.mark.parametrize("width", [1.4, 3.0, 9.0])
def test_noise_has_mean_0_and_deviation_1_and_is_smooth(width: float) -> None:
    field = noise((40, 48, 44), width, rng(3))
    assert abs(float(field.mean())) < 1e-4
    assert float(field.std()) == pytest.approx(1.0, abs=1e-3)
    steps = float((field[1:] - field[:-1]).std())
    assert steps < 1.8 / width
    torch.testing.assert_close(field, noise((40, 48, 44), width, rng(3)))


def test_a_blur_keeps_the_sum_of_a_point() -> None:
    point = torch.zeros((21, 21, 21))
    point[10, 10, 10] = 1.0
    assert float(blurred(point, (1.0, 0.5, 0.0)).sum()) == pytest.approx(1.0, abs=1e-4)
    assert torch.equal(blurred(point, (0.0, 0.0, 0.1)), point)


@pytest.fixture(scope="module")
def scene() -> Tensor:
    return draw_scene(HELD_OUT, healthy=False)


def test_a_scene_is_a_head_with_a_brain_of_human_size_and_a_tumour_in_it(scene: Tensor) -> None:
    inside = scene[imaging.PARTS] == anatomy.BRAIN
    ml = float(inside.sum()) * anatomy.STEP_MM**3 / 1000
    assert 900 < ml < 2100
    assert bool((scene[imaging.LABELS] > 0).any())
    assert not bool((scene[imaging.LABELS] > 0)[~inside].any())
    tissue = scene[imaging.TISSUES].float().sum(0) / 255
    assert float(tissue[inside].mean()) == pytest.approx(1.0, abs=0.05)
    assert float(tissue[~inside].max()) == 0.0
    present = set(np.unique(scene[imaging.PARTS].numpy()).tolist())
    assert {anatomy.AIR, anatomy.BONE, anatomy.FAT, anatomy.FLUID, anatomy.BRAIN} <= present


def test_the_same_seed_gives_the_same_study_and_a_healthy_one_has_no_tumour(scene: Tensor) -> None:
    again = draw_scene(HELD_OUT, healthy=False)
    assert torch.equal(scene, again)
    study = draw_study(HELD_OUT, kind="healthy")
    assert not study.truth.any()
    assert set(study.volumes) == {"flair", "t1", "t1gd", "t2"}
    thick = draw_study(HELD_OUT, kind="thick")
    slice_mm, row_mm, column_mm = thick.volumes["t1gd"].grid.spacing_mm
    assert slice_mm >= 3 * row_mm
    assert row_mm == column_mm == anatomy.STEP_MM
    assert thick.truth.shape == thick.volumes["flair"].grid.shape
