"""The geometry gate and the way from files to a volume, on generated and broken series."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import config, dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag

from converters import gate, series
from converters.errors import ConversionError, InputRejectedError
from converters.series import Stack
from tests import phantoms
from tests.phantoms import WrittenStudy

GEOMETRY = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "FrameOfReferenceUID",
    "NumberOfFrames",
    "ImageType",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "RescaleSlope",
    "RescaleIntercept",
)


@pytest.fixture(scope="module")
def files(small_study: WrittenStudy) -> list[Path]:
    """Return the T1 series of a small oblique study, in slice order."""
    return small_study.files.paths["t1"]


def _refusal(files: list[Path]) -> InputRejectedError:
    with pytest.raises(InputRejectedError) as caught:
        series.load(series.stack(files), "t1")
    return caught.value


@pytest.mark.parametrize("role", ["flair", "t1", "t1gd", "t2"])
def test_a_written_volume_comes_back_voxel_for_voxel(
    role: str, small_study: WrittenStudy, tmp_path: Path
) -> None:
    wanted = small_study.study.volumes[role]
    files = phantoms.shuffled(small_study.files.paths[role], tmp_path, seed=3)
    volume = series.load(series.stack(files), role)
    assert np.array_equal(volume.intensities, wanted.intensities)
    assert np.abs(volume.grid.index_to_lps_mm - wanted.grid.index_to_lps_mm).max() < 1e-9
    assert volume.grid.frame_of_reference_uid == wanted.grid.frame_of_reference_uid
    assert volume.role == role


def test_headers_and_files_come_back_in_slice_order(files: list[Path]) -> None:
    order = random.Random(1).sample(range(len(files)), len(files))
    stack = series.stack([files[index] for index in order])
    assert list(stack.files) == files
    assert stack.frames == (0,) * len(files)
    names = [header.SOPInstanceUID for header in stack.headers]
    assert names == [dcmread(file).SOPInstanceUID for file in files]


def test_negative_values_stay_negative(files: list[Path], tmp_path: Path) -> None:
    volume = series.load(series.stack(phantoms.negative_values(files, tmp_path)), "t1")
    stored = dcmread(tmp_path / files[4].name).pixel_array
    assert stored.min() < 0
    assert np.array_equal(volume.intensities[4], stored * 0.5 - 3.25)


def test_a_missing_slice_is_refused_with_its_gap(files: list[Path], tmp_path: Path) -> None:
    error = _refusal(phantoms.missing_slice(files, tmp_path, index=3))
    spacing_mm = series.stack(files).grid.spacing_mm[0]
    assert error.code == "GEOM_MISSING_SLICE"
    assert error.evidence["slice_index"] == 3
    assert error.evidence["gap_mm"] == pytest.approx(2 * spacing_mm)
    assert error.evidence["expected_mm"] == pytest.approx(spacing_mm)


@pytest.mark.parametrize(
    ("break_series", "code"),
    [
        (phantoms.duplicate_slice, "GEOM_DUPLICATE_SLICE"),
        (phantoms.uneven_gap, "GEOM_UNEVEN_GAP"),
        (phantoms.growing_gap, "GEOM_UNEVEN_GAP"),
        (phantoms.mixed_orientation, "GEOM_MIXED_ORIENTATION"),
        (phantoms.mixed_matrix, "GEOM_MIXED_MATRIX"),
        (phantoms.mixed_spacing, "GEOM_MIXED_MATRIX"),
        (phantoms.sheared, "GEOM_SHEARED"),
        (phantoms.constant_image, "IMAGE_CONSTANT"),
        (phantoms.multi_frame, "SERIES_MULTIFRAME_UNSUPPORTED"),
    ],
)
def test_a_broken_series_is_refused_with_its_code(
    break_series: Callable[[list[Path], Path], list[Path]],
    code: str,
    files: list[Path],
    tmp_path: Path,
) -> None:
    assert _refusal(break_series(files, tmp_path)).code == code


def test_a_slice_of_another_frame_of_reference_is_refused(
    files: list[Path], tmp_path: Path
) -> None:
    error = _refusal(phantoms.other_frame_of_reference(files, tmp_path, index=3))
    assert error.code == "GEOM_FRAME_OF_REFERENCE"
    assert str(error) == f"2 frames of reference among {len(files)} slices, expected one"


def test_a_series_without_frame_of_reference_is_a_volume_in_no_frame(
    files: list[Path], tmp_path: Path
) -> None:
    bare = phantoms.edited(files, tmp_path, lambda _, ds: ds.__delattr__("FrameOfReferenceUID"))
    assert series.stack(bare).grid.frame_of_reference_uid == ""


def test_two_slices_are_too_few_and_three_are_enough(files: list[Path]) -> None:
    error = _refusal(files[:2])
    assert error.code == "GEOM_TOO_FEW_SLICES"
    assert error.evidence == {"slice_count": 2, "minimum": 3}
    assert series.stack(files[:3], limits=None).grid.shape[0] == 3


def test_an_even_stack_that_is_no_head_is_refused(files: list[Path]) -> None:
    error = _refusal(files[:3])
    assert error.code == "GEOM_TOO_FEW_SLICES"
    assert error.evidence["minimum"] == gate.DEFAULT.fewest_slices


def test_no_instance_at_all_is_too_few() -> None:
    assert _refusal([]).code == "GEOM_TOO_FEW_SLICES"


def test_frames_that_are_described_and_not_counted_are_refused(
    files: list[Path], tmp_path: Path
) -> None:
    def edit(_: int, ds: Dataset) -> None:
        ds.PerFrameFunctionalGroupsSequence = [Dataset()]

    assert _refusal(phantoms.edited(files, tmp_path, edit)).code == "SERIES_MULTIFRAME_UNSUPPORTED"


def test_more_voxels_than_memory_should_hold_are_refused(files: list[Path]) -> None:
    headers = series.read_headers(files)
    for header in headers:
        header.Rows = header.Columns = 65535
    with pytest.raises(InputRejectedError) as caught:
        series.stack_headers(headers, files)
    assert caught.value.code == "GEOM_TOO_LARGE"


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("Rows", 0),
        ("PixelSpacing", [0.0, 1.0]),
        ("PixelSpacing", [-1.0, 1.0]),
        ("PixelSpacing", [1.0, 1.0, 1.0]),
        ("ImageOrientationPatient", [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
        ("ImagePositionPatient", [1.0, 2.0]),
        ("ImagePositionPatient", [1e300, 0.0, 0.0]),
    ],
)
def test_an_unusable_value_is_named_by_keyword_and_instance(
    keyword: str, value: object, files: list[Path]
) -> None:
    headers = series.read_headers(files)
    setattr(headers[5], keyword, value)
    with pytest.raises(InputRejectedError) as caught:
        series.stack_headers(headers, files)
    assert caught.value.code == "DICOM_ATTRIBUTE_MISSING"
    assert caught.value.evidence == {"keyword": keyword, "instance": 5}


@pytest.mark.parametrize("keyword", GEOMETRY[:5])
def test_an_absent_attribute_is_named(keyword: str, files: list[Path], tmp_path: Path) -> None:
    error = _refusal(phantoms.edited(files, tmp_path, lambda _, ds: ds.__delattr__(keyword)))
    assert error.code == "DICOM_ATTRIBUTE_MISSING"
    assert error.evidence["keyword"] == keyword


def test_a_frame_of_reference_that_is_no_uid_is_refused(files: list[Path]) -> None:
    headers = series.read_headers(files)
    element = DataElement(Tag("FrameOfReferenceUID"), "LO", "../../etc/passwd")
    headers[0][element.tag] = element
    with pytest.raises(InputRejectedError) as caught:
        series.stack_headers(headers, files)
    assert caught.value.evidence == {"keyword": "FrameOfReferenceUID", "instance": 0}


@pytest.mark.parametrize("value", ["nan", "inf", "1e308", "0x10", "1_0", "one", "1\\2"])
def test_a_rescale_that_is_no_usable_number_is_refused(value: str, files: list[Path]) -> None:
    headers = series.read_headers(files)
    headers[2][Tag("RescaleSlope")] = DataElement(Tag("RescaleSlope"), "LO", value)
    with pytest.raises(InputRejectedError) as caught:
        series.load(series.stack_headers(headers, files), "t1")
    assert caught.value.evidence == {"keyword": "RescaleSlope", "instance": 2}


def test_the_largest_values_that_are_accepted_stay_finite(
    files: list[Path], tmp_path: Path
) -> None:
    def edit(index: int, ds: Dataset) -> None:
        ds.BitsAllocated = ds.BitsStored = 32
        ds.HighBit = 31
        ds.PixelData = np.full((ds.Rows, ds.Columns), 2**32 - 1 - 1000 * index, "<u4").tobytes()
        ds.RescaleSlope, ds.RescaleIntercept = 1000000, 1000000

    stack = series.stack(phantoms.edited(files, tmp_path, edit))
    volume = series.load(stack, "t1", limits=None)
    assert volume.intensities.max() == np.float32((2**32 - 1) * 1e6 + 1e6)


def test_a_text_file_among_the_instances_is_refused(files: list[Path], tmp_path: Path) -> None:
    note = tmp_path / "note.dcm"
    note.write_text("no DICOM here")
    error = _refusal([*files, note])
    assert error.code == "DICOM_UNREADABLE"
    assert error.evidence == {"instance": len(files), "reason": "InvalidDicomError"}


def test_a_file_that_is_gone_is_not_the_senders_fault(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        series.stack([*files, tmp_path / "gone.dcm"])


hostile_words = st.one_of(
    st.sampled_from(["", "nan", "-inf", "1e999", "1_0", "0", "-1", "0x10", "1,5", "..", "a\\b"]),
    st.floats(allow_nan=True, allow_infinity=True).map(str),
    st.integers(-(2**70), 2**70).map(str),
    st.text(max_size=6),
)


def _hostile_element(draw: st.DrawFn, keyword: str) -> DataElement:
    representation = draw(st.sampled_from(["DS", "LO", "UT", "US", "FD", "OB", "SQ"]))
    tag = Tag(keyword)
    if representation == "US":
        return DataElement(tag, "US", draw(st.integers(0, 65535)))
    if representation == "FD":
        return DataElement(tag, "FD", draw(st.floats()))
    if representation == "OB":
        return DataElement(tag, "OB", draw(st.binary(max_size=9)))
    if representation == "SQ":
        return DataElement(tag, "SQ", [Dataset()])
    values = draw(st.lists(hostile_words, max_size=7))
    return DataElement(tag, "LO", MultiValue(str, values), already_converted=True)


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_hostile_values_end_in_a_coded_error(files: list[Path], data: st.DataObject) -> None:
    headers = series.read_headers(files[:4])
    for _ in range(data.draw(st.integers(1, 3))):
        header = headers[data.draw(st.integers(0, 3))]
        keyword = data.draw(st.sampled_from(GEOMETRY))
        element = st.composite(_hostile_element)(keyword)
        header[Tag(keyword)] = data.draw(element)
    outcome = _outcome(lambda: series.stack_headers(headers, files[:4]))
    assert outcome == "a volume" or "_" in outcome


def _outcome(read: Callable[[], Stack]) -> str:
    """Return the code of the refusal; anything but a refusal passes through."""
    try:
        series.load(read(), "t1")
    except ConversionError as error:
        return f"{error.code}: {error}"
    return "a volume"


@pytest.mark.filterwarnings("ignore")  # pydicom's own complaints; production logs only their place
@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_mangled_bytes_end_in_a_coded_error(
    files: list[Path], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(files[1].read_bytes())
    head = content.index(b"\xe0\x7f\x10\x00") + 12
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(128, head))
        junk = data.draw(st.binary(min_size=1, max_size=8))
        content[at : at + len(junk)] = junk
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(content))))
    mangled = tmp_path_factory.mktemp("mangled") / "x.dcm"
    mangled.write_bytes(bytes(content[:cut]))
    outcome = _outcome(lambda: series.stack([files[0], mangled, *files[2:4]]))
    assert outcome == "a volume" or "_" in outcome


def test_reading_does_not_depend_on_pydicoms_settings(files: list[Path]) -> None:
    with config.disable_value_validation():
        relaxed = series.stack(files)
    assert relaxed.grid.is_same_place(series.stack(files).grid, tolerance_mm=0.0)
