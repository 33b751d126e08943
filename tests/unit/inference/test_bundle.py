"""A MONAI bundle is read as data: metadata and network, and nothing in it is evaluated."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets.segresnet import SegResNet

from inference import importing, weights
from inference.errors import ModelImportError
from inference.importing import Identity, Imported

# As in the zoo's brats_mri_segmentation 0.3.0, with fewer filters and blocks.
NETWORK: dict[str, Any] = {
    "_target_": "SegResNet",
    "blocks_down": [1, 1],
    "blocks_up": [1],
    "init_filters": 8,
    "in_channels": 4,
    "out_channels": 3,
    "dropout_prob": 0.2,
}
METADATA: dict[str, Any] = {
    "version": "0.3.0",
    "description": "A pre-trained model",
    "intended_use": "This is an example, not to be used for diagnostic purposes",
    "data_source": "BraTS 2018",
    "network_data_format": {
        "inputs": {
            "image": {
                "num_channels": 4,
                "channel_def": {"0": "T1c", "1": "T1", "2": "T2", "3": "FLAIR"},
            }
        },
        "outputs": {
            "pred": {
                "num_channels": 3,
                "channel_def": {"0": "Tumor core", "1": "Whole tumor", "2": "Enhancing tumor"},
            }
        },
    },
}
EXECUTABLE = {
    "imports": ["$import os"],
    "network": "$@network_def.to(@device)",
    "postprocessing": {"_target_": "Lambdad", "func": "$lambda x: torch.where(x[[2]] > 0, 4, 0)"},
}


def write(
    folder: Path, network: object = NETWORK, metadata: dict[str, Any] = METADATA, **more: object
) -> Path:
    """Write a bundle with the weights of the network above, and return its folder."""
    root = folder / "brats_mri_segmentation"
    (root / "configs").mkdir(parents=True)
    (root / "models").mkdir()
    (root / "configs/metadata.json").write_text(json.dumps(metadata))
    content = {**EXECUTABLE, "network_def": network, **more}
    (root / "configs/inference.json").write_text(json.dumps(content))
    torch.manual_seed(3)
    trained = SegResNet(**{key: one for key, one in NETWORK.items() if key != "_target_"})
    torch.save(trained.state_dict(), root / "models/model.pt")
    return root


def template(folder: Path, *changes: tuple[str, str]) -> Path:
    text = importing.template_file("monai-brats-segresnet").read_text(encoding="utf-8")
    smaller = (
        ("[240, 240, 160]", "[24, 16, 16]"),
        ("init_filters = 16", "init_filters = 8"),
        ("blocks_down = [1, 2, 2, 4]", "blocks_down = [1, 1]"),
        ("blocks_up = [1, 1, 1]", "blocks_up = [1]"),
    )
    for old, new in (*smaller, *changes):
        assert old in text
        text = text.replace(old, new, 1)
    file = folder / "template.toml"
    file.write_text(text, encoding="utf-8")
    return file


def imported(source: Path, *changes: tuple[str, str]) -> Imported:
    return importing.import_model(
        source,
        source.parent / "served",
        template(source.parent, *changes),
        identity=Identity(model_id="zoo"),
    )


def reason_of(source: Path, *changes: tuple[str, str]) -> str:
    with pytest.raises(ModelImportError) as caught:
        imported(source, *changes)
    assert not (source.parent / "served").exists()
    return str(caught.value.evidence["reason"])


def test_a_bundle_of_the_zoo_becomes_a_model(tmp_path: Path) -> None:
    done = imported(write(tmp_path))
    found = done.manifest
    assert found.model_id == "zoo@0.3.0"
    assert found.title == "A pre-trained model"
    assert found.roles == ("t1gd", "t1", "t2", "flair")
    assert found.output.activation == "sigmoid"
    painted = [(one.number, one.output_index, one.type_code.value) for one in found.labels]
    assert painted == [(1, 1, "79654002"), (2, 0, "C81175"), (3, 2, "C113842")]
    assert (found.space.orientation, found.space.spacing_mm) == ("LPS", (1.0, 1.0, 1.0))
    assert found.provenance is not None
    assert found.provenance.source == "brats_mri_segmentation/models/model.pt"
    assert found.provenance.training_data == "BraTS 2018"
    assert found.provenance.digest == f"sha256:{done.report.source_sha256}"
    assert done.report.kind == "bundle"
    trained = torch.load(tmp_path / "brats_mri_segmentation/models/model.pt", weights_only=True)
    served = weights.filled(found.network, found.read_weights()).state_dict()
    assert served.keys() == trained.keys()
    assert all(torch.equal(served[name], trained[name]) for name in trained)


@pytest.mark.parametrize("name", ["inference.yaml", "train.json"])
def test_other_files_and_plain_references_are_read(tmp_path: Path, name: str) -> None:
    network = {
        **NETWORK,
        "_target_": "monai.networks.nets.SegResNet",
        "in_channels": "@channels",
        "blocks_down": "@blocks::down",
    }
    root = write(tmp_path, network, channels=4, blocks={"down": [1, 1]})
    (root / "configs/inference.json").rename(root / "configs" / name)  # JSON is YAML
    assert imported(root).manifest.network.kwargs["blocks_down"] == [1, 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"in_channels": "$2 * 2"}, "network_def.in_channels is an expression"),
        ({"in_channels": "@other"}, "network_def.in_channels is an expression"),
        ({"in_channels": "@absent"}, "network_def.in_channels refers to something"),
        ({"in_channels": "@loop"}, "network_def.in_channels refers to itself"),
        ({"blocks_down": "@many"}, "network_def.blocks_down refers to itself, or is too large"),
        ({"norm": {"_target_": "os.system"}}, "network_def.norm._target_ asks for a call"),
        ({"act": ["RELU", {"inplace": "$exit()"}]}, "network_def.act.inplace is an expression"),
        ({"norm": "%other.json#norm"}, "network_def.norm is an expression"),
        ({"_target_": "os.system"}, "network_def._target_ is os.system, expected one of"),
        ({"_target_": "scripts.networks.SegResNet"}, "network_def._target_"),
        ({"_target_": "$SegResNet"}, "network_def._target_"),
        ({"_disabled_": True}, "_disabled_"),
        ({"dropout_prob": None, "init_filters": None}, "network_def.init_filters is null"),
        ({"out_channels": 2}, "names 3 channels, network_def says 2"),
    ],
)
def test_what_would_have_to_be_evaluated_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    more: dict[str, Any] = {"other": "$open('ran', 'w')", "loop": "@loop", "many": ["@few"] * 200}
    root = write(tmp_path, {**NETWORK, **change}, **more, few=["@one"] * 200, one=1)
    assert words in reason_of(root)


def test_a_network_that_is_an_expression_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    root = write(tmp_path, f"$open({str(marker)!r}, 'w')")
    assert "network_def is no table" in reason_of(root)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("init_filters = 8", "init_filters = 16", "network.kwargs.init_filters is 8 in the source"),
        ('"monai.SegResNet"', '"monai.UNet"', "network.architecture is monai.SegResNet"),
        ('role = "t1"\nsequence = "T1w"', 'role = "dwi"\nsequence = "DWI"', "inputs is"),
        ('activation = "sigmoid"', 'activation = "softmax"', "output.activation is sigmoid"),
        ("output_index = 1", "output_index = 0", "labels.output_index"),
        ('"79654002"', '"C113842"', "'Whole tumor' in the source, label 1 (Oedema)"),
    ],
)
def test_a_template_that_contradicts_the_bundle_is_refused_by_name(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    assert words in reason_of(write(tmp_path), (old, new))


def test_what_a_bundle_cannot_say_has_to_come_from_a_template(tmp_path: Path) -> None:
    with pytest.raises(ModelImportError, match="does not say space, normalise, infer; a template"):
        importing.import_model(
            write(tmp_path), tmp_path / "served", identity=Identity(model_id="zoo")
        )


def test_unknown_names_are_refused_where_no_template_says_them(tmp_path: Path) -> None:
    text = json.dumps(METADATA)
    root = write(tmp_path, metadata=json.loads(text.replace('"FLAIR"', '"DWI"')))
    assert imported(root).manifest.roles[3] == "flair"  # the template knows better
    with pytest.raises(ModelImportError, match="input channel 3 is called 'DWI'"):
        importing.import_model(root, tmp_path / "a", identity=Identity(model_id="zoo"))
    changed = json.loads(text.replace('"Tumor core"', '"Cyst"'))
    (root / "configs/metadata.json").write_text(json.dumps(changed))
    with pytest.raises(ModelImportError, match="missing a label code"):
        importing.import_model(root, tmp_path / "b", identity=Identity(model_id="zoo"))


def test_a_damaged_bundle_is_refused_in_words(tmp_path: Path) -> None:
    root = write(tmp_path)
    (root / "configs/inference.json").write_text("{")
    assert "inference.json cannot be read" in reason_of(root)
    (root / "configs/inference.json").unlink()
    assert "no network_def" in reason_of(root)
    (root / "configs/metadata.json").write_text('{"network_data_format": {"inputs": []}}')
    (root / "configs/train.json").write_text(json.dumps({"network_def": NETWORK}))
    assert "metadata.json is missing or no table" in reason_of(root)
    (root / "models/model.pt").unlink()
    assert "no weights, expected one of models/model.pt" in reason_of(root)
    (root / "configs/metadata.json").unlink()
    assert "neither configs/metadata.json" in reason_of(root)


def test_hostile_weights_in_a_bundle_are_refused(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path}/ran",)

    root = write(tmp_path)
    torch.save({"model": {"a": torch.ones(1)}, "hook": Payload()}, root / "models/model.pt")
    assert "wants to run" in reason_of(root)
    assert not (tmp_path / "ran").exists()
    torch.load(root / "models/model.pt", weights_only=False)  # the payload is a live one
    assert (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore:Converting a tensor")
def test_torchscript_weights_of_a_bundle_are_read(tmp_path: Path) -> None:
    root = write(tmp_path)
    trained = SegResNet(**{key: one for key, one in NETWORK.items() if key != "_target_"}).eval()
    traced = torch.jit.trace(trained, torch.zeros(1, 4, 16, 16, 16))  # type: ignore[no-untyped-call]
    torch.jit.save(traced, root / "models/model.ts")
    (root / "models/model.pt").unlink()
    done = imported(root)
    assert done.report.place == "program"
    served = weights.filled(done.manifest.network, done.manifest.read_weights())
    image = torch.randn(1, 4, 16, 24, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(served(image), trained(image))


def test_the_template_of_the_zoo_builds(tmp_path: Path) -> None:
    """The published size, without running its large window."""
    published = SegResNet(init_filters=16, in_channels=4, out_channels=3, dropout_prob=0.2)
    source = tmp_path / "model.pt"
    torch.save(published.state_dict(), source)
    text = importing.template_file("monai-brats-segresnet").read_text(encoding="utf-8")
    file = tmp_path / "template.toml"
    file.write_text(text.replace("[240, 240, 160]", "[32, 32, 32]"), encoding="utf-8")
    done = importing.import_model(
        source, tmp_path / "served", file, identity=Identity(model_id="zoo", version="0.3.0")
    )
    assert done.report.parameter_count == sum(one.numel() for one in published.parameters())
