"""DICOM over TLS with DCMTK, and from where the DICOM ports may be reached."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from node.tls import ServerTls
from tests import certificates, peers
from tests.doors import AbortedError, Door, Peer, make_instance
from tests.stow_requests import part10
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def own(tmp_path: Path) -> tuple[str, str]:
    """Return certificate and key of the node."""
    _, certificate = certificates.made(tmp_path)
    return str(certificate), str(tmp_path / "key.pem")


def _instance(folder: Path) -> Path:
    path = folder / "instance.dcm"
    path.write_bytes(part10(make_instance(PixelData=bytes(300_000))))
    return path


def test_storescu_and_echoscu_speak_tls(tmp_path: Path, own: tuple[str, str]) -> None:
    peers.require("dcmtk")
    trusting = ("+tla", "+cf", own[0])
    with Door(tmp_path, tls=ServerTls(*own, needs_client=True)) as door:
        port = door.scp.tls_port
        assert peers.echoscu(port=port, extra=trusting).returncode == 0
        sent = peers.storescu([_instance(tmp_path)], port=port, extra=trusting)
        assert sent.returncode == 0, sent.stderr
        assert door.row_count() == 1
        assert peers.echoscu(port=port).returncode != 0  # in the clear at the port for TLS
        assert peers.echoscu(port=door.port).returncode == 0  # the other one is as it was


def test_where_peers_need_a_certificate_none_comes_in_without(
    tmp_path: Path, own: tuple[str, str]
) -> None:
    peers.require("dcmtk")
    folder = tmp_path / "peers"
    folder.mkdir()
    ca = certificates.authority(folder, ("scanner",))
    shown = ("+tls", str(folder / "scanner.key"), str(folder / "scanner.pem"), "+cf", own[0])
    with Door(tmp_path, tls=ServerTls(*own, str(ca), needs_client=True)) as door:
        port = door.scp.tls_port
        sent = peers.storescu([_instance(tmp_path)], port=port, extra=shown)
        assert sent.returncode == 0, sent.stderr
        refused = peers.storescu([_instance(tmp_path)], port=port, extra=("+tla", "+cf", own[0]))
        assert refused.returncode != 0
        assert door.row_count() == 1


class _TlsPeer(Peer):
    """A peer that speaks TLS."""

    context: ssl.SSLContext

    def __post_init__(self) -> None:
        super().__post_init__()
        self.socket = self.context.wrap_socket(self.socket, server_hostname="127.0.0.1")


def _peer(own: tuple[str, str]) -> type[_TlsPeer]:
    return type("_P", (_TlsPeer,), {"context": ssl.create_default_context(cafile=own[0])})


def test_many_small_pdus_in_one_record_are_all_read(tmp_path: Path, own: tuple[str, str]) -> None:
    sent = [make_instance() for _ in range(5)]
    with Door(tmp_path, tls=ServerTls(*own, needs_client=True)) as door:
        with _peer(own)(door.scp.tls_port) as peer:
            for ds in sent:
                assert peer.store_dataset(ds).status == 0
            peer.release()
        assert door.row_count() == len(sent)


def test_who_never_shakes_hands_keeps_nobody_out(tmp_path: Path, own: tuple[str, str]) -> None:
    with Door(tmp_path, tls=ServerTls(*own, needs_client=True), idle_timeout_s=2.0) as door:
        silent = [socket.create_connection(("127.0.0.1", door.scp.tls_port)) for _ in range(3)]
        for one in silent[1:]:
            one.sendall(b"\x16\x03\x01\x02")  # the beginning of a handshake
        with _peer(own)(door.scp.tls_port) as peer:
            assert peer.echo().status == 0
            peer.release()
        for one in silent:
            one.settimeout(20.0)
            assert one.recv(100) == b""
            one.close()


@pytest.mark.parametrize(
    ("allowed", "is_let_in"), [(["127.0.0.0/8"], True), (["10.0.0.0/8", "192.0.2.7"], False)]
)
def test_only_addresses_on_the_list_are_let_in(
    tmp_path: Path,
    allowed: list[str],
    is_let_in: bool,  # noqa: FBT001
) -> None:
    def comes_in() -> bool:
        try:
            with Peer(door.port) as peer:
                peer.release()
        except (AbortedError, OSError):
            return False
        return True

    with Door(tmp_path, calling_addresses=allowed) as door:
        assert comes_in() is is_let_in


def test_a_new_certificate_is_shown_to_the_next_association(
    tmp_path: Path, own: tuple[str, str]
) -> None:
    tls = ServerTls(*own, needs_client=True)
    newer = tmp_path / "newer"
    newer.mkdir()
    _, certificate = certificates.made(newer)
    with Door(tmp_path, tls=tls) as door:
        shown: Callable[[], str] = lambda: ssl.get_server_certificate(  # noqa: E731
            ("127.0.0.1", door.scp.tls_port), timeout=10.0
        )
        first = shown()
        (newer / "key.pem").replace(own[1])
        certificate.replace(own[0])
        tls.refresh()
        wait_until(lambda: shown() != first, 10.0, "the new certificate")
