"""The gate behind the report: reads its file and proves it against the measurements.

It shares the names of the groups with the encoder, and neither its code nor its library.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian

from converters.diameters import Diameters
from converters.errors import ReadBackError
from converters.headers import items_of
from converters.measure import Lesion, Measurements, Region
from converters.read_back import check_origin, read
from converters.volume import Segment

ML_DECIMALS: Final = 3  # a cubic millimetre
MM_DECIMALS: Final = 2
_REFERENCED: Final = Tag("ReferencedSOPSequence")
_COORDINATE_TOLERANCE_MM: Final = 1e-3  # of single precision

_TRACKING_IDENTIFIER: Final = "112039"
_TRACKING_UID: Final = "112040"
_VOLUME: Final = "118565006"
_LESIONS: Final = "246206008"
_LONG_AXIS: Final = "103339001"
_SHORT_AXIS: Final = "103340004"
_PRODUCT: Final = "PERP_PRODUCT"

Figures = Mapping[str, float]
"""Code value of a measurement -> its number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceReference:
    """Which instance of the study is meant."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


def segment_name(segment: Segment) -> str:
    """Return the name that a segment is tracked by, as in the SEG."""
    return str(segment.number)


def region_name(region: Region) -> str:
    """Return the name that a region is tracked by."""
    return region.label


def lesion_name(lesion: Lesion) -> str:
    """Return the name that a lesion is tracked by."""
    return f"lesion {lesion.number}"


def enhancing_name(lesion: Lesion) -> str:
    """Return the name that a lesion's enhancing tumour is tracked by."""
    return f"lesion {lesion.number} enhancing"


def check_report(
    path: Path,
    found: Measurements,
    source: Dataset,
    model_id: str,
    segmentation: InstanceReference | None,
    inputs: Sequence[InstanceReference],
) -> None:
    """Raise `ReadBackError` unless the file says exactly what was measured.

    Parameters
    ----------
    path : Path
        A written report.
    found : Measurements
        What it was made from.
    source : Dataset
        Header of any source instance: patient and study.
    model_id : str
        What tracking identifiers begin with.
    segmentation : InstanceReference or None
        The SEG; without one the report speaks of the whole alone.
    inputs : sequence of InstanceReference
        Every instance of the input series: like the SEG they must stand as evidence, once each.

    Raises
    ------
    ReadBackError
        `reason` names the first thing that differs, never a value.
    """
    report = read(path)
    _require(report.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian, "TransferSyntaxUID")
    _require(report.file_meta.MediaStorageSOPInstanceUID == report.SOPInstanceUID, "SOPInstanceUID")
    _require(report.SOPClassUID == Comprehensive3DSRStorage, "SOPClassUID")
    check_origin(report, source)
    references = [*([] if segmentation is None else [segmentation]), *inputs]
    _check_evidence(report, references)
    groups = list(_groups(report))
    evidence = {one.sop_instance_uid for one in references}
    _require(evidence >= set(_shown(groups)), "an image that a group refers to")
    uids = [_text(group, _TRACKING_UID) for group in groups]
    _require(len(set(uids)) == len(groups), "tracking UIDs")
    named = {_text(group, _TRACKING_IDENTIFIER): group for group in groups}
    expected = _expected(found, model_id)
    if segmentation is None:
        expected = dict(list(expected.items())[:1])
    _require(list(named) == list(expected), "measurement groups")
    for name, figures in expected.items():
        _require(_figures(named[name]) == figures, f"measurements of {name}")
    for lesion in found.lesions:
        if lesion.enhancing is not None:
            _check_ends(named[f"{model_id}/{enhancing_name(lesion)}"], lesion.enhancing)


def _require(holds: object, what: str) -> None:
    if not holds:
        raise ReadBackError(reason=f"{what} is not what was measured")


def _expected(found: Measurements, model_id: str) -> dict[str, Figures]:
    """Return the figures of every group by tracking identifier, in order."""
    whole = {_VOLUME: round(found.whole_ml, ML_DECIMALS), _LESIONS: float(found.lesion_count)}
    expected: dict[str, Figures] = {region_name(found.whole): whole}
    for segment, volume_ml in zip(found.segments, found.segments_ml, strict=True):
        expected[segment_name(segment)] = {_VOLUME: round(volume_ml, ML_DECIMALS)}
    for region, volume_ml in zip(found.regions, found.regions_ml, strict=True):
        expected[region_name(region)] = {_VOLUME: round(volume_ml, ML_DECIMALS)}
    for lesion in found.lesions:
        expected[lesion_name(lesion)] = {_VOLUME: round(lesion.volume_ml, ML_DECIMALS)}
    for lesion in found.lesions:
        if (widest := lesion.enhancing) is not None:
            expected[enhancing_name(lesion)] = {
                _VOLUME: round(found.enhancing_ml(lesion), ML_DECIMALS),
                _LONG_AXIS: round(widest.long_mm, MM_DECIMALS),
                _SHORT_AXIS: round(widest.short_mm, MM_DECIMALS),
                _PRODUCT: round(widest.product_mm2, MM_DECIMALS),
            }
    return {f"{model_id}/{name}": figures for name, figures in expected.items()}


def _check_evidence(report: Dataset, references: Sequence[InstanceReference]) -> None:
    listed = [
        (_uid(one, "ReferencedSOPClassUID"), _uid(one, "ReferencedSOPInstanceUID"), series_uid)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for series_uid in [str(series.SeriesInstanceUID)]
        for one in items_of(series, _REFERENCED, instance=0)  # hundreds
    ]
    _require(len(listed) == len(set(listed)), "evidence")
    expected = {
        (one.sop_class_uid, one.sop_instance_uid, one.series_instance_uid) for one in references
    }
    _require(set(listed) == expected, "evidence")


def _uid(item: Dataset, keyword: str) -> str:
    """Return a UID of one of very many items, without what pydicom makes of it."""
    element = item.get_item(keyword)
    _require(isinstance(element, RawDataElement), keyword)
    return bytes(element.value or b"").rstrip(b"\0").decode("ascii", "replace")


def _groups(report: Dataset) -> Iterator[Dataset]:
    for item in report.ContentSequence:
        if item.ConceptNameCodeSequence[0].CodeValue == "126010":  # Imaging Measurements
            yield from item.ContentSequence


def _items(group: Dataset, value_type: str) -> Iterator[tuple[str, Dataset]]:
    """Yield the items of a group of one value type, each with its concept's code value."""
    for item in group.ContentSequence:
        if item.ValueType == value_type:
            yield str(item.ConceptNameCodeSequence[0].CodeValue), item


def _shown(groups: Sequence[Dataset]) -> Iterator[str]:
    """Yield the instances that the groups refer to (type 1C: each has to stand as evidence)."""
    for group in groups:
        for _, item in _items(group, "IMAGE"):
            yield str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)


def _text(group: Dataset, code_value: str) -> str:
    texts = {code: str(item.TextValue) for code, item in _items(group, "TEXT")}
    uids = {code: str(item.UID) for code, item in _items(group, "UIDREF")}
    return {**texts, **uids}[code_value]


def _figures(group: Dataset) -> Figures:
    return {
        code: float(item.MeasuredValueSequence[0].NumericValue)
        for code, item in _items(group, "NUM")
    }


def _check_ends(group: Dataset, widest: Diameters) -> None:
    numbers = dict(_items(group, "NUM"))
    for code, ends_mm in (
        (_LONG_AXIS, widest.long_ends_lps_mm),
        (_SHORT_AXIS, widest.short_ends_lps_mm),
    ):
        (line,) = numbers[code].ContentSequence
        off_mm = np.abs(np.reshape(line.GraphicData, (-1, 3)) - np.array(ends_mm))
        _require(off_mm.max() <= _COORDINATE_TOLERANCE_MM, "ends of a diameter")
