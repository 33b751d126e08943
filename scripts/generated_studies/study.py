"""A generated study as the node would read it: four volumes in one patient frame, and the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from converters.volume import Grid, Role, Volume
from scripts.generated_studies import anatomy, imaging
from scripts.generated_studies.scene import draw_scene

KINDS: Final = ("stripped", "head", "thick", "healthy")

_THICK_VOXELS = (3, 4)  # 4.5 and 6 mm
_BRIGHTNESS = 400.0  # scanner units for a 1 of the generator


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GeneratedStudy:
    """Four series of one generated patient, aligned, as alike as registration makes them.

    Parameters
    ----------
    volumes : mapping of role to Volume
        FLAIR, T1, T1gd and T2 on the same grid.
    truth : (slices, rows, columns) ndarray of uint8
        1 oedema, 2 core that does not enhance, 3 enhancing, on that grid.
    kind : str
        ``stripped``, ``head`` (with skull), ``thick`` (with skull, axial slices of 4.5 or 6 mm) or
        ``healthy`` (with skull, without tumour).
    """

    volumes: Mapping[Role, Volume]
    truth: NDArray[np.uint8]
    kind: str


def draw_study(seed: int, *, kind: str) -> GeneratedStudy:
    """Return the study of a seed and one of the `KINDS`.

    Seeds below 1000 are there to choose by, the training draws from 1000 on, and the evaluation
    from 900 000 000 on.
    """
    if kind not in KINDS:
        raise ValueError(f"{kind} is none of {', '.join(KINDS)}")
    planes = draw_scene(seed, healthy=kind == "healthy")
    rng = np.random.default_rng([seed, 9])
    skull = "stripped" if kind == "stripped" else "head"
    scan = imaging.draw_scan(rng, thick=False, skull=skull)
    images = imaging.expose(planes, rng, scan=scan)
    slices = int(rng.choice(_THICK_VOXELS)) if kind == "thick" else 1
    truth = _labels(_as_slices(planes[imaging.LABELS]), slices)
    grid = _grid(truth.shape, slices * anatomy.STEP_MM)
    volumes = {
        role: Volume(intensities=_averaged(_as_slices(image), slices), grid=grid, role=role)
        for role, image in zip(imaging.ROLES, images * _BRIGHTNESS, strict=True)
    }
    return GeneratedStudy(volumes=volumes, truth=truth, kind=kind)


def _as_slices(lattice: Tensor) -> NDArray[np.generic]:
    """Return (slice, row, column), rows growing to posterior and columns to the left."""
    return np.ascontiguousarray(lattice.numpy().transpose(2, 1, 0)[:, ::-1, ::-1])


def _averaged(image: NDArray[np.generic], count: int) -> NDArray[np.float32]:
    slabs = image[: len(image) // count * count].reshape(-1, count, *image.shape[1:])
    return np.asarray(slabs.mean(axis=1, dtype=np.float32))


def _labels(labels: NDArray[np.generic], count: int) -> NDArray[np.uint8]:
    """Return the label of which a slab has most, voxel by voxel."""
    votes = np.stack([_averaged(labels == number, count) for number in range(4)])
    return np.asarray(votes.argmax(axis=0), np.uint8)


def _grid(shape: tuple[int, ...], slice_mm: float) -> Grid:
    slices, rows, columns = shape
    matrix = np.zeros((4, 4))
    matrix[2, 0] = slice_mm
    matrix[1, 1] = matrix[0, 2] = anatomy.STEP_MM
    matrix[3, 3] = 1.0
    centre = np.array([columns - 1, rows - 1]) * anatomy.STEP_MM / 2
    matrix[:3, 3] = -centre[0], -centre[1], -(slices - 1) * slice_mm / 2
    return Grid(
        shape=(slices, rows, columns), index_to_lps_mm=matrix, frame_of_reference_uid="1.2.3"
    )
