"""A whole node tells what becomes of a study, over real HTTP and SMTP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.mail_server import MailServer
from tests.nodes import RunningNode, push
from tests.phantoms import WrittenStudy
from tests.scripted_peers import HttpPeer, Reply
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.mark.timeout(400)
def test_a_study_that_is_rejected_is_told_by_the_work_role(
    tmp_path: Path, small_study: WrittenStudy
) -> None:
    with HttpPeer(Reply(status=202)) as peer, MailServer() as server:
        notify = (
            "[notify]\nevents = ['case.rejected']\n"
            f"[notify.webhook]\nurl = '{peer.url}'\nsecret = 'sixteen-or-more-characters'\n"
            f"[notify.email]\nhost = '127.0.0.1'\nport = {server.port}\nsecurity = 'none'\n"
            "sender = 'node@example.org'\nrecipients = ['it@example.org']\n"
        )
        with RunningNode(tmp_path / "node", [notify]) as node:
            node.wait_ready()
            push(small_study.files.paths["flair"], node.dicom_port)
            (case,) = node.wait_states("rejected")
            wait_until(lambda: peer.requests and server.messages, 60.0, "both to be told")
    facts = json.loads(peer.requests[0].body)
    assert (facts["event"], facts["case_id"]) == ("case.rejected", case["case_id"])
    assert facts["code"] == case["code"] == "STUDY_SEQUENCE_MISSING"
    assert (len(peer.requests), len(server.messages)) == (1, 1)
    sent = [line for line in node.log_lines() if line["event"] == "notification.sent"]
    assert {line["channel"] for line in sent} == {"webhook", "email"}
