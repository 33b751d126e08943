"""Synthetic heads imaged on any grid and put elsewhere by a known motion."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from converters import phantom, phantom_scanner
from converters.phantom_scanner import Protocol
from converters.register import Motion
from converters.volume import Grid, Role, Volume

FRAME = "2.25.4711"
THIN = Protocol(shape=(170, 216, 180), spacing_mm=(1.0, 1.0, 1.0))
"""A 3-D acquisition of the whole head."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Head:
    """One synthetic head: 1 mm volumes of it, and points of its brain, LPS mm."""

    volumes: dict[Role, Volume]
    brain_mm: NDArray[np.float64]


def head(seed: int, *, has_skull: bool = True) -> Head:
    """Return a head with a lesion, its sequences imaged one by one with own noise and bias."""
    lesions = (phantom.usual_lesion(seed),)
    scene = phantom._scene(seed, lesions, "clinical", has_skull=has_skull)
    is_brain = scene.anatomy.is_brain
    is_object = np.ones_like(is_brain) if has_skull else is_brain
    volumes = {}
    for number, role in enumerate(phantom.ROLES):
        plan = replace(THIN, tilt_deg=1.5 * number, shift_mm=(0.3 * number, -0.4 * number, 0.45))
        grid = phantom_scanner.grid_of(plan, FRAME)
        rng = np.random.default_rng([seed, 8, number])
        signal = phantom._signal(role, scene)
        stored = phantom_scanner.acquire(signal, is_object, scene.lattice, grid, rng)
        volumes[role] = Volume(intensities=stored, grid=grid, role=role)
    points = np.argwhere(is_brain)[::997].astype(np.float64)
    return Head(volumes=volumes, brain_mm=scene.lattice.lps_mm(points))


def thick(volume: Volume, axis: int, count: int) -> Volume:
    """Return slices across an axis, each the mean of `count` voxels."""
    values = np.moveaxis(volume.intensities, axis, 0)
    slices = len(values) // count
    values = values[: slices * count].reshape(slices, count, *values.shape[1:]).mean(axis=1)
    order = [axis, *(one for one in range(3) if one != axis), 3]
    matrix = volume.grid.index_to_lps_mm[:, order].copy()
    matrix[:3, 3] += matrix[:3, 0] * ((count - 1) / 2)
    matrix[:3, 0] *= count
    return with_values(volume, values.astype(np.float32), matrix)


def cropped(volume: Volume, first: int, last: int) -> Volume:
    """Return some of the slices."""
    matrix = volume.grid.index_to_lps_mm.copy()
    matrix[:3, 3] += matrix[:3, 0] * first
    return with_values(volume, volume.intensities[first:last], matrix)


def with_values(
    volume: Volume,
    values: NDArray[np.float32],
    matrix: NDArray[np.float64] | None = None,
    frame: str | None = None,
) -> Volume:
    """Return a volume of the same role with other voxels, place or frame."""
    slices, rows, columns = values.shape
    grid = Grid(
        shape=(slices, rows, columns),
        index_to_lps_mm=volume.grid.index_to_lps_mm if matrix is None else matrix,
        frame_of_reference_uid=volume.grid.frame_of_reference_uid if frame is None else frame,
    )
    return Volume(intensities=values, grid=grid, role=volume.role)


def displaced(volume: Volume, motion: NDArray[np.float64], frame: str | None = None) -> Volume:
    """Return the same voxels where a motion puts them."""
    matrix = motion @ volume.grid.index_to_lps_mm
    return with_values(volume, volume.intensities, matrix, frame)


def biased(volume: Volume) -> Volume:
    """Return a volume whose one side is more than twice as bright as the other."""
    ramp = np.linspace(0.6, 1.4, volume.grid.shape[2], dtype=np.float32)
    return with_values(volume, volume.intensities * ramp)


def rigid(
    seed: int, degrees: float, mm: float, centre_mm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return a motion with each angle and shift drawn up to a limit, about a point."""
    rng = np.random.default_rng([seed, 77])
    matrix = np.eye(4)
    angles, shift = rng.uniform(-degrees, degrees, 3), rng.uniform(-mm, mm, 3)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    matrix[:3, 3] = centre_mm + shift - matrix[:3, :3] @ centre_mm
    return matrix


def errors_mm(
    found: Motion, put_by: NDArray[np.float64], points_mm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return how far points of the reference lie from themselves, put away and brought back."""
    matrix = found.lps_to_reference_lps_mm @ put_by
    back = points_mm @ matrix[:3, :3].T + matrix[:3, 3]
    return np.asarray(np.linalg.norm(back - points_mm, axis=1))
