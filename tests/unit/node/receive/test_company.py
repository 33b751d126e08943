"""Several processes that receive into one spool, at one port."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node import settings
from node.errors import AddressUnavailableError
from node.ledger import Ledger
from node.receive.company import company
from node.receive.scp import StorageScp
from node.requesting import RequestingEntity
from node.rows import place_of_processes
from node.spool import Spool
from node.supervise import receive_environments
from tests.peers import free_port
from tests.waiting import wait_until

NAME, VERIFICATION = "node-1", "1.2.840.10008.1.1"


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[Spool, Ledger]]:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield Spool(tmp_path), ledger
    ledger.close()


def test_who_comes_later_waits_for_the_first_to_compare(stores: tuple[Spool, Ledger]) -> None:
    came: list[bool] = []

    def _come() -> None:
        with company(*stores, NAME) as others:
            came.append(others.is_there)

    with company(*stores, NAME) as first:
        assert not first.is_there
        later = threading.Thread(target=_come)
        later.start()
        later.join(0.3)
        assert later.is_alive()
        first.let_in()
        later.join(10)
    assert came == [True]
    with company(*stores, NAME) as next_:
        assert not next_.is_there  # both have left


@pytest.mark.parametrize(
    ("name", "place", "is_there"),
    [
        ("node-2", "another", True),
        ("node-1", "another", False),  # this one, before it was restarted
        ("node-1.receive1", place_of_processes(), False),
    ],
)
def test_others_are_there_that_beat_and_have_not_ended_here(
    stores: tuple[Spool, Ledger], name: str, place: str, *, is_there: bool
) -> None:
    nobody = 2**22 + 1  # no process has that number
    stores[1].beat(f"{name}/receive", role="receive", host="h", pid=nobody, detail={"place": place})
    with company(*stores, NAME) as others:
        assert others.is_there == is_there


@contextmanager
def receiving(port: int, stores: tuple[Spool, Ledger], processes: int) -> Iterator[StorageScp]:
    spool, ledger = stores
    own = settings.Receive(port=port, processes=processes)
    scp = StorageScp(own, spool=spool, ledger=ledger, model_id="m@1")
    scp.start()
    try:
        yield scp
    finally:
        scp.stop(grace_s=0.5)


def test_receivers_share_a_port_and_the_connections(stores: tuple[Spool, Ledger]) -> None:
    port = free_port()
    with receiving(port, stores, 2) as one, receiving(port, stores, 2) as other:
        entity = RequestingEntity()
        entity.add_requested_context(VERIFICATION)
        held = [entity.associate("127.0.0.1", port) for _ in range(16)]
        assert all(assoc.is_established for assoc in held)
        counts = [len(scp._associations) for scp in (one, other)]
        assert all(assoc.send_c_echo().Status == 0 for assoc in held)
        for assoc in held:
            assoc.release()
        wait_until(
            lambda: not [*one._associations, *other._associations],
            10,
            "all to be released",
        )
    assert sum(counts) == 16
    assert all(counts), counts  # by chance one has none time in 32,768


def test_a_receiver_alone_keeps_its_port_to_itself(stores: tuple[Spool, Ledger]) -> None:
    port = free_port()
    with receiving(port, stores, 1), pytest.raises(AddressUnavailableError):
        receiving(port, stores, 2).__enter__()


def test_each_of_several_receive_processes_is_a_worker_of_its_own() -> None:
    assert receive_environments(1, NAME) == []
    names = [one["NEUROSEG_JOBS__WORKER_NAME"] for one in receive_environments(3, NAME)]
    assert names == ["node-1.receive0", "node-1.receive1", "node-1.receive2"]
