# ruff: noqa: PLR2004 - the numbers are the ranges from which images are drawn
"""From tissue to the four images of a study: brightness by sequence, and the faults of a scanner.

What a sequence must show holds in every draw (oedema bright and fluid dark in FLAIR, fluid and
oedema bright in T2, core dark in T1, enhancing tumour brighter than before in T1gd); all else is
drawn. Channels stand in the order FLAIR, T1, T1gd, T2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from scripts.generated_studies import anatomy, tumours
from scripts.generated_studies.fields import Rng, Shape, between, blurred, grain, noise, rotation

ROLES = ("flair", "t1", "t1gd", "t2")
FLAIR, T1, T1GD, T2 = range(4)
# Planes of a scene, as `scene.draw_scene` stacks them.
TISSUES = slice(0, 5)
CEREBELLUM, PARTS, LABELS, LESION, LOOKALIKE, STRENGTH = range(5, 11)
PLANES = 11

# Sulcal CSF, ventricular CSF, cortex, deep grey matter, white matter.
_LEVELS = {
    FLAIR: (0.28, 0.15, 0.58, 0.55, 0.46),
    T1: (0.22, 0.16, 0.52, 0.58, 0.72),
    T2: (0.95, 1.00, 0.56, 0.50, 0.40),
}
_CLIP = 5.0  # deviations; the model's manifest says the same
_SAMPLES = 30_000

Levels = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Look:
    """Brightness of everything in one study.

    Parameters
    ----------
    tissue : (4, 5) ndarray
        By channel and brain tissue.
    parts : (4, 9) ndarray
        By channel and what lies around the brain.
    lesion : (4, 32) ndarray
        By channel and code of `tumours`; for T1gd what is there before contrast agent.
    uptake : (32,) ndarray
        What contrast agent adds, by code.
    lookalike : (4, 6) ndarray
        What is added, by channel and look-alike; a sequence's vessels may be dark instead.
    cerebellum : (4,) ndarray
        Relative brightness of the cerebellum.
    mix : float
        How much of an oedema's brightness is its own.
    texture : float
        How uneven a lesion is.
    """

    tissue: Levels
    parts: Levels
    lesion: Levels
    uptake: Levels
    lookalike: Levels
    cerebellum: Levels
    mix: float
    texture: float


def draw_look(rng: Rng) -> Look:
    """Return the brightness of everything in one study."""
    uniform, normal = rng.uniform, rng.normal
    tissue = np.zeros((4, 5))
    for channel in (FLAIR, T1, T2):
        tissue[channel] = np.array(_LEVELS[channel]) + normal(0, 0.05, 5)
    if tissue[T1, 4] < tissue[T1, 2] + 0.03 and rng.random() < 0.9:
        tissue[T1, 4] = tissue[T1, 2] + uniform(0.03, 0.25)
    if tissue[T2, 4] > tissue[T2, 2] - 0.02:
        tissue[T2, 4] = tissue[T2, 2] - uniform(0.02, 0.15)
    tissue[T1GD] = _after_contrast(tissue[T1], rng)
    lesion, uptake = _lesion_levels(rng)
    white = tissue[:, 4] / np.array([_LEVELS[key][4] for key in (FLAIR, T1, T1, T2)])
    return Look(
        tissue=tissue,
        parts=_part_levels(tissue, rng),
        lesion=lesion * (0.5 + 0.5 * white)[:, None],
        uptake=uptake,
        lookalike=_lookalike_levels(rng),
        cerebellum=1 + normal(0, 0.06, 4),
        mix=uniform(0.55, 1.0),
        texture=uniform(0.0, 0.16),
    )


def _after_contrast(before: Levels, rng: Rng) -> Levels:
    """Return a T1gd's tissue: like the T1, of another sequence, or with little of its contrast."""
    kind = rng.random()
    if kind < 0.45:
        return before + rng.normal(0, 0.02, 5)
    after = np.array(_LEVELS[T1]) + rng.normal(0, 0.05, 5)
    if kind < 0.75:
        share = rng.uniform(0, 0.6)
        after[2:] = share * after[2:] + (1 - share) * after[2:].mean()
    return after


def _lesion_levels(rng: Rng) -> tuple[Levels, Levels]:
    uniform = rng.uniform
    codes = tumours.PER_LESION * tumours.MOST_LESIONS
    levels, uptake = np.zeros((4, codes)), np.zeros(codes)
    for first in range(0, codes, tumours.PER_LESION):
        oedema = uniform(0.68, 1.25), uniform(0.36, 0.62), uniform(0.62, 1.0)
        dead_flair = rng.choice([uniform(0.2, 0.55), uniform(0.5, 1.1)])
        fluid_flair = rng.choice([uniform(0.12, 0.35), uniform(0.3, 0.85)])
        blood = uniform(0.25, 1.0), uniform(0.55, 1.0), uniform(0.25, 1.0)
        rows = (
            (tumours.OEDEMA, oedema, uniform(-0.02, 0.04)),
            (
                tumours.NECROSIS,
                (dead_flair, uniform(0.18, 0.56), uniform(0.45, 1.1)),
                uniform(-0.03, 0.14),
            ),
            (
                tumours.ENHANCING,
                (uniform(0.5, 1.15), uniform(0.34, 0.64), uniform(0.42, 0.95)),
                between(0.2, 1.5, rng),
            ),
            (
                tumours.SOLID,
                (uniform(0.6, 1.15), uniform(0.28, 0.56), uniform(0.5, 1.05)),
                uniform(-0.03, 0.12),
            ),
            (
                tumours.CYST,
                (fluid_flair, uniform(0.14, 0.36), uniform(0.85, 1.15)),
                uniform(-0.02, 0.03),
            ),
            (tumours.BLOOD, blood, uniform(-0.02, 0.05)),
            (
                tumours.CAVITY,
                (uniform(0.1, 0.35), uniform(0.12, 0.3), uniform(0.85, 1.1)),
                uniform(-0.02, 0.03),
            ),
        )
        for tissue, (flair, t1, t2), added in rows:
            levels[:, first + tissue] = flair, t1, t1, t2
            uptake[first + tissue] = added
    return levels, uptake


def _part_levels(tissue: Levels, rng: Rng) -> Levels:
    """Return how bright everything around the brain is; fat may be suppressed."""
    uniform = rng.uniform
    parts = np.zeros((4, 9))
    for channel in range(4):
        fat = uniform(0.5, 1.5) * (1.0 if rng.random() < 0.7 else 0.25)
        if channel == T1GD and rng.random() < 0.7:
            fat = parts[T1, anatomy.FAT]
        muscle = uniform(0.2, 0.6)
        fluid = tissue[channel, 0] if rng.random() < 0.8 else uniform(0.05, 1)
        parts[channel] = (
            uniform(0, 0.04),
            fluid,
            uniform(0.02, 0.2),
            fat,
            muscle,
            fat * uniform(0.4, 1.1),
            uniform(0.3, 1.2),
            tissue[channel, 1] + uniform(-0.05, 0.1),
            0.0,
        )
    return parts


def _lookalike_levels(rng: Rng) -> Levels:
    uniform = rng.uniform
    added = np.zeros((4, 6))
    added[:, tumours.WHITE_SPOT] = (
        uniform(0.08, 0.42),
        -uniform(0.0, 0.15),
        -uniform(0.0, 0.15),
        uniform(0.05, 0.35),
    )
    added[T1GD, tumours.VESSEL] = between(0.15, 2.2, rng)
    added[T2, tumours.VESSEL] = -uniform(0.1, 0.8)
    added[:, tumours.PLEXUS] = uniform(0, 0.4), 0.05, uniform(0.1, 1.0), -uniform(0, 0.3)
    added[:, tumours.DURA] = uniform(-0.1, 0.25), 0.0, uniform(0, 0.8), 0.0
    added[:, tumours.LACUNE] = -uniform(0.1, 0.3), -0.35, -0.35, uniform(0.3, 0.5)
    return added


def paint(planes: Tensor, look: Look, channel: int, uneven: Tensor, fine: Tensor) -> Tensor:
    """Return the brightness of one channel, of the same shape as a plane, before the scanner.

    Parameters
    ----------
    planes : (11, ...) tensor of uint8
        A scene, or any part of it.
    look : Look
        Brightness of everything.
    channel : int
        Which sequence.
    uneven, fine : tensor
        Noise of mean 0 and deviation 1 by which lesions are uneven; 0 does without.
    """

    def level(row: Levels) -> Tensor:
        return torch.from_numpy(row.astype(np.float32))

    shares = planes[TISSUES].float() / 255.0
    image = (shares * level(look.tissue[channel]).view(5, *[1] * (planes.dim() - 1))).sum(0)
    cerebellum = planes[CEREBELLUM].float() / 255.0
    image = image * (1 + cerebellum * float(look.cerebellum[channel] - 1))
    code = planes[LESION].long()
    free = 1 - planes[STRENGTH].float() / 255.0
    image = image + level(look.lookalike[channel])[planes[LOOKALIKE].long()] * free
    lesion = level(look.lesion[channel])[code]
    if channel == T1GD:
        uptake = level(look.uptake)[code]
        lesion = lesion + uptake * (1 + 0.3 * uneven + 0.18 * fine).clamp(min=0.15)
    lesion = lesion * (1 + look.texture * (fine + uneven))
    own = torch.where(code % tumours.PER_LESION == tumours.OEDEMA, look.mix, 1.0) * (1 - free)
    image = torch.lerp(image, lesion, own).clamp(min=0)
    parts = planes[PARTS].long()
    around = level(look.parts[channel])[parts] * (1 + 0.12 * fine + 0.12 * uneven).clamp(min=0.3)
    return torch.where(parts == anatomy.BRAIN, image, around)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scan:
    """What a scanner does to every channel of one study alike or by itself."""

    thick_mm: NDArray[np.float64]  # per channel; 0 is as fine as the lattice
    axis: NDArray[np.int64]
    skull: str  # "stripped", "loose", "head"


def draw_scan(rng: Rng, *, thick: bool | None = None, skull: str | None = None) -> Scan:
    """Return how a study is scanned: half of them in thick slices, mostly axial ones."""
    is_thick = rng.random() < 0.5 if thick is None else thick
    together = rng.random() < 0.6
    if is_thick and (together or thick):
        thick_mm = np.full(4, rng.uniform(3, 7))
    elif is_thick:
        thick_mm = rng.uniform(2, 6.5, 4) * (rng.random(4) < 0.6)
    else:
        thick_mm = np.zeros(4)
    axis = np.full(4, rng.choice(3, p=[0.08, 0.1, 0.82]))
    if not together:
        axis = np.where(rng.random(4) < 0.25, rng.integers(0, 3, 4), axis)
    mode = str(rng.choice(["stripped", "loose", "head"], p=[0.5, 0.12, 0.38]))
    return Scan(thick_mm=thick_mm, axis=axis, skull=skull or mode)


def expose(planes: Tensor, rng: Rng, *, scan: Scan, whole: Tensor | None = None) -> Tensor:
    """Return the four images of a scene or a box of it, normalised as the model's manifest says.

    Parameters
    ----------
    planes : (11, x, y, z) tensor of uint8
        What is imaged.
    rng : numpy Generator
        Source of everything that is drawn.
    scan : Scan
        Slices and skull.
    whole : (11, n) tensor of uint8, optional
        Voxels from all of the brain: mean and deviation come from them. Without them the images
        stay as bright as they are.

    Returns
    -------
    (4, x, y, z) tensor of float32
    """
    look = draw_look(rng)
    shape = (int(planes.shape[1]), int(planes.shape[2]), int(planes.shape[3]))
    uneven, fine, finest = (noise(shape, width, rng) for width in (5.0, 2.2, 1.4))
    shared_bias = 0.6 * noise(shape, 53, rng) + 0.4 * noise(shape, 33, rng)
    keep = _kept(planes, shape, scan, rng)
    images = []
    for channel in range(4):
        image = paint(planes, look, channel, uneven, 0.7 * fine + 0.7 * finest)
        image = image * (1 + rng.uniform(0, 0.05) * finest + rng.uniform(0, 0.05) * fine)
        image = _sampled(image, scan, channel, rng)
        if rng.random() < 0.6:
            image = _moved(image, rng)
        if rng.random() < 0.12:
            image = _ghosted(image, rng)
        bias = shared_bias + 0.6 * noise(shape, 40, rng)
        image = image * torch.exp(bias * rng.uniform(0, 0.14))
        gamma = float(np.exp(rng.normal(0, 0.15)))
        image = image.clamp(min=0) ** gamma
        spread = rng.uniform(0.003, 0.045)
        image = torch.hypot(image + spread * grain(shape, rng), spread * grain(shape, rng))
        image = _cut(image * keep, rng)
        if whole is not None:
            image = _normalised(image, paint(whole, look, channel, *_flat(whole)), gamma, rng)
        images.append(image)
    return torch.stack(images)


def _cut(image: Tensor, rng: Rng) -> Tensor:
    """Return an image that may end before the brain does, as a short field of view has it."""
    if rng.random() < 0.06:
        size = image.shape[2]
        lost = int(rng.uniform(0.05, 0.35) * size)
        part = slice(0, lost) if rng.random() < 0.7 else slice(size - lost, size)
        image = image.clone()
        image[:, :, part] = 0.0
    return image


def _flat(whole: Tensor) -> tuple[Tensor, Tensor]:
    zeros = torch.zeros(whole.shape[1:])
    return zeros, zeros


def _normalised(image: Tensor, brain: Tensor, gamma: float, rng: Rng) -> Tensor:
    """Return an image by mean and deviation of all of the brain, which a mask finds nearly."""
    values = brain.clamp(min=0) ** gamma
    low, high = torch.quantile(values, torch.tensor([0.005, 0.995]))
    values = values.clamp(low, high)
    mean = values.mean() * (1 + rng.normal(0, 0.02))
    deviation = values.std() * (1 + rng.normal(0, 0.05)) + 1e-6
    return ((image - mean) / deviation).clamp(-_CLIP, _CLIP)


def brain_sample(planes: Tensor, rng: Rng) -> Tensor:
    """Return (11, n): some voxels of the brain, for the statistics of a whole image."""
    where = torch.nonzero(planes[PARTS].flatten() == anatomy.BRAIN).flatten()
    some = torch.from_numpy(rng.integers(0, len(where), _SAMPLES))
    return planes.flatten(1)[:, where[some]]


def _kept(planes: Tensor, shape: Shape, scan: Scan, rng: Rng) -> Tensor:
    """Return what stripping leaves: all, the brain alone, or some of what is around it."""
    if scan.skull == "head":
        return torch.ones(shape)
    width = [1.0] * 3 if scan.skull == "stripped" else [rng.uniform(1.5, 3.0)] * 3
    inside = blurred((planes[PARTS] == anatomy.BRAIN).float(), width)
    edge = 1.2 * (rng.uniform(0, 0.8) * noise(shape, 11, rng) + rng.uniform(-0.9, 0.6))
    if scan.skull == "loose":
        edge = edge - rng.uniform(0.5, 3.0)
    return (inside > torch.sigmoid(edge)).float()


def _sampled(image: Tensor, scan: Scan, channel: int, rng: Rng) -> Tensor:
    """Return an image as its slices show it, on the lattice."""
    width = [rng.uniform(0.2, 0.65)] * 3
    thick, axis = float(scan.thick_mm[channel]) / anatomy.STEP_MM, int(scan.axis[channel])
    if thick < 1.5:
        return blurred(image, width)
    width[axis] = 0.0
    return sliced(blurred(image, width), thick, axis, offset=rng.uniform(0, 1))


def sliced(image: Tensor, thick: float, axis: int, *, offset: float) -> Tensor:
    """Return an image averaged into slices of `thick` voxels along an axis, then interpolated."""
    size = image.shape[axis]
    count = max(2, int(size / thick))
    begin = -0.5 + (size - count * thick) * offset
    moved = image.movedim(axis, 0)
    sums = torch.cat([torch.zeros_like(moved[:1]), moved.cumsum(0)])
    edges = torch.linspace(begin, begin + count * thick, count + 1) + 0.5

    def upto(edge: Tensor) -> Tensor:
        low = edge.floor().clamp(0, size - 1).long()
        share = (edge - low).view(-1, *[1] * (moved.dim() - 1))
        return sums[low] + share * moved[low]

    slices = (upto(edges[1:]) - upto(edges[:-1])) / thick
    at = ((torch.arange(size) - begin) / thick - 0.5).clamp(0, count - 1)
    low = at.floor().clamp(max=count - 2).long()
    share = (at - low).view(-1, *[1] * (moved.dim() - 1))
    return torch.lerp(slices[low], slices[low + 1], share).movedim(0, axis)


def _moved(image: Tensor, rng: Rng) -> Tensor:
    """Return an image turned and shifted a little, as registration leaves it."""
    size = np.array(image.shape)[::-1]
    shift = rng.normal(0, 0.5, 3) * 2 / size
    matrix = np.concatenate([rotation(rng.normal(0, 0.01, 3)), shift[:, None]], 1)
    grid = functional.affine_grid(
        torch.from_numpy(matrix[None].astype(np.float32)), [1, 1, *image.shape], align_corners=False
    )
    return functional.grid_sample(
        image[None, None], grid, align_corners=False, padding_mode="border"
    )[0, 0]


def _ghosted(image: Tensor, rng: Rng) -> Tensor:
    """Return an image with a faint copy of itself along one axis."""
    axis = int(rng.integers(0, 2))
    shift = int(image.shape[axis] * rng.uniform(0.15, 0.5))
    return image + rng.uniform(0.01, 0.08) * torch.roll(image, shift, dims=axis)
