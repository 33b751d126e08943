"""Real exams, written out as DICOM series, go the whole way; a counted skip without the data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from converters import nifti, seg_check, series
from converters.mr_writer import PLANS, StudyIdentity, write_series
from converters.volume import Grid, Role, Volume
from node.demo.archive import DemoArchive
from scripts import evaluation_studies, segmentation_scores
from tests.nodes import RunningNode, destination, push
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

FRAME = "2.25.4711"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoArchive]:
    archive = DemoArchive(tmp_path_factory.mktemp("archive"))
    archive.start()
    yield archive
    archive.stop()


@pytest.fixture(scope="module")
def node(
    tmp_path_factory: pytest.TempPathFactory, archive: DemoArchive, realdata: Path
) -> Iterator[RunningNode]:
    assert realdata.is_dir()  # without the data no node is started
    destinations = [destination("archive", port=archive.port)]
    with RunningNode(tmp_path_factory.mktemp("node"), destinations) as node:
        node.wait_ready()
        yield node


def read_exam_volume(path: Path, role: Role) -> Volume:
    """Return a volume of a NIfTI exam with slices that ascend as a scanner's normal does."""
    volume = nifti.read_volume(path, role=role, frame_of_reference_uid=FRAME)
    matrix = volume.grid.index_to_lps_mm
    normal = np.cross(matrix[:3, 2], matrix[:3, 1])  # row cosines x column cosines
    if normal @ matrix[:3, 0] > 0:
        return volume
    turned = matrix.copy()
    turned[:3, 3] += matrix[:3, 0] * (volume.grid.shape[0] - 1)
    turned[:3, 0] *= -1
    grid = Grid(shape=volume.grid.shape, index_to_lps_mm=turned, frame_of_reference_uid=FRAME)
    return Volume(intensities=volume.intensities[::-1].copy(), grid=grid, role=role)


def send_exam(
    volumes: dict[Role, Volume], folder: Path, seed: int, node: RunningNode
) -> tuple[dict[Role, list[Path]], dict[str, Any]]:
    """Write an exam as DICOM, push it, wait for its end; return its files and its case."""
    identity = StudyIdentity(seed=seed)
    paths = {
        role: write_series(
            volume, folder / role, study=identity, series_number=number, plan=PLANS[role]
        )
        for number, (role, volume) in enumerate(volumes.items(), start=2)
    }
    known = {one["case_id"] for one in node.cases()}
    assert set(push([path for many in paths.values() for path in many], node.dicom_port)) == {0}

    def _ended() -> list[dict[str, Any]]:
        new = [one for one in node.cases() if one["case_id"] not in known]
        return [one for one in new if one["state"] in ("delivered", "rejected", "failed")]

    (ended,) = wait_until(_ended, 240.0, "the exam to end")
    return paths, node.case(ended["case_id"])


@pytest.mark.timeout(400)
def test_a_registered_and_stripped_exam_is_segmented_well(
    realdata: Path, node: RunningNode, archive: DemoArchive, tmp_path: Path
) -> None:
    folder = realdata / "tumour" / "Brats17_2013_27_1_GT"
    files = {
        role: next(folder.glob(f"*{name}.nii.gz"))
        for role, name in (("flair", "flair"), ("t1", "t1"), ("t1gd", "t1ce"), ("t2", "t2"))
    }
    volumes = {role: read_exam_volume(path, role) for role, path in files.items()}
    paths, case = send_exam(volumes, tmp_path, 1, node)
    assert case["state"] == "delivered", case["sentence"]
    assert case["summary"]["notes"] == []

    (result,) = archive.find(case["study_instance_uid"], "SEG")
    sources = series.stack(paths["t1gd"])
    found = seg_check.read_labels(result.path, sources.headers)
    truth = evaluation_studies.expert_labels_on(next(folder.glob("*seg.nii.gz")), sources.grid)
    whole = 2 * ((found > 0) & (truth > 0)).sum() / ((found > 0).sum() + (truth > 0).sum())
    assert whole > 0.8


@pytest.mark.timeout(500)
def test_a_raw_clinical_exam_is_registered_masked_and_segmented(
    realdata: Path, node: RunningNode, archive: DemoArchive, tmp_path: Path
) -> None:
    folder = realdata / "tumour" / "TCGA-FG-6692_native"
    names = {"flair": "fla", "t1": "t1", "t1gd": "t1c", "t2": "t2"}
    volumes = {
        role: read_exam_volume(next(folder.glob(f"*_{name}.nii.gz")), role)
        for role, name in names.items()
    }
    paths, case = send_exam(volumes, tmp_path, 2, node)
    assert case["state"] == "delivered", case["sentence"]
    assert case["summary"]["notes"] == []
    motions = {one["role"]: one for one in case["summary"]["alignment"]}
    assert all(motions[role]["is_applied"] for role in ("flair", "t1", "t2"))
    assert motions["flair"]["shift_mm"] > 5.0

    findings = read_findings(node, case["case_id"])
    assert findings["mask_source"] == "network"
    assert 1400.0 < findings["brain_ml"] < 1900.0
    (result,) = archive.find(case["study_instance_uid"], "SEG")
    sources = series.stack(paths["t1gd"])
    found = seg_check.read_labels(result.path, sources.headers)
    assert dice_with_fused(found > 0, sources.grid, folder) > 0.6  # measured 0.69


def read_findings(node: RunningNode, case_id: str) -> dict[str, Any]:
    """Return what the segment stage kept beside the label map."""
    (path,) = node.spool.rglob(f"*{case_id}*/findings.json")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def dice_with_fused(found: NDArray[np.bool_], grid: Grid, folder: Path) -> float:
    """Return the overlap with the labels that five published models agreed on, in atlas space."""
    path = folder / "model_labels_SRI24" / "simple.nii.gz"
    fused = evaluation_studies.fused_labels_on(path, folder.name, grid) > 0
    return segmentation_scores.dice(found, fused)
