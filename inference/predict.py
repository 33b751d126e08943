"""The one public function of this package: volumes and a model give a label map, and findings."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from converters.volume import PROBABILITY_OF_ONE, Grid, LabelMap, Layers, Role, Volume
from inference import (
    activation,
    brain_mask,
    cleaning,
    plausibility,
    postprocess,
    preprocess,
    quality,
    windows,
)
from inference.brain_mask import BrainMask
from inference.errors import ChannelConstantError, ChannelFieldOfViewError, ChannelMissingError
from inference.manifest import Manifest
from inference.model import LoadedModel
from inference.plausibility import Plausibility
from inference.preprocess import Prepared
from inference.quality import Note, Uncertainty
from inference.runtime import Stop
from inference.windows import Progress

# Of the brain within a series' field of view. The lower brainstem is often cut off, which costs
# a few per cent; a fifth missing is a slab.
USUAL_COVERAGE = 0.95
LEAST_COVERAGE = 0.80

_MARGIN_MM = 2.0  # half a voxel of the mask's grid: a tumour at the surface must not be cut


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """What a model found, and what was found out about its input on the way.

    Parameters
    ----------
    label_map : LabelMap
        On the grid of the reference volume.
    notes : tuple of Note
        What a reader of the result has to know.
    brain_ml : float or None
        How much brain the images show, with its CSF; None where no mask was made.
    mask_source : str
        ``network``, ``input`` (the images came stripped) or '' (no mask was made).
    coverage : mapping of role to float
        Which share of the brain each series shows, 0 to 1.
    plausibility : Plausibility
        How well the images fit their roles.
    uncertainty : Uncertainty or None
        How unsure the model was; None where it was not asked for.
    probabilities : Layers or None
        That of each label, in 255ths, on the grid of the reference volume, as the network gave it:
        not cleaned; None where nobody asked for it. With sigmoid the probability of a label is
        that of the output which is painted as it, before others are painted over it.
    mirrored_axes : tuple of int
        Along which of the network's axes copies were mirrored and averaged.
    network_s : float
        Seconds that the network took, all windows and copies.
    """

    label_map: LabelMap
    notes: tuple[Note, ...]
    brain_ml: float | None
    mask_source: str
    coverage: Mapping[Role, float]
    plausibility: Plausibility
    uncertainty: Uncertainty | None
    probabilities: Layers | None
    mirrored_axes: tuple[int, ...]
    network_s: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Input:
    """What was found out before the network ran."""

    notes: tuple[Note, ...]
    brain: BrainMask | None
    coverage: Mapping[Role, float]
    plausibility: Plausibility


def predict(
    volumes: Sequence[Volume],
    model: LoadedModel,
    *,
    reference_role: Role,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Prediction:
    """Return what the model finds, on the grid of the reference volume.

    Parameters
    ----------
    volumes : sequence of Volume
        One per input of the model, in any order, each on its own grid, all in one patient frame.
        Volumes of other roles are left aside; roles that the manifest allows to miss may be absent.
    model : LoadedModel
        The model to run.
    reference_role : str
        Role of the volume on whose grid the labels are wanted.
    progress : callable, optional
        Called with the windows done and the windows in all.
    stop : callable, optional
        Asked all the time whether the result is still wanted; True ends the computation within a
        second.

    Returns
    -------
    Prediction
        Labels, segments and model id as the manifest declares them, and the findings. The same
        volumes give the same labels on the same machine.

    Raises
    ------
    ChannelMissingError, ChannelConstantError
        An input of the model is absent, or shows nothing, that it needs, or the reference is.
    ModelUnusableError
        The model needs to know where the brain is and no brain mask network was loaded.
    BrainNotFoundError, ChannelImplausibleError, ChannelFieldOfViewError
        The images are no brain, not what they were taken for, or show too little of it.
    DeviceMemoryError
        Too little memory.
    InvalidOutputError
        The network's output is not finite or has the wrong shape.
    PredictionStoppedError
        `stop` said so.
    """
    manifest = model.manifest
    by_role = _present(volumes, manifest, reference_role)
    reference = by_role[reference_role].grid
    checked = _checked(by_role, reference, model)
    brain = None if checked.brain is None else _with_margin(checked.brain)
    ordered = [by_role.get(role) for role in manifest.roles]
    prepared = preprocess.prepare(ordered, reference, manifest, brain=brain)
    began = time.perf_counter()
    scores = windows.run(prepared.channels, model, progress, stop)
    network_s = time.perf_counter() - began
    labels = postprocess.labels_on_reference(
        scores, prepared.grid, reference, postprocess.reading_of(manifest)
    )
    share_outside = _cleaned(labels, reference, brain, manifest)
    label_map = LabelMap(
        labels=labels, grid=reference, segments=manifest.segments, model_id=manifest.model_id
    )
    unsure = _unsure(scores, prepared, label_map, manifest) if model.uncertainty else None
    brain_ml = None if checked.brain is None else checked.brain.volume_ml
    result_notes = quality.judge(
        label_map,
        manifest.quality,
        brain_ml=brain_ml,
        share_outside=share_outside,
        is_clipped=manifest.clips_to_brain,
        unsure=unsure,
    )
    return Prediction(
        label_map=label_map,
        notes=(*checked.notes, *result_notes),
        brain_ml=brain_ml,
        mask_source="" if checked.brain is None else checked.brain.source,
        coverage=checked.coverage,
        plausibility=checked.plausibility,
        uncertainty=unsure,
        probabilities=_probabilities(scores, prepared, label_map, manifest)
        if model.probabilities
        else None,
        mirrored_axes=manifest.infer.tta_axes if model.tta else (),
        network_s=network_s,
    )


def _probabilities(
    scores: Tensor, prepared: Prepared, label_map: LabelMap, manifest: Manifest
) -> Layers:
    reading = postprocess.reading_of(manifest)
    return Layers(
        values=postprocess.probabilities_on_reference(
            scores, prepared.grid, label_map.grid, reading
        ),
        most=PROBABILITY_OF_ONE,
        grid=label_map.grid,
        segments=label_map.segments,
        model_id=label_map.model_id,
    )


def _unsure(
    scores: Tensor, prepared: Prepared, label_map: LabelMap, manifest: Manifest
) -> Uncertainty:
    entropy = activation.entropy(scores, manifest.output.activation)
    on_reference = postprocess.on_reference(entropy, prepared.grid, label_map.grid)
    return quality.uncertainty(on_reference, label_map)


def _cleaned(
    labels: NDArray[np.uint8],
    reference: Grid,
    brain: Callable[[Grid], NDArray[np.bool_]] | None,
    manifest: Manifest,
) -> float:
    """Do what the manifest asks, in place, and return which share was found outside the brain.

    What is removed there says nothing where the network saw only zeros: the share then is 0, as it
    is where nobody knows the brain.
    """
    share = 0.0
    if brain is not None and manifest.clips_to_brain:
        removed = postprocess.clip(labels, brain, reference)
        share = 0.0 if manifest.space.skull == "stripped" else removed
    cleaning.clean(labels, manifest.postprocess, reference)
    if brain is not None and not manifest.clips_to_brain:
        share = postprocess.share_outside(labels, brain, reference)
    return share


def _with_margin(brain: BrainMask) -> Callable[[Grid], NDArray[np.bool_]]:
    return partial(brain.on, below_mm=-_MARGIN_MM)


def _present(
    volumes: Sequence[Volume], manifest: Manifest, reference_role: Role
) -> dict[Role, Volume]:
    """Return the volumes by role, once every one that is needed is there."""
    wanted = dict.fromkeys((*manifest.roles, reference_role))
    may_miss = set(manifest.missing_input.allowed) - {reference_role}
    by_role = {}
    for volume in volumes:
        is_constant = volume.intensities.min() == volume.intensities.max()
        if volume.role in wanted and is_constant and volume.role not in may_miss:
            raise ChannelConstantError(role=volume.role)
        if volume.role in wanted and not is_constant:
            by_role[volume.role] = volume
    missing = wanted.keys() - by_role.keys()
    if not missing <= may_miss:
        found = ", ".join(sorted(volume.role for volume in volumes)) or "none"
        raise ChannelMissingError(expected=", ".join(wanted), found=found)
    return by_role


def _checked(by_role: Mapping[Role, Volume], reference: Grid, model: LoadedModel) -> _Input:
    """Return what the images show of the brain, and whether they fit their roles."""
    notes = [_missing(role) for role in model.manifest.roles if role not in by_role]
    if model.mask is None:
        return _Input(notes=tuple(notes), brain=None, coverage={}, plausibility=Plausibility())
    volumes = list(by_role.values())
    brain = brain_mask.find(volumes, reference, model.mask)
    coverage = {volume.role: brain_mask.coverage(volume, brain) for volume in volumes}
    verdict = plausibility.judge(brain_mask.samples(volumes, brain))
    if not brain.is_usual:
        notes.append(_unusual(brain))
    notes.extend(
        _uncovered(role, share) for role, share in coverage.items() if share < USUAL_COVERAGE
    )
    if verdict.doubt:
        notes.append(Note(code="CHANNEL_DOUBTFUL", sentence=verdict.doubt))
    return _Input(notes=tuple(notes), brain=brain, coverage=coverage, plausibility=verdict)


def _missing(role: Role) -> Note:
    sentence = f"there is no image of {role}; the model was run without it and is less exact"
    return Note(code="INPUT_MISSING", sentence=sentence)


def _unusual(brain: BrainMask) -> Note:
    least_ml, most_ml = brain_mask.USUAL_ML
    found = f"{brain.volume_ml:.0f} mL look like brain"
    sentence = f"{found}, an adult's has {least_ml:.0f} to {most_ml:.0f} mL; check the input"
    return Note(code="BRAIN_VOLUME_UNUSUAL", sentence=sentence)


def _uncovered(role: Role, share: float) -> Note:
    """Return the note for a series that cuts some of the brain off, or refuse it."""
    if share < LEAST_COVERAGE:
        raise ChannelFieldOfViewError(
            role=role, share_percent=100 * share, least_percent=100 * LEAST_COVERAGE
        )
    sentence = f"{role} shows {100 * share:.0f} % of the brain; nothing is found where it ends"
    return Note(code=ChannelFieldOfViewError.code, sentence=sentence)
