"""C-FIND: what a PACS says it has.

References
----------
DICOM PS3.4 C.4.1 (C-FIND), C.6.2 (Study Root).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association

from node.deliver import store_scu
from node.dimse import Status
from node.errors import PeerRefusedError, PeerUnavailableError
from node.peers import Destination

STUDY_ROOT_FIND: Final = UID("1.2.840.10008.5.1.4.1.2.2.1")
PLAIN: Final = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
_PENDING: Final = (0xFF00, 0xFF01)  # PS3.4 C.4.1.1.4; the second: an optional key is not supported


def query(level: str, wanted: Iterable[str], **keys: str) -> Dataset:
    """Return an identifier: `keys` are to match, `wanted` are keywords of what is to be told."""
    ds = Dataset()
    ds.QueryRetrieveLevel = level
    for keyword in wanted:
        setattr(ds, keyword, None)
    for keyword, value in keys.items():
        setattr(ds, keyword, value)
    return ds


def find(peer: Destination, calling_ae_title: str, identifier: Dataset) -> list[Dataset]:
    """Return what a PACS answers, over an association of its own.

    Raises
    ------
    PeerUnavailableError, PeerRefusedError
        No usable answer.
    """
    contexts = [(STUDY_ROOT_FIND, PLAIN)]
    with store_scu.open_association(peer, calling_ae_title, contexts, peer.timeout_s) as assoc:
        return find_over(assoc, peer, identifier)


def find_over(assoc: Association, peer: Destination, identifier: Dataset) -> list[Dataset]:
    """Return what a PACS answers; raises as `find` does, and when the whole takes too long."""
    until = time.monotonic() + peer.timeout_s
    answers: list[Dataset] = []
    try:
        for status, answer in assoc.send_c_find(identifier, STUDY_ROOT_FIND):
            _check(status, peer, until)
            if answer is not None:
                answers.append(answer)
                until = time.monotonic() + peer.timeout_s
    except ValueError as error:
        raise PeerRefusedError(destination=peer.name, status="C-FIND not accepted") from error
    except RuntimeError as error:
        raise PeerUnavailableError(destination=peer.name, reason="association ended") from error
    return answers


def _check(status: Dataset, peer: Destination, until: float) -> None:
    """Raise unless the answer goes on or is complete; an empty one means that none came."""
    if "Status" not in status or time.monotonic() > until:
        raise PeerUnavailableError(
            destination=peer.name, reason=f"no answer within {peer.timeout_s:.0f} s"
        )
    if status.Status not in (Status.SUCCESS, *_PENDING):
        raise PeerRefusedError(destination=peer.name, status=f"0x{status.Status:04X}")
