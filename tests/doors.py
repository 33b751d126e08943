"""A real receiver to knock at, and a peer that speaks DICOM byte by byte, rightly or wrongly.

The peer is written from PS3.7 and PS3.8 alone and shares no code with the receiver.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pynetdicom.dsutils import encode

from node import settings
from node.ledger import Ledger
from node.receive.instance import Intake, Offer
from node.receive.reconcile import Reconciliation
from node.receive.scp import StorageScp
from node.spool import Spool
from node.tls import ServerTls

MODEL_ID = "door@1"
VERIFICATION = "1.2.840.10008.1.1"
_APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
_FRAGMENT = 16000


class Door:
    """A running receiver with its own spool and ledger."""

    def __init__(
        self,
        folder: Path,
        *,
        free_floor_bytes: int = 0,
        tls: ServerTls | None = None,
        database_url: str = "",
        **receive: object,
    ) -> None:
        self.spool = Spool(folder / "spool", free_floor_bytes=free_floor_bytes)
        self.ledger = Ledger(database_url or f"sqlite:///{folder / 'ledger.sqlite'}")
        values = {"port": 0, "idle_timeout_s": 10.0, **receive}
        self.scp = StorageScp(
            settings.Receive.model_validate(values),
            spool=self.spool,
            ledger=self.ledger,
            model_id=MODEL_ID,
            tls=tls,
        )
        limit_bytes = settings.Receive.model_validate(values).max_instance_bytes
        Reconciliation(self.spool, self.ledger, model_id=MODEL_ID, limit_bytes=limit_bytes).run()
        self.scp.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.scp.port

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.scp.stop(grace_s=1.0)
        self.ledger.close()

    def files(self) -> list[Path]:
        """Return every file of the spool, temporary ones included."""
        return sorted(path for path in self.spool.root.rglob("*") if path.is_file())

    def stored(self, ds: Dataset) -> Path:
        """Return the file of an instance that the ledger knows."""
        rows = self.ledger.study_instances(ds.StudyInstanceUID)
        row = next(row for row in rows if row.sop_instance_uid == ds.SOPInstanceUID)
        return self.spool.instance_path(row.path)

    def row_count(self) -> int:
        """Return how many instances the ledger knows."""
        studies = {case.study_instance_uid for case in self.ledger.cases(limit=10000)}
        return sum(len(self.ledger.study_instances(study)) for study in studies)


def make_instance(**changes: object) -> Dataset:
    """Return a small MR image with a sequence and a private block; None drops an attribute."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.PatientName, ds.PatientID, ds.Modality = "Door^Test", "DOOR", "MR"
    item = Dataset()
    item.CodeValue, item.CodeMeaning = "12738006", "Brain"
    ds.AnatomicRegionSequence = [item]
    ds.private_block(0x0029, "NEUROSEG TEST", create=True).add_new(1, "OB", bytes(100))
    ds.Rows = ds.Columns = 32
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation, ds.SamplesPerPixel = 15, 0, 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.PixelData = bytes(range(256)) * 8
    for keyword, value in changes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def encoded(
    ds: Dataset,
    *,
    is_implicit: bool = False,
    is_little_endian: bool = True,
    is_deflated: bool = False,
) -> bytes:
    """Return the bytes of a data set."""
    data = encode(ds, is_implicit, is_little_endian, is_deflated)
    if data is None:
        raise ValueError("pydicom cannot encode this data set")
    return data


def take_in(intake: Intake, ds: Dataset) -> None:
    """Have a data set received without any network."""
    offer = Offer(
        sop_class_uid=ds.SOPClassUID,
        sop_instance_uid=ds.SOPInstanceUID,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        calling_ae_title="PEER",
    )
    incoming = intake.begin(offer)
    incoming.write(encoded(ds))
    intake.keep(incoming)


class AbortedError(Exception):
    """The receiver ended the association or the connection."""


@dataclass(frozen=True)
class Answer:
    """A DIMSE response."""

    elements: Mapping[int, bytes]

    @property
    def status(self) -> int:
        """Status (0000,0900)."""
        return int.from_bytes(self.elements[0x0900], "little")

    @property
    def comment(self) -> str:
        """Error Comment (0000,0902), empty when absent."""
        return self.elements.get(0x0902, b"").decode("ascii").strip()


@dataclass
class Peer:
    """An SCU on a bare socket."""

    port: int
    contexts: Sequence[tuple[str, Sequence[str]]] = (
        (MRImageStorage, (ExplicitVRLittleEndian,)),
        (VERIFICATION, ("1.2.840.10008.1.2",)),
    )
    calling: bytes = b"PEER"
    called: bytes = b"NEUROSEG"
    max_length: int = 0
    accepted: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self.port), 20)
        self._message_id = 0

    def __enter__(self) -> Self:
        return self.associate()

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def associate(self) -> Self:
        """Open the association; `accepted` then maps context ids to transfer syntaxes."""
        self.socket.sendall(self.association_request())
        body = self._accepted_or_closed()
        for item_kind, item in _items(body[68:]):
            if item_kind == 0x21 and item[2] == 0:
                self.accepted[item[0]] = item[8:].decode("ascii")
        return self

    def _accepted_or_closed(self) -> bytes:
        try:
            return self._pdu_of_kind(2)
        except AbortedError:
            self.socket.close()
            raise

    def _pdu_of_kind(self, wanted: int) -> bytes:
        kind, body = self.read_pdu()
        if kind != wanted:
            raise AbortedError(f"PDU {kind}, {body.hex()}")
        return body

    def association_request(self) -> bytes:
        """Return an A-ASSOCIATE-RQ with contexts 1, 3, 5 ..."""
        items = _item(0x10, _APPLICATION_CONTEXT)
        for index, (abstract, syntaxes) in enumerate(self.contexts):
            content = bytes([2 * index + 1, 0, 0, 0]) + _item(0x30, abstract.encode())
            content += b"".join(_item(0x40, syntax.encode()) for syntax in syntaxes)
            items += _item(0x20, content)
        user = _item(0x51, struct.pack(">L", self.max_length)) + _item(0x52, b"1.2.3.4")
        items += _item(0x50, user)
        titles = self.called.ljust(16)[:16] + self.calling.ljust(16)[:16]
        return pdu(1, struct.pack(">HH", 1, 0) + titles + bytes(32) + items)

    def store(
        self,
        data: bytes,
        *,
        sop_class_uid: bytes = MRImageStorage.encode(),
        sop_instance_uid: bytes,
        context_id: int = 1,
        fragment: int = _FRAGMENT,
        has_data_set: bool = True,
    ) -> Answer:
        """Send an instance and return the response."""
        command = {
            0x0002: sop_class_uid,
            0x0100: struct.pack("<H", 0x0001),
            0x0110: self.next_message_id(),
            0x0700: struct.pack("<H", 0),
            0x0800: struct.pack("<H", 0 if has_data_set else 0x0101),
            0x1000: sop_instance_uid,
        }
        self.send_command(command, context_id)
        if has_data_set:
            pieces = [data[at : at + fragment] for at in range(0, len(data), fragment)] or [b""]
            for piece in pieces[:-1]:
                self.socket.sendall(pdv(context_id, 0, piece))
            self.socket.sendall(pdv(context_id, 2, pieces[-1]))
        return self.read_response()

    def begin_store(self) -> None:
        """Send the command of an instance whose data set is to follow."""
        command = {
            0x0002: MRImageStorage.encode(),
            0x0100: struct.pack("<H", 1),
            0x0110: self.next_message_id(),
            0x0800: struct.pack("<H", 0),
            0x1000: b"1.2.3",
        }
        self.send_command(command, 1)

    def store_dataset(self, ds: Dataset) -> Answer:
        """Send a data set that speaks the truth about itself."""
        return self.store(encoded(ds), sop_instance_uid=ds.SOPInstanceUID.encode())

    def echo(self, context_id: int = 3) -> Answer:
        """Verify."""
        command = {
            0x0002: VERIFICATION.encode(),
            0x0100: struct.pack("<H", 0x0030),
            0x0110: self.next_message_id(),
            0x0800: struct.pack("<H", 0x0101),
        }
        self.send_command(command, context_id)
        return self.read_response()

    def next_message_id(self) -> bytes:
        """Return an encoded message id that was not used yet."""
        self._message_id += 1
        return struct.pack("<H", self._message_id)

    def send_command(self, elements: Mapping[int, bytes | None], context_id: int) -> None:
        """Send a command set in one fragment; an element of value None is left out."""
        self.socket.sendall(pdv(context_id, 3, command_set(elements)))

    def read_response(self) -> Answer:
        """Return the next response, joined from its fragments."""
        content = b""
        while True:
            body = self._pdu_of_kind(4)
            while body:
                (length,) = struct.unpack_from(">L", body)
                content += body[6 : 4 + length]
                if body[5] & 2:
                    return Answer(dict(_elements(content)))
                body = body[4 + length :]

    def release(self) -> None:
        """End the association in order."""
        self.socket.sendall(pdu(5, bytes(4)))
        self._pdu_of_kind(6)

    def read_pdu(self) -> tuple[int, bytes]:
        """Return type and content of the next PDU."""
        head = self._read(6)
        return head[0], self._read(int.from_bytes(head[2:6], "big"))

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                piece = self.socket.recv(count - len(data))
            except ConnectionError as error:
                raise AbortedError("connection lost") from error
            if not piece:
                raise AbortedError("connection closed")
            data += piece
        return data


def pdu(kind: int, content: bytes) -> bytes:
    """Return a PDU (PS3.8 9.3)."""
    return struct.pack(">BBL", kind, 0, len(content)) + content


def pdv(context_id: int, header: int, content: bytes) -> bytes:
    """Return a P-DATA-TF PDU of one fragment (PS3.8 9.3.5, E.2)."""
    return pdu(4, struct.pack(">LBB", len(content) + 2, context_id, header) + content)


def command_set(elements: Mapping[int, bytes | None]) -> bytes:
    """Return a command set with its group length (PS3.7 6.3.1)."""
    body = b""
    for number, value in sorted(elements.items()):
        if value is not None:
            even = value + b"\0" * (len(value) % 2)
            body += struct.pack("<HHL", 0, number, len(even)) + even
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


def _items(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        kind, _, length = struct.unpack_from(">BBH", data)
        found.append((kind, data[4 : 4 + length]))
        data = data[4 + length :]
    return found


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        _, number, length = struct.unpack_from("<HHL", data)
        found.append((number, data[8 : 8 + length]))
        data = data[8 + length :]
    return found
