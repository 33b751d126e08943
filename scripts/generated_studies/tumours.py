# ruff: noqa: PLR2004 - the numbers are the ranges from which tumours are drawn
"""Tumours of many kinds, and what only looks like one.

A lesion is an uneven ellipsoid; its kind says how enhancing, necrotic, non-enhancing and cystic
tissue share its core. Oedema spreads from it along white matter and fades out. Lesions push the
brain aside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from scripts.generated_studies.anatomy import (
    SHAPE,
    STEP_MM,
    Brain,
    Pose,
)
from scripts.generated_studies.fields import Rng, between, blurred, millimetres, noise, rotation

# Tissue of a lesion; `LABEL` is what each is called in the label map (1 oedema, 2 core that does
# not enhance, 3 enhancing). A resection cavity is no tumour.
OEDEMA, NECROSIS, ENHANCING, SOLID, CYST, BLOOD, CAVITY = range(1, 8)
LABEL = (0, 1, 2, 3, 2, 2, 2, 0)
PER_LESION = 8  # tissue codes of lesion k begin at 8 k
MOST_LESIONS = 4
# What is no tumour but may look like it.
WHITE_SPOT, VESSEL, PLEXUS, DURA, LACUNE = range(1, 6)

_SPECK_MM3 = 70.0
_LARGEST_MM = {"solid": 20.0, "patchy": 26.0}  # larger ones are dead in their middle

_KINDS = ("ring", "solid", "cystic", "patchy", "infiltrative", "cavity")
_SHARES = (0.45, 0.12, 0.07, 0.14, 0.17, 0.05)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesion:
    """Where a lesion lies (mm on the lattice), how large it is, what kind it is."""

    centre_mm: tuple[float, float, float]
    radius_mm: float
    kind: str
    push: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Growth:
    """Lesions on the lattice.

    Parameters
    ----------
    tissue : (x, y, z) tensor of uint8
        ``PER_LESION * lesion + tissue``; 0 where there is none.
    strength : (x, y, z) tensor of float32
        How much of the voxel the lesion has replaced, 0 to 1; oedema fades beyond its label.
    labels : (x, y, z) tensor of uint8
        The truth.
    """

    tissue: Tensor
    strength: Tensor
    labels: Tensor


def plan(pose: Pose, rng: Rng, *, healthy: bool | None = None) -> list[Lesion]:
    """Return the lesions of one brain: none in one of eight, several in one of six."""
    draw = rng.random()
    count = 0 if draw < 0.12 else (1 if draw < 0.84 else int(rng.integers(2, MOST_LESIONS + 1)))
    if healthy is not None:
        count = 0 if healthy else max(count, 1)
    if count == 0:
        return []
    maps, _ = pose.sample(millimetres(SHAPE, STEP_MM))
    inside = ndimage.binary_erosion((maps[3] > 0.5).numpy(), iterations=3)
    likely = torch.from_numpy(inside) * (maps[4] > 0.05) * (0.4 + maps[2]) * (1 - 0.8 * maps[6])
    chance = likely.flatten().double().numpy()
    places = rng.choice(chance.size, size=count, p=chance / chance.sum())
    lesions = []
    for order, place in enumerate(places):
        index = np.array(np.unravel_index(place, SHAPE))
        x, y, z = (index - (np.array(SHAPE) - 1) / 2) * STEP_MM
        kind = str(rng.choice(_KINDS, p=_SHARES))
        radius_mm = _radius(rng) if order == 0 else between(3, 13, rng)
        lesions.append(
            Lesion(
                centre_mm=(float(x), float(y), float(z)),
                radius_mm=min(radius_mm, _LARGEST_MM.get(kind, math.inf)),
                kind=kind,
                push=rng.uniform(0, 0.55),
            )
        )
    return lesions


def _radius(rng: Rng) -> float:
    """Return the radius of a first lesion; patients come with large ones."""
    return rng.uniform(8, 34) if rng.random() < 0.55 else between(5, 30, rng)


def pushed(here: Tensor, lesions: list[Lesion]) -> Tensor:
    """Return where in the brain without lesions each place lay; volume is kept around them."""
    moved = here.clone()
    for lesion in lesions:
        offset = here - torch.tensor(lesion.centre_mm)[:, None, None, None]
        distance = offset.norm(dim=0) + 1e-3
        fading = torch.exp(-((distance / (3.2 * lesion.radius_mm + 12)) ** 2))
        source = (distance**3 - lesion.push * lesion.radius_mm**3 * fading).clamp(min=1e-3)
        moved = moved + offset * (source ** (1 / 3) / distance - 1)
    return moved


def grow(brain: Brain, lesions: list[Lesion], rng: Rng) -> Growth:
    """Grow lesions, the first one over the others."""
    tissue = torch.zeros(SHAPE, dtype=torch.uint8)
    strength = torch.zeros(SHAPE)
    for order, lesion in reversed(list(enumerate(lesions))):
        own, own_strength = _grown(brain, lesion, rng)
        inside_cavity = lesion.kind == "cavity"
        over = (own > OEDEMA) | ((own == OEDEMA) & (tissue % PER_LESION <= OEDEMA))
        if inside_cavity:
            over = own > 0
        code = (own + PER_LESION * order).to(torch.uint8)
        tissue = torch.where(over & (own_strength > 0), code, tissue)
        strength = torch.where(over, torch.maximum(strength, own_strength), strength)
    kinds = torch.tensor(LABEL, dtype=torch.uint8)[(tissue % PER_LESION).long()]
    labels = torch.where((kinds == OEDEMA) & (strength < 0.45), torch.zeros_like(kinds), kinds)
    return Growth(tissue=tissue, strength=strength, labels=labels)


def _voxels(width_mm: float) -> float:
    return max(1.3, width_mm / STEP_MM)


def _noise(width_mm: float, rng: Rng) -> Tensor:
    return noise(SHAPE, _voxels(width_mm), rng)


def _grown(brain: Brain, lesion: Lesion, rng: Rng) -> tuple[Tensor, Tensor]:
    """Return the tissue and strength of one lesion."""
    uniform = rng.uniform
    stretch = rotation(rng.uniform(-3, 3, 3)) @ np.diag(uniform(0.65, 1.45, 3))
    offset = brain.here - torch.tensor(lesion.centre_mm)[:, None, None, None]
    turned = torch.einsum("ij,jxyz->ixyz", torch.from_numpy(stretch.astype(np.float32)), offset)
    radius = lesion.radius_mm
    bumps = uniform(0.08, 0.42) * _noise(max(4.0, 0.9 * radius), rng)
    bumps = bumps + uniform(0, 0.16) * _noise(4.0, rng)
    outside_mm = turned.norm(dim=0) - radius * (1 + bumps)
    free = brain.inside & (brain.tissue[1] < 0.8)
    core = (outside_mm < 0) & free
    own = torch.zeros(SHAPE, dtype=torch.uint8)
    strength = torch.zeros(SHAPE)
    oedema = _oedema(brain, lesion, outside_mm, rng)
    reach = (oedema > 0.02) & ~core
    own[reach] = OEDEMA
    strength[reach] = oedema[reach]
    own[core] = _core(lesion, outside_mm, rng)[core]
    strength[core] = 1.0
    return own, strength


def _oedema(brain: Brain, lesion: Lesion, outside_mm: Tensor, rng: Rng) -> Tensor:
    """Return how much oedema there is, 0 to 1: far along white matter, little in cortex."""
    uniform = rng.uniform
    ranges = [uniform(0, 6), uniform(4, 16), uniform(12, 34)]
    far_mm = float(rng.choice(ranges, p=[0.25, 0.45, 0.3]))
    if lesion.kind == "infiltrative":
        far_mm = uniform(0, 12)
    white = blurred(brain.tissue[4], [0.9] * 3)
    uneven = 0.38 * _noise(12, rng).clamp(-1.5, 1.5) + 0.12 * _noise(5, rng)
    reach_mm = far_mm * (0.12 + white + uneven)
    sharp_mm = uniform(0.4, 2.5)
    amount = torch.sigmoid((reach_mm - outside_mm) / sharp_mm)
    csf = blurred(brain.tissue[0] + brain.tissue[1], [0.6] * 3)
    amount = amount * brain.inside * (csf < 0.5) * (reach_mm > 0.5)
    cortex = blurred(brain.tissue[2], [0.6] * 3) > 0.7
    spared = cortex & (_noise(8, rng) > uniform(-1.0, 1.2)) & (outside_mm > 4)
    return blurred(amount * ~spared, [0.7] * 3) * brain.inside


def _core(lesion: Lesion, outside_mm: Tensor, rng: Rng) -> Tensor:
    """Return the tissue of a lesion's core, everywhere."""
    draw = {
        "ring": _ring,
        "solid": _solid,
        "cystic": _cystic,
        "patchy": _patchy,
        "infiltrative": _infiltrative,
        "cavity": _cavity,
    }[lesion.kind]
    core = draw(lesion, outside_mm, rng)
    if lesion.kind != "cavity" and rng.random() < 0.15:
        clots = (_noise(rng.uniform(3, 9), rng) > rng.uniform(1.0, 2.2)) & (core != ENHANCING)
        core[clots] = BLOOD
    if lesion.kind != "cavity":
        core[_specks((core == ENHANCING) & (outside_mm < 0))] = SOLID
    return core


def _specks(enhancing: Tensor) -> Tensor:
    """Return the pieces that nobody would draw."""
    pieces, _ = ndimage.label(enhancing.numpy(), np.ones((3, 3, 3)))
    counts = np.bincount(pieces.ravel())
    return torch.from_numpy((pieces > 0) & (counts * STEP_MM**3 < _SPECK_MM3)[pieces])


def _either(where: Tensor, one: int, other: int) -> Tensor:
    return torch.where(where, one, other).to(torch.uint8)


def _ring(lesion: Lesion, outside_mm: Tensor, rng: Rng) -> Tensor:
    """Enhancing rim, thin to thick, with nodules, around necrosis; sometimes tumour around it."""
    uniform = rng.uniform
    fine, coarse = _noise(4.5, rng), _noise(max(8.0, 0.7 * lesion.radius_mm), rng)
    thick_mm = between(1.6, max(2.5, min(9.0, 0.5 * lesion.radius_mm)), rng)
    rim_mm = (thick_mm * (1 + uniform(0.2, 0.7) * coarse + 0.25 * fine)).clamp(min=0)
    outer_mm = torch.zeros(())
    around = rng.random() < 0.3  # tumour outside of the rim that does not enhance
    if around:
        outer_mm = -uniform(1, 0.35 * lesion.radius_mm + 1) * (1 + 0.5 * _noise(12, rng)).clamp(
            min=0
        )
    rim = (outside_mm < outer_mm) & (outside_mm > outer_mm - rim_mm)
    rim &= coarse > uniform(-2.6, -1.1)
    nodule = (_noise(uniform(5, 12), rng) > uniform(1.0, 2.2)) & (
        outside_mm > -0.7 * lesion.radius_mm
    )
    septum = (fine.abs() < uniform(0, 0.12)) & (outside_mm > -2.5 * thick_mm)
    enhancing = rim | ((nodule | septum) & (outside_mm < outer_mm))
    core = _either(enhancing, ENHANCING, NECROSIS)
    if around:
        core[(outside_mm >= outer_mm) & ~enhancing] = SOLID
    return core


def _solid(lesion: Lesion, outside_mm: Tensor, rng: Rng) -> Tensor:
    """Enhancement throughout, with few dead spots."""
    del outside_mm
    holes = _noise(max(5.0, 0.5 * lesion.radius_mm), rng) > rng.uniform(1.0, 3.0)
    return _either(holes, NECROSIS, ENHANCING)


def _cystic(lesion: Lesion, outside_mm: Tensor, rng: Rng) -> Tensor:
    """Fluid, a thin and often broken wall, and perhaps a nodule at it."""
    coarse = _noise(10, rng)
    wall = (outside_mm > -between(1.3, 3.5, rng)) & (coarse > rng.uniform(-1.2, 0.8))
    nodule = (coarse > rng.uniform(1.2, 2.2)) & (outside_mm > -0.6 * lesion.radius_mm)
    return _either(wall | nodule, ENHANCING, CYST)


def _patchy(lesion: Lesion, outside_mm: Tensor, rng: Rng) -> Tensor:
    """Tumour that enhances in patches, some of them with dead tissue."""
    del outside_mm
    coarse = _noise(max(6.0, 0.5 * lesion.radius_mm), rng)
    patches = 0.6 * _noise(4.5, rng) + 0.8 * coarse > rng.uniform(0, 1.0)
    core = _either(patches, ENHANCING, SOLID)
    core[coarse < -rng.uniform(0.7, 2.5)] = NECROSIS
    return core


def _infiltrative(lesion: Lesion, outside_mm: Tensor, rng: Rng) -> Tensor:
    """Tumour that does not enhance, or in one of three in a nodule or two."""
    del lesion, outside_mm
    nodules = 0.5 * _noise(4.5, rng) + 0.9 * _noise(10, rng) > rng.uniform(1.2, 2.2)
    return _either(nodules & (rng.random() < 0.35), ENHANCING, SOLID)


def _cavity(lesion: Lesion, outside_mm: Tensor, rng: Rng) -> Tensor:
    """Fluid where tumour was cut out, perhaps with a rest of it at the wall."""
    wall = outside_mm > -between(1.5, 6.0, rng)
    rest = wall & (_noise(max(8.0, 0.6 * lesion.radius_mm), rng) > rng.uniform(0.0, 2.5))
    return _either(rest, ENHANCING, CAVITY)


def draw_lookalikes(brain: Brain, rng: Rng) -> Tensor:
    """Return (x, y, z) uint8: white-matter spots, vessels, plexus, dura and lacunes."""
    uniform = rng.uniform
    sulci, ventricle, *_, white = brain.tissue
    found = torch.zeros(SHAPE, dtype=torch.uint8)
    if rng.random() < 0.6:
        caps = torch.exp(-((brain.ventricle_mm / uniform(1.5, 6)) ** 2)) * uniform(0.3, 1.2)
        spots = 0.35 * _noise(uniform(3.5, 7), rng) * float(rng.random() < 0.75)
        found[(white > 0.5) & (caps + spots > uniform(0.7, 1.2))] = WHITE_SPOT
    if rng.random() < 0.2:
        found[(white > 0.5) & (_noise(4, rng) > uniform(2.6, 3.4))] = LACUNE
    vessel = (sulci > 0.35) & (_noise(3.2, rng).abs() < uniform(0.05, 0.3))
    found[vessel & (_noise(5, rng).abs() < 0.5) & (found == 0)] = VESSEL
    plexus = (ventricle > 0.7) & (brain.ventricle_mm < -1) & (_noise(6, rng) > uniform(0.8, 2.2))
    found[plexus] = PLEXUS
    edge_mm = torch.from_numpy(
        ndimage.distance_transform_edt(brain.inside.numpy()).astype(np.float32) * STEP_MM
    )
    x, y, _ = brain.at
    sinus = (edge_mm < 6) & (x.abs() < 5) & (y < 20) & (_noise(10, rng) > -0.8) & (white < 0.5)
    found[brain.inside & sinus] = VESSEL
    dura = brain.inside & (edge_mm < uniform(1.2, 3)) & (_noise(8, rng) > uniform(-0.5, 1.5))
    found[dura & (found == 0)] = DURA
    return found
