"""Associations that we open: the library's reactor rests while a request waits for its answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at run time
from pynetdicom.transport import AssociationSocket

from node.requesting import Checkpoint, RequestingEntity
from tests.scripted_peers import LOOPBACK, dimse_peer, small_object
from tests.waiting import wait_until

_LAST = 99  # number of the message at which the peer dies


class _Reactor:
    """The library's loop: it says that it rests, waits at the checkpoint, and works."""

    def __init__(self) -> None:
        assoc = Association(ApplicationEntity(), "requestor")
        self.checkpoint = Checkpoint(assoc)
        self._assoc, self.rounds, self._is_over = assoc, 0, False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over:
            self._assoc._is_paused = True
            self.checkpoint.wait()
            self._assoc._is_paused = False
            self.rounds += 1

    def stop(self) -> None:
        """Do as a sender does before its request."""
        self.checkpoint.clear()
        wait_until(lambda: self._assoc._is_paused, 5.0, "the reactor to rest", poll_s=0.0001)

    def end(self) -> None:
        self._is_over = True
        self.checkpoint.set()
        self._thread.join()


@pytest.fixture
def reactor() -> Iterator[_Reactor]:
    reactor = _Reactor()
    yield reactor
    reactor.end()


def test_a_reactor_that_was_let_go_and_stopped_at_once_does_nothing(reactor: _Reactor) -> None:
    reactor.stop()
    pause = threading.Event()
    for _ in range(200):
        reactor.checkpoint.set()
        reactor.stop()
        before = reactor.rounds
        pause.wait(0.001)  # time enough for one that was believed at rest
        assert reactor.rounds == before


def test_a_reactor_runs_while_nobody_waits_for_an_answer(reactor: _Reactor) -> None:
    reactor.stop()
    before = reactor.rounds
    reactor.checkpoint.set()
    wait_until(lambda: reactor.rounds > before, 5.0, "another round")


def test_associations_of_our_entity_rest_at_that_checkpoint() -> None:
    entity = RequestingEntity()
    entity.add_requested_context(Verification)
    with dimse_peer(lambda _: 0) as port:
        assoc = entity.associate(LOOPBACK, port, ae_title="PACS")
        assert isinstance(cast("object", assoc._reactor_checkpoint), Checkpoint)
        assert [assoc.send_c_echo().Status for _ in range(20)] == [0] * 20
        assoc.release()
    assert assoc.is_released


def test_a_connection_that_is_gone_costs_one_request_and_no_waiting(tmp_path: Path) -> None:
    _, path = small_object(tmp_path)
    entity = RequestingEntity()
    entity.dimse_timeout = 60.0
    entity.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)

    def answer(event: Event) -> int:
        if event.request.MessageID == _LAST:
            cast("AssociationSocket", event.assoc.dul.socket).close()  # as if the peer had died
        return 0

    with dimse_peer(answer) as port:
        for _ in range(50):
            assoc = entity.associate(LOOPBACK, port, ae_title="PACS")
            assert assoc.send_c_store(path).Status == 0
            assert "Status" not in assoc.send_c_store(path, msg_id=_LAST)
            assert not assoc.is_established
            assert assoc.is_aborted
