"""Which MR sequence each series is, which serve the model, and why.

The physics of the acquisition and the words of its names both count; where they contradict each
other the score falls. Scores rank certainty, they are no probabilities. Reasons hold acquisition
parameters and our own words, never text of a header.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from converters import sequence_physics, sequence_words
from converters.errors import RoleAmbiguousError
from converters.sequence_evidence import Physics, SequenceEvidence, evidence_of
from converters.sequence_words import Words
from converters.volume import Role

__all__ = [
    "Candidate",
    "Choice",
    "Classification",
    "Physics",
    "SequenceEvidence",
    "choose",
    "classify",
    "evidence_of",
]

_AGREED: Final = 0.95
_FOREIGN: Final = 0.9
_NAMED: Final = 0.75  # the names alone
_MEASURED: Final = 0.7  # the physics alone
_DISPUTED: Final = 0.5
_PAIRED: Final = 0.6  # told apart by time alone
_AGENT_ALONE: Final = 0.85  # some scanners carry the agent on into series before it was given
_SILENT: Final = 0.85  # that nobody mentions an agent does not say that there was none
_DERIVED: Final = 0.1  # taken off where something was computed
_CERTAIN: Final = 0.8  # from here on the number of slices counts more than the score

_ROLES: Final[dict[str, Role]] = {"FLAIR": "flair", "T1w": "t1", "T1gd": "t1gd", "T2w": "t2"}
_SEQUENCES: Final = {"FLAIR": "FLAIR", "T1": "T1w", "T2": "T2w"}
_IMAGE_TYPES: Final = {
    "LOCALIZER": "localizer",
    "ADC": "DWI",
    "FA": "DWI",
    "TRACEW": "DWI",
    "TENSOR": "DWI",
    "DIFFUSION": "DWI",
    "ASL": "perfusion",
    "PERFUSION": "perfusion",
    "MIP": "projection",
    "MNIP": "projection",
    "PROJECTION IMAGE": "projection",
    "MPR": "reformat",
    "CSA MPR": "reformat",
    "REFORMATTED": "reformat",
    "SUBTRACTION": "subtraction",
    "SUB": "subtraction",
    "SWI": "SWI",
    "P": "phase image",
    "PHASE": "phase image",
    "PHASE MAP": "phase image",
    "VELOCITY": "angiography",
    "TOF": "angiography",
    "T1 MAP": "parameter map",
    "T2 MAP": "parameter map",
    "FAT": "Dixon",
    "IN_PHASE": "Dixon",
    "OPP_PHASE": "Dixon",
    "SCREEN SAVE": "screenshot",
}
_MODALITIES: Final = frozenset({"CT", "PT", "NM", "US", "SEG", "SR", "PR", "KO"})
# physics that contradicts a name only in part: (name, physics) -> what it is, how certain
_RECONCILED: Final = {
    ("FLAIR", "T2"): ("FLAIR", 0.85),  # many headers leave the inversion out
    ("T2", "FLAIR"): ("FLAIR", 0.8),
    ("T1", "PD"): ("T1", 0.65),
    ("FLAIR", "T1"): ("T1", 0.65),  # a T1-weighted FLAIR
    ("T1", "T2*"): ("T2*", _MEASURED),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """What a series is; `role` is None for a sequence that serves none."""

    sequence: str
    role: Role | None
    score: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A series of the study; `is_whole` says that its geometry is a volume."""

    series_instance_uid: str
    evidence: SequenceEvidence
    slice_count: int
    is_whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What became of a candidate; `role` is None where it does not serve the model."""

    series_instance_uid: str
    sequence: str
    role: Role | None
    score: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """A candidate with what it is taken for."""

    candidate: Candidate
    found: Classification

    @property
    def rank(self) -> tuple[bool, bool, int, float]:
        one = self.candidate
        return one.is_whole, self.found.score >= _CERTAIN, one.slice_count, self.found.score


def classify(evidence: SequenceEvidence) -> Classification:
    """Return what a series is by its own evidence, without a look at its neighbours."""
    words = _words(evidence)
    foreign = _foreign(evidence, words)
    if foreign:
        return _other(foreign[0], _FOREIGN, foreign[1])
    measured = sequence_physics.weighting(evidence.physics)
    weighting, score = _weigh(words.weighting, measured)
    said = f"name says {words.weighting}" if words.weighting else "name says nothing"
    reasons = [said, sequence_physics.describe(evidence.physics) or "no acquisition times given"]
    if not weighting:
        return _other("unknown", 0.0, *reasons)
    if "DERIVED" in evidence.image_type:
        score -= _DERIVED
        reasons.append("derived images")
    if weighting not in _SEQUENCES:
        return _other(weighting, score, *reasons)
    sequence = _SEQUENCES[weighting]
    if weighting == "T1":
        sequence, limit, reason = _enhancement(words.contrast, has_agent=evidence.has_agent)
        score = min(score, limit)
        reasons.insert(0, reason)
    return _named(sequence, score, reasons)


def _words(evidence: SequenceEvidence) -> Words:
    """Return what the names say; the description counts first.

    Some vendors put the name of the whole examination into Protocol Name, "brain with diffusion
    and contrast", which says nothing about one series of it.
    """
    own = sequence_words.read(evidence.description)
    further = sequence_words.read(f"{evidence.protocol_name} | {evidence.sequence_name}")
    if not (own.foreign or own.weighting):
        return replace(further, contrast=own.contrast or further.contrast)
    if own.weighting == further.weighting:
        return replace(own, contrast=own.contrast or further.contrast)
    return own


def _named(sequence: str, score: float, reasons: Iterable[str]) -> Classification:
    return Classification(
        sequence=sequence,
        role=_ROLES.get(sequence),
        score=round(score, 2),
        reason=f"{sequence}: {', '.join(reasons)}",
    )


def _other(kind: str, score: float, *reasons: str) -> Classification:
    return _named(f"other: {kind}", score, reasons)


def _foreign(evidence: SequenceEvidence, words: Words) -> tuple[str, str] | None:
    """Return which kind of series that serves no role it is and what says so, or None."""
    if evidence.modality != "MR":
        kind = evidence.modality if evidence.modality in _MODALITIES else "not MR"
        return kind, "the modality is not MR"
    if evidence.is_picture:
        return "screenshot", "made for looking at"
    typed = next((_IMAGE_TYPES[one] for one in evidence.image_type if one in _IMAGE_TYPES), "")
    if typed:
        return typed, "the image type says so"
    return (words.foreign, "the name says so") if words.foreign else None


def _weigh(named: str, measured: str) -> tuple[str, float]:
    """Return the weighting that names and physics give together, with its score."""
    if named == measured:
        return named, _AGREED
    if not measured:
        return named, _NAMED
    if not named:
        return measured, _MEASURED
    return _RECONCILED.get((named, measured), (measured, _DISPUTED))


def _enhancement(named: str, *, has_agent: bool) -> tuple[str, float, str]:
    """Return T1w or T1gd, the highest score that it may have, and why."""
    if named == "before":
        said = "name says before contrast agent"
        return "T1w", _AGENT_ALONE if has_agent else 1.0, said
    if named == "after":
        given = ", contrast agent given" if has_agent else ""
        return "T1gd", 1.0, f"name says after contrast agent{given}"
    if has_agent:
        return "T1gd", _AGENT_ALONE, "contrast agent given"
    return "T1w", _SILENT, "no contrast agent mentioned"


def choose(candidates: Sequence[Candidate], roles: Sequence[Role]) -> tuple[Choice, ...]:
    """Return what becomes of each series of a study, in the order given.

    Parameters
    ----------
    candidates : sequence of Candidate
        Every series of the study.
    roles : sequence of str
        What the model needs. A role that no series can serve is absent from the choices.

    Raises
    ------
    RoleAmbiguousError
        Two series serve a role equally well.

    Notes
    -----
    A whole series comes before one that is not, a certain one before an uncertain one, then the
    one with more slices. Where contrast agent is mentioned by all T1-weighted series or by none,
    of those with one protocol the first acquired is taken as without it.
    """
    found = [_Judged(candidate=one, found=classify(one.evidence)) for one in candidates]
    judged = _tell_apart(found)
    pools = {role: [one for one in judged if one.found.role == role] for role in roles}
    return tuple(_choice(one, pools.get(one.found.role or "", ())) for one in judged)


def _choice(one: _Judged, pool: Sequence[_Judged]) -> Choice:
    """Return what becomes of a series among all that could serve the same role."""
    serves, reason = False, one.found.reason
    if pool:
        best = _best(pool)
        serves = one is best
        others = ", ".join(str(rival.candidate.slice_count) for rival in pool if rival is not one)
        if not serves:
            reason += f"; not chosen, the series with {best.candidate.slice_count} slices is better"
        elif others:
            reason += f"; chosen over series with {others} slices"
    return Choice(
        series_instance_uid=one.candidate.series_instance_uid,
        sequence=one.found.sequence,
        role=one.found.role if serves else None,
        score=one.found.score,
        reason=reason,
    )


def _best(pool: Sequence[_Judged]) -> _Judged:
    best = max(pool, key=lambda one: one.rank)
    count = sum(one.rank == best.rank for one in pool)
    if count > 1:
        raise RoleAmbiguousError(count=count, role=str(best.found.role))
    return best


def _tell_apart(judged: Sequence[_Judged]) -> list[_Judged]:
    """Tell T1w from T1gd by time where nothing else does: all mention an agent, or none does."""
    weighted = [one for one in judged if one.found.sequence in {"T1w", "T1gd"}]
    if len({one.found.sequence for one in weighted}) != 1:
        return list(judged)
    protocols: dict[object, list[_Judged]] = {}
    for one in weighted:
        if not _words(one.candidate.evidence).contrast:
            protocols.setdefault(_protocol(one.candidate), []).append(one)
    retaken = {
        id(one): changed
        for many in protocols.values()
        for one, changed in zip(many, _by_time(many), strict=True)
    }
    return [retaken.get(id(one), one) for one in judged]


def _protocol(candidate: Candidate) -> object:
    """Return what two acquisitions of one protocol have in common."""
    evidence = candidate.evidence
    return evidence.protocol_name or evidence.description, evidence.physics, candidate.slice_count


def _by_time(many: Sequence[_Judged]) -> list[_Judged]:
    """Return acquisitions of one protocol, the first as T1w and the later ones as T1gd."""
    times = [one.candidate.evidence.acquired_at_s for one in many]
    known = [time for time in times if time is not None]
    if len(known) != len(many) or len(set(known)) < 2:  # noqa: PLR2004 - before and after
        return list(many)
    first = min(known)
    if known.count(first) > 1:
        return list(many)
    return [
        replace(one, found=_paired(one.found, is_first=time == first))
        for one, time in zip(many, known, strict=True)
    ]


def _paired(found: Classification, *, is_first: bool) -> Classification:
    sequence = "T1w" if is_first else "T1gd"
    when = "first" if is_first else "later"
    rest = found.reason.split(": ", 1)[1]
    return Classification(
        sequence=sequence,
        role=_ROLES[sequence],
        score=min(found.score, _PAIRED),
        reason=f"{sequence}: acquired {when} of series with one protocol, {rest}",
    )
