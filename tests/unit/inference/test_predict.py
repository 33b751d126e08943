"""Volumes to a label map, with the demonstration model, against truths."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from converters import phantom
from converters.phantom import PhantomStudy
from converters.volume import Grid, Volume
from inference import manifest, model
from inference.errors import ChannelMissingError
from inference.model import LoadedModel
from inference.networks import ResidualUNet
from inference.predict import predict

ROOT = Path(__file__).parents[3]
REALDATA = Path(os.environ.get("NEUROSEG_REALDATA", ROOT.parent / "shared" / "realdata"))
EXAM = REALDATA / "tumour" / "Brats17_2013_27_1_GT"
FROM_BRATS = np.array([0, 2, 1, 0, 3], np.uint8)  # 1 core, 2 oedema, 4 enhancing


@pytest.fixture(scope="module")
def demo() -> LoadedModel:
    folder = ROOT / "models" / "demo-glioma"
    return model.load(manifest.load(folder), device="cpu", threads=1)


@pytest.fixture(scope="module")
def quick(demo: LoadedModel) -> LoadedModel:
    """Return the same model with a small untrained network, which labels all over the brain."""
    torch.manual_seed(0)
    network = ResidualUNet(4, 4, (4, 6)).eval()
    plan = demo.manifest.infer.model_copy(update={"window": (80, 96, 80)})
    declared = demo.manifest.model_copy(update={"infer": plan})
    return LoadedModel(manifest=declared, network=network, device="cpu")


@pytest.fixture(scope="module")
def study() -> PhantomStudy:
    return phantom.make_study(seed=0, size="small")


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
    )
    truth = study.truth["t1gd"]
    assert dice(found.labels > 0, truth > 0) > 0.9
    assert dice(found.labels > 1, truth > 1) > 0.85
    assert dice(found.labels == 3, truth == 3) > 0.8
    assert dice(found.labels == 1, truth == 1) > 0.8
    assert seen[-1] == (len(seen), len(seen))


def test_a_label_map_says_what_its_manifest_declares(
    quick: LoadedModel, study: PhantomStudy
) -> None:
    found = predict(list(study.volumes.values()), quick, reference_role="t1gd")
    assert found.model_id == quick.manifest.model_id
    assert found.segments == quick.manifest.segments
    assert found.grid is study.volumes["t1gd"].grid


def test_the_same_volumes_in_any_order_give_the_same_labels(
    quick: LoadedModel, study: PhantomStudy
) -> None:
    volumes = list(study.volumes.values())
    extra = Volume(intensities=volumes[0].intensities, grid=volumes[0].grid, role="dwi")
    once = predict(volumes, quick, reference_role="t1gd")
    again = predict([extra, *volumes[::-1]], quick, reference_role="t1gd")
    assert len(np.unique(once.labels)) > 1
    assert np.array_equal(once.labels, again.labels)


def test_labels_may_be_asked_for_on_another_series(demo: LoadedModel, study: PhantomStudy) -> None:
    found = predict(list(study.volumes.values()), demo, reference_role="flair")
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


def test_empty_images_break_nothing(quick: LoadedModel) -> None:
    grid = Grid(shape=(4, 20, 18), index_to_lps_mm=np.eye(4), frame_of_reference_uid="")
    volumes = [
        Volume(intensities=np.zeros(grid.shape, np.float32), grid=grid, role=role)
        for role in quick.manifest.roles
    ]
    assert predict(volumes, quick, reference_role="t1gd").labels.shape == grid.shape


@pytest.mark.skipif(not EXAM.is_dir(), reason="the real exam is not on this machine")
def test_the_tumour_of_a_real_exam_is_found(demo: LoadedModel) -> None:
    """Measured 0.88, 0.77 and 0.61."""
    names = {"flair": "flair", "t1": "t1", "t1ce": "t1gd", "t2": "t2"}
    volumes = [read_exam(name, role) for name, role in names.items()]
    truth = FROM_BRATS[read_exam("seg", "t1").intensities.astype(int)]
    found = predict(volumes, demo, reference_role="t1gd").labels
    assert dice(found > 0, truth > 0) > 0.82
    assert dice(found > 1, truth > 1) > 0.7
    assert dice(found == 3, truth == 3) > 0.5
