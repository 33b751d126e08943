"""The head of a DICOM file: preamble, prefix and File Meta Information.

References
----------
DICOM PS3.10 7.1: always Explicit VR Little Endian, and its group length is required.
"""

from __future__ import annotations

import struct
from typing import Final

from node.receive.encoded import SHORT_VRS, refuse

SOP_CLASS_UID, SOP_INSTANCE_UID, TRANSFER_SYNTAX_UID, SOURCE_AE = 0x0002, 0x0003, 0x0010, 0x0016
LARGEST_HEAD: Final = 2**16

_PREAMBLE_LENGTH: Final = 128
_PREFIX: Final = b"DICM"
_GROUP_LENGTH: Final = struct.Struct("<HH2sHL")
_SHORT: Final = struct.Struct("<HH2sH")
_LONG: Final = struct.Struct("<L")
_BEGIN: Final = _PREAMBLE_LENGTH + len(_PREFIX)
_GROUP: Final = 2


def head_length(head: bytes | bytearray) -> int:
    """Return where the data set begins; while that cannot be told, how much is needed to tell.

    Raises
    ------
    InstanceUnreadableError
        It is no DICOM file, or its head is damaged or larger than 64 KiB.
    """
    if len(head) < _BEGIN + _GROUP_LENGTH.size:
        return _BEGIN + _GROUP_LENGTH.size
    if head[_PREAMBLE_LENGTH:_BEGIN] != _PREFIX:
        refuse("it is no DICOM file")
    *tag_vr_size, length = _GROUP_LENGTH.unpack_from(head, _BEGIN)
    found: int = _BEGIN + _GROUP_LENGTH.size + length
    if tag_vr_size != [_GROUP, 0, b"UL", 4] or found > LARGEST_HEAD:
        refuse("its file meta information is damaged")
    return found


def read_meta(head: bytes | bytearray) -> tuple[dict[int, bytes], int]:
    """Return the values of group 0002 by element, as encoded, and where the data set begins.

    Raises
    ------
    InstanceUnreadableError
        It is no DICOM file, or its head is damaged, cut off or larger than 64 KiB.
    """
    start = head_length(head)
    found: dict[int, bytes] = {}
    at = _BEGIN + _GROUP_LENGTH.size
    try:
        while at < start:
            group, element, vr, size = _SHORT.unpack_from(head, at)
            at += _SHORT.size
            if vr not in SHORT_VRS:
                (size,) = _LONG.unpack_from(head, at)
                at += _LONG.size
            found[element] = bytes(head[at : at + size])
            at += size
            if group != _GROUP:
                refuse("its file meta information is damaged")
    except struct.error:
        at = -1
    if at != start or at > len(head):
        refuse("its file meta information is damaged")
    return found, start
