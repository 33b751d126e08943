"""The report says what was measured, and the gate sees when it does not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from converters.errors import ReadBackError
from converters.measure import measure
from converters.sr import build_report
from tests import seg_examples, sr_examples
from tests.sr_examples import IDENTITY, MODEL_ID, NOTES, SEG, SHAPE, Report, write_report

IMAGING_MEASUREMENTS = 126010


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:
    return seg_examples.read_sources(tmp_path_factory.mktemp("series"), SHAPE)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, sources: list[Dataset]) -> Report:
    return write_report(
        tmp_path_factory.mktemp("report"), sr_examples.two_lesions(sources), sources
    )


def groups_of(path: Path) -> dict[str, Dataset]:
    """Return the measurement groups by tracking identifier, without the model's name."""
    (container,) = (
        item
        for item in pydicom.dcmread(path).ContentSequence
        if item.ConceptNameCodeSequence[0].CodeValue == str(IMAGING_MEASUREMENTS)
    )
    return {
        group.ContentSequence[0].TextValue.removeprefix(f"{MODEL_ID}/"): group
        for group in container.ContentSequence
    }


def items_of(group: Dataset, value_type: str) -> dict[str, Dataset]:
    return {
        item.ConceptNameCodeSequence[0].CodeMeaning: item
        for item in group.ContentSequence
        if item.ValueType == value_type
    }


def numbers_of(group: Dataset) -> dict[str, tuple[float, str]]:
    return {
        name: (
            float(item.MeasuredValueSequence[0].NumericValue),
            item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue,
        )
        for name, item in items_of(group, "NUM").items()
    }


def test_every_segment_region_and_lesion_has_a_group(report: Report) -> None:
    assert list(groups_of(report.path)) == [
        *("Whole tumour", "1", "2", "3", "Tumour core"),
        *("lesion 1", "lesion 2", "lesion 1 enhancing"),
    ]


def test_highdicom_reads_the_segments_volumes_and_references(report: Report) -> None:
    read: Any = hd.sr.srread(report.path)
    groups = read.content.get_volumetric_roi_measurement_groups()
    volumes_ml = report.label_map.volumes_ml()
    for group, segment in zip(groups, report.label_map.segments, strict=True):
        assert group.tracking_uid == IDENTITY.tracking_uids[segment.number]
        assert group.tracking_identifier == f"{MODEL_ID}/{segment.number}"
        assert group.finding_type.value == segment.type_code.value
        assert group.finding_category.value == segment.category.value
        assert [site.value for site in group.finding_sites] == [codes.SCT.Brain]
        (volume,) = group.get_measurements()
        assert volume.name == codes.SCT.Volume
        assert volume.unit.value == "mL"
        assert volume.value == pytest.approx(volumes_ml[segment.number], abs=0.0005)
        (reference,) = group.referenced_segment[0].ReferencedSOPSequence
        assert reference.ReferencedSegmentNumber == segment.number
        assert reference.ReferencedSOPInstanceUID == SEG.sop_instance_uid


def test_tracking_identifiers_are_those_of_the_segmentation(report: Report) -> None:
    seg = pydicom.dcmread(report.seg_path)
    groups = groups_of(report.path)
    for segment in seg.SegmentSequence:
        group = groups[str(segment.SegmentNumber)]
        assert group.ContentSequence[0].TextValue == segment.TrackingID
        assert segment.TrackingUID == group.ContentSequence[1].UID


def test_the_diameters_of_a_lesion_end_on_the_slice_that_they_name(report: Report) -> None:
    group = groups_of(report.path)["lesion 1 enhancing"]
    widest = report.found.lesions[0].enhancing
    assert widest is not None
    numbers = numbers_of(group)
    assert [(name, unit) for name, (_, unit) in numbers.items()] == [
        ("Volume", "mL"),
        ("Long axis", "mm"),
        ("Short axis", "mm"),
        ("Product of perpendicular diameters", "mm2"),
    ]
    expected = [report.found.segments_ml[2], widest.long_mm, widest.short_mm, widest.product_mm2]
    assert [value for value, _ in numbers.values()] == pytest.approx(expected, abs=0.005)
    image = items_of(group, "IMAGE")["Source of Measurement"].ReferencedSOPSequence[0]
    (source,) = (
        one for one in report.sources if one.SOPInstanceUID == image.ReferencedSOPInstanceUID
    )
    corner = np.array(source.ImagePositionPatient, np.float64)
    cosines = np.array(source.ImageOrientationPatient, np.float64)
    normal = np.cross(cosines[:3], cosines[3:])
    for name in ("Long axis", "Short axis"):
        (line,) = items_of(group, "NUM")[name].ContentSequence
        assert (line.ValueType, line.GraphicType) == ("SCOORD3D", "POLYLINE")
        assert line.ReferencedFrameOfReferenceUID == source.FrameOfReferenceUID
        ends = np.reshape(line.GraphicData, (2, 3))
        assert np.abs((ends - corner) @ normal).max() < 1e-3
        length_mm = numbers_of(group)[name][0]
        assert np.linalg.norm(ends[1] - ends[0]) == pytest.approx(length_mm, abs=0.01)


def test_what_does_not_enhance_has_no_diameters(report: Report) -> None:
    assert report.found.lesions[1].enhancing is None
    assert list(numbers_of(groups_of(report.path)["lesion 2"])) == ["Volume"]


def test_regions_name_the_segments_that_they_are_made_of(report: Report) -> None:
    groups = groups_of(report.path)
    for name, numbers in (("Whole tumour", [1, 2, 3]), ("Tumour core", [2, 3])):
        image = items_of(groups[name], "IMAGE")["Source of Measurement"].ReferencedSOPSequence[0]
        assert image.ReferencedSOPInstanceUID == SEG.sop_instance_uid
        assert list(image.ReferencedSegmentNumber) == numbers


def test_every_group_names_the_algorithm(report: Report) -> None:
    for group in groups_of(report.path).values():
        texts, concepts = items_of(group, "TEXT"), items_of(group, "CODE")
        assert texts["Algorithm Name"].TextValue == "some-model"
        assert texts["Algorithm Version"].TextValue == "1.2.3"
        assert concepts["Algorithm Family"].ConceptCodeSequence[0].CodeValue == "123110"


def test_the_observer_is_a_device(report: Report) -> None:
    read: Any = hd.sr.srread(report.path)
    (observer,) = read.content.get_observer_contexts(observer_type=codes.DCM.Device)
    assert observer.observer_identifying_attributes.uid == "2.25.77000"
    assert observer.observer_identifying_attributes.name == MODEL_ID


def evaluations(group: Dataset) -> list[tuple[str, str]]:
    """Return what is said of a group in words: concept and value of each evaluation."""
    found = []
    for item in group.ContentSequence:
        concept = item.ConceptNameCodeSequence[0].CodeMeaning
        if item.ValueType == "CODE" and concept in ("Presence of property", "Quality Finding"):
            value = item.ConceptCodeSequence[0]
            found.append((concept, value.get("CodeValue") or value.LongCodeValue))
    return found


def test_notes_stand_as_coded_quality_findings(report: Report) -> None:
    whole = groups_of(report.path)["Whole tumour"]
    present = ("Presence of property", "52101004")
    assert evaluations(whole) == [present, *(("Quality Finding", one.value) for one in NOTES)]
    assert numbers_of(whole)["Number of lesions"] == (2.0, "1")
    scheme = pydicom.dcmread(report.path).CodingSchemeIdentificationSequence[0]
    assert scheme.CodingSchemeDesignator == "99NEUROSEG"


def test_no_tumour_is_said_in_so_many_words(sources: list[Dataset], tmp_path: Path) -> None:
    nothing = sr_examples.label_map(np.zeros(SHAPE, np.uint8))
    groups = groups_of(write_report(tmp_path, nothing, sources, notes=()).path)
    assert list(groups) == ["Whole tumour", "1", "2", "3", "Tumour core"]
    assert evaluations(groups["Whole tumour"]) == [("Presence of property", "272519000")]
    for group in groups.values():
        assert numbers_of(group)["Volume"] == (0.0, "mL")
    assert numbers_of(groups["Whole tumour"])["Number of lesions"] == (0.0, "1")


def test_the_same_case_gives_the_same_bytes(
    report: Report, sources: list[Dataset], tmp_path: Path
) -> None:
    again = write_report(tmp_path, report.label_map, copy.deepcopy(sources))
    assert again.path.read_bytes() == report.path.read_bytes()


def test_building_leaves_the_sources_as_they_were(report: Report, sources: list[Dataset]) -> None:
    before = copy.deepcopy(sources)
    build_report(report.found, sources, IDENTITY, report.context)
    assert sources == before


def test_it_is_what_nobody_has_verified_and_says_what_it_is_for(report: Report) -> None:
    ds = pydicom.dcmread(report.path)
    assert (ds.CompletionFlag, ds.VerificationFlag, ds.PreliminaryFlag) == (
        "COMPLETE",
        "UNVERIFIED",
        "PRELIMINARY",
    )
    assert "research use only" in ds.SeriesDescription
    assert ds.ConceptNameCodeSequence[0].CodeValue == "126000"  # Imaging Measurement Report
    assert ds.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert ds.SeriesNumber == 9003
    assert "BodyPartExamined" not in ds


@pytest.mark.parametrize(
    ("declared", "name", "expected"),
    [
        ("ISO_IR 100", "M\u00fcller^A", "ISO_IR 100"),
        ("ISO_IR 192", "\u5c71\u7530^B", "ISO_IR 192"),
        (["", "ISO 2022 IR 87"], "Yamada^T=\u5c71\u7530^\u592a\u90ce", "ISO_IR 192"),
    ],
)
def test_a_name_stands_as_in_the_images(
    report: Report, tmp_path: Path, declared: str | list[str], name: str, expected: str
) -> None:
    plain = seg_examples.read_sources(tmp_path / "plain", SHAPE)
    for index, one in enumerate(plain):
        one.SpecificCharacterSet, one.StudyDescription, one.PatientName = declared, "plain", name
        one.save_as(tmp_path / f"{index}.dcm")
    again = [pydicom.dcmread(tmp_path / f"{index}.dcm") for index in range(len(plain))]
    ds = pydicom.dcmread(write_report(tmp_path, report.label_map, again).path)
    assert (ds.SpecificCharacterSet, str(ds.PatientName)) == (expected, name)


def test_the_slice_of_a_multi_frame_source_is_a_frame(
    report: Report, sources: list[Dataset], tmp_path: Path
) -> None:
    flat, frames = seg_examples.as_frames(sources, 9)
    found = write_report(tmp_path, report.label_map, flat, frames)
    group = groups_of(found.path)["lesion 1 enhancing"]
    image = items_of(group, "IMAGE")["Source of Measurement"].ReferencedSOPSequence[0]
    widest = found.found.lesions[0].enhancing
    assert widest is not None
    assert image.ReferencedSOPInstanceUID == "2.25.4711"
    assert image.ReferencedFrameNumber == frames[widest.slice_index]


# -- the gate --------------------------------------------------------------------------------


def measurements_of(ds: Dataset) -> list[Dataset]:
    return list(ds.ContentSequence[-1].ContentSequence)


def number_in(group: Dataset, at: int = 0) -> Dataset:
    numbers: list[Dataset] = [one for one in group.ContentSequence if one.ValueType == "NUM"]
    return numbers[at]


def other_volume(ds: Dataset) -> None:
    number_in(measurements_of(ds)[2]).MeasuredValueSequence[0].NumericValue = "99.9"


def moved_end(ds: Dataset) -> None:
    line = number_in(measurements_of(ds)[7], 1).ContentSequence[0]
    line.GraphicData = [line.GraphicData[0] + 0.1, *line.GraphicData[1:]]


def lost_group(ds: Dataset) -> None:
    del ds.ContentSequence[-1].ContentSequence[4]


def same_tracking(ds: Dataset) -> None:
    groups = measurements_of(ds)
    groups[1].ContentSequence[1].UID = groups[2].ContentSequence[1].UID


def lost_evidence(ds: Dataset) -> None:
    del ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[-1]


def double_evidence(ds: Dataset) -> None:
    series = ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[-1]
    series.ReferencedSOPSequence.append(copy.deepcopy(series.ReferencedSOPSequence[0]))


def other_patient(ds: Dataset) -> None:
    ds.PatientID = "SOMEBODY"


def other_class(ds: Dataset) -> None:
    ds.SOPClassUID = pydicom.uid.ComprehensiveSRStorage


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (other_volume, "measurements of some-model@1.2.3/2"),
        (moved_end, "ends of a diameter"),
        (lost_group, "measurement groups"),
        (same_tracking, "tracking UIDs"),
        (lost_evidence, "evidence"),
        (double_evidence, "evidence"),
        (other_patient, "PatientID"),
        (other_class, "SOPClassUID"),
    ],
    ids=lambda one: one.__name__ if callable(one) else "",
)
def test_a_report_that_says_something_else_is_seen(
    report: Report, tmp_path: Path, spoil: Callable[[Dataset], None], reason: str
) -> None:
    ds = pydicom.dcmread(report.path)
    spoil(ds)
    ds.save_as(tmp_path / "spoilt.dcm")
    with pytest.raises(ReadBackError) as caught:
        report.check(tmp_path / "spoilt.dcm")
    assert reason in str(caught.value)


def test_without_a_segmentation_the_report_says_that_there_is_no_tumour_and_nothing_else(
    sources: list[Dataset], tmp_path: Path
) -> None:
    nothing = sr_examples.label_map(np.zeros(SHAPE, np.uint8))
    report = write_report(tmp_path, nothing, sources, segmentation=None)
    (name, whole), *more = groups_of(report.path).items()
    assert (name, more) == ("Whole tumour", [])
    said = items_of(whole, "CODE")
    assert said["Presence of property"].ConceptCodeSequence[0].CodeMeaning == "Absent"
    assert numbers_of(whole)["Volume"] == (0.0, "mL")
    assert not items_of(whole, "IMAGE")
    assert SEG.sop_instance_uid.encode() not in report.path.read_bytes()
    other = sr_examples.two_lesions(sources)
    found = measure(other, sr_examples.REGIONS)
    with pytest.raises(ReadBackError, match="Whole tumour"):
        replace(report, found=found).check()
