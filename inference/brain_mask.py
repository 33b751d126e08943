"""Where the brain is: what a model that was trained on skull-stripped images has to be shown.

A small network (`models/brain-mask`) sees each series of a case alone, whatever its contrast, on
one coarse grid; what it says of most of them becomes one mask. Images that already are stripped
keep the mask that they came with.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from converters import sampling
from converters.volume import MM3_PER_ML, Grid, Role, Volume
from inference import preprocess
from inference.errors import BrainNotFoundError
from inference.mask_model import MaskModel

Field: TypeAlias = NDArray[np.float32]
Source: TypeAlias = Literal["network", "input"]

# Brain with its CSF. Adults have 900 to 2000 mL (two standard deviations and more around 1400 in
# either sex, small children from about one year on); a newborn has 350, megalencephaly and
# hydrocephalus reach 2500. Beyond the outer limits what was found is no brain.
USUAL_ML = (900.0, 2000.0)
POSSIBLE_ML = (250.0, 2600.0)

_NOTHING = 0.01  # of a bright voxel; interpolation rings about so much around a stripped brain
_EMPTY_SHARE = 0.2  # of the field that is nothing in a stripped image; heads have noise there
_STRIPPED_ML = 2200.0  # more than that is a head with its skull
_COVERED = 0.75  # of the voxels that are something, by the network's mask, in a stripped image
_BRIGHT_PERCENTILE = 99.5
_BRIGHTEST = 1.5
_SOLID = 0.05  # of a bright voxel; what is darker counts as nothing when a volume is measured
_BLOCK = 0.8  # of the coarse step; the interpolation that follows does the rest
_SURE = 6.0  # logits beyond this say no more
_SMOOTH_VOXELS = 0.6
_FAR_MM = 100.0
_HALF = 0.5 + 1e-6  # of a voxel; a point on the border is inside
_WELL_INSIDE_MM = 4.0  # away from the mask's border, where channels differ for other reasons
_EVERY = 3  # of the points on a 2 mm lattice: some 50,000, enough for a thousandth's tail


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BrainMask:
    """Where the brain is.

    Parameters
    ----------
    depth_mm : (x, y, z) ndarray of float32
        How deep below the brain's surface each voxel of `grid` lies; negative outside.
    grid : Grid
        A coarse one; its index is (x, y, z).
    volume_ml : float
        How much is brain, with its CSF.
    source : {"network", "input"}
        Who drew it: the network, or whoever stripped the images before they were sent.
    """

    depth_mm: Field
    grid: Grid
    volume_ml: float
    source: Source

    @property
    def is_usual(self) -> bool:
        """Whether an adult's brain can be so large."""
        return USUAL_ML[0] <= self.volume_ml <= USUAL_ML[1]

    def on(self, grid: Grid, *, below_mm: float = 0.0) -> NDArray[np.bool_]:
        """Return which voxels of a grid of the same patient frame lie in the brain.

        Parameters
        ----------
        grid : Grid
            Where the answer is wanted.
        below_mm : float
            How deep below the surface a voxel has to lie; negative adds a margin.
        """
        lifted = self.depth_mm - np.float32(_FAR_MM)  # 0 is what `resample` gives outside
        depth = Volume(intensities=lifted, grid=self.grid, role="depth")
        found = preprocess.resample(depth, grid)
        return np.asarray((found >= below_mm - _FAR_MM) & (found < 0.0))


def find(volumes: Sequence[Volume], reference: Grid, model: MaskModel) -> BrainMask:
    """Return where the brain is in the images of one patient frame.

    Parameters
    ----------
    volumes : sequence of Volume
        The series of a case, each on its own grid.
    reference : Grid
        The mask covers at least the field of view of this grid.
    model : MaskModel
        The network that draws it.

    Raises
    ------
    BrainNotFoundError
        What was found is too small or too large for any brain.

    Notes
    -----
    A voxel is brain where the majority of the series says so: a leak into the orbit or the scalp
    that one or two contrasts suggest is outvoted by the others. On the raw exam that was looked at
    the mean of the scores left twice as much false tumour in the fat behind the eyes.
    """
    grid = _coarse_grid(reference, model)
    images = [_coarse(volume, grid) for volume in volumes]
    given = np.any([_something(image) for image in images], axis=0)
    filled = np.asarray(ndimage.binary_fill_holes(given))
    may_be_stripped = all(_is_sparse(image) for image in images)
    may_be_stripped &= _volume_ml(filled, grid) <= _STRIPPED_ML
    if may_be_stripped:
        seen = _piece(_smooth(_logits(images[:1], model)) >= 0.0)
        if np.count_nonzero(seen & filled) >= _COVERED * np.count_nonzero(filled):
            return _checked(filled, grid, "input")
    return _checked(_piece(_smooth(_logits(images, model)) >= 0.0), grid, "network")


def samples(volumes: Sequence[Volume], brain: BrainMask) -> dict[Role, Field]:
    """Return what each volume shows at the same points well inside the brain, in one order.

    Points outside a volume's field of view are left out for all of them.
    """
    half = Grid(
        shape=(brain.grid.shape[0] * 2, brain.grid.shape[1] * 2, brain.grid.shape[2] * 2),
        index_to_lps_mm=brain.grid.index_to_lps_mm @ np.diag([0.5, 0.5, 0.5, 1.0]),
        frame_of_reference_uid=brain.grid.frame_of_reference_uid,
    )
    index = np.argwhere(brain.on(half, below_mm=_WELL_INSIDE_MM))[::_EVERY]
    points = half.lps_mm(index.astype(np.float64))
    places = {volume.role: _index_in(volume, points) for volume in volumes}
    seen = np.ones(len(points), bool)
    for volume in volumes:
        seen &= _is_within(volume, places[volume.role])
    return {
        volume.role: ndimage.map_coordinates(
            volume.intensities, places[volume.role][seen].T, np.float32, order=1, mode="nearest"
        )
        for volume in volumes
    }


def coverage(volume: Volume, brain: BrainMask) -> float:
    """Return which share of the brain lies in a volume's field of view, 0 to 1."""
    inside = np.argwhere(brain.depth_mm >= 0.0)
    points = brain.grid.lps_mm(inside.astype(np.float64))
    return float(_is_within(volume, _index_in(volume, points)).mean())


def _index_in(volume: Volume, points: NDArray[np.float64]) -> NDArray[np.float64]:
    to_index = np.linalg.inv(volume.grid.index_to_lps_mm)
    return np.asarray(points @ to_index[:3, :3].T + to_index[:3, 3])


def _is_within(volume: Volume, index: NDArray[np.float64]) -> NDArray[np.bool_]:
    last = np.subtract(volume.grid.shape, 1)
    return np.asarray(((index >= -_HALF) & (index <= last + _HALF)).all(axis=1))


def _coarse_grid(reference: Grid, model: MaskModel) -> Grid:
    """Return the network's grid around the field of view of another one."""
    space = model.manifest.space
    last = np.subtract(reference.shape, 1)
    corners = reference.lps_mm(
        np.array(list(itertools.product(*zip([0, 0, 0], last, strict=True))))
    )
    low, high = corners.min(axis=0), corners.max(axis=0)
    steps = np.ceil((high - low) / (space.step_mm * space.multiple_of)).astype(int)
    shape = np.maximum(steps * space.multiple_of, space.least_shape)
    matrix = np.diag([-space.step_mm, -space.step_mm, space.step_mm, 1.0])
    matrix[:3, 3] = (low + high) / 2 - matrix[:3, :3] @ ((shape - 1) / 2)
    return Grid(
        shape=(int(shape[0]), int(shape[1]), int(shape[2])),
        index_to_lps_mm=matrix,
        frame_of_reference_uid=reference.frame_of_reference_uid,
    )


def _coarse(volume: Volume, grid: Grid) -> Field:
    """Return a volume on the network's grid: means of blocks, so that nothing is skipped."""
    step_mm = grid.spacing_mm[0]
    block = [max(1, int(_BLOCK * step_mm / spacing)) for spacing in volume.grid.spacing_mm]
    counts = [size // side for size, side in zip(volume.grid.shape, block, strict=True)]
    if min(counts) == 0 or max(block) == 1:
        return preprocess.resample(volume, grid)
    means = sampling.block_means(volume.intensities, block)
    matrix = volume.grid.index_to_lps_mm @ np.diag([*block, 1.0])
    matrix[:3, 3] = volume.grid.lps_mm((np.array(block, dtype=np.float64) - 1) / 2)
    small = Grid(
        shape=(counts[0], counts[1], counts[2]),
        index_to_lps_mm=matrix,
        frame_of_reference_uid=grid.frame_of_reference_uid,
    )
    return preprocess.resample(Volume(intensities=means, grid=small, role=volume.role), grid)


def _bright(image: Field) -> float:
    positive = image[image > 0]
    return float(np.percentile(positive, _BRIGHT_PERCENTILE)) if positive.size else 0.0


def _something(image: Field) -> NDArray[np.bool_]:
    return np.asarray(np.abs(image) > max(_SOLID * _bright(image), np.finfo(np.float32).tiny))


def _is_sparse(image: Field) -> bool:
    """Say whether so much of a field of view is nothing that the image may be stripped."""
    nothing = np.abs(image) <= _NOTHING * _bright(image)
    return float(nothing.mean()) >= _EMPTY_SHARE


def _logits(images: Sequence[Field], model: MaskModel) -> Field:
    """Return scores that are positive where the network sees brain in most of the images."""
    scaled = [np.clip(image / (_bright(image) or 1.0), 0.0, _BRIGHTEST) for image in images]
    with torch.inference_mode():
        scores = model.network(torch.from_numpy(np.stack(scaled, dtype=np.float32)[:, None]))
    scores = scores[:, 0].numpy()
    return np.asarray(np.sort(scores, axis=0)[(len(scores) - 1) // 2], np.float32)


def _smooth(logits: Field) -> Field:
    certain = np.clip(logits, -_SURE, _SURE)
    return np.asarray(ndimage.gaussian_filter(certain, _SMOOTH_VOXELS), np.float32)


def _piece(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest piece without what hangs on it by a thread, its holes filled."""
    core = _largest(ndimage.binary_erosion(inside))
    grown = ndimage.binary_dilation(core, iterations=2) & inside
    return np.asarray(ndimage.binary_fill_holes(grown))


def _largest(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    pieces, count = ndimage.label(inside)
    if count == 0:
        return inside
    return np.asarray(pieces == np.bincount(pieces.ravel())[1:].argmax() + 1)


def _volume_ml(inside: NDArray[np.bool_], grid: Grid) -> float:
    return int(np.count_nonzero(inside)) * grid.voxel_volume_mm3 / MM3_PER_ML


def _depth_mm(inside: NDArray[np.bool_], step_mm: float) -> Field:
    """Return the signed distance from the surface, which lies between the voxels' centres."""
    depth = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
    depth = np.clip((depth - 0.5 * np.sign(depth)) * step_mm, -_FAR_MM, _FAR_MM - 1.0)
    return np.asarray(ndimage.gaussian_filter(depth, _SMOOTH_VOXELS), np.float32)


def _checked(inside: NDArray[np.bool_], grid: Grid, source: Source) -> BrainMask:
    volume_ml = _volume_ml(inside, grid)
    least_ml, most_ml = POSSIBLE_ML
    if not least_ml <= volume_ml <= most_ml:
        raise BrainNotFoundError(volume_ml=volume_ml, least_ml=least_ml, most_ml=most_ml)
    depth_mm = _depth_mm(inside, grid.spacing_mm[0])
    return BrainMask(depth_mm=depth_mm, grid=grid, volume_ml=volume_ml, source=source)
