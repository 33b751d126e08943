"""The longest diameter of an object in the planes of its grid, and its longest perpendicular.

Pure geometry of the outline: what the object is says `converters.measure`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull

from converters.volume import Grid

Points: TypeAlias = NDArray[np.float64]
Ends: TypeAlias = tuple[tuple[float, float, float], tuple[float, float, float]]

_ANY_NEIGHBOUR: Final = np.ones((3, 3), dtype=np.bool_)
_OUTLINE: Final = np.array([[-0.5, 0.0], [0.5, 0.0], [0.0, -0.5], [0.0, 0.5]])
_SAME_MM: Final = 1e-6  # lengths that differ by less are equal: the earlier slice is taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Diameters:
    """Two lengths in one slice that are perpendicular to each other.

    Parameters
    ----------
    slice_index : int
        In the grid of the label map.
    long_mm, short_mm : float
        The longest diameter, and the longest one perpendicular to it.
    long_ends_lps_mm, short_ends_lps_mm : pair of points
        Where they end in the patient.
    """

    slice_index: int
    long_mm: float
    short_mm: float
    long_ends_lps_mm: Ends
    short_ends_lps_mm: Ends

    @property
    def product_mm2(self) -> float:
        """Product of both: the bidimensional measurement."""
        return self.long_mm * self.short_mm

    def in_slice(self, slice_index: int) -> Diameters:
        """Return the same lengths under the slice's index in another grid."""
        return replace(self, slice_index=slice_index)


def longest(
    is_object: NDArray[np.bool_], is_joint: NDArray[np.bool_], grid: Grid
) -> Diameters | None:
    """Return the longest diameter of an object in any slice, with its longest perpendicular.

    Parameters
    ----------
    is_object : (slices, rows, columns) ndarray of bool
        What is measured.
    is_joint : (slices, rows, columns) ndarray of bool
        What holds it together, a superset: of each slice, every connected part (8 neighbours) of
        it is measured by itself.
    grid : Grid
        Where the voxels lie.

    Returns
    -------
    Diameters or None
        None where there is no object.

    Notes
    -----
    The outline lies half way between the centre of a voxel of the object and the centre of its
    neighbour outside, along rows and columns, as marching squares draw it: a single voxel measures
    one voxel along either. Lengths are those of the convex hull of the outline, so that a ring is
    measured across its hole. For an object whose own outline is convex and smooth the long
    diameter is never more than one voxel too long.

    References
    ----------
    P. Y. Wen et al., Updated response assessment criteria for high-grade gliomas (RANO), JCO 2010:
    the product of the maximal cross-sectional enhancing diameters.
    """
    best: Diameters | None = None
    to_plane = _plane_of(grid)
    for index in np.flatnonzero(is_object.any(axis=(1, 2))):
        for pixels in _parts(is_object[index], is_joint[index]):
            if best is not None and _reach_mm(pixels, to_plane) <= best.long_mm:
                continue
            found = _measured(int(index), pixels, to_plane, grid)
            if best is None or found.long_mm > best.long_mm + _SAME_MM:
                best = found
    return best


def _plane_of(grid: Grid) -> Points:
    """Return the 2 x 2 matrix from steps along (row, column) to millimetres in the plane."""
    down, right = grid.index_to_lps_mm[:3, 1], grid.index_to_lps_mm[:3, 2]
    along = right / np.linalg.norm(right)
    across = down - (down @ along) * along
    across /= np.linalg.norm(across)
    return np.array([[down @ along, right @ along], [down @ across, 0.0]])


def _parts(is_object: NDArray[np.bool_], is_joint: NDArray[np.bool_]) -> Iterator[Points]:
    """Yield, for each connected part, the outermost pixels of the object in each of its rows."""
    numbered, _ = ndimage.label(is_joint, _ANY_NEIGHBOUR)
    for number, box in enumerate(ndimage.find_objects(numbered), start=1):
        here = is_object[box] & (numbered[box] == number)
        rows = np.flatnonzero(here.any(axis=1))
        if not rows.size:
            continue
        first = here[rows].argmax(axis=1)
        last = here.shape[1] - 1 - here[rows, ::-1].argmax(axis=1)
        corner = np.array([box[0].start, box[1].start])
        yield (
            np.concatenate(
                [np.stack([rows, first], axis=1), np.stack([rows, last], axis=1)]
            ).astype(np.float64)
            + corner
        )


def _reach_mm(pixels: Points, to_plane: Points) -> float:
    """Return a length that no diameter of the pixels exceeds."""
    extent = np.ptp(pixels, axis=0) + 1.0
    corners = np.array([extent, extent * [1.0, -1.0]]) @ to_plane.T
    return float(np.linalg.norm(corners, axis=1).max())


def _measured(slice_index: int, pixels: Points, to_plane: Points, grid: Grid) -> Diameters:
    outline = (pixels[:, None] + _OUTLINE).reshape(-1, 2)
    plane = outline @ to_plane.T
    hull: Any = ConvexHull(plane)
    corners = plane[hull.vertices]  # counterclockwise
    long_ends = _farthest(corners)
    short_ends = _perpendicular(corners, long_ends)
    lengths = [
        float(np.linalg.norm(corners[long_ends[1]] - corners[long_ends[0]])),
        float(np.linalg.norm(short_ends[1] - short_ends[0])),
    ]
    from_plane = np.linalg.inv(to_plane)
    placed = [
        _ends(slice_index, ends @ from_plane.T, grid)
        for ends in (corners[list(long_ends)], short_ends)
    ]
    return Diameters(
        slice_index=slice_index,
        long_mm=lengths[0],
        short_mm=lengths[1],
        long_ends_lps_mm=placed[0],
        short_ends_lps_mm=placed[1],
    )


def _farthest(corners: Points) -> tuple[int, int]:
    """Return which two corners of the hull lie farthest from each other."""
    away = np.linalg.norm(corners[:, None] - corners[None], axis=-1)
    first, second = np.unravel_index(int(away.argmax()), away.shape)
    return int(first), int(second)


def _perpendicular(corners: Points, ends: tuple[int, int]) -> Points:
    """Return the ends of the hull's longest chord that is perpendicular to its diameter.

    The chord's length is piecewise linear and concave along the diameter, so that it is longest at
    a corner of the hull. No corner lies before the diameter's start or beyond its end.
    """
    start, end = ends
    along = corners[end] - corners[start]
    along /= np.linalg.norm(along)
    across = np.array([-along[1], along[0]])
    ring = np.roll(corners, -start, axis=0) - corners[start]
    x, y = ring @ along, ring @ across
    turn = (end - start) % len(corners)
    lower_x, lower_y = x[: turn + 1], y[: turn + 1]
    upper_x, upper_y = np.append(x[turn:], x[0])[::-1], np.append(y[turn:], y[0])[::-1]
    below, above = np.interp(x, lower_x, lower_y), np.interp(x, upper_x, upper_y)
    at = int((above - below).argmax())
    foot = corners[start] + x[at] * along
    return np.array([foot + below[at] * across, foot + above[at] * across])


def _ends(slice_index: int, pixels: Points, grid: Grid) -> Ends:
    index = np.column_stack([np.full(2, float(slice_index)), pixels])
    (ax, ay, az), (bx, by, bz) = grid.lps_mm(index)
    return (float(ax), float(ay), float(az)), (float(bx), float(by), float(bz))
