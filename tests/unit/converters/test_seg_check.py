"""The gate behind the encoder sees every defect that viewers would pay for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from converters.errors import ReadBackError
from converters.seg import build_segmentation
from converters.seg_check import check_segmentation, read_labels
from tests.seg_examples import (
    EVEN,
    IDENTITY,
    ODD,
    as_frames,
    label_map,
    read_sources,
    round_trip,
    some_labels,
    written,
)


@pytest.fixture
def even_sources(tmp_path: Path) -> list[Dataset]:
    return read_sources(tmp_path / "even", EVEN)


def first_frame(seg: Dataset) -> Dataset:
    frame: Dataset = seg.PerFrameFunctionalGroupsSequence[0]
    return frame


def shared(seg: Dataset) -> Dataset:
    groups: Dataset = seg.SharedFunctionalGroupsSequence[0]
    return groups


def lose_source(seg: Dataset) -> None:
    del first_frame(seg).DerivationImageSequence


def two_sources(seg: Dataset) -> None:
    images = first_frame(seg).DerivationImageSequence[0].SourceImageSequence
    images.append(copy.deepcopy(images[0]))


def foreign_source(seg: Dataset) -> None:
    image = first_frame(seg).DerivationImageSequence[0].SourceImageSequence[0]
    image.ReferencedSOPInstanceUID = "2.25.5"


def next_source(seg: Dataset) -> None:
    frames = seg.PerFrameFunctionalGroupsSequence
    frames[0].DerivationImageSequence = frames[1].DerivationImageSequence


def shift_plane(seg: Dataset) -> None:
    position = first_frame(seg).PlanePositionSequence[0].ImagePositionPatient
    position[0] = float(position[0]) + 0.001


def lose_plane(seg: Dataset) -> None:
    del first_frame(seg).PlanePositionSequence


def turn_plane(seg: Dataset) -> None:
    cosines = shared(seg).PlaneOrientationSequence[0].ImageOrientationPatient
    cosines[:] = [*cosines[3:], *cosines[:3]]


def lose_orientation(seg: Dataset) -> None:
    del shared(seg).PlaneOrientationSequence


def lose_measures(seg: Dataset) -> None:
    del shared(seg).PixelMeasuresSequence


def stretch(seg: Dataset) -> None:
    shared(seg).PixelMeasuresSequence[0].PixelSpacing = [1.0, 1.0]


def other_segment(seg: Dataset) -> None:
    first_frame(seg).SegmentIdentificationSequence[0].ReferencedSegmentNumber = 3


def swapped_segment(seg: Dataset) -> None:
    first_frame(seg).SegmentIdentificationSequence[0].ReferencedSegmentNumber = 2


def repeat_frame(seg: Dataset) -> None:
    frames = seg.PerFrameFunctionalGroupsSequence
    frames[1] = frames[0]


def lose_segment_of_frame(seg: Dataset) -> None:
    del first_frame(seg).SegmentIdentificationSequence


def second_series(seg: Dataset) -> None:
    seg.ReferencedSeriesSequence.append(copy.deepcopy(seg.ReferencedSeriesSequence[0]))


def other_series(seg: Dataset) -> None:
    seg.ReferencedSeriesSequence[0].SeriesInstanceUID = "2.25.6"


def lose_reference(seg: Dataset) -> None:
    seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence.pop()


def flip_voxel(seg: Dataset) -> None:
    content = bytearray(seg.PixelData)
    content[0] ^= 1
    seg.PixelData = bytes(content)


def shorten(seg: Dataset) -> None:
    seg.PixelData = seg.PixelData[:8]


def lose_segment(seg: Dataset) -> None:
    seg.SegmentSequence.pop()


def rename_segment(seg: Dataset) -> None:
    seg.SegmentSequence[0].SegmentLabel = "Other"


def renumber_segment(seg: Dataset) -> None:
    seg.SegmentSequence[0].SegmentNumber = 7


def recode_segment(seg: Dataset) -> None:
    seg.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeValue = "1"


def lose_color(seg: Dataset) -> None:
    del seg.SegmentSequence[1].RecommendedDisplayCIELabValue


def lose_last_frame_item(seg: Dataset) -> None:
    seg.PerFrameFunctionalGroupsSequence.pop()


def with_attribute(keyword: str, value: object) -> Callable[[Dataset], None]:
    return lambda seg: setattr(seg, keyword, value)


DEFECTS: list[tuple[Callable[[Dataset], None], str]] = [
    (lose_source, "one source image for a frame"),
    (two_sources, "one source image for a frame"),
    (foreign_source, "source image of a frame"),
    (next_source, "ImagePositionPatient of a frame"),
    (shift_plane, "ImagePositionPatient of a frame"),
    (lose_plane, "PlanePositionSequence"),
    (turn_plane, "ImageOrientationPatient of a frame"),
    (lose_orientation, "PlaneOrientationSequence"),
    (lose_measures, "PixelMeasuresSequence"),
    (stretch, "PixelSpacing"),
    (other_segment, "ReferencedSegmentNumber"),
    (swapped_segment, "labels"),
    (repeat_frame, "a frame stands twice"),
    (lose_segment_of_frame, "segment of a frame"),
    (second_series, "ReferencedSeriesSequence"),
    (other_series, "referenced series"),
    (lose_reference, "ReferencedInstanceSequence"),
    (flip_voxel, "labels"),
    (shorten, "length of PixelData"),
    (lose_segment, "SegmentSequence"),
    (rename_segment, "SegmentLabel"),
    (renumber_segment, "SegmentNumber"),
    (recode_segment, "segmented property"),
    (lose_color, "RecommendedDisplayCIELabValue is absent"),
    (lose_last_frame_item, "PerFrameFunctionalGroupsSequence"),
    (with_attribute("PatientName", "Phantom^Bj?rn"), "PatientName"),
    (with_attribute("PatientID", "OTHER"), "PatientID"),
    (with_attribute("StudyInstanceUID", "2.25.4"), "StudyInstanceUID"),
    (with_attribute("FrameOfReferenceUID", "2.25.4"), "FrameOfReferenceUID"),
    (with_attribute("Modality", "MR"), "Modality"),
    (with_attribute("SegmentationType", "LABELMAP"), "SegmentationType"),
    (with_attribute("SeriesDescription", ""), "SeriesDescription is absent"),
]


@pytest.mark.parametrize(("spoil", "reason"), DEFECTS)
def test_the_gate_sees_a_defect(
    even_sources: list[Dataset],
    tmp_path: Path,
    spoil: Callable[[Dataset], None],
    reason: str,
) -> None:
    labels = np.zeros(EVEN, np.uint8)
    labels[1, 2:5, 2:4], labels[1, 6, 1:4], labels[2, 3, 3] = 1, 2, 1
    given_labels = label_map(labels)
    seg = round_trip(even_sources, tmp_path, given_labels)
    spoil(seg)
    with pytest.raises(ReadBackError) as refused:
        check_segmentation(written(seg, tmp_path / "bad.dcm"), given_labels, even_sources)
    assert refused.value.evidence == {"reason": reason}


def test_labels_are_read_back_as_they_were_written(
    even_sources: list[Dataset], tmp_path: Path
) -> None:
    labels = some_labels(EVEN)
    flat, frames = as_frames(even_sources, len(even_sources))
    round_trip(even_sources, tmp_path, label_map(labels))
    assert np.array_equal(read_labels(tmp_path / "seg.dcm", even_sources), labels)
    round_trip(flat, tmp_path, label_map(labels), frames=frames)
    assert np.array_equal(read_labels(tmp_path / "seg.dcm", flat, frames), labels)


def other_frame(image: Dataset) -> None:
    image.ReferencedFrameNumber = 9


def next_frame(image: Dataset) -> None:
    image.ReferencedFrameNumber += 1


def two_frames(image: Dataset) -> None:
    image.ReferencedFrameNumber = [3, 4]


def lose_frame(image: Dataset) -> None:
    del image.ReferencedFrameNumber


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (other_frame, "source image of a frame"),
        (next_frame, "ImagePositionPatient of a frame"),
        (two_frames, "one source frame for a frame"),
        (lose_frame, "source image of a frame"),
    ],
)
def test_the_gate_sees_a_wrong_frame_of_an_enhanced_source(
    even_sources: list[Dataset],
    tmp_path: Path,
    spoil: Callable[[Dataset], None],
    reason: str,
) -> None:
    flat, frames = as_frames(even_sources, len(even_sources))
    given_labels = label_map(some_labels(EVEN))
    seg = round_trip(flat, tmp_path, given_labels, frames=frames)
    spoil(first_frame(seg).DerivationImageSequence[0].SourceImageSequence[0])
    with pytest.raises(ReadBackError) as refused:
        check_segmentation(written(seg, tmp_path / "bad.dcm"), given_labels, flat, frames)
    assert refused.value.evidence == {"reason": reason}


def test_the_gate_sees_segments_that_overlap(even_sources: list[Dataset], tmp_path: Path) -> None:
    labels = np.zeros(EVEN, np.uint8)
    labels[1, 2, 2], labels[1, 2, 3] = 1, 2
    given_labels = label_map(labels)
    seg = round_trip(even_sources, tmp_path, given_labels)
    half = len(seg.PixelData) // 2
    seg.PixelData = seg.PixelData[:half] * 2
    with pytest.raises(ReadBackError, match="segments overlap"):
        check_segmentation(written(seg, tmp_path / "bad.dcm"), given_labels, even_sources)


def test_the_gate_sees_grey_occupancies(tmp_path: Path) -> None:
    sources = read_sources(tmp_path / "odd", ODD)
    given_labels = label_map(some_labels(ODD))
    seg = round_trip(sources, tmp_path, given_labels)
    seg.PixelData = b"\x02" + seg.PixelData[1:]
    with pytest.raises(ReadBackError, match="values of PixelData"):
        check_segmentation(written(seg, tmp_path / "bad.dcm"), given_labels, sources)


def test_the_gate_sees_another_transfer_syntax(even_sources: list[Dataset], tmp_path: Path) -> None:
    given_labels = label_map(some_labels(EVEN))
    seg = build_segmentation(given_labels, even_sources, IDENTITY)
    seg.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    seg.save_as(tmp_path / "bad.dcm", implicit_vr=True, little_endian=True)
    with pytest.raises(ReadBackError, match="TransferSyntaxUID"):
        check_segmentation(tmp_path / "bad.dcm", given_labels, even_sources)


def test_the_gate_sees_a_file_that_is_no_dicom(even_sources: list[Dataset], tmp_path: Path) -> None:
    (tmp_path / "bad.dcm").write_bytes(b"not a DICOM file" * 20)
    with pytest.raises(ReadBackError, match="cannot be read"):
        check_segmentation(tmp_path / "bad.dcm", label_map(some_labels(EVEN)), even_sources)
