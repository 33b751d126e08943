"""Peers that speak TLS and ask the node for its certificate: DCMTK's storescp, and Orthanc."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from node import source
from node.cases import Transport
from node.deliver import routes
from node.door_errors import TlsUnusableError
from node.errors import PeerUnavailableError
from node.peers import Destination
from node.peers import Source as SourceSettings
from tests import certificates, peers, tls_front
from tests.peers import Orthanc, free_port
from tests.scripted_peers import small_object
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an authority, and what it vouches for: ``peer`` and ``node``."""
    folder = tmp_path_factory.mktemp("certificates")
    certificates.authority(folder, ("peer", "node"))
    (folder / "other").mkdir()
    certificates.authority(folder / "other", ("node",))
    return folder


def _own(folder: Path, issuer: str = ".") -> dict[str, str]:
    """Return settings that show a certificate of an authority, and believe that of the peer."""
    return {
        "ca_file": str(folder / "ca.pem"),
        "certificate_file": str(folder / issuer / "node.pem"),
        "key_file": str(folder / issuer / "node.key"),
    }


def _dimse(port: int, **more: object) -> Destination:
    values = {"name": "pacs", "transport": "dimse", "host": "127.0.0.1", "port": port, "tls": True}
    return Destination.model_validate({**values, "timeout_s": 10.0, **more})


@contextmanager
def _storescp(folder: Path, kept: Path) -> Iterator[int]:
    """Run DCMTK's storage SCP over TLS, which lets nobody in without a certificate."""
    peers.require("dcmtk")
    port = free_port()
    tls = [
        "+tls",
        str(folder / "peer.key"),
        str(folder / "peer.pem"),
        "+cf",
        str(folder / "ca.pem"),
    ]
    process = subprocess.Popen(
        [peers.program("storescp") or "storescp", *tls, "-rc", "-od", str(kept), str(port)]
    )
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def _answers(destination: Destination) -> bool:
    try:
        routes.echo(destination, calling_ae_title="NEUROSEG")
    except PeerUnavailableError:
        return False
    return True


def test_storescp_gets_an_object_over_tls_from_those_it_knows(folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    seg, file = small_object(tmp_path)
    with _storescp(folder, kept) as port:
        pacs = _dimse(port, **_own(folder))
        wait_until(lambda: _answers(pacs), 20, "storescp")
        assert routes.send(seg, file, pacs, calling_ae_title="N", attempt=1).status_code == "0x0000"
        assert len(list(kept.iterdir())) == 1
        for stranger in (_own(folder, "other"), {"ca_file": str(folder / "ca.pem")}):
            with pytest.raises(PeerUnavailableError):
                routes.send(seg, file, _dimse(port, **stranger), calling_ae_title="N", attempt=1)
        assert len(list(kept.iterdir())) == 1


def test_a_peer_whose_certificate_does_not_fit_gets_nothing(folder: Path, tmp_path: Path) -> None:
    seg, file = small_object(tmp_path)

    def _sent(**more: object) -> str:
        destination = _dimse(port, **{**_own(folder), **more})
        with pytest.raises(PeerUnavailableError) as caught:
            routes.send(seg, file, destination, calling_ae_title="N", attempt=1)
        return str(caught.value)

    with _storescp(folder, tmp_path) as port:
        wait_until(lambda: _answers(_dimse(port, **_own(folder))), 20, "storescp")
        assert "TLS failed" in _sent(ca_file=str(folder / "other" / "ca.pem"))
        assert "TLS failed: Hostname mismatch" in _sent(host="localhost")
        named = _dimse(port, **_own(folder), host="localhost", check_host_name=False)
        assert _answers(named)
    (folder / "spoilt.pem").write_text("no certificate")
    with pytest.raises(TlsUnusableError):
        routes.echo(_dimse(port, ca_file=str(folder / "spoilt.pem")), calling_ae_title="N")


@pytest.fixture(scope="module")
def archive(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """Run an archive whose DICOM port speaks TLS and asks for a certificate."""
    peers.require("orthanc")
    options: dict[str, Any] = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(folder / "peer.pem"),
        "DicomTlsPrivateKey": str(folder / "peer.key"),
        "DicomTlsTrustedCertificates": str(folder / "ca.pem"),
        "DicomAlwaysAllowFind": True,
    }
    with Orthanc(tmp_path_factory.mktemp("orthanc"), **options) as orthanc:
        yield orthanc


@pytest.fixture(scope="module")
def url(archive: Orthanc, folder: Path) -> Iterator[str]:
    """Return where its DICOMweb is over TLS; the one of Debian 12 crashes when it speaks it."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=folder / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(folder / "peer.pem", folder / "peer.key")
    with tls_front.in_front_of(archive.http_port, context) as port:
        yield f"https://127.0.0.1:{port}/dicom-web"


def _peer(archive: Orthanc, url: str, transport: str) -> dict[str, Any]:
    if transport in ("dimse", "cfind"):
        address = {"host": "127.0.0.1", "port": archive.dicom_port, "tls": True}
    else:
        address = {"url": url}
    return {**address, "transport": transport, "timeout_s": 10.0}


@pytest.mark.parametrize("transport", [Transport.DIMSE, Transport.STOW])
def test_orthanc_gets_an_object_over_tls_from_those_it_knows(
    transport: Transport,
    archive: Orthanc,
    url: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(folder / "other" / "ca.pem"))
    seg, file = small_object(tmp_path)
    values = {**_peer(archive, url, transport), "name": "pacs"}
    known = Destination.model_validate({**values, **_own(folder)})
    routes.send(seg, file, known, calling_ae_title="NEUROSEG", attempt=1)
    assert archive.find_instances(seg.study_instance_uid, "MR") == [seg.sop_instance_uid]
    for stranger in (
        {"ca_file": str(folder / "ca.pem")},
        {**_own(folder), "ca_file": str(folder / "other" / "ca.pem")},
    ):
        unknown = Destination.model_validate({**values, **stranger})
        with pytest.raises(PeerUnavailableError):
            routes.send(seg, file, unknown, calling_ae_title="NEUROSEG", attempt=1)


@pytest.mark.parametrize("transport", ["cfind", "qido"])
def test_an_archive_is_asked_over_tls(
    transport: str, archive: Orthanc, url: str, folder: Path, tmp_path: Path
) -> None:
    seg, file = small_object(tmp_path)
    pacs = Destination.model_validate(
        {**_peer(archive, url, "dimse"), "name": "pacs", **_own(folder)}
    )
    routes.send(seg, file, pacs, calling_ae_title="NEUROSEG", attempt=1)
    asked = SourceSettings.model_validate({**_peer(archive, url, transport), **_own(folder)})
    counts = source.asking(asked, calling_ae_title="NEUROSEG")(seg.study_instance_uid)
    assert [one.instance_count for one in counts.values()] == [1]
