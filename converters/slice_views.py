"""The slices of a result to leaf through: voxels kept once, any slice of them as a picture.

Kept are 8-bit grey levels of one or more sequences and the labels, cut to the head, upright: first
axis towards the head, second to posterior, third to the patient's left. Any slice is then a view of
the file, so that a picture of one needs the memory of one. What is given out are two PNGs: the grey
slice, and over it the labels, transparent where there are none. Both are in true proportions,
turned the radiological way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from converters import align, planes, png
from converters.planes import Rgb, View
from converters.volume import Box, Grid, LabelMap, Role, Volume

_ALONG: Final[dict[View, int]] = {"axial": 0, "coronal": 1, "sagittal": 2}
_MARGIN_MM: Final = 6.0
_LONGEST: Final = 640  # pixels of a picture's longer side; what is finer is shown reduced
_FINEST: Final = 800  # pixels of the labels' longer side: thin, smooth borders on any screen
_LINE: Final = 2  # pixels of it
_FILLED: Final = 76  # of 255: the tissue below stays seen
_WHITE: Final = 255
_HALF: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How kept voxels lie.

    Parameters
    ----------
    shape : tuple of int
        Slices, rows and columns of each layer.
    spacing_mm : tuple of float
        Between them.
    roles : tuple of str
        Which sequences there are, in the order of the layers; the labels are the last layer.
    at : tuple of int
        Slice, row and column where the planes cross at first: the middle of the tumour.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    roles: tuple[Role, ...]
    at: tuple[int, int, int]

    @property
    def layers_shape(self) -> tuple[int, int, int, int]:
        """Shape of the array of all layers."""
        return (len(self.roles) + 1, *self.shape)

    def count(self, view: View) -> int:
        """Return how many slices there are in a view."""
        return self.shape[_ALONG[view]]

    def first(self, view: View) -> int:
        """Return the number, from 1, of the slice that a view begins with."""
        return self.at[_ALONG[view]] + 1

    def size(self, view: View) -> tuple[int, int]:
        """Return width and height of a view's pictures in pixels."""
        down, right = (axis for axis in range(3) if axis != _ALONG[view])
        height_mm = self.shape[down] * self.spacing_mm[down]
        width_mm = self.shape[right] * self.spacing_mm[right]
        finest_mm = min(self.spacing_mm[down], self.spacing_mm[right])
        step_mm = max(finest_mm, height_mm / _LONGEST, width_mm / _LONGEST)
        return max(1, round(width_mm / step_mm)), max(1, round(height_mm / step_mm))


def laid_out(volumes: Sequence[Volume], label_map: LabelMap) -> tuple[Layout, NDArray[np.uint8]]:
    """Return the voxels to keep of a result.

    Parameters
    ----------
    volumes : sequence of Volume
        What is shown; the first lies on the label map's grid, the others are brought onto it.
    label_map : LabelMap
        What is drawn over it.
    """
    box = _box_of_head(volumes[0], label_map)
    grid = label_map.grid
    labels = planes.upright(label_map.labels[box], grid)
    layers = [planes.upright(_levels(one, grid, box), grid) for one in volumes]
    left, posterior, superior = planes.patient_axes(grid)
    spacing_mm = grid.spacing_mm
    layout = Layout(
        shape=(labels.shape[0], labels.shape[1], labels.shape[2]),
        spacing_mm=(spacing_mm[superior], spacing_mm[posterior], spacing_mm[left]),
        roles=tuple(one.role for one in volumes),
        at=_middle(labels),
    )
    return layout, np.stack([*layers, labels])


def _box_of_head(volume: Volume, label_map: LabelMap) -> Box:
    """Return the part that holds the head and every label, with a margin."""
    grid = volume.grid
    axes = planes.body_axes(grid)
    head = planes.find_head(volume, axes)
    cuts: list[slice] = [slice(0)] * 3
    for k, axis in enumerate(planes.patient_axes(grid)):
        step_mm = float(grid.index_to_lps_mm[:3, axis] @ axes[k])
        start_mm = float(grid.index_to_lps_mm[:3, 3] @ axes[k])
        ends_mm = (head.low_mm[k] - _MARGIN_MM, head.high_mm[k] + _MARGIN_MM)
        ends = sorted((end_mm - start_mm) / step_mm for end_mm in ends_mm)
        labelled = np.flatnonzero(label_map.labels.any(tuple({0, 1, 2} - {axis})))
        inside = [*(int(labelled[at]) for at in (0, -1) if labelled.size)]
        low = min([int(np.floor(ends[0])), *inside])
        high = max([int(np.ceil(ends[1])), *inside])
        cuts[axis] = slice(max(low, 0), min(high + 1, grid.shape[axis]))
    return cuts[0], cuts[1], cuts[2]


def _levels(volume: Volume, whole: Grid, box: Box) -> NDArray[np.uint8]:
    """Return a volume's grey levels in a box of a grid."""
    low, high = planes.tissue_window(volume)
    if volume.grid.is_same_place(whole):
        found = volume.intensities[box]
    else:
        found = align.on_grid(volume, whole.part(box)).intensities
    levels = np.clip((found - low) * (_WHITE / (high - low)), 0, _WHITE)
    return np.asarray(levels, dtype=np.uint8)


def _middle(labels: NDArray[np.uint8]) -> tuple[int, int, int]:
    """Return a voxel in the middle of the axial slice with most labels; of all without any."""
    areas = np.count_nonzero(labels, axis=(1, 2))
    if not areas.any():
        slices, rows, columns = labels.shape
        return slices // 2, rows // 2, columns // 2
    at = int(areas.argmax())
    points = np.argwhere(labels[at])
    row, column = points[np.linalg.norm(points - points.mean(axis=0), axis=1).argmin()]
    return at, int(row), int(column)


# -- one slice as a picture -----------------------------------------------------------------------


def grey_png(layer: NDArray[np.uint8], layout: Layout, view: View, number: int) -> bytes:
    """Return one slice of a sequence, numbered from 1."""
    picture = Image.fromarray(_slice(layer, view, number))
    return png.packed(picture.resize(layout.size(view), Image.Resampling.BICUBIC))


def labels_png(
    labels: NDArray[np.uint8], layout: Layout, view: View, number: int, colors: Mapping[int, Rgb]
) -> bytes:
    """Return the labels in one slice, numbered from 1, a whole number of times the grey picture.

    Those that have no colour are not drawn. Areas are lightly filled; their borders run inside,
    so that neighbours do not hide each other's.
    """
    shown, (width, height) = _slice(labels, view, number), layout.size(view)
    fine = -(-_FINEST // max(width, height))
    size = (width * fine, height * fine)
    indices = np.zeros(size[::-1], np.uint8)
    palette, opacity = [0, 0, 0], [0]
    for order, (label, color) in enumerate(colors.items()):
        palette += [*color, *color]
        opacity += [_FILLED, _WHITE]
        if not (shown == label).any():
            continue
        area = _area(shown == label, size)
        indices[area] = 2 * order + 2
        indices[_core(area)] = 2 * order + 1
    picture = Image.fromarray(indices, "P")
    picture.putpalette(palette)
    return png.packed(picture, transparency=bytes(opacity))


def _area(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return a mask enlarged, with its borders between the voxels' borders."""
    enlarged = Image.fromarray(mask.astype(np.uint8) * np.uint8(_WHITE))
    return np.asarray(enlarged.resize(size, Image.Resampling.BILINEAR)) >= _HALF


def _core(area: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return an area without its border; where the picture ends there is none."""
    (rows, columns), around = area.shape, range(2 * _LINE + 1)
    wide = np.pad(area, _LINE, mode="edge")
    core = np.logical_and.reduce([wide[at : at + rows] for at in around])
    return np.asarray(np.logical_and.reduce([core[:, at : at + columns] for at in around]))


def _slice(layer: NDArray[np.uint8], view: View, number: int) -> NDArray[np.uint8]:
    """Return a slice as it is shown: the head is on top."""
    found = np.asarray(np.moveaxis(layer, _ALONG[view], 0)[number - 1])
    return found if view == "axial" else found[::-1]
