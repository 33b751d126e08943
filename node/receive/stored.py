"""Reads an instance back from the spool: what it says of itself, and whether it is whole."""

from __future__ import annotations

import hashlib
import mmap
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from node.cases import ReceivedInstance
from node.errors import InstanceMismatchError, InstanceUnreadableError
from node.filing import InstanceFile
from node.receive.dataset import checked_uid, read_identifiers
from node.receive.instance import Offer, file_meta
from node.receive.part10 import (
    LARGEST_HEAD,
    SOP_INSTANCE_UID,
    SOURCE_AE,
    TRANSFER_SYNTAX_UID,
    read_meta,
)

_TITLE_LENGTH: Final = 16
_BLOCK: Final = 2**20
_EMPTY: Final = Offer(
    sop_class_uid="", sop_instance_uid="", transfer_syntax_uid="", calling_ae_title=""
)
_SMALLEST: Final = len(file_meta(_EMPTY))


def expected_bytes(instance: InstanceFile | ReceivedInstance) -> int:
    """Return how long the file of an instance is that this version of the program wrote."""
    texts = (
        *(instance.sop_class_uid, instance.sop_instance_uid),
        *(instance.transfer_syntax_uid, instance.calling_ae_title),
    )
    padded = [len(text) + len(text) % 2 for text in texts]
    return _SMALLEST + sum(padded) + instance.byte_count


def is_as_long(path: Path, instance: InstanceFile, file_bytes: int) -> bool:
    """Say whether a file has the length that its row tells, whichever version wrote it."""
    if file_bytes == expected_bytes(instance):
        return True
    try:
        with path.open("rb") as file:
            _, start = read_meta(file.read(LARGEST_HEAD))
    except (InstanceUnreadableError, OSError):
        return False
    return file_bytes == start + instance.byte_count


def digest(path: Path) -> str:
    """Return the digest of the data set in a file of the spool.

    Raises
    ------
    InstanceUnreadableError
        It has no File Meta Information.
    """
    with path.open("rb") as file:
        meta, start = read_meta(file.read(LARGEST_HEAD))
        found = hashlib.sha256(_text(meta, TRANSFER_SYNTAX_UID).encode("ascii"))
        file.seek(start)
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def read(path: Path, relative: str, *, limit_bytes: int) -> ReceivedInstance:
    """Return what a whole file of the spool holds, as if it had just been received.

    Raises
    ------
    InstanceUnreadableError
        It is no instance, damaged, or its content is not the one that its name was made of.
    InstanceMismatchError, InstanceTooLargeError
        See `node.receive.instance`.
    """
    if not path.is_file() or path.is_symlink():
        raise InstanceUnreadableError(reason="it is no file")
    with path.open("rb") as file:
        meta, start = read_meta(file.read(LARGEST_HEAD))
        syntax = checked_uid(meta.get(TRANSFER_SYNTAX_UID, b""), "TransferSyntaxUID")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found = read_identifiers(data, syntax, start=start, limit_bytes=limit_bytes)
        byte_count = os.fstat(file.fileno()).st_size - start
    if found.sop_instance_uid != checked_uid(meta.get(SOP_INSTANCE_UID, b""), "SOPInstanceUID"):
        raise InstanceMismatchError(keyword="SOPInstanceUID")
    sha256 = digest(path)
    if path.name.split("-")[1:2] != [sha256[:16]]:
        raise InstanceUnreadableError(reason="its digest is not that of its name")
    return ReceivedInstance(
        study_instance_uid=found.study_instance_uid,
        series_instance_uid=found.series_instance_uid,
        sop_class_uid=found.sop_class_uid,
        sop_instance_uid=found.sop_instance_uid,
        transfer_syntax_uid=syntax,
        calling_ae_title=_text(meta, SOURCE_AE)[:_TITLE_LENGTH],
        path=relative,
        byte_count=byte_count,
        sha256=sha256,
        received_at=datetime.now(UTC),
    )


def _text(meta: dict[int, bytes], element: int) -> str:
    try:
        return meta.get(element, b"").rstrip(b"\0 ").decode("ascii")
    except UnicodeDecodeError as error:
        raise InstanceUnreadableError(reason="its file meta information is damaged") from error
