"""`neuroseg model`: import, list, show, verify."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from node.__main__ import main
from tests import checkpoints

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
    template = str(checkpoints.template(checkpoint.parent))
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
    assert "unet@2.0  UNet trained on" in model("list", folder).output
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
    for words in (
        "demo-glioma@",
        "DEMONSTRATION",
        "t1gd (T1gd)",
        "may be missing: t2",
        "2 x 2 x 2 mm, skull stripped",
        "64 x 80 x 64, overlap 0.5, gaussian, crop foreground",
        "label 1      Oedema (SCT 79654002 Edema)",
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
