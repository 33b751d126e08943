"""Which cases are complete now, and why: instances and a clock reading in, a decision out.

Pure: no file, no database, no clock. `node.closing` feeds it and acts on its answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from converters.errors import (
    CodedError,
    InputRejectedError,
    RoleMissingError,
)
from converters.sequences import Candidate, Choice, SequenceEvidence, choose
from converters.volume import Role
from node.cases import (
    AssembledCase,
    AssembledSeries,
    ClosedBy,
    ReceivedInstance,
    SeriesDecision,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesFacts:
    """What is known of one series of an open study; `fault` is why its geometry is no volume."""

    series_instance_uid: str
    description: str
    evidence: SequenceEvidence
    instances: tuple[ReceivedInstance, ...]
    fault: InputRejectedError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the model needs and how long to wait; durations in seconds."""

    roles: tuple[Role, ...]
    reference_role: Role
    settle_s: float
    quiet_s: float
    deadline_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCase:
    """A case that may still receive instances."""

    case_id: str
    study_instance_uid: str
    opened_at: datetime
    last_received_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Not yet; ask again later."""

    reason: str


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


def is_worth_asking(case: OpenCase, rules: Rules, now: datetime) -> bool:
    """Say whether `decide` could answer anything but `Wait`; spares reading headers in vain."""
    return (now - case.last_received_at).total_seconds() >= rules.settle_s or (
        now - case.opened_at
    ).total_seconds() >= rules.deadline_s


def decide(case: OpenCase, series: Sequence[SeriesFacts], rules: Rules, now: datetime) -> Decision:
    """Return whether a case is complete.

    A study with every role filled by a whole series closes after `settle_s` of silence, any other
    after `quiet_s`, and none stays open longer than `deadline_s`. One that closes without all
    roles, or with a series that is no volume, is refused with the reason.
    """
    silence_s = (now - case.last_received_at).total_seconds()
    closed_by = _closed_by(case, rules, now)
    try:
        choices = choose([_candidate(one) for one in series], rules.roles)
    except InputRejectedError as error:
        if closed_by is None:
            return Wait(reason=f"{error.code}: {error}")
        return Refuse(error=error, decisions=_undecided(series, error))
    decisions = tuple(_decision(choice, _facts(series, choice)) for choice in choices)
    problem = _problem(choices, series, rules)
    if problem is None and silence_s >= rules.settle_s:
        closed_by = closed_by or ClosedBy.COMPLETE
        reason = f"all of {', '.join(rules.roles)} whole, {silence_s:.0f} s without a new instance"
        return Close(
            case=_assembled(case, choices, series, rules, closed_by),
            decisions=decisions,
            reason=reason,
        )
    if problem is not None and closed_by is not None:
        return Refuse(error=problem, decisions=decisions)
    return Wait(reason="settling" if problem is None else f"{problem.code}: {problem}")


def _closed_by(case: OpenCase, rules: Rules, now: datetime) -> ClosedBy | None:
    if (now - case.last_received_at).total_seconds() >= rules.quiet_s:
        return ClosedBy.QUIET
    if (now - case.opened_at).total_seconds() >= rules.deadline_s:
        return ClosedBy.DEADLINE
    return None


def _problem(
    choices: Sequence[Choice], series: Sequence[SeriesFacts], rules: Rules
) -> CodedError | None:
    """Return why the chosen series cannot serve: a role missing, or a series not whole."""
    filled = {choice.role for choice in choices if choice.role is not None}
    missing = [role for role in rules.roles if role not in filled]
    if missing:
        found = ", ".join(sorted({choice.sequence for choice in choices})) or "no image series"
        return RoleMissingError(roles=", ".join(missing), found=found)
    for choice in choices:
        fault = _facts(series, choice).fault
        if choice.role is not None and fault is not None:
            return fault.placed(role=choice.role)
    return None


def _assembled(
    case: OpenCase,
    choices: Sequence[Choice],
    series: Sequence[SeriesFacts],
    rules: Rules,
    closed_by: ClosedBy,
) -> AssembledCase:
    return AssembledCase(
        case_id=case.case_id,
        study_instance_uid=case.study_instance_uid,
        series=tuple(
            AssembledSeries(
                series_instance_uid=choice.series_instance_uid,
                role=choice.role,
                instances=_facts(series, choice).instances,
            )
            for choice in sorted(choices, key=lambda choice: choice.role or "")
            if choice.role is not None
        ),
        reference_role=rules.reference_role,
        closed_by=closed_by,
    )


def _candidate(facts: SeriesFacts) -> Candidate:
    return Candidate(
        series_instance_uid=facts.series_instance_uid,
        evidence=facts.evidence,
        slice_count=len(facts.instances),
        is_whole=facts.fault is None,
    )


def _facts(series: Sequence[SeriesFacts], choice: Choice) -> SeriesFacts:
    return next(one for one in series if one.series_instance_uid == choice.series_instance_uid)


def _decision(choice: Choice, facts: SeriesFacts) -> SeriesDecision:
    return SeriesDecision(
        series_instance_uid=choice.series_instance_uid,
        description=facts.description,
        sequence=choice.sequence,
        role=choice.role,
        score=choice.score,
        reason=choice.reason,
        instance_count=len(facts.instances),
        is_whole=facts.fault is None,
        code=None if facts.fault is None else facts.fault.code,
    )


def _undecided(series: Sequence[SeriesFacts], error: CodedError) -> tuple[SeriesDecision, ...]:
    """Return the series table of a study in which no choice could be made."""
    return tuple(
        _decision(
            Choice(
                series_instance_uid=facts.series_instance_uid,
                sequence="undecided",
                role=None,
                score=0.0,
                reason=str(error),
            ),
            facts,
        )
        for facts in series
    )
