"""The same labels in other forms: on another series that was moved, and as contours."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from converters import series
from converters.mr_writer import StudyIdentity, write_series
from converters.register import Motion
from converters.seg_check import read_labels
from converters.volume import LabelMap
from node import convert
from node.cases import AssembledCase, ObjectKind
from node.closing import site_of
from node.encode import CaseEncoder
from node.errors import ConfigError
from node.identities import _description_on
from node.ledger import Ledger
from node.settings import Settings
from node.spool import Spool
from tests import peers
from tests.moved_heads import displaced, rigid
from tests.phantoms import WrittenStudy
from tests.stages import MANIFEST, close, take_in


@pytest.fixture
def motion(small_study: WrittenStudy) -> NDArray[np.float64]:
    """Return what brings the FLAIR of `case` onto its other series."""
    grid = small_study.study.volumes["flair"].grid
    return rigid(5, 8.0, 9.0, grid.lps_mm(np.array(grid.shape) / 2))


@pytest.fixture
def case(
    small_study: WrittenStudy,
    motion: NDArray[np.float64],
    spool: Spool,
    ledger: Ledger,
    tmp_path: Path,
) -> AssembledCase:
    """Return a case whose FLAIR lies in a frame of its own, and how it was moved."""
    study = small_study.study
    inverse = np.asarray(np.linalg.inv(motion), dtype=np.float64)
    flair = displaced(study.volumes["flair"], inverse, frame="2.25.4712")
    identity = StudyIdentity(seed=study.seed)
    away = write_series(flair, tmp_path / "flair", study=identity, series_number=2)
    paths = {**small_study.files.paths, "flair": away}
    take_in([path for many in paths.values() for path in many], spool, ledger)
    case = ledger.assembled(close(spool, ledger).case_id)
    found = Motion(role="flair", lps_to_reference_lps_mm=motion, is_applied=True, reason="")
    content = convert._alignment((found,), "t1gd")
    convert._publish_json(content, spool.case_folder(case.case_id) / "alignment.json", spool)
    return case


@pytest.fixture
def label_map(small_study: WrittenStudy) -> LabelMap:
    return LabelMap(
        labels=small_study.study.truth["t1gd"],
        grid=small_study.study.volumes["t1gd"].grid,
        segments=MANIFEST.segments,
        model_id=MANIFEST.model_id,
    )


def encoder(case: AssembledCase, label_map: LabelMap, spool: Spool) -> CaseEncoder:
    return CaseEncoder(case, label_map, MANIFEST, spool)


def test_the_labels_lie_on_the_flair_as_it_was_sent(
    case: AssembledCase, label_map: LabelMap, spool: Spool, small_study: WrittenStudy
) -> None:
    (also,) = encoder(case, label_map, spool).also("flair")
    assert (also.kind, Path(also.path).name) == (ObjectKind.ALSO, "seg-flair.dcm")
    path = spool.instance_path(also.path)
    ds = pydicom.dcmread(path)
    (flair,) = (one for one in case.series if one.role == "flair")
    (referenced,) = ds.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == flair.series_instance_uid
    assert ds.FrameOfReferenceUID == "2.25.4712"
    assert ds.SeriesDescription == "AI tumour seg. on FLAIR DEMO MODEL - research use only"
    stack = series.stack([spool.instance_path(one.path) for one in flair.instances], limits=None)
    found, truth = read_labels(path, stack.headers), small_study.study.truth["flair"]
    for numbers in ((1,), (2, 3), (1, 2, 3)):
        own, true = np.isin(found, numbers), np.isin(truth, numbers)
        assert 2 * np.count_nonzero(own & true) / (own.sum() + true.sum()) > 0.93
        centres = [stack.grid.lps_mm(np.argwhere(one).mean(axis=0)) for one in (own, true)]
        apart_mm = np.linalg.norm(centres[0] - centres[1])
        assert apart_mm < np.linalg.norm(stack.grid.spacing_mm) / 2


def test_the_validator_finds_no_error_in_it(
    case: AssembledCase, label_map: LabelMap, spool: Spool
) -> None:
    peers.require("dciodvfy")
    (also,) = encoder(case, label_map, spool).also("flair")
    program = peers.program("dciodvfy") or ""
    command = [program, "-new", str(spool.instance_path(also.path))]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Error" not in told.stdout + told.stderr


def test_it_is_another_series_and_the_same_bytes_again(
    case: AssembledCase, label_map: LabelMap, spool: Spool
) -> None:
    seg = encoder(case, label_map, spool).seg()
    (first,) = encoder(case, label_map, spool).also("flair")
    (other,) = encoder(case, label_map, spool).also("t2")
    assert encoder(case, label_map, spool).also("flair") == [first]
    for uid in ("sop_instance_uid", "series_instance_uid"):
        assert len({getattr(one, uid) for one in (seg, first, other)}) == 3


@pytest.mark.parametrize("role", ["t1gd", "dwi"])
def test_the_reference_and_a_series_that_is_not_there_get_nothing(
    case: AssembledCase, label_map: LabelMap, spool: Spool, role: str
) -> None:
    assert encoder(case, label_map, spool).also(role) == []


def test_where_nothing_was_found_it_says_so_and_where_all_lies_beside_it_there_is_none(
    case: AssembledCase, label_map: LabelMap, spool: Spool
) -> None:
    nothing = replace(label_map, labels=np.zeros_like(label_map.labels))
    (also,) = encoder(case, nothing, spool).also("flair")
    assert "nothing found" in pydicom.dcmread(spool.instance_path(also.path)).SeriesDescription
    beside = np.zeros_like(label_map.labels)
    beside[:, 0, 0] = 1  # the FLAIR was turned, its corner lies elsewhere
    beside[1:] = 0
    assert encoder(case, replace(label_map, labels=beside), spool).also("flair") == []


@pytest.mark.parametrize("role", ["flair", "t1gd", "a_very_long_role"])
@pytest.mark.parametrize("is_demonstration", [True, False])
@pytest.mark.parametrize("is_empty", [True, False])
def test_its_series_says_on_which_series_in_64_characters(
    label_map: LabelMap, role: str, *, is_demonstration: bool, is_empty: bool
) -> None:
    model = MANIFEST.model_copy(update={"demonstration": is_demonstration})
    if is_empty:
        label_map = replace(label_map, labels=np.zeros_like(label_map.labels))
    told = _description_on(role, label_map, model)
    assert len(told) <= 64
    assert role.upper()[:6] in told
    assert told.endswith(" - research use only")
    assert ("DEMO MODEL" in told) == is_demonstration


def test_a_role_that_the_model_has_not_is_refused() -> None:
    one = {"name": "pacs", "transport": "stow", "url": "http://a", "also": ["dwi"]}
    settings = Settings.model_validate({"destinations": [one]})
    with pytest.raises(ConfigError, match="also"):
        site_of(MANIFEST, settings)


def test_the_contours_are_those_of_labels_and_regions(
    case: AssembledCase, label_map: LabelMap, spool: Spool
) -> None:
    found = encoder(case, label_map, spool).structures()
    assert (found.kind, Path(found.path).name) == (ObjectKind.STRUCTURES, "rtstruct.dcm")
    ds = pydicom.dcmread(spool.instance_path(found.path))
    names = [one.ROIName for one in ds.StructureSetROISequence]
    expected = [one.label for one in MANIFEST.segments]
    assert names == expected + [one.label for one in MANIFEST.regions]
    assert ds.SeriesDescription == "AI contours DEMO MODEL - research use only"
    assert encoder(case, label_map, spool).structures() == found
