"""Which transport a destination is reached by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Final

from node.cases import DeliveryReceipt, EncodedObject, Transport
from node.deliver import deidentify, results_folder, store_scu, stow_client
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
    if not objects or destination.transport is not Transport.FOLDER:
        return
    if not destination.deidentify:
        results_folder.place(objects, files, destination)
        return
    with deidentify.copied_files(files, destination) as copies:
        results_folder.place(objects, copies, destination)


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
    SecretAbsentError
        It is to be de-identified, and the key cannot be read.
    """
    if destination.deidentify:
        with deidentify.copied(file, seg, destination) as (copy, copied):
            told = _send(copy, copied, destination, calling_ae_title, attempt)
        return replace(told, sop_instance_uid=seg.sop_instance_uid)  # what it is called here
    return _send(seg, file, destination, calling_ae_title, attempt)


def _send(
    seg: EncodedObject, file: Path, destination: Destination, calling_ae_title: str, attempt: int
) -> DeliveryReceipt:
    receipt: DeliveryReceipt = _ROUTES[destination.transport].send(
        seg, file, destination, calling_ae_title=calling_ae_title, attempt=attempt
    )
    return receipt


def echo(destination: Destination, *, calling_ae_title: str) -> None:
    """Ask the destination whether it is there; raises as `send` does."""
    _ROUTES[destination.transport].echo(destination, calling_ae_title=calling_ae_title)
