"""The C-STORE door: who may come in, what is accepted, how it opens and closes.

References
----------
DICOM PS3.4 Annex B (Storage Service Class), PS3.8 9.3 (association).
"""

from __future__ import annotations

import socket
import threading
import time
from socketserver import BaseServer
from typing import Any, Self

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, VerificationPresentationContexts
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.transport import AssociationServer, RequestHandler

from node import logs, settings
from node.dimse import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.errors import AddressUnavailableError
from node.ledger import Ledger
from node.receive.accepted import storage_classes, transfer_syntaxes
from node.receive.association import StoreAssociation
from node.receive.instance import Intake
from node.reports import PUSH_MODEL
from node.spool import Spool

_MAX_ACSE_TIMEOUT_S = 15.0
_SPARE_CONNECTIONS = 10  # beyond the allowed associations, so that their peers get a rejection
_BACKLOG = 128
_POLL_S = 0.1
_ABORT_S = 2.0


class _Contexts(list[PresentationContext]):
    """Contexts that nobody changes; copying them cost 50 ms per association."""

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        return self


def presentation_contexts() -> list[PresentationContext]:
    """Return what the node accepts: verification, every storage class in every syntax, reports.

    Reports are those of storage commitment, from peers that are its SCP.

    The acceptor's order decides where a peer offers several syntaxes at once: uncompressed first,
    explicit before implicit.
    """
    syntaxes = sorted(transfer_syntaxes(), key=lambda uid: uid != ExplicitVRLittleEndian)
    classes = [
        *(one.abstract_syntax for one in VerificationPresentationContexts),
        *storage_classes(),
    ]
    commitment = build_context(PUSH_MODEL, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    # The peer answers what we asked it: it opens the association and is the SCP (PS3.4 J.3.3).
    commitment.scu_role, commitment.scp_role = False, True
    stored = [build_context(uid, syntaxes) for uid in classes if uid is not None]
    return _Contexts([*stored, commitment])


class _RequestHandler(RequestHandler):
    """Makes an accepted connection one of our associations."""

    server: _Server

    def _create_association(self) -> StoreAssociation:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # saves 40 ms stalls
        assoc = StoreAssociation(self.server.ae, self.request, self.server.intake)
        assoc._server = self.server  # noqa: SLF001 - how the library finds its associations
        assoc.name = f"AcceptorThread@{self.client_address[1]}"
        assoc.acceptor.maximum_length = self.ae.maximum_pdu_size
        assoc.acceptor.ae_title = self.server.ae_title
        assoc.acceptor.address_info = self.local
        assoc.acceptor.implementation_class_uid = self.ae.implementation_class_uid
        assoc.acceptor.implementation_version_name = self.ae.implementation_version_name
        assoc.acceptor.supported_contexts = self.server.contexts
        assoc.requestor.address_info = self.remote
        return assoc


class _Server(AssociationServer):
    """Accepts connections on one thread; each association has its own two."""

    request_queue_size = _BACKLOG

    def __init__(self, ae: AE, address: tuple[str, int], intake: Intake) -> None:
        super().__init__(
            ae,
            address,
            ae.ae_title,
            presentation_contexts(),
            request_handler=_RequestHandler,
        )
        self.intake = intake

    @property
    def associations(self) -> list[StoreAssociation]:
        """Return the running associations."""
        return [one for one in self.active_associations if isinstance(one, StoreAssociation)]

    def verify_request(self, request: object, client_address: object) -> bool:
        """Return whether another connection may be held; a flood is not.

        Where there are too many, the one that has been silent longest since it was opened makes
        room: a peer asks at once, and must not wait until a port scanner's connections have
        timed out.
        """
        del request, client_address
        held = self.associations
        limit = self.ae.maximum_associations + _SPARE_CONNECTIONS
        if len(held) < limit:
            return True
        silent = [one for one in held if one.is_silent]
        if silent and len(held) < 2 * limit:  # those that were dropped end on their own threads
            silent[0].drop()
            return True
        logs.get().warning("association.rejected", reason="too many connections")
        return False

    def handle_error(self, request: object, client_address: object) -> None:
        """Log that a connection was lost while it was being accepted."""
        del request, client_address
        logs.get().warning("association.rejected", reason="the connection was lost")

    def close(self) -> None:
        """Stop accepting and free the port."""
        BaseServer.shutdown(self)
        self.server_close()


class _Entity(AE):
    """Ours; a connection that has not asked for an association yet takes nobody's place."""

    @property
    def active_associations(self) -> list[Association]:
        """Return the associations that the library holds against `maximum_associations`."""
        held = super().active_associations
        return [one for one in held if not (isinstance(one, StoreAssociation) and one.is_silent)]


class StorageScp:
    """The node's Storage and Verification SCP.

    Parameters
    ----------
    receive : settings.Receive
        Address, AE title, limits.
    spool, ledger : Spool, Ledger
        Where instances go.
    model_id : str
        The model whose cases the instances open.
    """

    def __init__(
        self, receive: settings.Receive, *, spool: Spool, ledger: Ledger, model_id: str
    ) -> None:
        self._settings = receive
        self._intake = Intake(
            spool, ledger, model_id=model_id, limit_bytes=receive.max_instance_bytes
        )
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that is listened on; the configured one before `start`."""
        return self._settings.port if self._server is None else self._server.server_address[1]

    def start(self) -> None:
        """Listen; what an earlier process left behind is `node.receive.reconcile`'s.

        Raises
        ------
        AddressUnavailableError
            The address cannot be listened on.
        """
        address = (self._settings.host, self._settings.port)
        try:
            self._server = _Server(self._entity(), address, self._intake)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise AddressUnavailableError(
                address=address[0], port=address[1], reason=reason
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="receive", daemon=True
        )
        self._thread.start()
        logs.get().info("receive.started", port=self.port)

    def stop(self, *, grace_s: float = 5.0) -> None:
        """Stop accepting, let running associations end within `grace_s`, then abort them."""
        if self._server is None or self._thread is None:
            return
        self._server.close()
        self._thread.join()
        deadline = time.monotonic() + grace_s
        for assoc in self._server.associations:
            assoc.join(max(deadline - time.monotonic(), 0))
        rest = self._server.associations
        for assoc in rest:
            assoc.hang_up()
        for assoc in rest:
            assoc.join(_ABORT_S)
        self._server = self._thread = None
        logs.get().info("receive.stopped")

    def _entity(self) -> AE:
        receive = self._settings
        idle_s = receive.idle_timeout_s or None  # 0 waits for ever
        entity = _Entity(receive.ae_title)
        entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        entity.maximum_pdu_size = receive.max_pdu_bytes
        entity.maximum_associations = receive.max_associations
        entity.network_timeout = entity.dimse_timeout = idle_s
        entity.acse_timeout = min(idle_s or _MAX_ACSE_TIMEOUT_S, _MAX_ACSE_TIMEOUT_S)
        entity.require_called_aet = receive.check_called_ae_title
        entity.require_calling_aet = list(receive.calling_ae_titles)
        return entity
