"""What people are told is recorded with what happened, and taken by each channel once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import sqlalchemy as sa

from node import tables
from node.cases import CaseState, Event, Stage
from node.ledger import Ledger
from node.outbox import Outbox, Sending
from node.rows import CaseRow
from tests.ledgers import CANCELLED, FAILED, REJECTED, advanced, encoded, held, opened

CHANNELS = ("webhook", "email")
_NO_ROOM = {
    "sqlite": [
        "CREATE TRIGGER broken BEFORE INSERT ON notification BEGIN SELECT RAISE(ABORT, 'no'); END"
    ],
    "postgresql": [
        "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$",
        "CREATE TRIGGER broken BEFORE INSERT ON notification EXECUTE FUNCTION broken()",
    ],
}
pytestmark = pytest.mark.databases
LEASE_S, LONGEST_S = 300.0, 3600.0


@pytest.fixture
def outbox(ledger: Ledger) -> Outbox:
    return Outbox(ledger.engine)


def _take(outbox: Outbox, channel: str = "webhook", lease_s: float = LEASE_S) -> Sending | None:
    return outbox.take(channel, lease_s=lease_s, longest_s=LONGEST_S)


def _events(outbox: Outbox) -> list[tuple[str, str | None, str | None]]:
    told = {one.notice.notification_id: one.notice for one in outbox.recent(100)}
    return sorted((one.event, one.code, one.destination) for one in told.values())


def _give_up(ledger: Ledger, row: CaseRow, destination: str, begun: CaseRow | None = None) -> None:
    attempt_id = ledger.begin_attempt(row.case_id, Stage.DELIVER, destination)
    ledger.give_up(begun or row, attempt_id, replace(FAILED, code="PEER_REFUSED"))


def _fail_open(ledger: Ledger) -> None:
    ledger.end_case(opened(ledger).case_id, FAILED)


def _reject_open(ledger: Ledger) -> None:
    ledger.refuse_open_case(opened(ledger).case_id, REJECTED, [], seen_instances=1)


def _hold(ledger: Ledger) -> None:
    held(ledger, opened(ledger))


def _lose(ledger: Ledger) -> None:
    row = advanced(ledger, opened(ledger), CaseState.ENCODED)
    ledger.lose_results({row.case_id: 1})


def _cancel(ledger: Ledger) -> None:
    ledger.end_case(opened(ledger).case_id, CANCELLED)


# -- what is recorded -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("happen", "expected"),
    [
        (_fail_open, [("case.failed", "UNFORESEEN", None)]),
        (_reject_open, [("case.rejected", "GEOM_MISSING_SLICE", None)]),
        (_hold, [("case.held", "RESULT_HELD", None)]),
        (_lose, [("case.failed", "SPOOL_RESULT_LOST", None)]),
        (_cancel, []),
    ],
)
def test_what_happens_to_a_case_is_recorded(
    ledger: Ledger,
    outbox: Outbox,
    happen: Callable[[Ledger], None],
    expected: list[tuple[str, str, str | None]],
) -> None:
    happen(ledger)
    assert _events(outbox) == expected


def test_every_delivery_that_is_given_up_is_told_once_and_not_the_case_beside_it(
    ledger: Ledger, outbox: Outbox
) -> None:
    row = advanced(ledger, opened(ledger), CaseState.ENCODED)
    for destination in ("pacs", "share", "pacs"):
        _give_up(ledger, row, destination)
    expected = [("delivery.failed", "PEER_REFUSED", name) for name in ("pacs", "share")]
    assert _events(outbox) == expected
    assert ledger.case(row.case_id).state is CaseState.FAILED
    again = ledger.reopen(row.case_id)
    _give_up(ledger, again, "pacs")  # in another run it is news again
    assert len(_events(outbox)) == 3


def test_one_that_was_taken_over_ends_no_case_that_another_works_on(
    ledger: Ledger, outbox: Outbox
) -> None:
    row = advanced(ledger, opened(ledger), CaseState.ASSEMBLED)
    sleeper, other = (ledger.begin_attempt(row.case_id, Stage.SEGMENT) for _ in range(2))
    ledger.give_up(row, sleeper, FAILED)
    assert ledger.case(row.case_id).state is CaseState.ASSEMBLED
    assert _events(outbox) == []
    ledger.give_up(row, other, FAILED)
    assert ledger.case(row.case_id).state is CaseState.FAILED


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_a_stage_given_up_for_a_case_that_has_moved_on_says_nothing(
    ledger: Ledger, outbox: Outbox, *, is_cancelled: bool
) -> None:
    row = advanced(ledger, opened(ledger), CaseState.ENCODED)
    ledger.end_case(row.case_id, CANCELLED)
    if not is_cancelled:
        ledger.reopen(row.case_id)
    stands = ledger.case(row.case_id)
    _give_up(ledger, row, "pacs")
    assert ledger.case(row.case_id) == stands
    assert _events(outbox) == []
    assert [one.outcome for one in ledger.attempts(row.case_id)] == ["failed"]


def test_a_repeated_end_and_a_repeated_result_are_no_news(ledger: Ledger, outbox: Outbox) -> None:
    failed = opened(ledger)
    for _ in range(2):
        ledger.end_case(failed.case_id, FAILED)
    row = opened(ledger, "2.1.1", study="2")
    held(ledger, row)
    ledger.save_result(encoded(row), summary={"notes": []}, held_for=["INPUT_MISSING"])
    assert [event for event, *_ in _events(outbox)] == ["case.failed", "case.held"]


@pytest.mark.parametrize("happen", [_fail_open, _reject_open, _hold])
def test_what_cannot_be_recorded_has_not_happened(
    ledger: Ledger, outbox: Outbox, happen: Callable[[Ledger], None]
) -> None:
    """Event and state are one transaction: no crash comes between them."""
    with ledger.engine.begin() as connection:
        for statement in _NO_ROOM[ledger.engine.dialect.name]:
            connection.execute(sa.text(statement))
    with pytest.raises(sa.exc.DBAPIError):
        happen(ledger)
    (row,) = ledger.cases()
    assert row.state in (CaseState.RECEIVING, CaseState.SEGMENTED)
    assert _events(outbox) == []


# -- who is told ----------------------------------------------------------------------------------


def test_each_channel_takes_a_notice_once(ledger: Ledger, outbox: Outbox) -> None:
    _fail_open(ledger)
    assert outbox.route(CHANNELS, list(Event)) == 1
    assert outbox.route(CHANNELS, list(Event)) == 0
    for channel in CHANNELS:
        sending = _take(outbox, channel)
        assert sending is not None
        assert (sending.notice.code, sending.attempt) == ("UNFORESEEN", 1)
        outbox.note_sent(sending)
        assert _take(outbox, channel) is None
    assert all(one.sent_at for one in outbox.recent(10))


def test_nobody_is_told_of_what_happened_before_there_was_a_channel_or_is_not_asked_for(
    ledger: Ledger, outbox: Outbox
) -> None:
    _fail_open(ledger)
    outbox.route((), list(Event))
    row = opened(ledger, "2.1.1", study="2")
    ledger.refuse_open_case(row.case_id, REJECTED, [], seen_instances=1)
    outbox.route(CHANNELS, [Event.CASE_FAILED])
    outbox.route(CHANNELS, list(Event))
    assert _take(outbox) is None
    assert [one.channel for one in outbox.recent(10)] == [None, None]


def test_an_outage_is_told_once_and_then_counted(ledger: Ledger, outbox: Outbox) -> None:
    def fail(number: int) -> str:
        row = opened(ledger, f"{number}.1", study=str(number))
        ledger.end_case(row.case_id, FAILED)
        return row.case_id

    def route() -> int:
        return outbox.route(CHANNELS, list(Event), digest_s=300.0)

    def pass_by(seconds: float) -> None:
        with ledger.engine.begin() as connection:
            moment = tables.notification.c.routed_at
            connection.execute(tables.notification.update().values(routed_at=moment - seconds))

    first = fail(1)
    assert route() == 1
    later = [fail(number) for number in range(2, 32)]
    row = advanced(ledger, opened(ledger, "99.1", study="99"), CaseState.ENCODED)
    _give_up(ledger, row, "pacs")
    assert route() == 1  # another kind waits for nobody
    pass_by(150.0)
    assert route() == 0
    pass_by(150.0)
    assert route() == len(later)
    assert route() == 0
    for channel in CHANNELS:
        notices = [one.notice for _ in range(4) if (one := _take(outbox, channel)) is not None]
        assert sorted((one.event, one.count) for one in notices) == [
            ("case.failed", 1),
            ("case.failed", len(later)),
            ("delivery.failed", 1),
        ]
        told = {one.count: one.case_id for one in notices if one.event == "case.failed"}
        assert (told[1], told[len(later)]) == (first, later[0])
    assert len(outbox.recent(100)) == 3 * len(CHANNELS)


def test_a_notice_that_is_tried_again_counts_what_it_did(ledger: Ledger, outbox: Outbox) -> None:
    for number in (1, 2, 3):
        row = opened(ledger, f"{number}.1", study=str(number))
        ledger.end_case(row.case_id, FAILED)
    outbox.route(["webhook"], list(Event), digest_s=300.0)
    for number in (4, 5):
        row = opened(ledger, f"{number}.1", study=str(number))
        ledger.end_case(row.case_id, FAILED)
    outbox.route(["webhook"], list(Event), digest_s=300.0)
    first = _take(outbox)
    assert first is not None
    outbox.note_failed(first, "no answer", wait_s=0.0)
    again = _take(outbox)
    assert again is not None
    assert again.notice == first.notice
    assert again.notice.count == 3
    outbox.note_sent(again)
    assert _take(outbox) is None


def test_what_waits_for_a_channel_that_was_taken_away_is_given_up(
    ledger: Ledger, outbox: Outbox
) -> None:
    _fail_open(ledger)
    outbox.route(CHANNELS, list(Event))
    outbox.route(["email"], list(Event))
    outbox.route(CHANNELS, list(Event))
    assert _take(outbox, "webhook") is None
    assert _take(outbox, "email") is not None


def test_what_was_taken_is_left_alone_until_its_lease_ends(ledger: Ledger, outbox: Outbox) -> None:
    _fail_open(ledger)
    outbox.route(CHANNELS, list(Event))
    first = _take(outbox, lease_s=0.0)
    second = _take(outbox)
    assert first is not None
    assert second is not None
    assert second.notice == first.notice
    assert second.attempt == 2
    assert _take(outbox) is None
    outbox.note_sent(first)  # the first one was slow, and it was taken after all
    outbox.note_failed(second, "refused", wait_s=0.0)
    assert _take(outbox) is None


def test_a_failure_waits_and_in_the_end_is_given_up(ledger: Ledger, outbox: Outbox) -> None:
    _fail_open(ledger)
    outbox.route(["webhook"], list(Event))
    for wait_s, waited_s in ((0.0, 0.0), (60.0, 0.0)):
        sending = _take(outbox)
        assert sending is not None
        assert sending.waited_s == waited_s
        outbox.note_failed(sending, "refused", wait_s=wait_s)
    assert _take(outbox) is None
    _shift(ledger, -60.0)
    sending = _take(outbox)
    assert sending is not None
    assert (sending.attempt, sending.waited_s) == (3, 60.0)
    outbox.note_failed(sending, "refused", wait_s=None)
    _shift(ledger, -(10.0**6))
    assert _take(outbox) is None
    (told,) = outbox.recent(10)
    assert (told.sent_at, told.sentence) == (None, "refused")
    assert told.given_up_at is not None


def _shift(ledger: Ledger, by_s: float) -> None:
    """Do to what waits what a clock does that is set by so much the other way."""
    column = tables.notification_send.c.next_at
    with ledger.engine.begin() as connection:
        connection.execute(tables.notification_send.update().values(next_at=column + by_s))


@pytest.mark.parametrize("hours", [3, 48, 24 * 365])
def test_a_clock_that_is_set_back_makes_no_notice_wait_for_it(
    ledger: Ledger, outbox: Outbox, hours: int
) -> None:
    _fail_open(ledger)
    outbox.route(["webhook"], list(Event))
    sending = _take(outbox)
    assert sending is not None
    outbox.note_failed(sending, "refused", wait_s=LONGEST_S)
    assert _take(outbox) is None
    _shift(ledger, hours * 3600.0)
    again = _take(outbox)
    assert again is not None
    assert again.waited_s == LONGEST_S  # the deadline counts waits, no clock
