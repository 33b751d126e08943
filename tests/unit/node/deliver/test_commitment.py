"""Storage commitment with archives that answer at once, later, wrongly, twice or never."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from pydicom.dataset import Dataset

from node import owed
from node.cases import CaseState, CommitmentReport
from node.closing import Closer
from node.deliver.receipt import receipt_of
from node.jobs import Jobs
from node.ledger import Ledger
from node.peers import Destination
from node.pipeline import Pipeline
from node.receive.scp import StorageScp
from node.rows import CaseRow
from node.settings import Receive
from node.spool import Spool
from tests.scripted_peers import (
    CommittingPeer,
    Question,
    closed_port,
    dimse_destination,
    dimse_peer,
    report_to,
)
from tests.stages import deliver, delivery_job, encoded_case, parts

NO_SUCH_OBJECT, CONFLICT, NO_RESOURCES, DUPLICATE_TRANSACTION = 0x0112, 0x0119, 0x0213, 0x0131


@pytest.fixture
def row(ledger: Ledger, spool: Spool) -> CaseRow:
    return encoded_case(ledger, spool)


@pytest.fixture
def scp(ledger: Ledger, spool: Spool) -> Iterator[StorageScp]:
    scp = StorageScp(Receive(port=0), spool=spool, ledger=ledger, model_id="demo@1")
    scp.start()
    yield scp
    scp.stop()


def asking(port: int, *, timeout_s: float = 3600.0) -> Destination:
    more = {"commitment": True, "commitment_timeout_s": timeout_s}
    return dimse_destination(port, timeout_s=20.0).model_copy(update=more)


def never(_: Question) -> None:
    """Say nothing."""


def last_code(ledger: Ledger, row: CaseRow) -> str | None:
    return ledger.attempts(row.case_id)[-1].code


def test_a_report_over_the_same_association_ends_the_delivery(
    row: CaseRow, ledger: Ledger, spool: Spool
) -> None:
    statuses: list[int] = []
    with CommittingPeer(lambda asked: statuses.append(asked.report())) as peer:
        assert deliver(parts(spool, ledger, asking(peer.port)), row) is None
    assert statuses == [0]
    assert ledger.case(row.case_id).state is CaseState.DELIVERED
    assert all(one.committed_at for one in ledger.receipts(row.case_id))
    assert peer.questions[0].sop_instance_uids == set(peer.arrivals)
    assert set(peer.arrivals.values()) == {1}


def test_a_report_over_another_association_is_taken_by_the_receive_role(
    row: CaseRow, ledger: Ledger, spool: Spool, scp: StorageScp
) -> None:
    statuses: list[int] = []

    def answer(asked: Question) -> None:
        statuses.append(report_to(scp.port, asked.information()))

    with CommittingPeer(answer) as peer:
        assert deliver(parts(spool, ledger, asking(peer.port)), row) is None
    assert statuses == [0]
    assert ledger.case(row.case_id).state is CaseState.DELIVERED


def test_a_report_that_comes_when_nobody_waits_any_more_is_kept_and_acted_upon(
    row: CaseRow, ledger: Ledger, spool: Spool, scp: StorageScp
) -> None:
    all_parts = parts(spool, ledger, asking(1))
    with CommittingPeer(never) as peer:
        all_parts = parts(spool, ledger, asking(peer.port))
        waiting = deliver(all_parts, row)
    assert waiting is not None
    assert (waiting.attempt, waiting.delay_s) == (2, 3600.0)
    assert ledger.case(row.case_id).state is CaseState.ENCODED
    (standing,) = owed.standings(row, ledger, all_parts.settings.destinations)
    assert (standing.state, standing.stored_count, standing.committed_count) == ("committing", 2, 0)
    assert standing.next_at is not None
    assert report_to(scp.port, peer.questions[0].information()) == 0
    (answered,) = ledger.answered_commitments()
    assert answered.failures == {}
    assert Pipeline(all_parts).perform(waiting) == []
    assert ledger.case(row.case_id).state is CaseState.DELIVERED
    (standing,) = owed.standings(ledger.case(row.case_id), ledger, all_parts.settings.destinations)
    assert (standing.state, standing.committed_count) == ("committed", 2)


def test_the_ticker_finds_a_report_and_ends_the_case_or_has_the_next_attempt_made_now(
    row: CaseRow, ledger: Ledger, spool: Spool, scp: StorageScp, jobs: Jobs
) -> None:
    with CommittingPeer(never) as peer:
        all_parts = parts(spool, ledger, asking(peer.port))
        deliver(all_parts, row)
        deliver(all_parts, row)  # begun again: asked anew
    early, late = peer.questions
    closer = Closer(all_parts, jobs)
    lost = ledger.results(row.case_id)[0].sop_instance_uid
    report_to(scp.port, early.information({lost: NO_SUCH_OBJECT}))
    closer.tend()
    assert ledger.answered_commitments() == []  # it hastens once what a later question repeats
    report_to(scp.port, late.information({lost: NO_RESOURCES}))
    closer.tend()
    assert len(ledger.answered_commitments()) == 1  # until the next attempt draws the conclusion
    deliver(all_parts, row, 2)
    assert ledger.answered_commitments() == []
    assert last_code(ledger, row) == "COMMITMENT_FAILED"
    with CommittingPeer(lambda asked: asked.report()) as peer:
        deliver(parts(spool, ledger, asking(peer.port)), row, 3)
    assert peer.arrivals == {lost: 1}  # its receipt was withdrawn by the first report
    assert ledger.case(row.case_id).state is CaseState.DELIVERED


def test_the_ticker_ends_a_case_that_is_committed(
    row: CaseRow, ledger: Ledger, spool: Spool, scp: StorageScp, jobs: Jobs
) -> None:
    with CommittingPeer(never) as peer:
        all_parts = parts(spool, ledger, asking(peer.port))
        deliver(all_parts, row)
    report_to(scp.port, peer.questions[0].information())
    Closer(all_parts, jobs).tend()
    assert ledger.case(row.case_id).state is CaseState.DELIVERED
    assert ledger.answered_commitments() == []


def test_a_peer_that_proposes_no_role_may_report_too(
    row: CaseRow, ledger: Ledger, spool: Spool, scp: StorageScp
) -> None:
    with CommittingPeer(never) as peer:
        deliver(parts(spool, ledger, asking(peer.port)), row)
    assert report_to(scp.port, peer.questions[0].information(), selects_role=False) == 0
    assert all(one.committed_at for one in ledger.receipts(row.case_id))


def test_an_object_that_the_archive_lacks_is_stored_again_and_asked_for_alone(
    row: CaseRow, ledger: Ledger, spool: Spool
) -> None:
    lost, kept = (one.sop_instance_uid for one in ledger.results(row.case_id))

    def answer(asked: Question) -> None:
        asked.report({lost: NO_SUCH_OBJECT} if peer.arrivals[lost] == 1 else None)

    with CommittingPeer(answer) as peer:
        all_parts = parts(spool, ledger, asking(peer.port))
        again = deliver(all_parts, row)
        assert again is not None
        assert again.delay_s == 1.0  # back-off as for any delivery
        assert last_code(ledger, row) == "COMMITMENT_FAILED"
        assert [one.sop_instance_uid for one in ledger.receipts(row.case_id)] == [kept]
        assert deliver(all_parts, row, again.attempt) is None
    assert peer.arrivals == {lost: 2, kept: 1}
    assert [one.sop_instance_uids for one in peer.questions] == [{lost, kept}, {lost}]
    assert len({one.transaction_uid for one in peer.questions}) == 2
    assert ledger.case(row.case_id).state is CaseState.DELIVERED


@pytest.mark.parametrize("reason", [NO_RESOURCES, DUPLICATE_TRANSACTION])
def test_a_passing_failure_is_asked_again_without_storing_again(
    row: CaseRow, ledger: Ledger, spool: Spool, reason: int
) -> None:
    failed = ledger.results(row.case_id)[0].sop_instance_uid

    def answer(asked: Question) -> None:
        asked.report({failed: reason} if len(peer.questions) == 1 else None)

    with CommittingPeer(answer) as peer:
        all_parts = parts(spool, ledger, asking(peer.port))
        again = deliver(all_parts, row)
        assert again is not None
        assert deliver(all_parts, row, again.attempt) is None
    assert set(peer.arrivals.values()) == {1}
    assert peer.questions[1].sop_instance_uids == {failed}


def test_a_final_failure_ends_the_delivery_with_its_reason_and_a_retry_asks_anew(
    row: CaseRow, ledger: Ledger, spool: Spool
) -> None:
    failed = ledger.results(row.case_id)[0].sop_instance_uid

    def answer(asked: Question) -> None:
        asked.report({failed: CONFLICT} if len(peer.questions) == 1 else None)

    with CommittingPeer(answer) as peer:
        all_parts = parts(spool, ledger, asking(peer.port))
        assert deliver(all_parts, row) is None
        ended = ledger.case(row.case_id)
        assert (ended.state, ended.code) == (CaseState.FAILED, "COMMITMENT_REFUSED")
        assert "0x0119" in str(ended.sentence)
        (standing,) = owed.standings(ended, ledger, all_parts.settings.destinations)
        assert (standing.state, standing.code) == ("failed", "COMMITMENT_REFUSED")
        ledger.reopen(row.case_id)
        Pipeline(all_parts).perform(replace(delivery_job(row), run=2))
    assert ledger.case(row.case_id).state is CaseState.DELIVERED


def test_an_object_that_the_report_leaves_out_has_failed(
    row: CaseRow, ledger: Ledger, spool: Spool, scp: StorageScp
) -> None:
    left_out = ledger.results(row.case_id)[0].sop_instance_uid
    with CommittingPeer(never) as peer:
        deliver(parts(spool, ledger, asking(peer.port)), row)
    information = peer.questions[0].information(left_out=[left_out])
    assert report_to(scp.port, information) == 0
    (answered,) = ledger.answered_commitments()
    assert answered.failures == {left_out: 0x0110}


def test_an_archive_that_never_answers_is_asked_again_with_another_transaction_then_given_up(
    row: CaseRow, ledger: Ledger, spool: Spool, scp: StorageScp
) -> None:
    with CommittingPeer(never) as peer:
        patient = parts(spool, ledger, asking(peer.port))
        all_parts = parts(spool, ledger, asking(peer.port, timeout_s=0.1))
        following = deliver(patient, row)
        codes = [last_code(ledger, row)]
        while following is not None:
            following = deliver(all_parts, row, following.attempt)
            codes.append(last_code(ledger, row))
    assert codes == [None, "COMMITMENT_MISSING", "COMMITMENT_MISSING"]  # three attempts in all
    assert len({one.transaction_uid for one in peer.questions}) == len(peer.questions) == 2
    ended = ledger.case(row.case_id)
    assert (ended.state, ended.code) == (CaseState.FAILED, "COMMITMENT_MISSING")
    assert set(peer.arrivals.values()) == {1}

    # An answer that is later than any patience still counts: nothing is asked or sent again.
    assert report_to(scp.port, peer.questions[0].information()) == 0
    assert owed.is_served(row.case_id, ledger, all_parts.settings.destinations[0])


def test_a_report_that_comes_twice_is_answered_twice_and_counts_once(
    row: CaseRow, ledger: Ledger, spool: Spool, scp: StorageScp
) -> None:
    first, second = (one.sop_instance_uid for one in ledger.results(row.case_id))
    with CommittingPeer(never) as peer:
        deliver(parts(spool, ledger, asking(peer.port)), row)
    information = peer.questions[0].information()
    assert [report_to(scp.port, information) for _ in range(2)] == [0, 0]
    before = ledger.receipts(row.case_id)
    contrary = peer.questions[0].information({first: NO_SUCH_OBJECT, second: NO_SUCH_OBJECT})
    assert report_to(scp.port, contrary) == 0
    assert ledger.receipts(row.case_id) == before


def test_reports_that_nobody_asked_for_change_nothing(
    row: CaseRow, ledger: Ledger, spool: Spool, scp: StorageScp
) -> None:
    with CommittingPeer(never) as peer:
        deliver(parts(spool, ledger, asking(peer.port)), row)
    genuine = peer.questions[0]
    unknown = replace(genuine, transaction_uid="2.25.999").information()
    assert report_to(scp.port, unknown) == 0x0115
    assert report_to(scp.port, Dataset()) in (0x0115, -1)
    assert report_to(scp.port, genuine.information(), ae_title="STRANGER") == 0x0124
    assert ledger.answered_commitments() == []
    assert not any(one.committed_at for one in ledger.receipts(row.case_id))


def test_a_destination_without_storage_commitment_is_named(
    row: CaseRow, ledger: Ledger, spool: Spool
) -> None:
    with dimse_peer(lambda _: 0) as port:
        assert deliver(parts(spool, ledger, asking(port)), row) is None
    ended = ledger.case(row.case_id)
    assert (ended.state, ended.code) == (CaseState.FAILED, "COMMITMENT_REFUSED")
    assert "context rejected" in str(ended.sentence)


@pytest.mark.parametrize(
    ("status", "code"), [(0x0110, "COMMITMENT_REFUSED"), (NO_RESOURCES, "PEER_UNAVAILABLE")]
)
def test_a_question_that_is_refused_is_read_by_its_status(
    row: CaseRow, ledger: Ledger, spool: Spool, status: int, code: str
) -> None:
    with CommittingPeer(never, status=status) as peer:
        deliver(parts(spool, ledger, asking(peer.port)), row)
    assert last_code(ledger, row) == code


def test_an_archive_that_went_away_after_storing_is_asked_later_and_not_sent_to_again(
    row: CaseRow, ledger: Ledger, spool: Spool
) -> None:
    with CommittingPeer(lambda asked: asked.association.abort()) as peer:
        all_parts = parts(spool, ledger, asking(peer.port))
        assert deliver(all_parts, row) is not None
    assert deliver(parts(spool, ledger, asking(closed_port())), row, 2) is not None
    assert last_code(ledger, row) == "PEER_UNAVAILABLE"
    with CommittingPeer(lambda asked: asked.report()) as late:
        assert deliver(parts(spool, ledger, asking(late.port)), row, 3) is None
    assert not late.arrivals
    assert ledger.case(row.case_id).state is CaseState.DELIVERED


def test_a_question_that_a_crash_cut_off_is_asked_anew(
    row: CaseRow, ledger: Ledger, spool: Spool
) -> None:
    class CrashError(BaseException):
        pass

    def crash(boundary: str) -> None:
        if boundary == "deliver:asking":
            raise CrashError

    with CommittingPeer(lambda asked: asked.report()) as peer:
        all_parts = parts(spool, ledger, asking(peer.port))
        with pytest.raises(CrashError):
            deliver(replace(all_parts, boundary=crash), row)
        assert peer.questions == []
        assert deliver(all_parts, row) is None
    assert set(peer.arrivals.values()) == {1}
    assert ledger.case(row.case_id).state is CaseState.DELIVERED


def test_a_destination_that_is_not_asked_waits_for_no_other(
    row: CaseRow, ledger: Ledger, spool: Spool
) -> None:
    with CommittingPeer(never) as silent, dimse_peer(lambda _: 0xB007) as plain_port:
        plain = dimse_destination(plain_port).model_copy(update={"name": "plain"})
        all_parts = parts(spool, ledger, asking(silent.port), plain)
        Pipeline(all_parts).perform(replace(delivery_job(row), destination="plain"))
        deliver(all_parts, row)
    found = owed.standings(ledger.case(row.case_id), ledger, all_parts.settings.destinations)
    assert [(one.destination, one.state) for one in found] == [
        ("pacs", "committing"),
        ("plain", "stored"),
    ]
    receipts = [one for one in ledger.receipts(row.case_id) if one.destination == "plain"]
    assert {one.status_code for one in receipts} == {"0xB007"}


def test_a_clock_that_was_set_back_before_the_question_keeps_no_lost_object(
    row: CaseRow, ledger: Ledger
) -> None:
    """A receipt of an hour to come is still one from before the question."""
    lost = ledger.results(row.case_id)[0]
    there = receipt_of(lost, asking(1), "0x0000", 1)
    ledger.save_receipt(replace(there, delivered_at=there.delivered_at + timedelta(hours=2)))
    question = ledger.begin_commitment(
        row.case_id, "pacs", [lost.sop_instance_uid], ae_title="PACS"
    )
    report = CommitmentReport(
        transaction_uid=question,
        committed=frozenset(),
        failures={lost.sop_instance_uid: NO_SUCH_OBJECT},
    )
    ledger.save_report(report, ae_title="PACS")
    assert ledger.receipts(row.case_id) == []
