"""Read a MONAI bundle as data: its metadata and the definition of its network, nothing else.

A bundle's configuration is a program: strings that begin with ``$`` are evaluated by MONAI, tables
with a ``_target_`` are called. Nothing of that happens here. Only ``network_def`` is looked at; its
target must be an architecture of the allow-list and its arguments plain values, or references to
plain values in the same file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args

import yaml

from inference import networks
from inference.declarations import Architecture
from inference.description import Channel, Description
from inference.errors import ModelImportError
from inference.tumour_names import rank_of, shown

METADATA: Final = Path("configs/metadata.json")

_CONFIGURATIONS: Final = (
    *("inference.json", "inference.yaml", "inference.yml"),
    *("train.json", "train.yaml", "train.yml"),
)
_WEIGHTS: Final = ("model.pt", "model.pth", "model.safetensors", "model.ts")
_MOST_BYTES: Final = 4 * 1024**2
_MOST_DEPTH: Final = 8
_MOST_VALUES: Final = 10_000
_TARGET: Final = re.compile(r"(?:monai\.networks\.nets\.(?:[a-z_]+\.)?)?([A-Za-z]+)")
_OTHER_NAMES: Final = {"Unet": "UNet", "SegResnet": "SegResNet", "BasicUnet": "BasicUNet"}
_TEXTS: Final = {"title": "description", "licence": "license", "intended_use": "intended_use"}


def checkpoint_file(folder: Path) -> Path:
    """Return the file of a bundle's weights.

    Raises
    ------
    ModelImportError
        There is none.
    """
    for name in _WEIGHTS:
        if (file := folder / "models" / name).is_file():
            return file
    expected = ", ".join(f"models/{name}" for name in _WEIGHTS)
    raise ModelImportError(
        reason=f"the bundle has no weights, expected one of {expected}; download its large files"
    )


def describe(folder: Path) -> Description:
    """Return what a bundle says of its model.

    Raises
    ------
    ModelImportError
        A file is absent or no JSON or YAML; the network is not in the allow-list, or needs
        something evaluated; metadata and network contradict each other. The key is named.
    """
    metadata = _mapping(_read(folder / METADATA), METADATA.name)
    architecture, kwargs = _network(folder)
    inputs = _channels(metadata, "inputs", "image", kwargs.get("in_channels"))
    outputs = _channels(metadata, "outputs", "pred", kwargs.get("out_channels"))
    background = [one.index for one in outputs if one.name.strip().lower() == "background"]
    own = [one for one in outputs if one.index not in background]
    return Description(
        said={
            "network": {"architecture": architecture, "kwargs": kwargs},
            "output": {"activation": "softmax", "background_index": background[0]}
            if background
            else {"activation": "sigmoid"},
        },
        texts={key: text for key, name in _TEXTS.items() if (text := _text(metadata, name))},
        version=_text(metadata, "version"),
        training_data=_text(metadata, "data_source"),
        inputs=tuple(one.name for one in inputs),
        outputs=tuple(own) if background else _widest_first(own),
        are_regions=not background,
    )


def _widest_first(regions: list[Channel]) -> tuple[Channel, ...]:
    """Return regions in the order of painting, where all are known; else as they stand."""
    ranks = {one.index: rank_of(one.name) for one in regions}
    if None in ranks.values():
        return tuple(regions)
    return tuple(sorted(regions, key=lambda one: ranks[one.index] or 0))


def _read(file: Path) -> Any:  # noqa: ANN401 - JSON or YAML
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise ModelImportError(reason=f"{file.name} is too large for a configuration")
        text = file.read_text(encoding="utf-8")
        return json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = f"{file.name} cannot be read ({type(error).__name__})"
        raise ModelImportError(reason=reason) from error


def _mapping(value: object, key: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ModelImportError(reason=f"{key} is missing or no table")
    return value


def _text(metadata: Mapping[str, Any], key: str) -> str | None:
    value = metadata.get(key)
    return value.strip() if isinstance(value, str) and value.strip() else None


# -- channels -------------------------------------------------------------------------------------


def _channels(metadata: Mapping[str, Any], side: str, name: str, count: object) -> list[Channel]:
    """Return the channels of the network's one input or output image."""
    key = f"network_data_format.{side}.{name}"
    table: Any = metadata
    for part in key.split("."):
        table = _mapping(table, "metadata.json").get(part)
    image = _mapping(table, key)
    names = _mapping(image.get("channel_def"), f"{key}.channel_def")
    if sorted(names) != sorted(str(index) for index in range(len(names))):
        raise ModelImportError(reason=f"{key}.channel_def does not name the channels 0, 1, ...")
    for where, said in ((f"{key}.num_channels", image.get("num_channels")), ("network_def", count)):
        if said is not None and said != len(names):
            raise ModelImportError(
                reason=f"{key}.channel_def names {len(names)} channels, {where} says {said}"
            )
    return [Channel(index=index, name=str(names[str(index)])) for index in range(len(names))]


# -- the network ----------------------------------------------------------------------------------


def _network(folder: Path) -> tuple[Architecture, dict[str, Any]]:
    """Return the architecture and arguments of the first configuration that defines a network."""
    for name in _CONFIGURATIONS:
        file = folder / "configs" / name
        if not file.is_file():
            continue
        content = _mapping(_read(file), name)
        if "network_def" in content:
            return _translated(content)
    expected = ", ".join(_CONFIGURATIONS)
    raise ModelImportError(reason=f"no network_def in configs; looked into {expected}")


def _translated(content: Mapping[str, Any]) -> tuple[Architecture, dict[str, Any]]:
    definition = content["network_def"]
    if not isinstance(definition, dict):
        raise ModelImportError(
            reason="network_def is no table; what it stands for would have to be evaluated"
        )
    architecture = _architecture(definition.get("_target_"))
    kwargs: dict[str, Any] = {}
    defaults = networks.defaults(architecture)
    values = _Values(content)
    for key, value in definition.items():
        if key in {"_target_", "_desc_"}:
            continue
        plain = values.literal(value, f"network_def.{shown(str(key))}")
        if plain is not None:
            kwargs[key] = plain
        elif defaults.get(key) is not None:
            raise ModelImportError(reason=f"network_def.{key} is null, which no manifest can say")
    return architecture, kwargs


def _architecture(target: object) -> Architecture:
    found = _TARGET.fullmatch(target) if isinstance(target, str) else None
    name = _OTHER_NAMES.get(found[1], found[1]) if found else ""
    for known in get_args(Architecture):
        if known == f"monai.{name}":
            architecture: Architecture = known
            return architecture
    known_names = ", ".join(
        one.removeprefix("monai.") for one in get_args(Architecture) if one.startswith("monai.")
    )
    raise ModelImportError(
        reason=f"network_def._target_ is {shown(str(target))}, expected one of {known_names}"
    )


class _Values:
    """Plain values of a configuration; counts them, because references may multiply."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._content = content
        self._left = _MOST_VALUES

    def literal(self, value: Any, key: str, depth: int = 0) -> Any:  # noqa: ANN401 - of JSON
        """Return a plain value; what would have to be evaluated is refused by its key."""
        self._left -= 1
        if depth > _MOST_DEPTH or self._left < 0:
            raise ModelImportError(reason=f"{key} refers to itself, or is too large")
        match value:
            case str():
                return self._text(value, key, depth)
            case dict():
                return self._table(value, key, depth)
            case list():
                return [self.literal(one, key, depth + 1) for one in value]
            case None | bool() | int() | float():
                return value
        raise ModelImportError(reason=f"{key} is no plain value")

    def _text(self, value: str, key: str, depth: int) -> object:
        if value.startswith(("$", "%")):
            raise ModelImportError(
                reason=f"{key} is an expression, and none is evaluated; write its value there"
            )
        if value.startswith("@"):
            return self.literal(self._referred(value, key), key, depth + 1)
        return value

    def _table(self, value: Mapping[str, Any], key: str, depth: int) -> dict[str, Any]:
        if special := [name for name in value if str(name).startswith("_")]:
            raise ModelImportError(
                reason=f"{key}.{shown(str(special[0]))} asks for a call; only plain values are read"
            )
        return {
            str(name): self.literal(one, f"{key}.{name}", depth + 1) for name, one in value.items()
        }

    def _referred(self, reference: str, key: str) -> object:
        """Return what stands at ``@a::b`` or ``@a#b`` of the same file."""
        found: Any = self._content
        for part in re.split("::|#", reference[1:]):
            if not isinstance(found, dict) or part not in found:
                raise ModelImportError(reason=f"{key} refers to something that is not in the file")
            found = found[part]
        return found
