"""How well labels agree with a reference: Dice, HD95 and the lesion-wise measures of BraTS 2023.

Pure numpy and scipy. Arrays are boolean masks or uint8 labels on one grid, axes (slice, row,
column); spacing is in millimetres along those axes. Labels: 1 oedema, 2 non-enhancing core, 3
enhancing tumour.

Notes
-----
The lesion-wise measures follow ``get_LesionWiseScores`` of the challenge (R. Saluja,
BraTS-2023-Metrics, glioma): lesions of the reference that touch once each is dilated three times by
the 18-neighbourhood are one lesion; each is compared with all 26-connected components found that
touch its dilated shape; lesions of at most 50 mm3 are left out; a component found that touches no
lesion counts as a lesion with Dice 0 and HD95 374 mm, which is also what an empty mask against one
that is not empty gets. Two differences: the dilation is given in millimetres, the same set on a
1 mm grid and of the same size on any other; and a surface is its voxels (inside, with a face
neighbour outside), as in MONAI, where the challenge weighs surface elements by their area.

References
----------
S. Bakas et al., BraTS 2023 evaluation, https://github.com/rachitsaluja/BraTS-2023-Metrics.
S. Nikolov et al., surface-distance: robust Hausdorff is the larger of both directed percentiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

Mask: TypeAlias = NDArray[np.bool_]
Spacing: TypeAlias = tuple[float, float, float]

REGIONS: Final[Mapping[str, tuple[int, ...]]] = {"WT": (1, 2, 3), "TC": (2, 3), "ET": (3,)}
"""Whole tumour, tumour core and enhancing tumour by their labels."""

WORST_MM: Final = 374.0
"""HD95 where one mask is empty: about the diagonal of a 240 x 240 x 155 mm field of view."""
LEAST_LESION_MM3: Final = 50.0
"""A lesion of the reference counts from more than this on."""

_PERCENTILE: Final = 95.0
_JOIN_MM: Final = 3.0  # along one axis; three steps of the 18-neighbourhood at 1 mm
_JOIN_SUM_MM: Final = 6.0  # summed over the axes
_SLACK: Final = 1e-3
_MM3_PER_ML: Final = 1000.0
_TOUCHING: Final = np.ones((3, 3, 3), dtype=np.bool_)  # 26-neighbourhood


@dataclass(frozen=True, slots=True, kw_only=True)
class LesionScores:
    """Lesion-wise measures of one region.

    Parameters
    ----------
    dice, hd95_mm : float
        Mean over the lesions of the reference and the false components; 1 and 0 without any.
    lesion_count : int
        Lesions of the reference above 50 mm3.
    missed_count : int
        Those of them that nothing found touches.
    false_count : int
        Components found that touch no lesion.
    """

    dice: float
    hd95_mm: float
    lesion_count: int
    missed_count: int
    false_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionScores:
    """All measures of one region."""

    dice: float
    hd95_mm: float
    lesions: LesionScores
    found_ml: float
    reference_ml: float


def score_labels(
    found: NDArray[np.uint8], reference: NDArray[np.uint8], spacing_mm: Spacing
) -> dict[str, RegionScores]:
    """Return the measures of each of `REGIONS`.

    Parameters
    ----------
    found, reference : (slices, rows, columns) ndarray of uint8
        Labels on one grid.
    spacing_mm : tuple of float
        Distance between neighbours along slice, row and column.
    """
    return {
        name: score(np.isin(found, labels), np.isin(reference, labels), spacing_mm)
        for name, labels in REGIONS.items()
    }


def score(found: Mask, reference: Mask, spacing_mm: Spacing) -> RegionScores:
    """Return all measures of a mask against the reference."""
    found, reference = _cropped(found, reference, spacing_mm)
    return RegionScores(
        dice=dice(found, reference),
        hd95_mm=hd95_mm(found, reference, spacing_mm),
        lesions=lesion_scores(found, reference, spacing_mm),
        found_ml=volume_ml(found, spacing_mm),
        reference_ml=volume_ml(reference, spacing_mm),
    )


def volume_ml(mask: Mask, spacing_mm: Spacing) -> float:
    """Return the volume of a mask in millilitres."""
    return float(np.count_nonzero(mask)) * float(np.prod(spacing_mm)) / _MM3_PER_ML


def dice(found: Mask, reference: Mask) -> float:
    """Return twice the overlap over the sum of both; 1 where both are empty."""
    total = np.count_nonzero(found) + np.count_nonzero(reference)
    if not total:
        return 1.0
    return 2.0 * float(np.count_nonzero(found & reference)) / float(total)


def hd95_mm(found: Mask, reference: Mask, spacing_mm: Spacing) -> float:
    """Return the 95th percentile of the distances between both surfaces, millimetres.

    Notes
    -----
    For each voxel of one surface the distance to the nearest voxel of the other, the 95th
    percentile (linear) of these in either direction, and the larger of the two. 0 where both masks
    are empty, 374 where one is.
    """
    one, other = _surface_mm(found, spacing_mm), _surface_mm(reference, spacing_mm)
    if not len(one) and not len(other):
        return 0.0
    if not len(one) or not len(other):
        return WORST_MM
    there, back = KDTree(other).query(one)[0], KDTree(one).query(other)[0]
    return float(max(np.percentile(there, _PERCENTILE), np.percentile(back, _PERCENTILE)))


def lesion_scores(found: Mask, reference: Mask, spacing_mm: Spacing) -> LesionScores:
    """Return the lesion-wise measures; see the module's notes.

    Notes
    -----
    The lesions of one dilated component are what the reference has in it, and the component is
    their dilation, so that one dilation of the whole does for all.
    """
    found, reference = _cropped(found, reference, spacing_mm)
    reach = ndimage.binary_dilation(reference, _joining(spacing_mm))
    joined, count = ndimage.label(reach, _TOUCHING)
    components, component_count = ndimage.label(found, _TOUCHING)
    pairs = []
    true_components: set[int] = set()
    missed_count = 0
    for number, where in enumerate(ndimage.find_objects(joined, count), start=1):
        is_near = joined[where] == number
        touching = set(np.unique(components[where][is_near]).tolist()) - {0}
        true_components |= touching
        lesion = reference & _placed(is_near, where, reference.shape)
        if volume_ml(lesion, spacing_mm) * _MM3_PER_ML <= LEAST_LESION_MM3:
            continue
        missed_count += not touching
        answer = np.isin(components, list(touching))
        answer, lesion = _cropped(answer, lesion, spacing_mm)
        pairs.append((dice(answer, lesion), hd95_mm(answer, lesion, spacing_mm)))
    false_count = component_count - len(true_components)
    total = len(pairs) + false_count
    return LesionScores(
        dice=sum(pair[0] for pair in pairs) / total if total else 1.0,
        hd95_mm=(sum(p[1] for p in pairs) + WORST_MM * false_count) / total if total else 0.0,
        lesion_count=len(pairs),
        missed_count=missed_count,
        false_count=false_count,
    )


def _placed(part: Mask, where: tuple[slice, ...], shape: tuple[int, ...]) -> Mask:
    whole = np.zeros(shape, dtype=np.bool_)
    whole[where] = part
    return whole


def _joining(spacing_mm: Spacing) -> Mask:
    """Return what a voxel is dilated to: the offsets that three steps reach at 1 mm."""
    counts = [int((_JOIN_MM + _SLACK) / step) for step in spacing_mm]
    offsets = np.meshgrid(
        *(
            np.abs(np.arange(-count, count + 1)) * step
            for count, step in zip(counts, spacing_mm, strict=True)
        ),
        indexing="ij",
    )
    return np.asarray(sum(offsets) <= _JOIN_SUM_MM + _SLACK)


def _surface_mm(mask: Mask, spacing_mm: Spacing) -> NDArray[np.float64]:
    """Return where the surface's voxels lie, (n, 3) in millimetres along the axes."""
    inner = ndimage.binary_erosion(mask)
    return np.asarray(np.argwhere(mask & ~inner) * np.asarray(spacing_mm), dtype=np.float64)


def _cropped(one: Mask, other: Mask, spacing_mm: Spacing) -> tuple[Mask, Mask]:
    """Return both within the box that holds both, with room for the dilation."""
    either = one | other
    if not either.any():
        nothing = np.zeros((1, 1, 1), dtype=np.bool_)
        return nothing, nothing
    box = []
    for axis in range(3):
        others = tuple(k for k in range(3) if k != axis)
        at = np.flatnonzero(either.any(axis=others))
        room = int(_JOIN_MM / spacing_mm[axis]) + 1
        box.append(slice(max(int(at[0]) - room, 0), int(at[-1]) + 1 + room))
    where = tuple(box)
    return one[where], other[where]
