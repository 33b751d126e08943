"""Who the derived objects of a case are: UIDs, series and words, the same whenever it is encoded.

Nothing is drawn and no clock is read: UIDs are derived from case, weights and kind, times are
those of the last instance that was received.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from typing import Final

from converters.seg import SegIdentity
from converters.volume import LabelMap, Role
from inference.manifest import Manifest
from node.cases import AssembledCase, ObjectKind
from node.uids import derived_uid

_LONG_STRING: Final = 64
_SHORT_TEXT: Final = 1024
_USE: Final = " - research use only"
_SEG: Final = ("AI tumour segmentation", "AI tumour seg.", "AI seg.")
_PER_REVISION: Final = 100  # so that no two series of a study have one number
_NOTHING: Final = "No voxel was labelled; every frame is empty"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Series:
    """What tells the series of one kind from the others of the study.

    `uid` is what its UIDs are derived from; numbers lie far behind what scanners number, so that
    viewers list them last. Of the `titles` the first is taken that fits, completed by what was
    found and by which model unless it `is_bare`; without any it is named as a SEG.
    """

    uid: str
    number: int
    titles: tuple[str, ...] = ()
    is_bare: bool = False
    content: str = ""
    label: str = "TUMOUR_SEG"


_SERIES: Final = {
    ObjectKind.SEG: _Series(uid="seg", number=9001),
    ObjectKind.ENTROPY: _Series(
        uid="entropy",
        number=9002,
        titles=("AI uncertainty (entropy)",),
        is_bare=True,
        content="Predictive entropy of the model, 0 (sure) to 1",
        label="ENTROPY",
    ),
    ObjectKind.REPORT: _Series(uid="report", number=9003, titles=("AI measurements", "AI meas.")),
    ObjectKind.PICTURE: _Series(
        uid="pictures", number=9004, titles=("AI summary pictures",), is_bare=True
    ),
    ObjectKind.REGIONS: _Series(
        uid="regions", number=9005, titles=("AI tumour regions", "AI regions")
    ),
    ObjectKind.LABELMAP: _Series(uid="labelmap", number=9006, titles=("AI label map", "AI map")),
    ObjectKind.PROBABILITIES: _Series(
        uid="probabilities",
        number=9007,
        titles=("AI tumour probabilities",),
        is_bare=True,
        content="Probabilities of the model before its labels were cleaned",
        label="PROBABILITIES",
    ),
    ObjectKind.STRUCTURES: _Series(uid="rtstruct", number=9008, titles=("AI contours", "AI cont.")),
    ObjectKind.ALSO: _Series(uid="also", number=9010),  # one series for each role, from here on
}


def identity_of(
    kind: ObjectKind, case: AssembledCase, label_map: LabelMap, manifest: Manifest
) -> SegIdentity:
    """Return who the object of a kind is; the first one, where a series holds several."""
    series, uid = _SERIES[kind], partial(derived_uid, case.case_id, manifest.weights_sha256)
    received = max(one.received_at for many in case.series for one in many.instances)
    title = manifest.title if label_map.labels.any() else _NOTHING
    return SegIdentity(
        sop_instance_uid=uid(series.uid),
        series_instance_uid=uid(f"{series.uid}-series"),
        dimension_organization_uid=uid(f"{series.uid}-dimensions"),
        tracking_uids={one.number: uid(f"seg-tracking-{one.number}") for one in manifest.segments},
        series_number=series.number + _PER_REVISION * (case.revision - 1),
        series_description=_described(
            series.titles, label_map, manifest, case.revision, is_bare=series.is_bare
        )
        if series.titles
        else series_description(label_map, manifest, case.revision),
        content_description=series.content or _line(title),
        content_label=series.label,
        algorithm_name=_line(manifest.id),
        algorithm_version=_line(manifest.version),
        device_serial_number=manifest.weights_sha256[:16],
        software_versions=(metadata.version("neuroseg-node"), _line(manifest.model_id)),
        created_at=received.astimezone(),
        segment_descriptions={one.number: one.description[:_SHORT_TEXT] for one in manifest.labels},
    )


def identity_on(
    role: Role, case: AssembledCase, label_map: LabelMap, manifest: Manifest
) -> SegIdentity:
    """Return who the SEG of a label map on another series is, which serves a role."""
    common = identity_of(ObjectKind.ALSO, case, label_map, manifest)
    uid = partial(derived_uid, case.case_id, manifest.weights_sha256)
    return replace(
        common,
        sop_instance_uid=uid(f"also-{role}"),
        series_instance_uid=uid(f"also-{role}-series"),
        dimension_organization_uid=uid(f"also-{role}-dimensions"),
        series_number=common.series_number + manifest.roles.index(role),
        series_description=_description_on(role, label_map, manifest, case.revision),
    )


def _description_on(role: Role, label_map: LabelMap, manifest: Manifest, revision: int = 1) -> str:
    """Return what the SEG on another series is listed as; of a long role the start has to do."""
    names = [f"{name} on {role.upper()}" for name in _SEG[1:]]
    names += [names[-1][:length] for length in range(len(names[-1]) - 1, 0, -1)]
    return _described(names, label_map, manifest, revision)


def series_description(label_map: LabelMap, manifest: Manifest, revision: int = 1) -> str:
    """Return what a viewer lists a SEG as: an AI's, which revision, whose, for research."""
    names = _SEG[1:] if revision > 1 or manifest.is_demonstration else _SEG
    return _described(names, label_map, manifest, revision)


def _described(
    names: Sequence[str],
    label_map: LabelMap,
    manifest: Manifest,
    revision: int,
    *,
    is_bare: bool = False,
) -> str:
    """Return a series description with the first name that fits; viewers may show its start only.

    An archive keeps the results of earlier revisions beside this one.
    """
    which = f" rev. {revision}" if revision > 1 else ""
    of_whom = " DEMO MODEL" if manifest.is_demonstration and not is_bare else ""
    found = "" if is_bare or label_map.labels.any() else ": nothing found"
    texts = (f"{name}{which}{of_whom}{found}{_USE}" for name in names)
    return next(text for text in texts if len(text) <= _LONG_STRING)


def _line(text: str) -> str:
    """Return a text as Long String takes it (PS3.5 6.2)."""
    return text.replace("\\", "/")[:_LONG_STRING]
