"""Which series of a study are chosen for the model, and with what reason."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters import sequences
from converters.errors import RoleAmbiguousError, RoleUncertainError
from converters.sequences import (
    ACCEPTANCE_SCORE,
    Candidate,
    Ruling,
    SequenceEvidence,
    SeriesKey,
    choose,
)
from converters.volume import Grid
from tests.sequence_examples import (
    FLAIR,
    MPRAGE,
    NOTHING,
    ROLES,
    T1,
    T2,
    acquired,
    candidate,
    served,
)

USUAL = (
    candidate("t2_tirm_dark-fluid", FLAIR),
    candidate("t1_se", T1),
    candidate("t1_se KM", T1),
    candidate("t2_tse", T2),
)


def test_the_usual_study_serves_every_role() -> None:
    choices = choose(USUAL, ROLES)
    assert [one.role for one in choices] == list(ROLES)
    assert served(choices)["t1gd"] == "t1_se KM"


def test_every_candidate_gets_a_choice_in_the_order_given() -> None:
    many = [*USUAL, candidate("localizer", slices=3), candidate("dwi")]
    choices = choose(many, ROLES)
    assert [one.series_instance_uid for one in choices] == [one.series_instance_uid for one in many]
    assert [one.role for one in choices[4:]] == [None, None]
    assert all(one.reason for one in choices)


def test_a_role_without_a_series_is_absent() -> None:
    assert set(served(choose(USUAL[:2], ROLES))) == {"flair", "t1"}


def test_a_role_that_the_model_does_not_need_is_not_given() -> None:
    choices = choose(USUAL, ("t1gd",))
    assert served(choices) == {"t1gd": "t1_se KM"}
    assert choices[3].sequence == "T2w"


def test_more_slices_win_among_certain_series_and_the_reason_says_so() -> None:
    thin = candidate("t1_mprage KM", MPRAGE, slices=176)
    choices = choose([*USUAL, thin], ROLES)
    assert served(choices)["t1gd"] == "t1_mprage KM"
    assert choices[4].reason.endswith("; chosen of 2: more slices")
    assert choices[2].reason.endswith("; not chosen, another is better: more slices")


def test_a_whole_series_wins_over_a_larger_one_with_holes() -> None:
    broken = candidate("t1_mprage KM", MPRAGE, slices=176, whole=False)
    assert served(choose([*USUAL, broken], ROLES))["t1gd"] == "t1_se KM"


def test_a_certain_series_wins_over_an_uncertain_larger_one() -> None:
    doubtful = candidate("t1_se", T2, uid="doubtful", slices=100)
    assert served(choose([*USUAL, doubtful], ROLES))["t2"] == "t2_tse"


def test_a_role_that_only_an_uncertain_series_serves_is_refused() -> None:
    with pytest.raises(RoleUncertainError) as caught:
        choose([candidate("t1_se", T2)], ("t2",))
    assert caught.value.evidence["role"] == "t2"
    assert float(caught.value.evidence["score"]) < ACCEPTANCE_SCORE
    assert "expected at least 0.70" in str(caught.value)


def test_two_series_that_nothing_tells_apart_are_ambiguous() -> None:
    with pytest.raises(RoleAmbiguousError) as caught:
        choose([*USUAL, candidate("t2_tse", T2, uid="again")], ROLES)
    assert caught.value.evidence == {"count": 2, "role": "t2"}


def test_two_series_for_a_role_that_is_not_needed_are_no_matter() -> None:
    choices = choose([*USUAL, candidate("t2_tse", T2, uid="again")], ("t1",))
    assert served(choices) == {"t1": "t1_se"}


def test_of_two_equal_acquisitions_with_an_agent_the_later_one_comes_after_it() -> None:
    before = acquired(100.0, candidate("t1_se", T1, uid="before"), agent=True)
    after = acquired(900.0, candidate("t1_se", T1, uid="after"), agent=True)
    choices = choose([after, before], ROLES)
    assert served(choices) == {"t1": "before", "t1gd": "after"}
    assert choices[0].reason.startswith("T1gd: acquired later of series with one protocol")
    assert choices[1].reason.startswith("T1w: acquired first of series with one protocol")
    assert {one.score for one in choices} == {0.85}


def test_of_two_equal_acquisitions_without_any_agent_the_later_one_is_doubtful() -> None:
    pair = [
        acquired(100.0, candidate("t1_se", T1, uid="first")),
        acquired(900.0, candidate("t1_se", T1, uid="later")),
    ]
    with pytest.raises(RoleUncertainError) as caught:
        choose(pair, ROLES)
    assert caught.value.evidence["role"] == "t1gd"
    assert served(choose(pair, ("t1",))) == {"t1": "first"}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_broken_series_are_never_ambiguous_their_own_fault_says_more(
    order: tuple[int, int],
) -> None:
    pair = [candidate("t2_tse", T2, uid=uid, whole=False) for uid in ("1", "2")]
    chosen = choose([pair[index] for index in order], ("t2",))
    assert {one.series_instance_uid: one.role for one in chosen} == {"1": "t2", "2": None}


@pytest.mark.parametrize(("first", "second"), [(None, 5.0), (5.0, 5.0), (None, None)])
def test_acquisitions_without_an_order_in_time_stay_ambiguous(
    first: float | None, second: float | None
) -> None:
    pair = [
        acquired(first, candidate("t1_se", T1, uid="1")),
        acquired(second, candidate("t1_se", T1, uid="2")),
    ]
    with pytest.raises(RoleAmbiguousError):
        choose(pair, ROLES)


# -- criteria -------------------------------------------------------------------------------------


def _on_grid(one: Candidate, slices: int, step_mm: float, *, axis: int = 2) -> Candidate:
    index_to_lps_mm = np.eye(4)
    index_to_lps_mm[:3, :3] = np.roll(np.eye(3), axis, axis=0)
    index_to_lps_mm[:3, 0] *= step_mm
    grid = Grid(shape=(slices, 64, 64), index_to_lps_mm=index_to_lps_mm, frame_of_reference_uid="")
    return replace(one, grid=grid, slice_count=slices)


def _typed(one: Candidate, *image_type: str) -> Candidate:
    return replace(one, evidence=replace(one.evidence, image_type=image_type))


THICK = _on_grid(candidate("t2_tse", T2, uid="thick"), 30, 5.0)
THIN = _on_grid(candidate("t2_space", T2, uid="thin"), 160, 1.0)


@pytest.mark.parametrize(
    ("better", "worse", "why"),
    [
        (THIN, THICK, "thinner slices"),
        (THICK, _on_grid(THIN, 100, 1.0), "coverage of the brain"),
        (THICK, replace(THIN, is_whole=False), "a whole stack of slices"),
        (replace(THICK, ruling=Ruling(role="t2", rule="ours")), THIN, "a rule of the site"),
        (_typed(THICK, "ORIGINAL"), _typed(_on_grid(THICK, 31, 5.0), "DERIVED"), "original images"),
        (THICK, _on_grid(THICK, 31, 5.0, axis=0), "axial slices"),
        (_on_grid(THICK, 31, 5.0), THICK, "more slices"),
        (_typed(THICK, "M", "DIS2D"), _typed(THICK, "M", "ND"), "corrected images"),
        (THICK, replace(THICK, evidence=SequenceEvidence(description="t2")), "the higher score"),
        (acquired(9.0, THICK), acquired(1.0, THICK), "the latest repeat"),
    ],
)
def test_the_first_criterion_that_tells_two_series_apart_decides(
    better: Candidate, worse: Candidate, why: str
) -> None:
    worse = replace(worse, series_instance_uid="worse")
    first, second = choose([worse, better], ("t2",))
    assert (first.role, second.role) == (None, "t2")
    assert second.reason.endswith(f"; chosen of 2: {why}")
    assert first.reason.endswith(f"; not chosen, another is better: {why}")


def test_like_series_of_different_protocols_are_ambiguous_whenever_they_were_taken() -> None:
    other = replace(THICK, series_instance_uid="2")
    other = replace(other, evidence=replace(other.evidence, description="t2_blade"))
    with pytest.raises(RoleAmbiguousError):
        choose([acquired(1.0, THICK), acquired(2.0, other)], ("t2",))


# -- by hand and by rule --------------------------------------------------------------------------


def test_a_choice_by_hand_comes_before_everything_else() -> None:
    doubtful = candidate("nobody knows", uid="9", slices=5)
    choices = choose([*USUAL, doubtful], ROLES, by_hand={"t2": SeriesKey("9")})
    assert served(choices)["t2"] == "9"
    assert choices[4].reason.endswith("; chosen by hand")
    assert choices[3].role is None


def test_a_series_chosen_by_hand_serves_no_other_role() -> None:
    choices = choose(USUAL, ROLES, by_hand={"t1gd": SeriesKey("t1_se")})
    assert served(choices)["t1gd"] == "t1_se"
    assert "t1" not in served(choices)


def test_a_role_whose_choice_by_hand_is_not_there_stays_empty() -> None:
    choices = choose(USUAL, ROLES, by_hand={"t2": SeriesKey("gone")})
    assert "t2" not in served(choices)


def test_a_choice_by_hand_for_a_role_that_is_not_needed_changes_nothing() -> None:
    by_hand = {"t2": SeriesKey("t1_se")}
    assert choose(USUAL, ("t1",), by_hand=by_hand) == choose(USUAL, ("t1",))


def test_a_rule_of_the_site_comes_before_the_evidence() -> None:
    ruled = replace(USUAL[3], ruling=Ruling(role="t1", rule="our T1"))
    never = replace(USUAL[1], ruling=Ruling(role=None, rule="never"))
    choices = choose([ruled, never], ("t1",))
    assert (choices[0].sequence, choices[0].role, choices[0].score) == ("T1w", "t1", 1.0)
    assert "rule 'our T1' of the site" in choices[0].reason
    assert choices[0].runner_up.startswith("T2w ")
    assert (choices[1].sequence, choices[1].role) == ("other: never used", None)


def test_a_rule_may_give_a_role_that_no_sequence_has() -> None:
    ruled = replace(USUAL[3], ruling=Ruling(role="swi", rule="ours"))
    (choice,) = choose([ruled], ("swi",))
    assert (choice.sequence, choice.role) == ("swi", "swi")


def test_a_rule_that_agrees_leaves_no_runner_up() -> None:
    (choice,) = choose([replace(USUAL[3], ruling=Ruling(role="t2", rule="ours"))], ("t2",))
    assert choice.runner_up == ""


# -- properties -----------------------------------------------------------------------------------

_NAMES = st.sampled_from(
    ["t1_se", "t1_se KM", "t1 pre", "t2_tse", "FLAIR", "DSC perf", "dwi", "mp2rage UNI", "", "MPR"]
)
_PHYSICS = st.sampled_from([NOTHING, T1, T2, FLAIR, MPRAGE])


@st.composite
def _studies(draw: st.DrawFn) -> list[Candidate]:
    return [
        replace(
            acquired(
                draw(st.none() | st.sampled_from([0.0, 10.0, 300.0, 900.0])),
                candidate(draw(_NAMES), draw(_PHYSICS), uid=str(index)),
                agent=draw(st.booleans()),
            ),
            slice_count=draw(st.sampled_from([20, 176])),
        )
        for index in range(draw(st.integers(1, 7)))
    ]


def _outcome(many: list[Candidate]) -> object:
    try:
        return sorted(choose(many, ROLES), key=lambda one: one.series_instance_uid)
    except (RoleAmbiguousError, RoleUncertainError) as error:
        return type(error), sorted(error.evidence.items())


@given(_studies(), st.randoms(use_true_random=False))
def test_the_order_of_the_series_changes_nothing(many: list[Candidate], chance: Random) -> None:
    shuffled = list(many)
    chance.shuffle(shuffled)
    assert _outcome(shuffled) == _outcome(many)


def test_no_series_at_all_gives_no_choice() -> None:
    assert choose([], ROLES) == ()


def test_the_module_offers_what_its_callers_need() -> None:
    assert all(hasattr(sequences, name) for name in sequences.__all__)


def test_a_series_that_a_rule_takes_out_leaves_no_doubt_behind() -> None:
    never = replace(USUAL[0], ruling=Ruling(role=None, rule="never"))
    choices = choose([never, *USUAL[1:]], ROLES)
    assert choices[0].role is None
    assert "flair" not in {choice.role for choice in choices}
