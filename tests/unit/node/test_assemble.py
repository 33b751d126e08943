"""When a case closes, and with what: decided by facts and a clock reading alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Literal

import pytest

from converters.sequences import SeriesKey
from converters.volume import Role
from node.assemble import (
    Close,
    Expectation,
    OpenCase,
    Refuse,
    SeriesFacts,
    Wait,
    is_worth_asking,
)
from node.cases import ClosedBy, SeriesCount
from tests.study_facts import (
    FAULT,
    ROLES,
    RULES,
    START,
    STUDY,
    WHOLE,
    counted,
    seen,
    series,
    uid_of,
)

UNANSWERED = Expectation(is_asked=True)
WITHOUT_T2 = [one for role, one in zip(ROLES, WHOLE, strict=True) if role != "t2"]
BROKEN_T2 = [series(role, fault=FAULT if role == "t2" else None) for role in ROLES]
TWO_T2 = [*WHOLE, series("t2", repeat=1)]
UNCERTAIN_T2 = [*WITHOUT_T2, series("t2", description="t1_se_tra")]
CAN_LACK_T2 = replace(RULES, may_be_missing=frozenset({"t2"}))


def test_a_whole_study_closes_after_the_settle_time() -> None:
    assert isinstance(seen(WHOLE, silence_s=2.9), Wait)
    decision = seen(WHOLE, silence_s=3.0)
    assert isinstance(decision, Close)
    assert decision.case.closed_by is ClosedBy.COMPLETE
    assert {one.role: one.series_instance_uid for one in decision.case.series} == {
        role: uid_of(role) for role in ROLES
    }
    assert decision.case.reference_role == "t1gd"
    assert {one.role for one in decision.decisions} == set(ROLES)
    assert all(one.reason and one.geometry == "20 slices" for one in decision.decisions)
    assert decision.reason == "flair, t1, t1gd, t2 whole, 3 s without a new instance"


@pytest.mark.parametrize("missing", ROLES)
def test_a_missing_sequence_is_waited_for_and_then_refused(missing: Role) -> None:
    some = [one for role, one in zip(ROLES, WHOLE, strict=True) if role != missing]
    decision = seen(some, silence_s=59.0)
    assert isinstance(decision, Wait)
    assert decision.reason.startswith("STUDY_SEQUENCE_MISSING")
    assert len(decision.decisions) == 3
    decision = seen(some, silence_s=60.0)
    assert isinstance(decision, Refuse)
    assert decision.error.code == "STUDY_SEQUENCE_MISSING"
    assert missing in str(decision.error)
    assert len(decision.decisions) == 3


def test_a_model_with_one_input_that_is_ambiguous_is_refused_with_the_table() -> None:
    rules = replace(RULES, roles=("t2",), reference_role="t2")
    decision = seen(TWO_T2, silence_s=60.0, rules=rules)
    assert isinstance(decision, Refuse)
    assert decision.error.code == "STUDY_SEQUENCE_AMBIGUOUS"
    assert {one.role for one in decision.decisions} == {None}
    assert len(decision.decisions) == 5


def test_all_missing_sequences_are_named_at_once() -> None:
    decision = seen(WHOLE[:2], silence_s=60.0)
    assert isinstance(decision, Refuse)
    assert decision.error.evidence["roles"] == "t1gd, t2"


def test_a_series_with_a_hole_is_waited_for_and_then_refused_with_its_own_code() -> None:
    assert isinstance(seen(BROKEN_T2, silence_s=59.0), Wait)
    decision = seen(BROKEN_T2, silence_s=60.0)
    assert isinstance(decision, Refuse)
    assert decision.error.code == "GEOM_MISSING_SLICE"
    assert str(decision.error).startswith("t2: gap before slice 3 is 8.000 mm")
    (broken,) = [one for one in decision.decisions if not one.is_whole]
    assert (broken.role, broken.code) == ("t2", "GEOM_MISSING_SLICE")


def test_two_equal_series_are_refused_with_a_table_that_shows_both() -> None:
    assert isinstance(seen(TWO_T2, silence_s=59.0), Wait)
    decision = seen(TWO_T2, silence_s=60.0)
    assert isinstance(decision, Refuse)
    assert decision.error.code == "STUDY_SEQUENCE_AMBIGUOUS"
    rivals = [one for one in decision.decisions if one.sequence == "T2w"]
    assert len(rivals) == 2
    assert all("t2: STUDY_SEQUENCE_AMBIGUOUS" in one.reason for one in rivals)
    assert {one.role for one in decision.decisions} == {"flair", "t1", "t1gd", None}


def test_a_series_that_nobody_can_be_sure_of_is_refused_unless_it_is_chosen_by_hand() -> None:
    assert isinstance(seen(UNCERTAIN_T2, silence_s=59.0), Wait)
    decision = seen(UNCERTAIN_T2, silence_s=60.0)
    assert isinstance(decision, Refuse)
    assert decision.error.code == "STUDY_SEQUENCE_UNCERTAIN"
    chosen = seen(UNCERTAIN_T2, silence_s=3.0, by_hand={"t2": SeriesKey(uid_of("t2"))})
    assert isinstance(chosen, Close)


def test_a_study_without_any_image_series_is_refused() -> None:
    decision = seen([], silence_s=61.0)
    assert isinstance(decision, Refuse)
    assert decision.error.code == "STUDY_SEQUENCE_MISSING"
    assert decision.decisions == ()


@pytest.mark.parametrize(
    ("silence_s", "age_s", "is_forced", "is_worth"),
    [
        (2.9, 100.0, False, False),
        (3.0, 100.0, False, True),
        (0.0, 3600.0, False, True),
        (0.0, 0.0, True, True),
    ],
)
def test_a_case_that_can_only_wait_is_not_asked_about(
    *, silence_s: float, age_s: float, is_forced: bool, is_worth: bool
) -> None:
    now = START + timedelta(seconds=age_s)
    case = OpenCase(
        case_id="c" * 32,
        study_instance_uid=STUDY,
        opened_at=START,
        last_received_at=now - timedelta(seconds=silence_s),
        is_forced=is_forced,
    )
    assert is_worth_asking(case, RULES, now) is is_worth


# -- the sender has hung up -----------------------------------------------------------------------


def test_a_sender_that_has_hung_up_shortens_the_quiet_period() -> None:
    assert isinstance(seen(WITHOUT_T2, silence_s=14.9, released_s=0.0), Wait)
    assert isinstance(seen(WITHOUT_T2, silence_s=15.0, released_s=0.0), Refuse)


def test_an_association_that_was_released_before_the_last_instance_says_nothing() -> None:
    assert isinstance(seen(WITHOUT_T2, silence_s=59.0, released_s=-0.1), Wait)


# -- what the PACS counts -------------------------------------------------------------------------


def test_a_whole_study_that_has_all_images_closes_after_the_settle_time() -> None:
    decision = seen(WHOLE, silence_s=3.0, expected=counted(WHOLE))
    assert isinstance(decision, Close)
    assert decision.case.closed_by is ClosedBy.COMPLETE
    assert decision.reason.endswith("as many images as the PACS counts")


def test_a_series_that_lacks_images_is_awaited_until_the_deadline() -> None:
    expected = counted(WHOLE, t2=4, flair=1)
    decision = seen(WHOLE, silence_s=3000.0, age_s=3500.0, expected=expected)
    assert isinstance(decision, Wait)
    assert decision.reason == "5 images of 2 series that the PACS has"
    decision = seen(WHOLE, silence_s=3000.0, age_s=3600.0, expected=expected)
    assert isinstance(decision, Close)
    assert decision.case.closed_by is ClosedBy.DEADLINE
    assert "without 5 images of 2 series" in decision.reason


def test_a_series_that_the_pacs_has_and_we_do_not_is_awaited_for_the_whole_quiet_period() -> None:
    expected = counted(WITHOUT_T2, t2=20)
    for facts in (WITHOUT_T2, WHOLE[:2]):
        assert isinstance(seen(facts, silence_s=59.0, released_s=1.0, expected=expected), Wait)
    decision = seen(WITHOUT_T2, silence_s=60.0, expected=expected)
    assert isinstance(decision, Refuse)
    whole = counted(WHOLE)
    more = {**whole.series, "1.2.3.99": SeriesCount(modality="MR", instance_count=7)}
    expected = replace(whole, series=more)
    decision = seen(WHOLE, silence_s=59.0, expected=expected)
    assert isinstance(decision, Wait)
    assert decision.reason == "1 whole MR series that the PACS has"
    decision = seen(WHOLE, silence_s=60.0, expected=expected)
    assert isinstance(decision, Close)
    assert decision.case.closed_by is ClosedBy.QUIET
    assert decision.reason.endswith("without 1 whole MR series that the PACS has")


@pytest.mark.parametrize("modality", ["SEG", "SR", "PR"])
def test_results_and_reports_in_the_pacs_are_not_awaited(modality: str) -> None:
    whole = counted(WHOLE)
    more = {**whole.series, "1.2.3.99": SeriesCount(modality=modality, instance_count=7)}
    assert isinstance(seen(WHOLE, silence_s=3.0, expected=replace(whole, series=more)), Close)


def test_a_series_without_a_count_is_not_awaited() -> None:
    whole = counted(WHOLE)
    more = {**whole.series, uid_of("t2"): SeriesCount(modality="MR", instance_count=0)}
    assert isinstance(seen(WHOLE, silence_s=3.0, expected=replace(whole, series=more)), Close)


def test_a_study_that_is_all_here_but_not_enough_is_refused_early() -> None:
    expected = counted(WITHOUT_T2)
    assert isinstance(seen(WITHOUT_T2, silence_s=14.9, expected=expected), Wait)
    assert isinstance(seen(WITHOUT_T2, silence_s=15.0, expected=expected), Refuse)


def test_where_the_pacs_does_not_answer_the_quiet_period_decides() -> None:
    decision = seen(WHOLE, silence_s=59.0, expected=UNANSWERED)
    assert isinstance(decision, Wait)
    assert decision.reason == "the PACS to say how many images there are"
    decision = seen(WHOLE, silence_s=60.0, expected=UNANSWERED)
    assert isinstance(decision, Close)
    assert decision.case.closed_by is ClosedBy.QUIET


def test_a_pacs_that_is_being_asked_is_waited_for() -> None:
    pending = replace(UNANSWERED, is_pending=True)
    assert isinstance(seen(WHOLE, silence_s=3000.0, age_s=3500.0, expected=pending), Wait)
    assert isinstance(seen(WHOLE, silence_s=3000.0, age_s=3600.0, expected=pending), Close)


# -- the deadline ---------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["process", "refuse"])
def test_no_case_stays_open_beyond_the_deadline(action: Literal["process", "refuse"]) -> None:
    rules = replace(RULES, deadline_action=action)
    assert isinstance(seen(WHOLE[:2], silence_s=1.0, age_s=3599.9, rules=rules), Wait)
    decision = seen(WHOLE[:2], silence_s=1.0, age_s=3600.0, rules=rules)
    assert isinstance(decision, Refuse)
    wanted = {"process": "STUDY_SEQUENCE_MISSING", "refuse": "CASE_DEADLINE"}
    assert decision.error.code == wanted[action]
    assert "t2" in str(decision.error)


def test_a_deadline_that_refuses_names_the_images_that_lack() -> None:
    rules = replace(RULES, deadline_action="refuse")
    expected = counted(WHOLE, t2=3)
    decision = seen(WHOLE, silence_s=1.0, age_s=3600.0, rules=rules, expected=expected)
    assert isinstance(decision, Refuse)
    assert str(decision.error).endswith("3 images of 1 series that the PACS has")


@pytest.mark.parametrize("action", ["process", "refuse"])
def test_a_whole_study_that_never_falls_silent_is_processed_at_the_deadline(
    action: Literal["process", "refuse"],
) -> None:
    rules = replace(RULES, deadline_action=action)
    decision = seen(WHOLE, silence_s=0.0, age_s=3600.0, rules=rules)
    assert isinstance(decision, Close)
    assert decision.case.closed_by is ClosedBy.DEADLINE
    assert "closed by the deadline" in decision.reason


# -- inputs that the model can do without ---------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (WITHOUT_T2, "STUDY_SEQUENCE_MISSING"),
        (BROKEN_T2, "GEOM_MISSING_SLICE"),
        (TWO_T2, "STUDY_SEQUENCE_AMBIGUOUS"),
        (UNCERTAIN_T2, "STUDY_SEQUENCE_UNCERTAIN"),
    ],
    ids=["missing", "broken", "ambiguous", "uncertain"],
)
def test_an_input_that_may_be_missing_is_left_out_but_never_at_settle(
    facts: list[SeriesFacts], code: str
) -> None:
    assert isinstance(seen(facts, silence_s=59.0, rules=CAN_LACK_T2), Wait)
    decision = seen(facts, silence_s=60.0, rules=CAN_LACK_T2)
    assert isinstance(decision, Close)
    assert decision.case.closed_by is ClosedBy.QUIET
    assert [one.role for one in decision.case.series] == ["flair", "t1", "t1gd"]
    assert f"t2 is left out ({code}" in decision.reason
    assert "t2" not in {one.role for one in decision.decisions}
    assert all(
        code in f"{one.reason} {one.code}" for one in decision.decisions if one.sequence == "T2w"
    )


def test_an_input_that_must_be_there_is_not_left_out_with_one_that_need_not() -> None:
    decision = seen(WHOLE[1:3], silence_s=60.0, rules=CAN_LACK_T2)
    assert isinstance(decision, Refuse)
    assert decision.error.evidence["roles"] == "flair"


def test_a_study_with_no_input_at_all_is_refused_even_where_each_may_be_missing() -> None:
    rules = replace(RULES, may_be_missing=frozenset(ROLES))
    decision = seen([], silence_s=60.0, rules=rules)
    assert isinstance(decision, Refuse)
    assert decision.error.evidence["roles"] == "flair, t1, t1gd, t2"


def test_without_the_reference_the_finest_series_takes_its_place() -> None:
    rules = replace(RULES, may_be_missing=frozenset({"t1gd"}))
    facts = [series("flair", slice_mm=5.0), series("t1"), series("t2", slices=70, slice_mm=2.0)]
    decision = seen(facts, silence_s=60.0, rules=rules)
    assert isinstance(decision, Close)
    assert decision.case.reference_role == "t2"


# -- the operator ---------------------------------------------------------------------------------


def test_an_operator_closes_a_case_at_once() -> None:
    expected = counted(WHOLE, t2=9)
    decision = seen(WHOLE, silence_s=0.0, is_forced=True, expected=expected)
    assert isinstance(decision, Close)
    assert decision.case.closed_by is ClosedBy.OPERATOR
    assert "closed by the operator" in decision.reason


def test_an_operator_cannot_close_a_case_that_the_model_cannot_work_with() -> None:
    decision = seen(WITHOUT_T2, silence_s=0.0, is_forced=True)
    assert isinstance(decision, Refuse)
    assert decision.error.code == "STUDY_SEQUENCE_MISSING"
    assert isinstance(seen(WITHOUT_T2, silence_s=0.0, is_forced=True, rules=CAN_LACK_T2), Close)


def test_a_choice_by_hand_decides_between_equals() -> None:
    for repeat in (0, 1):
        key = SeriesKey(uid_of("t2", repeat=repeat))
        decision = seen(TWO_T2, silence_s=3.0, by_hand={"t2": key})
        assert isinstance(decision, Close)
        chosen = {one.role: one.series_instance_uid for one in decision.case.series}
        assert chosen["t2"] == key.series_instance_uid


def test_a_choice_by_hand_that_is_gone_is_said() -> None:
    by_hand = {"t2": SeriesKey("1.2.3.77"), "pd": SeriesKey("1.2.3.78")}
    decision = seen(WHOLE, silence_s=3.0, by_hand=by_hand)
    assert isinstance(decision, Close)
    assert decision.reason.endswith("the series chosen by hand for t2 is not here")


def test_parts_of_one_series_are_told_apart() -> None:
    parts = [series("t2", part="EchoTime=90"), series("t2", part="EchoTime=20", fault=FAULT)]
    decision = seen([*WITHOUT_T2, *parts], silence_s=3.0)
    assert isinstance(decision, Close)
    (chosen,) = [one for one in decision.case.series if one.role == "t2"]
    assert (chosen.part, len(chosen.instances)) == ("EchoTime=90", 20)
    assert len(decision.decisions) == 5
