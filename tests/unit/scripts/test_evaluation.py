"""The evaluation of the demonstration model on small cases: exams, report, pictures, records."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from converters import phantom
from converters.volume import Grid, LabelMap, Volume
from inference import manifest
from scripts import evaluate_demo_model, evaluation_report, evaluation_runs, evaluation_studies
from scripts.evaluation_cost import Cost
from scripts.evaluation_pictures import Subject, Words, draw
from scripts.evaluation_report import Figures
from scripts.evaluation_runs import Result
from scripts.segmentation_scores import score_labels

ROOT = Path(__file__).parents[3]
SHAPE = (6, 7, 8)


def result(name: str, kind: str, hit: int, *, missing: str = "", expert: bool = False) -> Result:
    """Return a result that found `hit` of 100 voxels, all of them enhancing."""
    reference = np.zeros((10, 10, 10), np.uint8)
    reference[5] = 0 if kind == "healthy" else 3
    found = np.zeros_like(reference)
    found[5].flat[:hit] = 3
    scores = score_labels(found, reference, (10.0, 10.0, 10.0))
    return Result(
        study=name,
        family="real" if expert else "generated",
        kind=kind,
        seed=1,
        reference_kind=evaluation_studies.EXPERT if expert else evaluation_studies.DRAWN,
        missing=missing,
        scores=scores,
        found_ml={region: one.found_ml for region, one in scores.items()},
        refusal="",
        notes=("TUMOUR_SCATTERED: many pieces",) if hit < 50 else (),
        mask_source="network",
        seconds=1.0,
    )


def figures(*results: Result, seconds: float = 2.0) -> Figures:
    cost = Cost(
        study="one",
        voxels="240 x 240 x 155",
        load_s=1.0,
        read_s=0.5,
        register_s=seconds,
        predict_s=0.0,
        cpu_s=9.0,
        peak_gib=1.2,
        load_average=0.1,
    )
    facts = {"Model": "demo-glioma 9.9.9", "Weights": "ab" * 32, "Date": "2031-02-03"}
    return Figures(facts=facts, results=results, costs=(cost,))


def row_of(text: str, start: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_report_says_which_targets_are_reached_and_which_missed() -> None:
    text = evaluation_report.markdown(
        figures(
            result("a", "stripped", 100),
            result("b", "head", 50),
            result("c", "healthy", 1),
            result("d", "healthy", 2),
            result("e", "stripped", 100, missing="t2"),
            result("exam", "native", 100, expert=True),
            seconds=40.0,
        )
    )
    mean = (1.0 + 2 * 50 / 150) / 2
    assert row_of(text, "generated studies, mean Dice WT")[1:] == [
        "≥ 0.90",
        f"{mean:.3f}",
        "2",
        "**missed**",
    ]
    assert row_of(text, "generated studies, mean Dice ET")[-1] == "reached"
    assert row_of(text, "real exams with expert labels, median Dice WT")[2:] == [
        "1.000",
        "1",
        "reached",
    ]
    assert row_of(text, "healthy")[2:] == ["50 %", "2", "**missed**"]
    assert row_of(text, "slowest whole study")[2:] == ["41.5 s", "1", "**missed**"]
    assert row_of(text, "peak memory")[-1] == "reached"
    assert row_of(text, "generated, stripped | T2w")[2:6] == ["1", "1.000", "1.000", "1.000"]
    assert "TUMOUR_SCATTERED" in text


def test_a_report_of_nothing_claims_nothing() -> None:
    text = evaluation_report.markdown(Figures(facts={}, results=(), costs=()))
    assert "reached" not in text
    assert text.count("not measured") == 4


def test_each_look_at_a_real_exam_is_one_line_more(tmp_path: Path) -> None:
    path = tmp_path / "LOOKED_AT.md"
    seen = figures(result("a", "stripped", 100), result("exam", "native", 50, expert=True))
    evaluate_demo_model.record(path, seen)
    evaluate_demo_model.record(path, seen)
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "exam |" in line]
    line = "| 2031-02-03 | 9.9.9 | abababababab | exam | expert labels | 0.667 | 0.667 | 0.667 |"
    assert lines[1:] == [line, line]


def write(path: Path, values: NDArray[np.int16], affine: NDArray[np.float64]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(values, affine).to_filename(path)  # type: ignore[no-untyped-call]


def test_an_exam_with_expert_labels_is_read_with_our_numbers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    affine = np.array([[-1.0, 0, 0, 90], [0, -1, 0, 120], [0, 0, 1, -70], [0, 0, 0, 1]])
    labels = rng.choice(np.array([0, 1, 2, 4], np.int16), SHAPE)
    folder = tmp_path / "tumour" / "exam"
    for name in ("flair", "t1", "t1ce", "t2"):
        write(folder / f"exam_{name}.nii.gz", rng.integers(0, 99, SHAPE).astype(np.int16), affine)
    write(folder / "exam_seg.nii.gz", labels, affine)
    (exam,) = evaluation_studies.real_exams(tmp_path)
    assert (exam.kind, exam.reference_kind) == ("stripped", evaluation_studies.EXPERT)
    assert exam.reference is not None
    for theirs, ours in ((0, 0), (1, 2), (2, 1), (4, 3)):
        assert np.array_equal(exam.reference == ours, (labels == theirs).T)


def test_an_exam_that_lacks_a_sequence_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "tumour" / "exam" / "exam_t1ce.nii", np.ones(SHAPE, np.int16), np.eye(4))
    with pytest.raises(ValueError, match=r"exam: 0 files \*_flair"):
        list(evaluation_studies.real_exams(tmp_path))


def grid(shape: tuple[int, int, int], step_mm: float) -> Grid:
    matrix = np.diag([step_mm, step_mm, step_mm, 1.0])
    matrix[:3, 3] = step_mm / 2
    return Grid(shape=shape, index_to_lps_mm=matrix, frame_of_reference_uid="1.2")


def test_labels_on_another_grid_are_those_of_the_nearest_voxel() -> None:
    segments = manifest.load(ROOT / "models" / "demo-glioma").segments
    labels = np.random.default_rng(1).integers(0, 4, (4, 5, 6)).astype(np.uint8)
    found = LabelMap(labels=labels, grid=grid((4, 5, 6), 2.0), segments=segments, model_id="a@1")
    fine = evaluation_runs.on_grid(found, grid((8, 10, 13), 1.0))
    assert np.array_equal(fine[..., :12], labels.repeat(2, 0).repeat(2, 1).repeat(2, 2))
    assert not fine[..., 12].any()


def test_a_page_shows_the_reference_where_it_lies_the_radiological_way() -> None:
    study = phantom.make_study(0, size="small")  # its lesion lies in the left half
    segments = manifest.load(ROOT / "models" / "demo-glioma").segments
    truth = study.truth["t1gd"]
    subject = Subject(
        volumes=study.volumes,
        grid=study.volumes["t1gd"].grid,
        found=np.zeros_like(truth),
        reference=truth,
        reference_title="reference",
        segments=segments,
    )
    page = np.asarray(draw(subject, Words(title="a", figures="b", notes=("c",))))
    assert page.shape[1] == 1200
    red = np.argwhere((page[:, :, 0] > 230) & (np.abs(page[:, :, 1].astype(int) - 72) < 12))
    pictures = red[red[:, 0] < page.shape[0] - 70]  # without the legend
    cells = pictures[:, 1] // 300
    assert set(cells.tolist()) == {0, 2}  # the reference's, none of what was found
    assert (pictures[:, 1] % 300 > 140).mean() > 0.95  # the patient's left is on the right


def test_slices_stay_in_proportion_whatever_the_voxels() -> None:
    study = phantom.make_study(0, size="small")
    segments = manifest.load(ROOT / "models" / "demo-glioma").segments
    heights = []
    for every in (1, 2):
        volumes = {role: thinned(volume, every) for role, volume in study.volumes.items()}
        subject = Subject(
            volumes=volumes,
            grid=volumes["t1gd"].grid,
            found=np.ascontiguousarray(study.truth["t1gd"][:, :, ::every]),
            reference=None,
            reference_title="no reference",
            segments=segments,
        )
        heights.append(draw(subject, Words(title="", figures="", notes=())).height)
    assert heights[0] == pytest.approx(heights[1], abs=20)


def thinned(volume: Volume, every: int) -> Volume:
    """Return a volume with only some of its columns."""
    matrix = volume.grid.index_to_lps_mm.copy()
    matrix[:3, 2] *= every
    kept = np.ascontiguousarray(volume.intensities[:, :, ::every])
    shape = (kept.shape[0], kept.shape[1], kept.shape[2])
    place = Grid(shape=shape, index_to_lps_mm=matrix, frame_of_reference_uid="1.2")
    return Volume(intensities=kept, grid=place, role=volume.role)
