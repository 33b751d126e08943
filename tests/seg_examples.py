"""Small label maps, their sources and an identity, for the tests of Segmentations."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage

from converters.mr_writer import write_series
from converters.seg import SegIdentity, build_segmentation, check_segmentation
from converters.volume import Code, Grid, LabelMap, Segment, Shape, Volume

CATEGORY = Code(value="49755003", scheme="SCT", meaning="Morphologically Abnormal Structure")
EDEMA = Code(value="79654002", scheme="SCT", meaning="Edema")
ENHANCING = Code(value="C113842", scheme="NCIt", meaning="Enhancing Lesion")
SEGMENTS = (
    Segment(number=1, label="Edema", category=CATEGORY, type_code=EDEMA, color_rgb=(255, 217, 61)),
    Segment(
        number=2, label="Enhancing", category=CATEGORY, type_code=ENHANCING, color_rgb=(255, 72, 72)
    ),
)
EVEN, ODD = (4, 8, 6), (4, 9, 7)
IDENTITY = SegIdentity(
    sop_instance_uid="2.25.1001",
    series_instance_uid="2.25.1002",
    dimension_organization_uid="2.25.1003",
    tracking_uids={1: "2.25.1004", 2: "2.25.1005"},
    series_number=9001,
    series_description="AI tumour seg. DEMO MODEL - research use only",
    content_description="Some model",
    algorithm_name="some-model",
    algorithm_version="1.2.3",
    device_serial_number="0123456789abcdef",
    software_versions=("0.1.0", "some-model@1.2.3"),
    created_at=datetime(2025, 3, 1, 22, 30, 5, tzinfo=UTC),
    segment_descriptions={1: "Oedema around the core"},
)


def oblique_grid(shape: Shape) -> Grid:
    """Return a grid turned in all three angles."""
    turn = np.linalg.qr(np.random.default_rng(5).standard_normal((3, 3)))[0]
    right, down = turn[:, 0], turn[:, 1]
    matrix = np.eye(4)
    matrix[:3, :3] = np.column_stack([np.cross(right, down) * 3.3, down * 0.9, right * 0.8])
    matrix[:3, 3] = [-31.25, 17.5, 42.125]
    return Grid(shape=shape, index_to_lps_mm=matrix, frame_of_reference_uid="2.25.77")


def some_labels(shape: Shape) -> NDArray[np.uint8]:
    """Return labels that leave three of eight frames of a 4-slice map empty."""
    labels = np.random.default_rng(1).integers(0, 3, shape).astype(np.uint8)
    labels[0] = 0
    labels[1][labels[1] == 2] = 0
    return labels


def label_map(labels: NDArray[np.uint8]) -> LabelMap:
    """Return labels on the oblique grid."""
    return LabelMap(
        labels=labels,
        grid=oblique_grid(labels.shape),
        segments=SEGMENTS,
        model_id="some-model@1.2.3",
    )


def read_sources(folder: Path, shape: Shape) -> list[Dataset]:
    """Write a series on the oblique grid and return its headers in slice order."""
    rng = np.random.default_rng(2)
    volume = Volume(
        intensities=rng.integers(0, 4095, shape).astype(np.float32),
        grid=oblique_grid(shape),
        role="t1gd",
    )
    paths = write_series(volume, folder)
    return [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]


def as_frames(sources: Sequence[Dataset], count: int) -> tuple[list[Dataset], list[int]]:
    """Return the headers as those of the last frames of one enhanced instance, and their numbers.

    `count` says how many frames it has.
    """
    flat = copy.deepcopy(list(sources))
    for one in flat:
        one.SOPClassUID, one.SOPInstanceUID = EnhancedMRImageStorage, "2.25.4711"
        one.NumberOfFrames = count
    return flat, list(range(count, count - len(flat), -1))


def written(seg: Dataset, path: Path) -> Path:
    """Save an object and return where."""
    seg.save_as(path, enforce_file_format=True)
    return path


def round_trip(
    sources: Sequence[Dataset],
    folder: Path,
    labels: LabelMap,
    identity: SegIdentity = IDENTITY,
    frames: Sequence[int] = (),
) -> Dataset:
    """Build, write, check and read back."""
    path = written(build_segmentation(labels, sources, identity, frames), folder / "seg.dcm")
    check_segmentation(path, labels, sources, frames)
    return pydicom.dcmread(path)
