"""Random fields and small geometry that the generator draws everything with.

Fields are (x, y, z) tensors of float32. Whoever wants the same again passes a generator of the
same seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Rng: TypeAlias = np.random.Generator
Shape: TypeAlias = tuple[int, int, int]

_NOTHING = 0.15  # voxels; a narrower blur changes nothing


def noise(shape: Shape, width: float, rng: Rng) -> Tensor:
    """Return smooth noise of mean 0 and deviation 1, its features `width` voxels wide."""
    field = torch.from_numpy(
        rng.standard_normal([math.ceil(size / width) + 2 for size in shape], dtype=np.float32)
    )
    for axis in range(3):  # one axis after the other: several times faster than trilinear
        at = torch.arange(shape[axis]) / width + rng.random()
        low = at.floor().long()
        share = (at - low).view(-1, *[1] * (2 - axis))
        field = torch.lerp(field.index_select(axis, low), field.index_select(axis, low + 1), share)
    return (field - field.mean()) / (field.std() + 1e-6)


def grain(shape: Sequence[int], rng: Rng) -> Tensor:
    """Return independent normal numbers."""
    return torch.from_numpy(rng.standard_normal(tuple(shape), dtype=np.float32))


def blurred(field: Tensor, widths: Sequence[float]) -> Tensor:
    """Return a field convolved with Gaussians of these deviations, in voxels, per axis."""
    result = field[None, None]
    for axis, width in enumerate(widths):
        if width < _NOTHING:
            continue
        reach = max(1, int(3 * width + 0.5))
        kernel = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * width**2))
        shape = [1] * 5
        shape[2 + axis] = -1
        padding = [0] * 6
        padding[2 * (2 - axis)] = padding[2 * (2 - axis) + 1] = reach
        padded = functional.pad(result, padding, mode="replicate")
        result = functional.conv3d(padded, (kernel / kernel.sum()).view(shape))
    return result[0, 0]


def rotation(angles: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix that turns about x, y and z, in radians."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_x @ about_y @ about_z)


def millimetres(shape: Shape, step_mm: float) -> Tensor:
    """Return (3, x, y, z): how far each voxel lies from the middle of the lattice."""
    axes = [(torch.arange(size) - (size - 1) / 2) * step_mm for size in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def between(low: float, high: float, rng: Rng) -> float:
    """Return a number between two, evenly on the logarithm."""
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))
