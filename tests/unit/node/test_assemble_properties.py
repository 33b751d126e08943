"""What holds for every study, however it came: the order, the splitting, the clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from converters.sequences import SeriesKey
from node.assemble import (
    Close,
    Decision,
    Expectation,
    OpenCase,
    Refuse,
    Rules,
    SeriesFacts,
    Wait,
    is_worth_asking,
)
from node.cases import ClosedBy, SeriesCount
from node.facts import by_series
from tests.study_facts import FAULT, ROLES, RULES, START, STUDY, counted, seen, series, uid_of


@st.composite
def studies(draw: st.DrawFn) -> list[SeriesFacts]:
    """Return up to two series for each role, each whole or not, in any order."""
    wanted = draw(st.lists(st.sampled_from([(role, n) for role in ROLES for n in (0, 1)])))
    facts = [
        series(
            role,
            repeat=repeat,
            slices=draw(st.sampled_from([20, 30])),
            fault=draw(st.sampled_from([None, None, FAULT])),
        )
        for role, repeat in sorted(set(wanted))
    ]
    return draw(st.permutations(facts))


rules = st.builds(
    lambda missing, action: replace(RULES, may_be_missing=missing, deadline_action=action),
    st.frozensets(st.sampled_from(ROLES), max_size=4),
    st.sampled_from(["process", "refuse"]),
)
by_hand = st.dictionaries(
    st.sampled_from(ROLES),
    st.builds(
        lambda role, repeat: SeriesKey(uid_of(role, repeat=repeat)),
        st.sampled_from(ROLES),
        st.integers(0, 2),
    ),
    max_size=2,
).filter(lambda chosen: len(set(chosen.values())) == len(chosen))
counts = st.dictionaries(
    st.builds(lambda role, repeat: uid_of(role, repeat=repeat), st.sampled_from(ROLES), st.just(0)),
    st.builds(SeriesCount, modality=st.just("MR"), instance_count=st.sampled_from([0, 20, 40])),
)
expectations = st.one_of(
    st.just(Expectation()),
    st.just(Expectation(is_asked=True, is_pending=True)),
    st.builds(lambda series: Expectation(is_asked=True, series=series), counts),
)
moments = st.fixed_dictionaries(
    {
        "silence_s": st.sampled_from([0.0, 2.9, 3.0, 14.9, 15.0, 59.0, 60.0, 90.0]),
        "age_s": st.sampled_from([100.0, 3599.0, 3600.0, 9000.0]),
        "released_s": st.sampled_from([None, -1.0, 0.0, 1.0]),
        "is_forced": st.booleans(),
        "by_hand": by_hand,
        "rules": rules,
        "expected": expectations,
    }
)


@given(facts=studies(), moment=moments, data=st.data())
def test_the_order_of_the_series_changes_nothing(
    facts: list[SeriesFacts], moment: dict[str, Any], data: st.DataObject
) -> None:
    other = data.draw(st.permutations(facts))
    assert plain(seen(other, **moment)) == plain(seen(facts, **moment))


@given(facts=studies(), data=st.data())
def test_the_order_of_the_instances_changes_nothing(
    facts: list[SeriesFacts], data: st.DataObject
) -> None:
    instances = [one for many in facts for one in many.instances]
    shuffled = data.draw(st.permutations(instances))
    assert list(by_series(shuffled).items()) == list(by_series(instances).items())


@given(facts=studies(), moment=moments, later_s=st.sampled_from([0.1, 1.0, 60.0, 4000.0]))
def test_a_case_that_is_due_stays_due(
    facts: list[SeriesFacts], moment: dict[str, Any], later_s: float
) -> None:
    first = seen(facts, **moment)
    moment["silence_s"] += later_s
    moment["age_s"] += later_s
    second = seen(facts, **moment)
    if not isinstance(first, Wait):
        assert not isinstance(second, Wait)
    if isinstance(first, Close):
        assert isinstance(second, Close)
        assert second.case.series == first.case.series


@given(facts=studies(), moment=moments, later_s=st.sampled_from([0.1, 1.0, 10.0, 60.0, 4000.0]))
def test_between_the_moments_that_count_the_answer_stays_the_same(
    facts: list[SeriesFacts], moment: dict[str, Any], later_s: float
) -> None:
    first = seen(facts, **moment)
    asked_at = START + timedelta(seconds=moment["age_s"])
    case = OpenCase(
        case_id="c" * 32,
        study_instance_uid=STUDY,
        opened_at=START,
        last_received_at=asked_at - timedelta(seconds=moment["silence_s"]),
    )
    now = asked_at + timedelta(seconds=later_s)
    if isinstance(first, Wait) and not is_worth_asking(case, moment["rules"], now, asked_at):
        moment["silence_s"] += later_s
        moment["age_s"] += later_s
        assert seen(facts, **moment) == first


@given(facts=studies(), moment=moments)
def test_no_case_is_closed_without_what_the_model_needs(
    facts: list[SeriesFacts], moment: dict[str, Any]
) -> None:
    decision = seen(facts, **moment)
    wanted: Rules = moment["rules"]
    if not isinstance(decision, Close):
        return
    filled = {one.role for one in decision.case.series}
    broken = {one.key for one in facts if one.fault is not None}
    assert filled
    assert set(wanted.roles) - filled <= wanted.may_be_missing
    assert decision.case.reference_role in filled
    assert not broken & {(one.series_instance_uid, one.part) for one in decision.case.series}
    assert filled == {one.role for one in decision.decisions if one.role is not None}
    if decision.case.closed_by is ClosedBy.COMPLETE:
        assert filled == set(wanted.roles)
        assert moment["silence_s"] >= wanted.settle_s
    elif decision.case.closed_by is ClosedBy.QUIET:
        assert moment["silence_s"] >= wanted.released_quiet_s


@given(facts=studies(), moment=moments)
def test_every_case_ends_at_the_deadline_or_by_the_operator(
    facts: list[SeriesFacts], moment: dict[str, Any]
) -> None:
    decision = seen(facts, **moment)
    if moment["is_forced"] or moment["age_s"] >= RULES.deadline_s:
        assert not isinstance(decision, Wait)
    assert len(decision.decisions) == len(facts)
    if isinstance(decision, Wait):
        assert decision.reason


@given(facts=studies(), moment=moments)
def test_each_series_serves_one_role_and_each_role_has_one_series(
    facts: list[SeriesFacts], moment: dict[str, Any]
) -> None:
    decision = seen(facts, **moment)
    roles = [one.role for one in decision.decisions if one.role is not None]
    assert len(roles) == len(set(roles))
    keys = [(one.series_instance_uid, one.part) for one in decision.decisions]
    assert len(keys) == len(set(keys))


@given(facts=studies(), moment=moments)
def test_images_that_lack_are_waited_for_until_the_deadline(
    facts: list[SeriesFacts], moment: dict[str, Any]
) -> None:
    if not facts:
        return
    first = facts[0].series_instance_uid
    whole = counted(facts)
    more = {**whole.series, first: SeriesCount(modality="MR", instance_count=99)}
    moment.update(is_forced=False, age_s=3599.0, expected=replace(whole, series=more))
    assert isinstance(seen(facts, **moment), Wait)


def plain(decision: Decision) -> object:
    """Return a decision as something that can be compared: errors are not."""
    if isinstance(decision, Refuse):
        return decision.error.code, str(decision.error), decision.decisions
    return decision
