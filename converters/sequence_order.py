"""Which T1-weighted series came after the contrast agent, by the order of the acquisitions.

Once one series is known to come after the agent, every later T1-weighted one does. The shares say
how certain an agent was given before, where the order is all that is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from converters.sequence_kinds import OTHER, Contrast, Names
from converters.sequence_nouns import Candidate, Classification, Clue

_PAIR: Final = 2
_PASSED_ON: Final = 0.95
_BEFORE_ANY: Final = 0.03
_FIRST_OF_PAIR: Final = 0.15
_FIRST_OF_EXAM: Final = 0.2
_LATER_OF_PAIR: Final = 0.85
_LATER_OF_EXAM: Final = 0.6  # never certain enough by itself
_LATER: Final = 0.35
_LAST_OF_EXAM: Final = 0.25
_EITHER: Final = 0.5
_ONE_OF_SEVERAL: Final = 0.45
_AGAIN: Final = 0.12
_UNMENTIONED: Final = 0.6
_SAME_S: Final = 30.0  # reconstructions of one acquisition
_EXAM_S: Final = 6 * 3600.0  # further apart, two times are not of one examination
T1: Final = frozenset({"T1w", "T1gd"})
_T1_TOO: Final = frozenset({f"{OTHER}MP2RAGE", f"{OTHER}MP2RAGE inversion"})
_ASL: Final = f"{OTHER}ASL"
_BOLUS: Final = frozenset({f"{OTHER}perfusion", f"{OTHER}dynamic"})
_PLAIN: Final = frozenset({"FLAIR", "T2w"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A candidate with its names and its own classification.

    Parameters
    ----------
    candidate : Candidate
        The acquisition.
    names : Names
        What its names say.
    further : tuple of Clue
        What geometry and neighbours say of its kind.
    found : Classification
        What it is by all that.
    named : str
        What its names say of an agent, where that tells series apart.
    is_told : bool
        Names or elements say something of an agent that tells series apart.
    """

    candidate: Candidate
    names: Names
    further: tuple[Clue, ...]
    found: Classification
    named: str
    is_told: bool

    @property
    def at_s(self) -> float | None:
        """When its acquisition began."""
        return self.candidate.evidence.acquired_at_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    """What the series of a study say together.

    Parameters
    ----------
    weighted : tuple of Read
        The T1-weighted ones.
    times : tuple of float
        When T1-weighted acquisitions began, those of no role too.
    all_times : tuple of float
        When any acquisition began.
    last_plain_s : float, optional
        When the last FLAIR or T2 began.
    first_after_s : float, optional
        When the first acquisition began that is known to come after the agent.
    is_given : bool
        Some series mentions an agent.
    first_agent_s : float, optional
        When the first series of another weighting began whose elements name the agent.
    repeats_t1 : bool
        A brain examination in which T1 was taken more often than the other weightings.
    """

    weighted: tuple[Read, ...]
    times: tuple[float, ...]
    all_times: tuple[float, ...]
    last_plain_s: float | None
    first_after_s: float | None
    is_given: bool
    first_agent_s: float | None
    repeats_t1: bool


def exam_of(many: Sequence[Read], *, tells_agent: bool) -> Exam:
    """Return what the series of a study say together.

    `tells_agent` says whether the elements of an agent differ from series to series.
    """
    counts = Counter(one.found.sequence for one in many)
    weighted = tuple(one for one in many if one.found.sequence in T1)
    taken = [one for one in many if one.found.sequence in T1 | _T1_TOO]
    least = min(counts["FLAIR"], counts["T2w"])
    return Exam(
        weighted=weighted,
        times=tuple(one.at_s for one in taken if one.at_s is not None),
        all_times=tuple(one.at_s for one in many if one.at_s is not None),
        last_plain_s=max(
            (one.at_s for one in many if one.found.sequence in _PLAIN and one.at_s is not None),
            default=None,
        ),
        first_after_s=_first_after_s(many),
        first_agent_s=_first_agent_s(many) if tells_agent else None,
        is_given=any(_mentions_agent(one) for one in many) or bool(_boluses(many)),
        repeats_t1=0 < least < len(taken),
    )


def _mentions_agent(one: Read) -> bool:
    is_named = bool(one.names.own_contrast or one.names.further_contrast)
    return is_named or one.candidate.evidence.has_agent


def _boluses(many: Sequence[Read]) -> tuple[Read, ...]:
    """Return the series that follow a bolus; maps of blood flow may be of labelled spins too."""
    labelled = {
        (one.at_s, one.candidate.evidence.physics) for one in many if one.found.sequence == _ASL
    }
    return tuple(
        one
        for one in many
        if one.found.sequence in _BOLUS
        and (one.at_s, one.candidate.evidence.physics) not in labelled
    )


def _first_agent_s(many: Sequence[Read]) -> float | None:
    """Return when the first series of another weighting began whose elements name the agent."""
    named = [
        one.at_s
        for one in many
        if one.found.role is not None
        and one.found.sequence not in T1
        and one.candidate.evidence.has_agent
        and one.at_s is not None
    ]
    return min(named, default=None)


def _first_after_s(many: Sequence[Read]) -> float | None:
    """Return when the first acquisition began that is known to come after the agent."""
    boluses = _boluses(many)
    weighted = [one for one in many if one.found.sequence in T1]
    tells = len({one.candidate.evidence.has_agent for one in weighted}) > 1
    known = [
        one.at_s
        for one in many
        if one.at_s is not None
        and (
            one in boluses
            or (one.found.sequence == "T1gd" and (one.named or (tells and one.is_told)))
        )
    ]
    return min(known, default=None)


def contrast_in(one: Read, exam: Exam) -> Contrast | None:
    """Return what the study says of a T1-weighted series whose names say nothing of an agent."""
    return _by_pair(one, exam) if one.is_told else _by_study(one, exam)


def _by_study(one: Read, exam: Exam) -> Contrast | None:
    """Return what the study says of a series that itself says nothing of an agent."""
    timed = _by_time(one, exam.first_after_s)
    pair = _by_pair(one, exam)
    if timed is None:
        return pair or _by_element(one, exam.first_agent_s) or _by_order(one, exam)
    if pair is None or not pair.share >= _EITHER > timed.share or _has_named_twin(one, exam):
        return timed
    if one.names.kind.is_repeat:
        return timed
    return Contrast(_EITHER, ("a repeat, or after an agent",)) if _is_next(one, exam) else pair


def _has_named_twin(one: Read, exam: Exam) -> bool:
    """Say whether the site names the acquisition after the agent of just this protocol."""
    physics = one.candidate.evidence.physics
    return any(
        other.named == "after" and other.candidate.evidence.physics == physics
        for other in exam.weighted
    )


def _is_next(one: Read, exam: Exam) -> bool:
    """Say whether nothing else was acquired since the same protocol ran before."""
    alike = {other.at_s for other in exam.weighted if _protocol_of(other) == _protocol_of(one)}
    before = [at_s for at_s in exam.all_times if one.at_s is not None and at_s < one.at_s]
    return max(before, default=None) in alike


def _by_element(one: Read, first_s: float | None) -> Contrast | None:
    """Return what it says that another weighting taken before names the agent."""
    if one.at_s is None or first_s is None or not 0.0 < one.at_s - first_s <= _EXAM_S:
        return None
    return Contrast(_UNMENTIONED, ("acquired after a series whose elements name an agent",))


def _by_pair(one: Read, exam: Exam) -> Contrast | None:
    """Return what the time of a series says among others of one protocol."""
    alike = [other for other in exam.weighted if _protocol_of(other) == _protocol_of(one)]
    times = [other.at_s for other in alike if other.at_s is not None]
    if not exam.is_given or one.at_s is None or len(times) < max(_PAIR, len(alike)):
        return None
    if max(times) - min(times) <= _SAME_S:
        return None
    if one.at_s <= min(times) + _SAME_S:
        return Contrast(_FIRST_OF_PAIR, ("acquired first of series with one protocol",))
    if one.names.kind.is_repeat:
        return Contrast(_EITHER, ("named a repeat",))
    return Contrast(_LATER_OF_PAIR, ("acquired later of series with one protocol",))


def _by_time(one: Read, first_s: float | None) -> Contrast | None:
    """Return what the time of a series says where another one is known to come after the agent."""
    if one.is_told or one.at_s is None or first_s is None or abs(one.at_s - first_s) > _EXAM_S:
        return None
    if one.at_s > first_s:
        return Contrast(_PASSED_ON, ("acquired after a series with contrast agent",))
    return Contrast(_BEFORE_ANY, ("acquired before every series with contrast agent",))


def _by_order(one: Read, exam: Exam) -> Contrast | None:
    """Return what the order of the T1-weighted series says where no mention tells them apart.

    A T1-weighted acquisition is taken twice because an agent was given in between, or because the
    first one failed, or in another plane; the first of them comes before the agent in any case.
    """
    if one.at_s is None or any(other.at_s is None for other in exam.weighted):
        return _by_count(one, exam)
    if max(exam.times) - min(exam.times) <= _SAME_S:
        return None if exam.is_given else _by_place(one.at_s, exam.last_plain_s)
    if one.at_s <= min(exam.times) + _SAME_S:
        first = Contrast(_FIRST_OF_EXAM, ("acquired before the other T1-weighted series",))
        return first if exam.is_given else None
    if one.names.kind.is_repeat and not exam.is_given:
        return Contrast(_AGAIN, ("named a repeat, no agent mentioned",))
    share = _LATER_OF_EXAM if exam.is_given or exam.repeats_t1 else _LATER
    return Contrast(share, ("acquired after another T1-weighted series, no agent mentioned",))


def _by_count(one: Read, exam: Exam) -> Contrast | None:
    """Return what it says that there are several T1-weighted series whose order is not known."""
    silent = [other for other in exam.weighted if not other.is_told]
    is_marked = any(other.found.sequence == "T1gd" for other in exam.weighted)
    if is_marked or all(other is one for other in silent):
        return None
    return Contrast(_ONE_OF_SEVERAL, ("one of several T1-weighted series, their order not known",))


def _by_place(at_s: float, last_plain_s: float | None) -> Contrast | None:
    """Return what the place of the only T1-weighted acquisition says: after an agent it is last."""
    if last_plain_s is None or at_s <= last_plain_s:
        return None
    return Contrast(_LAST_OF_EXAM, ("the only T1-weighted one and last, no agent mentioned",))


def _protocol_of(one: Read) -> object:
    evidence = one.candidate.evidence
    name = evidence.protocol_name or evidence.description
    return name, evidence.physics, one.candidate.slice_count, one.named
