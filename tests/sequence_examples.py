"""Acquisitions of a brain exam, as the tests of choosing and of context need them."""

from __future__ import annotations

from dataclasses import replace

from converters.sequences import Candidate, Choice, Physics, SequenceEvidence

ROLES = ("flair", "t1", "t1gd", "t2")
NOTHING = Physics()
T1 = Physics(repetition_time_ms=550.0, echo_time_ms=9.0, scanning=("SE",))
T2 = Physics(repetition_time_ms=5200.0, echo_time_ms=98.0, scanning=("SE",))
FLAIR = Physics(
    repetition_time_ms=9000.0, echo_time_ms=88.0, inversion_time_ms=2500.0, scanning=("SE", "IR")
)
MPRAGE = Physics(
    repetition_time_ms=1900.0, echo_time_ms=2.9, inversion_time_ms=900.0, scanning=("GR", "IR")
)


def candidate(
    name: str,
    physics: Physics = NOTHING,
    *,
    uid: str = "",
    slices: int = 20,
    whole: bool = True,
) -> Candidate:
    """Return a series by its name and physics."""
    evidence = SequenceEvidence(description=name, physics=physics)
    return Candidate(
        series_instance_uid=uid or name, evidence=evidence, slice_count=slices, is_whole=whole
    )


def acquired(at_s: float | None, candidate: Candidate, *, agent: bool = False) -> Candidate:
    """Return it with the second at which it was acquired and whether agent is named."""
    evidence = replace(candidate.evidence, acquired_at_s=at_s, has_agent=agent)
    return replace(candidate, evidence=evidence)


def served(choices: tuple[Choice, ...]) -> dict[str, str]:
    """Return which series serves each role."""
    return {one.role: one.series_instance_uid for one in choices if one.role is not None}
