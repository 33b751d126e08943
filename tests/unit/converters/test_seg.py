"""The Segmentation says what the label map says, and the gate sees when it does not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from converters.errors import GridMismatchError, MissingAttributeError
from converters.seg import build_segmentation
from converters.volume import Shape
from tests.seg_examples import (
    EDEMA,
    EVEN,
    IDENTITY,
    ODD,
    SEGMENTS,
    label_map,
    read_sources,
    round_trip,
    some_labels,
    written,
)


@pytest.fixture(scope="module", params=[EVEN, ODD], ids=["even", "odd"])
def pristine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[Dataset]:
    return read_sources(tmp_path_factory.mktemp("series"), request.param)


@pytest.fixture
def sources(pristine: list[Dataset]) -> list[Dataset]:
    return copy.deepcopy(pristine)


@pytest.fixture
def shape(sources: list[Dataset]) -> Shape:
    return len(sources), sources[0].Rows, sources[0].Columns


@pytest.fixture
def even_sources(tmp_path: Path) -> list[Dataset]:
    return read_sources(tmp_path / "even", EVEN)


@pytest.mark.parametrize("shape", [EVEN, ODD], ids=["even", "odd"])
def test_any_label_map_comes_back_as_it_was(
    shape: Shape, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    sources = read_sources(folder, shape)

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(arrays.arrays(np.uint8, shape, elements=st.integers(0, 2)))
    def holds(labels: NDArray[np.uint8]) -> None:
        seg = round_trip(sources, folder, label_map(labels))
        uids = [one.SOPInstanceUID for one in sources]
        read = hd.seg.Segmentation.from_dataset(seg).get_pixels_by_source_instance(
            uids,
            combine_segments=True,
            assert_missing_frames_are_empty=True,
        )
        assert np.array_equal(read, labels)

    holds()


def test_the_same_case_gives_the_same_bytes(
    sources: list[Dataset], shape: Shape, tmp_path: Path
) -> None:
    labels = label_map(some_labels(shape))
    again = copy.deepcopy(sources)
    first = written(build_segmentation(labels, sources, IDENTITY), tmp_path / "first.dcm")
    second = written(build_segmentation(labels, again, IDENTITY), tmp_path / "second.dcm")
    assert first.read_bytes() == second.read_bytes()


def test_building_leaves_the_sources_as_they_were(sources: list[Dataset], shape: Shape) -> None:
    before = copy.deepcopy(sources)
    build_segmentation(label_map(some_labels(shape)), sources, IDENTITY)
    assert sources == before


def test_bits_are_used_only_where_every_frame_fills_whole_bytes(
    sources: list[Dataset], shape: Shape, tmp_path: Path
) -> None:
    seg = round_trip(sources, tmp_path, label_map(some_labels(shape)))
    expected = ("BINARY", 1) if shape == EVEN else ("FRACTIONAL", 8)
    assert (seg.SegmentationType, seg.BitsAllocated) == expected
    if shape == ODD:
        assert (seg.SegmentationFractionalType, seg.MaximumFractionalValue) == ("OCCUPANCY", 1)


def test_empty_frames_are_left_out(sources: list[Dataset], shape: Shape, tmp_path: Path) -> None:
    seg = round_trip(sources, tmp_path, label_map(some_labels(shape)))
    assert seg.NumberOfFrames == 5


def test_an_empty_label_map_gives_every_frame_of_every_segment(
    sources: list[Dataset], shape: Shape, tmp_path: Path
) -> None:
    seg = round_trip(sources, tmp_path, label_map(np.zeros(shape, np.uint8)))
    assert seg.NumberOfFrames == shape[0] * len(SEGMENTS)
    assert [one.SegmentLabel for one in seg.SegmentSequence] == ["Edema", "Enhancing"]


def test_segments_carry_codes_colours_tracking_and_algorithm(
    sources: list[Dataset], shape: Shape, tmp_path: Path
) -> None:
    seg = round_trip(sources, tmp_path, label_map(some_labels(shape)))
    edema, enhancing = seg.SegmentSequence
    assert edema.SegmentedPropertyTypeCodeSequence[0].CodeValue == EDEMA.value
    assert enhancing.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "NCIt"
    assert edema.SegmentDescription == "Oedema around the core"
    assert (edema.TrackingUID, enhancing.TrackingUID) == ("2.25.1004", "2.25.1005")
    assert edema.SegmentAlgorithmType == "AUTOMATIC"
    assert edema.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == "1.2.3"
    color = hd.color.CIELabColor.from_dicom_value(tuple(edema.RecommendedDisplayCIELabValue))
    assert color.to_rgb() == (255, 217, 61)


def test_the_scanner_is_named_as_contributing_equipment(
    sources: list[Dataset], shape: Shape, tmp_path: Path
) -> None:
    sources[0].InstitutionName = "Klinik f\u00fcr \u00dcbung"
    seg = round_trip(sources, tmp_path, label_map(some_labels(shape)))
    scanner = seg.ContributingEquipmentSequence[0]
    assert scanner.ManufacturerModelName == "Phantom"
    assert scanner.InstitutionName == "Klinik f\u00fcr \u00dcbung"


def test_missing_type_2_attributes_become_empty_ones(
    sources: list[Dataset], shape: Shape, tmp_path: Path
) -> None:
    wanting = [
        *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate"),
        *("StudyTime", "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator"),
        *("SliceThickness", "SpacingBetweenSlices", "Manufacturer", "BodyPartExamined"),
    ]
    for source in sources:
        for keyword in wanting:
            delattr(source, keyword)
    seg = round_trip(sources, tmp_path, label_map(some_labels(shape)))
    assert all(seg.get(keyword) in (None, "") for keyword in wanting[:10])
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.SpacingBetweenSlices == pytest.approx(3.3)


def test_the_distance_of_slices_is_that_of_their_positions(
    sources: list[Dataset], shape: Shape, tmp_path: Path
) -> None:
    for source in sources:
        source.SpacingBetweenSlices, source.SliceThickness = "1.5", "1.5"
    seg = round_trip(sources, tmp_path, label_map(some_labels(shape)))
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.SpacingBetweenSlices == pytest.approx(3.3)


def test_a_single_slice_can_be_encoded(tmp_path: Path) -> None:
    sources = read_sources(tmp_path / "single", (1, 8, 6))
    seg = round_trip(sources, tmp_path, label_map(np.full((1, 8, 6), 2, np.uint8)))
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.SpacingBetweenSlices == pytest.approx(3.3)


@pytest.mark.filterwarnings("ignore:Invalid value for VR")  # the point of the test
@pytest.mark.parametrize("sex", ["X", "m", "UNKNOWN"])
def test_patient_attributes_pass_as_they_stand(
    even_sources: list[Dataset], tmp_path: Path, sex: str
) -> None:
    for source in even_sources:
        source.PatientSex, source.PatientComments = sex, "kept"
        source.PatientBirthDate = "1970.1.1"
    seg = round_trip(even_sources, tmp_path, label_map(some_labels(EVEN)))
    assert (seg.PatientSex, seg.PatientBirthDate) == (sex, "1970.1.1")
    assert seg.PatientComments == "kept"


@pytest.mark.parametrize(
    ("declared", "name", "expected"),
    [
        ("ISO_IR 100", "Sch\u00e4fer^J\u00fcrgen", "ISO_IR 100"),
        ("ISO_IR 144", "\u041b\u044e\u043ace\u043c\u0431yp\u0433", "ISO_IR 144"),
        ("ISO_IR 192", "\u738b^\u5c0f\u6771", "ISO_IR 192"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce", "ISO_IR 192"),
        ("ISO 2022 IR 100", "Sch\u00e4fer^J\u00fcrgen", "ISO_IR 192"),
        ("ISO_IR 6", "Plain^Name", "ISO_IR 6"),
    ],
)
def test_names_survive_in_every_character_set(
    even_sources: list[Dataset], tmp_path: Path, declared: str | list[str], name: str, expected: str
) -> None:
    for index, source in enumerate(even_sources):
        source.SpecificCharacterSet, source.StudyDescription = declared, "plain"
        source.PatientName = name
        source.OtherPatientIDsSequence = [Dataset()]
        source.OtherPatientIDsSequence[0].PatientID = "nested"
        source.save_as(tmp_path / f"{index}.dcm")
    again = [pydicom.dcmread(tmp_path / f"{i}.dcm") for i in range(len(even_sources))]
    seg = round_trip(again, tmp_path, label_map(some_labels(EVEN)))
    assert seg.SpecificCharacterSet == expected
    assert str(seg.PatientName) == name
    assert seg.OtherPatientIDsSequence[0].PatientID == "nested"


def test_nested_text_is_written_in_the_declared_character_set(
    even_sources: list[Dataset], tmp_path: Path
) -> None:
    source = even_sources[0]
    source.SpecificCharacterSet = "ISO 2022 IR 100"
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "1", "99X", "Sch\u00e4del"
    source.ProcedureCodeSequence = [item]
    source.save_as(tmp_path / "0.dcm")
    even_sources[0] = pydicom.dcmread(tmp_path / "0.dcm")
    seg = round_trip(even_sources, tmp_path, label_map(some_labels(EVEN)))
    assert seg.ProcedureCodeSequence[0].CodeMeaning == "Sch\u00e4del"


def test_undeclared_bytes_of_a_name_pass_unchanged(
    even_sources: list[Dataset], tmp_path: Path
) -> None:
    for index, source in enumerate(even_sources):
        source.PatientName, source.StudyDescription = "M\u00fcller^A", "plain"
        source.SpecificCharacterSet = "ISO_IR 100"
        content = written(source, tmp_path / f"{index}.dcm").read_bytes()
        undeclared = content.replace(b"ISO_IR 100", b"ISO_IR 6  ")
        (tmp_path / f"{index}.dcm").write_bytes(undeclared)
    again = [pydicom.dcmread(tmp_path / f"{i}.dcm") for i in range(len(even_sources))]
    round_trip(again, tmp_path, label_map(some_labels(EVEN)))
    assert "M\u00fcller^A".encode("latin-1") in (tmp_path / "seg.dcm").read_bytes()


def test_a_label_outside_the_sources_character_set_makes_the_object_unicode(
    even_sources: list[Dataset], tmp_path: Path
) -> None:
    for source in even_sources:
        source.PatientName, source.StudyDescription = "Plain^Name", "plain"
        del source.SpecificCharacterSet
    renamed = (replace(SEGMENTS[0], label="\u00d6dem"), SEGMENTS[1])
    labels = replace(label_map(some_labels(EVEN)), segments=renamed)
    seg = round_trip(even_sources, tmp_path, labels)
    assert seg.SpecificCharacterSet == "ISO_IR 192"
    assert seg.SegmentSequence[0].SegmentLabel == "\u00d6dem"


def test_plain_text_needs_no_character_set(even_sources: list[Dataset], tmp_path: Path) -> None:
    for source in even_sources:
        source.PatientName, source.StudyDescription = "Plain^Name", "plain"
        del source.SpecificCharacterSet
    seg = round_trip(even_sources, tmp_path, label_map(some_labels(EVEN)))
    assert "SpecificCharacterSet" not in seg


def test_a_label_that_the_declared_character_set_lacks_makes_the_object_unicode(
    even_sources: list[Dataset], tmp_path: Path
) -> None:
    renamed = (replace(SEGMENTS[0], label="\u6d6e\u816b"), SEGMENTS[1])
    labels = replace(label_map(some_labels(EVEN)), segments=renamed)
    seg = round_trip(even_sources, tmp_path, labels)
    assert seg.SpecificCharacterSet == "ISO_IR 192"


def test_orientations_may_differ_in_the_last_digits(
    even_sources: list[Dataset], tmp_path: Path
) -> None:
    for index, source in enumerate(even_sources):
        cosines = np.array(source.ImageOrientationPatient, dtype=float) + index * 1e-5
        source.ImageOrientationPatient = [round(float(part), 4 + index) for part in cosines]
    round_trip(even_sources, tmp_path, label_map(some_labels(EVEN)))


@pytest.mark.parametrize(
    ("offset", "date", "time"),
    [
        (None, "20250301", "223005"),
        ("+0200", "20250302", "003005"),
        ("-0530", "20250301", "170005"),
    ],
)
def test_its_times_stand_on_the_sources_clock(
    even_sources: list[Dataset], tmp_path: Path, offset: str | None, date: str, time: str
) -> None:
    if offset:
        even_sources[0].TimezoneOffsetFromUTC = offset
    seg = round_trip(even_sources, tmp_path, label_map(some_labels(EVEN)))
    assert (seg.ContentDate, seg.ContentTime) == (date, time)
    assert (seg.InstanceCreationDate, seg.SeriesTime) == (date, time)
    assert seg.get("TimezoneOffsetFromUTC") == offset


def moved(sources: list[Dataset]) -> list[Dataset]:
    first = sources[0].ImagePositionPatient
    sources[0].ImagePositionPatient = [float(first[0]) + 0.3, first[1], first[2]]
    return sources


def with_value(keyword: str, value: object) -> Callable[[list[Dataset]], list[Dataset]]:
    def change(sources: list[Dataset]) -> list[Dataset]:
        for source in sources:
            setattr(source, keyword, value)
        return sources

    return change


def in_two_series(sources: list[Dataset]) -> list[Dataset]:
    sources[-1].SeriesInstanceUID = "2.25.9"
    return sources


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda sources: sources[::-1], "ImagePositionPatient"),
        (lambda sources: sources[:-1], "4 slices on 3 images"),
        (moved, "ImagePositionPatient"),
        (in_two_series, "more than one source series"),
        (with_value("Columns", 9), "Rows or Columns"),
        (with_value("FrameOfReferenceUID", "2.25.8"), "FrameOfReferenceUID"),
        (with_value("PixelSpacing", [0.9, 0.9]), "ImageOrientationPatient or PixelSpacing"),
    ],
)
def test_a_label_map_elsewhere_than_its_sources_is_refused(
    even_sources: list[Dataset],
    change: Callable[[list[Dataset]], list[Dataset]],
    reason: str,
) -> None:
    with pytest.raises(GridMismatchError) as refused:
        build_segmentation(label_map(some_labels(EVEN)), change(even_sources), IDENTITY)
    assert refused.value.evidence == {"reason": reason}


def test_a_source_without_a_position_is_refused(even_sources: list[Dataset]) -> None:
    del even_sources[2].ImagePositionPatient
    with pytest.raises(MissingAttributeError) as refused:
        build_segmentation(label_map(some_labels(EVEN)), even_sources, IDENTITY)
    assert refused.value.evidence == {"keyword": "ImagePositionPatient", "instance": 2}


@pytest.mark.parametrize(
    "wrong",
    [
        {"series_description": "x" * 65},
        {"series_description": ""},
        {"algorithm_name": "a\\b"},
        {"software_versions": ("fine", "x" * 65)},
        {"content_label": "lower case"},
        {"created_at": datetime(2025, 1, 1)},  # noqa: DTZ001 - the point of the test
    ],
)
def test_an_identity_that_dicom_cannot_hold_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(IDENTITY, **wrong)
