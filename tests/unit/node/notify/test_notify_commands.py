"""`neuroseg notify` and the doctor try the channels; the list says how each stands."""

from __future__ import annotations

import json
import re
from pathlib import Path

from click.testing import CliRunner, Result

from node import doctor
from node.__main__ import main
from node.doctor import Finding
from node.ledger import Ledger
from node.notify.notifier import Notifier
from node.outbox import Outbox
from node.peers import Notify
from node.settings import Settings
from tests import ledgers
from tests.mail_server import MailServer
from tests.scripted_peers import HttpPeer, Reply, closed_port

SECRET = "sixteen-or-more-characters"


def _run(folder: Path, *arguments: str, notify: str = "") -> Result:
    config = folder / "node.toml"
    config.write_text(f"[spool]\npath = '{folder}'\n{notify}", encoding="utf-8")
    command = ["notify", "--config", str(config), *arguments]
    return CliRunner().invoke(main, command, catch_exceptions=False)


def _hook(url: str) -> str:
    return f"[notify.webhook]\nurl = '{url}'\nsecret = '{SECRET}'\n"


def _mail(port: int) -> str:
    return (
        f"[notify.email]\nhost = '127.0.0.1'\nport = {port}\nsecurity = 'none'\n"
        "sender = 'node@example.org'\nrecipients = ['it@example.org']\n"
    )


def test_a_test_goes_over_every_channel_without_a_case(tmp_path: Path) -> None:
    with HttpPeer(Reply()) as peer, MailServer() as server:
        result = _run(tmp_path, "test", notify=_hook(peer.url) + _mail(server.port))
    assert (result.exit_code, result.output) == (0, "webhook: taken\nemail: taken\n")
    facts = json.loads(peer.requests[0].body)
    assert facts["event"] == "test"
    assert "case_id" not in facts
    assert b"This is a test." in server.messages[0]


def test_a_channel_that_does_not_work_is_said_with_what_to_do(tmp_path: Path) -> None:
    result = _run(tmp_path, "test", notify=_hook(f"http://127.0.0.1:{closed_port()}/"))
    assert result.exit_code == 1
    assert "webhook: NOTIFY_FAILED" in result.output
    assert "Check [notify]" in result.output
    assert SECRET not in result.output


def test_without_a_channel_there_is_nothing_to_try(tmp_path: Path) -> None:
    result = _run(tmp_path, "test")
    assert result.exit_code == 2
    assert "no channel is configured" in result.output


def test_what_was_told_is_listed(tmp_path: Path, ledger: Ledger) -> None:
    for study, ending in (("1", ledgers.FAILED), ("2", ledgers.REJECTED)):
        row = ledgers.opened(ledger, f"{study}.1.1", study=study)
        ledger.end_case(row.case_id, ending)
    asked = {"url": f"http://127.0.0.1:{closed_port()}/", "secret": SECRET}
    notifier = Notifier(Outbox(ledger.engine), Notify.model_validate({"webhook": asked}))
    notifier.route()
    notifier.look("webhook")
    heads, *lines = _run(tmp_path, "list").output.splitlines()
    assert heads.split() == ["happened", "event", "code", "case", "told"]
    assert len(lines) == 2
    assert re.search(r"case\.rejected +GEOM_MISSING_SLICE", lines[0])
    assert lines[0].endswith("nobody is told")
    assert re.search(r"case\.failed +UNFORESEEN", lines[1])
    assert "webhook: waits after 1 attempts (webhook did not take" in lines[1]
    told = json.loads(_run(tmp_path, "list", "--json").output)
    assert [one["notice"]["code"] for one in told] == ["GEOM_MISSING_SLICE", "UNFORESEEN"]


def _finding(name: str, notify: dict[str, object]) -> Finding:
    settings = Settings.model_validate({"notify": notify})
    (found,) = [one for one in doctor._notify(settings.notify) if one.name == name]
    return found


def test_the_doctor_connects_and_sends_nothing() -> None:
    assert _finding("notify", {}).ok
    with HttpPeer(Reply()) as peer, MailServer() as server:
        hook = {"url": peer.url, "secret": SECRET}
        mail = {"host": "127.0.0.1", "port": server.port, "security": "none"}
        mail |= {"sender": "node@example.org", "recipients": ("it@example.org",)}
        assert _finding("notify webhook", {"webhook": hook}).ok
        assert _finding("notify email", {"email": mail}).ok
    assert (peer.requests, server.messages) == ([], [])
    away = _finding("notify webhook", {"webhook": hook})
    assert not away.ok
    assert away.advice
    assert not _finding("notify email", {"email": mail}).ok
