"""A peer that comes too often is told so, and others come in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import peers
from tests.doors import Door, Peer
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


def test_an_address_that_asks_too_often_is_rejected_for_now(tmp_path: Path) -> None:
    peers.require("dcmtk")
    with Door(tmp_path, associations_per_minute=2) as door:
        asked = [peers.echoscu(port=door.port) for _ in range(3)]
    assert [one.returncode == 0 for one in asked] == [True, True, False]
    assert "Temporary Congestion" in asked[2].stderr
    assert door.scp.refused == {"ASSOCIATION_RATE": 1}


def test_an_address_has_so_many_associations_at_the_same_time(tmp_path: Path) -> None:
    peers.require("dcmtk")
    with Door(tmp_path, max_associations_per_address=1) as door:
        with Peer(door.port):
            refused = peers.echoscu(port=door.port)
        assert "Local Limit Exceeded" in refused.stderr
        wait_until(
            lambda: peers.echoscu(port=door.port).returncode == 0, 10, "the other to be gone"
        )
