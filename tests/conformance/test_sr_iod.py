"""What others make of our measurement report: a validator and two other readers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from converters import series
from tests import enhanced, peers, seg_examples, sr_examples
from tests.phantoms import WrittenStudy
from tests.sr_examples import MODEL_ID, SHAPE, Report, write_report

TID1500READER = Path(sys.executable).parent / "tid1500reader"


@pytest.fixture(scope="module", params=["two lesions", "nothing", "phantom", "enhanced"])
def report(
    request: pytest.FixtureRequest,
    small_study: WrittenStudy,
    tmp_path_factory: pytest.TempPathFactory,
) -> Report:
    folder = tmp_path_factory.mktemp("report")
    if request.param in ("phantom", "enhanced"):
        files = list(small_study.files.paths["t1gd"])
        if request.param == "enhanced":
            frames = enhanced.odd_order(enhanced.frames(files, echo_time_ms=92.0))
            files = [enhanced.enhanced(frames, folder / "enhanced.dcm")]
        stack = series.stack(files, "", limits=None)
        truth = small_study.study.truth["t1gd"]
        labels = sr_examples.label_map(truth, stack.grid)
        return write_report(folder, labels, stack.headers, stack.frames)
    sources = seg_examples.read_sources(folder / "series", SHAPE)
    if request.param == "nothing":
        return write_report(
            folder, sr_examples.label_map(np.zeros(SHAPE, np.uint8)), sources, (), ()
        )
    return write_report(folder, sr_examples.two_lesions(sources), sources)


def test_the_validator_finds_no_error_and_knows_all_but_our_own_codes(report: Report) -> None:
    peers.require("dciodvfy")
    told = subprocess.run(
        [str(peers.program("dciodvfy")), "-new", str(report.path)],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = (told.stdout + told.stderr).splitlines()
    assert "Comprehensive3DSR" in lines
    found = [line for line in lines if line.startswith(("Error", "Warning"))]
    assert not [line for line in found if line.startswith("Error")]
    assert [line for line in found if "<99NEUROSEG>" not in line] == []


def test_the_validator_would_have_seen_a_defect(report: Report, tmp_path: Path) -> None:
    peers.require("dciodvfy")
    ds = pydicom.dcmread(report.path)
    del ds.ContentSequence[-1].ContentSequence[0].ContentSequence[0].ConceptNameCodeSequence
    ds.save_as(tmp_path / "broken.dcm")
    assert any(line.startswith("Error") for line in peers.dciodvfy(tmp_path / "broken.dcm"))


def read_by_dcmqi(report: Report, folder: Path) -> list[dict[str, Any]]:
    """Return the measurement groups that dcmqi finds."""
    subprocess.run(
        [
            *(str(TID1500READER), "--inputDICOM", str(report.path)),
            *("--outputMetadata", str(folder / "read.json")),
        ],
        check=True,
        capture_output=True,
    )
    content = json.loads((folder / "read.json").read_text(encoding="utf-8"))
    groups: list[dict[str, Any]] = content["Measurements"]
    return groups


def test_dcmqi_reads_every_group_with_its_measurements(report: Report, tmp_path: Path) -> None:
    found = {
        group["TrackingIdentifier"].removeprefix(f"{MODEL_ID}/"): {
            one["quantity"]["CodeMeaning"]: (float(one["value"]), one["units"]["CodeValue"])
            for one in group["measurementItems"]
        }
        for group in read_by_dcmqi(report, tmp_path)
    }
    measured = report.found
    expected = {"Whole tumour": measured.whole_ml}
    for segment, volume_ml in zip(measured.segments, measured.segments_ml, strict=True):
        expected[str(segment.number)] = volume_ml
    expected["Tumour core"] = measured.regions_ml[0]
    for lesion in measured.lesions:
        expected[f"lesion {lesion.number}"] = lesion.volume_ml
    for lesion in measured.lesions:
        if lesion.enhancing is not None:
            name = f"lesion {lesion.number} enhancing"
            expected[name] = measured.enhancing_ml(lesion)
            axes = [found[name]["Long axis"], found[name]["Short axis"]]
            assert [unit for _, unit in axes] == ["mm", "mm"]
            lengths_mm = [lesion.enhancing.long_mm, lesion.enhancing.short_mm]
            assert [value for value, _ in axes] == pytest.approx(lengths_mm, abs=0.006)
    assert list(found) == list(expected)
    volumes_ml = [found[name]["Volume"][0] for name in expected]
    assert volumes_ml == pytest.approx(list(expected.values()), abs=5e-4)
    assert {found[name]["Volume"][1] for name in expected} == {"mL"}
    assert found["Whole tumour"]["Number of lesions"] == (len(measured.lesions), "1")


def test_dcmqi_finds_the_segments_that_were_measured(report: Report, tmp_path: Path) -> None:
    seg = pydicom.dcmread(report.seg_path)
    bound = [one for one in read_by_dcmqi(report, tmp_path) if "ReferencedSegment" in one]
    assert [one["ReferencedSegment"] for one in bound] == [1, 2, 3]
    assert [one["TrackingUniqueIdentifier"] for one in bound] == [
        one.TrackingUID for one in seg.SegmentSequence
    ]
    assert {one["segmentationSOPInstanceUID"] for one in bound} == {seg.SOPInstanceUID}


def test_dcmtk_can_print_it(report: Report) -> None:
    peers.require("dcmtk")
    dsrdump = peers.program("dsrdump")
    assert dsrdump is not None, "DCMTK is there, and dsrdump is a part of it"
    told = subprocess.run([dsrdump, str(report.path)], capture_output=True, check=True)
    lesions = report.found.lesions
    count = 5 + len(lesions) + sum(one.enhancing is not None for one in lesions)
    assert told.stdout.count(b"Tracking Unique Identifier") == count
