"""Peers that behave as a test tells them, and a small object to send to them."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import SSLContext
from typing import Self

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pynetdicom import AllStoragePresentationContexts, build_role, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse_messages import N_ACTION_RSP
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ, P_DATA_TF
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at run time
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    Verification,
)

from node.cases import EncodedObject, ObjectKind, Transport
from node.peers import Destination

LOOPBACK = "127.0.0.1"
_PDU_HEADER_BYTES = 6
_GROUP_LENGTH_VALUE_AT = 140  # preamble 128, DICM 4, tag 4, VR 2, length 2
_META_BEGINS_AT = 144


def small_object(
    folder: Path, *, side: int = 64, transfer_syntax: UID = ExplicitVRLittleEndian
) -> tuple[EncodedObject, Path]:
    """Write a valid MR image of side x side pixels; return what it is and where it lies."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = transfer_syntax
    ds.SOPClassUID = MRImageStorage
    ds.SOPInstanceUID = generate_uid()
    ds.StudyInstanceUID = generate_uid()
    ds.SeriesInstanceUID = generate_uid()
    ds.Modality = "MR"
    ds.PatientID = "PHANTOM"
    ds.PatientName = "Phantom^Delivery"
    ds.Rows = ds.Columns = side
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.PixelRepresentation = 0
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.PixelData = np.arange(side * side, dtype=np.uint16).tobytes()
    path = folder / "seg.dcm"
    ds.save_as(path, enforce_file_format=True)
    return described(ds, path), path


def described(ds: Dataset, path: Path) -> EncodedObject:
    """Return what an object on disk is."""
    return EncodedObject(
        case_id="a" * 32,
        kind=ObjectKind.SEG,
        path=path.name,
        sop_class_uid=ds.SOPClassUID,
        sop_instance_uid=ds.SOPInstanceUID,
        series_instance_uid=ds.SeriesInstanceUID,
        study_instance_uid=ds.StudyInstanceUID,
        transfer_syntax_uid=ds.file_meta.TransferSyntaxUID,
        byte_count=path.stat().st_size,
        sha256="",
    )


def data_set_bytes(path: Path) -> bytes:
    """Return what follows the File Meta Information, as it is encoded (PS3.10 7.1)."""
    content = path.read_bytes()
    meta_length = int.from_bytes(content[_GROUP_LENGTH_VALUE_AT:_META_BEGINS_AT], "little")
    return content[_META_BEGINS_AT + meta_length :]


def dimse_destination(port: int, *, timeout_s: float = 5.0) -> Destination:
    """Return a C-STORE destination on loopback."""
    return Destination(
        name="pacs", transport=Transport.DIMSE, host=LOOPBACK, port=port, timeout_s=timeout_s
    )


def stow_destination(url: str, *, timeout_s: float = 5.0, **more: str) -> Destination:
    """Return a STOW-RS destination; `more` are its credentials."""
    return Destination.model_validate(
        {"name": "pacs", "transport": "stow", "url": url, "timeout_s": timeout_s, **more}
    )


def closed_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server((LOOPBACK, 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def dimse_peer(
    on_store: Callable[[evt.Event], int],
    *,
    sop_class: str = MRImageStorage,
    transfer_syntax: str = ExplicitVRLittleEndian,
    called_ae_title: str | None = None,
) -> Iterator[int]:
    """Run an SCP that answers C-STORE as `on_store` says; yield its port."""
    entity = ApplicationEntity(called_ae_title or "PACS")
    entity.require_called_aet = called_ae_title is not None
    entity.add_supported_context(Verification)
    entity.add_supported_context(sop_class, transfer_syntax)
    handlers: list[evt.EventHandlerType] = [(evt.EVT_C_STORE, on_store)]
    server = entity.start_server((LOOPBACK, 0), block=False, evt_handlers=handlers)
    assert server is not None
    try:
        yield int(server.server_address[1])
    finally:
        entity.shutdown()


@dataclass(frozen=True, kw_only=True)
class Question:
    """A storage commitment request that a peer has taken; `report` answers it."""

    transaction_uid: str
    references: tuple[tuple[str, str], ...]  # SOP class, SOP instance
    association: Association

    @property
    def sop_instance_uids(self) -> set[str]:
        """The objects that it asks for."""
        return {uid for _, uid in self.references}

    def information(
        self, failures: Mapping[str, int] | None = None, *, left_out: Sequence[str] = ()
    ) -> Dataset:
        """Return the data set of a report: everything is kept but the failures (PS3.4 J.3.3)."""
        ds = Dataset()
        ds.TransactionUID = self.transaction_uid
        ds.ReferencedSOPSequence, failed = [], []
        for sop_class, uid in self.references:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
            if uid in (failures or {}):
                item.FailureReason = (failures or {})[uid]
                failed.append(item)
            elif uid not in left_out:
                ds.ReferencedSOPSequence.append(item)
        if failed:
            ds.FailedSOPSequence = failed
        return ds

    def report(self, failures: Mapping[str, int] | None = None) -> int:
        """Report over the association that the question came by; return the answer's status."""
        return _send_report(self.association, self.information(failures))


def _send_report(association: Association, information: Dataset) -> int:
    kind = 2 if "FailedSOPSequence" in information else 1
    answer, _ = association.send_n_event_report(
        information, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
    )
    return int(answer.Status) if "Status" in answer else -1


def report_to(
    port: int, information: Dataset, *, ae_title: str = "PACS", selects_role: bool = True
) -> int:
    """Open an association as SCP of storage commitment, report over it; return the status."""
    entity = ApplicationEntity(ae_title)
    entity.add_requested_context(StorageCommitmentPushModel)
    role = build_role(StorageCommitmentPushModel, scp_role=True)
    association = entity.associate(
        LOOPBACK, port, ae_title="NEUROSEG", ext_neg=[role] if selects_role else None
    )
    assert association.is_established
    if not selects_role:  # the library would not send a report as SCU
        association.accepted_contexts[0]._as_scp = True
    status = _send_report(association, information)
    association.release()
    return status


class CommittingPeer:
    """An archive that stores, and answers storage commitment as it is told; a context manager.

    Parameters
    ----------
    answer : callable
        Called on a thread of its own once the question is acknowledged.
    status : int
        What the question itself is answered.
    """

    def __init__(self, answer: Callable[[Question], object], *, status: int = 0) -> None:
        self.arrivals: Counter[str] = Counter()
        self.questions: list[Question] = []
        self.port = 0
        self._answer, self._status = answer, status
        self._is_acknowledging = False
        self._threads: list[threading.Thread] = []
        self._entity = ApplicationEntity("PACS")
        self._entity.add_supported_context(StorageCommitmentPushModel)
        for context in AllStoragePresentationContexts:
            self._entity.add_supported_context(str(context.abstract_syntax))

    def __enter__(self) -> Self:
        """Listen."""
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_N_ACTION, self._take),
            (evt.EVT_DIMSE_SENT, self._acknowledge),
            (evt.EVT_PDU_SENT, self._sent),
        ]
        server = self._entity.start_server((LOOPBACK, 0), block=False, evt_handlers=handlers)
        assert server is not None
        self.port = int(server.server_address[1])
        return self

    def __exit__(self, *_: object) -> None:
        """End with everything that still answers."""
        for thread in self._threads:
            thread.join()
        self._entity.shutdown()

    def _store(self, event: evt.Event) -> int:
        assert isinstance(event.request, C_STORE)
        self.arrivals[str(event.request.AffectedSOPInstanceUID)] += 1
        return 0

    def _take(self, event: evt.Event) -> tuple[int, None]:
        asked = event.action_information
        references = tuple(
            (str(one.ReferencedSOPClassUID), str(one.ReferencedSOPInstanceUID))
            for one in asked.ReferencedSOPSequence
        )
        self.questions.append(
            Question(
                transaction_uid=str(asked.TransactionUID),
                references=references,
                association=event.assoc,
            )
        )
        return self._status, None

    def _acknowledge(self, event: evt.Event) -> None:
        self._is_acknowledging = isinstance(event.message, N_ACTION_RSP) and self._status == 0

    def _sent(self, event: evt.Event) -> None:
        """Answer once the acknowledgement is on its way, so that it arrives first."""
        if self._is_acknowledging and isinstance(event.pdu, P_DATA_TF):
            self._is_acknowledging = False
            thread = threading.Thread(target=self._answer, args=(self.questions[-1],))
            self._threads.append(thread)
            thread.start()


@contextmanager
def tcp_peer(behave: Callable[[socket.socket], object]) -> Iterator[int]:
    """Accept one connection and treat it as `behave` says; hold it open until the end."""
    listener = socket.create_server((LOOPBACK, 0))
    over = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            behave(connection)
            over.wait(60.0)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        over.set()
        thread.join()
        listener.close()


def accept_association(connection: socket.socket) -> None:
    """Read an A-ASSOCIATE-RQ and accept all its contexts, then leave the connection alone."""
    header = _read(connection, _PDU_HEADER_BYTES)
    request = A_ASSOCIATE_RQ()
    request.decode(header + _read(connection, int.from_bytes(header[2:], "big")))
    primitive = request.to_primitive()
    primitive.result = 0x00
    results = [_accepted(one) for one in primitive.presentation_context_definition_list]
    primitive.presentation_context_definition_results_list = results
    answer = A_ASSOCIATE_AC()
    answer.from_primitive(primitive)
    connection.sendall(answer.encode())


def _accepted(proposed: PresentationContext) -> PresentationContext:
    proposed.transfer_syntax = list(proposed.transfer_syntax[:1])
    proposed.result = 0x00
    return proposed


def _read(connection: socket.socket, byte_count: int) -> bytes:
    content = b""
    while len(content) < byte_count:
        content += connection.recv(byte_count - len(content))
    return content


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What an HTTP peer answers."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What an HTTP peer was asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class HttpPeer:
    """An HTTP server on loopback that replies and remembers: the same to everything, or by path."""

    def __init__(
        self,
        reply: Reply | Callable[[str], Reply],
        *,
        before: Callable[[], object] = lambda: None,
        tls: SSLContext | None = None,
    ) -> None:
        self.requests: list[Request] = []
        self._server = ThreadingHTTPServer((LOOPBACK, 0), _handler(self.requests, reply, before))
        self._server.daemon_threads = False
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://{LOOPBACK}:{self._server.server_address[1]}/dicom-web"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(
    requests: list[Request], reply: Reply | Callable[[str], Reply], before: Callable[[], object]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = dict(self.headers.items())
            requests.append(
                Request(method=self.command, path=self.path, headers=headers, body=body)
            )
            before()
            said = reply if isinstance(reply, Reply) else reply(self.path)
            self.send_response(said.status)
            for name, value in {"Content-Length": str(len(said.body)), **said.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said.body)

        do_GET = do_POST = answer  # noqa: N815 - the names that the base class looks for

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


def stored_answer(sop_instance_uid: str, *, warning_reason: int | None = None) -> Dataset:
    """Return a Store Instances Response that names one stored instance (PS3.18 I.2)."""
    item = Dataset()
    item.ReferencedSOPClassUID = MRImageStorage
    item.ReferencedSOPInstanceUID = sop_instance_uid
    if warning_reason is not None:
        item.WarningReason = warning_reason
    answer = Dataset()
    answer.ReferencedSOPSequence = [item]
    return answer


def failed_answer(sop_instance_uid: str, failure_reason: int) -> Dataset:
    """Return a Store Instances Response that names one failed instance."""
    item = Dataset()
    item.ReferencedSOPInstanceUID = sop_instance_uid
    item.FailureReason = failure_reason
    answer = Dataset()
    answer.FailedSOPSequence = [item]
    return answer


def json_reply(answer: Dataset, *, status: int = 200, media_type: str = "") -> Reply:
    """Return an answer in the DICOM JSON Model."""
    headers = {"Content-Type": media_type or "application/dicom+json"}
    return Reply(status=status, body=answer.to_json().encode(), headers=headers)
