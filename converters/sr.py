"""Measurements become a TID 1500 Imaging Measurement Report, a Comprehensive 3D SR.

One measurement group for everything together, which also says whether a tumour was found and what
a reader has to know; one for each segment, bound to it in the SEG; one for each further region; and
for each lesion one with its volume and one with the diameters of its enhancing tumour, whose ends
are points in the patient. `converters.sr_check` proves the written file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from highdicom import sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as CodedEntry

from converters import seg_sources
from converters.diameters import Diameters, Ends
from converters.measure import Lesion, Measurements, Region
from converters.seg import SegIdentity, concept, dress, made_by
from converters.sr_check import (
    ML_DECIMALS,
    MM_DECIMALS,
    InstanceReference,
    check_report,
    enhancing_name,
    lesion_name,
    region_name,
    segment_name,
)
from converters.volume import OWN_SCHEME, Code

__all__ = ["InstanceReference", "ReportContext", "build_report", "check_report"]

PRODUCT: Final = CodedEntry("PERP_PRODUCT", OWN_SCHEME, "Product of perpendicular diameters")
"""The bidimensional measurement; no standard code says it."""
_LESIONS: Final = CodedEntry("246206008", "SCT", "Number of lesions")
_MRI_OF_BRAIN: Final = CodedEntry("816077007", "SCT", "MRI of brain")
_MM2: Final = CodedEntry("mm2", "UCUM", "mm2")
_ML: Final = CodedEntry("mL", "UCUM", "mL")
_MM: Final = CodedEntry("mm", "UCUM", "mm")

_Group: TypeAlias = (
    sr.MeasurementsAndQualitativeEvaluations | sr.VolumetricROIMeasurementsAndQualitativeEvaluations
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportContext:
    """What a report names beside the measurements and its own identity.

    Parameters
    ----------
    model_id : str
        As ``id@version``; human readable tracking identifiers begin with it.
    device_uid : str
        Of the observer; another one for every model version.
    tracking_uid : callable
        Returns the tracking UID of something named: the same for the same name, always.
    segmentation : InstanceReference or None
        The SEG of the same labels; None where nothing was found and none is made of that.
    inputs : sequence of InstanceReference
        Every instance of every input series, those of the SEG's source series among them.
    notes : tuple of Code
        What a reader has to know.
    """

    model_id: str
    device_uid: str
    tracking_uid: Callable[[str], str]
    segmentation: InstanceReference | None
    inputs: Sequence[InstanceReference]
    notes: tuple[Code, ...] = ()

    @property
    def references(self) -> list[InstanceReference]:
        """Everything that stands as evidence."""
        return [*([] if self.segmentation is None else [self.segmentation]), *self.inputs]


def build_report(
    found: Measurements,
    sources: Sequence[Dataset],
    identity: SegIdentity,
    context: ReportContext,
    frames: Sequence[int] = (),
) -> Dataset:
    """Return the report of a label map's measurements, with file meta information.

    Parameters
    ----------
    found : Measurements
        Of the label map that the SEG holds.
    sources : sequence of Dataset
        Headers of the reference series in the order of the label map's slices; not changed.
    identity : SegIdentity
        The report's own UIDs, and the tracking UIDs that the SEG's segments have.
    context : ReportContext
        What is referred to.
    frames : sequence of int
        As for the SEG: number of each slice's frame; 0, or nothing at all, for classic instances.

    Notes
    -----
    Regions and lesions are no segments of the SEG. Their groups are of TID 1501 with the SEG as
    their source, which names the segments that they are made of; those of segments are of TID 1411.

    References
    ----------
    DICOM PS3.16 TID 1500, 1501, 1411, 300; PS3.3 A.35.13 Comprehensive 3D SR IOD; IHE AI Results.
    """
    created = seg_sources.on_clock_of(sources[0], identity.created_at)
    groups = _Groups(found, identity, context).all_of(sources, frames)
    made = made_by(identity, created)
    for keyword in ("content_description", "content_label"):
        del made[keyword]  # of images only
    content = sr.MeasurementReport(
        observation_context=_observed_by(identity, context),
        procedure_reported=_MRI_OF_BRAIN,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )[0]
    items, content.ContentSequence = content.ContentSequence, []
    report = sr.Comprehensive3DSR(  # which would copy the items, and search them twice
        evidence=[_patient_of(sources[0], context)],
        content=content,
        is_complete=True,
        coding_schemes=[
            CodingSchemeIdentificationItem(designator=OWN_SCHEME, name=identity.manufacturer)
        ],
        **made,
    )
    report.ContentSequence = items
    dress(report, sources[0], identity, created)
    del report.BodyPartExamined  # of images only
    study = _evidence(context.references, sources[0].StudyInstanceUID)
    report.CurrentRequestedProcedureEvidenceSequence = [study]
    return report


def _patient_of(source: Dataset, context: ReportContext) -> Dataset:
    """Return what highdicom asks the evidence for; patient and evidence itself come later."""
    first = context.references[0]
    instance = Dataset()
    instance.StudyInstanceUID = source.StudyInstanceUID
    instance.SeriesInstanceUID = first.series_instance_uid
    instance.SOPClassUID = first.sop_class_uid
    instance.SOPInstanceUID = first.sop_instance_uid
    instance.update(seg_sources.NOBODY)
    return instance


def _evidence(references: Sequence[InstanceReference], study_instance_uid: str) -> Dataset:
    """Return the item of Current Requested Procedure Evidence Sequence, a series at a time.

    References
    ----------
    DICOM PS3.3 C.17.2 SR Document General Module, 10.4 Hierarchical SOP Instance Reference Macro.
    """
    of_series: dict[str, list[Dataset]] = {}
    class_of: dict[str, DataElement] = {}  # one for hundreds of items, which is encoded once
    for one in references:
        item = Dataset()
        if one.sop_class_uid not in class_of:
            item.ReferencedSOPClassUID = one.sop_class_uid
            class_of[one.sop_class_uid] = item["ReferencedSOPClassUID"]
        item.add(class_of[one.sop_class_uid])
        item.ReferencedSOPInstanceUID = one.sop_instance_uid
        of_series.setdefault(one.series_instance_uid, []).append(item)
    study = Dataset()
    study.ReferencedSeriesSequence = []
    for uid, items in of_series.items():
        series = Dataset()
        series.ReferencedSOPSequence = items
        series.SeriesInstanceUID = uid
        study.ReferencedSeriesSequence.append(series)
    study.StudyInstanceUID = study_instance_uid
    return study


def _observed_by(identity: SegIdentity, context: ReportContext) -> sr.ObservationContext:
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=context.device_uid,
        name=context.model_id,
        manufacturer_name=identity.manufacturer,
        model_name=identity.model_name,
        serial_number=identity.device_serial_number,
    )
    observer = sr.ObserverContext(
        observer_type=codes.DCM.Device, observer_identifying_attributes=device
    )
    return sr.ObservationContext(observer_device_context=observer)


def _number(name: CodedEntry, value: float, unit: CodedEntry) -> sr.Measurement:
    return sr.Measurement(name=name, value=value, unit=unit)


def _volume(volume_ml: float) -> sr.Measurement:
    return _number(codes.SCT.Volume, round(volume_ml, ML_DECIMALS), _ML)


class _Groups:
    """Makes the measurement groups of one report."""

    def __init__(self, found: Measurements, identity: SegIdentity, context: ReportContext) -> None:
        self._found, self._identity, self._context = found, identity, context

    def all_of(self, sources: Sequence[Dataset], frames: Sequence[int]) -> list[_Group]:
        """Return every group: the whole, segments, regions, lesions, their enhancing tumours."""
        found, seg = self._found, self._context.segmentation
        if seg is None:
            return [self._whole()]
        groups = [self._whole(), *self._segments(seg, str(sources[0].SeriesInstanceUID))]
        groups += [
            self._region(one, [_volume(volume_ml)])
            for one, volume_ml in zip(found.regions, found.regions_ml, strict=True)
        ]
        groups += [self._lesion(lesion) for lesion in found.lesions]
        for lesion in found.lesions:  # last: what has coordinates, see docs/measurements.md
            if (widest := lesion.enhancing) is not None:
                frame = frames[widest.slice_index] if any(frames) else 0
                image = _image(sources[widest.slice_index], frame)
                groups.append(self._enhancing(lesion, widest, image))
        return groups

    def _tracking(self, name: str, uid: str = "") -> sr.TrackingIdentifier:
        context = self._context
        return sr.TrackingIdentifier(
            uid=uid or context.tracking_uid(name), identifier=f"{context.model_id}/{name}"
        )

    def _algorithm(self) -> sr.AlgorithmIdentification:
        return sr.AlgorithmIdentification(
            name=self._identity.algorithm_name,
            version=self._identity.algorithm_version,
            family=codes.DCM.ArtificialIntelligence,
        )

    def _group(  # noqa: PLR0913 - what a group consists of
        self,
        name: str,
        *,
        category: Code,
        finding: Code,
        measurements: list[sr.Measurement],
        source: sr.SourceImageForMeasurementGroup | None,
        evaluations: list[sr.QualitativeEvaluation] | None = None,
        method: CodedEntry | None = None,
    ) -> sr.MeasurementsAndQualitativeEvaluations:
        return sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=self._tracking(name),
            finding_category=concept(category),
            finding_type=concept(finding),
            finding_sites=[sr.FindingSite(codes.SCT.Brain)],
            algorithm_id=self._algorithm(),
            method=method,
            measurements=measurements,
            qualitative_evaluations=evaluations,
            source_images=None if source is None else [source],
        )

    def _whole(self) -> sr.MeasurementsAndQualitativeEvaluations:
        found = self._found
        lesions = _number(_LESIONS, found.lesion_count, codes.UCUM.NoUnits)
        presence = codes.SCT.Present if found.whole_ml else codes.SCT.Absent
        said = [sr.QualitativeEvaluation(name=codes.DCM.PresenceOfProperty, value=presence)]
        said += [
            sr.QualitativeEvaluation(name=codes.DCM.QualityFinding, value=concept(note))
            for note in self._context.notes
        ]
        return self._region(found.whole, [_volume(found.whole_ml), lesions], said)

    def _region(
        self,
        region: Region,
        measurements: list[sr.Measurement],
        evaluations: list[sr.QualitativeEvaluation] | None = None,
    ) -> sr.MeasurementsAndQualitativeEvaluations:
        return self._group(
            region_name(region),
            category=region.category,
            finding=region.type_code,
            measurements=measurements,
            source=self._of_segments(region.numbers),
            evaluations=evaluations,
        )

    def _segments(self, seg: InstanceReference, series_instance_uid: str) -> list[_Group]:
        found = self._found
        return [
            sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=self._tracking(
                    segment_name(one), self._identity.tracking_uids[one.number]
                ),
                referenced_segment=sr.ReferencedSegment(
                    sop_class_uid=seg.sop_class_uid,
                    sop_instance_uid=seg.sop_instance_uid,
                    segment_number=one.number,
                    source_series=sr.SourceSeriesForSegmentation(series_instance_uid),
                ),
                finding_category=concept(one.category),
                finding_type=concept(one.type_code),
                finding_sites=[sr.FindingSite(codes.SCT.Brain)],
                algorithm_id=self._algorithm(),
                measurements=[_volume(volume_ml)],
            )
            for one, volume_ml in zip(found.segments, found.segments_ml, strict=True)
        ]

    def _lesion(self, lesion: Lesion) -> sr.MeasurementsAndQualitativeEvaluations:
        whole = self._found.whole
        return self._group(
            lesion_name(lesion),
            category=whole.category,
            finding=whole.type_code,
            measurements=[_volume(lesion.volume_ml)],
            source=self._of_segments(whole.numbers),
        )

    def _enhancing(
        self, lesion: Lesion, widest: Diameters, image: sr.SourceImageForMeasurementGroup
    ) -> sr.MeasurementsAndQualitativeEvaluations:
        segment = self._found.segments[self._found.enhancing[0] - 1]
        product_mm2 = round(widest.product_mm2, MM_DECIMALS)
        return self._group(
            enhancing_name(lesion),
            category=segment.category,
            finding=segment.type_code,
            method=codes.NCIt.RANO,
            measurements=[
                _volume(self._found.enhancing_ml(lesion)),
                self._length(codes.SCT.LongAxis, widest.long_mm, widest.long_ends_lps_mm),
                self._length(codes.SCT.ShortAxis, widest.short_mm, widest.short_ends_lps_mm),
                _number(PRODUCT, product_mm2, _MM2),
            ],
            source=image,
        )

    def _length(self, name: CodedEntry, length_mm: float, ends_mm: Ends) -> sr.Measurement:
        line = sr.CoordinatesForMeasurement3D(
            graphic_type=sr.GraphicTypeValues3D.POLYLINE,
            graphic_data=np.array(ends_mm, dtype=np.float32),
            frame_of_reference_uid=self._found.grid.frame_of_reference_uid,
        )
        return sr.Measurement(
            name=name,
            value=round(length_mm, MM_DECIMALS),
            unit=_MM,
            referenced_coordinates=[line],
        )

    def _of_segments(self, numbers: Sequence[int]) -> sr.SourceImageForMeasurementGroup | None:
        """Return the SEG as a source, with the segments that are meant (PS3.3 10.3)."""
        seg = self._context.segmentation
        if seg is None:
            return None
        source = sr.SourceImageForMeasurementGroup(
            referenced_sop_class_uid=seg.sop_class_uid,
            referenced_sop_instance_uid=seg.sop_instance_uid,
        )
        source.ReferencedSOPSequence[0].ReferencedSegmentNumber = list(numbers)
        return source


def _image(source: Dataset, frame: int) -> sr.SourceImageForMeasurementGroup:
    return sr.SourceImageForMeasurementGroup(
        referenced_sop_class_uid=source.SOPClassUID,
        referenced_sop_instance_uid=source.SOPInstanceUID,
        referenced_frame_numbers=[frame] if frame else None,
    )
