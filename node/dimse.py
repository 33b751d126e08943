"""DIMSE by name: status codes with their tables, and the command sets of C-STORE. No network.

References
----------
DICOM PS3.7 Annex C (status codes), PS3.7 9.3.1 (C-STORE), PS3.4 Table B.2-1 (Storage), PS3.7 E.1
(command dictionary). A command set is always Implicit VR Little Endian (PS3.7 6.3.1).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

IMPLEMENTATION_CLASS_UID = "2.25.331945940779478728635516764861061356991"
"""Names this product in associations and in File Meta Information (PS3.7 D.3.3.2)."""
IMPLEMENTATION_VERSION_NAME = "NEUROSEG_NODE_1"

ERROR_COMMENT_LENGTH = 64  # (0000,0902) is LO

_NO_DATA_SET = 0x0101
_EVEN = 2
_HEADER = struct.Struct("<HHL")


class Status(IntEnum):
    """What a DIMSE response says; the tables that define a value stand beside it."""

    SUCCESS = 0x0000  # PS3.7 C.1.1
    CANCEL = 0xFE00  # PS3.7 C.1.3
    PENDING = 0xFF00  # PS3.7 C.1.2

    # PS3.7 C.4 and C.5: general warnings and failures
    ATTRIBUTE_LIST_ERROR = 0x0107
    PROCESSING_FAILURE = 0x0110
    DUPLICATE_SOP_INSTANCE = 0x0111
    NO_SUCH_SOP_INSTANCE = 0x0112
    INVALID_ARGUMENT = 0x0115
    INVALID_SOP_INSTANCE = 0x0117
    NO_SUCH_SOP_CLASS = 0x0118
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NOT_AUTHORISED = 0x0124
    DUPLICATE_INVOCATION = 0x0210
    UNRECOGNISED_OPERATION = 0x0211
    MISTYPED_ARGUMENT = 0x0212
    RESOURCE_LIMITATION = 0x0213

    # PS3.4 Table B.2-1: C-STORE, failures
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_MISMATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000
    CONTENT_CONFLICT = 0xC111  # our own within Cxxx: this UID is stored with other content
    TRANSFER_SYNTAX_NOT_SUPPORTED = 0xC122  # PS3.18 Table I.2-2

    # PS3.4 Table B.2-1: C-STORE, warnings; the instance is stored
    COERCED = 0xB000
    ELEMENTS_DISCARDED = 0xB006
    DATA_SET_MISMATCH_WARNING = 0xB007


class StatusKind(IntEnum):
    """What a status means for the one who sent the request (PS3.7 Annex C)."""

    SUCCESS = 0
    WARNING = 1
    FAILURE = 2
    CANCEL = 3
    PENDING = 4


STORE_WARNINGS = frozenset(
    {Status.COERCED, Status.ELEMENTS_DISCARDED, Status.DATA_SET_MISMATCH_WARNING}
)


def store_status_kind(status: int) -> StatusKind:
    """Return what a C-STORE response means; a value that no table defines is a failure."""
    if status == Status.SUCCESS:
        return StatusKind.SUCCESS
    return StatusKind.WARNING if status in STORE_WARNINGS else StatusKind.FAILURE


def is_out_of_resources(status: int) -> bool:
    """Return whether a C-STORE response is one of A7xx: worth another try later."""
    return status & 0xFF00 == Status.OUT_OF_RESOURCES


class Command(IntEnum):
    """Command Field (0000,0100), PS3.7 E.1."""

    C_STORE_RQ = 0x0001
    C_STORE_RSP = 0x8001
    C_ECHO_RQ = 0x0030
    N_EVENT_REPORT_RQ = 0x0100


class _Element(IntEnum):
    """Element numbers of group 0000, PS3.7 E.1."""

    GROUP_LENGTH = 0x0000
    AFFECTED_SOP_CLASS_UID = 0x0002
    COMMAND_FIELD = 0x0100
    MESSAGE_ID = 0x0110
    MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
    COMMAND_DATA_SET_TYPE = 0x0800
    STATUS = 0x0900
    ERROR_COMMENT = 0x0902
    AFFECTED_SOP_INSTANCE_UID = 0x1000


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSet:
    """The part of a request's command set that a Storage SCP acts on.

    The UIDs are bytes as they came, without padding: nothing has checked them yet. An absent one
    is empty.
    """

    command: int
    message_id: int
    has_data_set: bool
    affected_sop_class_uid: bytes
    affected_sop_instance_uid: bytes

    @classmethod
    def decode(cls, encoded: bytes) -> Self:
        """Return what an encoded command set says.

        Raises
        ------
        ValueError
            It is truncated, has elements of another group, or lacks what every request has.
        """
        values = _elements(encoded)
        try:
            return cls(
                command=_number(values[_Element.COMMAND_FIELD]),
                message_id=_number(values[_Element.MESSAGE_ID]),
                has_data_set=_number(values[_Element.COMMAND_DATA_SET_TYPE]) != _NO_DATA_SET,
                affected_sop_class_uid=_unpadded(values.get(_Element.AFFECTED_SOP_CLASS_UID)),
                affected_sop_instance_uid=_unpadded(values.get(_Element.AFFECTED_SOP_INSTANCE_UID)),
            )
        except KeyError as error:
            raise ValueError("the command set lacks an element") from error


def store_response(
    request: CommandSet, status: int, *, comment: str = "", echoes_uids: bool = True
) -> bytes:
    """Return the encoded command set of a C-STORE response.

    Parameters
    ----------
    request : CommandSet
        What is answered.
    status : int
        See `Status`.
    comment : str
        Error Comment; cut to what the element holds, characters outside ASCII are replaced.
    echoes_uids : bool
        False leaves the affected UIDs out (they are optional in a response): those of a request
        that were none are not sent back.
    """
    elements = [
        (_Element.COMMAND_FIELD, struct.pack("<H", Command.C_STORE_RSP)),
        (_Element.MESSAGE_ID_BEING_RESPONDED_TO, struct.pack("<H", request.message_id)),
        (_Element.COMMAND_DATA_SET_TYPE, struct.pack("<H", _NO_DATA_SET)),
        (_Element.STATUS, struct.pack("<H", status)),
    ]
    if comment:
        text = comment.encode("ascii", "replace")[:ERROR_COMMENT_LENGTH]
        elements.append((_Element.ERROR_COMMENT, _padded(text, b" ")))
    if echoes_uids:
        elements.insert(
            0, (_Element.AFFECTED_SOP_CLASS_UID, _padded(request.affected_sop_class_uid, b"\0"))
        )
        elements.append(
            (_Element.AFFECTED_SOP_INSTANCE_UID, _padded(request.affected_sop_instance_uid, b"\0"))
        )
    body = b"".join(_HEADER.pack(0, number, len(value)) + value for number, value in elements)
    return _HEADER.pack(0, _Element.GROUP_LENGTH, 4) + struct.pack("<L", len(body)) + body


def _elements(encoded: bytes) -> dict[int, bytes]:
    values: dict[int, bytes] = {}
    position = 0
    while position < len(encoded):
        if position + _HEADER.size > len(encoded):
            raise ValueError("the command set is truncated")
        group, number, length = _HEADER.unpack_from(encoded, position)
        position += _HEADER.size
        if group != 0 or position + length > len(encoded):
            raise ValueError("the command set is damaged")
        values[number] = encoded[position : position + length]
        position += length
    return values


def _number(value: bytes) -> int:
    if len(value) != _EVEN:
        raise ValueError("a number of the command set has not two bytes")
    return int.from_bytes(value, "little")


def _unpadded(value: bytes | None) -> bytes:
    return (value or b"").rstrip(b"\0 ")


def _padded(value: bytes, pad: bytes) -> bytes:
    return value + pad if len(value) % _EVEN else value
