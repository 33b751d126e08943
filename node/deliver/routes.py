"""Which transport a destination is reached by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Final

from node.cases import DeliveryReceipt, EncodedObject, Transport
from node.deliver import results_folder, store_scu, stow_client
from node.peers import Destination

_ROUTES: Final[dict[Transport, ModuleType]] = {
    Transport.DIMSE: store_scu,
    Transport.STOW: stow_client,
    Transport.FOLDER: results_folder,
}


def prepare(
    objects: Sequence[EncodedObject], files: Sequence[Path], destination: Destination
) -> None:
    """Put everything that a folder is to get into it; nothing to do for other destinations.

    Parameters
    ----------
    objects, files, destination
        See `results_folder.place`.
    """
    if objects and destination.transport is Transport.FOLDER:
        results_folder.place(objects, files, destination)


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
    FolderUnavailableError
        What `prepare` put there is not there.
    """
    receipt: DeliveryReceipt = _ROUTES[destination.transport].send(
        seg, file, destination, calling_ae_title=calling_ae_title, attempt=attempt
    )
    return receipt


def echo(destination: Destination, *, calling_ae_title: str) -> None:
    """Ask the destination whether it is there; raises as `send` does."""
    _ROUTES[destination.transport].echo(destination, calling_ae_title=calling_ae_title)
