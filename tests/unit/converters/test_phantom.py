"""The synthetic study: what it shows, and that its files say the same."""

from __future__ import annotations

import itertools
from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom import dcmread

from converters import phantom
from converters.mr_writer import StudyIdentity, write_series
from converters.phantom import CORE, ENHANCING, OEDEMA, ROLES, Lesion, PhantomStudy
from converters.volume import Grid, Role, Volume
from tests import peers
from tests.phantoms import WrittenStudy


@pytest.fixture(scope="module")
def study(small_study: WrittenStudy) -> PhantomStudy:
    return small_study.study


def _mean(study: PhantomStudy, role: Role, label: int) -> float:
    return float(study.volumes[role].intensities[study.truth[role] == label].mean())


def _healthy_median(study: PhantomStudy, role: Role) -> float:
    intensities = study.volumes[role].intensities
    return float(np.median(intensities[(study.truth[role] == 0) & (intensities > 0)]))


def _nearest(grid: Grid, lps_mm: tuple[float, float, float]) -> tuple[int, int, int]:
    index = np.linalg.solve(grid.index_to_lps_mm, np.array([*lps_mm, 1.0]))[:3]
    slice_index, row, column = (int(part) for part in np.rint(index))
    return slice_index, row, column


def _volume_mm3(study: PhantomStudy, role: Role, label: int) -> float:
    grid = study.volumes[role].grid
    return float((study.truth[role] == label).sum()) * grid.voxel_volume_mm3


def test_the_same_seed_gives_the_same_study_to_the_bit(study: PhantomStudy) -> None:
    again = phantom.make_study(0, size="small")
    for role in ROLES:
        np.testing.assert_array_equal(
            again.volumes[role].intensities, study.volumes[role].intensities
        )
        np.testing.assert_array_equal(again.truth[role], study.truth[role])


def test_another_seed_gives_another_brain_in_another_frame_of_reference(
    study: PhantomStudy,
) -> None:
    other = phantom.make_study(1, size="small")
    mine, theirs = study.volumes["t2"], other.volumes["t2"]
    assert (mine.intensities != theirs.intensities).mean() > 0.1
    assert mine.grid.frame_of_reference_uid != theirs.grid.frame_of_reference_uid


@pytest.mark.parametrize("size", ["clinical", "small"])
def test_every_series_has_its_own_extents_in_one_frame_of_reference(
    size: str, request: pytest.FixtureRequest
) -> None:
    fixture = "full_study" if size == "clinical" else "small_study"
    study = request.getfixturevalue(fixture).study
    grids = [volume.grid for volume in study.volumes.values()]
    assert len({grid.shape for grid in grids}) == len(ROLES)
    assert len({grid.frame_of_reference_uid for grid in grids}) == 1
    normals = [np.cross(*grid.index_to_lps_mm[:3, [2, 1]].T) for grid in grids]
    units = [normal / np.linalg.norm(normal) for normal in normals]
    assert all(np.degrees(np.arccos(a @ b)) > 0.4 for a, b in itertools.combinations(units, 2)), (
        "no two series have the same tilt"
    )


def test_the_slice_axis_ascends_along_the_normal(study: PhantomStudy) -> None:
    for volume in study.volumes.values():
        assert np.linalg.det(volume.grid.index_to_lps_mm[:3, [2, 1, 0]]) > 0


def test_the_lesions_centre_is_core_on_every_grid(full_study: WrittenStudy) -> None:
    centre = full_study.study.lesion_centre_lps_mm
    assert centre is not None
    for role, volume in full_study.study.volumes.items():
        assert full_study.study.truth[role][_nearest(volume.grid, centre)] == CORE


def test_every_grid_shows_the_same_tumour(full_study: WrittenStudy) -> None:
    study = full_study.study
    for label in (OEDEMA, CORE, ENHANCING):
        volumes = [_volume_mm3(study, role, label) for role in ROLES]
        assert min(volumes) > 3000.0
        assert max(volumes) / min(volumes) < 1.03


def test_truth_at_a_point_is_the_same_whichever_grid_asks(full_study: WrittenStudy) -> None:
    study = full_study.study
    finest, other = study.volumes["t1gd"].grid, study.volumes["t2"].grid
    inside = np.argwhere(study.truth["t2"] > 0)
    positions = other.lps_mm(inside.astype(np.float64))
    to_finest = np.linalg.inv(finest.index_to_lps_mm)
    at = np.rint(positions @ to_finest[:3, :3].T + to_finest[:3, 3]).astype(int)
    here = study.truth["t2"][tuple(inside.T)]
    there = study.truth["t1gd"][tuple(at.T)]
    assert (here == there).mean() > 0.9  # half a voxel decides at the borders


def test_flair_shows_oedema_brightest_and_fluid_dark(full_study: WrittenStudy) -> None:
    study = full_study.study
    normal = _healthy_median(study, "flair")
    assert _mean(study, "flair", OEDEMA) > 1.5 * normal
    assert _mean(study, "flair", OEDEMA) > _mean(study, "flair", CORE)
    intensities = study.volumes["flair"].intensities
    assert np.percentile(intensities[intensities > 0], 2) < 0.75 * normal


def test_t1_shows_the_core_dark(full_study: WrittenStudy) -> None:
    assert _mean(full_study.study, "t1", CORE) < 0.6 * _healthy_median(full_study.study, "t1")


def test_contrast_agent_lights_up_the_rim_and_nothing_else(full_study: WrittenStudy) -> None:
    study = full_study.study
    assert _mean(study, "t1gd", ENHANCING) > 1.5 * _healthy_median(study, "t1gd")
    assert _mean(study, "t1", ENHANCING) < _healthy_median(study, "t1")
    ratio = _mean(study, "t1gd", CORE) / _mean(study, "t1", CORE)
    assert 0.8 < ratio < 1.3


def test_t2_shows_fluid_and_oedema_bright(full_study: WrittenStudy) -> None:
    study = full_study.study
    normal = _healthy_median(study, "t2")
    assert _mean(study, "t2", OEDEMA) > 1.25 * normal
    intensities = study.volumes["t2"].intensities
    assert np.percentile(intensities[intensities > 0], 98) > 1.5 * normal


def test_the_brain_has_a_plausible_volume(full_study: WrittenStudy) -> None:
    for volume in full_study.study.volumes.values():
        litres = (volume.intensities > 0).sum() * volume.grid.voxel_volume_mm3 / 1e6
        assert 1.1 < litres < 1.8


def test_intensities_are_whole_numbers_of_twelve_bits(study: PhantomStudy) -> None:
    for volume in study.volumes.values():
        assert (volume.intensities % 1 == 0).all()
        assert volume.intensities.min() == 0
        assert 1000 < volume.intensities.max() <= 4095


def test_a_skull_surrounds_the_brain_when_asked_for(study: PhantomStudy) -> None:
    head = phantom.make_study(0, size="small", has_skull=True)
    for role in ROLES:
        stripped, whole = study.volumes[role].intensities, head.volumes[role].intensities
        assert (stripped == 0).mean() > 0.4
        assert (whole == 0).mean() < 0.2  # only beyond what is drawn, and by chance in the air
        middle = whole.shape[0] // 2
        assert (whole[middle] > 300).sum() > 1.25 * (stripped[middle] > 300).sum()


def test_a_healthy_brain_has_no_labels() -> None:
    healthy = phantom.make_study(2, size="small", lesions=())
    assert healthy.lesion_centre_lps_mm is None
    assert not any(labels.any() for labels in healthy.truth.values())


def test_several_lesions_are_drawn_apart() -> None:
    small = Lesion(centre_mm=(-28.0, 30.0, 20.0), radius_mm=11.0, rim_mm=4.0, oedema_mm=4.0)
    both = phantom.make_study(0, size="small", lesions=(phantom.usual_lesion(0), small))
    one = phantom.make_study(0, size="small")
    grid = both.volumes["t1gd"].grid
    second = np.array(small.centre_mm) + np.array(both.lesion_centre_lps_mm) - [30.0, -18.0, 26.0]
    at = _nearest(grid, (second[0], second[1], second[2]))
    assert (both.truth["t1gd"][at], one.truth["t1gd"][at]) == (CORE, 0)


def test_a_lesion_beyond_the_field_of_view_leaves_no_label() -> None:
    far = Lesion(centre_mm=(400.0, 0.0, 0.0))
    study = phantom.make_study(0, size="small", lesions=(far,))
    assert not any(labels.any() for labels in study.truth.values())


@pytest.mark.parametrize(("rim_mm", "oedema_mm"), [(0.0, 5.0), (18.0, 5.0), (4.0, -1.0)])
def test_a_lesion_without_sense_is_refused(rim_mm: float, oedema_mm: float) -> None:
    with pytest.raises(ValueError, match="a lesion needs"):
        Lesion(centre_mm=(0.0, 0.0, 0.0), radius_mm=18.0, rim_mm=rim_mm, oedema_mm=oedema_mm)


def test_an_odd_matrix_is_no_multiple_of_eight() -> None:
    study = phantom.make_study(0, size="small", has_odd_matrix=True, lesions=())
    for volume in study.volumes.values():
        assert volume.grid.shape[1] * volume.grid.shape[2] % 8 != 0


@pytest.mark.parametrize("role", ROLES)
def test_another_reader_finds_the_same_voxels_at_the_same_places(
    full_study: WrittenStudy, role: Role
) -> None:
    headers = [dcmread(path) for path in full_study.files.paths[role]]
    read = highdicom.get_volume_from_series(headers)
    mine = full_study.study.volumes[role]
    corners = list(itertools.product(*((0, count - 1) for count in mine.grid.shape)))
    theirs = read.map_indices_to_reference(np.array(corners))
    in_order = read.array
    if np.linalg.norm(theirs[0] - mine.grid.lps_mm(np.array(corners[0], float))) > 1.0:
        in_order = in_order[::-1]
        theirs = read.map_indices_to_reference(
            np.array([(mine.grid.shape[0] - 1 - k, r, c) for k, r, c in corners])
        )
    np.testing.assert_array_equal(in_order, mine.intensities)
    expected = mine.grid.lps_mm(np.array(corners, dtype=np.float64))
    np.testing.assert_allclose(theirs, expected, atol=1e-6)


@pytest.mark.parametrize("role", ROLES)
def test_the_validator_finds_no_error(small_study: WrittenStudy, role: Role) -> None:
    peers.require("dciodvfy")
    findings = peers.dciodvfy(small_study.files.paths[role][5])
    assert [one for one in findings if one.startswith("Error")] == []


def test_identifiers_are_unique_and_follow_from_the_seed(
    small_study: WrittenStudy, tmp_path: Path
) -> None:
    def uids(paths: list[Path]) -> list[str]:
        return [str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in paths]

    first = [uid for role in ROLES for uid in uids(small_study.files.paths[role])]
    assert len(set(first)) == len(first) == len(small_study.interleaved)
    again = phantom.write_study(small_study.study, tmp_path / "again")
    assert [uid for role in ROLES for uid in uids(again.paths[role])] == first
    other = phantom.write_study(
        small_study.study, tmp_path / "other", identity=StudyIdentity(seed=99)
    )
    assert other.study_instance_uid != again.study_instance_uid
    assert not set(first) & {uid for role in ROLES for uid in uids(other.paths[role])}


def test_headers_hold_the_traps_of_real_series(small_study: WrittenStudy) -> None:
    headers = {
        role: [dcmread(path, stop_before_pixels=True) for path in small_study.files.paths[role]]
        for role in ROLES
    }
    for many in headers.values():
        assert many[0].SliceThickness < many[0].SpacingBetweenSlices
        assert str(many[0].PatientName) == "Phantom^Bj\u00f6rn"
        assert many[0].BitsStored == 12
    assert [ds.InstanceNumber for ds in headers["t2"]] == list(range(22, 0, -1))
    assert [ds.InstanceNumber for ds in headers["t1"]] == list(range(1, 24))
    assert "ContrastBolusAgent" in headers["t1gd"][0]
    assert "ContrastBolusAgent" not in headers["t1"][0]
    assert headers["flair"][0].InversionTime > 2000
    assert len({many[0].StudyInstanceUID for many in headers.values()}) == 1
    assert len({many[0].SeriesInstanceUID for many in headers.values()}) == len(ROLES)


def test_any_volume_is_scaled_to_twelve_bits_and_keeps_its_grid(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0] * [5.5, 0.898, 0.899]
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn, [-101.23456789, 77.7, -12.3]
    grid = Grid(shape=(4, 6, 5), index_to_lps_mm=matrix, frame_of_reference_uid="")
    real = rng.normal(0.0, 20.0, grid.shape).astype(np.float32)
    paths = write_series(Volume(intensities=real, grid=grid, role="flair"), tmp_path)
    headers = [dcmread(path) for path in paths]
    stored = np.stack([ds.pixel_array for ds in headers]).astype(np.float64)
    scaled = (real - real.min()) / (real.max() - real.min()) * 4095
    np.testing.assert_allclose(stored, scaled, atol=0.51)
    positions = np.array([ds.ImagePositionPatient for ds in headers], dtype=np.float64)
    np.testing.assert_allclose(
        positions, (matrix @ [[0, 1, 2, 3], *([[0] * 4] * 2), [1] * 4])[:3].T
    )
    cosines = np.array(headers[0].ImageOrientationPatient, dtype=np.float64)
    np.testing.assert_allclose(cosines, [*matrix[:3, 2] / 0.899, *matrix[:3, 1] / 0.898])
    assert [float(part) for part in headers[0].PixelSpacing] == [0.898, 0.899]
    assert headers[0].FrameOfReferenceUID


def test_a_constant_volume_can_be_written(tmp_path: Path) -> None:
    grid = Grid(shape=(2, 4, 4), index_to_lps_mm=np.eye(4), frame_of_reference_uid="")
    flat = Volume(intensities=np.full(grid.shape, -0.5, np.float32), grid=grid, role="t1")
    (first, _) = write_series(flat, tmp_path)
    assert not dcmread(first).pixel_array.any()
