# ruff: noqa: PLR2004 - the numbers are the ranges from which brains are drawn
"""Brains and heads without brightness: which tissue lies where.

Tissue maps of the ICBM 152 template, as nilearn packages them, are turned, stretched, pushed aside
by tumours and warped at random; ventricles and sulci are drawn wider or narrower; skull, scalp,
eyes and face are drawn around them by formulas. No patient's image is used. Arrays are (x, y, z),
right-anterior-superior.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nibabel
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from scripts.generated_studies.fields import Rng, Shape, millimetres, noise, rotation

STEP_MM = 1.5
SHAPE: Shape = (120, 144, 120)
# What lies outside of the brain; `BRAIN` is none of it.
AIR, FLUID, BONE, FAT, MUSCLE, MARROW, SOFT, EYE, BRAIN = range(9)
_CENTRE_MM = (0.0, -18.0, 8.0)  # of the brain in the template's coordinates
_DEEP_MM = 18.0
_SDF_MM = 20.0  # the distance to the ventricles is kept up to here

Push = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Maps:
    """Sulcal CSF, grey, white, brain, distance to the ventricles, deep nuclei, cerebellum."""

    maps: Tensor
    origin_mm: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Brain:
    """One brain on the lattice.

    Parameters
    ----------
    tissue : (5, x, y, z) tensor of float32
        Shares of sulcal CSF, ventricular CSF, cortex, deep grey and white matter.
    inside : (x, y, z) tensor of bool
        Brain with its CSF.
    cerebellum : (x, y, z) tensor of float32
        Share that is cerebellum or brainstem.
    ventricle_mm : (x, y, z) tensor of float32
        Distance to the ventricles' wall, negative within.
    at : (3, x, y, z) tensor of float32
        Where the voxel lies in the template, mm from the middle of the brain.
    here : (3, x, y, z) tensor of float32
        Where it lies on the lattice, mm from the lattice's middle.
    """

    tissue: Tensor
    inside: Tensor
    cerebellum: Tensor
    ventricle_mm: Tensor
    at: Tensor
    here: Tensor


def read_template() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """Return grey and white matter of the template in nilearn's package, and the 4x4 affine.

    nilearn itself is not imported.
    """
    spec = importlib.util.find_spec("nilearn")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("nilearn is not installed: pip install --no-deps nilearn")
    folder = Path(next(iter(spec.submodule_search_locations))) / "datasets" / "data"
    images = [
        nibabel.Nifti1Image.from_filename(
            folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
        )
        for name in ("gm", "wm")
    ]
    grey, white = (np.asarray(image.dataobj, np.float32) / 255.0 for image in images)
    return grey, white, np.asarray(images[0].affine)


@cache
def read_maps() -> Maps:
    """Return the maps that brains are drawn from."""
    grey, white, affine = read_template()
    origin = affine[:3, 3]
    brain = envelope(grey + white > 0.35)
    csf = np.clip(1.0 - grey - white, 0.0, 1.0) * brain
    x, y, z = (np.indices(grey.shape).astype(np.float32) + np.reshape(origin, (3, 1, 1, 1))).astype(
        np.float32
    )
    ventricles = _ventricles((csf > 0.5) & _is_central(x, y, z), brain)
    outside, inside = (
        ndimage.distance_transform_edt(one).astype(np.float32) for one in (~ventricles, ventricles)
    )
    deep = np.exp(-((((abs(x) - 18) / 16) ** 2 + (y / 28) ** 2 + ((z - 4) / 14) ** 2) ** 2))
    cerebellum = (y < -25) / (1 + np.exp(-((-18 - z) + 0.35 * (-45 - y)) / 3))
    distance = np.clip((outside - inside) / _SDF_MM, -1, 1)
    maps = np.stack([csf, grey, white, brain, distance, deep, cerebellum]).astype(np.float32)
    return Maps(maps=torch.from_numpy(maps), origin_mm=origin)


def envelope(tissue: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the brain as one piece: sulci and ventricles belong to it."""
    margin = 12
    ball = ndimage.generate_binary_structure(3, 1)
    closed = ndimage.binary_closing(np.pad(tissue, margin), ball, iterations=8)
    inside = slice(margin, -margin)
    filled = ndimage.binary_fill_holes(closed[inside, inside, inside])
    pieces, _ = ndimage.label(filled)
    return np.asarray(pieces == np.bincount(pieces.ravel())[1:].argmax() + 1)


def _is_central(
    x: NDArray[np.float32], y: NDArray[np.float32], z: NDArray[np.float32]
) -> NDArray[np.bool_]:
    return np.asarray((abs(x) < 42) & (abs(y + 10) < 52) & (abs(z - 2) < 34))


def _ventricles(central: NDArray[np.bool_], brain: NDArray[np.bool_]) -> NDArray[np.bool_]:
    deep = central & (ndimage.distance_transform_edt(brain) > _DEEP_MM)
    pieces, _ = ndimage.label(ndimage.binary_opening(deep))
    large = np.flatnonzero(np.bincount(pieces.ravel()) > 120)
    return np.isin(pieces, large[large > 0])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pose:
    """How one brain lies on the lattice and differs from the template."""

    turn: Tensor
    warp: Tensor
    shift_mm: Tensor
    mirrored: bool

    def sample(self, here: Tensor) -> tuple[Tensor, Tensor]:
        """Return the maps where `here` lies, and where that is in the template."""
        template = read_maps()
        at = torch.einsum("ij,jxyz->ixyz", self.turn, here) + self.warp
        if self.mirrored:
            at = torch.cat([-at[:1], at[1:]])
        origin = torch.from_numpy(template.origin_mm.astype(np.float32))
        index = at + (self.shift_mm - origin)[:, None, None, None]
        counts = template.maps.shape[1:]
        unit = [2 * index[axis] / (counts[axis] - 1) - 1 for axis in (2, 1, 0)]
        where = torch.stack(unit, -1)[None]
        maps = functional.grid_sample(
            template.maps[None], where, align_corners=True, padding_mode="border"
        )
        return maps[0], at


def draw_pose(rng: Rng) -> Pose:
    """Return a head that is turned a little, of any size and of another shape."""
    turn = rotation(rng.normal(0, 0.1, 3)) @ np.diag(1.0 / rng.uniform(0.82, 1.04, 3))
    reaches = ((32, rng.uniform(2, 6)), (13, rng.uniform(0.5, 2.5)), (6.5, rng.uniform(0, 0.9)))
    warp = torch.zeros((3, *SHAPE))
    for width, reach_mm in reaches:
        warp += reach_mm * torch.stack([noise(SHAPE, width, rng) for _ in range(3)])
    shift = np.array(_CENTRE_MM) + rng.normal(0, 3, 3)
    return Pose(
        turn=torch.from_numpy(turn.astype(np.float32)),
        warp=warp,
        shift_mm=torch.from_numpy(shift.astype(np.float32)),
        mirrored=bool(rng.random() < 0.5),
    )


def draw_brain(pose: Pose, push: Push, rng: Rng) -> Brain:
    """Return the tissue of a brain into which `push` says what was displaced from where."""
    here = millimetres(SHAPE, STEP_MM)
    maps, at = pose.sample(push(here))
    inside = torch.from_numpy(ndimage.binary_fill_holes((maps[3] > 0.5).numpy()))
    wall_mm = maps[4] * _SDF_MM + noise(SHAPE, 10, rng)
    widening_mm = rng.choice([rng.uniform(-1.5, 1), rng.uniform(0, 4.5)])
    wall_mm = wall_mm - widening_mm
    ventricle = torch.sigmoid(-wall_mm / 0.8) * inside
    logits = torch.log(maps[:3].clamp(min=0.02))
    logits[0] += rng.uniform(-0.25, 0.5)
    logits = logits * rng.uniform(1.3, 3.0)
    rough = rng.uniform(0.2, 1.0)
    for tissue in range(3):
        logits[tissue] += 0.7 * rough * (noise(SHAPE, 2.6, rng) + noise(SHAPE, 1.6, rng))
    sulci, grey, white = torch.softmax(logits, 0) * (1 - ventricle)
    deep = maps[5] * grey
    return Brain(
        tissue=torch.stack([sulci, ventricle, grey - deep, deep, white]) * inside,
        inside=inside,
        cerebellum=maps[6] * inside,
        ventricle_mm=wall_mm,
        at=at,
        here=here,
    )


def draw_surroundings(brain: Brain, rng: Rng) -> Tensor:
    """Return (x, y, z) uint8: what lies around the brain, `BRAIN` where it is."""
    uniform = rng.uniform
    inside = brain.inside.numpy()
    depth_mm = ndimage.distance_transform_edt(~inside).astype(np.float32) * STEP_MM
    if rng.random() < 0.6:  # the skull's inside is smoother than the brain
        reach_mm = uniform(4, 12)
        hull = depth_mm < reach_mm
        hull = ndimage.distance_transform_edt(hull) * STEP_MM > reach_mm
        depth_mm = ndimage.distance_transform_edt(~(hull | inside)).astype(np.float32) * STEP_MM
    wide, fine, finest = (noise(SHAPE, width, rng).numpy() for width in (26, 10, 4))
    fluid = np.maximum(uniform(0.3, 3.5) + uniform(0.3, 1.2) * wide, 0)
    bone = fluid + np.maximum(uniform(2, 8) + 1.2 * wide + 0.7 * fine, 1.0)
    scalp = bone + np.maximum(uniform(3, 12) + 2 * wide + fine, 1.0)
    parts = np.full(SHAPE, AIR, np.uint8)
    parts[depth_mm <= scalp] = FAT
    parts[(depth_mm <= scalp) & (finest > uniform(0.6, 1.6))] = MUSCLE
    parts[depth_mm <= bone] = BONE
    if rng.random() < 0.6:
        middle = (fluid + bone) / 2
        parts[abs(depth_mm - middle) < (bone - fluid) * uniform(0.08, 0.3)] = MARROW
    parts[depth_mm <= fluid] = FLUID
    _add_face(parts, brain, (wide, fine, finest), rng)
    parts[inside] = BRAIN
    return torch.from_numpy(parts)


def _add_face(
    parts: NDArray[np.uint8],
    brain: Brain,
    noises: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]],
    rng: Rng,
) -> None:
    """Add muscle, fat and air below and in front of the brain, eyes and what lies behind them."""
    uniform = rng.uniform
    wide, fine, finest = noises
    x, y, z = brain.at.numpy()
    face = (x / uniform(60, 75)) ** 2 + ((y - uniform(35, 60)) / uniform(45, 65)) ** 2
    face = face + ((z + uniform(55, 80)) / uniform(55, 80)) ** 2 < 1 + 0.1 * fine
    neck = (x / uniform(50, 70)) ** 2 + ((y + uniform(10, 30)) / uniform(50, 70)) ** 2
    neck = (neck < 1 + 0.1 * fine) & (z < -uniform(45, 60))
    soft = (face | neck) & np.isin(parts, (AIR, FAT))
    parts[soft] = MUSCLE
    parts[soft & (fine > uniform(0.2, 1.2))] = FAT
    parts[soft & (finest > uniform(0.8, 1.6))] = SOFT
    parts[face & (wide > uniform(0.6, 1.5)) & (parts != FLUID)] = AIR
    front, low, apart, radius = uniform(60, 76), uniform(34, 48), uniform(28, 36), uniform(10, 13)
    depth, width = uniform(14, 26), uniform(11, 17)
    for side in (-1, 1):
        ahead, up = y - front, z + low
        inward = (x - side * (apart + 0.3 * ahead)) / width
        cone = inward**2 + ((ahead + 0.6 * depth) / depth) ** 2 + (up / width) ** 2 < 1
        parts[cone] = FAT
        parts[cone & (finest > 1)] = MUSCLE
        parts[(x - side * apart) ** 2 + ahead**2 + up**2 < radius**2] = EYE
