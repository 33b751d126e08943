"""What a model folder may say, and what is refused by name."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom.sr.codedict import codes

from inference import manifest
from inference.errors import ModelUnusableError

MODELS = Path(__file__).parents[3] / "models"
DEMO = MODELS / "demo-glioma"
STRIPPED = Path(__file__).parents[2] / "stripped_model"
TEXT = (STRIPPED / "model.toml").read_text(encoding="utf-8")
DEMO_SHA256 = hashlib.sha256((DEMO / "model.safetensors").read_bytes()).hexdigest()


def folder_with(tmp_path: Path, old: str, new: str) -> Path:
    assert old in TEXT
    (tmp_path / "model.toml").write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    return tmp_path


def test_the_demonstration_model_says_what_it_is() -> None:
    found = manifest.load(DEMO)
    assert found.model_id == f"{found.id}@{found.version}"
    assert found.is_demonstration
    assert "research" in found.intended_use.lower()
    assert found.roles == ("flair", "t1", "t1gd", "t2")
    assert found.reference_role == "t1gd"
    assert found.space.spacing_mm == (1.5, 1.5, 1.5)
    assert found.space.skull == "any"
    found.verify()
    assert found.weights_sha256 == DEMO_SHA256


def test_labels_mean_what_decathlon_task01_says() -> None:
    """Documents of the reference model swap 1 and 2; reporting oedema as necrosis would follow."""
    found = manifest.load(DEMO)
    meanings = [(s.number, s.label, s.type_code.scheme, s.type_code.value) for s in found.segments]
    assert meanings == [
        (1, "Oedema", "SCT", "79654002"),
        (2, "Necrotic and non-enhancing core", "NCIt", "C81175"),
        (3, "Enhancing tumour", "NCIt", "C113842"),
    ]
    assert found.output_indices == (0, 1, 2, 3)
    for segment in found.segments:
        assert (segment.category.scheme, segment.category.value) == ("SCT", "49755003")


def test_segment_codes_stand_in_the_standards_value_set() -> None:
    standard = {
        (code.scheme_designator, code.value): code.meaning
        for code in codes.cid7169.concepts.values()
    }
    for segment in manifest.load(DEMO).segments:
        code = segment.type_code
        assert standard[code.scheme, code.value] == code.meaning
    known = (codes.SCT.Neoplasm, codes.SCT.NeoplasmPrimary)
    for region, concept in zip(manifest.load(DEMO).regions, known, strict=True):
        found = region.type_code
        expected = (concept.scheme_designator, concept.value, concept.meaning)
        assert (found.scheme, found.value, found.meaning) == expected


def test_reading_a_manifest_needs_no_torch() -> None:
    program = (
        "import sys, inference.manifest; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'monai')))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=MODELS.parent)


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('id = "stripped"', 'id = "strip ped"', "id"),
        ('id = "stripped"', 'id = "stripped"\ncolour = "red"', "colour"),
        ('id = "stripped"', 'id = "stripped"\nfolder = "/etc"', "folder"),
        ("schema_version = 1", "schema_version = 2", "schema_version"),
        ('version = "0.1.0"\n', "", "version"),
        ('file = "model.safetensors"', 'file = "../model.safetensors"', "weights.file"),
        ('file = "model.safetensors"', 'file = "/etc/passwd"', "weights.file"),
        ('file = "model.safetensors"', 'file = "a\\\\b"', "weights.file"),
        ('file = "model.safetensors"', 'file = ".."', "weights.file"),
        ('format = "safetensors"', 'format = "pickle"', "weights.format"),
        ('sha256 = "', 'sha256 = "0', "weights.sha256"),
        ('"neuroseg.ResidualUNet"', '"os.system"', "network.architecture"),
        ('role = "t1"', 'role = "T1"', "inputs.1.role"),
        ('"t1"\nsequence = "T1w"', '"flair"\nsequence = "FLAIR"', "inputs"),
        ('"t1"\nsequence = "T1w"', '"t1"\nsequence = "T2w"', "inputs.1.sequence"),
        ("contrast = true", "contrast = false", "inputs.2.contrast"),
        ('reference_role = "t1gd"', 'reference_role = "ct"', "space.reference_role"),
        ('orientation = "RAS"', 'orientation = "RLS"', "space.orientation"),
        ('orientation = "RAS"', 'orientation = "ras"', "space.orientation"),
        ('skull = "stripped"', 'skull = "stripped"\ninterpolation = "sinc"', "space.interpolation"),
        ("[2.0, 2.0, 2.0]", "[2.0, 2.0]", "space.spacing_mm.2"),
        ("[2.0, 2.0, 2.0]", "[2.0, 0.0, 2.0]", "space.spacing_mm.1"),
        ("[0.5, 99.5]", "[99.5, 0.5]", "normalise.clip_percentiles"),
        ('kind = "zscore"', 'kind = "percentile"', "normalise.percentiles"),
        ('kind = "zscore"', 'kind = "zscore"\nrange = [0.0, 1.0]', "normalise.range"),
        ('kind = "zscore"', 'kind = "zscore"\nclip = [5.0, -5.0]', "normalise.clip"),
        ('mask = "nonzero"', 'mask = "nonzero"\noutside = "dimmed"', "normalise.outside"),
        ('mask = "nonzero"', 'mask = "all"\noutside = "kept"', "normalise.outside"),
        ('crop = "foreground"', 'crop = "tumour"', "infer.crop"),
        ('crop = "foreground"', 'crop = "brain"\ncrop_margin_mm = -1.0', "infer.crop_margin_mm"),
        ('"foreground"', '"foreground"\ncrop_margin_mm = 12.0', "infer.crop_margin_mm"),
        ("overlap = 0.5", "overlap = 1.0", "infer.overlap"),
        ("overlap = 0.5", "overlap = 0.5\ntta_axes = [0, 0]", "infer.tta_axes"),
        ("overlap = 0.5", "overlap = 0.5\ntta_axes = [3]", "infer.tta_axes.0"),
        ("overlap = 0.5", "overlap = 0.5\nmultiple_of = 32", "infer.window"),
        ("window = [64,", "window = [0,", "infer.window.0"),
        ('activation = "softmax"', 'activation = "sigmoid"', "output.background_index"),
        ("number = 2", "number = 4", "labels"),
        ("output_index = 2", "output_index = 3", "labels"),
        ("background_index = 0", "background_index = 1", "labels"),
        ('allowed = ["t2"]', 'allowed = ["ct"]', "missing_input.allowed"),
        ('allowed = ["t2"]', 'allowed = ["t1gd"]', "missing_input.allowed"),
        ('allowed = ["t2"]', "allowed = []", "missing_input.policy"),
        ("[255, 217, 61]", "[256, 217, 61]", "labels.0.color_rgb.0"),
        ("number = 1", "number = 1\nthreshold = 0.4", "labels.threshold"),
        ("labels = [1, 2, 3]", "labels = [1, 2, 4]", "regions.labels"),
        ('label = "Whole tumour"', 'label = "Oedema"', "labels"),
        (
            "background_index = 0",
            'background_index = 0\n[postprocess]\nclip_to_brain = "often"',
            "postprocess.clip_to_brain",
        ),
        (
            "background_index = 0",
            "background_index = 0\n[[postprocess.fill_holes]]\nlabels = [3]\nbecomes = 4",
            "postprocess.fill_holes",
        ),
        (
            "background_index = 0",
            "background_index = 0\n[self_test]\nseed = 1\nscore_means = [0.0]\nshares = [1.0]",
            "self_test",
        ),
    ],
)
def test_a_manifest_that_cannot_be_is_refused_naming_the_key(
    tmp_path: Path, old: str, new: str, field: str
) -> None:
    with pytest.raises(ModelUnusableError) as caught:
        manifest.load(folder_with(tmp_path, old, new))
    assert caught.value.evidence["field"] == field
    assert caught.value.evidence["reason"]


CLIPS = "background_index = 0\n[postprocess]\nclip_to_brain = "


@pytest.mark.parametrize(
    ("old", "new", "keys"),
    [
        ("[space]", "[space]", ()),
        ('mask = "nonzero"', 'mask = "brain"', ("normalise.mask",)),
        ('crop = "foreground"', 'crop = "brain"\ncrop_margin_mm = 12.0', ("infer.crop",)),
        ("background_index = 0", f"{CLIPS}true", ("postprocess.clip_to_brain",)),
        ("background_index = 0", f"{CLIPS}false", ()),
        ('skull = "any"', 'skull = "stripped"', ("space.skull", "postprocess.clip_to_brain")),
    ],
)
def test_what_asks_for_the_brain_is_named(
    tmp_path: Path, old: str, new: str, keys: tuple[str, ...]
) -> None:
    text = TEXT.replace('skull = "stripped"', 'skull = "any"')
    assert old in text
    (tmp_path / "model.toml").write_text(text.replace(old, new, 1), encoding="utf-8")
    found = manifest.load(tmp_path)
    assert found.needs_brain_for == keys
    assert found.clips_to_brain == ("postprocess.clip_to_brain" in keys)


def test_a_model_for_stripped_images_may_keep_what_it_finds_outside(tmp_path: Path) -> None:
    found = manifest.load(folder_with(tmp_path, "background_index = 0", f"{CLIPS}false"))
    assert not found.clips_to_brain
    assert found.needs_brain_for == ("space.skull",)


def test_regions_of_a_sigmoid_model_have_no_background(tmp_path: Path) -> None:
    text = TEXT.replace('activation = "softmax"', 'activation = "sigmoid"')
    for index in (1, 2, 3):
        text = text.replace(f"output_index = {index}", f"output_index = {index - 1}")
    (tmp_path / "model.toml").write_text(text.replace("background_index = 0\n", ""))
    found = manifest.load(tmp_path)
    assert found.output_indices == (0, 1, 2)
    assert found.output_channel_count == 3


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusableError) as caught:
        manifest.load(tmp_path)
    assert caught.value.evidence["field"] == "model.toml"


@pytest.mark.parametrize(
    "content",
    [
        b"id = ",
        b"\xff\xfe",
        b"id = " + b"[" * 5000,
        b"id = " + b"{a = " * 3000,
        b"id = " + b"9" * 5000,
        b"#" * (2**20 + 1),
    ],
    ids=["empty value", "not UTF-8", "nested lists", "nested tables", "endless number", "large"],
)
def test_a_manifest_that_is_not_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.toml").write_bytes(content)
    with pytest.raises(ModelUnusableError) as caught:
        manifest.load(tmp_path)
    assert caught.value.evidence["field"] == "model.toml"


def test_labels_may_stand_in_another_order_than_the_networks_channels(tmp_path: Path) -> None:
    text = TEXT.replace("output_index = 1", "output_index = 9").replace(
        "output_index = 3", "output_index = 1"
    )
    (tmp_path / "model.toml").write_text(text.replace("output_index = 9", "output_index = 3"))
    assert manifest.load(tmp_path).output_indices == (0, 3, 2, 1)


def test_absent_weights_are_found_by_verifying_only(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(TEXT, encoding="utf-8")
    found = manifest.load(tmp_path)
    with pytest.raises(ModelUnusableError) as caught:
        found.verify()
    assert caught.value.evidence["field"] == "weights.file"


def test_weights_with_one_bit_changed_are_refused(tmp_path: Path) -> None:
    shutil.copy(DEMO / "model.toml", tmp_path)
    content = bytearray((DEMO / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelUnusableError) as caught:
        manifest.load(tmp_path).verify()
    assert caught.value.evidence["field"] == "weights.sha256"


def test_a_manifest_cannot_be_changed_once_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        manifest.load(DEMO).version = "2"
