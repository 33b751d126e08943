"""The C-STORE door as peers see it: DCMTK, pynetdicom, and a peer that speaks byte by byte."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    SegmentationStorage,
)
from pynetdicom import AllStoragePresentationContexts

from node.errors import AddressUnavailableError
from node.receive.scp import presentation_contexts
from node.requesting import RequestingEntity
from tests import peers
from tests.doors import VERIFICATION, AbortedError, Door, Peer, encoded, make_instance
from tests.peers import echoscu, storescu
from tests.waiting import wait_until

_LABEL_MAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
_DEFLATED = {
    DeflatedExplicitVRLittleEndian,
    "1.2.840.10008.1.2.4.95",
    "1.2.840.10008.1.2.4.205",
}
_RECEIVER = """
import sys
from pathlib import Path
from node import logs
from tests.doors import Door
logs.configure(level="ERROR")
door = Door(Path(sys.argv[1]))
print(door.port, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with Door(tmp_path) as door:
        yield door


def _write(folder: Path, count: int) -> list[Path]:
    paths = []
    for index in range(count):
        ds = make_instance()
        ds.ensure_file_meta()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        paths.append(folder / f"{index}.dcm")
        ds.save_as(paths[-1], enforce_file_format=True)
    return paths


def test_echoscu_is_answered(door: Door) -> None:
    peers.require("dcmtk")
    assert echoscu(port=door.port).returncode == 0


@pytest.mark.parametrize("option", ["-xi", "-xe", "-xb", "-xd"])
def test_storescu_is_answered_whatever_syntax_it_proposes(
    door: Door, tmp_path: Path, option: str
) -> None:
    peers.require("dcmtk")
    paths = _write(tmp_path, 3)
    done = storescu(paths, port=door.port, extra=[option])
    assert done.returncode == 0, done.stderr
    for path in paths:
        sent = dcmread(path)
        kept = dcmread(door.stored(sent))
        assert kept.PatientName == sent.PatientName
        assert np.array_equal(kept.pixel_array, sent.pixel_array)


@pytest.mark.parametrize(
    "name", ["MR_small_RLE.dcm", "JPEG2000.dcm", "MR_small_jpeg_ls_lossless.dcm"]
)
def test_compressed_files_of_dcmsend_arrive_compressed(door: Door, name: str) -> None:
    peers.require("dcmtk")
    path = str(get_testdata_file(name))
    done = subprocess.run(
        ["dcmsend", "--decompress-never", "127.0.0.1", str(door.port), path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    sent = dcmread(path)
    kept = dcmread(door.stored(sent))
    assert kept.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID
    assert kept.PixelData == sent.PixelData


def test_dcmtk_finds_nothing_wrong_with_a_stored_file(door: Door, tmp_path: Path) -> None:
    peers.require("dcmtk")
    [path] = _write(tmp_path, 1)
    storescu([path], port=door.port)
    stored = door.stored(dcmread(path))
    done = subprocess.run(
        ["dcmdump", "-ll", "warn", "+P", "ImplementationVersionName", stored],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "NEUROSEG_NODE" in done.stdout
    assert done.stderr == ""


def test_pynetdicom_sends_through_several_associations_at_once(door: Door, tmp_path: Path) -> None:
    paths = _write(tmp_path, 24)
    statuses: list[int] = []

    def send(own: list[Path]) -> None:
        entity = RequestingEntity()
        entity.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
        assoc = entity.associate("127.0.0.1", door.port)
        statuses.extend(assoc.send_c_store(path).Status for path in own)
        assoc.release()

    threads = [threading.Thread(target=send, args=(paths[index::4],)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [0] * 24
    assert door.row_count() == len(door.files()) == 24


def test_every_storage_class_is_accepted_in_every_syntax() -> None:
    accepted = {
        (context.abstract_syntax, syntax)
        for context in presentation_contexts()
        for syntax in context.transfer_syntax
    }
    classes = {context.abstract_syntax for context in AllStoragePresentationContexts}
    assert {_LABEL_MAP_STORAGE, SegmentationStorage, MRImageStorage} <= classes
    for sop_class in classes:
        for syntax in AllTransferSyntaxes:
            assert (sop_class, syntax) in accepted


def test_all_classes_are_accepted_on_the_wire(door: Door) -> None:
    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    for some in (classes[:128], classes[128:]):
        contexts = [(sop_class, (ImplicitVRLittleEndian,)) for sop_class in some]
        with Peer(door.port, contexts) as peer:
            assert len(peer.accepted) == len(some)
            peer.release()


def test_a_data_set_is_stored_byte_for_byte_in_every_syntax(door: Door) -> None:
    contexts = [(MRImageStorage, (syntax,)) for syntax in AllTransferSyntaxes]
    with Peer(door.port, contexts) as peer:
        assert list(peer.accepted.values()) == list(AllTransferSyntaxes)
        for context_id, syntax in peer.accepted.items():
            ds = make_instance()
            data = encoded(
                ds,
                is_implicit=syntax == ImplicitVRLittleEndian,
                is_little_endian=syntax != ExplicitVRBigEndian,
                is_deflated=syntax in _DEFLATED,
            )
            uid = ds.SOPInstanceUID.encode()
            answer = peer.store(data, sop_instance_uid=uid, context_id=context_id)
            assert (answer.status, answer.comment) == (0, "")
            stored = door.stored(ds).read_bytes()
            meta = read_file_meta_info(door.stored(ds))  # the data set may be deflated
            assert stored[144 + meta.FileMetaInformationGroupLength :] == data
            assert meta.TransferSyntaxUID == syntax
            [row] = door.ledger.study_instances(ds.StudyInstanceUID)
            assert row.sha256 == hashlib.sha256(syntax.encode() + data).hexdigest()
            assert row.transfer_syntax_uid == syntax
        peer.release()


def test_uncompressed_explicit_is_preferred_where_a_peer_leaves_the_choice(door: Door) -> None:
    offered = ("1.2.840.10008.1.2.4.90", ImplicitVRLittleEndian, ExplicitVRLittleEndian)
    with Peer(door.port, [(MRImageStorage, offered)]) as peer:
        assert peer.accepted == {1: ExplicitVRLittleEndian}


def test_an_unknown_class_is_refused_and_the_others_serve(door: Door) -> None:
    contexts = [
        ("1.2.3.4.5", (ExplicitVRLittleEndian,)),
        (MRImageStorage, (ExplicitVRLittleEndian,)),
    ]
    with Peer(door.port, contexts) as peer:
        assert list(peer.accepted) == [3]
        ds = make_instance()
        uid = ds.SOPInstanceUID.encode()
        assert peer.store(encoded(ds), sop_instance_uid=uid, context_id=3).status == 0


def test_success_means_that_file_and_row_are_there(door: Door) -> None:
    with Peer(door.port) as peer:
        for _ in range(20):
            ds = make_instance()
            assert peer.store_dataset(ds).status == 0
            assert door.stored(ds).is_file()


def test_the_response_names_the_request_and_the_instance(door: Door) -> None:
    ds = make_instance()
    with Peer(door.port) as peer:
        peer.next_message_id()
        answer = peer.store_dataset(ds)
    assert answer.elements[0x0120] == b"\x02\x00"
    assert answer.elements[0x0100] == b"\x01\x80"
    assert answer.elements[0x0002].rstrip(b"\0").decode() == MRImageStorage
    assert answer.elements[0x1000].rstrip(b"\0").decode() == ds.SOPInstanceUID


@pytest.mark.parametrize("fragment", [1, 7, 100, 100_000])
def test_fragments_of_any_size_give_the_same_file(door: Door, fragment: int) -> None:
    ds = make_instance(PixelData=None)
    with Peer(door.port) as peer:
        uid = ds.SOPInstanceUID.encode()
        assert peer.store(encoded(ds), sop_instance_uid=uid, fragment=fragment).status == 0
    assert door.stored(ds).read_bytes().endswith(encoded(ds))


@pytest.mark.parametrize("max_length", [8, 40, 1000, 0])
def test_a_response_fits_the_pdus_that_the_peer_takes(door: Door, max_length: int) -> None:
    with Peer(door.port, max_length=max_length) as peer:
        assert peer.store_dataset(make_instance()).status == 0
        refused = peer.store(b"", sop_instance_uid=b"1.2.3")
        assert refused.status == 0xC000
        assert "SOPClassUID is missing" in refused.comment


def test_the_same_instance_twice_is_success_twice_and_stored_once(door: Door) -> None:
    ds = make_instance()
    with Peer(door.port) as peer:
        assert peer.store_dataset(ds).status == 0
        assert peer.store_dataset(ds).status == 0
    with Peer(door.port) as peer:
        assert peer.store_dataset(ds).status == 0
    assert door.row_count() == len(door.files()) == 1


def test_other_content_under_a_known_uid_is_refused_with_the_reason(door: Door) -> None:
    ds = make_instance()
    with Peer(door.port) as peer:
        assert peer.store_dataset(ds).status == 0
        first = door.stored(ds).read_bytes()
        ds.PatientID = "OTHER"
        answer = peer.store_dataset(ds)
        assert answer.status == 0xC111
        assert answer.comment.startswith("INSTANCE_CONFLICT: ")
        assert len(answer.comment) <= 64
    [file] = door.files()
    assert file.read_bytes() == first


def test_an_instance_opens_the_case_of_its_study(door: Door) -> None:
    ds = make_instance()
    with Peer(door.port) as peer:
        peer.store_dataset(ds)
    [case] = door.ledger.cases()
    assert case.study_instance_uid == ds.StudyInstanceUID


def test_only_listed_calling_ae_titles_are_let_in(tmp_path: Path) -> None:
    with Door(tmp_path, calling_ae_titles=["PACS", "SCANNER"]) as door:
        with Peer(door.port, calling=b"SCANNER") as peer:
            assert peer.echo().status == 0
        for stranger in (b"STRANGER", b"pacs", b"PAC", b"P\xc1ACS", b""):
            with pytest.raises(AbortedError, match="PDU 3, 00010103"):
                Peer(door.port, calling=stranger).associate()


def test_a_wrong_called_ae_title_is_refused_where_it_is_checked(tmp_path: Path) -> None:
    with Door(tmp_path, check_called_ae_title=True, ae_title="NODE") as door:
        with Peer(door.port, called=b"NODE") as peer:
            assert peer.echo().status == 0
        with pytest.raises(AbortedError, match="PDU 3, 00010107"):
            Peer(door.port, called=b"OTHER").associate()


def test_any_called_ae_title_is_served_where_it_is_not_checked(door: Door) -> None:
    with Peer(door.port, called=b"WHOEVER") as peer:
        assert peer.echo().status == 0


def test_more_associations_than_allowed_are_rejected_until_one_ends(tmp_path: Path) -> None:
    with Door(tmp_path, max_associations=2) as door:

        def is_let_in() -> bool:
            try:
                with Peer(door.port) as peer:
                    return peer.echo().status == 0
            except AbortedError:
                return False

        with Peer(door.port) as first, Peer(door.port):
            with pytest.raises(AbortedError, match="PDU 3, 00020302"):
                Peer(door.port).associate()
            first.release()
            assert wait_until(is_let_in, 5, "the place of the first association")


def test_a_silent_association_is_aborted_after_the_idle_timeout(tmp_path: Path) -> None:
    with Door(tmp_path, idle_timeout_s=1.0) as door, Peer(door.port) as peer:
        assert peer.echo().status == 0
        started = time.monotonic()
        with pytest.raises(AbortedError):
            peer.read_response()
        assert 0.5 < time.monotonic() - started < 5


def test_the_agreed_pdu_size_is_the_configured_one(tmp_path: Path) -> None:
    with Door(tmp_path, max_pdu_bytes=54321) as door:
        entity = RequestingEntity()
        entity.add_requested_context(VERIFICATION)
        assoc = entity.associate("127.0.0.1", door.port)
        assert assoc.acceptor.maximum_length == 54321
        assoc.release()


def test_stopping_frees_the_port_and_takes_no_more_peers(tmp_path: Path) -> None:
    door = Door(tmp_path)
    port = door.port
    with Peer(port) as peer:
        assert peer.echo().status == 0
        peer.release()
    door.scp.stop()
    with pytest.raises(ConnectionRefusedError):
        Peer(port)
    with Door(tmp_path, port=port) as again, Peer(again.port) as peer:
        assert peer.echo().status == 0
    door.ledger.close()


def test_stopping_lets_a_running_instance_finish(tmp_path: Path) -> None:
    door = Door(tmp_path)
    ds = make_instance()
    with Peer(door.port) as peer:
        stopping = threading.Thread(target=lambda: door.scp.stop(grace_s=5.0))
        stopping.start()
        assert peer.store_dataset(ds).status == 0
        peer.release()
        stopping.join(5)
        assert not stopping.is_alive()
    assert door.stored(ds).is_file()
    door.ledger.close()


@pytest.mark.parametrize("started_pdu", [b"", b"\x04\x00\x00\x00\x10\x00half"])
def test_stopping_aborts_an_association_that_does_not_end(
    tmp_path: Path, started_pdu: bytes
) -> None:
    door = Door(tmp_path, idle_timeout_s=60.0)
    with Peer(door.port) as peer:
        peer.socket.sendall(started_pdu)
        started = time.monotonic()
        door.scp.stop(grace_s=0.2)
        assert time.monotonic() - started < 2.0
        with pytest.raises(AbortedError):
            peer.read_response()
    assert not [one for one in threading.enumerate() if "AcceptorThread" in one.name]
    door.ledger.close()


def test_a_port_in_use_is_a_configuration_error(door: Door, tmp_path: Path) -> None:
    with pytest.raises(AddressUnavailableError, match="cannot listen on"):
        Door(tmp_path / "second", port=door.port)


def test_half_written_files_of_an_earlier_process_are_swept(tmp_path: Path) -> None:
    with Door(tmp_path) as door:
        left = door.spool.new_part()
    left.write_bytes(b"half")
    with Door(tmp_path):
        assert not left.exists()


def test_memory_stays_flat_while_a_large_instance_arrives(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _RECEIVER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with Peer(port) as peer:
            assert peer.store_dataset(make_instance()).status == 0
            before = _peak_mb(process.pid)
            large = make_instance(PixelData=bytes(200 * 2**20))
            uid = large.SOPInstanceUID.encode()
            answer = peer.store(encoded(large), sop_instance_uid=uid, fragment=100_000)
            assert answer.status == 0
            after = _peak_mb(process.pid)
        process.kill()
    assert after - before < 20
    assert after < 150


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
