"""Between assemble and segment: the instances of a closed case become volumes in its folder.

Writes one NIfTI file per role on the series' own grid, which is what the engine reads, and the
multi-channel file on the reference grid, which is what people and other tools read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from converters import align, nifti, series
from converters.errors import InputRejectedError
from converters.volume import LabelMap, Role, Segment, Volume
from node.cases import AssembledCase
from node.spool import Spool

_GEOMETRY = "geometry.json"
_CHANNELS = "channels.nii.gz"
_LABELS = "labels.nii.gz"


def convert_case(case: AssembledCase, roles: tuple[Role, ...], spool: Spool) -> None:
    """Write the volumes of a case; `roles` gives the order of the channels.

    Raises
    ------
    InputRejectedError
        A series is no volume, or the series do not share one frame of reference.
    """
    folder = spool.case_folder(case.case_id)
    volumes = {
        one.role: _volume(one.role, [i.path for i in one.instances], spool) for one in case.series
    }
    align.check_one_frame(list(volumes.values()))
    for role, volume in volumes.items():
        spool.publish(folder / f"{role}.nii", partial(nifti.write_volume, volume))
    reference = volumes[case.reference_role].grid
    channels = [align.on_grid(volumes[role], reference) for role in roles]
    spool.publish(folder / _CHANNELS, partial(nifti.write_channels, channels))
    text = json.dumps({"frame_of_reference_uid": reference.frame_of_reference_uid})
    spool.publish(folder / _GEOMETRY, lambda part: part.write_text(text, encoding="utf-8"))


def _volume(role: Role, relative_paths: list[str], spool: Spool) -> Volume:
    try:
        stack = series.stack([spool.instance_path(path) for path in relative_paths])
        return series.load(stack, role)
    except InputRejectedError as error:
        raise error.placed(role=role) from error


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
    final = spool.case_folder(case.case_id) / _LABELS
    spool.publish(final, partial(nifti.write_label_map, label_map))


def read_labels(
    case: AssembledCase, segments: tuple[Segment, ...], model_id: str, spool: Spool
) -> LabelMap:
    """Return the label map that `write_labels` kept."""
    folder = spool.case_folder(case.case_id)
    return nifti.read_label_map(
        folder / _LABELS,
        segments=segments,
        model_id=model_id,
        frame_of_reference_uid=_frame_of_reference_uid(folder),
    )


def _frame_of_reference_uid(folder: Path) -> str:
    content = json.loads((folder / _GEOMETRY).read_text(encoding="utf-8"))
    return str(content["frame_of_reference_uid"])
