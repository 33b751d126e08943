"""Planes through a head for pictures: where they lie, what volumes and labels look like in them.

Planes run along the axes of a grid that lie closest to the patient's, turned the radiological way:
the patient's right on the left of axial and coronal planes, anterior on the left of sagittal ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from converters import align
from converters.volume import Box, Grid, LabelMap, Segment, T, Volume

Rgb: TypeAlias = tuple[int, int, int]
Drawn: TypeAlias = Sequence[tuple[Rgb, Image.Image]]
"""Colours of outlines and their opacity, as large as the picture."""
Vector: TypeAlias = NDArray[np.float64]
View: TypeAlias = Literal["axial", "coronal", "sagittal"]

VIEWS: Final[tuple[View, ...]] = ("axial", "coronal", "sagittal")
LETTERS: Final[dict[View, str]] = {"axial": "RLAP", "coronal": "RLHF", "sagittal": "APHF"}
"""What lies at the left, right, upper and lower border of each view."""

_FINE: Final = 2  # outlines are drawn twice as large, then reduced
_LINE: Final = 1.5  # pixels
_HALF: Final = 0.5  # where a voxel's share ends
_PERCENTILES: Final = (1.0, 99.5)
_HEADROOM: Final = 0.1  # above the upper percentile, so that bright tissue keeps its shades
_NOISE: Final = 0.06  # of a bright voxel; what is darker is air
_SHOWN: Final = 0.12  # of a bright voxel; what is brighter has to be within the picture
_COARSE_MM: Final = 3.0  # steps with which heads are measured
_WINDOW_MM: Final = 5.0  # steps with which windows are
_DEEP_MM: Final = 15.0  # below the surface; scalp and skull measure less
_BELOW_VERTEX_MM: Final = 190.0  # farther down is neck


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plane:
    """A picture's plane: its first pixel, and the steps to the next row and column, LPS mm."""

    origin_mm: Vector
    down: Vector
    right: Vector
    size: tuple[int, int]  # rows, columns
    step_mm: float

    def grid(self, frame: str, *, fine: int = 1) -> Grid:
        """Return the plane as a grid of one slice, with `fine` times as many pixels a side."""
        step = self.step_mm / fine
        matrix = np.eye(4)
        matrix[:3, 0] = np.cross(self.right, self.down)
        matrix[:3, 1], matrix[:3, 2] = self.down * step, self.right * step
        matrix[:3, 3] = self.origin_mm - (self.down + self.right) * (self.step_mm - step) / 2
        shape = (1, self.size[0] * fine, self.size[1] * fine)
        return Grid(shape=shape, index_to_lps_mm=matrix, frame_of_reference_uid=frame)

    def pixel(self, point_mm: Vector) -> tuple[float, float]:
        """Return row and column of the pixel that a point lies above or below."""
        away = (point_mm - self.origin_mm) / self.step_mm
        return float(away @ self.down), float(away @ self.right)

    def part(self, rows: tuple[int, int], columns: tuple[int, int]) -> Plane:
        """Return the rows and columns from the first of each pair up to the second."""
        first = (rows[0] * self.down + columns[0] * self.right) * self.step_mm
        return Plane(
            origin_mm=self.origin_mm + first,
            down=self.down,
            right=self.right,
            size=(rows[1] - rows[0], columns[1] - columns[0]),
            step_mm=self.step_mm,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Head:
    """Where a head lies.

    Parameters
    ----------
    axes : (3, 3) ndarray of float64
        Unit vectors in rows, LPS: to the left, to posterior, to superior.
    low_mm, high_mm : (3,) ndarray of float64
        First and last millimetre along each of them.
    """

    axes: NDArray[np.float64]
    low_mm: Vector
    high_mm: Vector

    @property
    def centre_mm(self) -> Vector:
        """The middle, patient LPS."""
        return np.asarray((self.low_mm + self.high_mm) / 2.0 @ self.axes)

    def directions(self, view: View) -> tuple[int, int, int]:
        """Return which axes run along the normal, down and to the right of a view."""
        return {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}[view]

    def step_mm(self, view: View, size: tuple[int, int], *, margin_mm: float) -> float:
        """Return how large a pixel has to be for the head to fit into rows and columns."""
        _, down, right = self.directions(view)
        extent_mm = self.high_mm - self.low_mm + 2.0 * margin_mm
        return float(max(extent_mm[down] / size[0], extent_mm[right] / size[1]))

    def plane(self, view: View, through_mm: Vector, size: tuple[int, int], step_mm: float) -> Plane:
        """Return the plane through a point with the head in the middle of the picture."""
        normal, down, right = self.directions(view)
        toward = self.axes * [[1.0], [1.0], [-1.0]]  # the feet are below
        centre = self.centre_mm
        centre = centre + self.axes[normal] * (self.axes[normal] @ (through_mm - centre))
        half = (np.array(size) - 1) * step_mm / 2.0
        return Plane(
            origin_mm=centre - half[0] * toward[down] - half[1] * toward[right],
            down=toward[down],
            right=toward[right],
            size=size,
            step_mm=step_mm,
        )


def body_axes(grid: Grid) -> NDArray[np.float64]:
    """Return unit vectors (3, 3) of a grid in rows: to the left, to posterior, to superior."""
    units = _units(grid)
    best = enumerate(patient_axes(grid))
    return np.array([units[:, axis] * np.sign(units[k, axis]) for k, axis in best])


def patient_axes(grid: Grid) -> tuple[int, int, int]:
    """Return the array axes that run closest to left, posterior and superior, each used once."""
    units = _units(grid)
    best = max(
        itertools.permutations(range(3)),
        key=lambda axes: sum(abs(units[k, axes[k]]) for k in range(3)),
    )
    return best[0], best[1], best[2]


def _units(grid: Grid) -> NDArray[np.float64]:
    return np.asarray(grid.index_to_lps_mm[:3, :3] / np.array(grid.spacing_mm))


def upright(array: NDArray[T], grid: Grid) -> NDArray[T]:
    """Return a view with axes to superior, to posterior and to the left."""
    left, posterior, superior = patient_axes(grid)
    turned = array.transpose(superior, posterior, left)
    towards = ((2, superior), (1, posterior), (0, left))
    signs = [grid.index_to_lps_mm[row, axis] for row, axis in towards]
    return turned[tuple(slice(None, None, -1 if sign < 0 else 1) for sign in signs)]


def bright(volume: Volume) -> float:
    """Return an intensity that few voxels exceed."""
    return float(np.percentile(volume.intensities[::2, ::2, ::2], 99.5))


def find_head(volume: Volume, axes: NDArray[np.float64]) -> Head:
    """Return where the head of a volume lies along given axes; without one, the whole volume."""
    grid = volume.grid
    every = [max(1, round(_COARSE_MM / step)) for step in grid.spacing_mm]
    coarse = volume.intensities[:: every[0], :: every[1], :: every[2]]
    is_head = ndimage.binary_opening(coarse > _SHOWN * bright(volume))
    parts, count = ndimage.label(is_head)
    first, last = np.zeros(3), np.subtract(grid.shape, 1).astype(np.float64)
    if count:
        largest = int(np.bincount(parts.ravel())[1:].argmax()) + 1
        box = ndimage.find_objects(parts)[largest - 1]
        first = np.array([one.start for one in box]) * every
        last = np.minimum(np.array([one.stop - 1 for one in box]) * every, last)
    corners = np.array(list(itertools.product(*zip(first, last, strict=True))), np.float64)
    along_mm = grid.lps_mm(corners) @ axes.T
    low_mm, high_mm = along_mm.min(axis=0), along_mm.max(axis=0)
    low_mm[2] = max(low_mm[2], high_mm[2] - _BELOW_VERTEX_MM)
    return Head(axes=axes, low_mm=low_mm, high_mm=high_mm)


def tissue_window(volume: Volume) -> tuple[float, float]:
    """Return the intensities shown black and white: of the brain, which scalp and fat outshine.

    Brain is taken to be what lies deep below the surface of the head.
    """
    every = tuple(max(1, round(_WINDOW_MM / step)) for step in volume.grid.spacing_mm)
    coarse = volume.intensities[:: every[0], :: every[1], :: every[2]]
    steps = np.multiply(every, volume.grid.spacing_mm)
    is_head = ndimage.binary_fill_holes(coarse > _NOISE * bright(volume))
    depth_mm = ndimage.distance_transform_edt(is_head, sampling=steps)
    inside = coarse[(depth_mm > _DEEP_MM) & (coarse > 0)]
    if not inside.size:
        inside = coarse
    low, high = (float(level) for level in np.percentile(inside, _PERCENTILES))
    return (low, high + _HEADROOM * (high - low)) if high > low else (low, low + 1.0)


def grey(volume: Volume, plane: Plane, window: tuple[float, float]) -> Image.Image:
    """Return a volume in a plane: 8-bit grey, black at the window's lower end."""
    low, high = window
    grid = plane.grid(volume.grid.frame_of_reference_uid)
    pixels = align.on_grid(volume, grid).intensities[0]
    levels = np.clip((pixels - low) / (high - low), 0.0, 1.0) * 255.0
    return Image.fromarray(levels.astype(np.uint8))


class Outlines:
    """The borders of a label map's segments, in any plane."""

    def __init__(self, label_map: LabelMap) -> None:
        self._masks: list[tuple[Segment, Volume]] = []
        boxes = ndimage.find_objects(label_map.labels, len(label_map.segments))
        for segment, box in zip(label_map.segments, boxes, strict=True):
            if box is not None:
                wide = _widened(box, label_map.grid)
                mask = (label_map.labels[wide] == segment.number).astype(np.float32)
                part = Volume(intensities=mask, grid=label_map.grid.part(wide), role="mask")
                self._masks.append((segment, part))

    def within(self, plane: Plane) -> Drawn:
        """Return colour and opacity, as large as the plane, of each segment that it cuts."""
        found = []
        for segment, mask in self._masks:
            opacity = _opacity(mask, plane)
            if opacity is not None:
                found.append((segment.color_rgb, opacity))
        return found


def _widened(box: Box, grid: Grid) -> Box:
    """Return a box with one voxel more on every side that has one."""
    first, second, third = (
        slice(max(one.start - 1, 0), min(one.stop + 1, count))
        for one, count in zip(box, grid.shape, strict=True)
    )
    return first, second, third


def _opacity(mask: Volume, plane: Plane) -> Image.Image | None:
    """Return the border of a mask in a plane; None where the plane passes beside it."""
    ends = [(-0.5, count - 0.5) for count in mask.grid.shape]
    corners = mask.grid.lps_mm(np.array(list(itertools.product(*ends)), np.float64))
    away_mm = (corners - plane.origin_mm) @ np.cross(plane.right, plane.down)
    if away_mm.min() > 0 or away_mm.max() < 0:
        return None
    pixels = np.array([plane.pixel(one) for one in corners])
    rows, columns = (_between(pixels[:, axis], count) for axis, count in enumerate(plane.size))
    if rows[0] >= rows[1] or columns[0] >= columns[1]:
        return None
    part = plane.part(rows, columns)
    opacity = border(mask, part)
    if opacity.getbbox() is None:
        return None
    whole = Image.new("L", plane.size[::-1])
    whole.paste(opacity, (columns[0], rows[0]))
    return whole


def _between(pixels: Vector, count: int) -> tuple[int, int]:
    return max(int(pixels.min()) - 1, 0), min(int(pixels.max()) + 3, count)


def border(mask: Volume, plane: Plane) -> Image.Image:
    """Return the border of a mask as opacity; it runs inside, so that neighbours stay seen.

    Where the picture ends within the mask, there is no border.
    """
    fine = plane.grid(mask.grid.frame_of_reference_uid, fine=_FINE)
    inside = align.on_grid(mask, fine).intensities[0] >= _HALF
    line = inside & ~core(inside, _LINE * _FINE)
    opaque = Image.fromarray(line.astype(np.uint8) * np.uint8(255))
    return opaque.resize(plane.size[::-1], Image.Resampling.BOX)


def core(area: NDArray[np.bool_], depth: float) -> NDArray[np.bool_]:
    """Return which pixels of an area have none within `depth` that is outside it.

    Beyond the picture nothing is outside. A disc, row by row: much quicker than the distance of
    every pixel, for the few that a line is wide.
    """
    reach = int(depth)
    wide = np.pad(area, reach, constant_values=True)
    height, width = area.shape
    found = area.copy()
    for down in range(-reach, reach + 1):
        row = wide[reach + down : reach + down + height]
        aside = int(math.sqrt(depth * depth - down * down))
        for right in range(-aside, aside + 1):
            found &= row[:, reach + right : reach + right + width]
    return found


def overlaid(picture: Image.Image, outlines: Drawn) -> Image.Image:
    """Return a colour picture with outlines drawn over it."""
    drawn = picture.copy()
    for color, opacity in outlines:
        drawn.paste(Image.new("RGB", drawn.size, color), mask=opacity)
    return drawn
