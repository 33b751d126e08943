"""Registration of small generated studies: what moves, what stays, what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters import phantom
from converters.errors import MotionTooLargeError, PoorFitError
from converters.phantom_scanner import BRAIN_CENTRE_LPS_MM
from converters.register import Motion, _check_fit, _decided, moved, register
from converters.volume import Role, Volume
from tests.moved_heads import displaced, errors_mm, rigid, with_values
from tests.phantoms import WrittenStudy

VOXEL_MM = 1.2
"""Mean error that slices of about 6 mm and rows of 2 mm are held to."""

BRAIN_MM = BRAIN_CENTRE_LPS_MM + 55.0 * np.concatenate([np.eye(3), -np.eye(3)])


@pytest.fixture(scope="module")
def volumes(small_study: WrittenStudy) -> Mapping[Role, Volume]:
    return small_study.study.volumes


@given(seed=st.integers(0, 10_000), role=st.sampled_from(["flair", "t1", "t2"]))
@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_whatever_the_motion_it_is_found(
    volumes: Mapping[Role, Volume], seed: int, role: Role
) -> None:
    put_by = rigid(seed, 15.0, 15.0, BRAIN_CENTRE_LPS_MM)
    motion = register(displaced(volumes[role], put_by), volumes["t1gd"])
    assert motion.is_applied
    assert errors_mm(motion, put_by, BRAIN_MM).mean() <= VOXEL_MM


def test_a_stripped_brain_is_found_far_beyond_the_usual(volumes: Mapping[Role, Volume]) -> None:
    study = phantom.make_study(3, size="small", has_skull=False)
    put_by = rigid(5, 20.0, 40.0, BRAIN_CENTRE_LPS_MM)
    motion = register(
        displaced(study.volumes["t2"], put_by), study.volumes["t1gd"], largest_rotation_deg=60.0
    )
    assert errors_mm(motion, put_by, BRAIN_MM).mean() <= VOXEL_MM
    assert volumes  # the other study is not touched


def test_what_fits_stays_untouched_and_says_why(volumes: Mapping[Role, Volume]) -> None:
    motion = register(volumes["t1"], volumes["t1gd"])
    assert not motion.is_applied
    assert (motion.lps_to_reference_lps_mm == np.eye(4)).all()
    assert moved(volumes["t1"], motion, volumes["t1gd"].grid) is volumes["t1"]
    assert motion.reason.startswith("headers kept: the best fit lies 0.")
    assert motion.shift_mm < 0.5


def test_a_moved_volume_has_its_voxels_on_a_corrected_grid(
    volumes: Mapping[Role, Volume],
) -> None:
    put_by = rigid(1, 8.0, 8.0, BRAIN_CENTRE_LPS_MM)
    away = displaced(volumes["t1"], put_by)
    motion = register(away, volumes["t1gd"])
    back = moved(away, motion, volumes["t1gd"].grid)
    assert np.shares_memory(back.intensities, away.intensities)
    corner = back.grid.lps_mm(np.zeros(3)) - volumes["t1"].grid.lps_mm(np.zeros(3))
    assert np.linalg.norm(corner) < 2 * VOXEL_MM
    turn = motion.lps_to_reference_lps_mm[:3, :3]
    assert turn @ turn.T == pytest.approx(np.eye(3), abs=1e-9)
    assert np.linalg.det(turn) == pytest.approx(1.0)
    assert motion.reason.startswith(f"moved by {motion.shift_mm:.1f} mm and ")
    assert motion.fit > motion.fit_by_headers


def test_the_same_volumes_give_the_same_motion_in_any_thread(
    volumes: Mapping[Role, Volume],
) -> None:
    away = displaced(volumes["t2"], rigid(2, 8.0, 8.0, BRAIN_CENTRE_LPS_MM))
    with ThreadPoolExecutor(2) as threads:
        both = list(threads.map(register, [away] * 2, [volumes["t1gd"]] * 2))
    first, second = (one.lps_to_reference_lps_mm for one in both)
    assert (first == second).all()


def test_another_frame_is_replaced_even_where_nothing_moves(
    volumes: Mapping[Role, Volume],
) -> None:
    other = with_values(volumes["t1"], volumes["t1"].intensities, frame="")
    motion = register(other, volumes["t1gd"])
    assert not motion.is_applied
    back = moved(other, motion, volumes["t1gd"].grid)
    frame = volumes["t1gd"].grid.frame_of_reference_uid
    assert back.grid.frame_of_reference_uid == frame
    assert (back.grid.index_to_lps_mm == other.grid.index_to_lps_mm).all()


def test_a_far_shift_is_refused_in_one_frame_and_followed_from_another(
    volumes: Mapping[Role, Volume],
) -> None:
    far = np.eye(4)
    far[:3, 3] = [20.0, -30.0, 70.0]
    with pytest.raises(MotionTooLargeError) as caught:
        register(displaced(volumes["t1"], far), volumes["t1gd"])
    assert str(caught.value).startswith("t1: the series lies 78.")
    assert "at most 60.0 mm and 30.0 degrees" in str(caught.value)
    motion = register(displaced(volumes["t1"], far, frame="1.2.3"), volumes["t1gd"])
    assert "from another frame of reference" in motion.reason
    assert errors_mm(motion, far, BRAIN_MM).mean() <= VOXEL_MM


def test_a_large_turn_is_refused_even_from_another_frame(
    volumes: Mapping[Role, Volume],
) -> None:
    turned = rigid(4, 12.0, 5.0, BRAIN_CENTRE_LPS_MM)
    away = displaced(volumes["t1"], turned, frame="1.2.3")
    with pytest.raises(MotionTooLargeError):
        register(away, volumes["t1gd"], largest_rotation_deg=4.0)


def test_noise_is_refused(volumes: Mapping[Role, Volume]) -> None:
    rng = np.random.default_rng(0)
    values = rng.random(volumes["t1"].grid.shape, dtype=np.float32)
    with pytest.raises(PoorFitError) as caught:
        register(with_values(volumes["t1"], values), volumes["t1gd"])
    assert caught.value.evidence["role"] == "t1"
    assert "expected at least 12 %" in str(caught.value)


def test_a_volume_that_never_overlaps_is_refused(volumes: Mapping[Role, Volume]) -> None:
    flat = np.zeros((4, 20, 20), dtype=np.float32)
    flat[1, 9:11, 9:11] = 1.0
    with pytest.raises(PoorFitError):
        register(with_values(volumes["t1"], flat), volumes["t1gd"])


def test_fits_that_disagree_are_refused() -> None:
    motion = Motion(role="t1", is_applied=False, reason="", peak=0.3, disagreement_mm=2.4)
    with pytest.raises(PoorFitError) as caught:
        _check_fit(motion)
    assert str(caught.value).endswith("two fits are 2.4 mm apart, expected at most 2.0")


def test_a_mirror_image_that_fits_better_is_refused() -> None:
    motion = Motion(role="t1", is_applied=False, reason="", peak=0.3, mirrored=1.09)
    with pytest.raises(PoorFitError) as caught:
        _check_fit(motion)
    assert str(caught.value).endswith("its mirror image fits 1.09 times as well")


def test_a_motion_that_gains_nothing_is_left_out(volumes: Mapping[Role, Volume]) -> None:
    found = Motion(role="t1", is_applied=False, reason="", shift_mm=9.0, fit=0.8)
    motion = _decided(replace(found, fit_by_headers=0.9), volumes["t1"], volumes["t1gd"])
    assert not motion.is_applied
    assert (motion.lps_to_reference_lps_mm == np.eye(4)).all()


def test_a_mirror_image_is_refused(volumes: Mapping[Role, Volume]) -> None:
    values = np.flip(volumes["t2"].intensities, 2).copy()
    with pytest.raises(PoorFitError) as caught:
        register(with_values(volumes["t2"], values), volumes["t1gd"])
    assert caught.value.code == "ALIGN_POOR_FIT"
