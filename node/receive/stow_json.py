"""STOW-RS in the other form: DICOM JSON metadata first, then the bulk data that it refers to.

Nothing is stored before the request is whole; then each instance is encoded (Explicit VR Little
Endian, UTF-8) and goes the way of a DICOM file. Pixels come uncompressed.

References
----------
DICOM PS3.18 8.7.3 (bulk data), 10.5.1.1 (request), F.2 (DICOM JSON model).
"""

from __future__ import annotations

import io
import json
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from node.door_errors import StowInvalidError
from node.errors import (
    InstanceTooLargeError,
    InstanceUnreadableError,
    NodeError,
    TransferSyntaxUnsupportedError,
)
from node.receive.commit import on_the_spool
from node.receive.dataset import checked_uid
from node.receive.encoded import refuse
from node.receive.instance import Intake, Offer, file_meta
from node.receive.stow import Part, Sender, StoreRequest, media_type_of

MEDIA_TYPE: Final = b"application/dicom+json"
_BULK_TYPE: Final = b"application/octet-stream"
_LARGEST_METADATA: Final = 64 * 2**20
_LARGEST_INSTANCE: Final = 256 * 2**20  # it is held in memory, unlike a DICOM file
_MOST_INSTANCES: Final = 50_000
_SYNTAXES: Final = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_UNREADABLE: Final = (
    *(ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError),
    *(NotImplementedError, RecursionError, struct.error),
)
"""What the library raises on metadata that is no data set, or cannot be encoded."""


class _Bulk:
    """A part with bulk data, on its way to a temporary file."""

    def __init__(self, path: Path, *, limit_bytes: int) -> None:
        self.path, self.byte_count, self._limit_bytes = path, 0, limit_bytes
        with on_the_spool:
            self._file: BinaryIO = path.open("xb")

    def write(self, fragment: memoryview) -> None:
        """Append the next bytes; what is too much is counted alone."""
        self.byte_count += len(fragment)
        if self.byte_count <= self._limit_bytes:
            with on_the_spool:
                self._file.write(fragment)

    def content(self) -> bytes:
        """Return all of it."""
        if self.byte_count > self._limit_bytes:
            raise InstanceTooLargeError(limit_bytes=self._limit_bytes)
        with on_the_spool:
            return self.path.read_bytes()

    def end(self) -> None:
        """Close the file."""
        with on_the_spool:
            self._file.close()

    def discard(self) -> None:
        """Leave nothing behind."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


class MetadataRequest(StoreRequest):
    """One request in this form."""

    def __init__(self, intake: Intake, sender: Sender) -> None:
        super().__init__(intake, sender)
        self._metadata = bytearray()
        self._bulk: dict[str, _Bulk] = {}
        self._open: _Bulk | None = None
        self._is_metadata = False

    def begin(self, headers: dict[bytes, bytes]) -> None:
        """Take the headers of the next part."""
        kind = media_type_of(headers, MEDIA_TYPE)
        self._is_metadata = kind == MEDIA_TYPE
        with self._turn:
            if self._is_metadata or kind != _BULK_TYPE or len(self._bulk) >= _MOST_INSTANCES:
                return  # bulk data of another type is missed by the instance that it belongs to
            limit = min(_LARGEST_INSTANCE, self._intake.limit_bytes)
            self._open = _Bulk(self._intake.new_part(), limit_bytes=limit)
            address = headers.get(b"content-location", b"").decode("utf-8", "replace")
            earlier = self._bulk.pop(address, None)
            if earlier is not None:
                earlier.discard()
            self._bulk[address] = self._open

    def write(self, fragment: memoryview) -> None:
        """Take the next bytes of the part."""
        with self._turn:
            if self._open is not None:
                self._open.write(fragment)
            elif self._is_metadata:
                self._metadata += fragment
                if len(self._metadata) > _LARGEST_METADATA:
                    raise StowInvalidError(reason="its metadata is too long")

    def end(self) -> None:
        """Know that the part is whole."""
        with self._turn:
            part, self._open = self._open, None
            if part is not None:
                part.end()

    def finish(self) -> None:
        """Store what the metadata describes.

        Raises
        ------
        StowInvalidError
            It is no list of data sets.
        """
        try:
            items = json.loads(self._metadata)
        except (ValueError, RecursionError) as error:
            raise StowInvalidError(reason="its metadata is no JSON") from error
        self._metadata.clear()
        if not isinstance(items, list) or len(items) > _MOST_INSTANCES:
            raise StowInvalidError(reason="its metadata is no list of data sets, or too long")
        for item in items:
            self._store(item)
        super().finish()

    def close(self) -> None:
        """Forget the bulk data."""
        with self._turn:
            for one in self._bulk.values():
                one.discard()
            self._bulk.clear()

    def _store(self, item: object) -> None:
        uids = "", ""
        try:
            ds = self._data_set(item)
            uids = _uid(ds, "SOPClassUID"), _uid(ds, "SOPInstanceUID")
            offer = Offer(
                sop_class_uid=uids[0],
                sop_instance_uid=uids[1],
                transfer_syntax_uid=ExplicitVRLittleEndian,
                calling_ae_title=self._sender.calling_ae_title,
            )
            content = file_meta(offer) + _encoded(ds)
        except NodeError as error:
            part = Part(self._intake, self._sender, error)
            part.sop_class_uid, part.sop_instance_uid = uids
        else:
            part = Part(self._intake, self._sender, None)
            part.write(memoryview(content))
        self._note(*part.end())

    def _data_set(self, item: object) -> Dataset:
        """Return the data set of an item, its bulk data in place."""
        if not isinstance(item, dict):
            refuse("its metadata is no data set")
        syntax = _value(item.pop("00020010", None)) or str(ExplicitVRLittleEndian)
        if syntax not in _SYNTAXES:
            raise TransferSyntaxUnsupportedError
        known = {key: value for key, value in item.items() if not key.startswith("0002")}
        try:
            return Dataset.from_json(known, self._bulk_data)
        except _UNREADABLE as error:
            raise InstanceUnreadableError(reason="its metadata is no data set") from error

    def _bulk_data(self, _: str, __: str, address: str) -> bytes:
        """Return the value that is a part of its own; each is used once."""
        with self._turn:
            part = self._bulk.pop(address, None)
        if part is None:
            refuse("bulk data that it refers to is missing or of a type that is not taken")
        try:
            return part.content()
        finally:
            part.discard()


def _uid(ds: Dataset, keyword: str) -> str:
    return checked_uid(str(ds.get(keyword) or "").encode("utf-8", "replace"), keyword)


def _value(element: Any) -> str:  # noqa: ANN401 - whatever a peer has put into its JSON
    """Return the first value of an element, empty where there is none."""
    values = element.get("Value") if isinstance(element, dict) else None
    return str(values[0]) if isinstance(values, list) and values else ""


def _encoded(ds: Dataset) -> bytes:
    """Return a data set in Explicit VR Little Endian; JSON is UTF-8, and so is this."""
    stream = io.BytesIO()
    try:
        ds.SpecificCharacterSet = "ISO_IR 192"
        pydicom.dcmwrite(stream, ds, implicit_vr=False, little_endian=True)
    except _UNREADABLE as error:
        raise InstanceUnreadableError(reason="its metadata cannot be encoded") from error
    return stream.getvalue()
