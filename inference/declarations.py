"""The tables of a ``model.toml``: what each part of a model says, and which values it may have.

`inference.manifest` puts them together. Neither module imports torch or MONAI, so that processes
which only need a model's identity stay small.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    model_validator,
)

from converters.volume import Code, Role, Segment
from inference.errors import ModelUnusableError

_AXES: Final = ("LR", "PA", "IS")
# What the roles that the node can tell apart are called in a manifest, and which had contrast.
_KNOWN_ROLES: Final = {
    "flair": ("FLAIR", False),
    "t1": ("T1w", False),
    "t1gd": ("T1gd", True),
    "t2": ("T2w", False),
}


def _valid_orientation(value: str) -> str:
    """Check three letters, one of each pair: where the axes of the network's input grow to."""
    pairs = [next((pair for pair in _AXES if letter in pair), "") for letter in value]
    if sorted(pairs) != sorted(_AXES):
        raise ValueError("three letters, one each of R or L, A or P, S or I")
    return value


def _ascending(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] >= value[1]:
        raise ValueError("not ascending")
    return value


Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]{0,31}$")]
RoleName = Annotated[Role, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,15}$")]
BareFileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Millimetres = Annotated[float, Field(gt=0.1, lt=20.0)]
CubicMillimetres = Annotated[float, Field(ge=0.0, le=1e6)]
VoxelCount = Annotated[int, Field(ge=1, le=1024)]
Percentile = Annotated[float, Field(ge=0.0, le=100.0)]
Percentiles = Annotated[tuple[Percentile, Percentile], AfterValidator(_ascending)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Range = Annotated[tuple[Finite, Finite], AfterValidator(_ascending)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
ColorPart = Annotated[int, Field(ge=0, le=255)]
LabelNumber = Annotated[int, Field(ge=1, le=255)]
Orientation = Annotated[str, AfterValidator(_valid_orientation)]
Axis = Annotated[int, Field(ge=0, le=2)]

Architecture: TypeAlias = Literal[
    "neuroseg.ResidualUNet",
    "neuroseg.StridedUNet",
    "monai.UNet",
    "monai.BasicUNet",
    "monai.AttentionUnet",
    "monai.SegResNet",
    "monai.DynUNet",
    "monai.SwinUNETR",
    "monai.UNETR",
    "dynamic.PlainConvUNet",
    "dynamic.ResidualEncoderUNet",
]
"""The allow-list: no model folder brings code. ``dynamic`` are nnU-Net's architectures."""


class Table(BaseModel):
    """A table of a declaration: frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Provenance(Table):
    """Where the weights come from; shown, never used to fetch anything."""

    source: Text
    digest: Text | None = None
    converted_by: Text | None = None
    training_data: Text | None = None


class Performance(Table):
    """Figures that were measured with these weights, by label or region."""

    dataset: Text
    case_count: Annotated[int, Field(ge=1)]
    dice: dict[str, Share] = {}
    hd95_mm: dict[str, Annotated[float, Field(ge=0.0)]] = {}


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

    architecture: Architecture
    kwargs: dict[str, JsonValue]


class Input(Table):
    """One input channel; channels stand in the file in the network's order."""

    role: RoleName
    sequence: Text
    contrast: bool | None = None

    @model_validator(mode="after")
    def _is_what_the_node_will_send(self) -> Self:
        sequence, contrast = _KNOWN_ROLES.get(self.role, (self.sequence, self.contrast))
        if self.sequence != sequence:
            raise ValueError(f"sequence: the role {self.role} is served by {sequence}")
        if self.contrast is not None and self.contrast != contrast:
            raise ValueError(
                f"contrast: the role {self.role} {'has' if contrast else 'has no'} contrast"
            )
        return self


class Space(Table):
    """Which space the network sees; `orientation` says where its input's axes grow to."""

    reference_role: RoleName
    orientation: Orientation
    spacing_mm: tuple[Millimetres, Millimetres, Millimetres]
    interpolation: Literal["linear", "cubic"] = "linear"
    skull: Literal["stripped", "whole", "any"]


class MissingInput(Table):
    """Which inputs the model can do without, and what stands in their place."""

    policy: Literal["reject", "zero"] = "reject"
    allowed: tuple[RoleName, ...] = ()


class Normalise(Table):
    """How intensities become the network's numbers; every channel by itself.

    The numbers of ``zscore`` (they give mean 0 and standard deviation 1, after `clip_percentiles`)
    and of ``percentile`` (those `percentiles` become 0 and 1) are found from the voxels inside
    `mask`. ``range``: those intensities become 0 and 1. ``none``: as they are. `clip` bounds what
    comes out. A channel without an image, or without a voxel inside, is 0.

    `outside` says what becomes of the other voxels. ``zero``: 0. ``kept``: they are transformed by
    the numbers found inside, air as well.

    Notes
    -----
    With ``kept``, of one channel's intensities x, and m its voxels inside the mask where x is not
    0 (0 is what a series did not image)::

        y = clip(x[m], *percentile(x[m], clip_percentiles))
        z = clip((x - mean(y)) / std(y), *clip)

    `clip_percentiles` then bound the values that mean and deviation come from, and `clip` alone
    bounds z. With ``zero`` they bound the voxels inside as well, and m of the brain has
    those that are 0.
    """

    kind: Literal["zscore", "percentile", "range", "none"]
    mask: Literal["nonzero", "brain", "all"]
    outside: Literal["zero", "kept"] = "zero"
    per_channel: Literal[True]
    clip_percentiles: Percentiles | None = None
    percentiles: Percentiles | None = None
    range: Range | None = None
    clip: Range | None = None

    @model_validator(mode="after")
    def _has_its_numbers(self) -> Self:
        for kind in ("percentile", "range"):
            key = "percentiles" if kind == "percentile" else kind
            if (getattr(self, key) is not None) != (self.kind == kind):
                raise ValueError(f"{key}: goes with kind = {kind}, and is needed there")
        if self.clip_percentiles is not None and self.kind != "zscore":
            raise ValueError("clip_percentiles: goes with kind = zscore")
        if self.outside == "kept" and self.mask == "all":
            raise ValueError("outside: nothing is outside of mask = all")
        return self


class Infer(Table):
    """The window plan: part of the model, because another plan gives other labels.

    ``whole`` sends the image through at once, padded to `multiple_of`; `window` then only is the
    shape by which the network is tested. `tta_axes` are the axes that may be mirrored.

    `crop` says over which part of the model's grid windows are laid; beyond it nothing is labelled.
    ``foreground``: the box of all that is not 0. ``brain``: that of the brain with
    `crop_margin_mm` on every side, in voxels rounded up, as far as the grid goes.
    """

    mode: Literal["sliding", "whole"] = "sliding"
    window: tuple[VoxelCount, VoxelCount, VoxelCount]
    overlap: Annotated[float, Field(ge=0.0, lt=1.0)]
    blending: Literal["gaussian", "constant"]
    crop: Literal["foreground", "brain", "none"]
    crop_margin_mm: Annotated[float, Field(ge=0.0, le=100.0)] = 0.0
    multiple_of: Annotated[int, Field(ge=1, le=128)] = 1
    tta_axes: tuple[Axis, ...] = ()

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if len(set(self.tta_axes)) != len(self.tta_axes):
            raise ValueError("tta_axes: an axis stands twice")
        if any(side % self.multiple_of for side in self.window):
            raise ValueError(f"window: no multiple of {self.multiple_of}")
        if self.crop_margin_mm and self.crop != "brain":
            raise ValueError("crop_margin_mm: goes with crop = brain")
        return self


class Output(Table):
    """How the network's output channels are to be read.

    ``softmax``: one class a channel, `background_index` is that of none. ``sigmoid``: each channel
    is a region by itself; labels are painted in their order, a later one over the earlier ones.
    """

    activation: Literal["softmax", "sigmoid"]
    background_index: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _has_a_background(self) -> Self:
        if (self.background_index is not None) != (self.activation == "softmax"):
            raise ValueError("background_index: goes with softmax, and is needed there")
        return self


class CodeEntry(Table):
    """A coded concept as it stands in the file."""

    value: Text
    scheme: Text
    meaning: Text

    def as_code(self) -> Code:
        """Return the shared noun."""
        return Code(value=self.value, scheme=self.scheme, meaning=self.meaning)


class Concept(Table):
    """What is shown of a label or region, and the codes that say the same to machines."""

    label: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    description: Text
    category: CodeEntry
    type_code: CodeEntry
    color_rgb: tuple[ColorPart, ColorPart, ColorPart]


class Label(Concept):
    """What one output channel of the network means.

    `output_index` is the network's channel, `number` the value in label maps and the DICOM
    Segment Number; `threshold` is the least probability of a region (sigmoid only).
    """

    number: LabelNumber
    output_index: Annotated[int, Field(ge=0)]
    threshold: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None

    def as_segment(self) -> Segment:
        """Return the shared noun."""
        return Segment(
            number=self.number,
            label=self.label,
            category=self.category.as_code(),
            type_code=self.type_code.as_code(),
            color_rgb=self.color_rgb,
        )


class Region(Concept):
    """Labels taken together, such as the whole tumour; regions may overlap."""

    labels: Annotated[tuple[LabelNumber, ...], Field(min_length=1)]


class Holes(Table):
    """What `labels` enclose on all sides turns into `becomes`."""

    labels: Annotated[tuple[LabelNumber, ...], Field(min_length=1)]
    becomes: LabelNumber


class SmallLabel(Table):
    """A label with less than `below_mm3` in all of the image turns into another (0: nothing).

    References
    ----------
    F. Isensee et al., nnU-Net for brain tumor segmentation, BrainLes 2020: enhancing tumour below
    a volume was called necrosis.
    """

    label: LabelNumber
    becomes: Annotated[int, Field(ge=0, le=255)]
    below_mm3: CubicMillimetres


class Postprocess(Table):
    """What is done with the labels, in this order.

    `clip_to_brain` removes those outside the brain; unless it is said, those of a model for
    stripped images. `min_component_mm3` removes pieces (26 neighbours) of all labels together that
    are smaller.
    """

    clip_to_brain: bool | None = None
    min_component_mm3: CubicMillimetres = 0.0
    small_labels: tuple[SmallLabel, ...] = ()
    fill_holes: tuple[Holes, ...] = ()


class Quality(Table):
    """Beyond these a result is flagged; `None` asks nothing."""

    largest_tumour_ml: Annotated[float, Field(gt=0.0)] | None = 400.0
    largest_share_of_brain: Share | None = 0.3
    most_components: Annotated[int, Field(ge=1)] | None = 5
    largest_share_outside_brain: Share | None = 0.1
    entropy_p95: Share | None = None


class SelfTest(Table):
    """What a window of seeded noise gives: mean score and share of voxels of each output channel.

    Written by the import and compared whenever the model is tested: another network, norm layer
    or runtime gives other numbers.
    """

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    score_means: tuple[Finite, ...]
    shares: tuple[Share, ...]
    tolerance: Annotated[float, Field(gt=0.0, le=0.1)] = 1e-3
