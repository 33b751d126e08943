"""Certificates: what cannot be used is refused, what changes is read anew."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from node.door_errors import TlsUnusableError
from node.tls import ServerTls, common_name
from tests import certificates


def _made(folder: Path) -> tuple[str, str]:
    folder.mkdir()
    _, certificate = certificates.made(folder)
    return str(certificate), str(folder / "key.pem")


def _shown(tls: ServerTls) -> bytes:
    """Return the certificate that a client is shown, by two ends in memory."""
    client_context = ssl.create_default_context()
    client_context.check_hostname, client_context.verify_mode = False, ssl.CERT_NONE
    pipes = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = tls.context.wrap_bio(pipes[0], pipes[1], server_side=True)
    client = client_context.wrap_bio(pipes[1], pipes[0])
    for _ in range(4):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return client.getpeercert(binary_form=True) or b""


def test_a_changed_certificate_is_shown_without_a_restart(tmp_path: Path) -> None:
    certificate, key = _made(tmp_path / "a")
    tls = ServerTls(certificate, key, needs_client=False)
    first = _shown(tls)
    assert first
    tls.refresh()
    assert _shown(tls) == first
    newer, newer_key = _made(tmp_path / "b")
    Path(newer_key).replace(key)
    tls.refresh()  # half of the change: the key does not fit
    assert _shown(tls) == first
    Path(newer).replace(certificate)
    tls.refresh()
    assert _shown(tls) not in (first, b"")


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    certificate, key = _made(tmp_path / "a")
    _, other_key = _made(tmp_path / "b")
    text = tmp_path / "text"
    text.write_text("no certificate")
    for files in ((certificate, other_key), (str(text), key), (str(tmp_path / "absent"), key)):
        with pytest.raises(TlsUnusableError):
            ServerTls(*files, needs_client=False)
    with pytest.raises(TlsUnusableError):
        ServerTls(certificate, key, str(text), needs_client=True)


def test_nothing_older_than_tls_1_2_is_spoken(tmp_path: Path) -> None:
    tls = ServerTls(*_made(tmp_path / "a"), needs_client=False)
    assert tls.context.minimum_version == ssl.TLSVersion.TLSv1_2
    names = {one["name"] for one in tls.context.get_ciphers() if one["protocol"] == "TLSv1.2"}
    assert names
    assert all(name.startswith("ECDHE-") for name in names)


def test_the_name_on_a_certificate() -> None:
    assert common_name(None) == ""
    assert common_name({}) == ""
    subject = ((("organizationName", "Hospital"),), (("commonName", "pacs-1"),))
    assert common_name({"subject": subject}) == "pacs-1"
    assert common_name({"subject": subject[:1]}) == "certificate"
