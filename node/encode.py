"""Stage 4: the label map of a case becomes a DICOM SEG file, read back before it gets its name."""

from __future__ import annotations

import hashlib
from functools import partial
from importlib import metadata
from pathlib import Path

from pydicom.dataset import Dataset

from converters import series
from converters.seg import SegIdentity, build_segmentation, check_segmentation
from converters.series import Stack
from converters.volume import LabelMap
from inference.manifest import Manifest
from node.cases import AssembledCase, EncodedSeg
from node.spool import Spool
from node.uids import derived_uid

_FILE_NAME = "seg.dcm"
_SERIES_NUMBER = 9001  # far behind what scanners number, so that viewers list it last
_LONG_STRING = 64
_SHORT_TEXT = 1024


def encode_case(
    case: AssembledCase, label_map: LabelMap, manifest: Manifest, spool: Spool
) -> EncodedSeg:
    """Return the SEG of a case, written to its folder, synced and checked.

    The same case gives the same bytes again: nothing is drawn and no clock is read.

    Raises
    ------
    InputRejectedError
        The headers of the reference series cannot be read as a stack.
    GridMismatchError
        The label map does not lie on the grid of the reference series.
    ReadBackError
        What was written differs from the label map; nothing stands under the final name then.
    """
    (reference,) = (one for one in case.series if one.role == case.reference_role)
    sources = series.stack(
        [spool.instance_path(one.path) for one in reference.instances],
        reference.part,
        limits=None,  # it was found good before it was segmented
    )
    identity = _identity(case, label_map, manifest)
    seg = build_segmentation(label_map, sources.headers, identity, sources.frames)
    final = spool.case_folder(case.case_id) / _FILE_NAME
    spool.publish(final, partial(_write_checked, seg, label_map, sources))
    content = final.read_bytes()
    return EncodedSeg(
        case_id=case.case_id,
        path=str(final.relative_to(spool.root)),
        sop_class_uid=str(seg.SOPClassUID),
        sop_instance_uid=str(seg.SOPInstanceUID),
        series_instance_uid=str(seg.SeriesInstanceUID),
        study_instance_uid=str(seg.StudyInstanceUID),
        transfer_syntax_uid=str(seg.file_meta.TransferSyntaxUID),
        byte_count=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def series_description(label_map: LabelMap, manifest: Manifest) -> str:
    """Return what a viewer lists the result as: an AI's, whether a demonstration, for research."""
    what = "AI tumour seg. DEMO MODEL" if manifest.is_demonstration else "AI tumour segmentation"
    found = "" if label_map.labels.any() else ": nothing found"
    return f"{what}{found} - research use only"


def _write_checked(seg: Dataset, label_map: LabelMap, sources: Stack, part: Path) -> None:
    seg.save_as(part, enforce_file_format=True)
    check_segmentation(part, label_map, sources.headers, sources.frames)


def _identity(case: AssembledCase, label_map: LabelMap, manifest: Manifest) -> SegIdentity:
    uid = partial(derived_uid, case.case_id, manifest.weights_sha256)
    received = max(one.received_at for many in case.series for one in many.instances)
    is_empty = not label_map.labels.any()
    return SegIdentity(
        sop_instance_uid=uid("seg"),
        series_instance_uid=uid("seg-series"),
        dimension_organization_uid=uid("seg-dimensions"),
        tracking_uids={one.number: uid(f"seg-tracking-{one.number}") for one in manifest.segments},
        series_number=_SERIES_NUMBER,
        series_description=series_description(label_map, manifest),
        content_description=_line(
            "No voxel was labelled; every frame is empty" if is_empty else manifest.title
        ),
        algorithm_name=_line(manifest.id),
        algorithm_version=_line(manifest.version),
        device_serial_number=manifest.weights_sha256[:16],
        software_versions=(metadata.version("neuroseg-node"), _line(manifest.model_id)),
        created_at=received.astimezone(),
        segment_descriptions={one.number: one.description[:_SHORT_TEXT] for one in manifest.labels},
    )


def _line(text: str) -> str:
    """Return a text as Long String takes it (PS3.5 6.2)."""
    return text.replace("\\", "/")[:_LONG_STRING]
