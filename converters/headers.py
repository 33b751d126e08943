"""One DICOM file to the elements before its pixels, quickly.

pydicom reads an element in some 5 microseconds, which for four series of a hundred slices is longer
than everything else that conversion does. What nearly every scanner sends, Explicit VR Little
Endian, is therefore walked here into the same raw elements; whatever looks the least bit unusual is
left to pydicom, from the start of the file.
"""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias, cast

from pydicom import dcmread
from pydicom.charset import convert_encodings, python_encoding
from pydicom.dataelem import DataElement, RawDataElement, empty_value_for_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_sequence
from pydicom.tag import BaseTag, Tag
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

from converters.errors import HeaderUnreadableError

UNREADABLE: Final = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom and its decoders raise for content that is not as it should be."""

Elements: TypeAlias = dict[BaseTag, RawDataElement | DataElement]

_PREAMBLE: Final = 128
_PREFIX: Final = b"DICM"
_META_GROUP: Final = 0x0002
_ODD_GROUPS: Final = (0x0000, 0xFFFE)  # commands and delimiters have no place at the top
_PIXELS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_CHARACTER_SET: Final = Tag("SpecificCharacterSet")
_TRANSFER_SYNTAX: Final = Tag("TransferSyntaxUID")
_UNDEFINED: Final = 0xFFFFFFFF
_DEFAULT_ENCODING: Final = "iso8859"

_short_length = struct.Struct("<H").unpack_from
_long_length = struct.Struct("<L").unpack_from


class _UnusualError(Exception):
    """The content is left to pydicom."""


class _Kind(NamedTuple):
    """What tag and value representation of an element say."""

    tag: BaseTag
    representation: str
    has_long_length: bool
    is_meta: bool
    is_pixels: bool
    empty: bytes | None


@lru_cache(maxsize=8192)  # a series repeats the same few hundred
def _kind(start: bytes) -> _Kind:
    group, number, code = struct.unpack("<HH2s", start)
    representation = code.decode("latin-1")
    if representation not in VR.__members__ or group in _ODD_GROUPS:
        raise _UnusualError
    tag = BaseTag(group << 16 | number)
    return _Kind(
        tag=tag,
        representation=representation,
        has_long_length=representation in EXPLICIT_VR_LENGTH_32,
        is_meta=group == _META_GROUP,
        is_pixels=tag in _PIXELS,
        empty=cast("bytes | None", empty_value_for_VR(representation, raw=True)),
    )


def read_header(path: Path, *, instance: int) -> Dataset:
    """Return the elements before the pixels of a file, with its file meta information.

    Parameters
    ----------
    path : Path
        The file; that it cannot be opened is not the sender's fault and raises ``OSError``.
    instance : int
        Named when it cannot be read.

    Raises
    ------
    HeaderUnreadableError
        The file is not DICOM or is damaged.
    """
    content = path.read_bytes()
    try:
        return _walk(content)
    except (_UnusualError, struct.error):
        return _read_with_pydicom(content, instance)


def _read_with_pydicom(content: bytes, instance: int) -> Dataset:
    try:
        return dcmread(BytesIO(content), stop_before_pixels=True)
    except UNREADABLE as error:
        reason = type(error).__name__
        raise HeaderUnreadableError(instance=instance, reason=reason) from error


def _walk(content: bytes) -> Dataset:
    at = _PREAMBLE + len(_PREFIX)
    if content[_PREAMBLE:at] != _PREFIX:
        raise _UnusualError
    meta, at = _elements(content, at, is_meta=True)
    syntax = meta.get(_TRANSFER_SYNTAX)
    if not isinstance(syntax, RawDataElement) or not isinstance(syntax.value, bytes):
        raise _UnusualError
    if syntax.value.rstrip(b"\0") != ExplicitVRLittleEndian.encode():
        raise _UnusualError
    elements, _ = _elements(content, at, is_meta=False)
    header = Dataset(elements)
    header.file_meta = FileMetaDataset(meta)
    header.file_meta.set_original_encoding(
        is_implicit_vr=False, is_little_endian=True, character_encoding=_DEFAULT_ENCODING
    )
    header.set_original_encoding(
        is_implicit_vr=False, is_little_endian=True, character_encoding=_encoding_of(elements)
    )
    return header


def _elements(content: bytes, at: int, *, is_meta: bool) -> tuple[Elements, int]:
    """Return the elements from a position to the pixels, the end, or the end of group 2."""
    elements: Elements = {}
    size = len(content)
    while size - at >= 8:  # noqa: PLR2004 - tag, VR and length
        kind = _kind(content[at : at + 6])
        tag, representation, has_long_length, is_of_meta, is_pixels, empty = kind
        if is_meta and not is_of_meta:
            break
        if has_long_length:
            length, start = _long_length(content, at + 8)[0], at + 12
        else:
            length, start = _short_length(content, at + 6)[0], at + 8
        if is_pixels:
            break
        if length == _UNDEFINED:
            elements[tag], at = _sequence(content, start, kind, elements)
            continue
        at = start + length
        if at > size:
            raise _UnusualError
        value = content[start:at] if length else empty
        elements[tag] = RawDataElement(tag, representation, length, value, start, False, True)  # noqa: FBT003
    return elements, at


def _sequence(
    content: bytes, start: int, kind: _Kind, elements: Elements
) -> tuple[DataElement, int]:
    """Return a sequence of undefined length and where it ends."""
    if kind.representation != VR.SQ:
        raise _UnusualError
    stream = BytesIO(content)
    stream.seek(start)
    try:
        items = read_sequence(stream, False, True, _UNDEFINED, _encoding_of(elements))  # noqa: FBT003
    except UNREADABLE as error:
        raise _UnusualError from error
    return DataElement(kind.tag, VR.SQ, items, start, is_undefined_length=True), stream.tell()


def _encoding_of(elements: Elements) -> str | list[str]:
    """Return Python's names of the header's character sets."""
    element = elements.get(_CHARACTER_SET)
    if element is None:
        return _DEFAULT_ENCODING
    if not isinstance(element.value, bytes):
        raise _UnusualError
    return list(_encodings(element.value))


@lru_cache(maxsize=64)
def _encodings(value: bytes) -> tuple[str, ...]:
    names = [name.strip(" \0") for name in value.decode("latin-1").split("\\")]
    if any(name not in python_encoding for name in names):
        raise _UnusualError
    return tuple(convert_encodings(names))
