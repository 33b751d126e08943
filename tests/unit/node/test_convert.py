"""The instances of a case to volumes in its folder, brought together once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest

from converters import nifti
from converters.errors import (
    MissingAttributeError,
    MixedFrameOfReferenceError,
    MotionTooLargeError,
    PartUnknownError,
    PoorFitError,
    RoleMissingError,
)
from converters.mr_writer import derived_uid, write_series
from converters.phantom_scanner import BRAIN_CENTRE_LPS_MM
from converters.volume import Role, Volume
from node import convert
from node.cases import AssembledCase, AssembledSeries, ClosedBy, ReceivedInstance
from node.settings import Align
from node.spool import Spool
from tests.moved_heads import displaced, rigid, with_values
from tests.phantoms import WrittenStudy, edited

NOW = datetime(2025, 3, 1, tzinfo=UTC)
OFF = Align(registration="off")
ROLES = ("flair", "t1", "t1gd", "t2")
Keep = Callable[[Mapping[Role, Sequence[Path]]], AssembledCase]


def received(path: Path, spool: Spool) -> ReceivedInstance:
    ds = pydicom.dcmread(path, stop_before_pixels=True)
    content = path.read_bytes()
    part, digest = spool.new_part(), hashlib.sha256(content).hexdigest()
    part.write_bytes(content)
    name = spool.instance_name(
        study_instance_uid=ds.StudyInstanceUID,
        sop_instance_uid=ds.SOPInstanceUID,
        sha256=digest,
    )
    spool.keep_instance(part, name)
    return ReceivedInstance(
        study_instance_uid=ds.StudyInstanceUID,
        series_instance_uid=ds.SeriesInstanceUID,
        sop_class_uid=ds.SOPClassUID,
        sop_instance_uid=ds.SOPInstanceUID,
        transfer_syntax_uid=ds.file_meta.TransferSyntaxUID,
        calling_ae_title="SENDER",
        path=name,
        byte_count=len(content),
        sha256=digest,
        received_at=NOW,
    )


@pytest.fixture
def keep(spool: Spool) -> Keep:
    def _keep(paths: Mapping[Role, Sequence[Path]]) -> AssembledCase:
        series = []
        for role, files in paths.items():
            instances = tuple(received(path, spool) for path in files)
            uid = instances[0].series_instance_uid
            series.append(AssembledSeries(series_instance_uid=uid, role=role, instances=instances))
        return AssembledCase(
            case_id="0123456789abcdef0123456789abcdef",
            study_instance_uid=series[0].instances[0].study_instance_uid,
            series=tuple(series),
            reference_role="t1gd",
            closed_by=ClosedBy.COMPLETE,
        )

    return _keep


def two(study: WrittenStudy, moving: Sequence[Path]) -> dict[Role, Sequence[Path]]:
    return {"t1gd": study.files.paths["t1gd"], "t1": moving}


def written(volume: Volume, folder: Path) -> list[Path]:
    return write_series(volume, folder, series_number=77)


def test_a_study_that_fits_keeps_every_voxel_where_it_is(
    small_study: WrittenStudy, keep: Keep, spool: Spool
) -> None:
    case = keep(small_study.files.paths)
    motions = convert.convert_case(case, ROLES, spool)
    assert sorted(motion.role for motion in motions) == ["flair", "t1", "t2"]
    assert not any(motion.is_applied for motion in motions)
    for role, volume in convert.read_volumes(case, spool).items():
        source = small_study.study.volumes[role]
        assert (volume.intensities == source.intensities).all()
        assert np.allclose(volume.grid.index_to_lps_mm, source.grid.index_to_lps_mm, atol=1e-3)
    channels = nifti.read_channels(spool.case_folder(case.case_id) / "channels.nii.gz", ROLES)
    assert channels[2].grid.shape == small_study.study.volumes["t1gd"].grid.shape


def test_a_moved_series_gets_a_corrected_grid_and_the_same_voxels(
    small_study: WrittenStudy, keep: Keep, spool: Spool, tmp_path: Path
) -> None:
    source = small_study.study.volumes["t1"]
    away = displaced(source, rigid(1, 8.0, 8.0, BRAIN_CENTRE_LPS_MM))
    case = keep(two(small_study, written(away, tmp_path / "away")))
    (motion,) = convert.convert_case(case, ("t1", "t1gd"), spool)
    volume = convert.read_volume(case, "t1", spool)
    assert motion.is_applied
    assert (volume.intensities == source.intensities).all()
    middle = np.array(source.grid.shape) / 2.0
    apart = volume.grid.lps_mm(middle) - source.grid.lps_mm(middle)
    assert np.linalg.norm(apart) < 1.2
    reference = convert.read_volume(case, "t1gd", spool).grid
    wanted = small_study.study.volumes["t1gd"].grid
    assert np.allclose(reference.index_to_lps_mm, wanted.index_to_lps_mm, atol=1e-3)
    channel, _ = nifti.read_channels(
        spool.case_folder(case.case_id) / "channels.nii.gz", ("t1", "t1gd")
    )
    truth = nifti.read_volume(
        spool.case_folder(case.case_id) / "t1gd.nii", role="t1gd", frame_of_reference_uid=""
    )
    both = (channel.intensities > 300) & (truth.intensities > 300)
    either = (channel.intensities > 300) | (truth.intensities > 300)
    assert both.sum() / either.sum() > 0.9


def test_the_alignment_file_gives_back_what_was_found(
    small_study: WrittenStudy, keep: Keep, spool: Spool
) -> None:
    case = keep(two(small_study, small_study.files.paths["t1"]))
    (motion,) = convert.convert_case(case, ("t1", "t1gd"), spool)
    path = spool.case_folder(case.case_id) / "alignment.json"
    first = path.read_bytes()
    (read,) = convert.read_alignment(case, spool)
    assert read.reason == motion.reason
    assert read.shift_mm == motion.shift_mm
    assert (read.lps_to_reference_lps_mm == motion.lps_to_reference_lps_mm).all()
    content = json.loads(first)
    assert content["reference_role"] == "t1gd"
    assert content["method"].startswith("neuroseg-rigid-mutual-information/")
    convert.convert_case(case, ("t1", "t1gd"), spool)
    assert path.read_bytes() == first


def test_nothing_is_moved_where_registration_is_off(
    small_study: WrittenStudy, keep: Keep, spool: Spool, tmp_path: Path
) -> None:
    away = displaced(small_study.study.volumes["t1"], rigid(1, 8.0, 8.0, BRAIN_CENTRE_LPS_MM))
    case = keep(two(small_study, written(away, tmp_path / "away")))
    assert convert.convert_case(case, ("t1", "t1gd"), spool, align_by=OFF) == ()
    assert convert.read_alignment(case, spool) == ()
    volume = convert.read_volume(case, "t1", spool)
    assert np.allclose(volume.grid.index_to_lps_mm, away.grid.index_to_lps_mm, atol=1e-3)


def test_no_alignment_was_kept_before_the_case_was_converted(
    small_study: WrittenStudy, keep: Keep, spool: Spool
) -> None:
    case = keep(two(small_study, small_study.files.paths["t1"]))
    assert convert.read_alignment(case, spool) == ()


def test_another_frame_is_refused_only_where_registration_is_off(
    small_study: WrittenStudy, keep: Keep, spool: Spool, tmp_path: Path
) -> None:
    far = np.eye(4)
    far[:3, 3] = [0.0, 80.0, 60.0]
    other = displaced(small_study.study.volumes["t1"], far, frame="2.25.99")
    case = keep(two(small_study, written(other, tmp_path / "other")))
    with pytest.raises(MixedFrameOfReferenceError):
        convert.convert_case(case, ("t1", "t1gd"), spool, align_by=OFF)
    (motion,) = convert.convert_case(case, ("t1", "t1gd"), spool)
    assert motion.is_applied
    assert "another frame of reference" in motion.reason


def test_a_reference_without_a_frame_is_refused(
    small_study: WrittenStudy, keep: Keep, spool: Spool, tmp_path: Path
) -> None:
    def _bare(_: int, ds: pydicom.Dataset) -> None:
        del ds.FrameOfReferenceUID

    paths = small_study.files.paths
    bare = edited(paths["t1gd"], tmp_path / "bare", _bare)
    case = keep({"t1gd": bare, "t1": paths["t1"]})
    with pytest.raises(MissingAttributeError) as caught:
        convert.convert_case(case, ("t1", "t1gd"), spool)
    assert caught.value.evidence["role"] == "t1gd"


def test_limits_come_from_the_settings(
    small_study: WrittenStudy, keep: Keep, spool: Spool, tmp_path: Path
) -> None:
    away = displaced(small_study.study.volumes["t1"], rigid(1, 8.0, 8.0, BRAIN_CENTRE_LPS_MM))
    case = keep(two(small_study, written(away, tmp_path / "away")))
    with pytest.raises(MotionTooLargeError):
        convert.convert_case(case, ("t1", "t1gd"), spool, align_by=Align(largest_shift_mm=2.0))


def test_what_does_not_fit_is_refused_with_its_role(
    small_study: WrittenStudy, keep: Keep, spool: Spool, tmp_path: Path
) -> None:
    source = small_study.study.volumes["t1"]
    noise = np.random.default_rng(0).integers(0, 4000, source.grid.shape).astype(np.float32)
    case = keep(two(small_study, written(with_values(source, noise), tmp_path / "noise")))
    with pytest.raises(PoorFitError) as caught:
        convert.convert_case(case, ("t1", "t1gd"), spool)
    assert caught.value.evidence["role"] == "t1"


def test_a_role_that_may_be_lacking_is_a_channel_of_zeros(
    small_study: WrittenStudy, keep: Keep, spool: Spool
) -> None:
    case = keep({"t1gd": small_study.files.paths["t1gd"]})
    with pytest.raises(RoleMissingError):
        convert.convert_case(case, ("t1", "t1gd"), spool)
    assert convert.convert_case(case, ("t1", "t1gd"), spool, may_lack=("t1",)) == ()
    path = spool.case_folder(case.case_id) / "channels.nii.gz"
    empty, full = nifti.read_channels(path, ("t1", "t1gd"))
    assert not empty.intensities.any()
    assert full.intensities.any()
    assert list(convert.read_volumes(case, spool)) == ["t1gd"]


def test_one_acquisition_of_a_series_is_taken_by_its_name(
    small_study: WrittenStudy, keep: Keep, spool: Spool, tmp_path: Path
) -> None:
    def _second_echo(index: int, ds: pydicom.Dataset) -> None:
        ds.EchoTime = 90
        ds.EchoNumbers = 2
        ds.SOPInstanceUID = derived_uid("second echo", index)
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.PixelData = bytes(reversed(ds.PixelData))

    first = small_study.files.paths["t1"]
    both = [*first, *edited(first, tmp_path / "echo", _second_echo)]
    case = keep(two(small_study, both))
    moving = replace(case.series[1], part="EchoTime=9.4")
    case = replace(case, series=(case.series[0], moving))
    convert.convert_case(case, ("t1", "t1gd"), spool, align_by=OFF)
    found = convert.read_volume(case, "t1", spool).intensities
    assert (found == small_study.study.volumes["t1"].intensities).all()


def test_an_acquisition_that_is_not_there_is_refused_with_its_role(
    small_study: WrittenStudy, keep: Keep, spool: Spool
) -> None:
    case = keep(two(small_study, small_study.files.paths["t1"]))
    reference, moving = case.series
    case = replace(case, series=(reference, replace(moving, part="EchoTime=90")))
    with pytest.raises(PartUnknownError) as caught:
        convert.convert_case(case, ("t1", "t1gd"), spool)
    assert caught.value.evidence["role"] == "t1"
