"""The network that finds the brain: a folder with ``mask.toml`` and its weights, no code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from inference import manifest, weights
from inference.declarations import (
    Id,
    Millimetres,
    Network,
    Table,
    Text,
    Version,
    VoxelCount,
    Weights,
)

FILE_NAME = "mask.toml"


class MaskSpace(Table):
    """Which grid the network sees: axes along the patient's, the same step on each."""

    step_mm: Millimetres
    least_shape: tuple[VoxelCount, VoxelCount, VoxelCount]
    multiple_of: Annotated[int, Field(ge=1, le=64)]


class MaskManifest(Table):
    """A mask model as its folder declares it; constructed by `load`."""

    folder: Path
    schema_version: Literal[1]
    id: Id
    version: Version
    title: Text
    licence: Text
    intended_use: Text
    weights: Weights
    network: Network
    space: MaskSpace

    @property
    def model_id(self) -> str:
        """Identity as ``id@version``."""
        return f"{self.id}@{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskModel:
    """A mask network with its weights; it runs on the CPU, which takes it half a second."""

    manifest: MaskManifest
    network: nn.Module


def load(folder: Path) -> MaskModel:
    """Return the mask model in a folder, its weights verified.

    Raises
    ------
    ModelUnusableError
        The declaration or the weights are absent, damaged or do not fit each other.
    """
    declared = manifest.read_declaration(folder, FILE_NAME, MaskManifest)
    network = weights.filled(declared.network, declared.weights.read(folder))
    return MaskModel(manifest=declared, network=network)
