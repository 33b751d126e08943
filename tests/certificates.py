"""A certificate of loopback's own, made anew."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path


def made(folder: Path, name: str = "IP:127.0.0.1") -> tuple[ssl.SSLContext, Path]:
    """Return what a server on loopback shows, and the file that a client is to trust.

    Parameters
    ----------
    folder : Path
        Where the files go.
    name : str
        Subject Alternative Name that it is good for.
    """
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    order = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test"
    subprocess.run(
        [*order.split(), "-addext", f"subjectAltName={name}", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


def authority(folder: Path, names: tuple[str, ...]) -> Path:
    """Make an authority and certificates that it vouches for; return its own.

    Each name becomes ``<name>.pem`` and ``<name>.key`` in the folder, good for loopback as well.
    """

    def openssl(*words: str | Path) -> None:
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)

    new = ("req", "-newkey", "rsa:2048", "-nodes")
    ca = folder / "ca.pem"
    openssl(*new, "-x509", "-subj", "/CN=authority", "-keyout", folder / "ca.key", "-out", ca)
    for name in names:
        key, order = folder / f"{name}.key", folder / f"{name}.csr"
        loopback = ("-addext", "subjectAltName=IP:127.0.0.1")
        openssl(*new, "-subj", f"/CN={name}", *loopback, "-keyout", key, "-out", order)
        signed = ("-CA", ca, "-CAkey", folder / "ca.key", "-CAcreateserial")
        copied = ("-copy_extensions", "copyall")
        openssl("x509", "-req", "-in", order, *signed, *copied, "-out", folder / f"{name}.pem")
    return ca
