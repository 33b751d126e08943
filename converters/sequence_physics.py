"""Which contrast the physics of an acquisition gives.

The limits are those of 1 to 3 tesla brain protocols; between them the physics stays silent.
"""

from __future__ import annotations

from typing import Final

from converters.sequence_evidence import Physics

_FLUID_TI_MS: Final = 1200.0  # nulls fluid from low field on; 2500 at 3 tesla
_FAT_TI_MS: Final = 300.0  # nulls fat
_LONG_TE_MS: Final = 60.0
_SHORT_TE_MS: Final = 40.0
_SHORT_TR_MS: Final = 1200.0
_LONG_TR_MS: Final = 1800.0
_STAR_TE_MS: Final = 12.0  # gradient echoes this late show T2*
_GRADIENT_T1_TE_MS: Final = 9.0
_GRADIENT_T1_TR_MS: Final = 60.0
_GRADIENT_2D_TR_MS: Final = 600.0
_LARGE_FLIP_DEG: Final = 45.0


def weighting(physics: Physics) -> str:
    """Return ``FLAIR``, ``T1``, ``T2``, ``T2*``, ``PD``, ``STIR``, another kind, or ''."""
    kind = _special(physics)
    te_ms, tr_ms = physics.echo_time_ms, physics.repetition_time_ms
    if kind or te_ms is None or tr_ms is None:
        return kind
    if "GR" in physics.scanning and "SE" not in physics.scanning:
        return _gradient_echo(physics, te_ms, tr_ms)
    if physics.inversion_time_ms is not None or "IR" in physics.scanning:
        return _inverted(te_ms, physics.inversion_time_ms)
    return _spin_echo(te_ms, tr_ms)


def _special(physics: Physics) -> str:
    """Return a kind of acquisition for which the times do not matter, '' for the usual ones."""
    if physics.b_value is not None:
        return "DWI"
    if "EP" in physics.scanning:
        return "EPI"
    return "angiography" if physics.has_angio_flag else ""


def _gradient_echo(physics: Physics, te_ms: float, tr_ms: float) -> str:
    if te_ms >= _STAR_TE_MS:
        return "T2*"
    is_prepared = physics.inversion_time_ms is not None or "IR" in physics.scanning
    is_spoiled_2d = (
        tr_ms <= _GRADIENT_2D_TR_MS and (physics.flip_angle_deg or 0.0) >= _LARGE_FLIP_DEG
    )
    is_fast = tr_ms <= _GRADIENT_T1_TR_MS
    is_short = te_ms <= _GRADIENT_T1_TE_MS
    return "T1" if is_short and (is_prepared or is_fast or is_spoiled_2d) else ""


def _inverted(te_ms: float, ti_ms: float | None) -> str:
    if ti_ms is not None and ti_ms <= _FAT_TI_MS:
        return "STIR"
    if te_ms >= _LONG_TE_MS and (ti_ms is None or ti_ms >= _FLUID_TI_MS):
        return "FLAIR"
    return "T1" if te_ms < _SHORT_TE_MS else ""


def _spin_echo(te_ms: float, tr_ms: float) -> str:
    if te_ms < _SHORT_TE_MS and tr_ms <= _SHORT_TR_MS:
        return "T1"
    if te_ms >= _LONG_TE_MS and tr_ms >= _LONG_TR_MS:
        return "T2"
    return "PD" if te_ms < _SHORT_TE_MS and tr_ms >= _LONG_TR_MS else ""


def describe(physics: Physics) -> str:
    """Return the times of an acquisition in words, '' where none is known."""
    times = (
        ("TR", physics.repetition_time_ms),
        ("TE", physics.echo_time_ms),
        ("TI", physics.inversion_time_ms),
    )
    return ", ".join(f"{name} {ms:.4g} ms" for name, ms in times if ms is not None)
