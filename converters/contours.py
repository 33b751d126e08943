"""Masks to outlines along the edges of voxels, as planning systems draw them.

An outline follows the edges between voxels, so that every voxel's centre lies half a voxel inside
or outside, and the area within it is that of the voxels. Voxels that touch at a corner alone are
not connected. A hole is joined to the outline around it by a channel of no width (keyhole).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_Corner = tuple[int, int]
_Ring = list[_Corner]

_STEPS: Final = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""To the right, down, left, up; each turns right into the next. The mask lies on the right."""


def outlines(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Return closed polygons whose insides together are a mask.

    Parameters
    ----------
    mask : (rows, columns) ndarray of bool

    Returns
    -------
    list of (corners, 2) ndarray of float64
        Row and column of each corner, where voxel centres are whole numbers; the last corner is
        followed by the first. One polygon for each piece of the mask, from the top downwards. By
        the even-odd rule a voxel's centre is inside exactly when it belongs to the mask.

    References
    ----------
    DICOM PS3.3 C.8.8.6.3 Representing inner and outer contours.
    """
    found = _rings(mask)
    pieces = [ring for ring in found if not _is_hole(ring)]
    for hole in found:
        if _is_hole(hole):
            _join(hole, pieces, mask)
    return [np.array(_turns(ring), dtype=np.float64) - 0.5 for ring in pieces]


def _rings(mask: NDArray[np.bool_]) -> list[_Ring]:
    """Return every border of a mask, corner by corner, each from its first in reading order."""
    ways = _ways(mask)
    return [_followed(start, ways) for start in sorted(ways) if ways[start]]


def _ways(mask: NDArray[np.bool_]) -> dict[_Corner, list[int]]:
    """Return in which directions borders leave each of their corners."""
    padded = np.pad(mask, 1)
    sides = (  # what lies beyond a side of a voxel, and the corner that the side starts from
        (padded[:-2, 1:-1], (0, 0)),
        (padded[1:-1, 2:], (0, 1)),
        (padded[2:, 1:-1], (1, 1)),
        (padded[1:-1, :-2], (1, 0)),
    )
    ways: dict[_Corner, list[int]] = {}
    for direction, (beyond, corner) in enumerate(sides):
        for row, column in (np.argwhere(mask & ~beyond) + corner).tolist():
            ways.setdefault((row, column), []).append(direction)
    return ways


def _followed(start: _Corner, ways: dict[_Corner, list[int]]) -> _Ring:
    """Return one border and use it up.

    Where two pass one corner it turns right, around its own voxel. That never is its first corner:
    the other one would have begun there or earlier, and is used up.
    """
    ring: _Ring = []
    corner, direction = start, ways[start][0]
    while not ring or corner != start:
        ring.append(corner)
        ways[corner].remove(direction)
        corner = _next(corner, direction)
        right = (direction + 1) % len(_STEPS)
        direction = right if right in ways[corner] else next(iter(ways[corner]), right)
    return ring


def _next(corner: _Corner, direction: int) -> _Corner:
    down, right = _STEPS[direction]
    return corner[0] + down, corner[1] + right


def _is_hole(ring: _Ring) -> bool:
    """Say whether a border goes down from its first corner, which outer ones leave to the right."""
    return ring[1] == _next(ring[0], 1)


def _join(hole: _Ring, pieces: list[_Ring], mask: NDArray[np.bool_]) -> None:
    """Join a hole to what lies left of its first corner: its outline, or a hole joined before."""
    row, column = hole[0]
    channel = [(row, column - 1)]
    while (left := channel[-1][1] - 1) >= 0 and mask[row - 1 : row + 1, left].all():
        channel.append((row, left))
    piece = next(one for one in pieces if channel[-1] in one)
    at = piece.index(channel[-1])
    piece[at:at] = [*channel[::-1], *hole, hole[0], *channel[:-1]]


def _turns(ring: _Ring) -> _Ring:
    """Return the corners at which a border changes its direction."""
    before, after = [ring[-1], *ring[:-1]], [*ring[1:], ring[0]]
    return [
        here
        for one, here, other in zip(before, ring, after, strict=True)
        if (here[0] - one[0], here[1] - one[1]) != (other[0] - here[0], other[1] - here[1])
    ]
