"""What is measured of a case, as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from converters.volume import Grid, LabelMap
from inference import manifest
from node import measuring
from node.cases import AssembledCase, ClosedBy
from node.spool import Spool

MODEL = manifest.load(Path(__file__).parents[3] / "models" / "demo-glioma")
CASE = AssembledCase(
    case_id="0123456789abcdef0123456789abcdef",
    study_instance_uid="2.25.1",
    series=(),
    reference_role="t1gd",
    closed_by=ClosedBy.COMPLETE,
)


@pytest.fixture
def label_map() -> LabelMap:
    labels = np.zeros((4, 20, 20), np.uint8)
    labels[1:3, 4:12, 4:12] = 1
    labels[1, 6:10, 6:11] = 3
    labels[2, 15, 15] = 2
    matrix = np.diag([2.0, 1.0, 1.0, 1.0])
    grid = Grid(shape=labels.shape, index_to_lps_mm=matrix, frame_of_reference_uid="2.25.7")
    return LabelMap(labels=labels, grid=grid, segments=MODEL.segments, model_id=MODEL.model_id)


def test_the_content_says_what_was_measured(label_map: LabelMap) -> None:
    content = measuring.content_of(measuring.of(label_map, MODEL), CASE, MODEL)
    assert content["schema"] == measuring.SCHEMA
    assert content["model_id"] == MODEL.model_id
    assert content["reference_role"] == "t1gd"
    assert content["whole"] == {"label": "Whole tumour", "volume_ml": 0.258}
    assert [one["volume_ml"] for one in content["segments"]] == [0.216, 0.002, 0.04]
    assert content["regions"] == [{"label": "Tumour core", "segments": [2, 3], "volume_ml": 0.042}]
    assert content["smaller_pieces"] == {"below_mm3": 50.0, "count": 1, "volume_ml": 0.002}
    assert content["lesion_count"] == 1
    (lesion,) = content["lesions"]
    assert (lesion["number"], lesion["volume_ml"]) == (1, 0.256)
    assert lesion["tracking_uid"] == measuring.tracking_uid(CASE, MODEL, "lesion 1")
    enhancing = lesion["enhancing"]
    assert (enhancing["volume_ml"], enhancing["slice_index"]) == (0.04, 1)
    ends = np.array(enhancing["long_ends_lps_mm"])
    length_mm = float(np.linalg.norm(ends[1] - ends[0]))
    assert length_mm == pytest.approx(enhancing["long_mm"], abs=0.02)
    assert enhancing["product_mm2"] == pytest.approx(
        enhancing["long_mm"] * enhancing["short_mm"], abs=0.1
    )


def test_what_does_not_enhance_has_no_diameters(label_map: LabelMap) -> None:
    labels = np.where(label_map.labels == 3, 1, label_map.labels).astype(np.uint8)
    plain = LabelMap(
        labels=labels,
        grid=label_map.grid,
        segments=label_map.segments,
        model_id=label_map.model_id,
    )
    content = measuring.content_of(measuring.of(plain, MODEL), CASE, MODEL)
    assert content["lesions"][0]["enhancing"] is None


def test_the_file_holds_the_content(label_map: LabelMap, spool: Spool) -> None:
    content = measuring.content_of(measuring.of(label_map, MODEL), CASE, MODEL)
    measuring.write(content, CASE, spool)
    path = spool.case_folder(CASE.case_id) / measuring.FILE_NAME
    assert json.loads(path.read_text(encoding="utf-8")) == content


def test_a_case_without_notes_has_no_codes(spool: Spool) -> None:
    assert measuring.notes_of(CASE, spool) == ()
