"""Which acquisition of a study plays which role, and why a role stays empty. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from converters.errors import CodedError, InputRejectedError, RoleMissingError
from converters.sequences import (
    Candidate,
    Choice,
    Ruling,
    SequenceEvidence,
    SeriesKey,
    choose,
    classify,
)
from converters.volume import Grid, Role
from node.cases import AssembledSeries, ReceivedInstance, SeriesDecision


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesFacts:
    """What is known of one acquisition of an open study.

    Parameters
    ----------
    series_instance_uid, part : str
        Which series, and which of its parts (`converters.series.Part`).
    description : str
        Its Series Description, for the page.
    evidence : SequenceEvidence
        What its headers say.
    instances : tuple of ReceivedInstance
        All of the series, whatever part they belong to.
    image_count : int
        Instances that belong to the part; all of the series where 0.
    slice_count : int
        Instances or frames of the part; all instances where 0.
    grid : Grid, optional
        Where its voxels lie; None where it is no volume.
    geometry : str
        The same in words.
    ruling : Ruling, optional
        What a rule of the site says of it.
    fault : InputRejectedError, optional
        Why it is no volume.
    """

    series_instance_uid: str
    part: str = ""
    description: str
    evidence: SequenceEvidence
    instances: tuple[ReceivedInstance, ...]
    image_count: int = 0
    slice_count: int = 0
    grid: Grid | None = None
    geometry: str = ""
    ruling: Ruling | None = None
    fault: InputRejectedError | None

    @property
    def key(self) -> SeriesKey:
        """Which acquisition it is."""
        return SeriesKey(self.series_instance_uid, self.part)

    @property
    def voxel_volume_mm3(self) -> float:
        """How fine it is; infinite where it is no volume."""
        return math.inf if self.grid is None else self.grid.voxel_volume_mm3


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Who plays what: every role is either in `players` or in `failures`.

    Parameters
    ----------
    players : mapping of str to SeriesFacts
        Role -> the whole acquisition that fills it.
    failures : mapping of str to CodedError
        Role -> why nothing fills it.
    decisions : tuple of SeriesDecision
        What became of each acquisition, by UID and part.
    lost_choices : tuple of str
        Roles whose series, chosen by hand, is not in the study.
    """

    players: Mapping[Role, SeriesFacts]
    failures: Mapping[Role, CodedError]
    decisions: tuple[SeriesDecision, ...]
    lost_choices: tuple[Role, ...]

    def assembled(self) -> tuple[AssembledSeries, ...]:
        """Return the players as the stages after this one know them, by role."""
        return tuple(
            AssembledSeries(
                series_instance_uid=facts.series_instance_uid,
                part=facts.part,
                role=role,
                instances=facts.instances,
            )
            for role, facts in sorted(self.players.items())
        )


def cast(
    series: Iterable[SeriesFacts], roles: Sequence[Role], by_hand: Mapping[Role, SeriesKey]
) -> Cast:
    """Return who plays which role; the order of the series changes nothing."""
    known = {facts.key: facts for facts in sorted(series, key=lambda facts: facts.key)}
    kept = {role: key for role, key in by_hand.items() if role in roles and key in known}
    choices, failures = _chosen(list(known.values()), roles, kept)
    players: dict[Role, SeriesFacts] = {}
    for choice in choices:
        facts = known[_key(choice)]
        if choice.role is not None and facts.fault is not None:
            failures[choice.role] = facts.fault.placed(role=choice.role)
        elif choice.role is not None:
            players[choice.role] = facts
    found = ", ".join(sorted({choice.sequence for choice in choices})) or "no image series"
    for role in roles:
        if role not in players and role not in failures:
            failures[role] = RoleMissingError(roles=role, found=found)
    return Cast(
        players=players,
        failures=failures,
        decisions=tuple(_decision(choice, known[_key(choice)], failures) for choice in choices),
        lost_choices=tuple(sorted(role for role in by_hand if role in roles and role not in kept)),
    )


def _chosen(
    series: Sequence[SeriesFacts], roles: Sequence[Role], by_hand: Mapping[Role, SeriesKey]
) -> tuple[tuple[Choice, ...], dict[Role, CodedError]]:
    """Return the choices, and which roles had to be left aside for them and why."""
    candidates = [_candidate(facts) for facts in series]
    open_roles = list(roles)
    failures: dict[Role, CodedError] = {}
    while open_roles:
        hands = {role: by_hand[role] for role in open_roles if role in by_hand}
        try:
            return choose(candidates, tuple(open_roles), by_hand=hands), failures
        except InputRejectedError as error:
            named = str(error.evidence.get("role", ""))
            for role in [named] if named in open_roles else list(open_roles):
                failures[role] = error
                open_roles.remove(role)
    return choose(candidates, ()), failures


def _candidate(facts: SeriesFacts) -> Candidate:
    return Candidate(
        series_instance_uid=facts.series_instance_uid,
        part=facts.part,
        evidence=facts.evidence,
        slice_count=facts.slice_count or len(facts.instances),
        is_whole=facts.fault is None,
        grid=facts.grid,
        ruling=facts.ruling,
    )


def _key(choice: Choice) -> SeriesKey:
    return SeriesKey(choice.series_instance_uid, choice.part)


def _decision(
    choice: Choice, facts: SeriesFacts, failures: Mapping[Role, CodedError]
) -> SeriesDecision:
    reason = choice.reason
    meant = _meant(facts) if choice.role is None and failures else None
    if meant is not None and meant in failures:
        reason += f"; {meant}: {failures[meant].code}"
    return SeriesDecision(
        series_instance_uid=choice.series_instance_uid,
        part=choice.part,
        description=facts.description,
        sequence=choice.sequence,
        role=choice.role,
        score=choice.score,
        runner_up=choice.runner_up,
        reason=reason,
        geometry=facts.geometry,
        instance_count=facts.image_count or len(facts.instances),
        is_whole=facts.fault is None,
        code=None if facts.fault is None else facts.fault.code,
    )


def _meant(facts: SeriesFacts) -> Role | None:
    """Return the role that a series would serve for itself."""
    return classify(facts.evidence).role if facts.ruling is None else facts.ruling.role


def without(decision: SeriesDecision, roles: Iterable[Role]) -> SeriesDecision:
    """Return a decision that serves none of these roles, and says so."""
    if decision.role is None or decision.role not in roles:
        return decision
    return replace(
        decision, role=None, reason=f"{decision.reason}; {decision.role} is left out without it"
    )
