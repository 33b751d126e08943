"""`neuroseg model`: import, list, show, verify."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from converters import nifti
from converters.volume import Grid, LabelMap, Volume
from inference import manifest
from node.__main__ import main
from tests import checkpoints, nnunet_results

ROOT = Path(__file__).parents[3]
DEMO = ROOT / "models" / "demo-glioma"


def model(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["model", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Return a Lightning checkpoint with a loss weight beside the network."""
    trained = checkpoints.network()
    state = checkpoints.prefixed(trained.state_dict(), "net.")
    state["loss.weight"] = torch.ones(4)
    checkpoints.write_lightning(tmp_path / "last.ckpt", state, trained)
    return tmp_path / "last.ckpt"


def imported(checkpoint: Path, *more: str) -> Result:
    template = str(checkpoints.template(checkpoint.parent, ('"stripped"', '"any"')))
    options = ("--template", template, "--id", "unet", "--version", "2.0", *more)
    return model("import", checkpoint, *options, "-o", checkpoint.parent / "models" / "unet")


def test_a_checkpoint_becomes_a_model_that_can_be_listed_shown_and_verified(
    checkpoint: Path,
) -> None:
    done = imported(checkpoint)
    assert done.exit_code == 0
    assert "unet@2.0 is in" in done.output
    assert "norm layers  batch" in done.output
    assert "taken from   state_dict, names below 'net.'" in done.output
    assert "left aside   loss.weight" in done.output
    assert "not called   __builtin__.dict" in done.output
    assert "omegaconf.base" in done.output
    folder = checkpoint.parent / "models"
    listed = model("list", folder).output
    assert listed.splitlines()[0].split() == ["folder", "model", "what"]
    assert "unet@2.0  UNet trained on" in listed
    (known,) = json.loads(model("list", folder, "--json").output)
    assert known["model"] == "unet@2.0"
    assert "as declared" in model("verify", folder / "unet").output


def test_an_import_that_is_refused_says_why_and_what_to_do(checkpoint: Path) -> None:
    done = imported(checkpoint, "--prefix", "ema")
    assert done.exit_code == 1
    assert done.output.startswith("MODEL_IMPORT_REFUSED: the model cannot be imported: ")
    assert "docs/models.md" in done.output
    assert not list((checkpoint.parent / "models").glob("*"))


def test_show_tells_what_a_model_declares() -> None:
    shown = model("show", DEMO)
    assert shown.exit_code == 0
    declared = json.loads(model("show", DEMO, "--json").output)
    assert declared["model"].startswith("demo-glioma@")
    assert declared["missing_input"]["allowed"] == ["t2"]
    for words in (
        "demo-glioma@",
        "DEMONSTRATION",
        "t1gd (T1gd)",
        "may be missing: t2",
        "1.5 x 1.5 x 1.5 mm, skull any",
        "80 x 96 x 80, overlap 0.5, gaussian, crop brain",
        "label 1      Oedema (SCT 79654002 Edema)",
        "from         not stated",
    ):
        assert words in shown.output


def test_list_names_what_cannot_be_used_and_goes_on(checkpoint: Path) -> None:
    assert imported(checkpoint).exit_code == 0
    folder = checkpoint.parent / "models"
    (folder / "broken").mkdir()
    (folder / "broken" / "model.toml").write_text("id = ", encoding="utf-8")
    listed = model("list", folder)
    assert listed.exit_code == 0
    assert "MODEL_UNUSABLE" in listed.output
    assert "unet@2.0" in listed.output
    assert "demo-glioma@" in model("list", ROOT / "models").output


def test_damaged_weights_fail_verification(checkpoint: Path) -> None:
    assert imported(checkpoint).exit_code == 0
    weights = checkpoint.parent / "models" / "unet" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    verified = model("verify", weights.parent)
    assert verified.exit_code == 1
    assert "weights.sha256" in verified.output


def test_a_result_of_nnunet_is_recognised_by_itself(tmp_path: Path) -> None:
    root = nnunet_results.write(tmp_path, folds=("0", "1"))
    options = ("--id", "nnunet", "--version", "1", "-o", tmp_path / "served")
    refused = model("import", root, *options)
    assert refused.exit_code == 1
    assert "which fold is not said" in refused.output
    done = model("import", root, "--fold", "1", "--source-name", "our training 7", *options)
    assert done.exit_code == 0
    assert "source       our training 7 (nnunet)" in done.output
    provenance = manifest.load(tmp_path / "served").provenance
    assert provenance is not None
    assert provenance.source == "our training 7"


def test_a_checkpoint_alone_needs_a_template_and_a_version(checkpoint: Path) -> None:
    out = ("-o", checkpoint.parent / "served")
    refused = model("import", checkpoint, "--id", "a", "--version", "1", *out)
    assert refused.exit_code == 1
    assert "does not say inputs, network, space" in refused.output
    refused = model("import", checkpoint, "--id", "a", "--template", "msd-unet", *out)
    assert "says no version" in refused.output


# -- model test -----------------------------------------------------------------------------------


@pytest.fixture
def folder(checkpoint: Path) -> Path:
    """Return the folder of a model that was imported."""
    assert imported(checkpoint).exit_code == 0
    return checkpoint.parent / "models" / "unet"


def test_the_self_test_is_printed_and_compared_with_its_record(folder: Path) -> None:
    done = model("test", folder)
    assert done.exit_code == 0
    assert "as recorded" in done.output
    shown = json.loads(model("test", folder, "--json").output)
    assert shown["as_recorded"] is True
    assert sum(shown["shares"]) == pytest.approx(1.0, abs=1e-5)
    file = folder / "model.toml"
    text = file.read_text()
    mean = f"score_means = [{shown['score_means'][0]}"
    assert mean in text
    file.write_text(text.replace(mean, f"score_means = [{shown['score_means'][0] + 0.01}"))
    failed = model("test", folder)
    assert failed.exit_code == 1
    assert "self_test.score_means: output channel 0 gives" in failed.output
    assert model("verify", folder).exit_code == 1
    file.write_text(text[: text.index("[self_test]")])
    assert "nothing recorded" in model("test", folder).output


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Return a small 4-D image."""
    grid = Grid(shape=(18, 20, 22), index_to_lps_mm=np.eye(4), frame_of_reference_uid="")
    rng = np.random.default_rng(2)
    volumes = [
        Volume(intensities=rng.normal(size=grid.shape).astype(np.float32), grid=grid, role=role)
        for role in ("flair", "t1", "t1gd", "t2")
    ]
    nifti.write_channels(volumes, tmp_path / "image.nii.gz")
    return tmp_path / "image.nii.gz"


def test_an_image_gives_volumes_and_its_truth_dice(folder: Path, image: Path) -> None:
    first = json.loads(model("test", folder, "--input", image, "--json").output)
    volumes = {one["name"]: one["volume_ml"] for one in first["findings"]}
    labels = [one["volume_ml"] for one in first["findings"] if not one["is_region"]]
    assert volumes["Whole tumour"] == pytest.approx(sum(labels))
    assert sum(labels) > 0.1
    declared = manifest.load(folder)
    grid = nifti.read_channels(image, declared.roles)[0].grid
    truth = LabelMap(
        labels=np.ones(grid.shape, np.uint8),
        grid=grid,
        segments=declared.segments,
        model_id=declared.model_id,
    )
    nifti.write_label_map(truth, image.with_name("truth.nii.gz"))
    options = ("--input", image, "--truth", image.with_name("truth.nii.gz"))
    second = json.loads(model("test", folder, *options, "--json").output)
    by_name = {one["name"]: one for one in second["findings"]}
    whole_ml = grid.voxel_volume_mm3 * truth.labels.size / 1000
    found_ml = volumes["Whole tumour"]
    assert by_name["Whole tumour"]["dice"] == pytest.approx(2 * found_ml / (found_ml + whole_ml))
    assert by_name["Tumour core"]["dice"] == 0.0
    table = model("test", folder, *options)
    assert table.exit_code == 0
    assert "region Whole tumour" in table.output
    assert "Dice 0.000" in table.output


def test_an_image_is_asked_for_its_brain_where_the_model_needs_it(
    folder: Path, image: Path
) -> None:
    file = folder / "model.toml"
    text = file.read_text()
    assert 'crop = "none"' in text
    file.write_text(text.replace('crop = "none"', 'crop = "brain"\ncrop_margin_mm = 12.0'))
    mask = ("--brain-mask", ROOT / "models" / "brain-mask")
    refused = model("test", folder, "--input", image, *mask)
    assert refused.exit_code == 1
    assert refused.output.startswith("BRAIN_NOT_FOUND")


def test_a_truth_elsewhere_or_alone_is_refused(folder: Path, image: Path) -> None:
    declared = manifest.load(folder)
    grid = Grid(shape=(18, 20, 21), index_to_lps_mm=np.eye(4), frame_of_reference_uid="")
    truth = LabelMap(
        labels=np.zeros(grid.shape, np.uint8),
        grid=grid,
        segments=declared.segments,
        model_id=declared.model_id,
    )
    file = image.with_name("truth.nii.gz")
    nifti.write_label_map(truth, file)
    refused = model("test", folder, "--input", image, "--truth", file)
    assert refused.exit_code == 1
    assert "another grid" in refused.output
    assert model("test", folder, "--truth", file).exit_code == 2
    assert "3 dimensions, expected 4" in model("test", folder, "--input", file).output
