"""What a model folder and an import are made of: manifests, weights, checkpoints."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path
from random import Random
from typing import Final

import safetensors.torch
import torch

from converters.errors import CodedError
from inference import checkpoints, manifest, networks, weights
from inference.declarations import Network
from inference.errors import ModelImportError, ModelUnusableError
from tests.fuzz.mutation import mutated
from tests.fuzz.target import CrashError, Folder, Verdict

_MODEL: Final = Path(__file__).parents[2] / "models" / "demo-glioma"
_TOML_TOKENS: Final = (
    *(b"[", b"]", b"{", b"}", b"=", b'"', b'"""', b"'", b",", b"\n", b"[[labels]]\n", b"inf"),
    *(b"nan", b"true", b"1979-05-27T07:32:00Z", b"0x", b"\\u0000", b"-1", b"9" * 5000, b"1e999"),
    *(b'"../../etc/passwd"', b"[" * 5000, b"a." * 2000 + b"b = 1\n", b"{a=" * 2000, b"\x00"),
)
_TINY: Final = Network(
    architecture="neuroseg.ResidualUNet",
    kwargs={"in_channels": 1, "out_channels": 2, "channels": [1, 2]},
)
_DTYPES: Final = (
    *("F64", "F32", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4"),
    *("F6_E2M3", "C64", "U64", "X", ""),
)


class _Quiet:
    """A door with no component behind it that goes on."""

    pools = 0

    def problems(self) -> list[str]:
        """Return nothing."""
        return []

    def close(self) -> None:
        """Do nothing."""


class Manifests(_Quiet):
    """A ``model.toml``, and the network that it declares where it can be."""

    name = "manifest"

    def __init__(self, folder: Folder) -> None:
        self._folder = folder.work
        self._seed = (_MODEL / manifest.FILE_NAME).read_bytes()

    def make(self, rng: Random) -> bytes:
        """Return a manifest with something wrong in it."""
        return mutated(self._seed, rng, _TOML_TOKENS)

    def give(self, content: bytes) -> Verdict:
        """Return whether the manifest is one."""
        (self._folder / manifest.FILE_NAME).write_bytes(content)
        try:
            found = manifest.load(self._folder)
            with torch.device("meta"):
                networks.build(found.network)
        except ModelUnusableError as error:
            if not error.evidence["field"] and len(str(error)) > 2000:
                raise CrashError("a refusal without end") from error
            return Verdict.REFUSED
        return Verdict.ACCEPTED


class Weights(_Quiet):
    """Parameters in safetensors, for a network that is there and for an import."""

    name = "safetensors"

    def __init__(self, folder: Folder) -> None:
        self._file = folder.work / "model.safetensors"
        torch.manual_seed(0)
        self._state = networks.build(_TINY).state_dict()
        self._seed = safetensors.torch.save(self._state)

    def make(self, rng: Random) -> bytes:
        """Return a file with something wrong in it: bytes, or an entry of the header."""
        if rng.random() < 0.4:
            return mutated(self._seed, rng)
        length = int.from_bytes(self._seed[:8], "little")
        header, body = json.loads(self._seed[8 : 8 + length]), self._seed[8 + length :]
        for _ in range(rng.choice((1, 1, 2))):
            entry = header[rng.choice(sorted(header))]
            match rng.randrange(4):
                case 0:
                    entry["dtype"] = rng.choice(_DTYPES)
                case 1:
                    entry["shape"] = rng.choice(_SHAPES)
                case 2:
                    entry["data_offsets"] = rng.choice(_OFFSETS)
                case _:
                    entry["dtype"], entry["shape"] = rng.choice(_DTYPES), [0, 2**40]
        if rng.random() < 0.5:  # an entry of its own, whole as far as its type has a known width
            dtype = rng.choice(_DTYPES)
            header["extra"] = {"dtype": dtype, "shape": [8], "data_offsets": [len(body)] * 2}
            width = {"F64": 8, "I64": 8, "U64": 8, "C64": 8, "F32": 4, "F16": 2, "BF16": 2}
            count = 8 * width.get(dtype, 1) if dtype not in ("F4", "F6_E2M3") else 4
            header["extra"]["data_offsets"][1] += count
            body += rng.randbytes(count)
        text = json.dumps(header).encode()
        content = struct.pack("<Q", len(text)) + text + body
        return mutated(content, rng) if rng.random() < 0.2 else content

    def give(self, content: bytes) -> Verdict:
        """Return whether the parameters fit; both readers must end in their own error."""
        verdict = Verdict.ACCEPTED
        try:
            weights.filled(_TINY, content)
        except ModelUnusableError:
            verdict = Verdict.REFUSED
        self._file.write_bytes(content)
        try:
            checkpoints.read(self._file)
        except ModelImportError as error:
            if verdict is Verdict.ACCEPTED:
                raise CrashError(f"loaded, but not imported: {error}") from error
        return verdict


_SHAPES: Final[tuple[object, ...]] = (
    *([], [0], [-1], [2**63], [2**62, 4], [1] * 100, [1, 0, 2**40], ["a"], [1.5], None, 7),
)
_OFFSETS: Final[tuple[object, ...]] = ([0, 0], [0, 2**63], [5, 3], [-1, 4], [0], None, [0, 2**40])


class Checkpoints(_Quiet):
    """What torch saves, read in a process of its own."""

    name = "checkpoint"

    def __init__(self, folder: Folder) -> None:
        self._file = folder.work / "model.ckpt"
        stream = io.BytesIO()
        state = networks.build(_TINY).state_dict()
        torch.save({"epoch": 3, "state_dict": state, "hparams": {"a": [1, (2, "b")]}}, stream)
        self._seed = stream.getvalue()

    def make(self, rng: Random) -> bytes:
        """Return a checkpoint with something wrong in it, mostly in the pickle."""
        if rng.random() < 0.3:
            return mutated(self._seed, rng)
        stream = io.BytesIO()
        packing = rng.choice((zipfile.ZIP_STORED,) * 9 + (zipfile.ZIP_DEFLATED,))
        with (
            zipfile.ZipFile(io.BytesIO(self._seed)) as old,
            zipfile.ZipFile(stream, "w", packing) as new,
        ):
            for name in old.namelist():
                content = old.read(name)
                if name.endswith("data.pkl"):
                    content = mutated(content, rng, _PICKLE_TOKENS)
                elif rng.random() < 0.05:
                    content = mutated(content, rng)
                if rng.random() > 0.02:
                    new.writestr(name, content)
        return stream.getvalue()

    def give(self, content: bytes) -> Verdict:
        """Return whether its parameters were read."""
        self._file.write_bytes(content)
        try:
            checkpoints.read(self._file)
        except ModelImportError:
            return Verdict.REFUSED
        except CodedError as error:
            raise CrashError(f"not the import's own error: {error.code}") from error
        return Verdict.ACCEPTED


_PICKLE_TOKENS: Final = (
    *(b"cos\nsystem\n", b"cbuiltins\neval\n", b"(", b")", b"]", b"}", b"\x85", b"R", b".", b"0"),
    *(b"\x8a\xff" + b"\xff" * 255, b"X\xff\xff\xff\xff", b"\x8d" + b"\xff" * 8, b"(" * 100_000),
    *(b"2" * 1000, b"j\xff\xff\xff\xff", b"\x95" + b"\xff" * 8, b"K\x01K\x02\x86Q", b"b", b"u"),
    *(b"cinference.unpickle\nStorage\n", b"cbuiltins\nbytearray\n", b"c__torch__\nM\n", b"\x81"),
)
