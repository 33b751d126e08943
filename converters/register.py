"""Where one volume lies in another's frame: rigid registration by mutual information.

Start everywhere on a coarse copy, follow the best on finer ones, fit twice on different samples,
and judge the outcome on samples that neither fit saw: does it beat the headers, do the two fits
agree, is it a fit at all, does a mirrored head fit better?
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from converters.errors import MotionTooLargeError, PoorFitError
from converters.likeness import ARM_MM, Copy, Likeness, binned, coarser, pull_matrix
from converters.volume import Grid, Role, Volume

VERSION: Final = "2"
"""Of the method; alignment files name it."""

SMALLEST_MM: Final = 0.5
SMALLEST_PART: Final = 0.2
"""A mean motion below both is kept out: half a millimetre, a fifth of the thickest slice."""
LEAST_PEAK: Final = 0.12
"""Of its mutual information a fit must lose when it is displaced by 5 mm, on average."""
MOST_DISAGREEMENT_MM: Final = 2.0
MOST_MIRRORED: Final = 1.05
"""A mirrored head's mutual information, relative to the fit's, from which on it is refused."""

_COARSE_MM, _MIDDLE_MM, _FINE_MM = 8.0, 4.0, 2.0
_COARSE_SAMPLES, _MIDDLE_SAMPLES, _FINE_SAMPLES = 4000, 8000, 15000
_SEARCH_SAMPLES: Final = 1500
_TURNS_DEG: Final = (-20.0, 0.0, 20.0)
_FOLLOWED: Final = 4  # starts of the search, beside the headers
_STEPS: Final = 30
_ENOUGH: Final = 1e-5
"""A step that gains less of the likeness ends a climb; a thousandth of it doubles the work and
brings no fit nearer to the truth (`tests/bench/bench_register.py`)."""
_DISPLACED_MM: Final = 5.0
_LEAST_FIT: Final = 1e-9  # nats; what fits even less is divided by this
_EVERY: Final = 50  # voxel of the head at which a displacement is measured
_PER_NAT: Final = 1000.0  # brings the optimiser's gradient to the size that it expects

Pull = NDArray[np.float64]
Copies = Mapping[float, Copy]
"""Of one volume, by the spacing that was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Motion:
    """How a volume has to be moved to lie on the reference volume.

    Parameters
    ----------
    role : str
        Which volume.
    lps_to_reference_lps_mm : (4, 4) ndarray of float64
        From where the headers put a point (LPS, mm) to where it lies in the reference's frame;
        the identity where the headers are kept.
    is_applied : bool
        False where the headers already are the best fit.
    reason : str
        Why it was applied or not, with figures.
    shift_mm : float
        Mean displacement over the head that was found, whether applied or not.
    rotation_deg : float
        Angle of the rotation that was found, whether applied or not.
    disagreement_mm : float
        Mean distance over the head between two fits on different samples.
    fit, fit_by_headers : float
        Mutual information with the motion and without it, nats, on samples that no fit saw.
    peak : float
        Part of `fit` that is lost when the volume is displaced by 5 mm.
    mirrored : float
        Mutual information of the best mirror image of the head, relative to the fit's.
    """

    role: Role
    lps_to_reference_lps_mm: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))
    is_applied: bool
    reason: str
    shift_mm: float = 0.0
    rotation_deg: float = 0.0
    disagreement_mm: float = 0.0
    fit: float = 0.0
    fit_by_headers: float = 0.0
    peak: float = 0.0
    mirrored: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pair:
    """Copies of both volumes, coarse to fine, and the point that rotations turn about."""

    reference: Copies
    moving: Copies
    centre_mm: NDArray[np.float64]

    def likeness(self, level_mm: float, count: int, seed: int) -> Likeness:
        """Return the likeness on one level."""
        return Likeness(
            self.reference[level_mm],
            self.moving[level_mm],
            self.centre_mm,
            count=count,
            seed=seed,
        )

    def displacement_mm(self, one: Pull, other: Pull) -> float:
        """Return how far two pulls lie apart, mean over the reference's head."""
        fine = self.reference[_FINE_MM]
        points = fine.lps_mm(np.argwhere(fine.is_head)[::_EVERY].T.astype(np.float64))
        apart = pull_matrix(one, self.centre_mm) - pull_matrix(other, self.centre_mm)
        offsets = apart[:3, :3] @ points + apart[:3, 3:]
        return float(np.linalg.norm(offsets, axis=0).mean())


def register(
    moving: Volume,
    reference: Volume,
    *,
    copies: Copies | None = None,
    largest_shift_mm: float = 60.0,
    largest_rotation_deg: float = 30.0,
) -> Motion:
    """Return how `moving` has to be moved to lie on `reference`.

    Parameters
    ----------
    moving, reference : Volume
        Of one head, whole or stripped; each on its own grid.
    copies : Copies, optional
        What `copies_of` gives for the reference; several volumes are moved onto one.
    largest_shift_mm : float
        Largest mean displacement; only where both volumes claim one frame of reference, as
        positions of different frames say nothing of each other.
    largest_rotation_deg : float
        Largest rotation; in any frames, as axes of the patient hold in all of them.

    Raises
    ------
    PoorFitError
        The best fit is none: another head, another part of the body, a mirrored or empty image.
    MotionTooLargeError
        The motion is beyond the limits.
    """
    pair = _pair(moving, copies or copies_of(reference))
    starts = _followed(pair)
    pull, disagreement_mm = _refined(pair, starts)
    found = _judged(pair, pull, disagreement_mm, moving.role)
    _check_fit(found)
    _check_size(found, moving, reference, (largest_shift_mm, largest_rotation_deg))
    return _decided(found, moving, reference)


def moved(volume: Volume, motion: Motion, reference: Grid) -> Volume:
    """Return the same voxels where they lie in the frame of the reference grid."""
    frame = reference.frame_of_reference_uid
    if not motion.is_applied and volume.grid.frame_of_reference_uid == frame:
        return volume
    matrix = volume.grid.index_to_lps_mm
    if motion.is_applied:
        matrix = motion.lps_to_reference_lps_mm @ matrix
    grid = Grid(shape=volume.grid.shape, index_to_lps_mm=matrix, frame_of_reference_uid=frame)
    return Volume(intensities=volume.intensities, grid=grid, role=volume.role)


def copies_of(volume: Volume) -> Copies:
    """Return the copies that a volume is compared by."""
    copies = {}
    for level in (_FINE_MM, _MIDDLE_MM, _COARSE_MM):
        volume = coarser(volume, level)
        copies[level] = binned(volume)
    return copies


def _pair(moving: Volume, reference: Copies) -> _Pair:
    centre_mm = reference[_MIDDLE_MM].centre_mm
    return _Pair(reference=reference, moving=copies_of(moving), centre_mm=centre_mm)


def _followed(pair: _Pair) -> Pull:
    """Return the best coarse fit from many starts: headers and centres, turned in all ways."""
    search = pair.likeness(_COARSE_MM, _SEARCH_SAMPLES, 0)
    shifts = (np.zeros(3), pair.moving[_MIDDLE_MM].centre_mm - pair.centre_mm)
    starts = [
        np.concatenate([np.radians(turn) * ARM_MM, shift])
        for shift in shifts
        for turn in itertools.product(_TURNS_DEG, repeat=3)
    ]
    starts.sort(key=search.value, reverse=True)
    coarse = pair.likeness(_COARSE_MM, _COARSE_SAMPLES, 1)
    fits = [_climbed(coarse, start) for start in (np.zeros(6), *starts[:_FOLLOWED])]
    return max(fits, key=coarse.value)


def _refined(pair: _Pair, pull: Pull) -> tuple[Pull, float]:
    """Return the middle of two fine fits and how far they lie apart, mm."""
    pull = _climbed(pair.likeness(_MIDDLE_MM, _MIDDLE_SAMPLES, 2), pull)
    fits = [_climbed(pair.likeness(_FINE_MM, _FINE_SAMPLES, seed), pull) for seed in (3, 4)]
    return np.mean(fits, axis=0), pair.displacement_mm(*fits)


def _climbed(likeness: Likeness, start: Pull) -> Pull:
    def _downhill(pull: Pull) -> tuple[float, Pull]:
        value, slope = likeness.value_and_slope(pull)
        return -_PER_NAT * value, -_PER_NAT * slope

    options = {"maxiter": _STEPS, "gtol": 1e-3, "ftol": _ENOUGH}
    found = optimize.minimize(_downhill, start, jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x, dtype=np.float64)


def _judged(pair: _Pair, pull: Pull, disagreement_mm: float, role: Role) -> Motion:
    """Return the motion with its figures, still unapplied."""
    fresh = pair.likeness(_FINE_MM, _FINE_SAMPLES, 5)
    fit, still = fresh.value(pull), np.zeros(6)
    displaced = [fresh.value(pull + step) for step in (*_steps(), *-_steps())]
    return Motion(
        role=role,
        lps_to_reference_lps_mm=np.asarray(
            np.linalg.inv(pull_matrix(pull, pair.centre_mm)), dtype=np.float64
        ),
        is_applied=False,
        reason="",
        shift_mm=pair.displacement_mm(pull, still),
        rotation_deg=float(np.degrees(np.linalg.norm(pull[:3]) / ARM_MM)),
        disagreement_mm=disagreement_mm,
        fit=fit,
        fit_by_headers=fresh.value(still),
        peak=float(1.0 - np.mean(displaced) / fit) if fit > 0 else 0.0,
        mirrored=_mirrored(pair, pull),
    )


def _steps() -> NDArray[np.float64]:
    return _DISPLACED_MM * np.eye(6)


def _mirrored(pair: _Pair, pull: Pull) -> float:
    """Return how well the head fits, turned into its mirror image, relative to how it fits.

    The best of three images: left and right, front and back, head and feet exchanged.
    """
    copy = pair.moving[_MIDDLE_MM]
    to_reference = np.linalg.inv(pull_matrix(pull, pair.centre_mm))
    found = []
    for axis in range(3):
        exchange = np.eye(4)
        exchange[axis, axis], exchange[axis, 3] = -1.0, 2 * pair.centre_mm[axis]
        matrix = exchange @ to_reference @ copy.index_to_lps_mm
        twin = Copy(values=copy.values, index_to_lps_mm=matrix, is_head=copy.is_head)
        likeness = Likeness(
            pair.reference[_MIDDLE_MM], twin, pair.centre_mm, count=_MIDDLE_SAMPLES, seed=6
        )
        found.append(likeness.value(_climbed(likeness, np.zeros(6))))
    itself = pair.likeness(_MIDDLE_MM, _MIDDLE_SAMPLES, 6).value(pull)
    return max(found) / max(itself, _LEAST_FIT)


def _check_fit(found: Motion) -> None:
    lost, least = 100 * found.peak, 100 * LEAST_PEAK
    apart, times = found.disagreement_mm, found.mirrored
    reason = ""
    if found.peak < LEAST_PEAK:
        reason = f"5 mm away it fits only {lost:.0f} % worse, expected at least {least:.0f} %"
    elif apart > MOST_DISAGREEMENT_MM:
        reason = f"two fits are {apart:.1f} mm apart, expected at most {MOST_DISAGREEMENT_MM:.1f}"
    elif times > MOST_MIRRORED:
        reason = f"its mirror image fits {times:.2f} times as well"
    if reason:
        raise PoorFitError(role=found.role, reason=reason)


def _check_size(
    found: Motion, moving: Volume, reference: Volume, limits: tuple[float, float]
) -> None:
    largest_mm, largest_deg = limits
    is_shift_known = _share_a_frame(moving, reference)
    is_shifted_far = is_shift_known and found.shift_mm > largest_mm
    if is_shifted_far or found.rotation_deg > largest_deg:
        raise MotionTooLargeError(
            role=found.role,
            shift_mm=found.shift_mm,
            rotation_deg=found.rotation_deg,
            largest_shift_mm=largest_mm,
            largest_rotation_deg=largest_deg,
        )


def _share_a_frame(one: Volume, other: Volume) -> bool:
    frame = one.grid.frame_of_reference_uid
    return frame == other.grid.frame_of_reference_uid != ""


def _decided(found: Motion, moving: Volume, reference: Volume) -> Motion:
    thickest_mm = max(*moving.grid.spacing_mm, *reference.grid.spacing_mm)
    smallest_mm = max(SMALLEST_MM, SMALLEST_PART * thickest_mm)
    motion = f"{found.shift_mm:.1f} mm and {found.rotation_deg:.1f} degrees"
    gain = f"mutual information {found.fit_by_headers:.3f} by the headers, {found.fit:.3f} moved"
    if found.shift_mm <= smallest_mm or found.fit <= found.fit_by_headers:
        known = f"up to {smallest_mm:.1f} mm is left as it is"
        reason = f"headers kept: the best fit lies {motion} away ({known}); {gain}"
        return replace(found, lps_to_reference_lps_mm=np.eye(4), reason=reason)
    frame = "" if _share_a_frame(moving, reference) else " from another frame of reference"
    reason = f"moved by {motion}{frame}; {gain}"
    return replace(found, is_applied=True, reason=reason)
