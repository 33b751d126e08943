"""TLS: what the node shows and believes; its own certificates are read anew when they change.

References
----------
DICOM PS3.15 B.12 (BCP 195 RFC 9325 TLS Secure Transport Connection Profile).
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from node import logs
from node.door_errors import TlsUnusableError
from node.peers import Peer

_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"  # RFC 9325 4.2, for TLS 1.2; 1.3 has its own


class ServerTls:
    """What a server shows, and whom it believes.

    Parameters
    ----------
    certificate_file, key_file : str
        Ours, PEM; the first may hold the chain.
    client_ca_file : str
        Who vouches for clients, PEM; empty: nobody is asked for a certificate.
    needs_client : bool
        With `client_ca_file`: clients without a certificate are not let in.

    Raises
    ------
    TlsUnusableError
        A file cannot be used.
    """

    def __init__(
        self, certificate_file: str, key_file: str, client_ca_file: str = "", *, needs_client: bool
    ) -> None:
        self._files = certificate_file, key_file, client_ca_file
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_ciphers(_CIPHERS)
        if client_ca_file:
            self.context.verify_mode = ssl.CERT_REQUIRED if needs_client else ssl.CERT_OPTIONAL
        self._load()
        self._stamps = self._changed()

    def refresh(self) -> None:
        """Read changed files; connections from now on see them. Bad ones change nothing."""
        stamps = self._changed()
        if stamps == self._stamps:
            return
        self._stamps = stamps
        try:
            self._load()
        except TlsUnusableError as error:
            logs.get().error("certificate.refused", code=error.code, sentence=str(error))
        else:
            logs.get().info("certificate.reloaded")

    def _changed(self) -> list[tuple[int, int]]:
        """Return what changes when a file does."""
        found = []
        for name in filter(None, self._files):
            try:
                state = Path(name).stat()
            except OSError:
                found.append((0, 0))
            else:
                found.append((state.st_mtime_ns, state.st_ino))
        return found

    def _load(self) -> None:
        certificate, key, client_ca = self._files
        try:
            trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # a key that does not fit spoils one
            trial.load_cert_chain(certificate, key)
            self.context.load_cert_chain(certificate, key)
            if client_ca:
                self.context.load_verify_locations(client_ca)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise _unusable(error) from error


def client_context(peer: Peer) -> ssl.SSLContext:
    """Return what the node shows a peer, and whom it believes, from files read now.

    Raises
    ------
    TlsUnusableError
        A file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=peer.ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        context.check_hostname = peer.check_host_name
        if peer.certificate_file:
            context.load_cert_chain(peer.certificate_file, peer.key_file)
    except (OSError, ValueError) as error:
        raise _unusable(error) from error
    return context


def _unusable(error: OSError | ValueError) -> TlsUnusableError:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
    return TlsUnusableError(reason=str(reason or type(error).__name__))


def common_name(certificate: object) -> str:
    """Return the Common Name of a verified certificate as `ssl` gives it, empty where it has none.

    Parameters
    ----------
    certificate : object
        What ``getpeercert`` returned: a mapping, empty or None where none was shown.
    """
    if not isinstance(certificate, dict):
        return ""
    names = [
        value
        for part in certificate.get("subject", ())
        for key, value in part
        if key == "commonName"
    ]
    return str(names[0]) if names else "certificate" if certificate else ""
