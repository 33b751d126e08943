"""Between assemble and segment: the instances of a closed case become volumes in its folder.

Writes one NIfTI file per role with the series' own voxels, which is what the engine reads; a volume
that lies elsewhere than its headers say has the same voxels on a moved grid, so that everything is
resampled once. The multi-channel file on the reference grid is for people and other tools, as is
``alignment.json``, which holds every motion and why it was applied or not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from converters import align, gate, nifti, register, series
from converters.errors import InputRejectedError, RoleMissingError
from converters.gate import Limits
from converters.register import Motion
from converters.volume import PROBABILITY_OF_ONE, Grid, LabelMap, Layers, Role, Segment, Volume
from node.cases import AssembledCase, AssembledSeries
from node.settings import Align
from node.spool import Spool

_GEOMETRY = "geometry.json"
_ALIGNMENT = "alignment.json"
_ALIGNMENT_SCHEMA = "neuroseg-alignment/1"
_MATRIX = "lps_to_reference_lps_mm"
_MOTION_FIELDS = tuple(one.name for one in fields(Motion))
CHANNELS = "channels.nii.gz"
LABELS = "labels.nii.gz"
_ENTROPY = "entropy.nii.gz"
_PROBABILITIES = "probabilities.nii.gz"


def convert_case(
    case: AssembledCase,
    roles: tuple[Role, ...],
    spool: Spool,
    *,
    align_by: Align | None = None,
    may_lack: Collection[Role] = (),
    limits: Limits = gate.DEFAULT,
) -> tuple[Motion, ...]:
    """Write the volumes of a case and return how each was moved onto the reference volume.

    Parameters
    ----------
    case : AssembledCase
        One series per role, at least the reference role's.
    roles : tuple of str
        Order of the channels.
    spool : Spool
        Where instances and results lie.
    align_by : Align, optional
        Whether volumes are registered, and how far one may be moved; the defaults of the settings.
    may_lack : collection of str
        Roles that the model can do without: where no series serves, their channel is zeros.
    limits : Limits, optional
        What the image of a head may measure.

    Raises
    ------
    InputRejectedError
        A series is no volume; without registration, the series do not share one frame of
        reference; with it, a volume does not fit on the reference or lies too far off.
    RoleMissingError
        A role that the model needs has no series.
    """
    folder, rules = spool.case_folder(case.case_id), align_by or Align()
    _check_roles(case, roles, may_lack)
    loaded = {one.role: _volume(one, spool, limits) for one in case.series}
    motions = _motions(loaded, case.reference_role, rules)
    reference = loaded[case.reference_role].grid
    volumes = {
        role: register.moved(volume, motions[role], reference) if role in motions else volume
        for role, volume in loaded.items()
    }
    for role, volume in volumes.items():
        spool.publish(folder / f"{role}.nii", partial(nifti.write_volume, volume))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:  # sampling needs no GIL
        channels = list(threads.map(lambda role: _channel(volumes, role, reference), roles))
    spool.publish(folder / CHANNELS, partial(nifti.write_channels, channels))
    found = tuple(motions.values())
    _publish_json(_alignment(found, case.reference_role), folder / _ALIGNMENT, spool)
    frame = {"frame_of_reference_uid": reference.frame_of_reference_uid}
    _publish_json(frame, folder / _GEOMETRY, spool)
    return found


def _check_roles(case: AssembledCase, roles: tuple[Role, ...], may_lack: Collection[Role]) -> None:
    present = {one.role for one in case.series}
    missing = sorted(set(roles) - present - set(may_lack))
    if missing:
        raise RoleMissingError(roles=", ".join(missing), found=", ".join(sorted(present)))


def _volume(one: AssembledSeries, spool: Spool, limits: Limits) -> Volume:
    try:
        paths = [spool.instance_path(instance.path) for instance in one.instances]
        return series.load(series.stack(paths, one.part, limits), one.role, limits)
    except InputRejectedError as error:
        raise error.placed(role=one.role) from error


def _motions(volumes: Mapping[Role, Volume], to: Role, rules: Align) -> dict[Role, Motion]:
    """Return the motion of every volume but the reference; none where registration is off."""
    if rules.registration == "off":
        align.check_one_frame(list(volumes.values()))
        return {}
    reference = volumes[to]
    align.check_one_frame([reference])
    copies = register.copies_of(reference)
    return {
        role: register.register(
            volume,
            reference,
            copies=copies,
            largest_shift_mm=rules.largest_shift_mm,
            largest_rotation_deg=rules.largest_rotation_deg,
        )
        for role, volume in volumes.items()
        if role != to
    }


def _channel(volumes: Mapping[Role, Volume], role: Role, grid: Grid) -> Volume:
    if role in volumes:
        return align.on_grid(volumes[role], grid)
    return Volume(intensities=np.zeros(grid.shape, dtype=np.float32), grid=grid, role=role)


def _alignment(motions: tuple[Motion, ...], reference_role: Role) -> dict[str, Any]:
    return {
        "schema": _ALIGNMENT_SCHEMA,
        "method": f"neuroseg-rigid-mutual-information/{register.VERSION}",
        "reference_role": reference_role,
        "motions": [
            {
                name: value.tolist() if isinstance(value, np.ndarray) else value
                for name in _MOTION_FIELDS
                for value in (getattr(motion, name),)
            }
            for motion in motions
        ],
    }


def read_alignment(case: AssembledCase, spool: Spool) -> tuple[Motion, ...]:
    """Return how the volumes of a converted case were moved; empty without registration."""
    path = spool.case_folder(case.case_id) / _ALIGNMENT
    if not path.is_file():
        return ()
    content = json.loads(path.read_text(encoding="utf-8"))
    return tuple(
        Motion(**{**one, _MATRIX: np.array(one[_MATRIX], dtype=np.float64)})
        for one in content["motions"]
    )


def _publish_json(content: dict[str, Any], final: Path, spool: Spool) -> None:
    text = json.dumps(content, indent=1)
    spool.publish(final, lambda part: part.write_text(text, encoding="utf-8"))


def read_volumes(case: AssembledCase, spool: Spool) -> Mapping[Role, Volume]:
    """Return the volumes of a converted case, each on its own grid."""
    return {one.role: read_volume(case, one.role, spool) for one in case.series}


def read_volume(case: AssembledCase, role: Role, spool: Spool) -> Volume:
    """Return one volume of a converted case on its own grid."""
    folder = spool.case_folder(case.case_id)
    return nifti.read_volume(
        folder / f"{role}.nii", role=role, frame_of_reference_uid=_frame_of_reference_uid(folder)
    )


def write_labels(label_map: LabelMap, case: AssembledCase, spool: Spool) -> None:
    """Keep the label map of a case."""
    final = spool.case_folder(case.case_id) / LABELS
    spool.publish(final, partial(nifti.write_label_map, label_map))


def write_entropy(entropy: Volume, case: AssembledCase, spool: Spool) -> None:
    """Keep how unsure the model was of each voxel, on the grid of the label map."""
    final = spool.case_folder(case.case_id) / _ENTROPY
    spool.publish(final, partial(nifti.write_volume, entropy))


def write_probabilities(layers: Layers, case: AssembledCase, spool: Spool) -> None:
    """Keep the probability of each label, in 255ths, on the grid of the label map."""
    final = spool.case_folder(case.case_id) / _PROBABILITIES
    spool.publish(final, partial(nifti.write_layers, layers))


def drop_extras(case: AssembledCase, spool: Spool) -> None:
    """Delete what an earlier run may have kept beside its labels; they are another run's now."""
    for name in (_ENTROPY, _PROBABILITIES):
        (spool.case_folder(case.case_id) / name).unlink(missing_ok=True)


def has_entropy(case: AssembledCase, spool: Spool) -> bool:
    """Say whether `write_entropy` kept something."""
    return (spool.case_folder(case.case_id) / _ENTROPY).is_file()


def has_probabilities(case: AssembledCase, spool: Spool) -> bool:
    """Say whether `write_probabilities` kept something."""
    return (spool.case_folder(case.case_id) / _PROBABILITIES).is_file()


def read_probabilities(
    case: AssembledCase, segments: tuple[Segment, ...], model_id: str, spool: Spool
) -> Layers:
    """Return what `write_probabilities` kept."""
    folder = spool.case_folder(case.case_id)
    return nifti.read_layers(
        folder / _PROBABILITIES,
        most=PROBABILITY_OF_ONE,
        segments=segments,
        model_id=model_id,
        frame_of_reference_uid=_frame_of_reference_uid(folder),
    )


def read_entropy(case: AssembledCase, spool: Spool) -> Volume:
    """Return what `write_entropy` kept."""
    folder = spool.case_folder(case.case_id)
    return nifti.read_volume(
        folder / _ENTROPY,
        role="entropy",
        frame_of_reference_uid=_frame_of_reference_uid(folder),
    )


def read_labels(
    case: AssembledCase, segments: tuple[Segment, ...], model_id: str, spool: Spool
) -> LabelMap:
    """Return the label map that `write_labels` kept."""
    folder = spool.case_folder(case.case_id)
    return nifti.read_label_map(
        folder / LABELS,
        segments=segments,
        model_id=model_id,
        frame_of_reference_uid=_frame_of_reference_uid(folder),
    )


def _frame_of_reference_uid(folder: Path) -> str:
    content = json.loads((folder / _GEOMETRY).read_text(encoding="utf-8"))
    return str(content["frame_of_reference_uid"])
