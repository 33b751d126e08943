"""What a header of each frame says, and which multi-frame instances are refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import (
    ImplicitVRLittleEndian,
)

from converters import multiframe, series
from converters.attributes import optional_number
from converters.errors import ConversionError, InputRejectedError
from converters.headers import read_header
from converters.series import Part
from tests import enhanced, phantoms
from tests.enhanced import Frame
from tests.phantoms import WrittenStudy

FEW = 8


@pytest.fixture(scope="module")
def classic(small_study: WrittenStudy) -> list[Path]:
    """Return an oblique series with an inversion time, in slice order."""
    return small_study.files.paths["flair"]


@pytest.fixture(scope="module")
def one_instance(classic: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    many = enhanced.odd_order(enhanced.frames(classic[:FEW]))
    return enhanced.enhanced(many, tmp_path_factory.mktemp("one") / "enhanced.dcm")


def parts_of(paths: list[Path]) -> tuple[Part, ...]:
    return series.parts(series.read_headers(paths), paths)


def refusal(paths: list[Path]) -> InputRejectedError:
    (part,) = parts_of(paths)
    assert part.headers
    with pytest.raises(InputRejectedError) as caught:
        part.stack()
    return caught.value


def test_classic_keywords_stand_at_the_top(one_instance: Path, classic: list[Path]) -> None:
    (part,) = parts_of([one_instance])
    wanted = dcmread(classic[0])
    for header, frame in zip(part.headers, part.frames, strict=True):
        assert float(header.EchoTime) == header.EffectiveEchoTime == float(wanted.EchoTime)
        assert float(header.InversionTime) == float(wanted.InversionTime)
        for keyword in ("RepetitionTime", "FlipAngle", "SliceThickness", "PixelSpacing"):
            assert header.get(keyword) == wanted.get(keyword)
        assert header.ImageType == header.FrameType
        assert (header.InversionRecovery, header.AcquisitionContrast) == ("YES", "UNKNOWN")
        assert (int(header.AcquisitionNumber), int(header.TemporalPositionIdentifier)) == (1, 1)
        assert header.AcquisitionDateTime == "20250115101500"
        assert header.InStackPositionNumber == frame
        assert header.SOPInstanceUID == dcmread(one_instance).SOPInstanceUID
        assert str(header.PatientName) == str(wanted.PatientName)
        assert "PerFrameFunctionalGroupsSequence" not in header


def test_what_may_stand_several_times_stays_a_sequence(classic: list[Path], tmp_path: Path) -> None:
    def edit(ds: Dataset) -> None:
        for group in ds.PerFrameFunctionalGroupsSequence:
            group.RealWorldValueMappingSequence = [Dataset(), Dataset()]
            group.RealWorldValueMappingSequence[0].RealWorldValueSlope = 2.0
            group.add_new(0x20050010, "LO", "VENDOR")
            group.add_new(0x2005100F, "SQ", [Dataset()])
            group[0x2005100F].value[0].EchoTime = "1"

    path = enhanced.enhanced(enhanced.frames(classic[:FEW]), tmp_path / "x.dcm", edit=edit)
    (part,) = parts_of([path])
    for header in part.headers:
        assert header.RealWorldValueMappingSequence[0].RealWorldValueSlope == 2.0
        assert "RealWorldValueSlope" not in header
        assert float(header.EchoTime) == 88.0


def test_a_frame_says_more_than_the_instance(classic: list[Path], tmp_path: Path) -> None:
    def edit(ds: Dataset) -> None:
        ds.RescaleSlope = 7
        shared = ds.SharedFunctionalGroupsSequence[0]
        item = Dataset()
        item.RescaleSlope, item.RescaleIntercept = 5, 1
        shared.PixelValueTransformationSequence = [item]
        unassigned = Dataset()
        unassigned.EchoTime, unassigned.RepetitionTime, unassigned.ScanOptions = 1, 1, "FS"
        shared.UnassignedSharedConvertedAttributesSequence = [unassigned]
        del ds.PerFrameFunctionalGroupsSequence[0].PixelValueTransformationSequence
        del ds.PerFrameFunctionalGroupsSequence[1].PixelValueTransformationSequence[0].RescaleSlope

    path = enhanced.enhanced(enhanced.frames(classic[:FEW]), tmp_path / "x.dcm", edit=edit)
    (part,) = parts_of([path])
    rescales = [(int(one.RescaleSlope), int(one.RescaleIntercept)) for one in part.headers[:3]]
    assert rescales == [(5, 1), (5, 0), (1, 0)]
    assert part.headers[0].RepetitionTime == dcmread(classic[0]).RepetitionTime
    assert part.headers[0].ScanOptions == "FS"


def test_the_frames_of_an_instance_do_not_share_what_is_changed(one_instance: Path) -> None:
    (part,) = parts_of([one_instance])
    part.headers[0].EchoTime = part.headers[0].FlipAngle = 5
    assert float(part.headers[1].EchoTime) == 88.0
    assert float(part.headers[1].FlipAngle) != 5.0


def test_a_concatenation_that_is_not_there_whole_is_refused(
    classic: list[Path], tmp_path: Path
) -> None:
    thirds = [enhanced.frames(classic[at : at + 5]) for at in (0, 5, 10)]
    paths = enhanced.concatenation(thirds, tmp_path)
    error = refusal(paths[:2])  # what is there is an even stack
    assert error.code == "SERIES_CONCATENATION_INCOMPLETE"
    assert error.evidence == {"found": 2, "total": 3}


def test_a_mosaic_is_refused_by_name(classic: list[Path], tmp_path: Path) -> None:
    kind = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    error = refusal(phantoms.with_attribute(classic, tmp_path, "ImageType", kind))
    assert error.code == "SERIES_MOSAIC_UNSUPPORTED"
    assert error.evidence == {"instance": 0}
    assert "Enhanced MR" in error.advice


@pytest.mark.parametrize("is_announced", [False, True])
def test_frames_without_a_description_are_refused(
    classic: list[Path], tmp_path: Path, *, is_announced: bool
) -> None:
    def edit(ds: Dataset) -> None:
        del ds.PerFrameFunctionalGroupsSequence
        if is_announced:
            ds.PerFrameFunctionalGroupsSequence = []

    path = enhanced.enhanced(enhanced.frames(classic), tmp_path / "x.dcm", edit=edit)
    error = refusal([path])
    assert error.code == "SERIES_MULTIFRAME_UNSUPPORTED"
    assert error.evidence == {"instance": 0, "frame_count": len(classic), "described": 0}


@pytest.mark.parametrize("count", [0, FEW - 1, FEW + 1, 2**31 - 1, -3, None])
def test_another_number_of_frames_than_is_described_is_refused(
    count: int | None, classic: list[Path], tmp_path: Path
) -> None:
    def edit(ds: Dataset) -> None:
        ds.NumberOfFrames = count
        if count is None:
            del ds.NumberOfFrames

    many = enhanced.frames(classic[:FEW])
    error = refusal([*classic[:2], enhanced.enhanced(many, tmp_path / "x.dcm", edit=edit)])
    assert error.code == "SERIES_MULTIFRAME_UNSUPPORTED"
    assert error.evidence["instance"] == 2
    assert error.evidence["described"] == FEW


@pytest.mark.parametrize(
    ("sequence", "keyword"),
    [
        ("PlanePositionSequence", "ImagePositionPatient"),
        ("PlaneOrientationSequence", "ImageOrientationPatient"),
        ("PixelMeasuresSequence", "PixelSpacing"),
    ],
)
@pytest.mark.parametrize("is_empty", [False, True], ids=["absent", "empty"])
def test_a_frame_without_its_place_is_refused(
    sequence: str, keyword: str, classic: list[Path], tmp_path: Path, *, is_empty: bool
) -> None:
    def edit(ds: Dataset) -> None:
        delattr(ds.PerFrameFunctionalGroupsSequence[3], sequence)
        if is_empty:
            setattr(ds.PerFrameFunctionalGroupsSequence[3], sequence, [])

    path = enhanced.enhanced(enhanced.frames(classic), tmp_path / "x.dcm", edit=edit)
    error = refusal([path])
    assert error.code == "DICOM_ATTRIBUTE_MISSING"
    assert error.evidence == {"keyword": keyword, "instance": 3}


def test_a_description_that_is_no_sequence_is_refused(one_instance: Path) -> None:
    header = read_header(one_instance, instance=0)
    tag = Tag("PerFrameFunctionalGroupsSequence")
    header[tag] = DataElement(tag, "LO", "not a sequence")
    (part,) = series.parts([header], [one_instance])
    with pytest.raises(InputRejectedError, match="describes 0"):
        part.stack()


def test_a_number_cut_short_is_left_as_it_is(one_instance: Path) -> None:
    header = read_header(one_instance, instance=0)
    group = header.PerFrameFunctionalGroupsSequence[0]
    tag = Tag("EffectiveEchoTime")
    raw = RawDataElement(tag, "FD", 5, b"\0" * 5, 0, False, True)  # noqa: FBT003
    group.MREchoSequence[0]._dict[tag] = raw
    flat = multiframe.spread([header], [one_instance]).headers[0]
    assert flat.get_item(tag, keep_deferred=True) == raw


@pytest.mark.parametrize(
    ("times", "expected"), [([900.0, 2500.0], 900.0), ([900.0], 900.0), ([], None)]
)
@pytest.mark.parametrize("is_converted", [False, True])
def test_of_several_inversion_times_the_first_is_the_classic_one(
    times: list[float],
    expected: float | None,
    classic: list[Path],
    tmp_path: Path,
    *,
    is_converted: bool,
) -> None:
    def edit(ds: Dataset) -> None:
        ds.SharedFunctionalGroupsSequence[0].MRModifierSequence[0].InversionTimes = times

    many = enhanced.frames(classic[:FEW])
    path = enhanced.enhanced(many, tmp_path / "x.dcm", edit=edit, is_open=is_converted)
    header = read_header(path, instance=0)
    if is_converted:
        header.decode()
    del header.file_meta
    flat = multiframe.spread([header], [path]).headers[0]
    assert flat.get("InversionTime") == expected
    assert optional_number(flat, Tag("InversionTime")) == expected


def test_an_element_without_a_known_representation_is_left_as_it_is(
    classic: list[Path], tmp_path: Path
) -> None:
    def edit(ds: Dataset) -> None:
        for group in ds.PerFrameFunctionalGroupsSequence:
            group.MREchoSequence[0].add_new(0x00189FFE, "UN", b"\1\2")

    path = enhanced.enhanced(
        enhanced.frames(classic[:FEW]),
        tmp_path / "x.dcm",
        edit=edit,
        transfer_syntax_uid=ImplicitVRLittleEndian,
    )
    (part,) = parts_of([path])
    assert part.stack(limits=None).grid.shape[0] == FEW


@pytest.mark.filterwarnings("ignore")  # pydicom's own complaints; production logs only their place
@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_mangled_enhanced_instances_end_in_a_coded_error(
    one_instance: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(one_instance.read_bytes())
    head = content.rindex(b"\xe0\x7f\x10\x00") + 12
    first = content.index(b"\x00\x52\x29\x92")
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.one_of(st.integers(128, head), st.integers(first, first + 600)))
        junk = data.draw(st.one_of(st.binary(min_size=1, max_size=8), st.just(b"\xff" * 4)))
        content[at : at + len(junk)] = junk
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(content))))
    mangled = tmp_path_factory.mktemp("mangled") / "x.dcm"
    mangled.write_bytes(bytes(content[:cut]))
    found = "a volume"
    try:
        for part in parts_of([mangled]):
            series.load(part.stack(), "flair")
    except ConversionError as error:
        found = f"{error.code}: {error}"
    assert found == "a volume" or "_" in found


def _crowded(ds: Dataset) -> None:
    """Give every frame the hundred private elements that vendors write."""
    for group in ds.PerFrameFunctionalGroupsSequence:
        item = Dataset()
        item.add_new(0x20050010, "LO", "VENDOR")
        for number in range(0x60):
            item.add_new(0x20051000 + number, "LO", f"value {number}")
        group.add_new(0x20050010, "LO", "VENDOR")
        group.add_new(0x2005100F, "SQ", [item])


def test_two_hundred_frames_are_read_in_well_under_a_second(
    classic: list[Path], tmp_path: Path
) -> None:
    many: list[Frame] = []
    ds = dcmread(classic[0])
    first, second = (
        np.array(dcmread(path).ImagePositionPatient, dtype=np.float64) for path in classic[:2]
    )
    for index in range(200):
        one = Dataset()
        one.update(ds)
        one.ImagePositionPatient = list(np.round(first + index * (second - first), 9))
        many.append((one, {}))
    path = enhanced.enhanced(many, tmp_path / "x.dcm", is_open=True, edit=_crowded)
    taken_s = min(_seconds(lambda: parts_of([path])) for _ in range(3))
    assert taken_s < 0.6
    assert parts_of([path])[0].stack(limits=None).grid.shape[0] == 200


def _seconds(act: Callable[[], object]) -> float:
    started = time.process_time()
    act()
    return time.process_time() - started
