"""Segments that overlap, probabilities and label maps come back, and the gate sees defects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from converters.errors import ReadBackError
from converters.seg_forms import build_label_map, build_layers, check_label_map, check_layers
from converters.volume import LabelMap, Layers, Shape
from tests.seg_examples import (
    EVEN,
    IDENTITY,
    ODD,
    SEGMENTS,
    as_frames,
    label_map,
    oblique_grid,
    read_sources,
    some_labels,
    written,
)

Damage = Callable[[Dataset], None]


@pytest.fixture(params=[EVEN, ODD], ids=["even", "odd"])
def sources(request: pytest.FixtureRequest, tmp_path: Path) -> list[Dataset]:
    return read_sources(tmp_path / "series", request.param)


@pytest.fixture
def shape(sources: list[Dataset]) -> Shape:
    return len(sources), sources[0].Rows, sources[0].Columns


def layers(values: NDArray[np.uint8], most: int) -> Layers:
    grid = oblique_grid((values.shape[1], values.shape[2], values.shape[3]))
    return Layers(values=values, most=most, grid=grid, segments=SEGMENTS, model_id="some-model@1")


def masks(shape: Shape) -> Layers:
    """Return two masks, the second within the first."""
    labels = some_labels(shape)
    return layers(np.stack([labels > 0, labels == 2], dtype=np.uint8), 1)


def probabilities(shape: Shape) -> Layers:
    values = np.random.default_rng(3).integers(0, 256, (2, *shape)).astype(np.uint8)
    values[:, 0] = 0
    return layers(values, 255)


def by_highdicom(seg: Dataset, sources: list[Dataset]) -> NDArray[np.float64]:
    """Return (slices, rows, columns, segments) as another reader has them."""
    read = hd.seg.Segmentation.from_dataset(seg).get_pixels_by_source_instance(
        [one.SOPInstanceUID for one in sources], assert_missing_frames_are_empty=True
    )
    return np.asarray(read, np.float64)


@pytest.mark.parametrize("make", [masks, probabilities])
def test_each_layer_comes_back_as_it_was(
    make: Callable[[Shape], Layers], sources: list[Dataset], shape: Shape, tmp_path: Path
) -> None:
    given = make(shape)
    path = written(build_layers(given, sources, IDENTITY), tmp_path / "seg.dcm")
    check_layers(path, given, sources)
    seg = pydicom.dcmread(path)
    assert seg.SegmentsOverlap == "YES"
    expected = np.moveaxis(given.values, 0, -1) / given.most
    assert np.abs(by_highdicom(seg, sources) - expected).max() <= 0.5 / 255
    again = written(build_layers(given, sources, IDENTITY), tmp_path / "again.dcm")
    assert again.read_bytes() == path.read_bytes()


def test_probabilities_are_named_as_such(sources: list[Dataset], shape: Shape) -> None:
    seg = build_layers(probabilities(shape), sources, IDENTITY)
    assert (seg.SegmentationType, seg.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    assert (seg.MaximumFractionalValue, seg.BitsAllocated) == (255, 8)


@pytest.mark.parametrize("most", [1, 255])
def test_layers_without_anything_are_written_too(
    most: int, sources: list[Dataset], shape: Shape, tmp_path: Path
) -> None:
    nothing = layers(np.zeros((2, *shape), np.uint8), most)
    path = written(build_layers(nothing, sources, IDENTITY), tmp_path / "seg.dcm")
    check_layers(path, nothing, sources)
    assert pydicom.dcmread(path).NumberOfFrames == 2 * shape[0]


def test_segments_are_tracked_by_the_names_that_were_given(
    sources: list[Dataset], shape: Shape
) -> None:
    named = replace(IDENTITY, tracking_names={1: "Whole tumour"})
    seg = build_layers(masks(shape), sources, named)
    assert [one.TrackingID for one in seg.SegmentSequence] == [
        "some-model@1/Whole tumour",
        "some-model@1/2",
    ]


def test_layers_on_frames_of_an_enhanced_instance_name_them(tmp_path: Path) -> None:
    flat, frames = as_frames(read_sources(tmp_path / "series", EVEN), 9)
    given = masks(EVEN)
    path = written(build_layers(given, flat, IDENTITY, frames), tmp_path / "seg.dcm")
    check_layers(path, given, flat, frames)


def test_a_label_map_comes_back_as_it_was(
    sources: list[Dataset], shape: Shape, tmp_path: Path
) -> None:
    for labels in (some_labels(shape), np.zeros(shape, np.uint8)):
        given = label_map(labels)
        path = written(build_label_map(given, sources, IDENTITY), tmp_path / "seg.dcm")
        check_label_map(path, given, sources)
        read = hd.seg.segread(path).get_pixels_by_source_instance(
            [one.SOPInstanceUID for one in sources],
            combine_segments=True,
            assert_missing_frames_are_empty=True,
        )
        assert np.array_equal(read, labels)


def overlap_unsaid(seg: Dataset) -> None:
    seg.SegmentsOverlap = "NO"


def other_kind(seg: Dataset) -> None:
    seg.SegmentationType = "LABELMAP"


def lose_frame_source(seg: Dataset) -> None:
    del seg.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence


def other_voxel(seg: Dataset) -> None:
    first = seg.PixelData[0]
    seg.PixelData = bytes([first - 1 if first else 1]) + seg.PixelData[1:]


def other_segment(seg: Dataset) -> None:
    seg.SegmentSequence[-1].SegmentLabel = "Edema"


def foreign_number(seg: Dataset) -> None:
    group = seg.PerFrameFunctionalGroupsSequence[0]
    group.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 3


def other_maximum(seg: Dataset) -> None:
    seg.MaximumFractionalValue = 200


def occupancy(seg: Dataset) -> None:
    seg.SegmentationFractionalType = "OCCUPANCY"


def no_background(seg: Dataset) -> None:
    seg.SegmentSequence[0].SegmentNumber = 4


def no_padding(seg: Dataset) -> None:
    del seg.PixelPaddingValue


def unknown_label(seg: Dataset) -> None:
    seg.PixelData = b"\x03" + seg.PixelData[1:]


def twice(seg: Dataset) -> None:
    groups = seg.PerFrameFunctionalGroupsSequence
    groups[1].DerivationImageSequence = groups[0].DerivationImageSequence
    groups[1].PlanePositionSequence = groups[0].PlanePositionSequence


_OF_ALL: list[tuple[Damage, str]] = [
    (lose_frame_source, "one source image for a frame"),
    (other_segment, "SegmentLabel"),
]


def refused(
    seg: Dataset, damage: Damage, folder: Path, check: Callable[[Path], None], reason: str
) -> None:
    check(written(seg, folder / "good.dcm"))
    broken = pydicom.dcmread(folder / "good.dcm")
    damage(broken)
    with pytest.raises(ReadBackError) as found:
        check(written(broken, folder / "bad.dcm"))
    assert found.value.evidence == {"reason": reason}


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        *_OF_ALL,
        (overlap_unsaid, "SegmentsOverlap"),
        (other_kind, "SegmentationType"),
        (other_voxel, "segment 1"),
        (foreign_number, "ReferencedSegmentNumber"),
    ],
)
def test_the_gate_sees_masks_that_differ(damage: Damage, reason: str, tmp_path: Path) -> None:
    sources, given = read_sources(tmp_path / "series", EVEN), masks(EVEN)
    seg = build_layers(given, sources, IDENTITY)
    refused(seg, damage, tmp_path, lambda path: check_layers(path, given, sources), reason)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        *_OF_ALL,
        (other_voxel, "segment 1"),
        (other_maximum, "MaximumFractionalValue"),
        (occupancy, "SegmentationFractionalType"),
    ],
)
def test_the_gate_sees_probabilities_that_differ(
    damage: Damage, reason: str, tmp_path: Path
) -> None:
    sources, given = read_sources(tmp_path / "series", ODD), probabilities(ODD)
    seg = build_layers(given, sources, IDENTITY)
    refused(seg, damage, tmp_path, lambda path: check_layers(path, given, sources), reason)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lose_frame_source, "one source image for a frame"),
        (other_segment, "SegmentLabel"),
        (other_voxel, "labels"),
        (no_background, "background"),
        (no_padding, "PixelPaddingValue"),
        (unknown_label, "values of PixelData"),
        (twice, "a frame stands twice"),
    ],
)
def test_the_gate_sees_label_maps_that_differ(damage: Damage, reason: str, tmp_path: Path) -> None:
    sources = read_sources(tmp_path / "series", EVEN)
    given: LabelMap = label_map(some_labels(EVEN))
    seg = build_label_map(given, sources, IDENTITY)
    refused(seg, damage, tmp_path, lambda path: check_label_map(path, given, sources), reason)
