"""What a model is: identity, weights, inputs, space, windows and the meaning of its labels.

A model is a folder with ``model.toml`` and its weights; nothing in it is code. The tables of the
file stand in `inference.declarations`, and what a reader needs of them together stands here.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from converters.volume import Role, Segment
from inference.declarations import (
    Id,
    Infer,
    Input,
    Label,
    MissingInput,
    Network,
    Normalise,
    Output,
    Performance,
    Postprocess,
    Provenance,
    Quality,
    Region,
    SelfTest,
    Space,
    Table,
    Text,
    Version,
    Weights,
)
from inference.errors import ModelUnusableError

FILE_NAME = "model.toml"
_MOST_BYTES: Final = 2**20
_NAMED_KEY = re.compile(r"([a-z0-9_.]+): (.+)", re.DOTALL)

Declaration = TypeVar("Declaration", bound=Table)


class Manifest(Table):
    """A model as its folder declares it; valid or absent.

    Parameters
    ----------
    folder : Path
        Where ``model.toml`` was read and the weights lie; not a key of the file.
    schema_version : int
        Version of the file's layout.

    Notes
    -----
    Constructed by `load`. The other fields are the keys of the file.
    """

    folder: Path
    schema_version: Literal[1]
    id: Id
    version: Version
    title: Text
    demonstration: bool
    licence: Text
    intended_use: Text
    provenance: Provenance | None = None
    weights: Weights
    network: Network
    inputs: Annotated[tuple[Input, ...], Field(min_length=1)]
    missing_input: MissingInput = MissingInput()
    space: Space
    normalise: Normalise
    infer: Infer
    output: Output
    labels: Annotated[tuple[Label, ...], Field(min_length=1)]
    regions: tuple[Region, ...] = ()
    postprocess: Postprocess = Postprocess()
    quality: Quality = Quality()
    self_test: SelfTest | None = None
    performance: tuple[Performance, ...] = ()

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if len(set(self.roles)) != len(self.roles):
            raise ValueError("inputs: a role stands twice")
        if self.space.reference_role not in self.roles:
            raise ValueError("space.reference_role: not one of the inputs")
        if [entry.number for entry in self.labels] != list(range(1, len(self.labels) + 1)):
            raise ValueError("labels: numbers are not 1, 2, ... in order")
        if sorted(self.output_indices) != list(range(self.output_channel_count)):
            raise ValueError("labels: output indices and background do not cover 0, 1, ... once")
        self._check_labels()
        self._check_missing_input()
        return self

    def _check_labels(self) -> None:
        """Refuse what speaks of a label that there is not, or of one and the same thing twice."""
        numbers = {0, *(entry.number for entry in self.labels)}
        after = self.postprocess
        said = {
            "regions.labels": [number for entry in self.regions for number in entry.labels],
            "postprocess.fill_holes": [
                number for entry in after.fill_holes for number in (*entry.labels, entry.becomes)
            ],
            "postprocess.small_labels": [
                number for entry in after.small_labels for number in (entry.label, entry.becomes)
            ],
        }
        for key, found in said.items():
            if not numbers.issuperset(found):
                raise ValueError(f"{key}: a number that no label has")
        if self.output.activation == "softmax" and any(one.threshold for one in self.labels):
            raise ValueError("labels.threshold: goes with sigmoid only")
        names = [entry.label for entry in (*self.labels, *self.regions)]
        if len(set(names)) != len(names):
            raise ValueError("labels: two labels or regions have the same name")
        test = self.self_test
        if test is not None and not (
            len(test.score_means) == len(test.shares) == self.output_channel_count
        ):
            raise ValueError("self_test: not one number for each output channel")

    def _check_missing_input(self) -> None:
        allowed, policy = self.missing_input.allowed, self.missing_input.policy
        if not set(allowed) <= set(self.roles) - {self.space.reference_role}:
            raise ValueError("missing_input.allowed: not an input, or the reference role")
        if bool(allowed) != (policy == "zero"):
            raise ValueError("missing_input.policy: zero goes with allowed roles, reject without")

    @property
    def model_id(self) -> str:
        """Identity as ``id@version``."""
        return f"{self.id}@{self.version}"

    @property
    def is_demonstration(self) -> bool:
        """Whether results must be marked as a demonstration."""
        return self.demonstration

    @property
    def weights_path(self) -> Path:
        """Where the weights lie."""
        return self.folder / self.weights.file

    @property
    def weights_sha256(self) -> str:
        """Digest of the weights, lower-case hexadecimal."""
        return self.weights.sha256

    @property
    def clips_to_brain(self) -> bool:
        """Whether labels outside the brain are removed."""
        said = self.postprocess.clip_to_brain
        return self.space.skull == "stripped" if said is None else said

    @property
    def needs_brain_for(self) -> tuple[str, ...]:
        """Keys of the file that ask where the brain is; without any the model can do without."""
        asks = {
            "space.skull": self.space.skull == "stripped",
            "normalise.mask": self.normalise.mask == "brain",
            "infer.crop": self.infer.crop == "brain",
            "postprocess.clip_to_brain": self.clips_to_brain,
        }
        return tuple(key for key, is_asking in asks.items() if is_asking)

    @property
    def roles(self) -> tuple[Role, ...]:
        """Input roles in the network's channel order."""
        return tuple(entry.role for entry in self.inputs)

    @property
    def reference_role(self) -> Role:
        """The role on whose grid results are given unless configured otherwise."""
        return self.space.reference_role

    @property
    def segments(self) -> tuple[Segment, ...]:
        """What the values 1, 2, ... of a label map mean."""
        return tuple(entry.as_segment() for entry in self.labels)

    @property
    def output_indices(self) -> tuple[int, ...]:
        """Network output channel of each label in order; background first where it has one."""
        background = self.output.background_index
        of_labels = tuple(entry.output_index for entry in self.labels)
        return of_labels if background is None else (background, *of_labels)

    @property
    def output_channel_count(self) -> int:
        """Number of channels that the network must give."""
        return len(self.output_indices)

    def read_weights(self) -> bytes:
        """Return the content of the weights file, checked against the declared digest.

        Raises
        ------
        ModelUnusableError
            The file cannot be read or its digest differs.
        """
        return self.weights.read(self.folder)

    def verify(self) -> None:
        """Raise `ModelUnusableError` unless the weights are the declared ones."""
        self.read_weights()


def load(folder: Path) -> Manifest:
    """Return the manifest of the model in a folder; the weights are not opened.

    Raises
    ------
    ModelUnusableError
        The file is absent, not TOML, or a key is missing, unknown or out of range; `field` names
        the key.
    """
    return read_declaration(folder, FILE_NAME, Manifest)


def read_declaration(folder: Path, file_name: str, kind: type[Declaration]) -> Declaration:
    """Return what a file of a model's folder declares; see `load` for what it raises."""
    content = _table(folder, file_name)
    if "folder" in content:
        raise ModelUnusableError(field="folder", reason="Extra inputs are not permitted")
    try:
        return kind.model_validate({**content, "folder": folder})
    except ValidationError as error:
        raise _refusal(error) from error


def _table(folder: Path, file_name: str) -> dict[str, Any]:
    try:
        with (folder / file_name).open("rb") as file:
            encoded = file.read(_MOST_BYTES + 1)
        if len(encoded) > _MOST_BYTES:
            raise ModelUnusableError(field=file_name, reason=f"more than {_MOST_BYTES} bytes")
        return tomllib.loads(encoded.decode("utf-8"))
    except OSError as error:
        reason = f"cannot be read ({type(error).__name__})"
        raise ModelUnusableError(field=file_name, reason=reason) from error
    except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, of a number's length
        reason = "nested too deeply" if isinstance(error, RecursionError) else f"{error}"
        raise ModelUnusableError(field=file_name, reason=f"not valid TOML: {reason}") from error


def _refusal(error: ValidationError) -> ModelUnusableError:
    """Return the first problem; our own checks name their key before a colon."""
    first = error.errors(include_url=False, include_input=False)[0]
    field, reason = ".".join(str(part) for part in first["loc"]), first["msg"]
    if "ctx" in first and "error" in first["ctx"]:
        reason = str(first["ctx"]["error"])
    if named := _NAMED_KEY.fullmatch(reason):
        field, reason = ".".join(part for part in (field, named[1]) if part), named[2]
    return ModelUnusableError(field=field, reason=reason)
