"""The C-STORE door: who may come in, what is accepted, how it opens and closes.

References
----------
DICOM PS3.4 Annex B (Storage Service Class), PS3.8 9.3 (association).
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from socketserver import BaseServer
from typing import Any, Self, TypeAlias

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
from node.receive.admission import Admission
from node.receive.association import StoreAssociation
from node.receive.instance import Intake
from node.reports import PUSH_MODEL
from node.spool import Spool
from node.tls import ServerTls

Networks: TypeAlias = Sequence[IPv4Network | IPv6Network]

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
        connection = self.request
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # saves 40 ms stalls
        if self.server.tls is not None:
            # The association's own thread shakes hands when it first reads, within its patience.
            connection = self.server.tls.context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        assoc = StoreAssociation(
            self.server.ae, connection, self.server.intake, self.server.admission
        )
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

    def __init__(
        self,
        ae: AE,
        address: tuple[str, int],
        intake: Intake,
        admission: Admission,
        *,
        receive: settings.Receive,
        tls: ServerTls | None,
    ) -> None:
        self._is_shared = receive.processes > 1
        super().__init__(
            ae,
            address,
            ae.ae_title,
            presentation_contexts(),
            request_handler=_RequestHandler,
        )
        self.intake, self.admission, self.tls = intake, admission, tls
        self._networks: Networks = [
            ipaddress.ip_network(one, strict=False) for one in receive.calling_addresses
        ]

    def server_bind(self) -> None:
        """Take the port; where processes share it, the kernel deals out the connections."""
        if self._is_shared and self.socket is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

    @property
    def associations(self) -> list[StoreAssociation]:
        """Return the running associations."""
        return [one for one in self.active_associations if isinstance(one, StoreAssociation)]

    def verify_request(self, request: object, client_address: tuple[str, int]) -> bool:
        """Return whether another connection may be held: from where it is allowed, and no flood.

        Where there are too many, the one that has been silent longest since it was opened makes
        room: a peer asks at once, and must not wait until a port scanner's connections have
        timed out.
        """
        del request
        if self._networks and not _is_within(str(client_address[0]), self._networks):
            logs.get().warning("association.rejected", reason="address not allowed")
            return False
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


def _is_within(address: str, networks: Networks) -> bool:
    found = ipaddress.ip_address(address)
    return any(found in network for network in networks)


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
    tls : ServerTls, optional
        What the port for TLS shows, where there is one.
    """

    def __init__(
        self,
        receive: settings.Receive,
        *,
        spool: Spool,
        ledger: Ledger,
        model_id: str,
        tls: ServerTls | None = None,
    ) -> None:
        self._settings = receive
        self._intake = Intake(
            spool, ledger, model_id=model_id, limit_bytes=receive.max_instance_bytes
        )
        self._tls = tls
        self._servers: list[_Server] = []
        self._threads: list[threading.Thread] = []

    @property
    def refused(self) -> dict[str, int]:
        """How often instances and associations were refused, by code."""
        return self._intake.refused

    @property
    def port(self) -> int:
        """The port that is listened on; the configured one before `start`."""
        return self._servers[0].server_address[1] if self._servers else self._settings.port

    @property
    def tls_port(self) -> int:
        """The port for TLS that is listened on."""
        return self._servers[1].server_address[1]

    def start(self) -> None:
        """Listen; what an earlier process left behind is `node.receive.reconcile`'s.

        Raises
        ------
        AddressUnavailableError
            The address cannot be listened on.
        """
        receive = self._settings
        doors: list[tuple[str, int, ServerTls | None]] = [(receive.host, receive.port, None)]
        if self._tls is not None:
            doors.append((receive.tls.host, receive.tls.port, self._tls))
        entity = self._entity()  # one for both: they share the limit of associations
        admission = Admission(receive, self._intake)  # of both, too
        for host, port, tls in doors:
            try:
                server = _Server(
                    entity, (host, port), self._intake, admission, receive=receive, tls=tls
                )
            except OSError as error:
                self._close()
                reason = error.strerror or type(error).__name__
                raise AddressUnavailableError(address=host, port=port, reason=reason) from error
            thread = threading.Thread(
                target=server.serve_forever, args=(_POLL_S,), name="receive", daemon=True
            )
            self._servers.append(server)
            self._threads.append(thread)
            thread.start()
            is_secure = {} if tls is None else {"kind": "tls"}
            logs.get().info("receive.started", port=server.server_address[1], **is_secure)

    def _close(self) -> None:
        """Stop accepting."""
        for server in self._servers:
            server.close()
        for thread in self._threads:
            thread.join()

    def stop(self, *, grace_s: float = 5.0) -> None:
        """Stop accepting, let running associations end within `grace_s`, then abort them."""
        if not self._servers:
            return
        self._close()
        deadline = time.monotonic() + grace_s
        for assoc in self._associations:
            assoc.join(max(deadline - time.monotonic(), 0))
        rest = self._associations
        for assoc in rest:
            assoc.hang_up()
        for assoc in rest:
            assoc.join(_ABORT_S)
        self._servers, self._threads = [], []
        logs.get().info("receive.stopped")

    @property
    def _associations(self) -> list[StoreAssociation]:
        return [assoc for server in self._servers for assoc in server.associations]

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
