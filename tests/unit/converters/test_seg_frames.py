"""A Segmentation of multi-frame sources names the frames."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from converters.volume import Shape
from tests.seg_examples import (
    EVEN,
    ODD,
    as_frames,
    label_map,
    read_sources,
    round_trip,
    some_labels,
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


@pytest.mark.parametrize("further", [0, 3])
def test_frames_of_an_enhanced_instance_are_named_by_number(
    sources: list[Dataset], shape: Shape, tmp_path: Path, further: int
) -> None:
    flat, frames = as_frames(sources, shape[0] + further)
    seg = round_trip(flat, tmp_path, label_map(some_labels(shape)), frames=frames)
    for group in seg.PerFrameFunctionalGroupsSequence:
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        assert image.ReferencedSOPInstanceUID == "2.25.4711"
        position = group.PlanePositionSequence[0].ImagePositionPatient
        source = flat[frames.index(image.ReferencedFrameNumber)]
        assert np.allclose(position, source.ImagePositionPatient, atol=1e-6)
    (instance,) = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert instance.ReferencedSOPClassUID == flat[0].SOPClassUID
    (image,) = seg.SourceImageSequence
    assert image.get("ReferencedFrameNumber") == (sorted(frames) if further else None)


def test_frames_and_classic_slices_may_be_mixed(
    even_sources: list[Dataset], tmp_path: Path
) -> None:
    flat, frames = as_frames(even_sources[2:], 2)
    mixed = [*even_sources[:2], *flat]
    seg = round_trip(mixed, tmp_path, label_map(some_labels(EVEN)), frames=[0, 0, *frames])
    referenced = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    classic = [one.SOPInstanceUID for one in even_sources[:2]]
    assert [one.ReferencedSOPInstanceUID for one in referenced] == [*classic, "2.25.4711"]
    numbers = {
        image.ReferencedSOPInstanceUID: image.get("ReferencedFrameNumber")
        for group in seg.PerFrameFunctionalGroupsSequence
        for image in group.DerivationImageSequence[0].SourceImageSequence
    }
    assert numbers[classic[1]] is None
    assert numbers["2.25.4711"] in (1, 2)
