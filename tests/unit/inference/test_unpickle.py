"""A checkpoint is read number by number, and nothing that stands in it runs."""

from __future__ import annotations

import builtins
import cProfile
import io
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
import torch
from torch import Tensor, nn

from inference import checkpoints, read_apart, unpickle
from inference.errors import ModelImportError

Place: TypeAlias = Callable[[object, Tensor], object]

ONE = torch.arange(6, dtype=torch.float32).reshape(2, 3)


class Payload:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.function, self.arguments


def saved(folder: Path, content: object) -> Path:
    file = folder / "model.ckpt"
    torch.save(content, file)
    return file


def with_entries(source: Path, changes: dict[str, bytes], compression: int) -> Path:
    """Return a copy of a checkpoint with other entries."""
    target = source.with_name("changed.ckpt")
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        names = [name for name in old.namelist() if name.rpartition("/")[2] not in changes]
        for name in names:
            new.writestr(name, old.read(name))
        root = names[0].partition("/")[0]
        for name, entry in changes.items():
            new.writestr(f"{root}/{name}", entry)
    return target


def reason_of(file: Path) -> str:
    with pytest.raises(ModelImportError) as caught:
        checkpoints.read(file)
    return str(caught.value.evidence["reason"])


# -- what runs nothing ----------------------------------------------------------------------------

PLACES: dict[str, Place] = {
    "top": lambda payload, _: payload,
    "beside": lambda payload, one: {"state_dict": {"a": one}, "hook": payload},
    "hyper_parameters": lambda payload, one: {
        "state_dict": {"a": one},
        "hyper_parameters": {"model": [{"lr": (1e-4, payload)}]},
    },
    "state_dict": lambda payload, one: {"state_dict": {"a": one, "b": payload}},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("attack", ["system", "exec", "popen"])
def test_a_checkpoint_that_wants_to_run_something_is_refused_and_nothing_runs(
    tmp_path: Path, place: str, attack: str
) -> None:
    marker = tmp_path / "ran"
    payload = {
        "system": Payload(os.system, f"touch {marker}"),
        "exec": Payload(builtins.exec, f"open({str(marker)!r}, 'w').close()"),
        "popen": Payload(subprocess.check_call, ["touch", str(marker)]),
    }[attack]
    file = saved(tmp_path, PLACES[place](payload, ONE))
    assert not marker.exists()
    assert "wants to run" in reason_of(file)
    assert not marker.exists()
    torch.load(file, weights_only=False)  # the payload is a live one
    assert marker.exists()


def test_a_function_that_nobody_thought_of_is_not_called_either(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    payload = Payload(cProfile.run, f"open({str(marker)!r}, 'w').close()", str(tmp_path / "stats"))
    file = saved(tmp_path, PLACES["hyper_parameters"](payload, ONE))
    found = checkpoints.read(file)
    assert found.inert == ("cProfile.run",)
    assert torch.equal(found.parameters["a"], ONE)
    assert not marker.exists()
    torch.load(file, weights_only=False)
    assert marker.exists()


def test_nothing_that_a_pickle_names_is_imported(tmp_path: Path) -> None:
    module = tmp_path / "site" / "innocent.py"
    module.parent.mkdir()
    module.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Config: ...\n")
    reader = unpickle.Unpickler(io.BytesIO(b"\x80\x02cinnocent\nConfig\n)\x81}b."))
    sys.path.insert(0, str(module.parent))
    try:
        assert isinstance(reader.load(), unpickle.Inert)
    finally:
        sys.path.remove(str(module.parent))
    assert reader.inert == {"innocent.Config"}
    assert not (tmp_path / "ran").exists()


def test_an_object_of_any_class_takes_whatever_a_pickle_gives_it() -> None:
    program = b"".join(
        (
            b"\x80\x02(cfoo\nBar\n(K\x01tR",  # Bar(1)
            b"}X\x01\x00\x00\x00aK\x01sb",  # its state
            b"(K\x01K\x02e",  # elements
            b"K\x01a",  # one more
            b"(K\x01K\x02u",  # entries
            b"t.",
        )
    )
    (found,) = unpickle.Unpickler(io.BytesIO(program)).load()
    assert isinstance(found, unpickle.Inert)
    found.add(1)


def test_the_reader_has_nothing_to_run_something_with(tmp_path: Path) -> None:
    program = (
        f"import os, runpy, resource; "
        f"names = runpy.run_path({str(Path(read_apart.__file__))!r}); "
        f"names['lock_down'](1000); "
        f"assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0); "
        f"assert resource.getrlimit(resource.RLIMIT_AS)[1] < 2 * 1024**3; "
        f"assert resource.getrlimit(resource.RLIMIT_CPU)[1] <= 60; "
        f"os.system('touch {tmp_path}/ran')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "PermissionError: os.system" in done.stderr
    assert not (tmp_path / "ran").exists()


# -- what claims too much -------------------------------------------------------------------------


def test_a_tensor_that_claims_more_numbers_than_there_are_is_refused(tmp_path: Path) -> None:
    assert "claims more" in reason_of(saved(tmp_path, {"a": torch.zeros(1).expand(30_000, 30_000)}))
    assert "too large" in reason_of(saved(tmp_path, {"a": torch.zeros(1).expand(90_000, 90_000)}))
    beyond = torch.zeros(1).expand(1, 2**40)
    assert "impossible size" in reason_of(saved(tmp_path, {"a": beyond}))


def test_a_compressed_entry_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, {"a": torch.zeros(5_000_000)})
    bomb = with_entries(file, {}, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < file.stat().st_size / 100
    assert "compressed" in reason_of(bomb)


def test_a_pickle_that_wants_all_memory_ends_alone(tmp_path: Path) -> None:
    file = saved(tmp_path, {"a": ONE})
    memo = b"\x80\x02Nr\xff\xff\xff\x7f."  # room for 2**31 remembered objects
    assert "memory" in reason_of(with_entries(file, {"data.pkl": memo}, zipfile.ZIP_STORED))


def test_a_pickle_that_never_ends_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "PATIENCE_S", 1.0)
    pairs = b")\x940"  # remember an empty tuple, then pairs of what was remembered last
    for depth in range(60):
        pairs += b"h%ch%c\x86\x940" % (depth, depth)
    endless = b"\x80\x04" + pairs + b"}h%cNs." % 60  # a key's hash costs twice the one below it
    file = with_entries(saved(tmp_path, {"a": ONE}), {"data.pkl": endless}, zipfile.ZIP_STORED)
    assert "took more than 1 s" in reason_of(file)


@pytest.mark.parametrize(
    ("most", "value"), [("_MOST_TENSORS", 1), ("_MOST_PICKLE_BYTES", 10), ("MOST_BYTES", 20)]
)
def test_limits_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: str, value: int
) -> None:
    module = read_apart if most == "_MOST_PICKLE_BYTES" else unpickle
    monkeypatch.setattr(module, most, value)
    with saved(tmp_path, {"a": ONE, "b": ONE}).open("rb") as file:
        archive = read_apart.Archive(file)
        with pytest.raises(unpickle.RefusedError, match=r"too large|impossible size"):
            unpickle.state_of(archive.content()[0])


# -- what is no checkpoint ------------------------------------------------------------------------


def test_what_is_no_checkpoint_is_refused_in_words(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    torch.save({"a": ONE}, file, _use_new_zipfile_serialization=False)
    assert "torch 1.6" in reason_of(file)
    file.write_bytes(pickle.dumps({"a": 1}))
    assert "torch 1.6" in reason_of(file)
    assert "whole object" in reason_of(saved(tmp_path, nn.Linear(2, 2)))
    assert "no state dict" in reason_of(saved(tmp_path, {"epoch": 3, "state_dict": {"a": 1}}))
    assert "no name of a parameter" in reason_of(saved(tmp_path, {"a\n": ONE}))
    assert "no name of a parameter" in reason_of(saved(tmp_path, {1: ONE}))
    assert "cannot be read" in reason_of(tmp_path / "absent.pt")
    with zipfile.ZipFile(file, "w") as other:
        other.writestr("a.txt", "hello")
    assert "no checkpoint" in reason_of(file)
    file.rename(tmp_path / "a.safetensors")
    assert "safetensors" in reason_of(tmp_path / "a.safetensors")


def test_another_byte_order_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, {"a": ONE})
    stored = zipfile.ZIP_STORED
    assert "big-endian" in reason_of(with_entries(file, {"byteorder": b"big"}, stored))


@pytest.mark.parametrize("program", [b"", b"\x80\x02", b"R.", b"\xff\xff", b"cos\nsystem\n."])
def test_a_damaged_pickle_is_refused(tmp_path: Path, program: bytes) -> None:
    file = saved(tmp_path, {"a": ONE})
    assert reason_of(with_entries(file, {"data.pkl": program}, zipfile.ZIP_STORED))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, {"a": torch.zeros(5000)})
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert "damaged" in reason_of(file)
    file.write_bytes(content[:-100])
    assert "torch 1.6" in reason_of(file)


# -- TorchScript ----------------------------------------------------------------------------------


class Tied(nn.Module):
    """A network with a shared layer, a counter and an attribute that is no parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2))
        self.second = self.first[0]
        self.names = ["a", "b"]

    def forward(self, x: Tensor) -> Tensor:
        """Return features."""
        scores: Tensor = self.first(x)
        return scores


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_the_parameters_of_a_program_have_the_names_of_its_modules(tmp_path: Path) -> None:
    trained = Tied().eval()
    program = torch.jit.script(trained)
    file = tmp_path / "model.ts"
    torch.jit.save(program, file)
    found = checkpoints.read(file)
    assert (found.kind, found.place) == ("torchscript", "program")
    assert found.parameters.keys() == trained.state_dict().keys()
    for name, tensor in trained.state_dict().items():
        assert torch.equal(found.parameters[name], tensor), name
    frozen = torch.jit.freeze(program)
    torch.jit.save(frozen, file)
    assert "torch.jit.freeze" in reason_of(file)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_program_that_wants_to_run_something_is_refused(tmp_path: Path) -> None:
    file, marker = tmp_path / "model.ts", tmp_path / "ran"
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), file)
    payload = Payload(os.system, f"touch {marker}")
    hostile = {"data.pkl": pickle.dumps(payload, protocol=2)}
    assert "wants to run" in reason_of(with_entries(file, hostile, zipfile.ZIP_STORED))
    assert not marker.exists()
    pickle.loads(hostile["data.pkl"])  # the payload is a live one
    assert marker.exists()


def test_modules_that_hold_each_other_come_to_an_end() -> None:
    program = unpickle.Module()
    program.__setstate__({"a": program, "b": program})
    with pytest.raises(unpickle.RefusedError, match="more modules"):
        unpickle.tensors_of(program)
    empty = unpickle.Unpickler(io.BytesIO(b"\x80\x02c__torch__.a\nB\n)\x81Nb.")).load()
    with pytest.raises(unpickle.RefusedError, match="frozen"):
        unpickle.tensors_of(empty)


# -- what is read right ---------------------------------------------------------------------------


def test_tensors_of_every_type_and_layout_are_read_as_torch_reads_them(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    whole = torch.randn(4, 3, 2, 5, 6, generator=generator)
    flat = torch.randn(20, generator=generator)
    state = {
        "float32": whole,
        "strided": whole.contiguous(memory_format=torch.channels_last_3d),
        "transposed": whole.transpose(0, 4),
        "view": flat[3:9].view(2, 3),
        "tied": flat[::2],
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "parameter": nn.Parameter(flat.clone()),
        "bool": flat > 0,
    }
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.int16):
        state[str(dtype)] = (100 * whole).to(dtype)
    for dtype in (torch.int8, torch.uint8, torch.int64):
        state[str(dtype)] = whole.to(dtype)
    file = saved(tmp_path, {"epoch": 3, "model_state_dict": state})
    found = checkpoints.read(file)
    expected = torch.load(file, weights_only=True)["model_state_dict"]
    assert (found.kind, found.place) == ("pickle", "model_state_dict")
    assert found.parameters.keys() == expected.keys()
    for name, tensor in found.parameters.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name]), name


def test_entries_without_tensors_are_reported(tmp_path: Path) -> None:
    found = checkpoints.read(saved(tmp_path, {"state_dict": {"a": ONE, "a._extra_state": None}}))
    assert found.others == ("a._extra_state",)


def test_what_nnunet_says_beside_the_parameters_is_read_where_it_is_plain(tmp_path: Path) -> None:
    content: dict[str, object] = {
        "network_weights": {"a": ONE},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 2),
        "init_args": {"configuration": "3d_fullres", "fold": 0},
        "logging": {"ema": [1.0]},
    }
    assert checkpoints.read(saved(tmp_path, content)).facts == {
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": [0, 2],
        "configuration": "3d_fullres",
    }
    content["trainer_name"] = Payload(cProfile.run, "1")
    content["inference_allowed_mirroring_axes"] = "x" * 2000
    content["init_args"] = None
    assert checkpoints.read(saved(tmp_path, content)).facts == {}
