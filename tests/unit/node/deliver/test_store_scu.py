"""C-STORE to peers that answer, one way or another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SegmentationStorage,
)

from node.cases import Transport
from node.deliver import store_scu
from node.demo.archive import DemoArchive
from node.dimse import IMPLEMENTATION_CLASS_UID
from node.errors import PeerRefusedError, PeerUnavailableError
from tests.scripted_peers import (
    data_set_bytes,
    dimse_destination,
    dimse_peer,
    small_object,
)

_ENDING_S = 5.0


@dataclass
class ScriptedPeer:
    """A peer with one answer to every C-STORE."""

    port: int = 0
    status: int = 0


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoArchive]:
    archive = DemoArchive(tmp_path_factory.mktemp("archive"))
    archive.start()
    yield archive
    archive.stop()


@pytest.fixture(scope="module")
def peer() -> Iterator[ScriptedPeer]:
    peer = ScriptedPeer()
    with dimse_peer(lambda _: peer.status) as peer.port:
        yield peer


@pytest.fixture(autouse=True)
def _no_thread_stays_behind(archive: DemoArchive, peer: ScriptedPeer) -> Iterator[None]:
    assert archive.port
    assert peer.port
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(_ENDING_S)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    "transfer_syntax",
    [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian],
    ids=lambda uid: str(uid.keyword),
)
def test_the_data_set_arrives_byte_for_byte(
    archive: DemoArchive, tmp_path: Path, transfer_syntax: UID
) -> None:
    seg, file = small_object(tmp_path, transfer_syntax=transfer_syntax)
    destination = dimse_destination(archive.port)
    store_scu.send(seg, file, destination, calling_ae_title="NEUROSEG", attempt=1)
    (held,) = archive.find(seg.study_instance_uid, "MR")
    assert data_set_bytes(held.path) == data_set_bytes(file)


def test_the_receipt_says_what_went_where(archive: DemoArchive, tmp_path: Path) -> None:
    seg, file = small_object(tmp_path)
    destination = dimse_destination(archive.port)
    receipt = store_scu.send(seg, file, destination, calling_ae_title="NEUROSEG", attempt=3)
    assert (receipt.case_id, receipt.sop_instance_uid) == (seg.case_id, seg.sop_instance_uid)
    assert (receipt.destination, receipt.transport) == ("pacs", Transport.DIMSE)
    assert (receipt.status_code, receipt.attempt) == ("0x0000", 3)
    assert receipt.delivered_at.utcoffset() is not None


@pytest.mark.parametrize("status", [0xB000, 0xB006, 0xB007, 0x0111])
def test_a_warning_or_a_duplicate_counts_as_stored(
    peer: ScriptedPeer, tmp_path: Path, status: int
) -> None:
    seg, file = small_object(tmp_path)
    peer.status = status
    destination = dimse_destination(peer.port)
    receipt = store_scu.send(seg, file, destination, calling_ae_title="NEUROSEG", attempt=1)
    assert receipt.status_code == f"0x{status:04X}"


@pytest.mark.parametrize("status", [0xA700, 0xA7FF])
def test_a_peer_without_resources_is_unavailable(
    peer: ScriptedPeer, tmp_path: Path, status: int
) -> None:
    seg, file = small_object(tmp_path)
    peer.status = status
    with pytest.raises(PeerUnavailableError) as caught:
        store_scu.send(seg, file, dimse_destination(peer.port), calling_ae_title="NODE", attempt=1)
    reason = f"out of resources, status 0x{status:04X}"
    assert caught.value.evidence == {"destination": "pacs", "reason": reason}


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0xCFFF, 0x0122, 0x0124, 0x0210])
def test_a_failure_status_is_a_refusal(peer: ScriptedPeer, tmp_path: Path, status: int) -> None:
    seg, file = small_object(tmp_path)
    peer.status = status
    with pytest.raises(PeerRefusedError) as caught:
        store_scu.send(seg, file, dimse_destination(peer.port), calling_ae_title="NODE", attempt=1)
    assert caught.value.evidence == {"destination": "pacs", "status": f"0x{status:04X}"}


@pytest.mark.parametrize(
    "accepted",
    [
        {"sop_class": SegmentationStorage},
        {"transfer_syntax": ImplicitVRLittleEndian},
    ],
    ids=["other SOP class", "other transfer syntax"],
)
def test_a_rejected_context_is_a_refusal(tmp_path: Path, accepted: dict[str, str]) -> None:
    seg, file = small_object(tmp_path)
    with (
        dimse_peer(lambda _: 0, **accepted) as port,
        pytest.raises(PeerRefusedError, match="context rejected"),
    ):
        store_scu.send(seg, file, dimse_destination(port), calling_ae_title="NODE", attempt=1)


def test_a_peer_that_expects_another_called_ae_title_is_named_with_its_reason() -> None:
    with (
        dimse_peer(lambda _: 0, called_ae_title="OTHER") as port,
        pytest.raises(PeerUnavailableError, match="called ae title not recognised"),
    ):
        store_scu.echo(dimse_destination(port), calling_ae_title="NODE")


def test_an_echo_is_answered(archive: DemoArchive) -> None:
    store_scu.echo(dimse_destination(archive.port), calling_ae_title="NODE")


def test_an_echo_tells_which_product_answers(archive: DemoArchive) -> None:
    found = store_scu.implementation_of(dimse_destination(archive.port), calling_ae_title="NODE")
    assert found
    assert found != IMPLEMENTATION_CLASS_UID
