"""Kill -9 while instances come by STOW-RS: nothing that was answered with success is lost."""

from __future__ import annotations

import itertools
import subprocess
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import httpx
import pytest

from node.ledger import Ledger
from node.receive import stored
from node.receive.reconcile import Kind, Reconciliation
from node.spool import Spool
from tests.doors import make_instance
from tests.nodes import PLAIN, ROOT, RunningNode
from tests.stow_requests import CONTENT_TYPE, REFERENCED, body, part10, uids
from tests.waiting import wait_until

pytestmark = pytest.mark.faults

_ROUNDS = 3
_A_REQUEST = 4


class _Sender(threading.Thread):
    """Stores instances, some at a time, until the node has gone."""

    def __init__(self, url: str, name: str) -> None:
        super().__init__(name=name)
        self._url = f"{url}/dicom-web/studies"
        self.unanswered: list[bytes] = []
        self.acknowledged: set[str] = set()

    def run(self) -> None:
        for _ in itertools.count():
            files = [part10(make_instance(PixelData=bytes(200_000))) for _ in range(_A_REQUEST)]
            try:
                self.acknowledged |= store(self._url, files)
            except httpx.TransportError:
                self.unanswered = files
                return


def store(url: str, files: list[bytes]) -> set[str]:
    """Return the instances that are said to be stored."""
    answer = httpx.post(
        url,
        content=body(files),
        headers={"content-type": CONTENT_TYPE},
        timeout=30.0,
        trust_env=False,
    ).raise_for_status()
    return set(uids(answer.json(), REFERENCED))


def _have_stored(senders: Sequence[_Sender], wanted: int) -> bool:
    return sum(len(one.acknowledged) for one in senders) > wanted


def _web(node: RunningNode) -> subprocess.Popen[bytes]:
    with node.log_path.open("ab") as log:
        process = subprocess.Popen(
            [*PLAIN, "serve", "--role", "web", "--config", str(node.config)],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    wait_until(lambda: _is_up(node), 90.0, "the web role")
    return process


def _is_up(node: RunningNode) -> bool:
    try:
        return node.get("/livez").is_success
    except httpx.TransportError:
        return False


@pytest.mark.timeout(400)
def test_kills_in_the_middle_of_requests_lose_nothing_acknowledged(tmp_path: Path) -> None:
    node = RunningNode(tmp_path / "node")
    acknowledged: set[str] = set()
    rest: list[list[bytes]] = []
    for number in range(_ROUNDS):
        web = _web(node)
        senders = [_Sender(node.url, f"sender-{at}") for at in range(3)]
        for sender in senders:
            sender.start()
        wait_until(
            partial(_have_stored, senders, 3 * (number + 1)),
            60.0,
            "instances to be stored",
        )
        web.kill()
        web.wait(10)
        for sender in senders:
            sender.join(60.0)
            acknowledged |= sender.acknowledged
        rest = [sender.unanswered for sender in senders if sender.unanswered]
    web = _web(node)
    again = [store(f"{node.url}/dicom-web/studies", files) for files in rest]
    web.terminate()
    assert web.wait(60) == 0
    acknowledged = acknowledged.union(*again)
    spool, ledger = Spool(node.spool), Ledger(f"sqlite:///{node.spool}/ledger.sqlite")
    assert list((node.spool / "incoming").iterdir()) == []
    found = Reconciliation(spool, ledger, model_id="x@1", limit_bytes=2**30, is_deep=True).run()
    assert {one.kind for one in found} <= {Kind.ADOPTED, Kind.DOUBLE}
    rows = {one.sop_instance_uid: one for one in ledger.instance_files()}
    assert acknowledged <= rows.keys()
    for one in rows.values():
        assert stored.digest(spool.instance_path(one.path)) == one.sha256
    assert len(list((node.spool / "instances").rglob("*.dcm"))) == len(rows)
    ledger.close()
