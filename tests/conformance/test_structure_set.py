"""What others make of our RT Structure Set: a validator, DCMTK, and area and volume by hand."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest

from converters import series
from converters.structure_set import Structure, build_structure_set, check_structure_set
from converters.volume import LabelMap
from inference import manifest
from tests import enhanced, peers, seg_examples
from tests.nodes import MODEL
from tests.phantoms import WrittenStudy

MANIFEST = manifest.load(MODEL)
STRUCTURES = [
    *(
        Structure(
            name=one.label,
            numbers=(one.number,),
            type_code=one.type_code,
            color_rgb=one.color_rgb,
        )
        for one in MANIFEST.segments
    ),
    Structure(
        name="All",
        numbers=(1, 2, 3),
        type_code=MANIFEST.segments[0].type_code,
        color_rgb=(255, 255, 255),
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Written:
    path: Path
    label_map: LabelMap


@pytest.fixture(scope="module", params=["classic", "enhanced", "nothing found"])
def example(
    request: pytest.FixtureRequest,
    small_study: WrittenStudy,
    tmp_path_factory: pytest.TempPathFactory,
) -> Written:
    folder = tmp_path_factory.mktemp("structures")
    files = small_study.files.paths["t1gd"]
    if request.param == "enhanced":
        many = enhanced.odd_order(enhanced.frames(files, echo_time_ms=92.0))
        files = [enhanced.enhanced(many, folder / "one.dcm")]
    labels = np.array(small_study.study.truth["t1gd"])
    if request.param == "nothing found":
        labels[:] = 0
    stack = series.stack(files, limits=None)
    label_map = LabelMap(
        labels=labels, grid=stack.grid, segments=MANIFEST.segments, model_id="some-model@1"
    )
    built = build_structure_set(
        label_map, STRUCTURES, stack.headers, seg_examples.IDENTITY, stack.frames
    )
    path = folder / "rtstruct.dcm"
    built.save_as(path, enforce_file_format=True)
    check_structure_set(path, label_map, STRUCTURES, stack.headers, stack.frames)
    return Written(path=path, label_map=label_map)


def told_by(*command: str | Path) -> list[str]:
    told = subprocess.run([str(one) for one in command], capture_output=True, check=True)
    return (told.stdout + told.stderr).decode("latin-1").splitlines()


def test_the_validator_finds_nothing(example: Written) -> None:
    peers.require("dciodvfy")
    assert told_by(peers.program("dciodvfy") or "", "-new", example.path) == ["RTStructureSet"]


def test_the_validator_would_have_seen_a_defect(example: Written, tmp_path: Path) -> None:
    peers.require("dciodvfy")
    ds = pydicom.dcmread(example.path)
    del ds.StructureSetROISequence[0].ROIGenerationAlgorithm
    ds.save_as(tmp_path / "broken.dcm")
    program = peers.program("dciodvfy") or ""
    told = subprocess.run(
        [program, "-new", str(tmp_path / "broken.dcm")], capture_output=True, check=False
    )
    assert b"Error" in told.stdout + told.stderr


def test_dcmtk_reads_it_without_complaint(example: Written) -> None:
    peers.require("dcmtk")
    told = told_by(peers.program("drtdump") or "", "-v", example.path)
    assert any("RT Structure Set object" in line for line in told)
    assert not [line for line in told if line.startswith(("W:", "E:"))]


def test_areas_times_spacing_give_the_volumes_of_the_label_map(example: Written) -> None:
    spacing_mm = example.label_map.grid.spacing_mm[0]
    volumes = [*example.label_map.volumes_ml().values()]
    for roi, expected in zip(
        pydicom.dcmread(example.path).ROIContourSequence, [*volumes, sum(volumes)], strict=True
    ):
        found = 0.0
        for contour in roi.get("ContourSequence", []):
            points = np.array(contour.ContourData, dtype=np.float64).reshape(-1, 3)
            points -= points[0]
            area = np.cross(points, np.roll(points, -1, axis=0)).sum(axis=0) / 2
            found += float(np.linalg.norm(area)) * spacing_mm / 1000
        assert found == pytest.approx(expected, rel=1e-3)
