"""What a series is in its study: its own evidence, its geometry and what its neighbours say.

Words and elements that all series carry alike describe the examination and no single series.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from converters import sequence_physics
from converters.sequence_evidence import Physics, SequenceEvidence
from converters.sequence_kinds import (
    DECISIVE,
    OTHER,
    OTHER_PARTS,
    ROLES,
    Contrast,
    Names,
    classify,
    contrast_of,
    is_agent_later,
    names_of,
)
from converters.sequence_nouns import Candidate, Classification, Clue, Judged, Ruling
from converters.sequence_order import T1, Exam, Read, contrast_in, exam_of

_ALIKE: Final = 2  # series that are not T1-weighted and yet all mention an agent
_SAID_OF_ALL: Final = 0.4
_COVERS_MM: Final = 120.0  # more than the slab of one structure
_ALONG: Final = "hippocampus"
_ONLY_DIRECTION: Final = -16.0  # a word for the slab is then one for the tilt of the slices
_LEFTOVER: Final = -5.0
_LEAST_EXTENT_MM: Final = 85.0  # no direction of a brain is so short
_COMPUTED: Final = frozenset({"DERIVED", "SECONDARY"})
_VARIED: Final = 6.0
_LATE_ECHO_MS: Final = 5.0  # later than both echoes of a Dixon
_BOTH_ECHOES: Final = 2  # of a PD and a T2


class _Told(NamedTuple):
    """Which mentions of an agent tell one series from another."""

    own: bool
    further: bool
    agent: bool


def judge(candidates: Sequence[Candidate]) -> tuple[Judged, ...]:
    """Return what each acquisition of a study is taken for, in the order given."""
    names = [names_of(one.evidence) for one in candidates]
    told = _told(candidates, names)
    many = [
        _read(one, its, told, _further(one, its, candidates))
        for one, its in zip(candidates, names, strict=True)
    ]
    exam = exam_of(many, tells_agent=told.agent)
    return tuple(_judged(one, exam) for one in many)


def _told(candidates: Sequence[Candidate], names: Sequence[Names]) -> _Told:
    """Return which mentions count: none that series carry which no agent concerns."""
    plain = [
        (one.evidence, its)
        for one, its in zip(candidates, names, strict=True)
        if one.evidence.modality == "MR" and classify(one.evidence, its).sequence not in T1
    ]
    if len(plain) < _ALIKE:
        return _Told(own=True, further=True, agent=True)
    return _Told(
        own=any(its.own_contrast != "after" for _, its in plain),
        further=any(its.further_contrast != "after" for _, its in plain),
        agent=not _from_the_start([evidence for evidence, _ in plain]),
    )


def _from_the_start(many: Sequence[SequenceEvidence]) -> bool:
    """Say whether an agent is named from the first acquisition on, so by the order of the exam."""
    timed = [(one.acquired_at_s, one.has_agent) for one in many if one.acquired_at_s is not None]
    if len({at_s for at_s, _ in timed}) < _ALIKE:
        return all(one.has_agent for one in many)
    first_s = min(at_s for at_s, _ in timed)
    return all(has_agent for at_s, has_agent in timed if at_s == first_s)


def _further(
    candidate: Candidate, names: Names, candidates: Sequence[Candidate]
) -> tuple[Clue, ...]:
    """Return what geometry and neighbours say of the kind of a series."""
    found: list[Clue] = []
    reach_mm = extent_mm(candidate)
    # one that is not whole may still be arriving
    if candidate.is_whole and reach_mm is not None and reach_mm < _LEAST_EXTENT_MM:
        because = f"the slices cover {reach_mm:.0f} mm"
        found.append(Clue("part of the brain", DECISIVE - 1.0, because))
    is_wide = reach_mm is not None and reach_mm >= _COVERS_MM
    if is_wide and names.kind.foreign == _ALONG:
        found.append(Clue(_ALONG, _ONLY_DIRECTION))
    evidence = candidate.evidence
    if evidence.body_part in OTHER_PARTS and any(
        other.evidence.body_part == evidence.body_part
        and sequence_physics.is_fluid_nulled(other.evidence.physics)
        for other in candidates
    ):
        found.append(Clue("another part of the body", _LEFTOVER))
    if _COMPUTED.issubset(evidence.image_type) and any(
        "ORIGINAL" in other.evidence.image_type
        and other.evidence.physics == evidence.physics
        and other.evidence.acquired_at_s == evidence.acquired_at_s
        for other in candidates
    ):
        found.append(Clue("reformat", DECISIVE, "computed from another series of the study"))
    varied = _map_in_the_making(evidence, [other.evidence for other in candidates])
    return (*found, varied) if varied else tuple(found)


def _map_in_the_making(one: SequenceEvidence, many: Sequence[SequenceEvidence]) -> Clue | None:
    """Return what it says that a series was taken with nothing but one setting changed."""
    physics = one.physics
    others = [other.physics for other in many]
    is_plain = sequence_physics.is_gradient_echo(physics) and not sequence_physics.is_inverted(
        physics
    )
    if is_plain and len(_flips(physics, others)) > 1:
        return Clue("parameter map", _VARIED, "taken with several flip angles")
    alike = [other.physics for other in many if _is_named_alike(one, other)]
    echoes_ms = _echoes_ms(physics, alike)
    if is_plain and len(echoes_ms) > 1 and max(echoes_ms) > _LATE_ECHO_MS:
        return Clue("T2*", _VARIED, "one of several echoes")
    if not sequence_physics.is_gradient_echo(physics) and len(echoes_ms) > _BOTH_ECHOES:
        return Clue("parameter map", _VARIED, "one of many echoes")
    return None


def _is_named_alike(one: SequenceEvidence, other: SequenceEvidence) -> bool:
    return (one.description, one.protocol_name) == (other.description, other.protocol_name)


def _flips(one: Physics, many: Iterable[Physics]) -> set[float]:
    """Return the flip angles of what differs from an acquisition in nothing else."""
    return {
        other.flip_angle_deg
        for other in many
        if one.flip_angle_deg is not None
        and other.flip_angle_deg is not None
        and one == replace(other, flip_angle_deg=one.flip_angle_deg)
    }


def _echoes_ms(one: Physics, many: Iterable[Physics]) -> set[float]:
    """Return the echo times of what differs from an acquisition in nothing but the readout."""
    return {
        other.echo_time_ms
        for other in many
        if one.echo_time_ms is not None
        and other.echo_time_ms is not None
        and one == replace(other, echo_time_ms=one.echo_time_ms, bandwidth_hz=one.bandwidth_hz)
    }


def _read(candidate: Candidate, names: Names, told: _Told, clues: tuple[Clue, ...]) -> Read:
    evidence = candidate.evidence
    further = names.further_contrast if told.further else ""
    own = names.own_contrast if told.own or names.own_contrast == "before" else ""
    has_agent = evidence.has_agent and told.agent
    contrast = contrast_of(own or further, has_agent=has_agent, is_later=is_agent_later(evidence))
    is_told = bool(own or further or has_agent)
    if not is_told and (evidence.has_agent or names.own_contrast or names.further_contrast):
        contrast = Contrast(_SAID_OF_ALL, ("every series mentions a contrast agent alike",))
    return Read(
        candidate=candidate,
        names=names,
        further=clues,
        found=classify(evidence, names, contrast, clues),
        named=own or further,
        is_told=is_told,
    )


def _judged(one: Read, exam: Exam) -> Judged:
    """Return a candidate with its neighbours taken into account."""
    candidate, found = one.candidate, one.found
    if candidate.ruling is not None:
        return Judged(candidate=candidate, found=_ruled(candidate.ruling, found))
    if found.sequence in T1 and not one.named:
        contrast = contrast_in(one, exam)
        if contrast is not None:
            found = classify(candidate.evidence, one.names, contrast, one.further)
    return Judged(candidate=candidate, found=found)


def extent_mm(candidate: Candidate) -> float | None:
    """Return how far the slices reach along their normal, None where that is not known."""
    if candidate.grid is not None:
        step_mm = float(np.linalg.norm(candidate.grid.index_to_lps_mm[:3, 0]))
        return step_mm * candidate.grid.shape[0]
    step = candidate.evidence.slice_step_mm
    return None if step is None or candidate.slice_count < 1 else step * candidate.slice_count


def protocol(candidate: Candidate) -> object:
    """Return what two acquisitions of one protocol have in common."""
    evidence = candidate.evidence
    name = evidence.protocol_name or evidence.description
    return name, evidence.physics, evidence.has_agent, candidate.slice_count


def _ruled(ruling: Ruling, found: Classification) -> Classification:
    """Return a classification that a rule of the site has overruled."""
    sequence = next((one for one, role in ROLES.items() if role == ruling.role), ruling.role)
    sequence = sequence or f"{OTHER}never used"
    return Classification(
        sequence=sequence,
        role=ruling.role,
        score=1.0,
        reason=f"{sequence}: rule {ruling.rule!r} of the site",
        rival=found.sequence if found.sequence != sequence else "",
        rival_score=found.score,
    )
