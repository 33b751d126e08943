"""What others make of our Segmentation: a validator, two other readers, and geometry by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from converters import series
from converters.mr_writer import write_series
from converters.seg import build_segmentation, check_segmentation
from converters.volume import Grid, LabelMap, Shape, Volume
from inference import manifest
from tests import enhanced, peers, seg_examples
from tests.phantoms import WrittenStudy

SEGMENTS = manifest.load(Path(__file__).parents[2] / "models" / "demo-glioma").segments
TRACKING_UIDS = {one.number: f"2.25.{2000 + one.number}" for one in SEGMENTS}
IDENTITY = replace(seg_examples.IDENTITY, tracking_uids=TRACKING_UIDS)
SEGIMAGE2ITKIMAGE = Path(sys.executable).parent / "segimage2itkimage"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Written:
    """A Segmentation on disk with what went into it."""

    path: Path
    label_map: LabelMap
    sources: Sequence[Dataset]
    frames: Sequence[int]
    source_file: Path


def written(
    labels: NDArray[np.uint8], files: Sequence[Path], folder: Path, part: str = ""
) -> Written:
    stack = series.stack(files, part, limits=None)
    label_map = LabelMap(
        labels=labels, grid=stack.grid, segments=SEGMENTS, model_id="some-model@1.2.3"
    )
    seg = build_segmentation(label_map, stack.headers, IDENTITY, stack.frames)
    path = folder / "seg.dcm"
    seg.save_as(path, enforce_file_format=True)
    check_segmentation(path, label_map, stack.headers, stack.frames)
    return Written(
        path=path,
        label_map=label_map,
        sources=stack.headers,
        frames=stack.frames,
        source_file=files[0],
    )


def turned_grid(shape: Shape) -> Grid:
    """Return a grid oblique in all three angles, far from the middle of the patient."""
    turn = np.linalg.qr(np.random.default_rng(11).standard_normal((3, 3)))[0]
    right, down = turn[:, 0], turn[:, 1]
    matrix = np.eye(4)
    matrix[:3, :3] = np.column_stack([np.cross(right, down) * 3.3, down * 0.9, right * 0.7])
    matrix[:3, 3] = [37.123, -81.456, 55.789]
    return Grid(shape=shape, index_to_lps_mm=matrix, frame_of_reference_uid="2.25.2077")


def oblique_lesion(grid: Grid) -> NDArray[np.uint8]:
    """Return three nested ellipsoids, off the middle and oblique to the grid."""
    index = np.moveaxis(np.indices(grid.shape), 0, -1).astype(np.float64)
    middle = grid.lps_mm(np.array(grid.shape) * [0.45, 0.35, 0.62])
    away = (grid.lps_mm(index) - middle) @ np.linalg.qr(
        np.random.default_rng(3).standard_normal((3, 3))
    )[0]
    depth = np.sqrt(np.sum((away / [9.0, 6.0, 4.0]) ** 2, axis=-1))
    labels = np.zeros(grid.shape, np.uint8)
    for number, radius in ((1, 1.0), (3, 0.7), (2, 0.45)):
        labels[depth < radius] = number
    return labels


def turned(shape: Shape, folder: Path) -> Written:
    grid = turned_grid(shape)
    grey = np.random.default_rng(4).integers(0, 4000, shape).astype(np.float32)
    files = write_series(Volume(intensities=grey, grid=grid, role="t1gd"), folder / "series")
    return written(oblique_lesion(grid), files, folder)


def repacked(kind: str, labels: NDArray[np.uint8], files: Sequence[Path], folder: Path) -> Written:
    """Return the Segmentation of the same series, sent as enhanced instances."""
    many = enhanced.odd_order(enhanced.frames(files, echo_time_ms=92.0))
    if kind == "enhanced":
        return written(labels, [enhanced.enhanced(many, folder / "one.dcm")], folder)
    if kind == "one of two echoes":
        both = enhanced.odd_order([*many, *enhanced.frames(files, echo_time_ms=11.0)])
        path = enhanced.enhanced(both, folder / "both.dcm")
        return written(labels, [path], folder, "EchoTime=92")
    if kind == "several enhanced":
        return written(labels, enhanced.instances([many[:9], many[9:]], folder), folder)
    if kind == "one enhanced for each slice":
        return written(labels, enhanced.instances([[one] for one in many], folder), folder)
    return written(labels, [enhanced.legacy_converted(files, folder / "legacy.dcm")], folder)


REPACKED = (
    "enhanced",
    "one of two echoes",
    "several enhanced",
    "one enhanced for each slice",
    "legacy converted",
)


@pytest.fixture(
    scope="module", params=["phantom", "even", "odd", "no enhancing", "empty", *REPACKED]
)
def example(
    request: pytest.FixtureRequest,
    small_study: WrittenStudy,
    tmp_path_factory: pytest.TempPathFactory,
) -> Written:
    folder = tmp_path_factory.mktemp("example")
    if request.param == "even":
        return turned((12, 40, 34), folder)
    if request.param == "odd":
        return turned((12, 41, 33), folder)
    labels = np.array(small_study.study.truth["t1gd"])
    if request.param == "no enhancing":
        labels[labels == 3] = 0
    if request.param == "empty":
        labels[:] = 0
    if request.param in REPACKED:
        return repacked(request.param, labels, small_study.files.paths["t1gd"], folder)
    return written(labels, small_study.files.paths["t1gd"], folder)


def complaints(path: Path) -> set[str]:
    """Return the errors and warnings of dciodvfy."""
    peers.require("dciodvfy")
    told = subprocess.run(
        [str(peers.program("dciodvfy")), "-new", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = (told.stdout + told.stderr).splitlines()
    assert any("Segmentation" in line or "MRImage" in line for line in lines)
    return {line for line in lines if line.startswith(("Error", "Warning"))}


def lps_of_frames(ds: Dataset, number: int) -> NDArray[np.float64]:
    """Return the patient points of a segment by PS3.3 C.7.6.2.1.1, from the object alone."""
    shared = ds.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    down_mm, right_mm = (float(part) for part in shared.PixelMeasuresSequence[0].PixelSpacing)
    frames = np.asarray(ds.pixel_array).reshape(-1, ds.Rows, ds.Columns)
    points = [np.empty((0, 3))]
    for frame, group in zip(frames, ds.PerFrameFunctionalGroupsSequence, strict=True):
        if group.SegmentIdentificationSequence[0].ReferencedSegmentNumber != number:
            continue
        rows, columns = np.nonzero(frame)
        corner = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        points.append(
            corner
            + np.outer(columns * right_mm, cosines[:3])
            + np.outer(rows * down_mm, cosines[3:])
        )
    return np.concatenate(points)


def expected_points(label_map: LabelMap, number: int) -> NDArray[np.float64]:
    return label_map.grid.lps_mm(np.argwhere(label_map.labels == number).astype(np.float64))


def farthest_mm(found: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    """Return the largest distance of two sets of points, each to its nearest in the other."""
    assert len(found) == len(expected)
    if not len(found):
        return 0.0
    order_found, order_expected = (
        np.lexsort(np.round(points, 2).T) for points in (found, expected)
    )
    ordered = np.linalg.norm(found[order_found] - expected[order_expected], axis=1).max()
    if ordered < 0.01:
        return float(ordered)
    distances = np.linalg.norm(found[:, None] - expected[None], axis=2)
    return float(max(distances.min(axis=0).max(), distances.min(axis=1).max()))


def test_the_validator_finds_nothing_that_the_source_did_not_have(example: Written) -> None:
    found = complaints(example.path)
    assert not any(line.startswith("Error") for line in found)
    assert found <= complaints(example.source_file)


def test_the_validator_would_have_seen_a_defect(example: Written, tmp_path: Path) -> None:
    ds = pydicom.dcmread(example.path)
    del ds.SegmentSequence[0].SegmentAlgorithmName
    ds.save_as(tmp_path / "broken.dcm")
    assert any(line.startswith("Error") for line in complaints(tmp_path / "broken.dcm"))


def test_every_labelled_voxel_lies_on_its_patient_point(example: Written) -> None:
    ds = pydicom.dcmread(example.path)
    for segment in SEGMENTS:
        found = lps_of_frames(ds, segment.number)
        assert farthest_mm(found, expected_points(example.label_map, segment.number)) < 0.01


def test_every_frame_names_the_frame_that_it_was_made_from(example: Written) -> None:
    ds = pydicom.dcmread(example.path)
    places = {
        (one.SOPInstanceUID, frame): one.ImagePositionPatient
        for one, frame in zip(example.sources, example.frames, strict=True)
    }
    for group in ds.PerFrameFunctionalGroupsSequence:
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        place = places[image.ReferencedSOPInstanceUID, image.get("ReferencedFrameNumber", 0)]
        assert np.allclose(group.PlanePositionSequence[0].ImagePositionPatient, place, atol=1e-9)


def test_every_source_instance_is_referenced_once(example: Written) -> None:
    ds = pydicom.dcmread(example.path)
    (referenced,) = ds.ReferencedSeriesSequence
    expected = {one.SOPInstanceUID: one.SOPClassUID for one in example.sources}
    for items in (referenced.ReferencedInstanceSequence, ds.SourceImageSequence):
        found = [(one.ReferencedSOPInstanceUID, one.ReferencedSOPClassUID) for one in items]
        assert sorted(found) == sorted(expected.items())
    for item in ds.SourceImageSequence:
        own = [
            frame
            for one, frame in zip(example.sources, example.frames, strict=True)
            if item.ReferencedSOPInstanceUID == one.SOPInstanceUID
        ]
        named = item.get("ReferencedFrameNumber")
        assert named is None or list(named) == sorted(own)


@pytest.mark.parametrize("shape", [(12, 40, 34), (12, 41, 33)], ids=["even", "odd"])
def test_a_landmark_of_an_oblique_lesion_lands_on_its_patient_point(
    shape: Shape, tmp_path: Path
) -> None:
    grid = turned_grid(shape)
    landmark = np.array([9, 31, 5])
    labels = np.zeros(shape, np.uint8)
    labels[tuple(landmark)] = 2
    grey = np.ones(shape, np.float32)
    files = write_series(Volume(intensities=grey, grid=grid, role="t1gd"), tmp_path / "series")
    ds = pydicom.dcmread(written(labels, files[::-1], tmp_path).path)
    truth = grid.index_to_lps_mm @ [*landmark, 1.0]  # of the phantom, not of its headers
    (found,) = lps_of_frames(ds, 2)
    assert np.linalg.norm(found - truth[:3]) < 0.01


def test_the_phantoms_lesion_lies_where_it_was_drawn(
    small_study: WrittenStudy, tmp_path: Path
) -> None:
    truth = np.array(small_study.study.truth["t1gd"])
    ds = pydicom.dcmread(written(truth, small_study.files.paths["t1gd"], tmp_path).path)
    solid = np.concatenate([lps_of_frames(ds, number) for number in (2, 3)])
    assert small_study.study.lesion_centre_lps_mm is not None
    centre = np.array(small_study.study.lesion_centre_lps_mm)
    assert np.linalg.norm(solid.mean(axis=0) - centre) < 2.0  # its rim is uneven


def test_dcmqi_reads_the_same_voxels_at_the_same_places(example: Written, tmp_path: Path) -> None:
    subprocess.run(
        [
            *(str(SEGIMAGE2ITKIMAGE), "--inputDICOM", str(example.path)),
            *("--outputDirectory", str(tmp_path), "--outputType", "nii"),
        ],
        check=True,
        capture_output=True,
    )
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0])  # NIfTI counts from left to right, back to front
    for segment in SEGMENTS:
        expected = expected_points(example.label_map, segment.number)
        path = tmp_path / f"{segment.number}.nii.gz"
        found = np.empty((0, 3))
        if path.exists():
            image = nib.Nifti1Image.from_filename(path)
            index = np.argwhere(np.asarray(image.dataobj) > 0)
            matrix = to_lps @ image.affine
            found = index @ matrix[:3, :3].T + matrix[:3, 3]
        assert farthest_mm(found, expected) < 0.01


def test_highdicom_reads_the_labels_back(example: Written) -> None:
    seg = hd.seg.segread(example.path)
    for index, (source, frame) in enumerate(zip(example.sources, example.frames, strict=True)):
        uid, expected = source.SOPInstanceUID, example.label_map.labels[index]
        if frame and not expected.any():
            continue  # it looks for the number among those that are referenced
        read = partial(seg.get_pixels_by_source_instance, [uid])
        if frame:
            read = partial(seg.get_pixels_by_source_frame, uid, [frame])
        labels = read(combine_segments=True, assert_missing_frames_are_empty=True)
        assert np.array_equal(labels[0], expected)


def test_highdicom_finds_the_labels_by_position_alone(example: Written) -> None:
    seg = hd.seg.segread(example.path)
    volume = seg.get_volume(combine_segments=True)
    matrix = volume.affine
    for segment in SEGMENTS:
        index = np.argwhere(volume.array == segment.number)
        found = index @ matrix[:3, :3].T + matrix[:3, 3]
        assert farthest_mm(found, expected_points(example.label_map, segment.number)) < 0.01
