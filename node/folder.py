"""The DICOM files of a folder, as the node's own door would see them, without copying any."""

from __future__ import annotations

import mmap
import os
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from node.cases import ReceivedInstance
from node.errors import InstanceTooLargeError, InstanceUnreadableError
from node.receive.dataset import checked_uid, read_identifiers

CALLING_AE_TITLE: Final = "OFFLINE"

NOT_DICOM: Final = "no DICOM file with meta information"
DAMAGED: Final = "damaged or without identifiers"
NOT_READABLE: Final = "not readable on this machine"
TOO_LARGE: Final = "larger than [receive] max_instance_bytes"
REPEATED: Final = "an instance that is here already"

_PREAMBLE: Final = 128
_PREFIX: Final = b"DICM"
_META_GROUP: Final = b"\2\0"
_TRANSFER_SYNTAX: Final = b"\2\0\x10\0"
_LONG_VRS: Final = (b"OB", b"UN")
_SHORT_LENGTH, _LONG_LENGTH = struct.Struct("<H"), struct.Struct("<L")

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalInstance:
    """An instance in a file of its own; `start` is where its data set begins, bytes.

    `instance.path` is the file's absolute path; nothing was hashed.
    """

    instance: ReceivedInstance
    start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """What a folder holds.

    Parameters
    ----------
    instances : tuple of ReceivedInstance
        Every instance once, in the order of the files' names.
    left_out : mapping of str to int
        Why a file counts for nothing -> how many of them.
    """

    instances: tuple[ReceivedInstance, ...]
    left_out: dict[str, int]


def files_below(folder: Path) -> list[Path]:
    """Return every plain file below a folder, by name; links to folders are not followed."""
    found = [Path(at, name) for at, _, names in os.walk(folder) for name in names]
    return sorted(path for path in found if path.is_file())


def read(folder: Path, *, limit_bytes: int, progress: Progress | None = None) -> Folder:
    """Return the instances below a folder; whatever is no whole instance is counted by reason.

    Parameters
    ----------
    folder : Path
        Read with all its sub-folders.
    limit_bytes : int
        Largest data set that the node takes.
    progress : callable, optional
        Called with the files read and the files that there are.
    """
    files = files_below(folder)
    instances: dict[str, ReceivedInstance] = {}
    left_out: Counter[str] = Counter()
    for count, path in enumerate(files, start=1):
        try:
            one = read_file(path, limit_bytes=limit_bytes).instance
        except (InstanceUnreadableError, InstanceTooLargeError, OSError) as error:
            left_out[_reason(error)] += 1
        else:
            if instances.setdefault(one.sop_instance_uid, one) is not one:
                left_out[REPEATED] += 1
        if progress is not None:
            progress(count, len(files))
    return Folder(instances=tuple(instances.values()), left_out=dict(left_out))


def _reason(error: Exception) -> str:
    if isinstance(error, InstanceUnreadableError):
        return NOT_DICOM if error.evidence["reason"] == NOT_DICOM else DAMAGED
    return TOO_LARGE if isinstance(error, InstanceTooLargeError) else NOT_READABLE


def read_file(path: Path, *, limit_bytes: int) -> LocalInstance:
    """Return the instance in a file; its data set is walked to the end, nothing is decoded.

    Raises
    ------
    InstanceUnreadableError, InstanceTooLargeError
        The node would not take it.
    OSError
        The file cannot be read.
    """
    if not path.stat().st_size:
        raise InstanceUnreadableError(reason=NOT_DICOM)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        transfer_syntax_uid, start = _meta(data)
        if len(data) - start > limit_bytes:
            raise InstanceTooLargeError(limit_bytes=limit_bytes)
        found = read_identifiers(data, transfer_syntax_uid, start=start, limit_bytes=limit_bytes)
        byte_count = len(data) - start
    return LocalInstance(
        instance=ReceivedInstance(
            study_instance_uid=found.study_instance_uid,
            series_instance_uid=found.series_instance_uid,
            sop_class_uid=found.sop_class_uid,
            sop_instance_uid=found.sop_instance_uid,
            transfer_syntax_uid=transfer_syntax_uid,
            calling_ae_title=CALLING_AE_TITLE,
            path=str(path.absolute()),
            byte_count=byte_count,
            sha256="",
            received_at=datetime.now(UTC),
        ),
        start=start,
    )


def _meta(data: mmap.mmap) -> tuple[str, int]:
    """Return the transfer syntax that the File Meta Information names, and where it ends.

    References
    ----------
    DICOM PS3.10 7.1: always Explicit VR Little Endian.
    """
    if data[_PREAMBLE : _PREAMBLE + len(_PREFIX)] != _PREFIX:
        raise InstanceUnreadableError(reason=NOT_DICOM)
    end, syntax = _PREAMBLE + len(_PREFIX), b""
    for tag, start, length in _meta_elements(data, end):
        end = start + length
        if tag == _TRANSFER_SYNTAX:
            syntax = data[start:end]
    return checked_uid(syntax, "TransferSyntaxUID"), end


def _meta_elements(data: mmap.mmap, at: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield tag, start and length of each value of group 0002."""
    while data[at : at + 2] == _META_GROUP and at + 12 <= len(data):
        is_long = data[at + 4 : at + 6] in _LONG_VRS
        start = at + (12 if is_long else 8)
        (length,) = (
            _LONG_LENGTH.unpack_from(data, at + 8)
            if is_long
            else _SHORT_LENGTH.unpack_from(data, at + 6)
        )
        yield data[at : at + 4], start, length
        at = start + length
