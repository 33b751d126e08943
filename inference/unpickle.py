"""Read the tensors of a PyTorch checkpoint without running anything that stands in it.

A pickle is a program. This one is read by an unpickler that knows thirteen names; every other name
becomes an `Inert`, which does nothing. Tensors are claims until they are copied, byte by byte and
within the bounds of their own storage, into a safetensors file. `inference.checkpoints` runs this
file as a program of its own, in a process with limits; it imports nothing of the project.
"""

from __future__ import annotations

import collections
import json
import math
import pickle
import resource
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

REFUSED: Final = 3
"""Exit code with which a reason is printed."""

MOST_BYTES: Final = 4 * 1024**3
"""Of all tensors taken together."""

_MIB: Final = 1024**2
_MOST_PICKLE_BYTES: Final = 64 * _MIB
_MOST_TENSORS: Final = 20_000
_MOST_KEY_LENGTH: Final = 300
_MOST_NAMES: Final = 50  # listed in a report
_MOST_AXES: Final = 8
_MEMORY_BYTES: Final = 1024 * _MIB  # of address space, beside the size of the file
_CPU_S: Final = 60
_OPEN_FILES: Final = 16

# Where the state dict stands in the layouts that were met, in the order of looking.
_PLACES: Final = ("state_dict", "model_state_dict", "network_weights", "model", "net", "weights")

_STORAGES: Final = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
_ITEM_BYTES: Final = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}

# No training leaves these names behind: who wrote them wanted something to run.
_ATTACKS: Final = frozenset(
    (
        *("os", "posix", "nt", "subprocess", "pty", "commands", "shutil", "socket", "runpy"),
        *("importlib", "ctypes", "multiprocessing", "webbrowser", "pip", "code", "timeit"),
    )
)
_ATTACKING_BUILTINS: Final = frozenset(("eval", "exec", "compile", "open", "__import__"))
_FORBIDDEN_EVENTS: Final = ("os.", "subprocess.", "socket.", "ctypes.", "pty.", "shutil.")


class RefusedError(Exception):
    """Why the checkpoint is not read any further."""


class Inert:
    """Stands for every object of a checkpoint that is not needed; takes anything, does nothing."""

    __slots__ = ()

    def __new__(cls, *_args: object, **_kwargs: object) -> Inert:  # noqa: PYI034
        """Return an object, whatever it was to be made of."""
        return object.__new__(cls)

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        """Forget what it was to be made of."""

    def __setstate__(self, _state: object) -> None:
        """Forget what it was to become."""

    def __setitem__(self, _key: object, _value: object) -> None:
        """Forget an entry."""

    def append(self, _value: object) -> None:
        """Forget an element."""

    def extend(self, _values: object) -> None:
        """Forget elements."""

    def add(self, _value: object) -> None:
        """Forget a member."""


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of numbers in the archive: safetensors' name of its type, and its entry."""

    dtype: str
    key: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What the pickle says a tensor is; offset and strides in elements of the storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def byte_count(self) -> int:
        """Size of the elements."""
        return self.count * _ITEM_BYTES.get(self.storage.dtype, 1)


@dataclass(frozen=True, slots=True)
class _StorageType:
    dtype: str


def _rebuilt(storage: object, offset: object, shape: object, strides: object, *_: object) -> Claim:
    """Stand for ``torch._utils._rebuild_tensor_v2``."""
    extents, steps = _naturals(shape), _naturals(strides)
    if not isinstance(storage, Storage) or len(extents) != len(steps):
        raise RefusedError("a tensor in it is malformed")
    return Claim(storage, _naturals((offset,))[0], extents, steps)


def _parameter(tensor: object, *_: object) -> object:
    """Stand for ``torch._utils._rebuild_parameter``."""
    return tensor


def _naturals(values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple) or len(values) > _MOST_AXES:
        raise RefusedError("a tensor in it is malformed")
    if not all(type(value) is int and 0 <= value < MOST_BYTES for value in values):
        raise RefusedError("a tensor in it claims an impossible size")
    return values


_KNOWN: Final[Mapping[tuple[str, str], object]] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuilt,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{("torch", name): _StorageType(dtype) for name, dtype in _STORAGES.items()},
}


class Unpickler(pickle.Unpickler):
    """Knows the names of `_KNOWN` and remembers the others."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.inert: set[str] = set()

    def find_class(self, module: str, name: str, /) -> Any:  # noqa: ANN401 - the base class's
        """Return what stands for a name; never the thing itself, nothing is imported.

        Raises
        ------
        RefusedError
            The name is one that only an attack needs.
        """
        top = module.partition(".")[0]
        if top in _ATTACKS or (
            top in {"builtins", "__builtin__"} and name.partition(".")[0] in _ATTACKING_BUILTINS
        ):
            raise RefusedError(f"it wants to run {_shown(f'{module}.{name}')}; keep it as evidence")
        known = _KNOWN.get((module, name))
        if known is None:
            if len(self.inert) < _MOST_NAMES:
                self.inert.add(_shown(f"{module}.{name}"))
            return Inert
        return known

    def persistent_load(self, pid: object, /) -> Storage | Inert:
        """Return the storage that a tensor refers to."""
        match pid:
            case ("storage", _StorageType(dtype), str(key), _, int()):
                return Storage(dtype, key)
        return Inert()


def _shown(name: str) -> str:
    """Return a name that is safe to print."""
    return "".join(one if one.isascii() and one.isprintable() else "?" for one in name)[:100]


# -- the archive ----------------------------------------------------------------------------------


class Archive:
    """The zip file that ``torch.save`` writes: a pickle, and one stored entry per storage."""

    def __init__(self, file: BinaryIO) -> None:
        try:
            self._zip = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise RefusedError(
                "it is no checkpoint of torch 1.6 or later; save it again with a present torch"
            ) from error
        names = self._zip.namelist()
        roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise RefusedError("it is a zip file, but no checkpoint")
        self._root = roots[0]
        if f"{self._root}constants.pkl" in names:
            raise RefusedError("it is a TorchScript program, no checkpoint of parameters")
        if f"{self._root}byteorder" in names and self._read("byteorder", _MIB) != b"little":
            raise RefusedError("its numbers are big-endian")

    def content(self) -> tuple[object, frozenset[str]]:
        """Return what the pickle describes, and the names in it that were left inert."""
        with self._zip.open(self._entry("data.pkl", _MOST_PICKLE_BYTES)) as file:
            reader = Unpickler(file)  # type: ignore[arg-type] # typeshed wants more than is read
            return reader.load(), frozenset(reader.inert)

    def values(self, claim: Claim) -> NDArray[Any]:
        """Return the elements of a tensor, contiguous, as unsigned integers of their width."""
        width = _ITEM_BYTES.get(claim.storage.dtype, 1)
        content = np.frombuffer(self._read(f"data/{claim.storage.key}", MOST_BYTES), f"<u{width}")
        if claim.count == 0:
            return content[:0]
        steps = zip(claim.shape, claim.strides, strict=True)
        last = claim.offset + sum((extent - 1) * stride for extent, stride in steps)
        if last >= content.size or claim.count > content.size:
            raise RefusedError("a tensor in it claims more numbers than there are")
        strides = [width * stride for stride in claim.strides]
        view = np.lib.stride_tricks.as_strided(content[claim.offset :], claim.shape, strides)
        return np.ascontiguousarray(view)

    def _read(self, name: str, most_bytes: int) -> bytes:
        return self._zip.read(self._entry(name, most_bytes))

    def _entry(self, name: str, most_bytes: int) -> zipfile.ZipInfo:
        try:
            entry = self._zip.getinfo(self._root + name)
        except KeyError as error:
            raise RefusedError("a part of it is missing") from error
        # torch stores; only a bomb is compressed.
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > most_bytes:
            raise RefusedError("a part of it is compressed or too large")
        return entry


# -- the state dict -------------------------------------------------------------------------------


def state_of(content: object) -> tuple[str, dict[str, Claim], list[str]]:
    """Return where the state dict stands, its tensors, and its keys that hold something else.

    Raises
    ------
    RefusedError
        There is none, or what it holds cannot be named.
    """
    if not isinstance(content, dict):
        raise RefusedError("it holds a whole object instead of a state dict; save its state_dict()")
    for place in ("", *_PLACES):
        found = content.get(place) if place else content
        if isinstance(found, dict) and any(isinstance(one, Claim) for one in found.values()):
            break
    else:
        raise RefusedError("there is no state dict in it")
    for key in found:
        if not isinstance(key, str) or not 0 < len(key) <= _MOST_KEY_LENGTH or key != _clean(key):
            raise RefusedError("a key of its state dict is no name of a parameter")
    tensors = {key: claim for key, claim in found.items() if isinstance(claim, Claim)}
    if len(tensors) > _MOST_TENSORS or sum(one.byte_count for one in tensors.values()) > MOST_BYTES:
        raise RefusedError("its state dict is too large")
    return place, tensors, [key for key in found if key not in tensors]


def _clean(key: str) -> str:
    return "".join(one for one in key if one.isascii() and one.isprintable())


def write_safetensors(archive: Archive, tensors: Mapping[str, Claim], file: BinaryIO) -> None:
    """Write tensors as the safetensors format wants them: a header in JSON, then the numbers."""
    header: dict[str, object] = {}
    end = 0
    for key, claim in tensors.items():
        start, end = end, end + claim.byte_count
        header[key] = {
            "dtype": claim.storage.dtype,
            "shape": claim.shape,
            "data_offsets": (start, end),
        }
    text = json.dumps(header).encode("ascii")
    file.write(len(text).to_bytes(8, "little") + text)
    for claim in tensors.values():
        file.write(archive.values(claim).tobytes())


# -- the process ----------------------------------------------------------------------------------


def lock_down(source_bytes: int) -> None:
    """Take from this process what reading does not need; there is no way back.

    The limits hold a checkpoint that claims too much; the hook would stop one that got to run
    something after all.
    """
    limits = {
        resource.RLIMIT_AS: _MEMORY_BYTES + 2 * source_bytes,
        resource.RLIMIT_CPU: _CPU_S,
        resource.RLIMIT_FSIZE: MOST_BYTES + 64 * _MIB,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
        resource.RLIMIT_NPROC: 0,
    }
    for limit, most in limits.items():
        hard = resource.getrlimit(limit)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (least, least))
    sys.addaudithook(_forbid)


def _forbid(event: str, _arguments: tuple[object, ...]) -> None:
    if event.startswith(_FORBIDDEN_EVENTS):
        raise PermissionError(event)


def main(source: Path, target: Path) -> None:
    """Write the tensors of a checkpoint to a safetensors file and print what it was."""
    with source.open("rb") as file, target.open("xb") as out:
        lock_down(source.stat().st_size)
        try:
            archive = Archive(file)
            content, inert = archive.content()
            place, tensors, others = state_of(content)
            write_safetensors(archive, tensors, out)
        except RefusedError as refusal:
            _refuse(str(refusal))
        except (MemoryError, RecursionError):
            _refuse("it claims more memory than a checkpoint of its size needs")
        except (pickle.UnpicklingError, zipfile.BadZipFile, EOFError, ValueError, TypeError):
            _refuse("it is damaged")
    report = {"place": place, "others": others[:_MOST_NAMES], "inert": sorted(inert)}
    sys.stdout.write(json.dumps(report))


def _refuse(reason: str) -> NoReturn:
    sys.stdout.write(json.dumps({"refused": reason}))
    sys.exit(REFUSED)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
