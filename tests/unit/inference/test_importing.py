"""From a checkpoint to a model that the node serves, with the labels of the plain MONAI calls."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from inference import importing, manifest, model, self_test
from inference.errors import ModelImportError, ModelUnusableError
from inference.importing import Identity, Imported
from tests import checkpoints, decathlon
from tests.checkpoints import SMALL, TRUE

IDENTITY = Identity(model_id="imported", version="1.0.0")


def imported(source: Path, folder: Path, template: Path, **options: str) -> Imported:
    return importing.import_model(source, folder / "served", template, identity=IDENTITY, **options)


def small_state(folder: Path, kwargs: dict[str, Any] | None = None) -> Path:
    """Write the state dict of a small network."""
    file = folder / "state.pt"
    torch.save(checkpoints.network(kwargs).state_dict(), file)
    return file


def test_the_template_means_what_decathlon_task01_says(tmp_path: Path) -> None:
    """Documents of the reference project swap 1 and 2; reporting oedema as core would follow."""
    found = imported(small_state(tmp_path), tmp_path, checkpoints.template(tmp_path)).manifest
    meanings = [(s.number, s.label, s.type_code.scheme, s.type_code.value) for s in found.segments]
    assert meanings == [
        (1, "Oedema", "SCT", "79654002"),
        (2, "Necrotic and non-enhancing core", "NCIt", "C81175"),
        (3, "Enhancing tumour", "NCIt", "C113842"),
    ]
    assert found.output_indices == (0, 1, 2, 3)
    assert [one.sequence for one in found.inputs] == ["FLAIR", "T1w", "T1gd", "T2w"]
    assert (found.space.spacing_mm, found.space.skull) == ((1.0, 1.0, 1.0), "stripped")
    assert (found.normalise.kind, found.normalise.clip_percentiles) == ("zscore", None)


def test_a_lightning_checkpoint_of_the_reference_project_is_imported(tmp_path: Path) -> None:
    trained = checkpoints.network(TRUE)
    state = checkpoints.prefixed(trained.state_dict(), "net.")
    file = tmp_path / "model.ckpt"
    checkpoints.write_lightning(file, state, trained)
    size_mib = file.stat().st_size / 1024**2
    assert size_mib == pytest.approx(55.24, abs=0.1)  # of the published artifact
    template = checkpoints.template(tmp_path, small=False)
    done = imported(file, tmp_path, template)
    assert done.report.parameter_count == 4_813_569
    assert (done.report.place, done.report.stripped) == ("state_dict", "net.")
    assert (done.report.norm, done.report.ignored) == ("batch", ())
    assert "omegaconf.dictconfig.DictConfig" in done.report.inert
    stored = safetensors.torch.load_file(done.manifest.weights_path)
    assert len(stored) == 148
    for name, tensor in stored.items():
        assert torch.equal(tensor, state[f"net.{name}"])


@pytest.mark.parametrize("prefix", ["net._orig_mod.", "module.net.module.", "model.net.model."])
def test_copies_and_loss_weights_are_left_aside_and_said(tmp_path: Path, prefix: str) -> None:
    trained = checkpoints.network()
    state = {
        **checkpoints.prefixed(checkpoints.network(seed=4).state_dict(), "ema.module."),
        **checkpoints.prefixed(trained.state_dict(), prefix),
        "loss.class_weight": torch.ones(4),
    }
    file = tmp_path / "last.ckpt"
    checkpoints.write_lightning(file, state, trained)
    done = imported(file, tmp_path, checkpoints.template(tmp_path))
    assert done.report.stripped == prefix.replace("_orig_mod.", "")
    assert "loss.class_weight" in done.report.ignored
    assert len(done.report.ignored) == 1 + len(trained.state_dict())
    kept = json.loads((done.manifest.folder / importing.REPORT_NAME).read_text())
    assert kept["ignored"] == list(done.report.ignored)
    assert kept["source_sha256"] == done.report.source_sha256
    averaged = importing.import_model(
        file,
        tmp_path / "averaged",
        checkpoints.template(tmp_path),
        identity=Identity(model_id="averaged", version="1"),
        prefix="ema.module",
    )
    assert averaged.manifest.weights_sha256 != done.manifest.weights_sha256


def test_a_safetensors_file_and_half_precision_are_imported(tmp_path: Path) -> None:
    state = {name: t.half() for name, t in checkpoints.network().state_dict().items()}
    file = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(state, file)
    done = imported(file, tmp_path, checkpoints.template(tmp_path))
    assert (done.report.kind, done.report.inert) == ("safetensors", ())
    loaded = model.load(done.manifest, device="cpu", threads=1)
    assert {p.dtype for p in loaded.network.parameters()} == {torch.float32}


# -- norm layers ----------------------------------------------------------------------------------

GROUP = {**SMALL, "norm": ("group", {"num_groups": 2})}
AFFINE = {**SMALL, "norm": ("instance", {"affine": True})}
SAID = 'norm = "batch"'


@pytest.mark.parametrize(
    ("kwargs", "said", "norm"),
    [
        (SMALL, 'norm = "auto"', "batch"),
        ({**SMALL, "norm": "instance"}, 'norm = "auto"', "instance"),
        ({**SMALL, "norm": "instance"}, 'norm = "INSTANCE"', "instance"),
        (GROUP, 'norm = ["group", {num_groups = 2}]', "affine"),
        (AFFINE, 'norm = ["instance", {affine = true}]', "affine"),
    ],
)
def test_norm_layers_are_inferred_or_checked(
    tmp_path: Path, kwargs: dict[str, Any], said: str, norm: str
) -> None:
    template = checkpoints.template(tmp_path, (SAID, said), ("16, 16, 16", "32, 32, 32"))
    done = imported(small_state(tmp_path, kwargs), tmp_path, template)
    assert done.report.norm == norm
    if said == 'norm = "auto"':
        assert done.manifest.network.kwargs["norm"] == norm


@pytest.mark.parametrize(
    ("kwargs", "said", "words"),
    [
        ({**SMALL, "norm": "instance"}, SAID, "declares batch norm, .* show instance norm"),
        (SMALL, 'norm = "instance"', "declares instance norm, .* show batch norm"),
        (GROUP, SAID, "declares batch norm, .* show affine norm"),
        (GROUP, 'norm = "auto"', "template has to say"),
        (AFFINE, 'norm = "instance"', "show affine norm"),
    ],
)
def test_another_norm_than_declared_is_refused(
    tmp_path: Path, kwargs: dict[str, Any], said: str, words: str
) -> None:
    template = checkpoints.template(tmp_path, (SAID, said))
    with pytest.raises(ModelImportError, match=words):
        imported(small_state(tmp_path, kwargs), tmp_path, template)


# -- refusals -------------------------------------------------------------------------------------


def test_a_refused_import_leaves_nothing_behind(tmp_path: Path) -> None:
    file = small_state(tmp_path, {**SMALL, "channels": [4, 6, 10]})
    template = checkpoints.template(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ModelImportError, match="of another shape"):
        imported(file, tmp_path, template)
    with pytest.raises(ModelImportError, match="another shape"):
        imported(file, tmp_path, template, prefix="")
    assert sorted(tmp_path.iterdir()) == before


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    state = checkpoints.network().state_dict()
    next(iter(state.values())).fill_(torch.nan)
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(ModelUnusableError, match="not finite"):
        imported(tmp_path / "state.pt", tmp_path, checkpoints.template(tmp_path))


def test_numbers_that_overflow_are_found_by_the_self_test(tmp_path: Path) -> None:
    state = checkpoints.network().state_dict()
    for tensor in state.values():
        if tensor.is_floating_point():
            tensor.fill_(1e30)
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(ModelImportError, match="not finite"):
        imported(tmp_path / "state.pt", tmp_path, checkpoints.template(tmp_path))
    assert not (tmp_path / "served").exists()


def test_an_existing_folder_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    with pytest.raises(ModelImportError, match="exists already"):
        imported(small_state(tmp_path), tmp_path, checkpoints.template(tmp_path))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    source, template = small_state(tmp_path), checkpoints.template(tmp_path)
    with pytest.raises(ModelImportError, match="cannot be written"):
        imported(source, source, template)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("schema_version = 1", "schema_version = 1\nid = 'x'", "has the key id"),
        ("schema_version = 1", "schema_version = ", "template cannot be read"),
        ("schema_version = 1", "schema_version = 2", "schema_version"),
        ("schema_version = 1", "schema_version = 1\ncolour = 'red'", "colour"),
        ('"monai.UNet"', '"os.system"', "network.architecture"),
        ("in_channels = 4", "in_channels = 3", "another shape"),
        ('norm = "batch"', "norm = 7", "norm is not a known one"),
    ],
)
def test_a_template_that_cannot_be_is_refused(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    template = checkpoints.template(tmp_path, (old, new))
    with pytest.raises((ModelImportError, ModelUnusableError), match=words):
        imported(small_state(tmp_path), tmp_path, template)


def test_an_unknown_template_is_named(tmp_path: Path) -> None:
    assert importing.template_file("msd-unet").name == "msd-unet.toml"
    own = checkpoints.template(tmp_path)
    assert importing.template_file(str(own)) == own
    with pytest.raises(ModelImportError, match="built in: monai-brats-segresnet, msd-unet"):
        importing.template_file("other")


def test_a_hostile_checkpoint_gives_no_model(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path}/ran",)

    state = checkpoints.network().state_dict()
    file = tmp_path / "model.ckpt"
    torch.save({"state_dict": state, "hyper_parameters": {"model": Payload()}}, file)
    with pytest.raises(ModelImportError, match="wants to run"):
        imported(file, tmp_path, checkpoints.template(tmp_path))
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "served").exists()


# -- the same labels as the plain calls -----------------------------------------------------------


@pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")
def test_labels_are_those_of_the_plain_monai_calls_voxel_for_voxel(tmp_path: Path) -> None:
    trained = checkpoints.network()
    file = tmp_path / "model.ckpt"
    checkpoints.write_lightning(
        file, checkpoints.prefixed(trained.state_dict(), "net."), checkpoints.network()
    )
    done = imported(file, tmp_path, checkpoints.template(tmp_path))
    image = decathlon.write_image(tmp_path)
    plain = decathlon.plain_labels(image, trained, (16, 16, 16))
    assert len(np.unique(plain)) == 4
    assert np.array_equal(decathlon.node_labels(image, done.manifest), plain)


def test_a_written_model_is_read_by_the_node(tmp_path: Path) -> None:
    done = imported(small_state(tmp_path), tmp_path, checkpoints.template(tmp_path))
    found = manifest.load(tmp_path / "served")
    assert found.model_id == "imported@1.0.0"
    found.verify()
    assert self_test.run(found) == found.self_test
    assert sorted(file.name for file in found.folder.iterdir()) == [
        "import.json",
        "model.safetensors",
        "model.toml",
    ]
    assert done.manifest == found
