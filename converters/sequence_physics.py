"""For and against which contrast the physics of an acquisition speaks.

The limits are those of brain protocols from 0.06 to 7 tesla; between them the physics stays silent.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from converters.sequence_evidence import Physics
from converters.sequence_nouns import Clue

Clues: TypeAlias = tuple[Clue, ...]

_FLUID_TI_MS: Final = 1200.0  # nulls fluid from low field on; 2500 at 3 tesla
_LOW_FIELD_FLUID_TI_MS: Final = 900.0
_FAT_TI_MS: Final = 280.0  # nulls fat
_LONG_TE_MS: Final = 60.0
_SHORT_TE_MS: Final = 40.0
_SHORT_TR_MS: Final = 1300.0
_LONG_TR_MS: Final = 1800.0
_DOUBTFUL_TR_MS: Final = 2500.0  # a turbo spin echo may be T1-weighted up to here
_FLUID_TR_MS: Final = 4000.0
_LONGEST_T2_TR_MS: Final = 7500.0  # rare without an inversion
_STAR_TE_MS: Final = 12.0  # gradient echoes this late show T2*
_GRADIENT_T1_TE_MS: Final = 9.0
_FAST_TR_MS: Final = 60.0
_GRADIENT_2D_TR_MS: Final = 350.0
_FIELD_MAP_TE_MS: Final = 4.0
_LARGE_FLIP_DEG: Final = 40.0
_SMALL_FLIP_DEG: Final = 7.0
_GRADIENT_FLIP_DEG: Final = 35.0  # excitations of spin echoes are larger
_SCOUT_TR_MS: Final = 15.0
_BALANCED_TR_MS: Final = 15.0
_VESSEL_TR_MS: Final = (15.0, 40.0)
_VESSEL_TE_MS: Final = (2.5, 8.0)
_VESSEL_FLIP_DEG: Final = (12.0, 35.0)
_TWO_INVERSIONS_TR_MS: Final = 3800.0  # of an MP2RAGE, which takes two images
_LATE_TI_MS: Final = 1800.0  # the second image of an MP2RAGE
_LEAST_TE_MS: Final = {"DWI": 30.0, "functional": 9.0}
_PLANAR_BANDWIDTH_HZ: Final = 1000.0  # only echo-planar readouts are so fast


def clues(physics: Physics) -> Clues:
    """Return what the acquisition speaks for and against."""
    te_ms, tr_ms = physics.echo_time_ms, physics.repetition_time_ms
    found = _special(physics)
    if te_ms is None or tr_ms is None or is_echo_planar(physics):
        return found
    if is_gradient_echo(physics):
        return (*found, *_gradient_echo(physics, te_ms, tr_ms))
    return (*found, *_spin_echo(physics, te_ms, tr_ms))


def is_echo_planar(physics: Physics) -> bool:
    """Say whether one excitation reads a whole slice, from the readout where it is not said."""
    is_fast = (physics.bandwidth_hz or 0.0) >= _PLANAR_BANDWIDTH_HZ
    is_slow = (physics.repetition_time_ms or 0.0) > _FAST_TR_MS
    is_flat = physics.acquisition_type != "3D"
    return "EP" in physics.scanning or (is_fast and is_slow and is_flat)


def is_gradient_echo(physics: Physics) -> bool:
    """Say whether the echoes are gradient echoes, from the times where the header is silent."""
    if "SE" in physics.scanning or "GR" in physics.scanning:
        return "SE" not in physics.scanning
    tr_ms, flip_deg = physics.repetition_time_ms, physics.flip_angle_deg
    is_fast = tr_ms is not None and tr_ms <= _FAST_TR_MS
    return is_fast or (flip_deg is not None and flip_deg <= _GRADIENT_FLIP_DEG)


def excludes(physics: Physics, kind: str) -> bool:
    """Say whether an acquisition cannot be of a kind: diffusion and BOLD need late echoes."""
    least_ms = _LEAST_TE_MS.get(kind)
    if least_ms is None or physics.b_value is not None or is_echo_planar(physics):
        return False
    return physics.echo_time_ms is not None and physics.echo_time_ms < least_ms


def is_fluid_nulled(physics: Physics) -> bool:
    """Say whether late spin echoes follow the inversion that nulls fluid; only brains need it."""
    te_ms, ti_ms = physics.echo_time_ms or 0.0, physics.inversion_time_ms or 0.0
    return te_ms >= _LONG_TE_MS and ti_ms >= _FLUID_TI_MS and not is_gradient_echo(physics)


def is_inverted(physics: Physics) -> bool:
    """Say whether an inversion comes before the excitation."""
    return physics.inversion_time_ms is not None or "IR" in physics.scanning


def _special(physics: Physics) -> Clues:
    """Return what speaks for acquisitions for which the times do not matter."""
    found: list[Clue] = []
    if physics.b_value is not None:
        found.append(Clue("DWI", 8.0, "diffusion weighted"))
    if is_echo_planar(physics):
        found.append(Clue("EPI", 4.4, "echo-planar"))
        found += [Clue(kind, -4.0) for kind in ("T1", "T2", "FLAIR")]
    if physics.has_angio_flag:
        found.append(Clue("angiography", 6.0, "flagged as angiography"))
    if physics.temporal_count > 1:
        found.append(Clue("dynamic", 4.0, "several time points"))
    return tuple(found)


def _gradient_echo(physics: Physics, te_ms: float, tr_ms: float) -> Clues:
    if te_ms >= _STAR_TE_MS:
        return (Clue("T2*", 3.5), Clue("T1", -2.0), Clue("T2", -3.0), Clue("FLAIR", -4.0))
    against = (Clue("T2", -1.0), Clue("FLAIR", -3.0))
    if te_ms > _GRADIENT_T1_TE_MS:
        return (Clue("T2*", 1.0), *against)
    if is_inverted(physics) or "MP" in physics.variant:
        return (*_prepared(tr_ms, physics.inversion_time_ms), *against)
    return (*(_fast if tr_ms <= _FAST_TR_MS else _slow)(physics, te_ms, tr_ms), *against)


def _prepared(tr_ms: float, ti_ms: float | None) -> Clues:
    """Return what magnetisation-prepared gradient echoes show."""
    if tr_ms >= _TWO_INVERSIONS_TR_MS:
        return (Clue("T1", 1.0), Clue("MP2RAGE", 3.5))
    if ti_ms is None:
        return (Clue("T1", 2.5),)
    if ti_ms >= _LATE_TI_MS:
        return (Clue("PD", 1.0), Clue("MP2RAGE inversion", 1.0))
    return (Clue("T1", 3.5),)


def _fast(physics: Physics, te_ms: float, tr_ms: float) -> Clues:
    """Return what gradient echoes of short repetition time show."""
    flip_deg = physics.flip_angle_deg or 0.0
    is_steady = "SS" in physics.variant and "SP" not in physics.variant
    if is_steady and tr_ms <= _BALANCED_TR_MS and flip_deg >= _GRADIENT_FLIP_DEG:
        return (Clue("balanced SSFP", 3.5, "steady state without spoiling"),)
    if flip_deg < _SMALL_FLIP_DEG:
        return (Clue("T1", 1.0), Clue("PD", 1.0))
    found = [Clue("T1", 2.0)]
    times = ((tr_ms, _VESSEL_TR_MS), (te_ms, _VESSEL_TE_MS), (flip_deg, _VESSEL_FLIP_DEG))
    if all(low <= value <= high for value, (low, high) in times):
        found.append(Clue("angiography", 1.2))
    if physics.acquisition_type != "3D" and tr_ms <= _SCOUT_TR_MS:
        is_flat = physics.acquisition_type == "2D"
        found.append(Clue("localizer", 3.0 if is_flat else 1.5))
    return tuple(found)


def _slow(physics: Physics, te_ms: float, tr_ms: float) -> Clues:
    """Return what gradient echoes of long repetition time show."""
    if (physics.flip_angle_deg or 0.0) < _LARGE_FLIP_DEG:
        return (Clue("T2*", 0.5), Clue("PD", 0.5))
    if tr_ms >= _GRADIENT_2D_TR_MS and te_ms >= _FIELD_MAP_TE_MS:
        return (Clue("T1", 1.0), Clue("field map", 1.0))
    return (Clue("T1", 3.0),)


def _spin_echo(physics: Physics, te_ms: float, tr_ms: float) -> Clues:
    ti_ms = physics.inversion_time_ms
    if ti_ms is not None and ti_ms <= _FAT_TI_MS:
        return _fat(te_ms, is_said="IR" in physics.scanning)
    if is_inverted(physics):
        return _inverted(te_ms, tr_ms, ti_ms)
    if te_ms >= _LONG_TE_MS:
        return _late_echo(tr_ms)
    if te_ms >= _SHORT_TE_MS:
        return (Clue("T2", 1.0), Clue("PD", 1.0)) if tr_ms >= _LONG_TR_MS else ()
    return (*_early_echo(te_ms, tr_ms), Clue("T2", -0.5), Clue("FLAIR", -4.0))


def _late_echo(tr_ms: float) -> Clues:
    if tr_ms < _SHORT_TR_MS:
        return (Clue("T2", 1.0), Clue("T1", -1.0))
    found = (Clue("T2", 3.5), Clue("T1", -1.0))
    if tr_ms < _FLUID_TR_MS:
        return found
    # many headers leave the inversion out
    return (*found, Clue("FLAIR", 2.5 if tr_ms >= _LONGEST_T2_TR_MS else 1.0))


def _early_echo(te_ms: float, tr_ms: float) -> Clues:
    if tr_ms <= _SHORT_TR_MS:
        return (Clue("T1", 3.5),)
    if tr_ms < _LONG_TR_MS:
        return (Clue("T1", 2.0), Clue("PD", 0.5))
    if tr_ms <= _DOUBTFUL_TR_MS and te_ms <= _STAR_TE_MS * 2.0:
        return (Clue("PD", 2.5), Clue("T1", 0.5))
    return (Clue("PD", 3.0), Clue("T1", -1.0))


def _fat(te_ms: float, *, is_said: bool) -> Clues:
    """Return what a short inversion shows; where none is said it may only suppress fat."""
    other = Clue("T2", 1.0) if te_ms >= _LONG_TE_MS else Clue("T1", 0.5)
    return (Clue("STIR", 5.0 if is_said else 3.0), other)


def _inverted(te_ms: float, tr_ms: float, ti_ms: float | None) -> Clues:
    """Return what spin echoes after an inversion show."""
    if te_ms < _SHORT_TE_MS:
        is_usual = ti_ms is None or ti_ms < _FLUID_TI_MS
        return (Clue("T1", 3.5 if is_usual else 1.5), Clue("FLAIR", -4.0), Clue("T2", -1.0))
    return _fluid(tr_ms, ti_ms) if te_ms >= _LONG_TE_MS else ()


def _fluid(tr_ms: float, ti_ms: float | None) -> Clues:
    """Return what late echoes after a long inversion show."""
    if ti_ms is None:
        return (Clue("FLAIR", 2.5 if tr_ms >= _FLUID_TR_MS else 1.0), Clue("T1", -1.0))
    if ti_ms >= _FLUID_TI_MS:
        return (Clue("FLAIR", 4.5), Clue("T1", -1.5))
    return (Clue("FLAIR", 1.0), Clue("T1", -1.0)) if ti_ms >= _LOW_FIELD_FLUID_TI_MS else ()


def describe(physics: Physics) -> str:
    """Return the times of an acquisition in words, '' where none is known."""
    times = (
        ("TR", physics.repetition_time_ms),
        ("TE", physics.echo_time_ms),
        ("TI", physics.inversion_time_ms),
    )
    return ", ".join(f"{name} {ms:.4g} ms" for name, ms in times if ms is not None)
