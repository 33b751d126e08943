"""Whether the series of a case look like what they were taken for, before a network believes it.

No label, no network and no absolute brightness: intensities at the same points of the brain are
compared. Three facts hold for every brain, whatever the scanner:

* T1w and T2w run against each other: fluid is the dark tail of one and the bright tail of the
  other, white matter is brighter than grey matter in one and darker in the other.
* Where there is no fluid (the lower three quarters of T2w), FLAIR runs with T2w, because it is a
  T2-weighted image, and T1w runs against it.
* Contrast agent makes some tissue brighter in T1gd than in T1w, vessels at least, and none darker.

The first two make one score. The score of the roles as given is compared with that of the roles
after each swap of two; a swap that explains the images clearly better is a refusal.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from converters.volume import Role
from inference.errors import ChannelImplausibleError

Samples: TypeAlias = Mapping[Role, NDArray[np.float32]]

_T1_LIKE: Final = ("t1", "t1gd")
_KNOWN: Final = ("flair", *_T1_LIKE, "t2")
_COMPARABLE: Final = ({"t1", "t2"}, {"t1gd", "t2"}, {"flair", "t1", "t1gd"})
_LEAST_POINTS = 1000  # fewer say nothing
_NO_FLUID = 0.75  # of the ranks of T2w; what lies above is mostly CSF
_TAIL_PERCENT = 0.1
_TAILS = (2.0, 50.0, 98.0)

# See docs/brain-mask.md for the margins measured.
_CLEARLY_BETTER = 0.15
# Logarithm of (brightest gain : strongest loss) from T1w to T1gd: 0.72 or more in correct exams
# with an enhancing tumour, 0.15 without any enhancement; the other sign in swapped ones.
_CLEARLY_REVERSED = -0.4
_REVERSED_LOSS = 0.5  # of the median; without a strong loss nothing was swapped
_LEAST_GAIN = 0.45  # of the median; vessels gain more
_LEAST_SKEW = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Plausibility:
    """What the comparison of channels gave.

    Parameters
    ----------
    score : float or None
        How well the roles fit the images; None where too few of them can be compared.
    best_swap : str
        The swap of two roles that fits best, such as ``flair and t2``; '' without a score.
    best_swap_score : float or None
        How well the roles fit after it.
    gain, loss : float or None
        Largest brightening and darkening from T1w to T1gd, in medians of T1w and T1gd.
    doubt : str
        '' or a sentence that a reader of the result has to know.
    """

    score: float | None = None
    best_swap: str = ""
    best_swap_score: float | None = None
    gain: float | None = None
    loss: float | None = None
    doubt: str = ""


def judge(samples: Samples) -> Plausibility:
    """Return how plausible the roles of the channels are.

    Parameters
    ----------
    samples : mapping of role to (n,) ndarray
        Intensities at the same points well inside the brain. Roles that are not among the four
        known ones are left aside; any of the four may be absent.

    Raises
    ------
    ChannelImplausibleError
        The images contradict the roles and a swap of two of them would explain it.
    """
    known = {role: samples[role] for role in _KNOWN if role in samples}
    if not known or next(iter(known.values())).size < _LEAST_POINTS:
        return Plausibility()
    score, swap, swap_score = _compared({role: _described(one) for role, one in known.items()})
    gain, loss = _enhancement(known)
    _refuse_swapped(score, swap, swap_score)
    _refuse_reversed(gain, loss)
    return Plausibility(
        score=score,
        best_swap=swap,
        best_swap_score=swap_score,
        gain=gain,
        loss=loss,
        doubt=_doubt(score, swap, swap_score) or _doubt_of_contrast(gain, loss),
    )


def _refuse_swapped(score: float | None, swap: str, swap_score: float | None) -> None:
    if score is None or swap_score is None or swap_score - score < _CLEARLY_BETTER:
        return
    raise ChannelImplausibleError(
        reason=f"they fit their roles with {score:.2f}, and with {swap_score:.2f} if {swap} are "
        f"exchanged; expected no exchange to be better by {_CLEARLY_BETTER}"
    )


def _refuse_reversed(gain: float | None, loss: float | None) -> None:
    if gain is None or loss is None or loss < _REVERSED_LOSS:
        return
    if _skew(gain, loss) <= _CLEARLY_REVERSED:
        raise ChannelImplausibleError(
            reason=f"from t1 to t1gd tissue brightens by at most {gain:.2f} and darkens by up to "
            f"{loss:.2f} medians, expected the reverse; t1 and t1gd may be exchanged"
        )


def _doubt(score: float | None, swap: str, swap_score: float | None) -> str:
    if score is None or swap_score is None or swap_score <= score:
        return ""
    return (
        f"the series fit their roles with {score:.2f}, and with {swap_score:.2f} if {swap} "
        "were exchanged; check which is which"
    )


def _doubt_of_contrast(gain: float | None, loss: float | None) -> str:
    if gain is None or loss is None:
        return ""
    if gain >= _LEAST_GAIN and _skew(gain, loss) >= _LEAST_SKEW:
        return ""
    return (
        f"from t1 to t1gd tissue brightens by at most {gain:.2f} and darkens by up to {loss:.2f} "
        "medians, not even vessels stand out; t1gd may have been taken without contrast agent"
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Channel:
    """The ranks of a channel's points, 0 to 1, and how much more its bright tail reaches out."""

    ranks: NDArray[np.float32]
    lean: float


def _described(values: NDArray[np.float32]) -> _Channel:
    ranks = np.empty(values.size, np.float32)
    ranks[np.argsort(values, kind="stable")] = np.linspace(0.0, 1.0, values.size, dtype=np.float32)
    low, middle, high = np.maximum(np.percentile(values, _TAILS), np.finfo(np.float32).tiny)
    lean = float(np.log(high / middle) - np.log(middle / low))
    return _Channel(ranks=ranks, lean=float(np.clip(lean, -1.0, 1.0)))


def _compared(channels: Mapping[Role, _Channel]) -> tuple[float | None, str, float | None]:
    """Return the score as given, the best swap of two and its score."""
    if not any(needed <= channels.keys() for needed in _COMPARABLE):
        return None, "", None
    swaps = []
    for one, other in itertools.combinations(channels, 2):
        if {one, other} == set(_T1_LIKE):
            continue  # `_enhancement` tells these apart
        exchanged = {**channels, one: channels[other], other: channels[one]}
        swaps.append((_score(exchanged), f"{one} and {other}"))
    swap_score, swap = max(swaps)
    return _score(channels), swap, swap_score


def _score(channels: Mapping[Role, _Channel]) -> float:
    t1_like = [channels[role] for role in _T1_LIKE if role in channels]
    if "t2" not in channels:
        return _score_without_t2(channels["flair"], *t1_like)
    t2 = channels["t2"]
    score = t2.lean - _mean([one.lean for one in t1_like])
    score -= _mean([_correlation(t2.ranks, one.ranks) for one in t1_like])
    if "flair" in channels:
        dry = t2.ranks < _NO_FLUID
        against = _mean([_correlation(t2.ranks[dry], one.ranks[dry]) for one in t1_like])
        score += _correlation(t2.ranks[dry], channels["flair"].ranks[dry]) - against
    return score


def _score_without_t2(flair: _Channel, t1: _Channel, t1gd: _Channel) -> float:
    """Return how much more alike both T1w are than either is to FLAIR."""
    apart = [_correlation(flair.ranks, one.ranks) for one in (t1, t1gd)]
    return _correlation(t1.ranks, t1gd.ranks) - _mean(apart)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    a, b = one - one.mean(), other - other.mean()
    length = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / length if length > 0.0 else 0.0


def _enhancement(samples: Samples) -> tuple[float | None, float | None]:
    """Return the largest brightening and darkening from T1w to T1gd, in medians."""
    if not all(role in samples for role in _T1_LIKE):
        return None, None
    before, after = (samples[role] for role in _T1_LIKE)
    medians = float(np.median(before)), float(np.median(after))
    if min(medians) <= 0.0:
        return None, None
    change = after / medians[1] - before / medians[0]
    low, high = np.percentile(change, [_TAIL_PERCENT, 100.0 - _TAIL_PERCENT])
    return max(0.0, float(high)), max(0.0, -float(low))


def _skew(gain: float, loss: float) -> float:
    return float(np.log(max(gain, 0.02) / max(loss, 0.02)))
