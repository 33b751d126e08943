"""Volumes to a label map, with the demonstration model, against truths."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from converters import phantom
from converters.phantom import PhantomStudy
from converters.volume import Grid, Volume
from inference import manifest, model
from inference.declarations import Quality
from inference.errors import (
    ChannelConstantError,
    ChannelFieldOfViewError,
    ChannelImplausibleError,
    ChannelMissingError,
    ModelUnusableError,
)
from inference.model import LoadedModel
from inference.networks import ResidualUNet
from inference.note_codes import NOTE_CODES
from inference.predict import predict
from inference.runtime import TorchRuntime

ROOT = Path(__file__).parents[3]
REALDATA = Path(os.environ.get("NEUROSEG_REALDATA", ROOT.parent / "shared" / "realdata"))
EXAM = REALDATA / "tumour" / "Brats17_2013_27_1_GT"
FROM_BRATS = np.array([0, 2, 1, 0, 3], np.uint8)  # 1 core, 2 oedema, 4 enhancing


@pytest.fixture(scope="module")
def demo() -> LoadedModel:
    declared = manifest.load(ROOT / "models" / "demo-glioma")
    masks = ROOT / "models" / "brain-mask"
    return model.load(declared, device="cpu", threads=1, mask_folder=masks)


@pytest.fixture(scope="module")
def quick(demo: LoadedModel) -> LoadedModel:
    """Return a model for stripped images, untrained and small, which labels all over the brain."""
    torch.manual_seed(0)
    network = ResidualUNet(4, 4, (4, 6)).eval()
    stripped = manifest.load(ROOT / "tests" / "stripped_model")
    plan = stripped.infer.model_copy(update={"window": (80, 96, 80)})
    any_result = Quality(largest_tumour_ml=None, largest_share_of_brain=None, most_components=None)
    declared = stripped.model_copy(update={"infer": plan, "quality": any_result})
    return replace(demo, manifest=declared, network=network, runtime=TorchRuntime(network, "cpu"))


@pytest.fixture(scope="module")
def study() -> PhantomStudy:
    return phantom.make_study(seed=0, size="small")


@pytest.fixture(scope="module")
def head() -> PhantomStudy:
    return phantom.make_study(1, size="small", has_skull=True)


def dice(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return 2.0 * float((found & truth).sum()) / float(found.sum() + truth.sum())


def read_exam(name: str, role: str) -> Volume:
    image = nib.Nifti1Image.from_filename(EXAM / f"{EXAM.name.removesuffix('_GT')}_{name}.nii.gz")
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
    voxels = np.asarray(image.dataobj, dtype=np.float32).transpose(2, 1, 0)
    grid = Grid(shape=voxels.shape, index_to_lps_mm=lps[:, [2, 1, 0, 3]], frame_of_reference_uid="")
    return Volume(intensities=voxels, grid=grid, role=role)


def test_the_tumour_of_the_synthetic_study_is_found(demo: LoadedModel, study: PhantomStudy) -> None:
    seen: list[tuple[int, int]] = []
    found = predict(
        list(study.volumes.values()),
        demo,
        reference_role="t1gd",
        progress=lambda done, total: seen.append((done, total)),
    ).label_map
    truth = study.truth["t1gd"]
    assert dice(found.labels > 0, truth > 0) > 0.9
    assert dice(found.labels > 1, truth > 1) > 0.85
    assert dice(found.labels == 3, truth == 3) > 0.8
    assert dice(found.labels == 1, truth == 1) > 0.8
    assert seen[-1] == (len(seen), len(seen))


def test_a_label_map_says_what_its_manifest_declares(
    quick: LoadedModel, study: PhantomStudy
) -> None:
    found = predict(list(study.volumes.values()), quick, reference_role="t1gd").label_map
    assert found.model_id == quick.manifest.model_id
    assert found.segments == quick.manifest.segments
    assert found.grid is study.volumes["t1gd"].grid


def test_the_same_volumes_in_any_order_give_the_same_labels(
    quick: LoadedModel, study: PhantomStudy
) -> None:
    volumes = list(study.volumes.values())
    extra = Volume(intensities=volumes[0].intensities, grid=volumes[0].grid, role="dwi")
    once = predict(volumes, quick, reference_role="t1gd").label_map
    again = predict([extra, *volumes[::-1]], quick, reference_role="t1gd").label_map
    assert len(np.unique(once.labels)) > 1
    assert np.array_equal(once.labels, again.labels)


def test_labels_may_be_asked_for_on_another_series(demo: LoadedModel, study: PhantomStudy) -> None:
    found = predict(list(study.volumes.values()), demo, reference_role="flair").label_map
    assert found.grid is study.volumes["flair"].grid
    assert dice(found.labels > 0, study.truth["flair"] > 0) > 0.9


def test_a_missing_sequence_is_named(quick: LoadedModel, study: PhantomStudy) -> None:
    volumes = [volume for role, volume in study.volumes.items() if role != "t1gd"]
    with pytest.raises(ChannelMissingError) as caught:
        predict(volumes, quick, reference_role="flair")
    assert caught.value.evidence == {"expected": "flair, t1, t1gd, t2", "found": "flair, t1, t2"}


def test_a_reference_that_is_not_there_is_named(demo: LoadedModel, study: PhantomStudy) -> None:
    with pytest.raises(ChannelMissingError, match="dwi"):
        predict(list(study.volumes.values()), demo, reference_role="dwi")
    with pytest.raises(ChannelMissingError, match="none"):
        predict([], demo, reference_role="t1gd")


def test_empty_images_are_refused(quick: LoadedModel) -> None:
    grid = Grid(shape=(4, 20, 18), index_to_lps_mm=np.eye(4), frame_of_reference_uid="")
    volumes = [
        Volume(intensities=np.zeros(grid.shape, np.float32), grid=grid, role=role)
        for role in quick.manifest.roles
    ]
    with pytest.raises(ChannelConstantError):
        predict(volumes, quick, reference_role="t1gd")


def test_a_study_without_its_t2_is_segmented_and_says_so(
    demo: LoadedModel, study: PhantomStudy
) -> None:
    volumes = [volume for role, volume in study.volumes.items() if role != "t2"]
    found = predict(volumes, demo, reference_role="t1gd")
    assert [note.code for note in found.notes] == ["INPUT_MISSING"]
    assert dice(found.label_map.labels > 0, study.truth["t1gd"] > 0) > 0.85


def test_swapped_series_are_refused(quick: LoadedModel, study: PhantomStudy) -> None:
    flair, t2 = study.volumes["flair"], study.volumes["t2"]
    volumes = [
        study.volumes["t1"],
        study.volumes["t1gd"],
        Volume(intensities=t2.intensities, grid=t2.grid, role="flair"),
        Volume(intensities=flair.intensities, grid=flair.grid, role="t2"),
    ]
    with pytest.raises(ChannelImplausibleError, match="flair and t2"):
        predict(volumes, quick, reference_role="t1gd")


def part_of(volume: Volume, kept: slice) -> Volume:
    """Return some slices of a volume."""
    voxels = volume.intensities[kept].copy()
    matrix = volume.grid.index_to_lps_mm.copy()
    matrix[:3, 3] += matrix[:3, 0] * (kept.start or 0)
    grid = Grid(shape=voxels.shape, index_to_lps_mm=matrix, frame_of_reference_uid="")
    return Volume(intensities=voxels, grid=grid, role=volume.role)


def test_a_series_that_shows_too_little_of_the_brain_is_noted_then_refused(
    quick: LoadedModel, study: PhantomStudy
) -> None:
    by_role = dict(study.volumes)
    by_role["t1"] = part_of(study.volumes["t1"], slice(5, None))
    found = predict(list(by_role.values()), quick, reference_role="t1gd")
    assert [note.code for note in found.notes] == ["CHANNEL_FIELD_OF_VIEW"]
    assert str(found.notes[0]).startswith("CHANNEL_FIELD_OF_VIEW: t1 shows ")
    by_role["t1"] = part_of(study.volumes["t1"], slice(10, None))
    with pytest.raises(ChannelFieldOfViewError, match="t1: the series shows"):
        predict(list(by_role.values()), quick, reference_role="t1gd")


def test_a_head_with_its_skull_gets_a_mask_and_no_label_outside_it(
    quick: LoadedModel, head: PhantomStudy
) -> None:
    found = predict(list(head.volumes.values()), quick, reference_role="t1gd")
    assert found.mask_source == "network"
    assert found.label_map.labels.any()
    assert not found.label_map.labels[:, :6].any()
    whole = quick.manifest.model_copy(
        update={"space": quick.manifest.space.model_copy(update={"skull": "whole"})}
    )
    bare = replace(quick, manifest=whole, mask=None)
    left = predict(list(head.volumes.values()), bare, reference_role="t1gd")
    assert (left.mask_source, left.brain_ml) == ("", None)
    assert np.count_nonzero(left.label_map.labels) > np.count_nonzero(found.label_map.labels)


class Bright(nn.Module):
    """Gives label 1 to whatever is bright in T1gd."""

    def forward(self, channels: Tensor) -> Tensor:
        """Return the scores of four classes."""
        bright = channels[:, 2:3] - 1.0
        never = torch.full_like(bright, -9.0)
        return torch.cat([-bright, bright, never, never], dim=1)


def whole_heads(
    demo: LoadedModel, crop: str, *, clips: bool = True, margin_mm: float = 0.0
) -> LoadedModel:
    """Return a model that sees heads with and without skull, and labels what is bright in them."""
    declared = demo.manifest.model_dump(exclude={"folder"})
    declared["space"]["skull"] = "any"
    declared["normalise"] |= {"mask": "brain", "outside": "kept", "clip": (-5.0, 5.0)}
    declared["infer"] |= {"crop": crop, "crop_margin_mm": margin_mm}
    declared["infer"] |= {"window": (80, 96, 80), "blending": "constant"}
    declared["postprocess"] |= {"clip_to_brain": clips, "min_component_mm3": 0.0}
    found = manifest.Manifest.model_validate({**declared, "folder": demo.manifest.folder})
    network = Bright().eval()
    return replace(demo, manifest=found, network=network, runtime=TorchRuntime(network, "cpu"))


@pytest.mark.parametrize(("kind", "role"), [("head", "flair"), ("study", "t1gd")])
def test_labels_of_a_brains_box_come_back_to_where_they_were_seen(
    demo: LoadedModel, kind: str, role: str, request: pytest.FixtureRequest
) -> None:
    """With another crop the same network sees the same numbers: only the box may differ."""
    volumes = list(request.getfixturevalue(kind).volumes.values())
    boxed = predict(volumes, whole_heads(demo, "brain", margin_mm=12.0), reference_role=role)
    whole = predict(volumes, whole_heads(demo, "none"), reference_role=role)
    assert boxed.mask_source == ("network" if kind == "head" else "input")
    assert boxed.label_map.grid is whole.label_map.grid
    assert boxed.label_map.labels.any()
    assert np.array_equal(boxed.label_map.labels, whole.label_map.labels)


def test_beyond_the_box_and_the_brain_nothing_is_labelled_and_that_is_noted(
    demo: LoadedModel, head: PhantomStudy
) -> None:
    volumes = list(head.volumes.values())
    found = {
        (crop, clips): predict(volumes, whole_heads(demo, crop, clips=clips), reference_role="t1gd")
        for crop, clips in (("none", False), ("brain", False), ("brain", True))
    }
    whole, boxed, clipped = (np.count_nonzero(one.label_map.labels) for one in found.values())
    assert whole > boxed > clipped > 0
    said = [
        [note.sentence for note in one.notes if note.code == "TUMOUR_OUTSIDE_BRAIN"]
        for one in found.values()
    ]
    assert [len(one) for one in said] == [1, 1, 1]
    assert ["removed" in sentence for (sentence,) in said] == [False, False, True]
    assert said[1][0].split()[0] == said[2][0].split()[0]  # the same share of the same labels


def test_a_model_for_whole_heads_that_asks_for_the_brain_is_unusable_without_a_mask(
    demo: LoadedModel, study: PhantomStudy
) -> None:
    bare = replace(whole_heads(demo, "brain"), mask=None)
    with pytest.raises(ModelUnusableError, match="brain mask") as caught:
        predict(list(study.volumes.values()), bare, reference_role="t1gd")
    assert caught.value.evidence["field"] == "normalise.mask"


def test_a_model_for_stripped_images_is_unusable_without_a_mask(
    quick: LoadedModel, study: PhantomStudy
) -> None:
    bare = replace(quick, mask=None)
    with pytest.raises(ModelUnusableError, match="brain mask"):
        predict(list(study.volumes.values()), bare, reference_role="t1gd")


@pytest.mark.skipif(not EXAM.is_dir(), reason="the real exam is not on this machine")
def test_the_tumour_of_a_real_exam_is_found(demo: LoadedModel) -> None:
    """Measured 0.88, 0.77 and 0.61."""
    names = {"flair": "flair", "t1": "t1", "t1ce": "t1gd", "t2": "t2"}
    volumes = [read_exam(name, role) for name, role in names.items()]
    truth = FROM_BRATS[read_exam("seg", "t1").intensities.astype(int)]
    result = predict(volumes, demo, reference_role="t1gd")
    assert (result.mask_source, result.notes) == ("input", ())
    found = result.label_map.labels
    assert dice(found > 0, truth > 0) > 0.82
    assert dice(found > 1, truth > 1) > 0.7
    assert dice(found == 3, truth == 3) > 0.5


def test_a_constant_series_counts_as_missing_where_the_model_can_do_without(
    quick: LoadedModel, study: PhantomStudy
) -> None:
    by_role = dict(study.volumes)
    flat = np.full(by_role["t2"].grid.shape, 7.0, np.float32)
    by_role["t2"] = Volume(intensities=flat, grid=by_role["t2"].grid, role="t2")
    found = predict(list(by_role.values()), quick, reference_role="t1gd")
    without = predict(
        [one for one in by_role.values() if one.role != "t2"], quick, reference_role="t1gd"
    )
    assert [note.code for note in found.notes] == ["INPUT_MISSING"]
    assert np.array_equal(found.label_map.labels, without.label_map.labels)
    by_role["t1"] = Volume(intensities=flat, grid=by_role["t2"].grid, role="t1")
    with pytest.raises(ChannelConstantError):
        predict(list(by_role.values()), quick, reference_role="t1gd")


def test_the_entropy_is_highest_where_labels_meet(demo: LoadedModel, study: PhantomStudy) -> None:
    asked = replace(demo, uncertainty=True)
    found = predict(list(study.volumes.values()), asked, reference_role="t1gd")
    plain = predict(list(study.volumes.values()), demo, reference_role="t1gd")
    assert (plain.uncertainty, plain.probabilities) == (None, None)
    unsure = found.uncertainty
    assert unsure is not None
    labels = found.label_map.labels
    assert np.array_equal(labels, plain.label_map.labels)
    assert unsure.entropy.shape == labels.shape
    assert 0.0 <= unsure.entropy.min() <= unsure.entropy.max() <= 1.0 + 1e-6
    is_tumour = labels != 0
    inner = ndimage.binary_erosion(is_tumour, iterations=2)
    border = is_tumour ^ ndimage.binary_erosion(is_tumour)
    assert unsure.entropy[border].mean() > unsure.entropy[inner].mean()
    assert set(unsure.mean_by_label) == {one.label for one in found.label_map.segments}
    assert unsure.p95 == pytest.approx(np.percentile(unsure.entropy[is_tumour], 95), rel=1e-5)


def test_probabilities_are_kept_where_they_are_asked_for(
    demo: LoadedModel, study: PhantomStudy
) -> None:
    volumes = list(study.volumes.values())
    found = predict(volumes, replace(demo, probabilities=True), reference_role="t1gd")
    layers, labels = found.probabilities, found.label_map.labels
    assert layers is not None
    assert layers.values.shape == (len(demo.manifest.labels), *labels.shape)
    for number, values in enumerate(layers.values, start=1):
        assert values[labels == number].mean() > values[labels == 0].mean()
    rest = 255 - layers.values.sum(axis=0, dtype=np.int64)
    assert rest.min() >= -2  # every layer is rounded by itself


def test_a_result_that_cannot_be_is_noted(quick: LoadedModel, study: PhantomStudy) -> None:
    strict = quick.manifest.model_copy(update={"quality": Quality(entropy_p95=0.01)})
    wild = replace(quick, manifest=strict, uncertainty=True)
    found = predict(list(study.volumes.values()), wild, reference_role="t1gd")
    assert {"TUMOUR_LARGE", "RESULT_UNCERTAIN"} <= {note.code for note in found.notes}
    assert {note.code for note in found.notes} <= set(NOTE_CODES)
