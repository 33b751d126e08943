"""Try a model: its self-test, or one image and, where there is one, its truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters import nifti
from converters.errors import NiftiUnusableError
from converters.volume import LabelMap
from inference import model as models
from inference import self_test
from inference.declarations import SelfTest
from inference.manifest import Manifest
from inference.model import DeviceChoice
from inference.predict import predict

_MM3_PER_ML = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found of a label or region.

    Parameters
    ----------
    name : str
        Of the label or region.
    is_region : bool
        Whether it is several labels taken together.
    volume_ml : float
        What the model found.
    truth_ml : float or None
        What the truth has.
    dice : float or None
        Twice the common volume over the sum of both, 0 to 1; None without a truth, or where
        neither has any.
    """

    name: str
    is_region: bool
    volume_ml: float
    truth_ml: float | None = None
    dice: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a model made of an image, and what a reader has to know of it."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


def of_noise(found: Manifest) -> SelfTest:
    """Return what seeded noise gives, compared with the model's record where it has one.

    Raises
    ------
    InferenceError
        The model does not load, or gives something else than it did.
    """
    return self_test.run(found)


def of_image(
    found: Manifest,
    image: Path,
    truth: Path | None = None,
    *,
    device: DeviceChoice = "auto",
    mask_folder: Path | None = None,
) -> Trial:
    """Return what a model finds in a 4-D image.

    Parameters
    ----------
    found : Manifest
        The model.
    image : Path
        NIfTI file, channel last, in the order of the manifest's inputs.
    truth : Path, optional
        NIfTI file of the model's label numbers on the same grid.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    mask_folder : Path, optional
        Of the brain mask network; used where the model needs to know the brain.

    Raises
    ------
    NiftiUnusableError
        A file cannot be read, has other channels or labels, or the two lie on different grids.
    InferenceError
        The model does not load, or cannot work on the image.
    """
    volumes = nifti.read_channels(image, found.roles)
    reference = None if truth is None else _truth(truth, found)
    if reference is not None and not reference.grid.is_same_place(volumes[0].grid):
        raise NiftiUnusableError(reason="the truth lies on another grid than the image")
    mask = mask_folder if found.needs_brain_for else None
    loaded = models.load(found, device=device, mask_folder=mask)
    prediction = predict(volumes, loaded, reference_role=found.reference_role)
    return Trial(
        findings=_findings(found, prediction.label_map, reference),
        notes=tuple(str(note) for note in prediction.notes),
    )


def _truth(file: Path, found: Manifest) -> LabelMap:
    return nifti.read_label_map(
        file, segments=found.segments, model_id=found.model_id, frame_of_reference_uid=""
    )


def _findings(found: Manifest, label_map: LabelMap, truth: LabelMap | None) -> tuple[Finding, ...]:
    voxel_ml = label_map.grid.voxel_volume_mm3 / _MM3_PER_ML
    labels, true = label_map.labels, None if truth is None else truth.labels
    wanted: list[tuple[str, bool, tuple[int, ...]]] = [
        (one.label, False, (one.number,)) for one in found.labels
    ]
    wanted += [(one.label, True, one.labels) for one in found.regions]
    return tuple(
        _finding(name, labels, true, numbers, voxel_ml, is_region=is_region)
        for name, is_region, numbers in wanted
    )


def _finding(
    name: str,
    labels: NDArray[np.uint8],
    truth: NDArray[np.uint8] | None,
    numbers: Sequence[int],
    voxel_ml: float,
    *,
    is_region: bool,
) -> Finding:
    mask = np.isin(labels, numbers)
    count = int(mask.sum())
    volume_ml = count * voxel_ml
    if truth is None:
        return Finding(name=name, is_region=is_region, volume_ml=volume_ml)
    true = np.isin(truth, numbers)
    both = count + int(true.sum())
    return Finding(
        name=name,
        is_region=is_region,
        volume_ml=volume_ml,
        truth_ml=int(true.sum()) * voxel_ml,
        dice=2 * int((mask & true).sum()) / both if both else None,
    )
