"""A PostgreSQL that is locked, full or away: nothing acknowledged is lost, all of it heals.

The same of SQLite stands in tests/faults/test_full_disk.py and beside the ledger's own tests.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from pydicom.dataset import Dataset

from node.demo.archive import DemoArchive
from node.receive.reconcile import Kind, Reconciliation
from tests import tiny_models
from tests.databases import Postgres
from tests.doors import MODEL_ID, Door, Peer, make_instance
from tests.full_disks import full
from tests.nodes import RunningNode, destination, push
from tests.small_studies import SmallStudies

pytestmark = pytest.mark.faults

_REFUSED = 0xA700
_LIMIT = 2**24


def _push(door: Door, instances: list[Dataset]) -> list[int]:
    with Peer(door.port) as peer:
        return [peer.store_dataset(one).status for one in instances]


def _heals(door: Door) -> bool:
    """Say whether there is nothing to repair but files of answers that were refused."""
    check = Reconciliation(
        door.spool, door.ledger, model_id=MODEL_ID, limit_bytes=_LIMIT, is_deep=True
    )
    return {one.kind for one in check.run()} <= {Kind.DOUBLE} and check.run() == []


@contextmanager
def _locked(url: str) -> Iterator[None]:
    """Hold a table as somebody does who changes it by hand and went for lunch."""
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE instance IN ACCESS EXCLUSIVE MODE")
        yield


@contextmanager
def _away(server: Postgres) -> Iterator[None]:
    """Stop a server in the middle of whatever it is doing."""
    server.stop()
    try:
        yield
    finally:
        server.start()


def test_what_a_locked_database_cannot_take_is_refused_in_time(
    tmp_path: Path, postgres: Postgres
) -> None:
    instances = [make_instance() for _ in range(4)]
    url = postgres.fresh(lock_timeout="500ms")
    with Door(tmp_path, database_url=url) as door:
        assert _push(door, instances[:1]) == [0]
        with _locked(url):
            assert _push(door, instances[1:3]) == [_REFUSED] * 2
        assert _push(door, instances) == [0] * len(instances)
        assert door.row_count() == len(instances)
        assert _heals(door)


def test_a_database_that_was_away_takes_everything_when_it_is_back(
    tmp_path: Path, postgres: Postgres
) -> None:
    instances = [make_instance() for _ in range(6)]
    with Door(tmp_path, database_url=postgres.fresh()) as door, Peer(door.port) as peer:
        assert peer.store_dataset(instances[0]).status == 0
        with _away(postgres):
            statuses = [peer.store_dataset(one).status for one in instances[1:3]]
            assert statuses == [_REFUSED] * 2
        # over the association that saw it go
        assert [peer.store_dataset(one).status for one in instances] == [0] * len(instances)
        assert door.row_count() == len(instances)
        assert _heals(door)


def test_a_full_database_takes_everything_when_there_is_room(
    tmp_path: Path, postgres: Postgres
) -> None:
    instances = [make_instance() for _ in range(40)]
    with (
        postgres.small_disk() as disk,
        Door(tmp_path, database_url=postgres.fresh(default_tablespace="small")) as door,
    ):
        assert _push(door, instances[:1]) == [0]
        with full(disk):
            statuses = _push(door, instances[1:])
            assert set(statuses) <= {0, _REFUSED}
            assert _REFUSED in statuses
            assert door.row_count() == 1 + statuses.count(0)
        assert _push(door, instances) == [0] * len(instances)
        assert door.row_count() == len(instances)
        assert _heals(door)


@pytest.mark.timeout(300)
def test_a_node_whose_database_goes_away_in_mid_study_delivers_once(
    tmp_path: Path, postgres: Postgres
) -> None:
    url = postgres.fresh_database()
    model = tiny_models.written(tmp_path / "model" / "tiny", skull="any")
    studies = SmallStudies(tmp_path / "drawn")
    plan = tmp_path / "nothing"
    plan.write_text("{}", encoding="utf-8")
    archive = DemoArchive(tmp_path / "archive")
    archive.start()
    node = RunningNode(
        tmp_path / "node",
        [destination("archive", port=archive.port)],
        entry=(sys.executable, "-m", "tests.faults.crashing_node"),
        environment={
            "NEUROSEG_MODEL__FOLDER": str(model),
            "CRASH_PLAN": str(tmp_path / "no-plan"),
            "POISON_PLAN": str(plan),
        },
        options={
            "align": 'registration = "off"',
            "ledger": f"url = '{url}'",
            "jobs": f"url = '{url}'",
        },
        is_warm=True,
    )
    try:
        with node:
            node.wait_ready()
            for number in (1, 2):
                paths = studies.written(number, tmp_path / f"study-{number}")
                assert set(push(paths, node.dicom_port)) == {0}
                with _away(postgres):
                    assert not node.is_ready()
            node.wait_states("delivered", 2)
        exits = [one for one in node.log_lines() if one["event"] == "role.exited"]
        assert exits == []
        for number in (1, 2):
            assert len(archive.find(studies.study(number).study_instance_uid, "SEG")) == 1
    finally:
        archive.stop()
