"""Which series of a study are chosen for the model, and with what reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from converters import sequences
from converters.errors import RoleAmbiguousError
from converters.sequences import Candidate, Choice, Physics, SequenceEvidence, choose

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


def _candidate(
    name: str,
    physics: Physics = NOTHING,
    *,
    uid: str = "",
    slices: int = 20,
    whole: bool = True,
) -> Candidate:
    evidence = SequenceEvidence(description=name, physics=physics)
    return Candidate(
        series_instance_uid=uid or name, evidence=evidence, slice_count=slices, is_whole=whole
    )


def _acquired(at_s: float | None, candidate: Candidate, *, agent: bool = False) -> Candidate:
    evidence = replace(candidate.evidence, acquired_at_s=at_s, has_agent=agent)
    return replace(candidate, evidence=evidence)


USUAL = (
    _candidate("t2_tirm_dark-fluid", FLAIR),
    _candidate("t1_se", T1),
    _candidate("t1_se KM", T1),
    _candidate("t2_tse", T2),
)


def _served(choices: tuple[Choice, ...]) -> dict[str, str]:
    return {one.role: one.series_instance_uid for one in choices if one.role is not None}


def test_the_usual_study_serves_every_role() -> None:
    choices = choose(USUAL, ROLES)
    assert [one.role for one in choices] == list(ROLES)
    assert _served(choices)["t1gd"] == "t1_se KM"


def test_every_candidate_gets_a_choice_in_the_order_given() -> None:
    many = [*USUAL, _candidate("localizer", slices=3), _candidate("dwi")]
    choices = choose(many, ROLES)
    assert [one.series_instance_uid for one in choices] == [one.series_instance_uid for one in many]
    assert [one.role for one in choices[4:]] == [None, None]
    assert all(one.reason for one in choices)


def test_a_role_without_a_series_is_absent() -> None:
    assert set(_served(choose(USUAL[:2], ROLES))) == {"flair", "t1"}


def test_a_role_that_the_model_does_not_need_is_not_given() -> None:
    choices = choose(USUAL, ("t1gd",))
    assert _served(choices) == {"t1gd": "t1_se KM"}
    assert choices[3].sequence == "T2w"


def test_more_slices_win_among_certain_series_and_the_reason_says_so() -> None:
    thin = _candidate("t1_mprage KM", MPRAGE, slices=176)
    choices = choose([*USUAL, thin], ROLES)
    assert _served(choices)["t1gd"] == "t1_mprage KM"
    assert choices[4].reason.endswith("; chosen over series with 20 slices")
    assert choices[2].reason.endswith("; not chosen, the series with 176 slices is better")


def test_a_whole_series_wins_over_a_larger_one_with_holes() -> None:
    broken = _candidate("t1_mprage KM", MPRAGE, slices=176, whole=False)
    assert _served(choose([*USUAL, broken], ROLES))["t1gd"] == "t1_se KM"


def test_a_certain_series_wins_over_an_uncertain_larger_one() -> None:
    doubtful = _candidate("t1_se post", T2, slices=100)
    also = _candidate("", T2, uid="nameless", slices=100)
    served = _served(choose([*USUAL, also], ROLES))
    assert served["t2"] == "t2_tse"
    with pytest.raises(RoleAmbiguousError):
        choose([doubtful, replace(doubtful, series_instance_uid="2")], ROLES)


def test_two_series_that_nothing_tells_apart_are_ambiguous() -> None:
    with pytest.raises(RoleAmbiguousError) as caught:
        choose([*USUAL, _candidate("t2_tse", T2, uid="again")], ROLES)
    assert caught.value.evidence == {"count": 2, "role": "t2"}


def test_two_series_for_a_role_that_is_not_needed_are_no_matter() -> None:
    choices = choose([*USUAL, _candidate("t2_tse", T2, uid="again")], ("t1",))
    assert _served(choices) == {"t1": "t1_se"}


@pytest.mark.parametrize("agent", [False, True])
def test_of_two_equal_acquisitions_the_later_one_has_the_agent(agent: bool) -> None:  # noqa: FBT001 - a case
    before = _acquired(100.0, _candidate("t1_se", T1, uid="before"), agent=agent)
    after = _acquired(900.0, _candidate("t1_se", T1, uid="after"), agent=agent)
    choices = choose([after, before], ROLES)
    assert _served(choices) == {"t1": "before", "t1gd": "after"}
    assert choices[0].reason.startswith("T1gd: acquired later of series with one protocol")
    assert choices[1].reason.startswith("T1w: acquired first of series with one protocol")
    assert {one.score for one in choices} == {0.6}


@pytest.mark.parametrize(("first", "second"), [(None, 5.0), (5.0, 5.0), (None, None)])
def test_acquisitions_without_an_order_in_time_stay_ambiguous(
    first: float | None, second: float | None
) -> None:
    pair = [
        _acquired(first, _candidate("t1_se", T1, uid="1")),
        _acquired(second, _candidate("t1_se", T1, uid="2")),
    ]
    with pytest.raises(RoleAmbiguousError):
        choose(pair, ROLES)


def test_two_firsts_at_the_same_moment_stay_as_they_are() -> None:
    three = [
        _acquired(at_s, _candidate("t1_se", T1, uid=uid))
        for uid, at_s in (("1", 1.0), ("2", 1.0), ("3", 9.0))
    ]
    with pytest.raises(RoleAmbiguousError) as caught:
        choose(three, ROLES)
    assert caught.value.evidence == {"count": 3, "role": "t1"}


def test_time_does_not_overrule_what_names_and_agent_say() -> None:
    early = _acquired(100.0, _candidate("t1_se post", T1, uid="post"))
    late = _acquired(900.0, _candidate("t1_se", T1, uid="plain"))
    assert _served(choose([early, late], ROLES)) == {"t1": "plain", "t1gd": "post"}


def test_a_series_whose_name_says_before_is_no_half_of_a_pair() -> None:
    early = _acquired(100.0, _candidate("t1_se pre", T1, uid="pre", slices=30))
    late = _acquired(900.0, _candidate("t1_se", T1, uid="plain"))
    assert _served(choose([early, late], ROLES)) == {"t1": "pre"}


def test_different_protocols_are_not_a_pair() -> None:
    one = _acquired(100.0, _candidate("t1_se", T1, slices=20))
    two = _acquired(900.0, _candidate("t1_mprage", MPRAGE, slices=176))
    assert _served(choose([one, two], ROLES)) == {"t1": "t1_mprage"}


def test_no_series_at_all_gives_no_choice() -> None:
    assert choose([], ROLES) == ()


def test_the_module_offers_what_its_callers_need() -> None:
    assert all(hasattr(sequences, name) for name in sequences.__all__)
