"""A result of nnU-Net is read as data: plans, data set, one fold's weights."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from inference import description, importing, nnunet, weights
from inference.errors import ModelImportError, ModelUnusableError
from inference.importing import Identity, Imported
from tests import nnunet_results
from tests.nnunet_results import DATASET, OLDER, PLANS, REGIONS, changed

FULL = "configurations/3d_fullres"


def imported(source: Path, template: Path | None = None, **options: str) -> Imported:
    return importing.import_model(
        source,
        source.parent / "served",
        template,
        identity=Identity(model_id="nnunet", version="1"),
        **options,
    )


def reason_of(source: Path, template: Path | None = None, **options: str) -> str:
    with pytest.raises(ModelImportError) as caught:
        imported(source, template, **options)
    assert not (source.parent / "served").exists()
    return str(caught.value.evidence["reason"])


def test_a_result_becomes_a_model_without_a_template(tmp_path: Path) -> None:
    done = imported(nnunet_results.write(tmp_path))
    found = done.manifest
    assert found.network.architecture == "dynamic.PlainConvUNet"
    assert found.roles == ("flair", "t1", "t1gd", "t2")
    # z, y, x of files whose x, y, z grow to the left, to the back and up
    assert (found.space.orientation, found.space.spacing_mm) == ("SPL", (2.0, 1.0, 1.0))
    assert (found.space.skull, found.space.interpolation) == ("stripped", "cubic")
    assert (found.normalise.kind, found.normalise.mask) == ("zscore", "nonzero")
    plan = found.infer
    assert (plan.window, plan.overlap, plan.blending) == ((16, 24, 24), 0.5, "gaussian")
    assert plan.tta_axes == (0, 2)
    codes = [(one.output_index, one.type_code.value) for one in found.labels]
    assert codes == [(1, "79654002"), (2, "C81175"), (3, "C113842")]
    assert [one.labels for one in found.regions] == [(1, 2, 3), (2, 3)]
    assert (found.title, found.licence) == ("BRATS", "CC-BY-SA 4.0")
    assert found.provenance is not None
    assert found.provenance.source == f"{nnunet_results.NAME}/fold_0/checkpoint_final.pth"
    assert str(tmp_path) not in (found.folder / "model.toml").read_text()
    assert str(tmp_path) not in (found.folder / "import.json").read_text()


@pytest.mark.parametrize("is_residual", [False, True])
def test_the_served_network_gives_the_finest_output_of_the_trained_one(
    tmp_path: Path, *, is_residual: bool
) -> None:
    trained = nnunet_results.network(is_residual=is_residual).eval()
    plans = PLANS
    if is_residual:
        architecture = dict(nnunet_results.ARCHITECTURE)
        kwargs = dict(architecture["arch_kwargs"])
        kwargs["n_blocks_per_stage"] = kwargs.pop("n_conv_per_stage")
        name = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
        architecture |= {"network_class_name": name, "arch_kwargs": kwargs}
        plans = changed(PLANS, f"{FULL}/architecture", architecture)
    done = imported(nnunet_results.write(tmp_path, trained, plans=plans))
    served = weights.filled(done.manifest.network, done.manifest.read_weights())
    image = torch.randn(1, 4, 16, 24, 24, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(served(image), trained(image)[0])


@pytest.mark.parametrize("configuration", ["3d_bs4", "older"])
def test_inherited_and_older_plans_say_the_same_network(tmp_path: Path, configuration: str) -> None:
    first = imported(nnunet_results.write(tmp_path / "a")).manifest
    other = imported(nnunet_results.write(tmp_path / "b", configuration=configuration)).manifest
    assert first.network == other.network
    assert first.weights_sha256 == other.weights_sha256


def test_older_residual_plans_count_blocks(tmp_path: Path) -> None:
    older = {**PLANS["configurations"]["older"], **OLDER, "UNet_class_name": "ResidualEncoderUNet"}
    plans = changed(PLANS, "configurations/older", older)
    trained = nnunet_results.network(is_residual=True)
    done = imported(nnunet_results.write(tmp_path, trained, plans=plans, configuration="older"))
    assert done.manifest.network.architecture == "dynamic.ResidualEncoderUNet"
    assert done.manifest.network.kwargs["n_blocks_per_stage"] == [2, 2, 2]


def test_regions_are_painted_in_their_order(tmp_path: Path) -> None:
    root = nnunet_results.write(tmp_path, nnunet_results.network(3), dataset=REGIONS)
    found = imported(root).manifest
    assert (found.output.activation, found.output.background_index) == ("sigmoid", None)
    painted = [(one.number, one.output_index, one.label) for one in found.labels]
    assert painted == [
        (1, 0, "Oedema"),
        (2, 1, "Necrotic and non-enhancing core"),
        (3, 2, "Enhancing tumour"),
    ]


@pytest.mark.parametrize(
    ("reader", "turned", "orientation"),
    [
        ("SimpleITKIO", [0, 1, 2], "SPL"),
        ("SimpleITKIO", [2, 0, 1], "LSP"),
        ("NibabelIOWithReorient", [1, 0, 2], "ASR"),
    ],
)
def test_axes_follow_reader_and_transposition(
    tmp_path: Path, reader: str, turned: list[int], orientation: str
) -> None:
    plans = {**PLANS, "image_reader_writer": reader, "transpose_forward": turned}
    root = nnunet_results.write(tmp_path, plans=plans)
    found = nnunet.describe(root, {"inference_allowed_mirroring_axes": [1]})
    assert found.presumed["space"]["orientation"] == orientation
    assert ("orientation" in found.said["space"]) == reader.endswith("Reorient")
    assert found.presumed["infer"]["tta_axes"] == [1]


def test_the_fold_is_the_only_one_or_that_of_all_or_asked_for(tmp_path: Path) -> None:
    root = nnunet_results.write(tmp_path, folds=("0", "3"))
    assert "which fold is not said; with a checkpoint_final.pth: 0, 3" in reason_of(root)
    assert "there is no fold 1; " in reason_of(root, fold="1")
    assert nnunet.checkpoint_file(root, "3") == root / "fold_3/checkpoint_final.pth"
    (root / "fold_0").rename(root / "fold_all")
    assert nnunet.checkpoint_file(root).parent.name == "fold_all"
    assert nnunet.checkpoint_file(root, "fold_3").parent.name == "fold_3"
    with pytest.raises(ModelImportError, match="only a result folder of nnU-Net has folds"):
        imported(root / "fold_3/checkpoint_final.pth", fold="3")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (f"{FULL}/normalization_schemes", ["CTNormalization"] * 4, "CTNormalization, expected"),
        (f"{FULL}/normalization_schemes", None, "normalization_schemes or use_mask_for_norm"),
        (f"{FULL}/use_mask_for_norm", [True, False, True, True], "use_mask_for_norm differs"),
        (f"{FULL}/patch_size", [192, 160], "patch_size has not three numbers"),
        (f"{FULL}/inherits_from", "absent", "no configuration absent; it has 2d, 3d_fullres"),
        (f"{FULL}/architecture/network_class_name", "os.system", "network_class_name is os.system"),
        (f"{FULL}/architecture/arch_kwargs", [], "arch_kwargs is missing or no table"),
        ("image_reader_writer", "Tiff3DIO", "image_reader_writer is Tiff3DIO, expected one of"),
        ("transpose_forward", [0, 1], "transpose_forward"),
        ("configurations", [], "configurations is missing or no table"),
    ],
)
def test_plans_that_cannot_be_served_are_refused_by_name(
    tmp_path: Path, path: str, value: object, words: str
) -> None:
    root = nnunet_results.write(tmp_path, plans=changed(PLANS, path, value))
    with pytest.raises(ModelImportError) as caught:
        nnunet.describe(root, {})
    assert words in str(caught.value)


def test_malformed_plans_are_refused(tmp_path: Path) -> None:
    root = nnunet_results.write(tmp_path, plans={**PLANS, "transpose_forward": 3})
    assert "its plans or metadata are malformed (TypeError)" in reason_of(root)
    (root / "plans.json").write_text("{")
    assert "plans.json cannot be read" in reason_of(root)


def test_classes_are_looked_up_and_never_imported(tmp_path: Path) -> None:
    plans = changed(PLANS, f"{FULL}/architecture/arch_kwargs/conv_op", "os.system")
    with pytest.raises(ModelUnusableError, match="conv_op: no known class"):
        imported(nnunet_results.write(tmp_path, plans=plans))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (changed(DATASET, "labels/cyst", 4), "'cyst' is missing a label code"),
        (changed(DATASET, "labels/edema", 5), "not numbered 1, 2, ..."),
        (changed(DATASET, "channel_names/1", "ADC"), "input channel 1 is called 'ADC'"),
        (changed(DATASET, "labels", 3), "labels is missing or no table"),
        (changed(REGIONS, "regions_class_order", [1]), "regions_class_order"),
        (changed(REGIONS, "labels/tumor core", [2, 4]), "do not lie within each other"),
    ],
)
def test_data_sets_that_cannot_be_served_are_refused_by_name(
    tmp_path: Path, content: dict[str, Any], words: str
) -> None:
    root = nnunet_results.write(tmp_path, dataset=content)
    with pytest.raises(ModelImportError) as caught:
        description.completed(nnunet.describe(root, {}), {})
    assert words in str(caught.value)


def test_a_template_says_what_unknown_names_mean(tmp_path: Path) -> None:
    dataset = {**DATASET, "labels": {"background": 0, "a": 1, "b": 2, "enhancing": 3, "ignore": 4}}
    text = importing.template_file("msd-unet").read_text(encoding="utf-8")
    start, end = text.index("[[inputs]]"), text.index("[normalise]")
    own = f"{text[start:end]}{text[text.index('[[labels]]') :]}"
    file = tmp_path / "template.toml"
    file.write_text(own.replace("spacing_mm = [1.0, 1.0, 1.0]\n", ""), encoding="utf-8")
    root = nnunet_results.write(tmp_path, dataset=dataset)
    found = imported(root, file).manifest
    assert found.space.orientation == "RAS"  # the template's; nnU-Net's is only presumed
    assert [one.label for one in found.labels][1] == "Necrotic and non-enhancing core"
    file.write_text(own, encoding="utf-8")
    (tmp_path / "served").rename(tmp_path / "first")
    assert "space.spacing_mm is [2.0, 1.0, 1.0] in the source" in reason_of(root, file)


def test_folder_and_checkpoint_must_be_of_one_configuration(tmp_path: Path) -> None:
    root = nnunet_results.write(tmp_path)
    other = root.rename(tmp_path / "nnUNetTrainer__nnUNetPlans__3d_bs4")
    assert "of the configuration 3d_bs4, the checkpoint of 3d_fullres" in reason_of(other)
    renamed = other.rename(tmp_path / "mine")
    assert imported(renamed).manifest.infer.window == (16, 24, 24)
    cascade = nnunet_results.write(tmp_path, configuration="3d_cascade_fullres")
    (tmp_path / "served").rename(tmp_path / "first")
    assert "cascade" in reason_of(cascade)


def test_a_hostile_result_runs_nothing(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path}/ran",)

    root = nnunet_results.write(tmp_path)
    (root / "postprocessing.pkl").write_bytes(pickle.dumps(Payload()))
    assert imported(root).manifest.model_id == "nnunet@1"  # the pickle is never opened
    assert not (tmp_path / "ran").exists()
    hostile = nnunet_results.write(tmp_path / "hostile", init_args={"plans": Payload()})
    assert "wants to run" in reason_of(hostile)
    assert not (tmp_path / "ran").exists()
    torch.load(hostile / "fold_0/checkpoint_final.pth", weights_only=False)  # a live one
    assert (tmp_path / "ran").exists()
