"""What headers say of the series of a study: per part, in any order, and read once."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from converters.sequence_rules import Condition, Rule
from converters.volume import Grid
from node.cases import ReceivedInstance
from node.facts import FactReader, Site, describe, read_facts
from node.spool import Spool
from tests import phantoms
from tests.phantoms import WrittenStudy
from tests.study_facts import START

ROLES = ("flair", "t1", "t1gd", "t2")


@pytest.fixture
def received(small_study: WrittenStudy, spool: Spool) -> list[ReceivedInstance]:
    """Return the instances of a study, their files in the spool."""
    return [one for role in ROLES for one in _kept(small_study.files.paths[role], role, spool)]


def _kept(paths: Sequence[Path], name: str, spool: Spool) -> list[ReceivedInstance]:
    folder = spool.root / name
    folder.mkdir(parents=True)
    return [_row(path, Path(shutil.copy2(path, folder)), spool) for path in paths]


def _row(path: Path, copy: Path, spool: Spool) -> ReceivedInstance:
    ds = dcmread(path, stop_before_pixels=True)
    return ReceivedInstance(
        study_instance_uid=ds.StudyInstanceUID,
        series_instance_uid=ds.SeriesInstanceUID,
        sop_class_uid=ds.SOPClassUID,
        sop_instance_uid=ds.SOPInstanceUID,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        calling_ae_title="TEST",
        path=str(copy.relative_to(spool.root)),
        byte_count=1,
        sha256="a" * 64,
        received_at=START,
    )


def _path(one: ReceivedInstance, spool: Spool) -> Path:
    return spool.instance_path(one.path)


def test_a_study_is_read_series_by_series(received: list[ReceivedInstance], spool: Spool) -> None:
    facts = read_facts(received, spool)
    assert len(facts) == 4
    for one in facts:
        assert (one.part, one.fault) == ("", None)
        assert one.grid is not None
        assert one.image_count == one.slice_count == len(one.instances) == one.grid.shape[0]
        assert one.geometry.startswith(f"{one.slice_count} slices, ")
        assert one.description == one.evidence.description[:64]


def test_the_order_of_arrival_changes_nothing(
    received: list[ReceivedInstance], spool: Spool
) -> None:
    shuffled = random.Random(5).sample(received, len(received))
    first, second = read_facts(received, spool), read_facts(shuffled, spool)
    for one, other in zip(first, second, strict=True):
        assert (one.key, one.instances, one.evidence) == (
            other.key,
            other.instances,
            other.evidence,
        )
        assert one.geometry == other.geometry


def test_a_damaged_series_spoils_no_other(received: list[ReceivedInstance], spool: Spool) -> None:
    _path(received[3], spool).write_bytes(b"no DICOM at all")
    facts = {one.series_instance_uid: one for one in read_facts(received, spool)}
    broken = facts.pop(received[3].series_instance_uid)
    assert broken.fault is not None
    assert broken.fault.code == "DICOM_UNREADABLE"
    assert broken.grid is None
    assert broken.evidence.description  # by the first instance that can be read
    assert all(one.fault is None for one in facts.values())


def test_a_series_with_no_readable_file_is_known_by_its_fault_alone(
    received: list[ReceivedInstance], spool: Spool
) -> None:
    for one in received:
        _path(one, spool).write_bytes(b"no DICOM at all")
    facts = read_facts(received, spool)
    assert [one.fault.code for one in facts if one.fault] == ["DICOM_UNREADABLE"] * 4
    assert {one.description for one in facts} == {""}


class _Trap(Rule):
    """A rule that fails as nobody foresaw, for one series."""

    def holds(self, header: Dataset) -> bool:
        if header.get("InversionTime", 0) > 1500:
            raise RuntimeError("unforeseen")
        return False


def test_an_unforeseen_failure_is_the_fault_of_its_series_alone(
    received: list[ReceivedInstance], spool: Spool
) -> None:
    where = {"EchoTime": Condition(is_present=True)}
    facts = read_facts(received, spool, Site(rules=(_Trap(name="trap", role=None, where=where),)))
    faults = [one.fault for one in facts if one.fault is not None]
    assert [(one.code, one.evidence["kind"]) for one in faults] == [
        ("SERIES_UNREADABLE", "RuntimeError")
    ]


def test_a_series_with_a_hole_is_no_volume(
    small_study: WrittenStudy, spool: Spool, tmp_path: Path
) -> None:
    paths = phantoms.missing_slice(small_study.files.paths["t2"], tmp_path / "t2")
    (one,) = read_facts(_kept(paths, "t2", spool), spool)
    assert one.fault is not None
    assert one.fault.code == "GEOM_MISSING_SLICE"
    assert one.geometry.startswith(f"{len(paths)} slices")
    assert "mm" not in one.geometry


def test_a_file_that_is_gone_is_no_fault_of_its_series(
    received: list[ReceivedInstance], spool: Spool
) -> None:
    _path(received[3], spool).unlink()
    with pytest.raises(FileNotFoundError):
        read_facts(received, spool)


def test_a_rule_of_the_site_is_kept_with_the_series_that_it_is_about(
    received: list[ReceivedInstance], spool: Spool
) -> None:
    rule = Rule(name="inversion", role="flair", where={"InversionTime": Condition(at_least=1500.0)})
    facts = read_facts(received, spool, Site(rules=(rule,)))
    ruled = [one for one in facts if one.ruling is not None]
    assert [one.ruling.rule for one in ruled if one.ruling] == ["inversion"]
    assert ruled[0].series_instance_uid == received[0].series_instance_uid


def test_only_what_has_changed_is_read_again(
    received: list[ReceivedInstance], spool: Spool
) -> None:
    reader = FactReader(spool)
    late = received[-1]
    before = reader.of("case", [one for one in received if one is not late])
    for one in received:
        if one.series_instance_uid != late.series_instance_uid:
            _path(one, spool).unlink()  # whoever reads it again fails
    after = reader.of("case", received)
    counts = {one.series_instance_uid: len(one.instances) for one in after}
    earlier = {one.series_instance_uid: len(one.instances) for one in before}
    assert counts == {**earlier, late.series_instance_uid: earlier[late.series_instance_uid] + 1}
    reader.forget("case")
    with pytest.raises(FileNotFoundError):
        reader.of("case", received)


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ([[0, 0, 1], [0, 1, 0], [5.5, 0, 0]], "44 slices, 1.00 x 1.00 x 5.50 mm, axial, 2-D"),
        ([[5.5, 0, 0], [0, 1, 0], [0, 0, 1]], "44 slices, 1.00 x 1.00 x 5.50 mm, sagittal, 2-D"),
        ([[0, 1, 0], [5.5, 0, 0], [0, 0, 1]], "44 slices, 1.00 x 1.00 x 5.50 mm, coronal, 2-D"),
    ],
)
def test_a_geometry_is_said_in_words(axes: list[list[float]], said: str) -> None:
    assert describe(_grid(np.array(axes)), 44, "2D") == said


def test_an_oblique_stack_is_said_to_be_one() -> None:
    angle = np.radians(17.0)
    turn = np.array(
        [
            [1, 0, 0],
            [0, np.cos(angle), -np.sin(angle)],
            [0, np.sin(angle), np.cos(angle)],
        ]
    )
    axes = turn @ np.array([[0.0, 0, 0.9], [0, 0.9, 0], [2.0, 0, 0]])
    said = describe(_grid(axes), 30, "3D")
    assert said == "30 slices, 0.90 x 0.90 x 2.00 mm, axial 17 degrees oblique, 3-D"


def test_what_is_no_volume_is_counted_only() -> None:
    assert describe(None, 1, "") == "1 slice"
    assert describe(None, 7, "2D") == "7 slices, 2-D"


def _grid(axes: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> Grid:
    matrix = np.eye(4)
    matrix[:3, :3] = axes
    return Grid(shape=(44, 64, 64), index_to_lps_mm=matrix, frame_of_reference_uid="")
