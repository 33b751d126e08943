"""One DICOM file to the elements before its pixels, quickly.

pydicom reads an element in some 5 microseconds, which for four series of a hundred slices is longer
than everything else that conversion does, and the two hundred frames of an enhanced instance hold
ten thousands of them. What nearly every scanner sends, Explicit VR Little Endian, is therefore
walked here into the same raw elements; whatever looks the least bit unusual is left to pydicom,
from the start of the file or of the sequence.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import MutableSequence
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
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLETransferSyntaxes,
)
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
Items: TypeAlias = list[Dataset]
Encoding: TypeAlias = str | MutableSequence[str]

_PREAMBLE: Final = 128
_PREFIX: Final = b"DICM"
_META_GROUP: Final = 0x0002
_ODD_GROUP: Final = 0x0000  # commands have no place in a file
_PIXELS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_ITEM: Final = struct.pack("<HH", 0xFFFE, 0xE000)
_END_OF_ITEM: Final = struct.pack("<HH", 0xFFFE, 0xE00D)
_END_OF_SEQUENCE: Final = struct.pack("<HH", 0xFFFE, 0xE0DD)
_DELIMITERS: Final = (_ITEM, _END_OF_ITEM, _END_OF_SEQUENCE)
_DELIMITER_LENGTH: Final = 8
_CHARACTER_SET: Final = Tag("SpecificCharacterSet")
_TRANSFER_SYNTAX: Final = Tag("TransferSyntaxUID")
_UNDEFINED: Final = 0xFFFFFFFF
_DEFAULT_ENCODING: Final = "iso8859"
_EXPLICIT_LITTLE_ENDIAN: Final = frozenset(
    uid.encode()
    for uid in (
        ExplicitVRLittleEndian,  # compressed pixels lie in a data set of the same encoding
        *JPEGTransferSyntaxes,
        *JPEGLSTransferSyntaxes,
        *JPEG2000TransferSyntaxes,
        *RLETransferSyntaxes,
    )
)
_DEEPEST: Final = 16  # sequences within sequences; real ones reach five

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
    is_end: bool
    empty: bytes | None


_DELIMITER: Final = _Kind(
    BaseTag(0xFFFEE00D), "", has_long_length=False, is_meta=False, is_end=True, empty=None
)


@lru_cache(maxsize=8192)  # a series repeats the same few hundred
def _kind(start: bytes) -> _Kind:
    if start[:4] in _DELIMITERS:
        return _DELIMITER
    group, number, code = struct.unpack("<HH2s", start)
    representation = code.decode("latin-1")
    if representation not in VR.__members__ or group == _ODD_GROUP:
        raise _UnusualError
    tag = BaseTag(group << 16 | number)
    return _Kind(
        tag=tag,
        representation=representation,
        has_long_length=representation in EXPLICIT_VR_LENGTH_32,
        is_meta=group == _META_GROUP,
        is_end=tag in _PIXELS,
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
    meta, at = _elements(content, at, len(content), is_meta=True)
    syntax = meta.get(_TRANSFER_SYNTAX)
    if not isinstance(syntax, RawDataElement) or not isinstance(syntax.value, bytes):
        raise _UnusualError
    if syntax.value.rstrip(b"\0") not in _EXPLICIT_LITTLE_ENDIAN:
        raise _UnusualError
    elements, at = _elements(content, at, len(content), is_meta=False)
    if content[at : at + 4] in _DELIMITERS:
        raise _UnusualError
    header = _dataset(elements, _encoding_of(elements, _DEFAULT_ENCODING))
    header.file_meta = FileMetaDataset(meta)
    header.file_meta.set_original_encoding(
        is_implicit_vr=False, is_little_endian=True, character_encoding=_DEFAULT_ENCODING
    )
    return header


def _dataset(elements: Elements, encoding: Encoding) -> Dataset:
    found = Dataset(elements)
    found.set_original_encoding(
        is_implicit_vr=False, is_little_endian=True, character_encoding=encoding
    )
    return found


def _elements(
    content: bytes,
    at: int,
    end: int,
    *,
    is_meta: bool,
    encoding: Encoding = _DEFAULT_ENCODING,
    depth: int = 0,
) -> tuple[Elements, int]:
    """Return the elements from a position to the pixels, a delimiter, the end, or that of group 2.

    `encoding` is that of the data set around, for text in sequences of undefined length.
    """
    elements: Elements = {}
    while end - at >= 8:  # noqa: PLR2004 - tag, VR and length
        kind = _kind(content[at : at + 6])
        tag, representation, has_long_length, is_of_meta, is_end, empty = kind
        if is_meta and not is_of_meta:
            break
        if has_long_length:
            length, start = _long_length(content, at + 8)[0], at + 12
        else:
            length, start = _short_length(content, at + 6)[0], at + 8
        if is_end:
            break
        if length == _UNDEFINED:
            around = _encoding_of(elements, encoding)
            elements[tag], at = _sequence(content, start, kind, around, depth)
            continue
        at = start + length
        if at > end:
            raise _UnusualError
        value = content[start:at] if length else empty
        elements[tag] = RawDataElement(tag, representation, length, value, start, False, True)  # noqa: FBT003
    return elements, at


def _sequence(
    content: bytes, start: int, kind: _Kind, encoding: Encoding, depth: int
) -> tuple[DataElement, int]:
    """Return a sequence of undefined length and where it ends."""
    if kind.representation != VR.SQ:
        raise _UnusualError
    try:
        items, end = _items(content, start, None, encoding, depth + 1)
    except (_UnusualError, struct.error):
        items, end = _items_by_pydicom(content, start, encoding)
    return DataElement(kind.tag, VR.SQ, Sequence(items), start, is_undefined_length=True), end


def _items_by_pydicom(content: bytes, start: int, encoding: Encoding) -> tuple[Items, int]:
    stream = BytesIO(content)
    stream.seek(start)
    try:
        items = read_sequence(stream, False, True, _UNDEFINED, encoding)  # noqa: FBT003
    except UNREADABLE as error:
        raise _UnusualError from error
    return list(items), stream.tell()


def _items(
    content: bytes, at: int, end: int | None, encoding: Encoding, depth: int
) -> tuple[Items, int]:
    """Return the items from a position to `end`, or with None to the delimiter of the sequence."""
    found: Items = []
    last = len(content) if end is None else end
    while end is None or at < end:
        start, length = content[at : at + 4], _long_length(content, at + 4)[0]
        at += _DELIMITER_LENGTH
        if start == _END_OF_SEQUENCE and end is None:
            break
        if start != _ITEM or depth > _DEEPEST:
            raise _UnusualError
        is_open = length == _UNDEFINED
        item_end = last if is_open else at + length
        elements, at = _elements(
            content, at, item_end, is_meta=False, encoding=encoding, depth=depth
        )
        is_whole = content[at : at + 4] == _END_OF_ITEM if is_open else at == item_end <= last
        if not is_whole:
            raise _UnusualError
        at += _DELIMITER_LENGTH if is_open else 0
        found.append(_dataset(elements, _encoding_of(elements, encoding)))
        found[-1].is_undefined_length_sequence_item = is_open
    return found, at


def items_of(header: Dataset, tag: BaseTag, *, instance: int) -> Items:
    """Return the items of a sequence, none where it is absent or no sequence.

    Raises
    ------
    HeaderUnreadableError
        What stands there is damaged; `instance` is named.
    """
    element = cast("DataElement | RawDataElement | None", header.get_item(tag, keep_deferred=True))
    if element is None or not element.value:
        return []
    try:
        if isinstance(element, RawDataElement):
            return _raw_items(header, element)
        return _listed(element.value)
    except UNREADABLE as error:
        reason = type(error).__name__
        raise HeaderUnreadableError(instance=instance, reason=reason) from error


def _raw_items(header: Dataset, element: RawDataElement) -> Items:
    if element.VR == VR.SQ and element.is_little_endian and isinstance(element.value, bytes):
        try:
            encoding = header.original_character_set or _DEFAULT_ENCODING
            return _items(element.value, 0, len(element.value), encoding, 1)[0]
        except (_UnusualError, struct.error):
            pass  # pydicom makes more of it, or says what is wrong
    return _listed(header[element.tag].value)


def _listed(value: object) -> Items:
    return list(value) if isinstance(value, Sequence) else []


def _encoding_of(elements: Elements, around: Encoding) -> Encoding:
    """Return Python's names of the character sets of a data set in another one's."""
    element = elements.get(_CHARACTER_SET)
    if element is None:
        return around
    if not isinstance(element.value, bytes):
        raise _UnusualError
    return list(_encodings(element.value))


@lru_cache(maxsize=64)
def _encodings(value: bytes) -> tuple[str, ...]:
    names = [name.strip(" \0") for name in value.decode("latin-1").split("\\")]
    if any(name not in python_encoding for name in names):
        raise _UnusualError
    return tuple(convert_encodings(names))
