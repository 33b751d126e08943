"""New studies of an archive are pulled once, when they have stopped growing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import ValidationError

from node import logs
from node.ledger import Ledger
from node.peers import Source
from node.pull_orders import PullOrders, PullState
from node.settings import Settings
from node.watching import Watching
from tests import ledgers
from tests.scripted_peers import HttpPeer, Reply

_HEADERS = {"Content-Type": "application/dicom+json"}


class Archive:
    """Answers which studies there are; the clock of who watches it goes by hand."""

    def __init__(self) -> None:
        self.studies: dict[str, tuple[int, str]] = {}
        self.status = 200
        self.now = 0.0

    def reply(self, _: str) -> Reply:
        """Return the list."""
        found = [_told(uid, *one) for uid, one in self.studies.items()]
        return Reply(status=self.status, body=json.dumps(found).encode(), headers=_HEADERS)

    def clock(self) -> float:
        """Return the time."""
        return self.now


def _told(uid: str, count: int, description: str) -> dict[str, Any]:
    return {
        "0020000D": {"vr": "UI", "Value": [uid]},
        "00201208": {"vr": "IS", "Value": [count]},
        "00081030": {"vr": "LO", "Value": [description]},
    }


@pytest.fixture
def archive() -> Archive:
    return Archive()


@pytest.fixture
def peer(archive: Archive) -> Iterator[HttpPeer]:
    with HttpPeer(archive.reply) as peer:
        yield peer


def _watching(archive: Archive, peer: HttpPeer, ledger: Ledger) -> Watching:
    watch = {"enabled": True, "description": "brain|kopf", "since_days": 1, "settle_s": 60.0}
    source = {"transport": "qido", "url": peer.url, "watch": watch}
    return Watching(Settings.model_validate({"source": source}), ledger, clock=archive.clock)


def _wanted(ledger: Ledger, *studies: str) -> list[bool]:
    return [PullOrders(ledger.engine).find(one) is not None for one in studies]


def test_a_study_is_wanted_once_it_has_stopped_growing(
    archive: Archive, peer: HttpPeer, ledger: Ledger
) -> None:
    watching = _watching(archive, peer, ledger)
    archive.studies = {"1.1": (10, "MR Brain"), "1.2": (99, "MR knee"), "no uid": (5, "brain")}
    for now, count, is_wanted in ((0, 10, False), (59, 20, False), (118, 20, False)):
        archive.now, archive.studies["1.1"] = now, (count, "MR Brain")
        watching.look()
        assert _wanted(ledger, "1.1", "1.2") == [is_wanted, False]
    archive.now = 119
    watching.look()
    assert _wanted(ledger, "1.1", "1.2", "no uid") == [True, False, False]
    asked = parse_qs(urlsplit(peer.requests[0].path).query)
    assert asked["ModalitiesInStudy"] == ["MR"]
    assert asked["StudyDate"][0].endswith("-")


def test_what_was_pulled_or_sent_is_never_pulled_by_itself(
    archive: Archive, peer: HttpPeer, ledger: Ledger
) -> None:
    orders = PullOrders(ledger.engine)
    orders.want("1.1", "source")
    row = orders.take("work")
    assert row is not None
    orders.fail(row, code="PEER_REFUSED", sentence="no", advice="look")
    ledgers.opened(ledger, study="1.2")
    archive.studies = {"1.1": (10, "Brain"), "1.2": (10, "Brain"), "1.3": (10, "Kopf nativ")}
    for watching in (_watching(archive, peer, ledger), _watching(archive, peer, ledger)):
        for _ in range(2):  # each as after a restart
            watching.look()
            archive.now += 60
    assert _wanted(ledger, "1.1", "1.2", "1.3") == [True, False, True]
    assert orders.row("1.1").state is PullState.FAILED
    assert not orders.want_once("1.3", "source")


def test_an_archive_that_is_away_is_warned_about_once(
    archive: Archive, peer: HttpPeer, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(strict=True)  # anew, to write where this test reads
    watching = _watching(archive, peer, ledger)
    archive.studies = {"1.1": (10, "Brain")}
    for status in (503, 503, 200, 200):
        archive.status = status
        watching.look()
        archive.now += 60
    assert capsys.readouterr().out.count("watch.failed") == 1
    assert _wanted(ledger, "1.1") == [True]


@pytest.mark.parametrize(
    "values",
    [
        {"transport": "none", "watch": {"enabled": True}},
        {"transport": "qido", "url": "http://h/d", "watch": {"description": "("}},
    ],
)
def test_a_watch_that_cannot_be_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Source.model_validate(values)
