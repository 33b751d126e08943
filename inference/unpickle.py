"""Read the tensors of a PyTorch checkpoint without running anything that stands in it.

A pickle is a program. This one is read by an unpickler that knows thirteen names; every other name
becomes an `Inert`, which does nothing. Of a TorchScript file the pickle alone is read: modules and
their attributes, none of the code beside them. Tensors are claims until `inference.read_apart` has
copied their numbers.
"""

from __future__ import annotations

import collections
import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

MOST_BYTES: Final = 4 * 1024**3
"""Of all tensors taken together."""

MOST_NAMES: Final = 50
"""Listed in a report."""

ITEM_BYTES: Final = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}
"""Of safetensors' types; those not listed have one."""

PROGRAM: Final = "program"
"""Place of the parameters of a TorchScript file."""

_MOST_TENSORS: Final = 20_000
_MOST_MODULES: Final = 100_000
_MOST_KEY_LENGTH: Final = 300
_MOST_AXES: Final = 8

# Where the state dict stands in the layouts that were met, in the order of looking.
_PLACES: Final = ("state_dict", "model_state_dict", "network_weights", "model", "net", "weights")

# What a checkpoint of nnU-Net says beside its state dict, at the top or below `init_args`.
_FACTS: Final = ("trainer_name", "inference_allowed_mirroring_axes", "configuration")

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

# No training leaves these names behind: who wrote them wanted something to run.
_ATTACKS: Final = frozenset(
    (
        *("os", "posix", "nt", "subprocess", "pty", "commands", "shutil", "socket", "runpy"),
        *("importlib", "ctypes", "multiprocessing", "webbrowser", "pip", "code", "timeit"),
    )
)
_ATTACKING_BUILTINS: Final = frozenset(("eval", "exec", "compile", "open", "__import__"))


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


class Module:
    """Stands for a module of a TorchScript program: keeps its attributes."""

    def __new__(cls, *_args: object, **_kwargs: object) -> Module:  # noqa: PYI034
        """Return a module, whatever it was to be made of."""
        return object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Keep the attributes, some of which are tensors and modules."""
        self.attributes = state if isinstance(state, dict) else {}


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
        return self.count * ITEM_BYTES.get(self.storage.dtype, 1)


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
        known = Module if top == "__torch__" else _KNOWN.get((module, name))
        if known is None:
            if len(self.inert) < MOST_NAMES:
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


# -- the state dict -------------------------------------------------------------------------------


def state_of(content: object) -> tuple[str, dict[str, Claim], list[str]]:
    """Return where the state dict stands, its tensors, and its keys that hold something else.

    Raises
    ------
    RefusedError
        There is none, or what it holds cannot be named.
    """
    if isinstance(content, Module):
        return PROGRAM, _checked(tensors_of(content)), []
    if not isinstance(content, dict):
        raise RefusedError("it holds a whole object instead of a state dict; save its state_dict()")
    for place in ("", *_PLACES):
        found = content.get(place) if place else content
        if isinstance(found, dict) and any(isinstance(one, Claim) for one in found.values()):
            break
    else:
        raise RefusedError("there is no state dict in it")
    if not all(isinstance(key, str) for key in found):
        raise RefusedError("a key of its state dict is no name of a parameter")
    tensors = {key: claim for key, claim in found.items() if isinstance(claim, Claim)}
    return place, _checked(tensors), [_shown(key) for key in found if key not in tensors]


def _checked(tensors: dict[str, Claim]) -> dict[str, Claim]:
    """Return tensors whose names can be names of parameters, and whose sizes can be."""
    for key in tensors:
        if not 0 < len(key) <= _MOST_KEY_LENGTH or key != _clean(key):
            raise RefusedError("a key of its state dict is no name of a parameter")
    if len(tensors) > _MOST_TENSORS or sum(one.byte_count for one in tensors.values()) > MOST_BYTES:
        raise RefusedError("its state dict is too large")
    return tensors


def tensors_of(program: Module) -> dict[str, Claim]:
    """Return the tensors of a TorchScript program under the dotted names of its modules.

    Raises
    ------
    RefusedError
        It has none, or more modules than a network has.
    """
    tensors: dict[str, Claim] = {}
    left = [("", program)]
    for _ in range(_MOST_MODULES):
        if not left:
            break
        prefix, module = left.pop()
        for name, value in getattr(module, "attributes", {}).items():
            key = f"{prefix}{name}"
            if isinstance(value, Module) and len(key) <= _MOST_KEY_LENGTH:
                left.append((f"{key}.", value))
            elif isinstance(value, Claim):
                tensors[key] = value
    if left:
        raise RefusedError("it has more modules than a network has")
    if not tensors:
        raise RefusedError(
            "its parameters were frozen into a program; save it again without torch.jit.freeze"
        )
    return tensors


def facts_of(content: object) -> dict[str, object]:
    """Return what stands in a checkpoint under the names of `_FACTS`, where it is plain."""
    if not isinstance(content, dict):
        return {}
    first = content.get("init_args")
    known = {**(first if isinstance(first, dict) else {}), **content}
    return {name: known[name] for name in _FACTS if name in known and _is_plain(known[name])}


def _is_plain(value: object) -> bool:
    if isinstance(value, (tuple, list)):
        return len(value) <= _MOST_AXES and all(type(one) is int for one in value)
    return value is None or (isinstance(value, str) and value == _shown(value))


def _clean(key: str) -> str:
    return "".join(one for one in key if one.isascii() and one.isprintable())
