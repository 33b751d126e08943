"""Kill -9 between a notice that was taken and the note of it: told again, under the same id."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from node.ledger import Ledger
from tests import ledgers
from tests.nodes import ROOT
from tests.scripted_peers import HttpPeer, Reply

pytestmark = pytest.mark.faults


def _run(folder: Path, url: str, lease_s: float, *more: str) -> int:
    ledger_url = f"sqlite:///{folder}/ledger.sqlite"
    command = [sys.executable, "-m", "tests.faults.notifying", ledger_url, url, str(lease_s)]
    return subprocess.run([*command, *more], cwd=ROOT, check=False, timeout=120).returncode


def test_a_process_that_dies_between_sending_and_noting_it_loses_and_doubles_nothing(
    tmp_path: Path, ledger: Ledger
) -> None:
    for study in ("1", "2"):
        row = ledgers.opened(ledger, f"{study}.1.1", study=study)
        ledger.end_case(row.case_id, ledgers.FAILED)
    with HttpPeer(Reply()) as peer:
        assert _run(tmp_path, peer.url, 0.0, "crash") == -signal.SIGKILL
        assert len(peer.requests) == 1
        assert _run(tmp_path, peer.url, 0.0) == 0
        ids = [json.loads(one.body)["id"] for one in peer.requests]
        assert len(ids) == 3
        assert ids[1] == ids[0]
        assert len(set(ids)) == 2
        assert _run(tmp_path, peer.url, 0.0) == 0  # what was noted is never told again
    assert len(peer.requests) == 3


def test_what_a_dead_process_had_taken_is_left_to_it_for_a_while(
    tmp_path: Path, ledger: Ledger
) -> None:
    ledger.end_case(ledgers.opened(ledger).case_id, ledgers.FAILED)
    with HttpPeer(Reply()) as peer:
        assert _run(tmp_path, peer.url, 300.0, "crash") == -signal.SIGKILL
        assert _run(tmp_path, peer.url, 300.0) == 0
    assert len(peer.requests) == 1
