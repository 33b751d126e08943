"""Contours of a label map: what the file says, and that the gate sees what it should not say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from converters.errors import GridMismatchError, ReadBackError
from converters.structure_set import Structure, build_structure_set, check_structure_set
from converters.volume import LabelMap, Shape
from tests import seg_examples
from tests.seg_examples import EDEMA, ENHANCING, EVEN, IDENTITY, SEGMENTS, read_sources

STRUCTURES = (
    *(
        Structure(
            name=one.label,
            numbers=(one.number,),
            type_code=one.type_code,
            color_rgb=one.color_rgb,
        )
        for one in SEGMENTS
    ),
    Structure(
        name="Whole",
        numbers=(1, 2),
        type_code=EDEMA,
        color_rgb=(1, 2, 3),
        description="All of it",
    ),
)


def written(
    labels: LabelMap, sources: list[Dataset], folder: Path, frames: list[int] | None = None
) -> Path:
    path = folder / "rtstruct.dcm"
    built = build_structure_set(labels, STRUCTURES, sources, IDENTITY, frames or ())
    built.save_as(path, enforce_file_format=True)
    check_structure_set(path, labels, STRUCTURES, sources, frames or ())
    return path


def ringed(shape: Shape) -> NDArray[np.uint8]:
    """Return a ring with a hole, a core in another ring, and crumbs that touch at corners."""
    labels = np.zeros(shape, np.uint8)
    labels[1, :5, :5] = 1
    labels[1, 2, 2] = 2
    labels[2, 1:6, 1:5] = 2
    labels[2, 2:4, 2] = 0
    labels[2, 6, 5] = labels[2, 7, 4] = 1
    return labels


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:
    return read_sources(tmp_path_factory.mktemp("series"), EVEN)


def test_the_contours_enclose_the_voxels_and_say_what_they_are(
    sources: list[Dataset], tmp_path: Path
) -> None:
    labels = seg_examples.label_map(ringed(EVEN))
    found = pydicom.dcmread(written(labels, sources, tmp_path))
    assert found.SOPClassUID == pydicom.uid.RTStructureSetStorage
    assert (found.PatientID, found.PatientName) == (sources[0].PatientID, sources[0].PatientName)
    assert found.ApprovalStatus == "UNAPPROVED"
    assert [one.ROIName for one in found.StructureSetROISequence] == ["Edema", "Enhancing", "Whole"]
    volumes = [float(one.ROIVolume) for one in found.StructureSetROISequence]
    assert volumes[:2] == pytest.approx(list(labels.volumes_ml().values()), rel=1e-6)
    colours = [tuple(one.ROIDisplayColor) for one in found.ROIContourSequence]
    assert colours == [one.color_rgb for one in STRUCTURES]
    for one, code in zip(found.RTROIObservationsSequence, (EDEMA, ENHANCING, EDEMA), strict=True):
        assert one.RTROIInterpretedType == ""
        assert "esearch use only" in one.ROIObservationDescription
        assert one.RTROIIdentificationCodeSequence[0].CodeValue == code.value
    ring = found.ROIContourSequence[0].ContourSequence[0]
    image = ring.ContourImageSequence[0].ReferencedSOPInstanceUID
    assert image == sources[1].SOPInstanceUID
    (frame,) = found.ReferencedFrameOfReferenceSequence
    images = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].ContourImageSequence
    assert [one.ReferencedSOPInstanceUID for one in images] == [
        one.SOPInstanceUID for one in sources
    ]


@pytest.mark.parametrize("kind", ["some", "none", "all"])
def test_any_labels_come_back(sources: list[Dataset], tmp_path: Path, kind: str) -> None:
    values = {
        "some": seg_examples.some_labels(EVEN),
        "none": np.zeros(EVEN, np.uint8),
        "all": np.full(EVEN, 2, np.uint8),
    }[kind]
    found = pydicom.dcmread(written(seg_examples.label_map(values), sources, tmp_path))
    has_contours = [bool(one.get("ContourSequence")) for one in found.ROIContourSequence]
    assert has_contours == [kind == "some", kind != "none", kind != "none"]


def test_the_same_labels_give_the_same_bytes(sources: list[Dataset], tmp_path: Path) -> None:
    labels = seg_examples.label_map(ringed(EVEN))
    first = written(labels, sources, tmp_path).read_bytes()
    assert written(labels, sources, tmp_path).read_bytes() == first


def test_frames_of_an_enhanced_instance_are_named(sources: list[Dataset], tmp_path: Path) -> None:
    labels = seg_examples.label_map(ringed(EVEN))
    flat, frames = seg_examples.as_frames(sources, 9)
    path = written(labels, flat, tmp_path, frames)
    contour = pydicom.dcmread(path).ROIContourSequence[0].ContourSequence[0]
    assert contour.ContourImageSequence[0].ReferencedFrameNumber == frames[1]
    with pytest.raises(ReadBackError, match="plane"):
        check_structure_set(path, labels, STRUCTURES, flat, frames[::-1])


def test_labels_on_another_grid_are_not_written(sources: list[Dataset]) -> None:
    other = seg_examples.label_map(np.zeros((4, 8, 7), np.uint8))
    with pytest.raises(GridMismatchError):
        build_structure_set(other, STRUCTURES, sources, IDENTITY)


def first_contour(ds: Dataset) -> Dataset:
    contour: Dataset = ds.ROIContourSequence[0].ContourSequence[0]
    return contour


def _approved(ds: Dataset) -> None:
    ds.ApprovalStatus = "APPROVED"


def _renamed(ds: Dataset) -> None:
    ds.StructureSetROISequence[0].ROIName = "GTV"


def _on_another_image(ds: Dataset) -> None:
    images = ds.ROIContourSequence[1].ContourSequence[-1].ContourImageSequence
    first_contour(ds).ContourImageSequence = images


def _of_another_patient(ds: Dataset) -> None:
    ds.PatientID = "someone else"


def _without_an_image(ds: Dataset) -> None:
    (frame,) = ds.ReferencedFrameOfReferenceSequence
    del frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].ContourImageSequence[0]


def _without_a_contour(ds: Dataset) -> None:
    del ds.ROIContourSequence[2].ContourSequence[0]


def _moved(ds: Dataset) -> None:
    contour = first_contour(ds)
    points = np.array(contour.ContourData, float).reshape(-1, 3)
    points += points[1] - points[0]
    contour.ContourData = [f"{part:.3f}" for part in points.ravel()]


def _off_its_plane(ds: Dataset) -> None:
    contour = first_contour(ds)
    points = np.array(contour.ContourData, float).reshape(-1, 3)
    side, down = points[1] - points[0], points[2] - points[1]
    points += 0.2 * np.cross(side, down) / np.linalg.norm(np.cross(side, down))
    contour.ContourData = [f"{part:.3f}" for part in points.ravel()]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_approved, "ApprovalStatus"),
        (_renamed, "ROIName"),
        (_on_another_image, "plane of a contour"),
        (_of_another_patient, "PatientID"),
        (_without_an_image, "referenced images"),
        (_without_a_contour, "voxels within"),
        (_moved, "(voxels within|outside)"),
        (_off_its_plane, "plane of a contour"),
    ],
)
def test_the_gate_sees_what_is_not_so(
    sources: list[Dataset], tmp_path: Path, change: Callable[[Dataset], None], reason: str
) -> None:
    labels = seg_examples.label_map(ringed(EVEN))
    path = written(labels, sources, tmp_path)
    ds = pydicom.dcmread(path)
    change(ds)
    ds.save_as(path, enforce_file_format=True)
    with pytest.raises(ReadBackError, match=reason):
        check_structure_set(path, labels, STRUCTURES, sources)


def test_what_is_no_dicom_is_not_taken(sources: list[Dataset], tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(b"no")
    with pytest.raises(ReadBackError):
        check_structure_set(
            tmp_path / "x.dcm",
            seg_examples.label_map(ringed(EVEN)),
            STRUCTURES,
            sources,
        )
