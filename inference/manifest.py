"""What a model is: identity, weights, inputs, space, windows and the meaning of its labels.

A model is a folder with ``model.toml`` and its weights; nothing in it is code. This module imports
neither torch nor MONAI, so that processes which only need a model's identity stay small.
"""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    model_validator,
)

from converters.volume import Code, Role, Segment
from inference.errors import ModelUnusableError

FILE_NAME = "model.toml"

Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]{0,31}$")]
RoleName = Annotated[Role, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,15}$")]
BareFileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Millimetres = Annotated[float, Field(gt=0.1, lt=20.0)]
VoxelCount = Annotated[int, Field(ge=1, le=1024)]
Percentile = Annotated[float, Field(ge=0.0, le=100.0)]
ColorPart = Annotated[int, Field(ge=0, le=255)]


class Table(BaseModel):
    """A table of a declaration: frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


Declaration = TypeVar("Declaration", bound=Table)


class Weights(Table):
    """The file that holds the parameters, and its digest."""

    file: BareFileName
    sha256: Sha256
    format: Literal["safetensors"]

    def read(self, folder: Path) -> bytes:
        """Return the content of the file, checked against the declared digest.

        Raises
        ------
        ModelUnusableError
            The file cannot be read or its digest differs.
        """
        try:
            content = (folder / self.file).read_bytes()
        except OSError as error:
            reason = f"cannot be read ({type(error).__name__})"
            raise ModelUnusableError(field="weights.file", reason=reason) from error
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise ModelUnusableError(
                field="weights.sha256", reason="the digest of the weights file differs"
            )
        return content


class Network(Table):
    """Which architecture of the allow-list, and how it is built."""

    architecture: Literal["neuroseg.ResidualUNet", "monai.UNet"]
    kwargs: dict[str, JsonValue]


class Input(Table):
    """One input channel; channels stand in the file in the network's order."""

    role: RoleName
    sequence: Text


class Space(Table):
    """Which space the network sees."""

    reference_role: RoleName
    orientation: Literal["RAS"]
    spacing_mm: tuple[Millimetres, Millimetres, Millimetres]
    skull: Literal["stripped", "whole", "any"]


class MissingInput(Table):
    """Which inputs the model can do without, and what stands in their place."""

    policy: Literal["reject", "zero"] = "reject"
    allowed: tuple[RoleName, ...] = ()


class Normalise(Table):
    """How intensities become the network's numbers."""

    kind: Literal["zscore"]
    mask: Literal["nonzero"]
    per_channel: Literal[True]
    clip_percentiles: tuple[Percentile, Percentile] | None = None


class Infer(Table):
    """The window plan: part of the model, because another plan gives other labels."""

    window: tuple[VoxelCount, VoxelCount, VoxelCount]
    overlap: Annotated[float, Field(ge=0.0, lt=1.0)]
    blending: Literal["gaussian", "constant"]
    crop: Literal["foreground", "none"]


class Output(Table):
    """How the network's output channels are to be read."""

    activation: Literal["softmax"]
    background_index: Annotated[int, Field(ge=0)]


class CodeEntry(Table):
    """A coded concept as it stands in the file."""

    value: Text
    scheme: Text
    meaning: Text

    def as_code(self) -> Code:
        """Return the shared noun."""
        return Code(value=self.value, scheme=self.scheme, meaning=self.meaning)


class Label(Table):
    """What one output channel of the network means.

    `output_index` is the network's channel, `number` the value in label maps and the DICOM
    Segment Number.
    """

    number: Annotated[int, Field(ge=1, le=255)]
    output_index: Annotated[int, Field(ge=0)]
    label: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    description: Text
    category: CodeEntry
    type_code: CodeEntry
    color_rgb: tuple[ColorPart, ColorPart, ColorPart]

    def as_segment(self) -> Segment:
        """Return the shared noun."""
        return Segment(
            number=self.number,
            label=self.label,
            category=self.category.as_code(),
            type_code=self.type_code.as_code(),
            color_rgb=self.color_rgb,
        )


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
    weights: Weights
    network: Network
    inputs: Annotated[tuple[Input, ...], Field(min_length=1)]
    missing_input: MissingInput = MissingInput()
    space: Space
    normalise: Normalise
    infer: Infer
    output: Output
    labels: Annotated[tuple[Label, ...], Field(min_length=1)]

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
        clip = self.normalise.clip_percentiles
        if clip is not None and clip[0] >= clip[1]:
            raise ValueError("normalise.clip_percentiles: not ascending")
        self._check_missing_input()
        return self

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
        """Network output channel of label values 0 (background), 1, 2, ..."""
        return (self.output.background_index, *(entry.output_index for entry in self.labels))

    @property
    def output_channel_count(self) -> int:
        """Number of channels that the network must give."""
        return len(self.labels) + 1

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
    try:
        content = tomllib.loads((folder / file_name).read_text(encoding="utf-8"))
    except OSError as error:
        reason = f"cannot be read ({type(error).__name__})"
        raise ModelUnusableError(field=file_name, reason=reason) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelUnusableError(field=file_name, reason=f"not valid TOML: {error}") from error
    if "folder" in content:
        raise ModelUnusableError(field="folder", reason="Extra inputs are not permitted")
    try:
        return kind.model_validate({**content, "folder": folder})
    except ValidationError as error:
        raise _refusal(error) from error


def _refusal(error: ValidationError) -> ModelUnusableError:
    """Return the first problem; `_is_consistent` names its key before a colon."""
    first = error.errors(include_url=False, include_input=False)[0]
    field, reason = ".".join(str(part) for part in first["loc"]), first["msg"]
    if not field:
        field, _, reason = str(first["ctx"]["error"]).partition(": ")
    return ModelUnusableError(field=field, reason=reason)
