"""Architectures that a manifest may name; an allow-list, so that no model folder brings code."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from monai.networks.nets.unet import UNet
from torch import Tensor, nn
from torch.nn import functional

from inference.declarations import Network
from inference.errors import ModelUnusableError

_NEGATIVE_SLOPE = 0.01


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


_ARCHITECTURES: Final[dict[str, Callable[..., nn.Module]]] = {
    "neuroseg.ResidualUNet": ResidualUNet,
    "monai.UNet": UNet,
}


def build(network: Network) -> nn.Module:
    """Return the declared network with fresh parameters.

    Raises
    ------
    ModelUnusableError
        The architecture refuses the declared arguments.
    """
    kwargs: dict[str, Any] = dict(network.kwargs)
    try:
        return _ARCHITECTURES[network.architecture](**kwargs)
    except (TypeError, ValueError, KeyError, IndexError, RuntimeError) as error:
        raise ModelUnusableError(
            field="network.kwargs", reason=f"refused by {network.architecture}: {error}"
        ) from error
