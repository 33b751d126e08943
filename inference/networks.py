"""Architectures that a manifest may name; an allow-list, so that no model folder brings code."""

# ruff: noqa: PLC0415 - importing MONAI takes three seconds; a model pays for its own family alone

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.declarations import Architecture, Network
from inference.errors import ModelUnusableError

_NEGATIVE_SLOPE = 0.01
_FINE_SLOPE = 0.2


class ResidualBlock(nn.Module):
    """Two 3x3x3 convolutions with instance norm around a shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm1 = nn.InstanceNorm3d(out_channels, affine=True)
        self.conv2 = nn.Conv3d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.InstanceNorm3d(out_channels, affine=True)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Conv3d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, out_channels, ...) features of the same extent."""
        hidden = functional.leaky_relu(self.norm1(self.conv1(x)), _NEGATIVE_SLOPE)
        residual = self.norm2(self.conv2(hidden)) + self.shortcut(x)
        return functional.leaky_relu(residual, _NEGATIVE_SLOPE)


class ResidualUNet(nn.Module):
    """Residual U-Net, one block per level, strided convolutions between levels.

    Parameters
    ----------
    in_channels, out_channels : int
        Input images and output classes.
    channels : sequence of int
        Features per level, finest first. Every extent of the input must be a multiple of
        ``2 ** (len(channels) - 1)``.
    """

    def __init__(self, in_channels: int, out_channels: int, channels: Sequence[int]) -> None:
        super().__init__()
        steps = list(itertools.pairwise(channels))
        self.encoder = nn.ModuleList([ResidualBlock(in_channels, channels[0])])
        self.encoder.extend(ResidualBlock(coarse, coarse) for _, coarse in steps)
        self.down = nn.ModuleList(nn.Conv3d(fine, coarse, 2, stride=2) for fine, coarse in steps)
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(coarse, fine, 2, stride=2) for fine, coarse in steps
        )
        self.decoder = nn.ModuleList(ResidualBlock(2 * fine, fine) for fine, _ in steps)
        self.head = nn.Conv3d(channels[0], out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, out_channels, x, y, z) scores before activation."""
        x = self.encoder[0](x)
        skips = []
        for down, block in zip(self.down, self.encoder[1:], strict=True):
            skips.append(x)
            x = block(down(x))
        for up, block in zip(reversed(self.up), reversed(self.decoder), strict=True):
            x = block(torch.cat([up(x), skips.pop()], dim=1))
        scores: Tensor = self.head(x)
        return scores


class StridedUNet(nn.Module):
    """A residual U-Net at half the resolution, and one convolution at the full one.

    Most of what a U-Net costs is spent on its finest level. Here that level has a single
    convolution, which sees the images themselves beside what the U-Net says: borders stay as sharp
    as the images, for a third of the time.

    Its activation lets a fifth of what is negative through. Tissue that is rare in a window lies
    far from the mean that instance norm takes away, on either side of it: the few features of this
    level all came to mean "not tumour", and with a hundredth no parts of a tumour were told apart.

    Parameters
    ----------
    in_channels, out_channels : int
        Input images and output classes.
    channels : sequence of int
        Features per level of the U-Net, finest first. Every extent of the input must be a multiple
        of ``2 ** len(channels)``.
    fine : int
        Features at full resolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, channels: Sequence[int], fine: int
    ) -> None:
        super().__init__()
        self.reduce = nn.Conv3d(in_channels, channels[0], 2, stride=2)
        self.body = ResidualUNet(channels[0], channels[0], channels)
        self.enlarge = nn.ConvTranspose3d(channels[0], fine, 2, stride=2)
        self.conv = nn.Conv3d(fine + in_channels, fine, 3, padding=1, bias=False)
        self.norm = nn.InstanceNorm3d(fine, affine=True)
        self.head = nn.Conv3d(fine, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, out_channels, x, y, z) scores before activation."""
        said = self.enlarge(self.body(self.reduce(x)))
        fine = self.norm(self.conv(torch.cat([said, x], dim=1)))
        scores: Tensor = self.head(functional.leaky_relu(fine, _FINE_SLOPE))
        return scores


Architectures = Mapping[str, Callable[..., nn.Module]]


def _own() -> Architectures:
    return {"ResidualUNet": ResidualUNet, "StridedUNet": StridedUNet}


def _monai() -> Architectures:
    from monai.networks.nets.attentionunet import AttentionUnet
    from monai.networks.nets.basic_unet import BasicUNet
    from monai.networks.nets.dynunet import DynUNet
    from monai.networks.nets.segresnet import SegResNet
    from monai.networks.nets.swin_unetr import SwinUNETR
    from monai.networks.nets.unet import UNet
    from monai.networks.nets.unetr import UNETR

    known = (AttentionUnet, BasicUNet, DynUNet, SegResNet, SwinUNETR, UNet, UNETR)
    return {one.__name__: one for one in known}


def _dynamic() -> Architectures:
    try:
        from dynamic_network_architectures.architectures.unet import (
            PlainConvUNet,
            ResidualEncoderUNet,
        )
    except ImportError as error:
        raise ModelUnusableError(
            field="network.architecture",
            reason="it needs the package dynamic-network-architectures (pip install --no-deps)",
        ) from error

    return {one.__name__: one for one in (PlainConvUNet, ResidualEncoderUNet)}


_FAMILIES: Final[Mapping[str, Callable[[], Architectures]]] = {
    "neuroseg": _own,
    "monai": _monai,
    "dynamic": _dynamic,
}
# What nnU-Net's plans call by an import path; nothing is imported by a name that a file gives.
_CLASSES: Final[Mapping[str, type[nn.Module]]] = {
    "Conv3d": nn.Conv3d,
    "InstanceNorm3d": nn.InstanceNorm3d,
    "BatchNorm3d": nn.BatchNorm3d,
    "GroupNorm": nn.GroupNorm,
    "Dropout3d": nn.Dropout3d,
    "LeakyReLU": nn.LeakyReLU,
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
    "PReLU": nn.PReLU,
    "SiLU": nn.SiLU,
}
_NAMING_CLASSES: Final = ("conv_op", "norm_op", "dropout_op", "nonlin")


def build(network: Network) -> nn.Module:
    """Return the declared network with fresh parameters.

    In evaluation mode it gives one output: nnU-Net's networks are built without the outputs of
    their deep supervision, which have parameters all the same.

    Raises
    ------
    ModelUnusableError
        The architecture refuses the declared arguments.
    """
    kwargs: dict[str, Any] = dict(network.kwargs)
    if network.architecture.startswith("dynamic."):
        kwargs = {**_with_classes(kwargs), "deep_supervision": False}
    try:
        return _class_of(network.architecture)(**kwargs)
    except (
        *(TypeError, ValueError, KeyError, IndexError, RuntimeError),
        *(AssertionError, AttributeError, NotImplementedError, ZeroDivisionError),
        *(MemoryError, OverflowError, RecursionError),
    ) as error:
        raise ModelUnusableError(
            field="network.kwargs", reason=f"refused by {network.architecture}: {error}"
        ) from error


def defaults(architecture: Architecture) -> dict[str, Any]:
    """Return the arguments that an architecture can do without, and their values."""
    parameters = inspect.signature(_class_of(architecture)).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not one.empty}


def _class_of(architecture: Architecture) -> Callable[..., nn.Module]:
    family, _, name = architecture.partition(".")
    return _FAMILIES[family]()[name]


def _with_classes(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with classes in the place of their names."""
    named = {key: kwargs[key] for key in _NAMING_CLASSES if kwargs.get(key) is not None}
    for key, name in named.items():
        found = _CLASSES.get(str(name).rpartition(".")[2])
        if found is None or name not in {f"{found.__module__}.{found.__name__}", _short(found)}:
            known = ", ".join(_short(one) for one in _CLASSES.values())
            raise ModelUnusableError(
                field=f"network.kwargs.{key}", reason=f"no known class; expected one of {known}"
            )
        named[key] = found
    return {**kwargs, **named}


def _short(kind: type[nn.Module]) -> str:
    return f"torch.nn.{kind.__name__}"
