# ruff: noqa: PLR2004 - the numbers are the ranges from which heads are drawn
"""Generated heads with their brains: what `train_brain_mask.py` learns from.

Tissue maps of the ICBM 152 template, as nilearn packages them, are turned, stretched and warped at
random; tumours, skull, scalp, eyes, face and neck are drawn around and into them by formulas; every
tissue gets a random brightness, so that the network learns shapes and not one sequence's contrast.
No patient's image is used. Arrays are (x, y, z), right-anterior-superior, on a 4 mm grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from scripts.generated_studies import anatomy, fields
from scripts.generated_studies.fields import Rng

Field: TypeAlias = NDArray[np.float32]

SHAPE = (64, 72, 64)
STEP_MM = 4.0
_TEMPLATE_STEP_MM = 2
_CENTRE_MM = (0.0, -18.0, 8.0)  # of the brain in the template's coordinates
_CONTRASTS = ("any", "t1", "t2", "flair")
_SHARES = (0.3, 0.3, 0.2, 0.2)
# Sulcal and ventricular CSF, grey and white matter; then oedema.
_LEVELS = {
    "t1": (0.22, 0.16, 0.54, 0.72, 0.45),
    "t2": (0.95, 1.0, 0.55, 0.40, 0.85),
    "flair": (0.28, 0.15, 0.58, 0.46, 0.9),
}
_AIR, _FLUID, _BONE, _FAT, _MUSCLE, _SOFT_FAT, _SOFT, _SINUS, _EYE, _VESSEL = range(10)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Template:
    """Sulcal and ventricular CSF, grey matter, white matter, brain, at 2 mm, and their place."""

    maps: Tensor
    index_to_ras_mm: NDArray[np.float64]


def read_template() -> Template:
    """Return the tissue maps of the template, every second millimetre."""
    grey, white, affine = anatomy.read_template()
    brain = anatomy.envelope(grey + white > 0.35)
    csf = np.clip(1.0 - grey - white, 0.0, 1.0) * brain
    deep = ndimage.distance_transform_edt(brain) > 18.0
    maps = np.stack([csf * ~deep, csf * deep, grey, white, brain.astype(np.float32)])
    every = _TEMPLATE_STEP_MM
    coarse = np.stack([ndimage.gaussian_filter(one, 1.0) for one in maps])[
        :, ::every, ::every, ::every
    ]
    matrix = affine @ np.diag([every, every, every, 1.0])
    return Template(maps=torch.from_numpy(coarse.astype(np.float32)), index_to_ras_mm=matrix)


def noise(scale: float, rng: Rng) -> Field:
    """Return smooth noise of unit variance whose features are `scale` voxels wide."""
    return np.asarray(fields.noise(SHAPE, scale, rng).numpy())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Head:
    """One head before it has brightness: where each voxel lies, and what is there."""

    at: Field  # (3, x, y, z), template millimetres from the middle of the brain
    tissue: Field  # (4, x, y, z)
    is_brain: NDArray[np.bool_]
    oedema: NDArray[np.bool_]
    core: NDArray[np.bool_]


def _pose(template: Template, rng: Rng) -> _Head:
    axes = [(np.arange(size) - (size - 1) / 2) * STEP_MM for size in SHAPE]
    here = np.stack(np.meshgrid(*axes, indexing="ij"))
    turn = fields.rotation(rng.normal(0, 0.14, 3)) @ np.diag(1.0 / rng.uniform(0.82, 1.1, 3))
    here = here - np.reshape(rng.normal([0, 0, 14], [6, 8, 10]), (3, 1, 1, 1))
    at = np.einsum("ij,jxyz->ixyz", turn, here)
    for scale, reach_mm in ((12, rng.uniform(2, 6)), (5, rng.uniform(0.5, 3))):
        at = at + reach_mm * np.stack([noise(scale, rng) for _ in range(3)])
    at[0] *= rng.choice([-1.0, 1.0])
    to_index = np.linalg.inv(template.index_to_ras_mm)
    centred = at + np.reshape(_CENTRE_MM, (3, 1, 1, 1))
    index = (
        np.einsum("ij,jxyz->ixyz", to_index[:3, :3], centred) + to_index[:3, 3, None, None, None]
    )
    counts = template.maps.shape[1:]
    unit = [2 * index[axis] / (counts[axis] - 1) - 1 for axis in (2, 1, 0)]
    where = torch.from_numpy(np.stack(unit, -1)[None].astype(np.float32))
    maps = functional.grid_sample(template.maps[None], where, align_corners=True)[0].numpy()
    is_brain = maps[4] > 0.5
    oedema, core = _tumour(is_brain, rng)
    return _Head(
        at=at.astype(np.float32), tissue=maps[:4], is_brain=is_brain, oedema=oedema, core=core
    )


def _tumour(is_brain: NDArray[np.bool_], rng: Rng) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return oedema and core of a tumour somewhere in the brain, also at its surface."""
    nothing = np.zeros(SHAPE, bool)
    if rng.random() < 0.25:
        return nothing, nothing
    centre = rng.permutation(np.argwhere(is_brain))[0]
    offset = np.indices(SHAPE) - np.reshape(centre, (3, 1, 1, 1))
    turn = fields.rotation(rng.uniform(-3, 3, 3)) @ np.diag(rng.uniform(0.7, 1.4, 3))
    distance = np.linalg.norm(np.einsum("ij,jxyz->ixyz", turn, offset), axis=0)
    radius = rng.uniform(1.5, 8.0)
    depth = radius * (1 + 0.25 * noise(3, rng)) - distance
    return (depth > -rng.uniform(0, 5)) & is_brain, (depth > 0) & is_brain


def _surroundings(head: _Head, rng: Rng) -> NDArray[np.int64]:
    """Return what lies around the brain, one of the ten materials per voxel."""
    uniform = rng.uniform
    hull = head.is_brain
    if rng.random() < 0.5:  # the skull's inside is smoother than the brain
        hull = ndimage.binary_closing(np.pad(hull, 6), iterations=int(rng.integers(2, 6)))
        hull = hull[6:-6, 6:-6, 6:-6] | head.is_brain
    wide, fine, finest = noise(10, rng), noise(4, rng), noise(2, rng)
    depth_mm = ndimage.distance_transform_edt(~hull).astype(np.float32) * STEP_MM
    fluid = np.maximum(uniform(0.5, 5) + 1.2 * wide, 0)
    bone = fluid + np.maximum(uniform(1.5, 9) + 1.5 * wide + fine, 1.0)
    scalp = bone + np.maximum(uniform(3, 14) + 2 * wide + fine, 1.0)
    parts = np.full(SHAPE, _AIR, np.int64)
    filling = rng.choice([_FLUID, _SOFT, _VESSEL], p=[0.75, 0.15, 0.1])
    parts[hull & ~head.is_brain] = filling
    is_out = depth_mm > 0
    parts[is_out & (depth_mm <= scalp)] = _FAT
    parts[is_out & (depth_mm <= bone)] = _BONE
    if rng.random() < 0.3:  # marrow between two tables
        middle = (fluid + bone) / 2
        parts[is_out & (abs(depth_mm - middle) < (bone - fluid) / 5)] = _SOFT_FAT
    parts[is_out & (depth_mm <= fluid)] = _FLUID
    _add_face(parts, head, (wide, fine, finest), rng)
    parts[(abs(finest) < 0.12) & (parts == _FLUID)] = _VESSEL
    return parts


def _add_face(
    parts: NDArray[np.int64], head: _Head, noises: tuple[Field, Field, Field], rng: Rng
) -> None:
    """Add face, neck, air of the sinuses and eyes, in place."""
    uniform = rng.uniform
    wide, fine, finest = noises
    x, y, z = head.at
    outside = ~head.is_brain
    bumpy = 1 + 0.1 * fine
    face = (x / uniform(60, 75)) ** 2 + ((y - uniform(35, 60)) / uniform(45, 65)) ** 2
    face = (face + ((z + uniform(55, 80)) / uniform(55, 80)) ** 2 < bumpy) & outside
    neck = (x / uniform(50, 70)) ** 2 + ((y + uniform(10, 30)) / uniform(50, 70)) ** 2
    neck = (neck < bumpy) & (z < -uniform(45, 60)) & outside
    soft = (face | neck) & (parts == _AIR)
    parts[soft] = _MUSCLE
    parts[soft & (fine > uniform(0.2, 1.2))] = _SOFT_FAT
    parts[soft & (finest > uniform(0.8, 1.6))] = _SOFT
    parts[face & (wide > uniform(0.6, 1.5)) & (parts != _FLUID)] = _SINUS
    _add_eyes(parts, head, finest, rng)


def _add_eyes(parts: NDArray[np.int64], head: _Head, finest: Field, rng: Rng) -> None:
    """Add the globes, and behind them the cones of fat that reach up to the brain, in place."""
    uniform = rng.uniform
    x, y, z = head.at
    outside = ~head.is_brain
    front, low, apart, radius = uniform(64, 80), uniform(34, 50), uniform(28, 36), uniform(10, 13)
    depth, width = uniform(14, 26), uniform(11, 17)
    for side in (-1, 1):
        from_globe = np.sqrt((x - side * apart) ** 2 + (y - front) ** 2 + (z + low) ** 2)
        inward = (x - side * (apart - 0.3 * (front - y))) / width
        cone = inward**2 + ((y - front + 0.6 * depth) / depth) ** 2 + ((z + low) / width) ** 2
        parts[(cone < 1) & outside] = _SOFT_FAT
        parts[(cone < 1) & outside & (finest > 1)] = _MUSCLE
        shell = (from_globe >= radius) & (from_globe < radius + uniform(3, 8))
        parts[shell & outside & (parts != _AIR)] = _SOFT_FAT
        parts[(from_globe < radius) & outside] = _EYE


def _brightness(rng: Rng) -> tuple[Field, Field, float, float]:
    """Return the levels of four tissues, of ten materials, of oedema and of the core."""
    uniform = rng.uniform
    contrast = str(rng.choice(_CONTRASTS, p=_SHARES))
    if contrast == "any":
        around = uniform(0, 1, 10)
        around[[_AIR, _BONE]] = uniform(0, 0.06), uniform(0, 0.5)
        tissue, oedema, core = uniform(0.05, 1, 4), uniform(0, 1), uniform(0, 1.2)
        return tissue.astype(np.float32), around.astype(np.float32), oedema, core
    *levels, oedema = _LEVELS[contrast]
    tissue = np.array(levels) + rng.normal(0, 0.06, 4)
    fat = uniform(0.4, 1.4) * (1.0 if rng.random() < 0.75 else 0.3)
    fluid = tissue[0] if rng.random() < 0.7 else uniform(0, 1)
    around = np.array([uniform(0, 0.06), fluid, uniform(0.02, 0.25), fat, uniform(0.3, 0.7)])
    more = [
        fat * uniform(0.7, 1.1),
        uniform(0.25, 0.6),
        uniform(0, 0.08),
        tissue[1],
        uniform(0, 1.4),
    ]
    core = oedema + rng.normal(0, 0.3)
    levels_around = np.concatenate([around, more]).astype(np.float32)
    return tissue.astype(np.float32), levels_around, oedema + rng.normal(0, 0.1), core


def _imaged(image: Field, head: _Head, rng: Rng) -> Field:
    """Add what a scanner adds: partial volume, coil profile, noise."""
    widths = [rng.uniform(0.2, 0.6)] * 3
    if rng.random() < 0.6:
        widths[int(rng.choice(3, p=[0.15, 0.15, 0.7]))] = rng.uniform(0.5, 1.1)
    image = ndimage.gaussian_filter(np.maximum(image, 0), widths)
    fading = rng.uniform(-0.012, 0.012) * np.clip(head.at[2], -90, 60) * (rng.random() < 0.6)
    image = image * np.exp(rng.uniform(0, 0.35) * noise(28, rng) + fading)
    image = image ** math.exp(rng.normal(0, 0.2))
    grain = rng.uniform(0, 0.05) * rng.standard_normal(SHAPE)
    return np.asarray(abs(image + grain), dtype=np.float32)


def _limited(image: Field, brain: NDArray[np.bool_], rng: Rng) -> None:
    """Cut the field of view along z, in place; also through the brain."""
    heights = np.flatnonzero(brain.any(axis=(0, 1)))
    low = max(0, int(heights[0]) + int(rng.integers(-8, 3)))
    high = int(heights[-1]) + int(rng.integers(-2, 6))
    for array in (image, brain):
        array[:, :, :low] = 0
        array[:, :, high + 1 :] = 0


def draw_head(template: Template, rng: Rng) -> tuple[Tensor, Tensor]:
    """Return one head's image as the service would hand it to the network, and its brain."""
    head = _pose(template, rng)
    parts = _surroundings(head, rng)
    tissue, around, oedema, core = _brightness(rng)
    inside = np.tensordot(tissue, head.tissue, 1) * (1 + rng.uniform(0, 0.1) * noise(2, rng))
    inside = np.where(head.oedema, oedema, inside)
    inside = np.where(head.core, core, inside)
    outside = around[parts] * (1 + rng.uniform(0, 0.2) * noise(4, rng))
    outside = outside * (1 + rng.uniform(0, 0.15) * noise(2, rng))
    image = _imaged(np.where(head.is_brain, inside, outside), head, rng)
    brain = head.is_brain.copy()
    if rng.random() < 0.6:
        _limited(image, brain, rng)
    if rng.random() < 0.12:
        image *= ndimage.binary_dilation(brain, iterations=int(rng.integers(1, 3)))
    if rng.random() < 0.5:
        image, brain = image[::-1], brain[::-1]
    scaled = np.ascontiguousarray(_scaled(image))
    return torch.from_numpy(scaled), torch.from_numpy(np.ascontiguousarray(brain, np.float32))


def _scaled(image: Field) -> Field:
    positive = image[image > 0]
    if positive.size == 0:
        return image
    return np.asarray(np.clip(image / np.percentile(positive, 99.5), 0.0, 1.5), np.float32)
