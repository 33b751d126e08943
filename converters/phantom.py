"""A synthetic brain study with a tumour: four MR series, each on its own grid, and the truth.

No template, no patient and no network: `converters.phantom_anatomy` draws a brain from formulas,
this module grows ring-enhancing tumours in it and gives each sequence its contrast, and
`converters.phantom_scanner` images the whole on the grids of a clinical protocol. The demonstration
and the tests use it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from converters import phantom_anatomy, phantom_scanner
from converters.mr_writer import PLANS, SeriesPlan, StudyIdentity, write_series
from converters.phantom_anatomy import Anatomy, Field, Position, smooth_noise
from converters.phantom_scanner import BRAIN_CENTRE_LPS_MM, ROLES, Size
from converters.volume import Grid, Role, Volume

__all__ = [
    "CORE",
    "ENHANCING",
    "OEDEMA",
    "PLANS",
    "ROLES",
    "Lesion",
    "PhantomFiles",
    "PhantomStudy",
    "SeriesPlan",
    "StudyIdentity",
    "make_study",
    "usual_lesion",
    "write_series",
    "write_study",
]

OEDEMA, CORE, ENHANCING = 1, 2, 3
Labels = NDArray[np.uint8]
Window = tuple[slice, slice, slice]

_NAMESPACE = uuid.UUID("f1b8c0de-52f4-5a86-9a1b-8d0f6a7b3c21")
_STRETCH = (0.85, 1.0, 1.2)  # half axes of a lesion relative to its radius
_HALF, _SOLID, _WET = 0.5, 0.8, 0.45  # fractions of a voxel from which on it counts as the tissue
_BUMP = 0.05  # of each of four waves on a lesion's surface, as a fraction of its radius

# Signal of sulcal CSF, ventricular CSF, cortex, nuclei, white matter; then oedema, core, rim.
_SIGNAL: Mapping[Role, tuple[float, ...]] = {
    "flair": (0.28, 0.15, 0.58, 0.55, 0.46, 0.98, 0.60, 0.86),
    "t1": (0.22, 0.16, 0.52, 0.58, 0.72, 0.60, 0.30, 0.48),
    "t1gd": (0.24, 0.18, 0.54, 0.60, 0.72, 0.60, 0.32, 1.15),
    "t2": (0.95, 1.00, 0.56, 0.50, 0.40, 0.82, 0.98, 0.62),
}
# Signal of scalp, bone, marrow and soft tissue, for heads that keep their skull.
_SHELLS: Mapping[Role, tuple[float, float, float, float]] = {
    "flair": (0.60, 0.05, 0.25, 0.35),
    "t1": (1.00, 0.06, 0.45, 0.40),
    "t1gd": (1.00, 0.06, 0.50, 0.55),
    "t2": (0.65, 0.05, 0.30, 0.25),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesion:
    """One ring-enhancing tumour: an oblique, uneven ellipsoid with a rim, and oedema around it.

    Parameters
    ----------
    centre_mm : tuple of float
        Brain coordinates: mm from the middle of the brain, left, posterior and superior positive.
    radius_mm : float
        Mean radius of the enhancing rim's outside.
    rim_mm : float
        Mean thickness of the rim; the core is what it encloses.
    oedema_mm : float
        How far oedema reaches into white matter; less far into grey matter.
    """

    centre_mm: tuple[float, float, float]
    radius_mm: float = 18.0
    rim_mm: float = 5.5
    oedema_mm: float = 13.0

    def __post_init__(self) -> None:
        if not 0.0 < self.rim_mm < self.radius_mm or self.oedema_mm < 0.0:
            raise ValueError("a lesion needs 0 < rim_mm < radius_mm and oedema_mm >= 0")

    @property
    def reach_mm(self) -> float:
        """Distance from the centre that nothing of the lesion exceeds."""
        surface = self.radius_mm * (1.0 + 4 * _BUMP) + 1.5 * self.oedema_mm
        return surface * max(_STRETCH)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhantomStudy:
    """Four series of one synthetic patient.

    Parameters
    ----------
    volumes : mapping of role to Volume
        Each on its own grid; intensities are whole numbers of 12 bits.
    truth : mapping of role to (slices, rows, columns) ndarray of uint8
        1 oedema, 2 non-enhancing core, 3 enhancing, on the grid of the role's volume.
    lesion_centre_lps_mm : tuple of float or None
        Centre of the first lesion, patient LPS; None without a lesion.
    seed : int
        What it was drawn from; UIDs follow from it.
    """

    volumes: Mapping[Role, Volume]
    truth: Mapping[Role, Labels]
    lesion_centre_lps_mm: tuple[float, float, float] | None
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomFiles:
    """Where a study was written: the files of each role in slice order."""

    study_instance_uid: str
    paths: Mapping[Role, list[Path]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Scene:
    """What is drawn on the lattice before anything is imaged."""

    lattice: Grid
    anatomy: Anatomy
    tissue: Mapping[str, Field]
    labels: Labels
    texture: Field
    head_depth_mm: Field | None


def usual_lesion(seed: int) -> Lesion:
    """Return a lesion off the middle, in the white matter of one half; 0 gives the standard one."""
    if seed == 0:
        return Lesion(centre_mm=(30.0, -18.0, 26.0))
    rng = np.random.default_rng([seed, 6])
    x, y, z = rng.uniform([27.0, -35.0, 12.0], [33.0, 35.0, 30.0])
    return Lesion(
        centre_mm=(float(x * rng.choice([-1.0, 1.0])), float(y), float(z)),
        radius_mm=float(rng.uniform(18.0, 22.0)),
        rim_mm=float(rng.uniform(5.0, 5.8)),
        oedema_mm=float(rng.uniform(9.0, 15.0)),
    )


def _window(lesions: Sequence[Lesion], grid: Grid) -> Window:
    """Return the part of a grid that holds all lesions; at least one voxel."""
    to_index = np.linalg.inv(grid.index_to_lps_mm)[:3]
    centres = np.array([lesion.centre_mm for lesion in lesions]) + BRAIN_CENTRE_LPS_MM
    middle = centres @ to_index[:, :3].T + to_index[:, 3]
    reach = np.outer(
        [lesion.reach_mm for lesion in lesions], np.linalg.norm(to_index[:, :3], axis=1)
    )
    last = np.array(grid.shape) - 1
    first = np.clip(np.floor((middle - reach).min(axis=0)), 0, last).astype(int)
    end = np.clip(np.ceil((middle + reach).max(axis=0)), first, last).astype(int) + 1
    return slice(first[0], end[0]), slice(first[1], end[1]), slice(first[2], end[2])


def _depth_mm(lesion: Lesion, at: Position, seed: int) -> Field:
    """Return the depth below the rim's outside, positive inside."""
    rng = np.random.default_rng([seed, 2, round(10 * lesion.radius_mm)])
    turn = (
        np.linalg.qr(rng.standard_normal((3, 3)))[0] / np.array(rng.permutation(_STRETCH))[:, None]
    )
    waves, phases = rng.uniform(-0.2, 0.2, (4, 3)), rng.uniform(0.0, 2.0 * np.pi, 4)
    offset = [part - centre for part, centre in zip(at, lesion.centre_mm, strict=True)]

    def along(direction: NDArray[np.float64]) -> Field:
        a, b, c = (np.float32(part) for part in direction)
        return np.asarray(a * offset[0] + b * offset[1] + c * offset[2], dtype=np.float32)

    distance = np.sqrt(sum(along(axis) ** 2 for axis in turn))
    bumps = sum(np.sin(along(w) + float(p)) for w, p in zip(waves, phases, strict=True))
    return np.asarray(lesion.radius_mm * (1.0 + _BUMP * bumps) - distance, dtype=np.float32)


def _grow(
    lesions: Sequence[Lesion], at: Position, tissue: Mapping[str, Field], seed: int
) -> Labels:
    """Return the labels at points whose tissue is known; an earlier lesion covers a later one."""
    labels = np.zeros(at[0].shape, np.uint8)
    spread = 0.3 + 0.8 * tissue["white"] + tissue["uneven"]
    is_brain = tissue["brain"] > _HALF
    is_solid = is_brain & (tissue["cavity"] < _SOLID)
    for lesion in reversed(lesions):
        depth = _depth_mm(lesion, at, seed)
        is_swollen = (depth > -lesion.oedema_mm * spread) & is_brain & (tissue["fluid"] < _WET)
        labels[is_swollen & (labels == 0)] = OEDEMA
        is_tumour = (depth > 0.0) & is_solid
        is_rim = depth < lesion.rim_mm * (1.0 + tissue["uneven"])
        labels[is_tumour] = np.where(is_rim, ENHANCING, CORE)[is_tumour]
    return labels


def _label(
    lesions: Sequence[Lesion], tissue: Mapping[str, Field], drawn_on: Grid, grid: Grid, seed: int
) -> Labels:
    """Return the truth on a grid: the same functions of the position, whatever the grid."""
    labels = np.zeros(grid.shape, np.uint8)
    if lesions:
        window = _window(lesions, grid)
        part = grid.part(window)
        here = {
            name: phantom_scanner.sample(values, drawn_on, part) for name, values in tissue.items()
        }
        labels[window] = _grow(lesions, phantom_scanner.brain_coordinates(part), here, seed)
    return labels


def _tissue(anatomy: Anatomy, uneven: Field) -> dict[str, Field]:
    """Return what the growth of a lesion depends on, on the lattice."""
    csf, cavity, _, _, white = anatomy.fractions
    return {
        "brain": anatomy.is_brain.astype(np.float32),
        "white": np.asarray(ndimage.gaussian_filter(anatomy.spread(white), 1.3), np.float32),
        "fluid": anatomy.spread(csf + cavity),
        "cavity": anatomy.spread(cavity),
        "uneven": np.asarray(0.25 * np.clip(uneven, -1.5, 1.5), np.float32),
    }


def _before_the_push(at: Position, lesions: Sequence[Lesion]) -> Position:
    """Return where the tissue at each point lay before the lesions pushed it aside."""
    x, y, z = at
    for lesion in lesions:
        away = [part - centre for part, centre in zip(at, lesion.centre_mm, strict=True)]
        distance = np.sqrt(away[0] ** 2 + away[1] ** 2 + away[2] ** 2) + 1e-3
        fade = np.exp(-((distance / (2.6 * lesion.radius_mm + 8.0)) ** 2))
        before = np.cbrt(np.maximum(distance**3 - 0.4 * lesion.radius_mm**3 * fade, 1.0))
        scale = before / distance - 1.0
        x, y, z = x + away[0] * scale, y + away[1] * scale, z + away[2] * scale
    return x, y, z


def _scene(seed: int, lesions: Sequence[Lesion], size: Size, *, has_skull: bool) -> _Scene:
    """Return the brain with its lesions on the lattice."""
    lattice = phantom_scanner.lattice(size, has_skull=has_skull)
    at = phantom_scanner.brain_coordinates(lattice)
    anatomy = phantom_anatomy.draw(_before_the_push(at, lesions), seed)
    rng = np.random.default_rng([seed, 5])
    fine, coarse, uneven = (smooth_noise(lattice.shape, scale, rng) for scale in (1.6, 4.0, 7.0))
    tissue = _tissue(anatomy, uneven)
    return _Scene(
        lattice=lattice,
        anatomy=anatomy,
        tissue=tissue,
        labels=_label(lesions, tissue, lattice, lattice, seed),
        texture=np.asarray(0.6 * fine + 0.8 * coarse, np.float32),
        head_depth_mm=phantom_anatomy.head_depth_mm(at) if has_skull else None,
    )


def _signal(role: Role, scene: _Scene) -> Field:
    """Return the noise-free signal of one sequence on the lattice; normal tissue is 0 to 1."""
    levels, texture = _SIGNAL[role], scene.texture
    healthy = np.array(levels[:5], np.float32) @ scene.anatomy.fractions
    signal = scene.anatomy.spread(healthy) * (1.0 + 0.03 * texture)
    for label, level in zip((OEDEMA, CORE, ENHANCING), levels[5:], strict=True):
        where = scene.labels == label
        own = level * (1.0 + (0.12 if label == ENHANCING else 0.06) * texture[where])
        kept = 0.2 if label == OEDEMA else 0.0  # oedema lets the structure below shine through
        signal[where] = kept * signal[where] + (1.0 - kept) * own
    if scene.head_depth_mm is not None:
        is_brain = scene.anatomy.is_brain
        around = phantom_anatomy.shells(scene.head_depth_mm, is_brain, (*_SHELLS[role], levels[0]))
        signal = np.where(is_brain, signal, around)
    return np.asarray(signal, dtype=np.float32)


def make_study(
    seed: int = 0,
    *,
    size: Size = "clinical",
    lesions: Sequence[Lesion] | None = None,
    has_skull: bool = False,
    has_odd_matrix: bool = False,
) -> PhantomStudy:
    """Return a synthetic study of FLAIR, T1, contrast-enhanced T1 and T2.

    Parameters
    ----------
    seed : int
        The same seed gives the same study, to the bit; 0 is the standard one.
    size : {"clinical", "small"}
        Full protocol (about 200 instances) or a quick one (about 100 small instances).
    lesions : sequence of Lesion, optional
        One off-centre lesion that depends on the seed by default; empty for a healthy brain.
    has_skull : bool
        Keep bone, scalp and the noise of the air; otherwise the background is exactly 0.
    has_odd_matrix : bool
        Give every series rows x columns that is no multiple of 8.
    """
    if lesions is None:
        lesions = (usual_lesion(seed),)
    scene = _scene(seed, lesions, size, has_skull=has_skull)
    frame = f"2.25.{uuid.uuid5(_NAMESPACE, f'frame|{seed}').int}"
    is_object = np.ones_like(scene.anatomy.is_brain) if has_skull else scene.anatomy.is_brain
    volumes: dict[Role, Volume] = {}
    truth: dict[Role, Labels] = {}
    for number, role in enumerate(ROLES):
        plan = phantom_scanner.protocol(role, size, has_odd_matrix=has_odd_matrix)
        grid = phantom_scanner.grid_of(plan, frame)
        rng = np.random.default_rng([seed, 3, number])
        stored = phantom_scanner.acquire(_signal(role, scene), is_object, scene.lattice, grid, rng)
        volumes[role] = Volume(intensities=stored, grid=grid, role=role)
        truth[role] = _label(lesions, scene.tissue, scene.lattice, grid, seed)
    return PhantomStudy(
        volumes=volumes, truth=truth, lesion_centre_lps_mm=_first_centre(lesions), seed=seed
    )


def _first_centre(lesions: Sequence[Lesion]) -> tuple[float, float, float] | None:
    if not lesions:
        return None
    x, y, z = (float(part) for part in BRAIN_CENTRE_LPS_MM + np.array(lesions[0].centre_mm))
    return x, y, z


def write_study(
    study: PhantomStudy, folder: Path, *, identity: StudyIdentity | None = None
) -> PhantomFiles:
    """Write a study as classic MR images below `folder`, one sub-folder a series."""
    identity = identity or StudyIdentity(seed=study.seed)
    paths = {
        role: write_series(volume, folder / role, study=identity, series_number=number)
        for number, (role, volume) in enumerate(study.volumes.items(), start=2)
    }
    return PhantomFiles(study_instance_uid=identity.study_instance_uid, paths=paths)
