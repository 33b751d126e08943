"""What others make of the other forms of our Segmentation: a validator, a reader, an archive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from converters import series
from converters.seg_forms import build_label_map, build_layers, check_label_map, check_layers
from converters.volume import LabelMap, Layers
from tests import enhanced, peers
from tests.conformance.test_seg_iod import IDENTITY, SEGMENTS, complaints
from tests.phantoms import WrittenStudy

MODEL_ID = "some-model@1.2.3"
UNKNOWN_TO_2022 = (  # the validator of 2022 is older than the IOD
    "Object Not found",
    "SegmentNumber",
    "Segment Number",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Written:
    """A Segmentation on disk and what each segment of it is, 0 to 1."""

    path: Path
    expected: NDArray[np.float64]
    source_file: Path
    sources: tuple[Dataset, ...]
    frames: tuple[int, ...]


def layers_of(labels: NDArray[np.uint8], form: str) -> tuple[NDArray[np.uint8], int]:
    masks = np.stack([labels > 0, labels >= 2, labels == 3], dtype=np.uint8)
    if form == "regions":
        return masks, 1
    noise = np.random.default_rng(0).integers(1, 256, masks.shape)
    return (masks * noise).astype(np.uint8), 255


@pytest.fixture(scope="module", params=["classic", "enhanced"])
def files(
    request: pytest.FixtureRequest,
    small_study: WrittenStudy,
    tmp_path_factory: pytest.TempPathFactory,
) -> list[Path]:
    classic = list(small_study.files.paths["t1gd"])
    if request.param == "classic":
        return classic
    frames = enhanced.odd_order(enhanced.frames(classic, echo_time_ms=92.0))
    return [enhanced.enhanced(frames, tmp_path_factory.mktemp("source") / "enhanced.dcm")]


@pytest.fixture(scope="module", params=["regions", "probabilities", "labelmap"])
def example(
    request: pytest.FixtureRequest,
    files: list[Path],
    small_study: WrittenStudy,
    tmp_path_factory: pytest.TempPathFactory,
) -> Written:
    labels = np.array(small_study.study.truth["t1gd"])
    stack = series.stack(files, "", limits=None)
    headers, frames = stack.headers, stack.frames
    check: Callable[[Path], None]
    if request.param == "labelmap":
        given = LabelMap(labels=labels, grid=stack.grid, segments=SEGMENTS, model_id=MODEL_ID)
        seg = build_label_map(given, headers, IDENTITY, frames)
        check = partial(check_label_map, label_map=given, sources=headers, frames=frames)
        expected = np.stack([labels == one.number for one in SEGMENTS]).astype(np.float64)
    else:
        values, most = layers_of(labels, request.param)
        layers = Layers(
            values=values, most=most, grid=stack.grid, segments=SEGMENTS, model_id=MODEL_ID
        )
        seg = build_layers(layers, headers, IDENTITY, frames)
        check = partial(check_layers, layers=layers, sources=headers, frames=frames)
        expected = values / most
    path = tmp_path_factory.mktemp(request.param) / "seg.dcm"
    seg.save_as(path, enforce_file_format=True)
    check(path)
    return Written(
        path=path, expected=expected, source_file=files[0], sources=headers, frames=frames
    )


def test_the_validator_finds_nothing_that_the_source_did_not_have(example: Written) -> None:
    seg = hd.seg.segread(example.path)
    if seg.SegmentationType == "LABELMAP":
        told = [line for line in peers.dciodvfy(example.path) if line.startswith("Error")]
        assert all(any(word in line for word in UNKNOWN_TO_2022) for line in told)
        return
    found = complaints(example.path)
    assert not any(line.startswith("Error") for line in found)
    assert found <= complaints(example.source_file)


def test_highdicom_reads_every_segment_back(example: Written) -> None:
    seg = hd.seg.segread(example.path)
    numbers = [one.number for one in SEGMENTS]
    for index, (source, frame) in enumerate(zip(example.sources, example.frames, strict=True)):
        expected = example.expected[:, index]
        if frame and not expected.any():
            continue  # it looks for the number among those that are referenced
        read = partial(seg.get_pixels_by_source_instance, [source.SOPInstanceUID])
        if frame:
            read = partial(seg.get_pixels_by_source_frame, source.SOPInstanceUID, [frame])
        found = read(segment_numbers=numbers, assert_missing_frames_are_empty=True)
        off = np.abs(np.moveaxis(np.asarray(found[0], np.float64), -1, 0) - expected)
        assert off.max() <= 0.5 / 255


@pytest.mark.integration
def test_an_archive_keeps_it_as_it_is(example: Written, orthanc: peers.Orthanc) -> None:
    orthanc.upload([example.path])  # by REST: C-STORE of label maps is refused by default
    uid = str(hd.seg.segread(example.path).SOPInstanceUID)
    assert orthanc.instance_bytes(uid) == example.path.read_bytes()
