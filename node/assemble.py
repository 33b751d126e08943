"""Which cases are complete now, and why: instances and a clock reading in, a decision out.

Pure: no file, no database, no clock. `node.closing` feeds it and acts on its answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias

from converters.errors import CodedError, RoleMissingError, RoleUncertainError
from converters.sequences import SeriesKey
from converters.volume import Role
from node.cases import AssembledCase, ClosedBy, SeriesCount, SeriesDecision
from node.casting import Cast, SeriesFacts, cast, without
from node.errors import CaseDeadlineError

__all__ = [
    "NO_SOURCE",
    "Close",
    "Decision",
    "Expectation",
    "OpenCase",
    "Refuse",
    "Rules",
    "SeriesFacts",
    "Wait",
    "decide",
    "is_worth_asking",
]

_EMPTY: Final = (RoleMissingError, RoleUncertainError)
_COUNTED: Final = ("MR", "")
"""Modalities whose series are awaited; results, ours among them, come long after the images."""

_EVER_S: Final = 1e9  # longer than any case stays open, and a moment that can be computed


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the model needs and how long to wait; durations in seconds.

    Parameters
    ----------
    roles : tuple of str
        Inputs of the model.
    reference_role : str
        Whose grid the result is given on.
    may_be_missing : frozenset of str
        Inputs that the model can do without.
    settle_s : float
        Silence after which a study with every role filled by a whole series closes.
    released_quiet_s : float
        Silence after which any other closes whose sender has hung up, or whose images are all
        here by the count of the PACS.
    quiet_s : float
        Silence after which any closes, unless series lack images by that count.
    deadline_s : float
        Age that none exceeds.
    deadline_action : str
        What becomes of one that is not complete at that age.
    """

    roles: tuple[Role, ...]
    reference_role: Role
    may_be_missing: frozenset[Role] = frozenset()
    settle_s: float
    released_quiet_s: float = math.inf
    quiet_s: float
    deadline_s: float
    deadline_action: Literal["process", "refuse"] = "process"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCase:
    """A case that may still receive instances.

    `released_at` is when the last association that brought some of them was released; `is_forced`
    says that an operator wants it closed now, `by_hand` which series for which role.
    """

    case_id: str
    study_instance_uid: str
    opened_at: datetime
    last_received_at: datetime
    released_at: datetime | None = None
    is_forced: bool = False
    by_hand: Mapping[Role, SeriesKey] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What the PACS says a study holds.

    Parameters
    ----------
    is_asked : bool
        There is a PACS that can be asked.
    is_pending : bool
        It is being asked for the first time since the last instance, and has not failed since.
    series : mapping of str to SeriesCount
        By Series Instance UID; empty where it has not said.
    """

    is_asked: bool = False
    is_pending: bool = False
    series: Mapping[str, SeriesCount] = field(default_factory=dict)


NO_SOURCE: Final = Expectation()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Not yet; ask again later. The reason stays the same while nothing happens."""

    reason: str
    decisions: tuple[SeriesDecision, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """Nothing more is waited for."""

    case: AssembledCase
    decisions: tuple[SeriesDecision, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """Nothing more is waited for, and what there is cannot be used."""

    error: CodedError
    decisions: tuple[SeriesDecision, ...]


Decision: TypeAlias = Wait | Close | Refuse


def is_worth_asking(
    case: OpenCase, rules: Rules, now: datetime, asked_at: datetime | None = None
) -> bool:
    """Say whether `decide` could answer anything but `Wait`; spares reading headers in vain.

    Parameters
    ----------
    case : OpenCase
        The case.
    rules : Rules
        How long to wait.
    now : datetime
        The time, aware.
    asked_at : datetime, optional
        When the answer was `Wait`, nothing but time having changed since.
    """
    silences_s = (rules.settle_s, rules.released_quiet_s, rules.quiet_s)
    moments = [case.last_received_at + timedelta(seconds=min(s, _EVER_S)) for s in silences_s]
    moments.append(case.opened_at + timedelta(seconds=min(rules.deadline_s, _EVER_S)))
    if asked_at is not None:
        return any(asked_at < moment <= now for moment in moments)
    return case.is_forced or min(moments) <= now


def decide(
    case: OpenCase,
    series: Sequence[SeriesFacts],
    rules: Rules,
    now: datetime,
    expected: Expectation = NO_SOURCE,
) -> Decision:
    """Return whether a case is complete.

    Parameters
    ----------
    case : OpenCase
        The case.
    series : sequence of SeriesFacts
        What has arrived of its study, in any order.
    rules : Rules
        What is needed and how long to wait.
    now : datetime
        The time, aware.
    expected : Expectation, optional
        What the PACS counts.

    Notes
    -----
    Once a case is due it stays due: a later `now` with the same facts never gives `Wait` again.
    A case with an empty role is never closed unless the model can do without that role, and then
    not before the quiet period, the deadline or the operator ends the waiting.
    """
    players = cast(series, rules.roles, case.by_hand)
    counts = _count(series, expected)
    problem = _problem(players, rules)
    closed_by = _closed_by(case, rules, now, counts, is_whole=not players.failures)
    decisions = tuple(without(one, players.failures) for one in players.decisions)
    if closed_by is None:
        return Wait(reason=_awaited(players, counts), decisions=decisions)
    is_late = closed_by is ClosedBy.DEADLINE and rules.deadline_action == "refuse"
    if is_late and (players.failures or counts.lacking or counts.absent):
        late = CaseDeadlineError(missing=_awaited(players, counts))
        return Refuse(error=late, decisions=players.decisions)
    if problem is not None:
        return Refuse(error=problem, decisions=players.decisions)
    return Close(
        case=AssembledCase(
            case_id=case.case_id,
            study_instance_uid=case.study_instance_uid,
            series=players.assembled(),
            reference_role=_reference_role(players, rules),
            closed_by=closed_by,
        ),
        decisions=decisions,
        reason=_reason(case, players, counts, now, closed_by),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """How what is here compares with what the PACS counts; empty texts where nothing lacks."""

    is_asked: bool
    is_pending: bool
    is_known: bool
    lacking: str = ""
    absent: str = ""

    @property
    def is_reached(self) -> bool:
        return self.is_known and not self.lacking and not self.absent


def _count(series: Sequence[SeriesFacts], expected: Expectation) -> _Counts:
    held = {one.series_instance_uid: len(one.instances) for one in series}
    counted = {
        uid: one.instance_count for uid, one in expected.series.items() if one.modality in _COUNTED
    }
    lacks = [count - held[uid] for uid, count in counted.items() if 0 < held.get(uid, 0) < count]
    absent_count = sum(count > 0 and uid not in held for uid, count in counted.items())
    return _Counts(
        is_asked=expected.is_asked,
        is_pending=expected.is_pending,
        is_known=bool(expected.series),
        lacking=f"{sum(lacks)} images of {len(lacks)} series that the PACS has" if lacks else "",
        absent=f"{absent_count} whole MR series that the PACS has" if absent_count else "",
    )


def _closed_by(
    case: OpenCase, rules: Rules, now: datetime, counts: _Counts, *, is_whole: bool
) -> ClosedBy | None:
    """Return what ends the waiting, None while nothing does."""
    silence_s = (now - case.last_received_at).total_seconds()
    may_settle = counts.is_reached or not counts.is_asked
    if case.is_forced:
        return ClosedBy.OPERATOR
    if is_whole and may_settle and silence_s >= rules.settle_s:
        return ClosedBy.COMPLETE
    must_hold = counts.is_pending or counts.lacking
    if silence_s >= _patience_s(case, rules, counts) and not must_hold:
        return ClosedBy.QUIET
    if (now - case.opened_at).total_seconds() >= rules.deadline_s:
        return ClosedBy.DEADLINE
    return None


def _patience_s(case: OpenCase, rules: Rules, counts: _Counts) -> float:
    """Return the silence that closes a case which is not whole."""
    has_hung_up = case.released_at is not None and case.released_at >= case.last_received_at
    if counts.absent or not (has_hung_up or counts.is_reached):
        return rules.quiet_s
    return min(rules.quiet_s, rules.released_quiet_s)


def _problem(players: Cast, rules: Rules) -> CodedError | None:
    """Return why the model cannot work with what is there: sequences that are missing first."""
    failures = {
        role: error
        for role, error in players.failures.items()
        if role not in rules.may_be_missing or not players.players
    }
    absent = [error for error in failures.values() if isinstance(error, RoleMissingError)]
    if absent:
        empty = [role for role in rules.roles if isinstance(failures.get(role), _EMPTY)]
        return RoleMissingError(roles=", ".join(empty), found=absent[0].evidence["found"])
    return next((failures[role] for role in rules.roles if role in failures), None)


def _reference_role(players: Cast, rules: Rules) -> Role:
    """Return the model's reference, or the role of the finest series where it is left out."""
    if rules.reference_role in players.players:
        return rules.reference_role
    filled = [role for role in rules.roles if role in players.players]
    return min(filled, key=lambda role: players.players[role].voxel_volume_mm3)


def _awaited(players: Cast, counts: _Counts) -> str:
    """Return what is still waited for."""
    awaited = [f"{error.code}: {error}" for error in _distinct(players.failures)]
    awaited += [text for text in (counts.lacking, counts.absent) if text]
    if counts.is_asked and not counts.is_known:
        awaited.append("the PACS to say how many images there are")
    return "; ".join(awaited) or "silence, as everything is here"


def _distinct(failures: Mapping[Role, CodedError]) -> list[CodedError]:
    """Return each error once, in the order of their roles."""
    return list(dict.fromkeys(failures[role] for role in sorted(failures)))


def _reason(
    case: OpenCase, players: Cast, counts: _Counts, now: datetime, closed_by: ClosedBy
) -> str:
    """Return why a case was closed, and with what."""
    silence_s = (now - case.last_received_at).total_seconds()
    whole = ", ".join(sorted(players.players))
    said = [f"{whole} whole, {silence_s:.0f} s without a new instance"]
    if closed_by in (ClosedBy.OPERATOR, ClosedBy.DEADLINE):
        said.append(f"closed by the {closed_by.value}")
    if counts.is_reached:
        said.append("as many images as the PACS counts")
    said += [f"without {text}" for text in (counts.lacking, counts.absent) if text]
    said += [
        f"{role} is left out ({players.failures[role].code}: {players.failures[role]})"
        for role in sorted(players.failures)
    ]
    said += [f"the series chosen by hand for {role} is not here" for role in players.lost_choices]
    return "; ".join(said)
