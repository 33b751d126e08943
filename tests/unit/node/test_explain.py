"""What the node says of a folder before it is sent: one study, several, and what is none."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pydicom import dcmread
from pydicom.uid import UID, SecondaryCaptureImageStorage

from converters.mr_writer import derived_uid
from inference import manifest as manifests
from node import explain, folder, series_table
from node.__main__ import main
from node.assemble import Rules
from node.facts import Site
from tests import phantoms
from tests.phantoms import WrittenStudy

LIMIT = 2**30
MODEL = Path(__file__).parents[3] / "models" / "demo-glioma"
ROLES = manifests.load(MODEL).roles
KEYS = {
    "number",
    "part",
    "description",
    "sequence",
    "role",
    "score",
    "runner_up",
    "reason",
    "geometry",
    "instance_count",
    "is_whole",
    "code",
    "sentence",
}


def told(where: Path, *arguments: str) -> Result:
    """Run the command on a folder."""
    settings = where.parent / f"{where.name}.toml"
    settings.write_text(f"[model]\nfolder = '{MODEL}'\n", encoding="utf-8")
    command = ["explain", str(where), "--config", str(settings), *arguments]
    return CliRunner().invoke(main, command, catch_exceptions=False)


def known(where: Path) -> tuple[int, dict[str, Any]]:
    """Return the exit code and what the command answers to programs."""
    result = told(where, "--json")
    return result.exit_code, json.loads(result.stdout)


def laid(where: Path, series: dict[str, Sequence[Path]]) -> Path:
    """Copy series into one folder."""
    for name, paths in series.items():
        (where / name).mkdir(parents=True)
        for path in paths:
            shutil.copy(path, where / name / path.name)
    return where


@pytest.fixture
def study(small_study: WrittenStudy, tmp_path: Path) -> Path:
    return laid(tmp_path / "study", dict(small_study.files.paths))


def test_a_whole_study_would_run_and_each_role_has_its_series(study: Path) -> None:
    code, answer = known(study)
    assert code == 0
    (one,) = answer["studies"]
    assert (one["would_run"], one["code"], one["reference_role"]) == (True, None, "t1gd")
    assert [series["role"] for series in one["series"]] == list(ROLES)
    assert sum(series["instance_count"] for series in one["series"]) == one["images"]
    assert answer["left_out"] == []


def test_the_answer_to_programs_has_one_shape_and_no_identifier(study: Path) -> None:
    _, answer = known(study)
    (one,) = answer["studies"]
    assert set(one) == {
        *("number", "would_run", "images", "reference_role", "code", "sentence", "advice"),
        "series",
    }
    assert all(set(series) == KEYS for series in one["series"])


def test_nothing_that_identifies_the_patient_is_printed(study: Path) -> None:
    ds = dcmread(next(study.rglob("*.dcm")), stop_before_pixels=True)
    for output in (told(study).output, told(study, "--json").output):
        for keyword in ("PatientName", "PatientID", "StudyDate", "StudyInstanceUID"):
            assert str(ds[keyword].value) not in output
        assert "2.25." not in output


def test_the_table_names_role_geometry_and_verdict(study: Path) -> None:
    output = told(study).output
    assert "Study 1: " in output
    assert "#  role   sequence" in output
    assert "t1_mprage_tra_KM" in output
    assert "axial, 3-D" in output
    assert "WOULD RUN  flair = " in output
    assert "the result lies on t1gd" in output
    assert "Research use only" in output


def test_a_missing_sequence_is_refused_with_its_code_and_advice(
    small_study: WrittenStudy, tmp_path: Path
) -> None:
    series = {role: paths for role, paths in small_study.files.paths.items() if role != "flair"}
    where = laid(tmp_path / "study", dict(series))
    result = told(where)
    assert result.exit_code == 1
    assert "REFUSED  STUDY_SEQUENCE_MISSING: no series serves as flair" in result.output
    assert max(map(len, result.output.splitlines())) <= series_table.USUAL
    assert "-> " in result.output
    code, answer = known(where)
    assert (code, answer["studies"][0]["code"]) == (1, "STUDY_SEQUENCE_MISSING")


def test_a_broken_series_is_shown_with_its_code_and_its_numbers(
    small_study: WrittenStudy, tmp_path: Path
) -> None:
    series = dict(small_study.files.paths)
    series["t1"] = phantoms.missing_slice(series["t1"], tmp_path / "broken")
    where = laid(tmp_path / "study", dict(series))
    code, answer = known(where)
    (study,) = answer["studies"]
    assert (code, study["code"]) == (1, "GEOM_MISSING_SLICE")
    (broken,) = [one for one in study["series"] if not one["is_whole"]]
    assert broken["code"] == "GEOM_MISSING_SLICE"
    assert "expected" in broken["sentence"]
    assert f"GEOM_MISSING_SLICE: {broken['sentence']}" in " ".join(told(where).output.split())


def test_several_studies_are_numbered_and_one_good_one_is_enough(
    small_study: WrittenStudy, tmp_path: Path
) -> None:
    other = phantoms.written(tmp_path / "other", seed=5)
    where = tmp_path / "both"
    laid(where / "a", {"t2": other.files.paths["t2"]})
    laid(where / "b", dict(small_study.files.paths))
    code, answer = known(where)
    assert code == 0
    found = [(one["number"], one["would_run"]) for one in answer["studies"]]
    assert found == [(1, False), (2, True)]


def test_what_is_no_whole_instance_is_counted_and_harms_nothing(
    study: Path, small_study: WrittenStudy
) -> None:
    first = small_study.files.paths["t1"][0]
    (study / "notes.txt").write_text("not DICOM", encoding="utf-8")
    (study / "empty").write_bytes(b"")
    (study / "zeros").write_bytes(bytes(300))
    (study / "only-a-prefix").write_bytes(bytes(128) + b"DICM")
    phantoms.without_uid(first, study, "SeriesInstanceUID")
    phantoms.truncated(first, study)
    shutil.copy(first, study / "again.dcm")
    os.mkfifo(study / "pipe")
    code, answer = known(study)
    assert code == 0
    left_out = {one["reason"]: one["files"] for one in answer["left_out"]}
    assert left_out == {folder.NOT_DICOM: 3, folder.DAMAGED: 3, folder.REPEATED: 1}


def test_a_folder_without_a_study_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = told(tmp_path / "empty")
    assert result.exit_code == 1
    assert "No DICOM study here." in result.output


def test_a_folder_that_does_not_exist_is_wrong_usage(tmp_path: Path) -> None:
    assert told(tmp_path / "none").exit_code == 2


def test_a_screenshot_is_listed_as_other_and_its_geometry_bothers_nobody(study: Path) -> None:
    ds = dcmread(next(study.rglob("*.dcm")))
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID(derived_uid("screenshot"))
    ds.SeriesInstanceUID = derived_uid("screenshots")
    ds.save_as(study / "screenshot.dcm", enforce_file_format=True)
    code, answer = known(study)
    assert code == 0
    (shot,) = [one for one in answer["studies"][0]["series"] if one["role"] is None]
    assert shot["sequence"].startswith("other")
    assert "GEOM_" not in told(study).output


def test_a_description_cannot_steer_the_terminal(small_study: WrittenStudy, tmp_path: Path) -> None:
    hostile = "t2\x1b[2J\x07 tse"
    paths = phantoms.with_attribute(
        small_study.files.paths["t2"], tmp_path / "hostile", "SeriesDescription", hostile
    )
    output = told(laid(tmp_path / "study", {"t2": paths})).output
    assert "\x1b" not in output
    assert "\x07" not in output


def test_a_rule_of_the_site_counts(study: Path) -> None:
    settings = study.parent / "rules.toml"
    settings.write_text(
        f"[model]\nfolder = '{MODEL}'\n[[assemble.series_rules]]\nname = 'never'\nrole = 'other'\n"
        "where.SeriesDescription = { matches = 'mprage' }\n",
        encoding="utf-8",
    )
    result = CliRunner().invoke(main, ["explain", str(study), "--config", str(settings)])
    assert result.exit_code == 1
    assert "REFUSED" in result.output
    assert "rule 'never' of the site" in result.output


def test_nothing_is_written(study: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in study.rglob("*"))
    told(study)
    assert sorted((path, path.stat().st_mtime_ns) for path in study.rglob("*")) == before


def test_progress_is_told_file_by_file(study: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = folder.read(study, limit_bytes=LIMIT, progress=lambda *at: seen.append(at))
    total = len(folder.files_below(study))
    assert seen == [(count, total) for count in range(1, total + 1)]
    assert len(found.instances) == total


def test_an_instance_beyond_the_limit_is_left_out(study: Path) -> None:
    found = folder.read(study, limit_bytes=1000)
    assert found.instances == ()
    assert list(found.left_out) == [folder.TOO_LARGE]


def test_a_progress_line_appears_only_on_a_terminal() -> None:
    assert explain.progress_line(is_terminal=False) is None
    assert explain.progress_line(is_terminal=True) is not None


def test_a_defect_of_ours_ends_one_study_alone() -> None:
    rules = Rules(roles=ROLES, reference_role="t1gd", settle_s=0, quiet_s=0, deadline_s=1)
    verdict = explain.judge(1, [], rules, Site())  # a study without instances cannot be
    assert verdict.error is not None
    assert verdict.error.code == "UNFORESEEN"
    assert not verdict.would_run


def test_a_sequence_that_the_model_can_do_without_is_named(
    small_study: WrittenStudy, tmp_path: Path
) -> None:
    allowed = manifests.load(MODEL).missing_input.allowed
    series = {role: paths for role, paths in small_study.files.paths.items() if role != allowed[0]}
    result = told(laid(tmp_path / "study", dict(series)))
    assert result.exit_code == 0
    assert f"without {allowed[0]}, which this model can do without" in result.output
