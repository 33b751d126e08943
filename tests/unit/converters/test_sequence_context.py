"""What the series of a study say about each other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from converters.errors import RoleUncertainError
from converters.sequences import (
    ACCEPTANCE_SCORE,
    Physics,
    choose,
    judge,
)
from tests.sequence_examples import (
    FLAIR,
    MPRAGE,
    ROLES,
    T1,
    T2,
    acquired,
    candidate,
    served,
)


def test_reconstructions_of_one_acquisition_are_no_pair() -> None:
    both = [
        acquired(at_s, candidate("t1_se", T1, uid=uid), agent=True)
        for uid, at_s in (("1", 1.0), ("2", 2.0))
    ]
    assert [one.found.sequence for one in judge(both)] == ["T1gd", "T1gd"]


def test_what_is_acquired_after_a_series_with_agent_has_it_too() -> None:
    early = acquired(50.0, candidate("t1_se", T1, uid="first"))
    named = acquired(100.0, candidate("t1_mprage post", MPRAGE, uid="post"))
    late = acquired(900.0, candidate("t1_fl2d", T1, uid="plain"))
    found = [one.found for one in judge([early, named, late])]
    assert [one.sequence for one in found] == ["T1w", "T1gd", "T1gd"]
    assert "acquired before every series with contrast agent" in found[0].reason
    assert "acquired after a series with contrast agent" in found[2].reason


def test_times_of_different_days_tell_nothing() -> None:
    named = acquired(100.0, candidate("t1_se post", T1, uid="post"))
    other_day = acquired(1e7, candidate("t1_mprage", MPRAGE, uid="plain"))
    assert [one.found.sequence for one in judge([named, other_day])] == ["T1gd", "T1gd"]
    assert judge([named, other_day])[1].found.score < ACCEPTANCE_SCORE


def test_a_perfusion_brings_its_agent_with_it() -> None:
    many = [
        acquired(10.0, candidate("t1_se", T1, uid="1")),
        acquired(300.0, candidate("DSC perfusion")),
        acquired(900.0, candidate("t1_mprage", MPRAGE, uid="2")),
    ]
    assert served(choose(many, ROLES)) == {"t1": "1", "t1gd": "2"}


def test_an_agent_that_only_some_series_mention_tells_them_apart() -> None:
    many = [
        acquired(10.0, candidate("t1_se", T1, uid="1")),
        acquired(900.0, candidate("t1_mprage", MPRAGE, uid="2"), agent=True),
        acquired(990.0, candidate("t1_fl2d", T1, uid="3")),
    ]
    assert [one.found.sequence for one in judge(many)] == ["T1w", "T1gd", "T1gd"]


def test_a_mention_that_every_series_carries_is_none() -> None:
    plain = [candidate(name, T2, uid=name) for name in ("t2 with contrast", "dwi contrast")]
    many = [*plain, candidate("t1_se with contrast", T1), candidate("t1_tse contrast pre", T1)]
    assert [one.found.sequence for one in judge(many)][2:] == ["T1w", "T1w"]
    agents = [acquired(float(at), one, agent=True) for at, one in enumerate([*plain, many[2]])]
    assert judge(agents)[2].found.sequence == "T1w"


def test_of_series_that_all_mention_an_agent_only_the_order_tells() -> None:
    plain = [
        acquired(float(index), candidate(name, T2, uid=name), agent=True)
        for index, name in enumerate(("t2", "t2 cor"))
    ]
    first = acquired(100.0, candidate("t1_se", T1), agent=True)
    later = acquired(900.0, candidate("t1_mprage", MPRAGE), agent=True)
    (alone,) = judge([*plain, first])[2:]
    assert "every series mentions a contrast agent alike" in alone.found.reason
    assert alone.found.score < ACCEPTANCE_SCORE
    early, late = judge([*plain, first, later])[2:]
    assert (early.found.sequence, late.found.sequence) == ("T1w", "T1gd")
    assert late.found.score < ACCEPTANCE_SCORE < early.found.score


def test_an_order_is_asked_for_where_the_names_say_before() -> None:
    early = acquired(100.0, candidate("t1_se pre", T1, uid="pre", slices=30))
    late = acquired(900.0, candidate("t1_se", T1, uid="plain"))
    with pytest.raises(RoleUncertainError):
        choose([early, late], ROLES)


def test_in_a_tumour_protocol_a_second_t1_is_most_likely_after_the_agent() -> None:
    many = [
        acquired(0.0, candidate("t2_tse", T2)),
        acquired(200.0, candidate("t1_se", T1)),
        acquired(400.0, candidate("t2 flair", FLAIR)),
        acquired(900.0, candidate("t1_mprage", MPRAGE)),
    ]
    found = judge(many)[3].found
    assert found.sequence == "T1gd"
    assert found.score < ACCEPTANCE_SCORE


def test_one_flip_angle_after_the_other_is_a_map_in_the_making() -> None:
    vibe = Physics(repetition_time_ms=5.0, echo_time_ms=2.0, flip_angle_deg=5.0, scanning=("GR",))
    many = [candidate("3D", replace(vibe, flip_angle_deg=flip)) for flip in (5.0, 30.0)]
    assert {one.found.sequence for one in judge(many)} == {"other: parameter map"}


def test_a_series_computed_from_another_one_serves_no_role() -> None:
    original = candidate("t1_mprage", MPRAGE, uid="1")
    original = replace(
        original, evidence=replace(original.evidence, image_type=("ORIGINAL", "PRIMARY"))
    )
    derived = replace(
        original,
        series_instance_uid="2",
        evidence=replace(original.evidence, image_type=("DERIVED", "SECONDARY")),
    )
    assert judge([original, derived])[1].found.sequence == "other: reformat"
    assert judge([derived])[0].found.sequence == "T1w"


def test_slices_that_cover_part_of_a_brain_serve_no_role() -> None:
    thin = candidate("t2_tse", T2)
    thin = replace(thin, evidence=replace(thin.evidence, slice_step_mm=3.0))
    (found,) = judge([thin])
    assert found.found.sequence == "other: part of the brain"
    assert "the slices cover 60 mm" in found.found.reason
    assert judge([replace(thin, slice_count=0)])[0].found.sequence == "T2w"
    assert judge([replace(thin, is_whole=False)])[0].found.sequence == "T2w"


def test_flow_maps_of_labelled_spins_are_no_bolus() -> None:
    asl = Physics(repetition_time_ms=4800.0, echo_time_ms=10.5, scanning=("RM",))
    before = acquired(300.0, candidate("t1_se", T1, uid="pre"))
    post = acquired(600.0, candidate("t1_se +C", T1, uid="post"))
    labelled = [acquired(100.0, candidate(name, asl)) for name in ("3D ASL", "CBF")]
    found = judge([*labelled, before, post])[2].found
    assert (found.sequence, found.score) == ("T1w", 0.97)
    bolus = [acquired(100.0, candidate("DSC perfusion", Physics()))]
    assert judge([*bolus, before])[1].found.sequence == "T1gd"


def test_a_repeat_before_the_named_one_is_before_the_agent_too() -> None:
    first = acquired(0.0, candidate("t1_se", T1, uid="1"))
    again = acquired(200.0, candidate("t1_se", T1, uid="2"))
    post = acquired(900.0, candidate("t1_se post", T1))
    assert [one.found.sequence for one in judge([first, again, post])] == ["T1w", "T1w", "T1gd"]
    elsewhere = acquired(900.0, candidate("t1_mprage post", MPRAGE))
    doubtful = judge([first, again, elsewhere])[1].found
    assert doubtful.score < ACCEPTANCE_SCORE
    between = acquired(100.0, candidate("t2_tse", T2))
    assert judge([first, between, again, elsewhere])[2].found.sequence == "T1gd"


def test_what_is_named_a_repeat_may_be_one() -> None:
    many = [
        acquired(float(at_s), candidate(name, MPRAGE))
        for at_s, name in ((0, "MP-RAGE"), (400, "MP-RAGE REPEAT"))
    ]
    assert [one.found.sequence for one in judge(many)] == ["T1w", "T1w"]
    assert all(one.found.score >= ACCEPTANCE_SCORE for one in judge(many))


def test_an_agent_that_is_named_from_the_first_acquisition_on_says_nothing() -> None:
    many = [
        acquired(0.0, candidate("localizer"), agent=True),
        acquired(100.0, candidate("t1_tfe", MPRAGE), agent=True),
        acquired(400.0, candidate("t2_tse", T2), agent=True),
        acquired(900.0, candidate("t1_se gd", T1), agent=True),
        acquired(990.0, candidate("svs_press")),
    ]
    assert judge(many)[1].found.sequence == "T1w"


def test_a_second_pass_with_an_agent_is_no_first_of_its_protocol() -> None:
    plain = [acquired(50.0, candidate("t2", T2)), acquired(90.0, candidate("dwi"))]
    times = ((0.0, False), (900.0, True), (1800.0, True))
    weighted = [
        acquired(at_s, candidate("t1_se", T1, uid=str(at_s)), agent=agent) for at_s, agent in times
    ]
    found = [one.found.sequence for one in judge([*plain, *weighted])][2:]
    assert found == ["T1w", "T1gd", "T1gd"]


def test_a_t1_after_a_t2_that_names_an_agent_is_doubtful() -> None:
    many = [
        acquired(0.0, candidate("t2_tse", T2)),
        acquired(50.0, candidate("dwi")),
        acquired(100.0, candidate("flair", FLAIR), agent=True),
        acquired(300.0, candidate("t1_se", T1)),
    ]
    found = judge(many)[3].found
    assert found.score < ACCEPTANCE_SCORE
    assert "elements name an agent" in found.reason


def test_the_only_t1_is_less_certain_where_it_comes_last() -> None:
    t2 = acquired(100.0, candidate("t2_tse", T2))
    early, late = (
        judge([t2, acquired(at_s, candidate("t1_se", T1))])[1].found for at_s in (0.0, 300.0)
    )
    assert early.sequence == late.sequence == "T1w"
    assert ACCEPTANCE_SCORE <= late.score < early.score


def test_a_body_part_that_a_fluid_nulled_series_carries_is_left_over() -> None:
    many = [candidate("AXIAL T1", T1), candidate("COR FLAIR", FLAIR)]
    many = [replace(one, evidence=replace(one.evidence, body_part="TSPINE")) for one in many]
    assert [one.found.sequence for one in judge(many)] == ["T1w", "FLAIR"]
    assert judge(many[:1])[0].found.role is None


@pytest.mark.parametrize(
    ("step_mm", "sequence"),
    [(2.0, "other: hippocampus"), (4.4, "FLAIR"), (None, "other: hippocampus")],
)
def test_slices_along_the_hippocampus_may_cover_the_brain(
    step_mm: float | None, sequence: str
) -> None:
    along = candidate("flair_cor_hippocampus", FLAIR, slices=45)
    along = replace(along, evidence=replace(along.evidence, slice_step_mm=step_mm))
    assert judge([along])[0].found.sequence == sequence


def test_many_echoes_of_one_name_are_for_a_map() -> None:
    spoiled = Physics(repetition_time_ms=40.0, flip_angle_deg=15.0, scanning=("GR",))
    spin = Physics(repetition_time_ms=3000.0, scanning=("SE",))

    def kinds(physics: Physics, *echoes_ms: float) -> set[str]:
        many = [candidate("3d", replace(physics, echo_time_ms=te_ms)) for te_ms in echoes_ms]
        return {one.found.sequence for one in judge(many)}

    assert kinds(spoiled, 4.0, 8.0) == {"other: T2*"}
    assert kinds(spoiled, 1.2, 2.4) == {"T1w"}
    assert kinds(spin, 20.0, 70.0, 120.0) == {"other: parameter map"}
    assert "T2w" in kinds(spin, 20.0, 90.0)


def test_of_several_t1_whose_order_is_not_known_none_is_certain() -> None:
    silent = [candidate(name, T1) for name in ("t1_se tra", "t1_se sag")]
    assert all(one.found.score < ACCEPTANCE_SCORE for one in judge(silent))
    marked = candidate("t1_se cor post", T1)
    assert all(one.found.score >= ACCEPTANCE_SCORE for one in judge([*silent, marked]))


def test_a_wide_series_of_which_nothing_is_known_is_unknown() -> None:
    wide = candidate("", slices=40)
    wide = replace(wide, evidence=replace(wide.evidence, slice_step_mm=4.0, body_part="HEAD"))
    many = [wide, candidate("flair", FLAIR)]
    many[1] = replace(many[1], evidence=replace(many[1].evidence, body_part="HEAD"))
    found = judge(many)
    assert found[0].found.sequence == "other: unknown"
    assert found[1].found.rival == "" or "unknown" in found[1].found.rival
