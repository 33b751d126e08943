"""The power goes while studies come in: whatever was answered with success is on the disk.

The receiver runs alone here, as `neuroseg serve --role receive`; whole nodes whose power is cut
again and again are part of `make faults`. What the disk is like stands in `tests/faults/power_cut`.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults import power_cut
from tests.faults.load import Load, lost
from tests.faults.power_cut import FragileDisk
from tests.nodes import RunningNode
from tests.small_studies import SmallStudies
from tests.waiting import wait_until

pytestmark = pytest.mark.faults

_MOST = 5000  # instances; more than are ever sent here


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return power_cut.library(tmp_path_factory.mktemp("shim"))


def _cut_in_mid_study(
    folder: Path, disk: FragileDisk, studies: SmallStudies, *, first: int, after: int
) -> Load:
    """Start a receiver, send until so many instances were accepted, and cut the power."""
    node = RunningNode(folder, role="receive", environment=disk.environment)
    load = Load(studies, node.dicom_port, senders=3, first=first, count=_MOST)
    disk.begin()
    node.start()
    for thread in load.threads:
        thread.start()
    try:
        wait_until(lambda: len(load.accepted) >= after, 60.0, "instances to be accepted")
    finally:
        node.kill()
        load.abandon()
    disk.cut()
    return load


@pytest.mark.timeout(300)
def test_whatever_was_acknowledged_is_there_after_a_power_cut(
    tmp_path: Path, studies: SmallStudies, shim: Path
) -> None:
    chance = random.Random(20261130)
    disk = FragileDisk(tmp_path / "node" / "spool", tmp_path / "shadow", shim)
    accepted: set[str] = set()
    for cut in range(3):
        load = _cut_in_mid_study(
            tmp_path / "node", disk, studies, first=1000 * cut, after=chance.randint(30, 90)
        )
        accepted |= load.accepted.keys()
        assert lost(accepted, disk.root) == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("ignores", ["files", "folders", "databases"])
def test_a_receiver_whose_syncs_do_nothing_would_be_found_out(
    tmp_path: Path, studies: SmallStudies, shim: Path, ignores: str
) -> None:
    disk = FragileDisk(tmp_path / "node" / "spool", tmp_path / "shadow", shim, ignores=ignores)
    load = _cut_in_mid_study(tmp_path / "node", disk, studies, first=1, after=20)
    assert len(lost(load.accepted, disk.root)) >= 20
