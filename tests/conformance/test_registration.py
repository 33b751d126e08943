"""Known motions of generated heads and of real exams, found again: figures that sites rely on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converters import nifti, series
from converters.errors import MotionTooLargeError, PoorFitError
from converters.mr_writer import write_series
from converters.register import moved, register
from converters.volume import Role, Volume
from tests.moved_heads import (
    FRAME,
    Head,
    biased,
    cropped,
    displaced,
    errors_mm,
    head,
    rigid,
    thick,
    with_values,
)

THIN_MM, THICK_MM, NO_HARM_MM = 0.5, 1.2, 0.1
Change = Callable[[Volume], Volume]


@pytest.fixture(scope="module")
def whole() -> Head:
    return head(11)


@pytest.fixture(scope="module")
def stripped() -> Head:
    return head(12, has_skull=False)


def mean_error_mm(one: Head, moving: Volume, reference: Volume, seed: int) -> float:
    put_by = rigid(seed, 15.0, 15.0, one.brain_mm.mean(axis=0))
    motion = register(displaced(moving, put_by), reference)
    assert motion.is_applied, motion.reason
    return float(errors_mm(motion, put_by, one.brain_mm).mean())


@pytest.mark.parametrize(("role", "seed"), [("t1", 1), ("t2", 2), ("flair", 3)])
def test_a_whole_head_of_1_mm_comes_back(whole: Head, role: Role, seed: int) -> None:
    found = mean_error_mm(whole, whole.volumes[role], whole.volumes["t1gd"], seed)
    assert found <= THIN_MM


@pytest.mark.parametrize(("role", "seed"), [("t2", 5), ("flair", 6)])
def test_a_stripped_brain_of_1_mm_comes_back(stripped: Head, role: Role, seed: int) -> None:
    found = mean_error_mm(stripped, stripped.volumes[role], stripped.volumes["t1gd"], seed)
    assert found <= THIN_MM


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["axial", "coronal", "sagittal"])
def test_slices_of_5_mm_come_back_in_any_plane(whole: Head, axis: int) -> None:
    moving = thick(whole.volumes["flair"], axis, 5)
    assert mean_error_mm(whole, moving, whole.volumes["t1gd"], 10 + axis) <= THICK_MM


def test_thick_slices_come_back_to_thick_slices_of_another_plane(whole: Head) -> None:
    moving, reference = thick(whole.volumes["t2"], 2, 5), thick(whole.volumes["t1gd"], 0, 5)
    assert mean_error_mm(whole, moving, reference, 14) <= THICK_MM


def test_half_a_head_comes_back(whole: Head) -> None:
    moving = cropped(whole.volumes["t1"], 60, 140)
    assert mean_error_mm(whole, moving, whole.volumes["t1gd"], 15) <= THIN_MM


def test_an_uneven_coil_does_not_mislead(whole: Head) -> None:
    moving = biased(whole.volumes["t2"])
    assert mean_error_mm(whole, moving, whole.volumes["t1gd"], 16) <= THIN_MM


def test_a_motion_goes_through_dicom_and_comes_back(whole: Head, tmp_path: Path) -> None:
    put_by = rigid(17, 10.0, 10.0, whole.brain_mm.mean(axis=0))
    sent = displaced(thick(whole.volumes["t2"], 0, 5), put_by)
    rounded = with_values(sent, np.rint(sent.intensities))
    received = series.load(series.stack(write_series(rounded, tmp_path)), "t2")
    motion = register(received, whole.volumes["t1gd"])
    assert errors_mm(motion, put_by, whole.brain_mm).mean() <= THICK_MM


def test_another_frame_of_reference_far_away_comes_back(whole: Head) -> None:
    put_by = rigid(18, 12.0, 0.0, whole.brain_mm.mean(axis=0))
    put_by[:3, 3] += [300.0, -150.0, 700.0]
    moving = displaced(whole.volumes["t2"], put_by, frame="2.25.99")
    motion = register(moving, whole.volumes["t1gd"])
    assert errors_mm(motion, put_by, whole.brain_mm).mean() <= THIN_MM
    grid = moved(moving, motion, whole.volumes["t1gd"].grid).grid
    assert grid.frame_of_reference_uid == FRAME


@pytest.mark.parametrize("role", ["t1", "t2", "flair"])
def test_what_already_fits_stays_as_it_is(whole: Head, stripped: Head, role: Role) -> None:
    for one, moving in (
        (whole, thick(whole.volumes[role], 0, 5)),
        (stripped, stripped.volumes[role]),
    ):
        motion = register(moving, one.volumes["t1gd"])
        assert errors_mm(motion, np.eye(4), one.brain_mm).max() <= NO_HARM_MM
        assert moved(moving, motion, one.volumes["t1gd"].grid) is moving


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirror_image_is_refused(whole: Head, axis: int) -> None:
    values = np.flip(whole.volumes["t1"].intensities, axis).copy()
    with pytest.raises(PoorFitError):
        register(with_values(whole.volumes["t1"], values), whole.volumes["t1gd"])


# -- real exams ----------------------------------------------------------------------------------


def exam(folder: Path, names: dict[Role, str]) -> dict[Role, Volume]:
    return {
        role: nifti.read_volume(
            next(folder.glob(f"*_{name}.nii.gz")), role=role, frame_of_reference_uid=FRAME
        )
        for role, name in names.items()
    }


@pytest.fixture(scope="module")
def registered(realdata: Path) -> dict[Role, Volume]:
    names = {"flair": "flair", "t1": "t1", "t1gd": "t1ce", "t2": "t2"}
    return exam(realdata / "tumour" / "Brats17_2013_27_1_GT", names)


@pytest.fixture(scope="module")
def raw(realdata: Path) -> dict[Role, Volume]:
    names = {"flair": "fla", "t1": "t1", "t1gd": "t1c", "t2": "t2"}
    return exam(realdata / "tumour" / "TCGA-FG-6692_native", names)


def head_points(volume: Volume) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    bright = volume.intensities > 0.2 * np.percentile(volume.intensities, 99)
    return volume.grid.lps_mm(np.argwhere(bright)[::503].astype(np.float64))


@pytest.mark.parametrize("role", ["t1", "t2", "flair"])
def test_no_series_of_a_registered_and_stripped_exam_moves(
    registered: dict[Role, Volume], role: Role
) -> None:
    reference = registered["t1gd"]
    motion = register(registered[role], reference)
    assert moved(registered[role], motion, reference.grid) is registered[role]
    assert motion.shift_mm <= THIN_MM / 2
    points = head_points(reference)
    put_by = rigid(20, 15.0, 15.0, points.mean(axis=0))
    back = register(displaced(registered[role], put_by), reference)
    assert errors_mm(back, put_by, points).mean() <= THIN_MM


@pytest.mark.parametrize(
    ("role", "shift_mm", "rotation_deg"),
    [("t1", 10.0, 9.6), ("t2", 18.0, 8.0), ("flair", 20, 13.6)],
)
def test_a_raw_exam_is_brought_together_the_same_from_anywhere(
    raw: dict[Role, Volume], role: Role, shift_mm: float, rotation_deg: float
) -> None:
    reference = raw["t1gd"]
    motion = register(raw[role], reference)
    assert motion.is_applied
    assert motion.shift_mm == pytest.approx(shift_mm, abs=1.0)
    assert motion.rotation_deg == pytest.approx(rotation_deg, abs=1.0)
    points = head_points(reference)
    put_by = rigid(30, 8.0, 10.0, points.mean(axis=0))
    again = register(displaced(raw[role], put_by), reference, largest_rotation_deg=45.0)
    together = again.lps_to_reference_lps_mm @ put_by
    apart = (together - motion.lps_to_reference_lps_mm) @ np.c_[points, np.ones(len(points))].T
    assert np.linalg.norm(apart, axis=0).mean() <= THICK_MM / 2


def test_another_patient_is_refused(
    registered: dict[Role, Volume], raw: dict[Role, Volume]
) -> None:
    with pytest.raises(PoorFitError):
        register(raw["t2"], registered["t1gd"])
    with pytest.raises(PoorFitError):
        register(registered["t2"], raw["t1gd"])


def test_a_motion_beyond_the_limits_is_refused(raw: dict[Role, Volume]) -> None:
    with pytest.raises(MotionTooLargeError) as caught:
        register(raw["t2"], raw["t1gd"], largest_shift_mm=12.0)
    assert caught.value.evidence["shift_mm"] == pytest.approx(18.0, abs=1.0)
