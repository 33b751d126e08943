"""What happens to a case is told over real channels: once where it is taken, again where not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from email import message_from_bytes, policy
from typing import Any

import pytest
from pydicom import dcmread

from node import logs
from node.cases import CaseState, Stage
from node.jobs import Job
from node.ledger import Ledger
from node.notify.notifier import Notifier
from node.outbox import Outbox, Told
from node.peers import Notify
from node.pipeline import Pipeline
from node.spool import Spool
from tests import ledgers, stages
from tests.mail_server import MailServer
from tests.phantoms import WrittenStudy
from tests.scripted_peers import HttpPeer, Reply, closed_port, tcp_peer
from tests.waiting import wait_until

SECRET = "a-secret-that-nobody-may-log"
_IDENTIFYING = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    "SeriesDescription",
    "AccessionNumber",
    "StudyID",
)


@pytest.fixture
def mails() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


def notify(url: str = "", mail_port: int = 0, **more: object) -> Notify:
    values: dict[str, object] = {"first_delay_s": 0.0, **more}
    if url:
        values["webhook"] = {"url": url, "secret": SECRET, "timeout_s": 1.0}
    if mail_port:
        own = {"host": "127.0.0.1", "port": mail_port, "security": "none", "timeout_s": 5.0}
        values["email"] = {**own, "sender": "node@example.org", "recipients": ["it@example.org"]}
    return Notify.model_validate_json(json.dumps(values))


def told(ledger: Ledger, asked: Notify) -> int:
    """Send what is due; return how many attempts that took, at most three a channel."""
    notifier = Notifier(Outbox(ledger.engine), asked)
    notifier.route()
    return sum(notifier.look(name) for name in notifier.channels for _ in range(3))


def standing(ledger: Ledger) -> Told:
    (one,) = Outbox(ledger.engine).recent(10)
    return one


def test_a_case_that_fails_is_told_over_every_channel_once(
    ledger: Ledger, mails: MailServer
) -> None:
    row = ledgers.opened(ledger)
    ledger.end_case(row.case_id, ledgers.FAILED)
    with HttpPeer(Reply()) as peer:
        both = notify(peer.url, mails.port, page_url="https://node.example.org")
        assert [told(ledger, both) for _ in range(2)] == [2, 0]
    (request,), (mail,) = peer.requests, mails.messages
    facts = json.loads(request.body)
    assert (facts["event"], facts["case_id"]) == ("case.failed", row.case_id)
    assert facts["link"] in message_from_bytes(mail, policy=policy.default).get_content()
    assert facts["id"] in str(message_from_bytes(mail)["Message-ID"])


def test_many_failures_at_once_are_one_notice_that_counts_them(
    ledger: Ledger, mails: MailServer
) -> None:
    for number in range(1, 61):
        row = ledgers.opened(ledger, f"{number}.1", study=str(number))
        ledger.end_case(row.case_id, ledgers.FAILED)
    with HttpPeer(Reply()) as peer:
        assert told(ledger, notify(peer.url, mails.port)) == 2
    (request,), (mail,) = peer.requests, mails.messages
    facts = json.loads(request.body)
    assert (facts["event"], facts["count"]) == ("case.failed", 60)
    text = message_from_bytes(mail, policy=policy.default)
    assert str(text["Subject"]).endswith("UNFORESEEN 60 cases")
    assert "count: 60" in text.get_content()


def test_a_delivery_given_up_and_a_held_result_are_told_by_the_pipeline(
    ledger: Ledger, spool: Spool
) -> None:
    row = stages.encoded_case(ledger, spool)
    parts = stages.parts(spool, ledger, stages.at(closed_port()))
    for attempt in (1, 2, 3):
        stages.deliver(parts, row, attempt)
    ledgers.held(ledger, ledgers.opened(ledger, "2.1.1", study="2"))
    with HttpPeer(Reply()) as peer:
        told(ledger, notify(peer.url))
    facts = [json.loads(one.body) for one in peer.requests]
    assert [(one["event"], one["code"], one.get("destination")) for one in facts] == [
        ("delivery.failed", "PEER_UNAVAILABLE", "pacs"),
        ("case.held", "RESULT_HELD", None),
    ]


def test_a_receiver_that_comes_back_gets_the_very_same_notice(ledger: Ledger) -> None:
    ledger.end_case(ledgers.opened(ledger).case_id, ledgers.FAILED)
    waits: dict[str, Any] = {"first_delay_s": 0.0, "longest_delay_s": 0.001}
    redirect = Reply(status=307, headers={"Location": f"http://127.0.0.1:{closed_port()}/"})
    with HttpPeer(Reply(status=500)) as broken, HttpPeer(redirect) as moved:
        for url in (f"http://127.0.0.1:{closed_port()}/", broken.url, moved.url):
            assert Notifier(Outbox(ledger.engine), notify(url, **waits)).channels == ("webhook",)
            assert told(ledger, notify(url, **waits)) > 0
    with tcp_peer(lambda _: None) as silent:
        notifier = Notifier(Outbox(ledger.engine), notify(f"http://127.0.0.1:{silent}/", **waits))
        assert notifier.look("webhook")
    assert "no answer within 1 s" in str(standing(ledger).sentence)
    with HttpPeer(Reply()) as peer:
        assert told(ledger, notify(peer.url, **waits)) == 1
    ids = {json.loads(one.body)["id"] for one in (*broken.requests, *moved.requests)}
    assert ids == {json.loads(peer.requests[0].body)["id"]}
    assert len(peer.requests) == 1
    assert standing(ledger).sent_at is not None


def test_waits_grow_until_they_come_to_the_deadline_and_then_it_is_said_in_the_log(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(strict=True)
    ledger.end_case(ledgers.opened(ledger).case_id, ledgers.FAILED)
    waits: dict[str, Any] = {"first_delay_s": 0.01, "longest_delay_s": 0.04, "deadline_s": 0.12}
    url = f"http://127.0.0.1:{closed_port()}/{SECRET}"
    notifier = Notifier(Outbox(ledger.engine), notify(url, **waits))
    notifier.route()
    wait_until(lambda: notifier.look("webhook") and standing(ledger).given_up_at, 30.0, "the end")
    assert standing(ledger).attempt_count == 5
    output = capsys.readouterr().out
    lines = [json.loads(line) for line in output.splitlines()]
    assert [line.get("delay_s") for line in lines] == [0.01, 0.02, 0.04, 0.04, None]
    assert lines[-1]["event"] == "notification.given_up"
    assert lines[-1]["code"] == "NOTIFY_FAILED"
    assert SECRET not in output


def test_only_what_is_asked_for_is_told(ledger: Ledger) -> None:
    ledger.end_case(ledgers.opened(ledger).case_id, ledgers.REJECTED)
    ledger.end_case(ledgers.opened(ledger, "2.1.1", study="2").case_id, ledgers.FAILED)
    with HttpPeer(Reply()) as peer:
        told(ledger, notify(peer.url, events=["case.rejected"]))
    assert [json.loads(one.body)["code"] for one in peer.requests] == ["GEOM_MISSING_SLICE"]


def test_nothing_of_the_patient_is_told(
    ledger: Ledger, spool: Spool, mails: MailServer, small_study: WrittenStudy
) -> None:
    paths = [path for many in small_study.files.paths.values() for path in many]
    stages.take_in(paths, spool, ledger)
    row = stages.close(spool, ledger)
    lost = ledger.study_instances(row.study_instance_uid)[0]
    spool.instance_path(lost.path).unlink()
    pipeline = Pipeline(stages.parts(spool, ledger))
    pipeline.perform(Job(case_id=row.case_id, run=row.run, stage=Stage.CONVERT))
    assert ledger.case(row.case_id).state is CaseState.FAILED
    with HttpPeer(Reply()) as peer:
        assert told(ledger, notify(peer.url, mails.port, page_url="http://node.test")) == 2
    sent = [str(one.headers) + one.body.decode() for one in peer.requests]
    sent += [one.decode() for one in mails.messages] + mails.lines
    secrets = {
        part
        for path in paths
        for keyword in _IDENTIFYING
        for part in str(dcmread(path, stop_before_pixels=True).get(keyword, "")).split("^")
        if len(part) > 3
    }
    assert len(secrets) > 100
    assert [one for one in secrets if any(one in text for text in sent)] == []
