"""Loading is strict: a model that was not declared so does not run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
import safetensors.torch
import torch
from torch import Tensor

from inference import checkpoints, manifest, model
from inference.errors import ModelImportError, ModelUnusableError

Change: TypeAlias = Callable[[dict[str, Tensor]], object]

DEMO = Path(__file__).parents[3] / "models" / "demo-glioma"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(DEMO / "model.toml", tmp_path)
    shutil.copy(DEMO / "model.safetensors", tmp_path)
    return tmp_path


def declare(folder: Path, old: str, new: str) -> None:
    file = folder / "model.toml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def give_weights(folder: Path, content: bytes) -> None:
    digest = manifest.load(folder).weights_sha256
    (folder / "model.safetensors").write_bytes(content)
    declare(folder, digest, hashlib.sha256(content).hexdigest())


def field_of_refusal(folder: Path) -> tuple[str, str]:
    with pytest.raises(ModelUnusableError) as caught:
        model.load(manifest.load(folder), device="cpu", threads=1)
    return str(caught.value.evidence["field"]), str(caught.value.evidence["reason"])


def test_the_demonstration_model_loads_ready_to_predict() -> None:
    loaded = model.load(manifest.load(DEMO), device="cpu", threads=1)
    assert loaded.device == "cpu"
    assert not loaded.network.training
    assert {p.dtype for p in loaded.network.parameters()} == {torch.float32}
    stored = safetensors.torch.load_file(DEMO / "model.safetensors")
    for name, parameter in loaded.network.state_dict().items():
        assert torch.equal(parameter, stored[name].float())


def test_auto_takes_cuda_where_there_is_one() -> None:
    loaded = model.load(manifest.load(DEMO), device="auto", threads=1)
    assert loaded.device == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_is_refused_where_there_is_none() -> None:
    with pytest.raises(ModelUnusableError) as caught:
        model.load(manifest.load(DEMO), device="cuda", threads=1)
    assert caught.value.evidence["field"] == "device"


def test_weights_of_another_digest_are_not_read(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"something else")
    assert field_of_refusal(folder)[0] == "weights.sha256"


def test_weights_of_another_format_are_refused(folder: Path) -> None:
    give_weights(folder, b"\x80\x04 a pickle, perhaps")
    assert field_of_refusal(folder)[0] == "weights.format"


@pytest.mark.parametrize(
    ("dtype", "shape", "byte_count"),
    [
        *(("F8_E8M0", [8], 8), ("F4", [8], 4), ("F6_E2M3", [8], 6)),  # torch has no such type
        *(("F8_E4M3", [8], 8), ("C64", [8], 64), ("U64", [8], 64)),  # nor operations on these
        *(("F32", [0, 2**63], 0), ("F32", [1] * 100, 4), ("F32", [2**62, 4], 0)),
    ],
)
def test_a_tensor_that_no_network_has_is_refused(
    folder: Path, dtype: str, shape: list[int], byte_count: int
) -> None:
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, byte_count]}
    header = json.dumps({"head.bias": entry}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(byte_count)
    give_weights(folder, content)
    assert field_of_refusal(folder)[0] == "weights.format"
    (folder / "x.safetensors").write_bytes(content)
    with pytest.raises(ModelImportError):
        checkpoints.read(folder / "x.safetensors")


def test_a_network_larger_than_its_weights_takes_no_memory(folder: Path) -> None:
    text = (folder / "model.toml").read_text(encoding="utf-8")
    (line,) = [one for one in text.splitlines() if one.startswith("channels = ")]
    (folder / "model.toml").write_text(text.replace(line, "channels = [60000, 60000]"), "utf-8")
    assert field_of_refusal(folder)[0] == "weights.file"  # a real one would have 2.8 TB


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.pop("head.bias"), "1 parameters missing: head.bias"),
        (lambda p: p.update(extra=torch.zeros(1)), "1 parameters unexpected: extra"),
        (lambda p: p.update({"head.bias": torch.zeros(3)}), "of another shape: head.bias"),
        (lambda p: p["head.bias"].fill_(torch.nan), "not finite: head.bias"),
    ],
    ids=["missing", "unexpected", "shape", "nan"],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    folder: Path, change: Change, words: str
) -> None:
    parameters = safetensors.torch.load_file(folder / "model.safetensors")
    change(parameters)
    give_weights(folder, safetensors.torch.save(parameters))
    field, reason = field_of_refusal(folder)
    assert field == "weights.file"
    assert words in reason


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("in_channels = 4", "in_channels = 3", "weights.file"),
        ("out_channels = 4", "out_channels = 5", "weights.file"),
        ('[[inputs]]\nrole = "t1"\nsequence = "T1w"\n', "", "network.kwargs"),
    ],
)
def test_a_network_that_does_not_fit_its_manifest_is_refused(
    folder: Path, old: str, new: str, field: str
) -> None:
    declare(folder, old, new)
    assert field_of_refusal(folder)[0] == field


def test_a_network_with_more_outputs_than_labels_is_refused(folder: Path) -> None:
    text = (folder / "model.toml").read_text(encoding="utf-8")
    begin, end = text.index("[[labels]]\nnumber = 3"), text.index("# Regions of the BraTS")
    one_less = text[:begin] + text[end:].replace("labels = [1, 2, 3]", "labels = [1, 2]")
    one_less = one_less.replace("labels = [2, 3]", "labels = [2]")
    one_less = one_less.replace("label = 3\nbecomes = 2", "label = 2\nbecomes = 1")
    (folder / "model.toml").write_text(one_less, encoding="utf-8")
    field, reason = field_of_refusal(folder)
    assert field == "network.kwargs"
    assert reason == "output shape is (1, 4, 80, 96, 80), expected (1, 3, 80, 96, 80)"


def test_threads_are_those_asked_for() -> None:
    before = torch.get_num_threads()
    try:
        model.load(manifest.load(DEMO), device="cpu", threads=1)
        assert torch.get_num_threads() == 1
        model.load(manifest.load(DEMO), device="cpu", threads=0)
        assert torch.get_num_threads() == model.granted_cores()
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("content", "expected"),
    [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None), ("99900000 100000", None)],
)
def test_cores_are_capped_by_the_control_group(
    tmp_path: Path, content: str, expected: int | None
) -> None:
    limit = tmp_path / "cpu.max"
    limit.write_text(content + "\n", encoding="ascii")
    assert model.granted_cores(limit) == (expected or len(os.sched_getaffinity(0)))


def test_cores_are_those_of_the_affinity_without_a_control_group(tmp_path: Path) -> None:
    assert model.granted_cores(tmp_path / "absent") == len(os.sched_getaffinity(0))
