"""Which transport a destination is reached by."""

from __future__ import annotations

from pathlib import Path

from node.cases import DeliveryReceipt, EncodedObject, Transport
from node.deliver import store_scu, stow_client
from node.settings import Destination


def send(
    seg: EncodedObject,
    file: Path,
    destination: Destination,
    *,
    calling_ae_title: str,
    attempt: int,
) -> DeliveryReceipt:
    """Return the receipt of a result that the destination has stored.

    Raises
    ------
    PeerUnavailableError
        Nobody could be reached, or no answer came: to be tried again.
    PeerRefusedError
        The destination said no.
    """
    route = stow_client.send if destination.transport is Transport.STOW else store_scu.send
    return route(seg, file, destination, calling_ae_title=calling_ae_title, attempt=attempt)


def echo(destination: Destination, *, calling_ae_title: str) -> None:
    """Ask the destination whether it is there; raises as `send` does."""
    route = stow_client.echo if destination.transport is Transport.STOW else store_scu.echo
    route(destination, calling_ae_title=calling_ae_title)
