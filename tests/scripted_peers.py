"""Peers that behave as a test tells them, and a small object to send to them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import SSLContext
from typing import Self

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at run time

from node.cases import EncodedObject, ObjectKind, Transport
from node.settings import Destination

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
    """An HTTP server on loopback that gives the same reply to everything, and remembers it."""

    def __init__(
        self,
        reply: Reply,
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
    requests: list[Request], reply: Reply, before: Callable[[], object]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = dict(self.headers.items())
            requests.append(
                Request(method=self.command, path=self.path, headers=headers, body=body)
            )
            before()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

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
