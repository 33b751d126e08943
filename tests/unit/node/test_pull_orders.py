"""Pulls in the ledger: one process has each, and none is lost with a process."""

from __future__ import annotations

from datetime import timedelta

import pytest

from node.door_errors import PullBusyError, PullUnknownError
from node.ledger import Ledger
from node.pull_orders import PullOrders, PullState, Tally


def test_the_one_that_was_asked_for_first_is_taken_first(ledger: Ledger) -> None:
    orders = PullOrders(ledger.engine)
    for study in ("1.9", "1.1", "1.5"):
        orders.want(study, "source")
    taken = [orders.take(f"work-{number}") for number in range(4)]
    assert [one and one.study_instance_uid for one in taken] == ["1.9", "1.1", "1.5", None]
    assert not orders.has_due("work-9")


def test_what_a_dead_process_had_is_taken_and_it_may_change_nothing(ledger: Ledger) -> None:
    orders = PullOrders(ledger.engine, timeout_s=0.0)
    orders.want("1.1", "source")
    lost = orders.take("work-1")
    taken = orders.take("work-2")
    assert lost is not None
    assert taken is not None
    assert not orders.beat(lost)
    assert not orders.finish(lost, Tally())
    assert orders.beat(taken, Tally(images_here=3))
    assert orders.row("1.1").tally.images_here == 3


def test_a_process_takes_up_what_it_had_before_it_died(ledger: Ledger) -> None:
    orders = PullOrders(ledger.engine)
    orders.want("1.1", "source")
    assert orders.take("work") is not None
    again = orders.take("work")
    assert again is not None
    assert again.tries == 2


def test_what_is_put_off_is_due_later_and_what_is_asked_for_anew_now(ledger: Ledger) -> None:
    orders = PullOrders(ledger.engine)
    orders.want("1.1", "source")
    row = orders.take("work")
    assert row is not None
    assert orders.put_off(row, 60.0, code="PEER_UNAVAILABLE", sentence="away", advice="wait")
    assert orders.row("1.1").code == "PEER_UNAVAILABLE"
    assert not orders.has_due("work")
    orders.want("1.1", "source")
    assert orders.has_due("work")
    assert orders.row("1.1").code is None


def test_what_is_put_back_counts_as_not_tried(ledger: Ledger) -> None:
    orders = PullOrders(ledger.engine)
    orders.want("1.1", "source")
    row = orders.take("work")
    assert row is not None
    assert orders.put_back(row)
    assert (orders.row("1.1").state, orders.row("1.1").tries) == (PullState.WANTED, 0)


def test_a_study_is_claimed_unless_a_living_process_has_it(ledger: Ledger) -> None:
    orders = PullOrders(ledger.engine)
    first = orders.claim("1.1", "source", "here")
    assert first.state is PullState.RUNNING
    with pytest.raises(PullBusyError):
        orders.claim("1.1", "source", "there")
    assert PullOrders(ledger.engine, timeout_s=0.0).claim("1.1", "source", "there").tries == 1
    assert not orders.beat(first)
    with pytest.raises(PullUnknownError):
        orders.row("1.2")


def test_a_plan_holds_until_more_comes_by_another_door(ledger: Ledger) -> None:
    orders = PullOrders(ledger.engine)
    orders.want("1.1", "source")
    row = orders.take("work")
    assert row is not None
    later = row.asked_at + timedelta(days=1)
    assert row.holds(later)  # it goes on
    orders.finish(row, Tally())
    done = orders.row("1.1")
    assert done.ended_at is not None
    assert done.holds(done.ended_at)
    assert not done.holds(later)
    orders.want("1.1", "source")
    again = orders.take("work")
    assert again is not None
    orders.fail(again, code="PEER_REFUSED", sentence="no", advice="look")
    assert not orders.row("1.1").holds(row.asked_at)
