"""What a source says of its model beside the parameters, and how a template completes it.

What a source says outright, a template must not contradict; what was only concluded from it, a
template may say otherwise.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from inference import networks, tumour_names
from inference.errors import ModelImportError, ModelUnusableError
from inference.tumour_names import Entry

_NOT_IN_TEMPLATE: Final = ("id", "version", "weights", "self_test")
_TABLES: Final = ("network", "space", "normalise", "infer", "output")
_NEEDED: Final = ("inputs", *_TABLES, "labels")
_AUTO: Final = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """An output channel of the network, and what the source calls it."""

    index: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a source says; a checkpoint alone says nothing.

    Parameters
    ----------
    said : mapping
        Tables of a ``model.toml``, as far as the source states them.
    presumed : mapping
        Tables that follow from it with some likelihood, or from a habit of its project.
    texts : mapping
        Title, licence and intended use in the source's words.
    version : str, optional
        Of the model.
    training_data : str, optional
        In the source's words.
    inputs : tuple of str
        Names of the input channels in order.
    outputs : tuple of Channel
        Without background, in the order of the labels' numbers; of regions the widest first.
    are_regions : bool
        Whether each output channel is a region by itself.
    """

    said: Mapping[str, Entry] = field(default_factory=dict)
    presumed: Mapping[str, Entry] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    version: str | None = None
    training_data: str | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[Channel, ...] = ()
    are_regions: bool = False


def read_template(file: Path | None) -> Entry:
    """Return the keys of a template; none where there is no template.

    Raises
    ------
    ModelImportError
        It cannot be read, or says what only the import can.
    """
    if file is None:
        return {}
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = f"the template cannot be read ({type(error).__name__})"
        raise ModelImportError(reason=reason) from error
    for key in _NOT_IN_TEMPLATE:
        if key in content:
            raise ModelImportError(
                reason=f"the template has the key {key}, which it must leave out"
            )
    return content


def completed(description: Description, template: Entry) -> Entry:
    """Return the keys of a model, without identity and weights.

    Raises
    ------
    ModelImportError
        Template and source contradict each other, or neither says what is needed; the key is
        named.
    """
    draft: Entry = {"schema_version": 1, "demonstration": False, **template, **description.texts}
    draft |= _tables(description, template)
    if description.inputs:
        draft["inputs"] = _inputs(description.inputs, template.get("inputs"))
    if description.outputs:
        draft["labels"] = _labels(description, template.get("labels"))
        if "labels" not in template:
            draft.setdefault("regions", tumour_names.regions_of(draft["labels"]))
    if missing := [key for key in _NEEDED if key not in draft]:
        raise ModelImportError(
            reason=f"it does not say {', '.join(missing)}; a template has to (--template)"
        )
    if isinstance(draft["space"], dict) and description.inputs:
        draft["space"].setdefault("reference_role", _reference_role(draft["inputs"]))
    return draft


def _tables(description: Description, template: Entry) -> Entry:
    """Return the tables that source and template say together."""
    tables: Entry = {}
    for table in _TABLES:
        said, own = description.said.get(table, {}), template.get(table, {})
        if not isinstance(own, dict):
            continue  # the manifest refuses it with its own words
        if table == "network":
            _check_network(said, own)
        else:
            _check_table(table, said, own)
        if merged := {**description.presumed.get(table, {}), **own, **said}:
            tables[table] = merged
    return tables


def _reference_role(inputs: Sequence[Entry]) -> object:
    roles = [entry.get("role") for entry in inputs]
    return "t1gd" if "t1gd" in roles else roles[0]


def _check_table(table: str, said: Entry, own: Entry) -> None:
    for key in said.keys() & own.keys():
        if _plain(said[key]) != _plain(own[key]):
            raise _contradiction(f"{table}.{key}", said[key], own[key])


def _check_network(said: Entry, own: Entry) -> None:
    """Refuse another network; an argument that is left out has its default."""
    if not said or not own:
        return
    if said["architecture"] != own.get("architecture"):
        raise _contradiction("network.architecture", said["architecture"], own.get("architecture"))
    defaults = networks.defaults(said["architecture"])
    first, second = ({**defaults, **one.get("kwargs", {})} for one in (said, own))
    for key in sorted(first.keys() | second.keys()):
        one, other = _plain(first.get(key)), _plain(second.get(key))
        if other not in (one, _AUTO):
            raise _contradiction(f"network.kwargs.{key}", one, other)


def _contradiction(key: str, said: object, own: object) -> ModelImportError:
    one, other = (tumour_names.shown(str(value)) for value in (said, own))
    return ModelImportError(reason=f"{key} is {one} in the source and {other} in the template")


def _plain(value: Any) -> Any:  # noqa: ANN401 - a value of TOML or JSON
    """Return a value with lists for tuples, so that one file's can be compared with another's."""
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def _inputs(names: Sequence[str], own: Sequence[Entry] | None) -> list[Entry]:
    """Return the inputs; a template may say what a name means, and not what a known one does."""
    found = [tumour_names.input_of(name) for name in names]
    if own is None:
        for number, (name, entry) in enumerate(zip(names, found, strict=True)):
            if entry is None:
                raise ModelImportError(
                    reason=f"input channel {number} is called {tumour_names.shown(name)!r}, no "
                    "known sequence; a template has to say its role"
                )
        return [entry for entry in found if entry is not None]
    roles = [entry.get("role") for entry in own]
    known = [None if entry is None else entry["role"] for entry in found]
    if len(roles) != len(known) or any(
        one not in {None, role} for one, role in zip(known, roles, strict=True)
    ):
        raise _contradiction("inputs", [one or "?" for one in known], roles)
    return list(own)


def _labels(description: Description, own: Sequence[Entry] | None) -> list[Entry]:
    """Return the labels; the template's where it has some, and the meaning is the same."""
    names = [channel.name for channel in description.outputs]
    if description.are_regions:
        meanings = tumour_names.painted_by(names)
    else:
        meanings = tuple(tumour_names.label_of(name) for name in names)
    if own is not None:
        _check_labels(description.outputs, meanings, own)
        return list(own)
    labels: list[Entry] = []
    for channel, meaning in zip(description.outputs, meanings, strict=True):
        if meaning is None:
            raise ModelImportError(
                reason=f"the output {tumour_names.shown(channel.name)!r} is missing a label code; "
                "a template has to say what it means ([[labels]])"
            )
        labels.append({"number": len(labels) + 1, "output_index": channel.index, **meaning})
    return labels


def _check_labels(
    outputs: Sequence[Channel], meanings: Sequence[Entry | None], own: Sequence[Entry]
) -> None:
    by_index = {entry.get("output_index"): entry for entry in own}
    if sorted(channel.index for channel in outputs) != sorted(map(_index, own)):
        raise _contradiction(
            "labels.output_index", [one.index for one in outputs], list(map(_index, own))
        )
    for number, (channel, meaning) in enumerate(zip(outputs, meanings, strict=True), start=1):
        entry = by_index[channel.index]
        if meaning is None:
            continue
        code = entry.get("type_code", {}).get("value")
        if code != meaning["type_code"]["value"] or entry.get("number") != number:
            raise ModelImportError(
                reason=f"labels: output channel {channel.index} is "
                f"{tumour_names.shown(channel.name)!r} in the source, label {number} "
                f"({meaning['label']}); the template has label {entry.get('number')} "
                f"({tumour_names.shown(str(entry.get('label')))})"
            )


def _index(entry: Entry) -> int:
    index = entry.get("output_index")
    if not isinstance(index, int):
        raise ModelUnusableError(field="labels.output_index", reason="missing or no number")
    return index
