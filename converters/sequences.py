"""Which MR sequence each series is, which serve the model, and why.

The physics of the acquisition, the words of its names and the other series of the study all count;
where they contradict each other the score falls. Scores rank certainty. Reasons hold acquisition
parameters and our own words, never text of a header.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np

from converters.errors import RoleAmbiguousError, RoleUncertainError
from converters.sequence_context import extent_mm, judge, protocol
from converters.sequence_evidence import Physics, SequenceEvidence, evidence_of
from converters.sequence_kinds import ROLES, classify
from converters.sequence_nouns import (
    Candidate,
    Choice,
    Classification,
    Judged,
    Ruling,
    SeriesKey,
)
from converters.volume import Role

__all__ = [
    "ACCEPTANCE_SCORE",
    "Candidate",
    "Choice",
    "Classification",
    "Physics",
    "Ruling",
    "SequenceEvidence",
    "SeriesKey",
    "choose",
    "classify",
    "evidence_of",
    "judge",
]

ACCEPTANCE_SCORE: Final = 0.7
"""A series with a lower score serves no role by itself; a rule or an operator may choose it."""

_COVERS_MM: Final = 120.0  # of a brain's height, width or length
_FINE_MM: Final = 1.5  # thinner slices are no gain on the grids of models
_STEP_MM: Final = 0.5  # slices that differ by less are alike
_LEAST_DOUBT: Final = 0.25  # a runner-up from here on is worth a question to the operator
_NOTHING_BY_HAND: Final[Mapping[Role, SeriesKey]] = MappingProxyType({})
_CORRECTIONS: Final = frozenset({"DIS2D", "DIS3D", "NORM", "IN_PHASE"})
_Criterion: TypeAlias = tuple[str, Callable[[Judged], float]]


def choose(
    candidates: Sequence[Candidate],
    roles: Sequence[Role],
    by_hand: Mapping[Role, SeriesKey] = _NOTHING_BY_HAND,
) -> tuple[Choice, ...]:
    """Return what becomes of each acquisition of a study, in the order given.

    Parameters
    ----------
    candidates : sequence of Candidate
        Every acquisition of the study.
    roles : sequence of str
        What the model needs. A role that no series can serve is absent from the choices.
    by_hand : mapping of str to SeriesKey, optional
        What an operator chose; counts before everything else. A role whose series is not among the
        candidates stays empty.

    Raises
    ------
    RoleAmbiguousError
        Two series serve a role equally well.
    RoleUncertainError
        The best series for a role scores less than `ACCEPTANCE_SCORE`.

    Notes
    -----
    The criteria stand in `_CRITERIA`, the first that tells two series apart decides. Of repeats
    that are alike in all of them the latest is chosen.
    """
    judged = judge(candidates)
    hands = {key: role for role, key in by_hand.items() if role in roles}
    free = [one for one in judged if one.candidate.key not in hands]
    pools = {
        role: [one for one in free if one.found.role == role]
        for role in roles
        if role not in by_hand
    }
    best = {role: _best(role, pool) for role, pool in pools.items() if pool}
    unused = [one for one in free if all(one is not other for other in best.values())]
    _check_doubts(unused, [role for role in pools if role not in best])
    return tuple(
        _by_hand(one, hands[one.candidate.key])
        if one.candidate.key in hands
        else _choice(one, pools.get(one.found.role or "", ()), best.get(one.found.role or ""))
        for one in judged
    )


def _by_hand(one: Judged, role: Role) -> Choice:
    found = one.found
    return Choice(
        series_instance_uid=one.candidate.series_instance_uid,
        part=one.candidate.part,
        sequence=found.sequence,
        role=role,
        score=found.score,
        runner_up=found.runner_up,
        reason=f"{found.reason}; chosen by hand",
    )


def _choice(one: Judged, pool: Sequence[Judged], best: Judged | None) -> Choice:
    """Return what becomes of a series among all that could serve the same role."""
    reason = one.found.reason
    if best is one and len(pool) > 1:
        why = sorted({_decisive(one, rival) for rival in pool if rival is not one})
        reason += f"; chosen of {len(pool)}: {', '.join(why)}"
    elif best is not None and best is not one:
        reason += f"; not chosen, another is better: {_decisive(best, one)}"
    return Choice(
        series_instance_uid=one.candidate.series_instance_uid,
        part=one.candidate.part,
        sequence=one.found.sequence,
        role=one.found.role if best is one else None,
        score=one.found.score,
        runner_up=one.found.runner_up,
        reason=reason,
    )


def _best(role: Role, pool: Sequence[Judged]) -> Judged:
    """Return the best of the series that could serve a role; one that is certain enough."""
    top = max(_rank(one) for one in pool)
    best = [one for one in pool if _rank(one) == top]
    if len(best) > 1:
        best = _latest(best)
    if not best[0].candidate.is_whole:  # whichever it is, its own fault says more
        return min(best, key=lambda one: one.candidate.key)
    if len(best) > 1:
        raise RoleAmbiguousError(count=len(best), role=role)
    if best[0].found.score < ACCEPTANCE_SCORE:
        raise _uncertain(role, best[0].found.score)
    return best[0]


def _latest(alike: Sequence[Judged]) -> list[Judged]:
    """Return the last one of repeats of one protocol; all of them where they are no repeats."""
    times = [one.candidate.evidence.acquired_at_s for one in alike]
    known = [at_s for at_s in times if at_s is not None]
    if len({protocol(one.candidate) for one in alike}) > 1 or len(known) < len(alike):
        return list(alike)
    return [one for one, at_s in zip(alike, times, strict=True) if at_s == max(known)]


def _check_doubts(judged: Iterable[Judged], roles: Iterable[Role]) -> None:
    """Refuse to leave a role empty that an unused series may serve after all."""
    open_ones = [one for one in judged if one.candidate.ruling is None]
    scores = {
        role: [one.found.rival_score for one in open_ones if ROLES.get(one.found.rival) == role]
        for role in roles
    }
    for role, many in scores.items():
        if max(many, default=0.0) >= _LEAST_DOUBT:
            raise _uncertain(role, max(many))


def _uncertain(role: Role, score: float) -> RoleUncertainError:
    return RoleUncertainError(role=role, score=score, minimum=ACCEPTANCE_SCORE)


def _rank(one: Judged) -> tuple[float, ...]:
    return tuple(of(one) for _, of in _CRITERIA)


def _decisive(better: Judged, worse: Judged) -> str:
    """Return in words why one series is better than another."""
    return next((words for words, of in _CRITERIA if of(better) != of(worse)), "the latest repeat")


def _spacing_mm(one: Judged) -> float:
    grid = one.candidate.grid
    return 0.0 if grid is None else float(np.linalg.norm(grid.index_to_lps_mm[:3, 0]))


def _is_axial(one: Judged) -> bool:
    grid = one.candidate.grid
    return grid is not None and int(np.abs(grid.index_to_lps_mm[:3, 0]).argmax()) == 2  # noqa: PLR2004 - z


_CRITERIA: Final[tuple[_Criterion, ...]] = (
    ("a rule of the site", lambda one: one.candidate.ruling is not None),
    ("a whole stack of slices", lambda one: one.candidate.is_whole),
    ("enough certainty", lambda one: one.found.score >= ACCEPTANCE_SCORE),
    ("coverage of the brain", lambda one: (extent_mm(one.candidate) or _COVERS_MM) >= _COVERS_MM),
    (
        "thinner slices",
        lambda one: -max(round(_spacing_mm(one) / _STEP_MM), round(_FINE_MM / _STEP_MM)),
    ),
    ("original images", lambda one: "DERIVED" not in one.candidate.evidence.image_type),
    ("axial slices", _is_axial),
    ("more slices", lambda one: one.candidate.slice_count),
    (
        "corrected images",
        lambda one: len(_CORRECTIONS.intersection(one.candidate.evidence.image_type)),
    ),
    ("the higher score", lambda one: round(one.found.score, 1)),
)
