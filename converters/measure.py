"""What a label map measures: volumes, lesions one by one, and the diameters that RANO asks for.

Everything is taken from the geometry of the grid, in millimetres of the patient; headers such as
Slice Thickness are not looked at. `converters.diameters` has the lengths in one slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from converters import diameters
from converters.diameters import Diameters
from converters.volume import MM3_PER_ML, Box, Code, Grid, LabelMap, Segment

LEAST_LESION_MM3: Final = 50.0
"""Smaller pieces count for volumes and are no lesions; the BraTS challenge counts none either."""

MOST_LESIONS: Final = 20
"""So many are measured one by one, the largest; all are counted. More are hardly a tumour's."""

ENHANCING: Final = ("C113842", "NCIt")
"""Type code, value and scheme, of the segment whose diameters are measured (CID 7169)."""

_ANY_NEIGHBOUR: Final = np.ones((3, 3, 3), dtype=np.bool_)  # 26: touching at a corner is touching
_MORPHOLOGIC: Final = Code(
    value="49755003", scheme="SCT", meaning="Morphologically Abnormal Structure"
)
_NEOPLASM: Final = Code(value="108369006", scheme="SCT", meaning="Neoplasm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Segments taken together, such as the whole tumour; regions may overlap."""

    label: str
    numbers: tuple[int, ...]
    category: Code
    type_code: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesion:
    """One connected piece of everything that is labelled.

    Parameters
    ----------
    number : int
        1, 2, ... from the largest to the smallest.
    volume_ml : float
        All segments together.
    by_segment_ml : tuple of float
        Of each segment of the label map, in order.
    centre_lps_mm : tuple of float
        Mean of its voxel centres.
    enhancing : Diameters or None
        Of its enhancing tumour; None where nothing of it enhances.
    """

    number: int
    volume_ml: float
    by_segment_ml: tuple[float, ...]
    centre_lps_mm: tuple[float, float, float]
    enhancing: Diameters | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measurements:
    """Everything that is measured of a label map.

    Parameters
    ----------
    segments, segments_ml : tuple
        The segments of the label map, and the volume of each.
    whole, whole_ml : Region, float
        All segments together: the model's own region of them, where it declares one.
    regions, regions_ml : tuple
        The model's other regions, and the volume of each.
    enhancing : tuple of int
        Numbers of the segments whose diameters are measured; empty where the model knows none.
    lesions : tuple of Lesion
        The largest `MOST_LESIONS`, largest first.
    lesion_count : int
        How many there are.
    small_count, small_ml : int, float
        How many pieces are too small for a lesion, and their volume.
    grid : Grid
        Where all of it lies.
    """

    segments: tuple[Segment, ...]
    segments_ml: tuple[float, ...]
    whole: Region
    whole_ml: float
    regions: tuple[Region, ...]
    regions_ml: tuple[float, ...]
    enhancing: tuple[int, ...]
    lesions: tuple[Lesion, ...]
    lesion_count: int
    small_count: int
    small_ml: float
    grid: Grid

    def enhancing_ml(self, lesion: Lesion) -> float:
        """Return the volume of a lesion's enhancing tumour."""
        return sum(lesion.by_segment_ml[number - 1] for number in self.enhancing)


def measure(label_map: LabelMap, regions: Sequence[Region] = ()) -> Measurements:
    """Return the volumes, lesions and diameters of a label map.

    Parameters
    ----------
    label_map : LabelMap
        On the grid of the reference series, whose slices are the acquisition plane.
    regions : sequence of Region
        Of the model.

    Notes
    -----
    A volume is the number of voxels times the volume of one, which is the determinant of the
    grid's matrix. A lesion is a piece of all labels together (26 neighbours) of at least
    `LEAST_LESION_MM3`. Diameters are looked for in each slice, in each connected part (8
    neighbours) of the tumour's core, so that two nodules in one oedema are not measured across;
    see `converters.diameters`. The core is the smallest region that holds the enhancing segment
    and more; without such a region the enhancing segment alone.
    """
    by_number = label_map.volumes_ml()
    every = tuple(by_number)
    whole = next((one for one in regions if set(one.numbers) == set(every)), None)
    others = tuple(one for one in regions if one is not whole)
    enhancing = tuple(
        one.number
        for one in label_map.segments
        if (one.type_code.value, one.type_code.scheme) == ENHANCING
    )
    pieces, sizes = _pieces(label_map)
    is_lesion = sizes * label_map.grid.voxel_volume_mm3 >= LEAST_LESION_MM3
    core = _core(enhancing, others)
    return Measurements(
        segments=label_map.segments,
        segments_ml=tuple(by_number.values()),
        whole=whole or _everything(every),
        whole_ml=sum(by_number.values()),
        regions=others,
        regions_ml=tuple(sum(by_number[number] for number in one.numbers) for one in others),
        enhancing=enhancing,
        lesions=tuple(
            _lesion(rank, piece, label_map, enhancing, core)
            for rank, piece in enumerate(pieces, start=1)
        ),
        lesion_count=int(is_lesion.sum()),
        small_count=int((~is_lesion).sum()),
        small_ml=_ml(int(sizes[~is_lesion].sum()), label_map.grid),
        grid=label_map.grid,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Piece:
    """A connected piece: its box in the label map and its labels there, 0 where others are."""

    box: Box
    labels: NDArray[np.uint8]
    voxel_count: int


def _pieces(label_map: LabelMap) -> tuple[list[_Piece], NDArray[np.int64]]:
    """Return the pieces that are measured one by one, and how many voxels every piece has.

    Both from the largest to the smallest; of equals the first in the array comes first.
    """
    labels = label_map.labels
    if (box := _box(labels)) is None:
        return [], np.zeros(0, np.int64)
    numbered, _ = ndimage.label(labels[box] != 0, _ANY_NEIGHBOUR)
    sizes = np.bincount(numbered.ravel())[1:]
    order = np.argsort(-sizes, kind="stable")
    boxes = ndimage.find_objects(numbered)
    is_lesion = sizes[order] * label_map.grid.voxel_volume_mm3 >= LEAST_LESION_MM3
    pieces = []
    for index in order[is_lesion][:MOST_LESIONS]:
        own = boxes[index]
        slices, rows, columns = (
            slice(outer.start + inner.start, outer.start + inner.stop)
            for outer, inner in zip(box, own, strict=True)
        )
        part = np.where(numbered[own] == index + 1, labels[box][own], 0).astype(np.uint8)
        size = int(sizes[index])
        pieces.append(_Piece(box=(slices, rows, columns), labels=part, voxel_count=size))
    return pieces, sizes[order]


def _box(labels: NDArray[np.uint8]) -> Box | None:
    """Return the smallest box that holds every label; None where there is none."""
    plane = np.asarray(labels.any(axis=0))
    along = [np.asarray(one) for one in (labels.any(axis=(1, 2)), plane.any(1), plane.any(0))]
    if not plane.any():
        return None
    first = [int(any_there.argmax()) for any_there in along]
    after = [len(any_there) - int(any_there[::-1].argmax()) for any_there in along]
    slices, rows, columns = (slice(*ends) for ends in zip(first, after, strict=True))
    return slices, rows, columns


def _core(enhancing: Sequence[int], regions: Sequence[Region]) -> tuple[int, ...]:
    holding = [one.numbers for one in regions if set(enhancing) < set(one.numbers)]
    return min(holding, key=len, default=tuple(enhancing))


def _everything(numbers: tuple[int, ...]) -> Region:
    return Region(label="Whole tumour", numbers=numbers, category=_MORPHOLOGIC, type_code=_NEOPLASM)


def _ml(voxel_count: int, grid: Grid) -> float:
    return voxel_count * grid.voxel_volume_mm3 / MM3_PER_ML


def _lesion(
    number: int,
    piece: _Piece,
    label_map: LabelMap,
    enhancing: Sequence[int],
    core: Sequence[int],
) -> Lesion:
    grid = label_map.grid.part(piece.box)
    counts = np.bincount(piece.labels.ravel(), minlength=len(label_map.segments) + 1)
    middle = np.argwhere(piece.labels).mean(axis=0)
    x, y, z = (float(part) for part in grid.lps_mm(middle))
    found = diameters.longest(np.isin(piece.labels, enhancing), np.isin(piece.labels, core), grid)
    return Lesion(
        number=number,
        volume_ml=_ml(piece.voxel_count, grid),
        by_segment_ml=tuple(_ml(int(counts[one.number]), grid) for one in label_map.segments),
        centre_lps_mm=(x, y, z),
        enhancing=found and found.in_slice(found.slice_index + piece.box[0].start),
    )
