"""Stage 4: what was found in a case becomes DICOM files, read back before they get their names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from converters import series
from converters.measure import Measurements
from converters.parametric_map import build_parametric_map, check_parametric_map
from converters.secondary_capture import Picture, ShownSeries, build_capture, check_capture
from converters.seg import SegIdentity, build_segmentation, check_segmentation
from converters.series import Stack
from converters.sr import InstanceReference, ReportContext, build_report, check_report
from converters.summary_pictures import Page
from converters.volume import LabelMap, Volume
from inference.manifest import Manifest
from node import measuring
from node.cases import AssembledCase, AssembledSeries, EncodedObject, ObjectKind, ReceivedInstance
from node.spool import Spool
from node.uids import derived_uid, device_uid

_FILE_NAME = "seg.dcm"
_ENTROPY_NAME = "entropy.dcm"
_REPORT_NAME = "sr.dcm"
_SERIES_NUMBER = 9001  # far behind what scanners number, so that viewers list it last
_SEG = ("AI tumour segmentation", "AI tumour seg.", "AI seg.")
_REPORT = ("AI measurements", "AI meas.")
_USE = " - research use only"
_LONG_STRING = 64
_SHORT_TEXT = 1024


def encode_case(
    case: AssembledCase, label_map: LabelMap, manifest: Manifest, spool: Spool
) -> EncodedObject:
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
    sources = _sources(case, spool)
    identity = _identity(case, label_map, manifest)
    seg = build_segmentation(label_map, sources.headers, identity, sources.frames)
    final = spool.case_folder(case.case_id) / _FILE_NAME
    spool.publish(final, partial(_write_checked, seg, label_map, sources))
    return _encoded(ObjectKind.SEG, seg, case, final, spool)


def encode_entropy(
    case: AssembledCase, entropy: Volume, label_map: LabelMap, manifest: Manifest, spool: Spool
) -> EncodedObject:
    """Return the Parametric Map of a case's entropy, as `encode_case` returns its SEG.

    Parameters
    ----------
    case, label_map, manifest, spool
        As for the SEG.
    entropy : Volume
        0 (sure) to 1, on the grid of the reference series.
    """
    sources = _sources(case, spool)
    uid = partial(derived_uid, case.case_id, manifest.weights_sha256)
    identity = replace(
        _identity(case, label_map, manifest),
        sop_instance_uid=uid("entropy"),
        series_instance_uid=uid("entropy-series"),
        dimension_organization_uid=uid("entropy-dimensions"),
        series_number=_SERIES_NUMBER + 1,
        series_description=f"AI uncertainty (entropy){_which(case.revision)}{_USE}",
        content_description="Predictive entropy of the model, 0 (sure) to 1",
        content_label="ENTROPY",
    )
    field = entropy.intensities
    found = build_parametric_map(field, entropy.grid, sources.headers, identity, sources.frames)

    def _write(part: Path) -> None:
        found.save_as(part, enforce_file_format=True)
        check_parametric_map(part, field, entropy.grid, sources.headers, sources.frames)

    final = spool.case_folder(case.case_id) / _ENTROPY_NAME
    spool.publish(final, _write)
    return _encoded(ObjectKind.ENTROPY, found, case, final, spool)


def encode_report(
    case: AssembledCase,
    found: Measurements,
    seg: EncodedObject,
    label_map: LabelMap,
    manifest: Manifest,
    spool: Spool,
) -> EncodedObject:
    """Return the measurement report of a case, as `encode_case` returns its SEG.

    Parameters
    ----------
    case, label_map, manifest, spool
        As for the SEG.
    found : Measurements
        Of the label map.
    seg : EncodedObject
        What the report refers to.
    """
    sources = _sources(case, spool)
    uid = partial(derived_uid, case.case_id, manifest.weights_sha256)
    identity = replace(
        _identity(case, label_map, manifest),
        sop_instance_uid=uid("report"),
        series_instance_uid=uid("report-series"),
        series_number=_SERIES_NUMBER + 2,
        series_description=_described(_REPORT, label_map, manifest, case.revision),
    )
    context = ReportContext(
        model_id=manifest.model_id,
        device_uid=device_uid(manifest.model_id, manifest.weights_sha256),
        tracking_uid=partial(measuring.tracking_uid, case, manifest),
        segmentation=_reference(seg),
        inputs=list(
            dict.fromkeys(_reference(one) for many in case.series for one in many.instances)
        ),
        notes=measuring.notes_of(case, spool),
    )
    report = build_report(found, sources.headers, identity, context, sources.frames)

    def _write(part: Path) -> None:
        report.save_as(part, enforce_file_format=True)
        references = [context.segmentation, *context.inputs]
        check_report(part, found, sources.headers[0], manifest.model_id, references)

    final = spool.case_folder(case.case_id) / _REPORT_NAME
    spool.publish(final, _write)
    return _encoded(ObjectKind.REPORT, report, case, final, spool)


def _reference(one: EncodedObject | ReceivedInstance) -> InstanceReference:
    return InstanceReference(
        sop_class_uid=one.sop_class_uid,
        sop_instance_uid=one.sop_instance_uid,
        series_instance_uid=one.series_instance_uid,
    )


def encode_pictures(
    case: AssembledCase,
    pages: Sequence[Page],
    label_map: LabelMap,
    manifest: Manifest,
    spool: Spool,
) -> list[EncodedObject]:
    """Return the pages of a case's summary as Secondary Capture images of one series.

    Parameters
    ----------
    case, label_map, manifest, spool
        As for the SEG, which has been written.
    pages : sequence of Page
        In the order of the series; their names name the files.
    """
    folder = spool.case_folder(case.case_id)
    seg = pydicom.dcmread(folder / _FILE_NAME, stop_before_pixels=True)
    source = _header(case, spool)
    uid = partial(derived_uid, case.case_id, manifest.weights_sha256)
    common = replace(
        _identity(case, label_map, manifest),
        series_instance_uid=uid("pictures-series"),
        series_number=_SERIES_NUMBER + 3,
        series_description=f"AI summary pictures{_which(case.revision)}{_USE}",
    )
    shown = [_shown(one) for one in case.series]
    written = []
    for number, page in enumerate(pages, start=1):
        picture = Picture(pixels=page.pixels, title=page.title, number=number)
        identity = replace(common, sop_instance_uid=uid(f"picture-{page.name}"))
        capture = build_capture(picture, seg, source, identity, shown)
        final = folder / f"summary-{page.name}.dcm"
        spool.publish(final, partial(_write_capture, capture, picture, source))
        written.append(_encoded(ObjectKind.PICTURE, capture, case, final, spool))
    return written


def _shown(one: AssembledSeries) -> ShownSeries:
    return ShownSeries(
        series_instance_uid=one.series_instance_uid,
        instances=tuple((each.sop_class_uid, each.sop_instance_uid) for each in one.instances),
    )


def _write_capture(capture: Dataset, picture: Picture, source: Dataset, part: Path) -> None:
    capture.save_as(part, enforce_file_format=True)
    check_capture(part, picture, source)


def _reference_series(case: AssembledCase) -> AssembledSeries:
    (reference,) = (one for one in case.series if one.role == case.reference_role)
    return reference


def _header(case: AssembledCase, spool: Spool) -> Dataset:
    """Return one header of the reference series, for its patient and study; always the same."""
    one = min(_reference_series(case).instances, key=lambda instance: instance.sop_instance_uid)
    return pydicom.dcmread(spool.instance_path(one.path), stop_before_pixels=True)


def _sources(case: AssembledCase, spool: Spool) -> Stack:
    """Return the reference series, whose grid and headers derived objects share."""
    reference = _reference_series(case)
    return series.stack(
        [spool.instance_path(one.path) for one in reference.instances],
        reference.part,
        limits=None,  # it was found good before it was segmented
    )


def _encoded(
    kind: ObjectKind, derived: Dataset, case: AssembledCase, final: Path, spool: Spool
) -> EncodedObject:
    content = final.read_bytes()
    return EncodedObject(
        case_id=case.case_id,
        kind=kind,
        path=str(final.relative_to(spool.root)),
        sop_class_uid=str(derived.SOPClassUID),
        sop_instance_uid=str(derived.SOPInstanceUID),
        series_instance_uid=str(derived.SeriesInstanceUID),
        study_instance_uid=str(derived.StudyInstanceUID),
        transfer_syntax_uid=str(derived.file_meta.TransferSyntaxUID),
        byte_count=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def series_description(label_map: LabelMap, manifest: Manifest, revision: int = 1) -> str:
    """Return what a viewer lists the result as: an AI's, which revision, whose, for research."""
    is_long = revision == 1 and not manifest.is_demonstration
    return _described(_SEG if is_long else _SEG[1:], label_map, manifest, revision)


def _described(names: Sequence[str], label_map: LabelMap, manifest: Manifest, revision: int) -> str:
    """Return a series description with the first name that fits; viewers may show its start only.

    An archive keeps the results of earlier revisions beside this one.
    """
    of_whom = " DEMO MODEL" if manifest.is_demonstration else ""
    found = "" if label_map.labels.any() else ": nothing found"
    texts = (f"{name}{_which(revision)}{of_whom}{found}{_USE}" for name in names)
    return next(text for text in texts if len(text) <= _LONG_STRING)


def _which(revision: int) -> str:
    return f" rev. {revision}" if revision > 1 else ""


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
        series_description=series_description(label_map, manifest, case.revision),
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
