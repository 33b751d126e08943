"""Associations that we open: their library's two threads made to keep out of each other's way."""

from __future__ import annotations

import ssl
import threading
from typing import cast

from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.transport import AddressInformation, AssociationSocket


class Checkpoint:
    """What the library's `threading.Event` between reactor and sender shall be, without its gap.

    Whoever sends a request clears the checkpoint, waits until the reactor rests at it, and then
    waits for the answer. An Event that is set and cleared at once still lets go who waits for it,
    only later: the reactor, believed at rest, then takes the answer of the next request for a
    request, drops it, and the sender waits for it until it gives up (pynetdicom's issue 875). Here
    nobody passes once it is cleared, and who passes is at rest no more in the same moment.

    It is the reactor that ends an association whose connection is gone. A sender that hears of it
    therefore waits for that end: with a next request it would stop the reactor before its round,
    and so wait for each of its answers in vain.
    """

    def __init__(self, assoc: Association) -> None:
        self._assoc = assoc
        self._changed = threading.Condition()
        self._is_open = True

    def set(self) -> None:
        """Let the reactor run; to its end, where the association is aborted."""
        with self._changed:
            self._is_open = True
            self._changed.notify_all()
        is_reactor = threading.current_thread() is self._assoc
        if self._assoc.is_established and not is_reactor and self._assoc.acse.is_aborted():
            self._assoc.join()

    def clear(self) -> None:
        """Stop the reactor at its next round."""
        with self._changed:
            self._is_open = False

    def wait(self) -> None:
        """Rest until the reactor may run, and say that it does."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_open)
            self._assoc._is_paused = False  # noqa: SLF001 - what the sender looks at


class RequestingEntity(ApplicationEntity):
    """An application entity whose associations lose no answer, however fast the peer is."""

    def _create_socket(
        self,
        assoc: Association,
        address: AddressInformation,
        tls_args: tuple[ssl.SSLContext, str] | None,
    ) -> AssociationSocket:
        assoc._reactor_checkpoint = cast("threading.Event", Checkpoint(assoc))  # noqa: SLF001
        held = self._socket(assoc, address)
        held.tls_args = tls_args
        return held

    def _socket(self, assoc: Association, address: AddressInformation) -> AssociationSocket:
        return AssociationSocket(assoc, address=address)
