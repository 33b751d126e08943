"""From an encoded data set to its identifiers: every element is walked, none is decoded.

Peers are not trusted, so the walk neither recurses nor allocates by a length that a data set
claims, and whatever it is given ends in identifiers or in one of our errors. It goes to the end: a
data set that stops in mid-element was truncated on its way and must not be acknowledged.

References
----------
DICOM PS3.5 7.1 (data elements), 7.5 (nested data sets), A.4 (encapsulation), A.5 (deflated).
"""

from __future__ import annotations

import mmap
import re
import struct
import zlib
from dataclasses import dataclass
from typing import NoReturn, Protocol, TypeAlias

from node.errors import InstanceTooLargeError, InstanceUnreadableError

Encoded: TypeAlias = bytes | mmap.mmap

_IDENTIFIERS = {
    0x00080016: "SOPClassUID",
    0x00080018: "SOPInstanceUID",
    0x0020000D: "StudyInstanceUID",
    0x0020000E: "SeriesInstanceUID",
}
_FIRST_TAG = 0x00080000  # groups 0000 to 0006 belong to commands, file meta and directories
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_DELIMITER_GROUP = 0xFFFE
_UNDEFINED = 0xFFFFFFFF
_HEADER_LENGTH = 8

_UID = re.compile(rb"[0-9]+(\.[0-9]+)*")
_MAX_UID_LENGTH = 64
_MAX_PADDING = 2

_MAX_DEPTH = 64  # of sequences in sequences; readers that recurse must survive what we accept
_MAX_ELEMENTS = 2_000_000  # a deflated megabyte can hold 130 million empty elements
_BLOCK = 2**16

_SHORT_VRS = frozenset(
    vr.encode()
    for vr in "AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split()  # noqa: SIM905 - as PS3.5 Table 7.1-2 lists them
)
_IMPLICIT_SYNTAXES = frozenset({"1.2.840.10008.1.2"})
_BIG_ENDIAN_SYNTAXES = frozenset({"1.2.840.10008.1.2.2"})
_DEFLATED_SYNTAXES = frozenset(
    {"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identifiers:
    """What an instance is and where it belongs, by its own data set."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str


def checked_uid(value: bytes, keyword: str) -> str:
    """Return a UID without its padding.

    Parameters
    ----------
    value : bytes
        As encoded, with or without trailing NUL or blanks.
    keyword : str
        Which attribute it is; evidence of the error.

    Raises
    ------
    InstanceUnreadableError
        It is empty, longer than 64 characters or has other characters than digits and dots.

    Notes
    -----
    A leading zero in a component is forbidden (PS3.5 9.1) but accepted here: scanners produce it,
    and we only compare and hash a UID, so nothing is gained by losing the image.
    """
    text = value.rstrip(b"\0 ")
    if not text:
        _refuse(f"{keyword} is missing or empty")
    if len(text) > _MAX_UID_LENGTH or not _UID.fullmatch(text):
        _refuse(f"{keyword} is not a UID")
    return text.decode("ascii")


def read_identifiers(
    data: Encoded, transfer_syntax_uid: str, *, start: int = 0, limit_bytes: int
) -> Identifiers:
    """Return the identifiers of an encoded data set after walking it to its end.

    Parameters
    ----------
    data : bytes or mmap
        Holds the data set from `start` to its end.
    transfer_syntax_uid : str
        How it is encoded; every syntax but the three special kinds is Explicit VR Little Endian.
    start : int
        Offset of the data set, bytes.
    limit_bytes : int
        Largest length after inflating, where the transfer syntax is a deflated one.

    Raises
    ------
    InstanceUnreadableError
        It is truncated or damaged, or an identifier is missing, doubled or no UID.
    InstanceTooLargeError
        It inflates to more than the limit.
    """
    source: _Source
    if transfer_syntax_uid in _DEFLATED_SYNTAXES:
        source = _Inflated(data, start, limit_bytes)
    else:
        source = _Plain(data, start)
    found = _Walk(source).top_level(_encoding_of(transfer_syntax_uid))
    values = {
        keyword: checked_uid(found.get(tag, b""), keyword) for tag, keyword in _IDENTIFIERS.items()
    }
    return Identifiers(
        sop_class_uid=values["SOPClassUID"],
        sop_instance_uid=values["SOPInstanceUID"],
        study_instance_uid=values["StudyInstanceUID"],
        series_instance_uid=values["SeriesInstanceUID"],
    )


def _refuse(reason: str) -> NoReturn:
    raise InstanceUnreadableError(reason=reason)


class _Source(Protocol):
    def read(self, count: int) -> bytes: ...
    def skip(self, count: int) -> None: ...
    def is_at_end(self) -> bool: ...


class _Plain:
    """A data set that lies in memory as it is."""

    def __init__(self, data: Encoded, start: int) -> None:
        self._data = data
        self._position = start
        self._end = len(data)

    def read(self, count: int) -> bytes:
        begin = self._position
        self.skip(count)
        return self._data[begin : self._position]

    def skip(self, count: int) -> None:
        self._position += count
        if self._position > self._end:
            _refuse("the data set is truncated")

    def is_at_end(self) -> bool:
        return self._position == self._end


class _Inflated:
    """A deflated data set, inflated block by block and never held whole."""

    def __init__(self, data: Encoded, start: int, limit_bytes: int) -> None:
        self._data = data
        self._position = start
        self._limit_bytes = limit_bytes
        self._total = 0
        self._block = b""
        self._at = 0
        self._decoder = zlib.decompressobj(-zlib.MAX_WBITS)

    def read(self, count: int) -> bytes:
        while len(self._block) - self._at < count:
            self._require(self._inflate())
        begin = self._at
        self._at += count
        return self._block[begin : self._at]

    def skip(self, count: int) -> None:
        while (held := len(self._block) - self._at) < count:
            count -= held
            self._at = len(self._block)
            self._require(self._inflate())
        self._at += count

    def is_at_end(self) -> bool:
        return self._at == len(self._block) and not self._inflate()

    @staticmethod
    def _require(is_more: bool) -> None:  # noqa: FBT001 - a condition, not an option
        if not is_more:
            _refuse("the data set is truncated")

    def _inflate(self) -> bool:
        """Inflate another block behind what is not yet read; False at the end of the stream."""
        while not self._decoder.eof:
            piece = self._decoder.unconsumed_tail or self._next_piece()
            try:
                block = self._decoder.decompress(piece, _BLOCK)
            except zlib.error as error:
                raise InstanceUnreadableError(reason="the deflated data set is damaged") from error
            if block:
                self._count(len(block))
                self._block, self._at = self._block[self._at :] + block, 0
                return True
            self._require(bool(piece) or self._decoder.eof)
        return False

    def _next_piece(self) -> bytes:
        begin = self._position
        self._position = min(begin + _BLOCK, len(self._data))
        return self._data[begin : self._position]

    def _count(self, length: int) -> None:
        self._total += length
        if self._total > self._limit_bytes:
            raise InstanceTooLargeError(limit_bytes=self._limit_bytes)


@dataclass(frozen=True, slots=True, eq=False)
class _Encoding:
    """How the header of a data element is laid out."""

    is_implicit: bool
    implicit: struct.Struct  # group, element, 32 bit length; also of every item and delimiter
    explicit: struct.Struct  # group, element, VR, 16 bit length
    long_length: struct.Struct


def _encoding(order: str, *, is_implicit: bool) -> _Encoding:
    return _Encoding(
        is_implicit,
        struct.Struct(f"{order}HHL"),
        struct.Struct(f"{order}HH2sH"),
        struct.Struct(f"{order}L"),
    )


_IMPLICIT_LITTLE = _encoding("<", is_implicit=True)
_EXPLICIT_LITTLE = _encoding("<", is_implicit=False)
_EXPLICIT_BIG = _encoding(">", is_implicit=False)


def _encoding_of(transfer_syntax_uid: str) -> _Encoding:
    if transfer_syntax_uid in _IMPLICIT_SYNTAXES:
        return _IMPLICIT_LITTLE
    return _EXPLICIT_BIG if transfer_syntax_uid in _BIG_ENDIAN_SYNTAXES else _EXPLICIT_LITTLE


class _Walk:
    """One way through a data set."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._element_count = 0

    def top_level(self, encoding: _Encoding) -> dict[int, bytes]:
        """Return the values of the identifiers, as encoded, by tag."""
        source = self._source
        found: dict[int, bytes] = {}
        while not source.is_at_end():
            tag, vr, length = self._header(encoding)
            if tag < _FIRST_TAG or tag >> 16 == _DELIMITER_GROUP:
                _refuse("the data set has an element that belongs elsewhere")
            if tag in _IDENTIFIERS:
                found[tag] = self._identifier(tag, length, is_known=tag in found)
            elif length == _UNDEFINED:
                self._skip_nested(_within(encoding, vr))
            else:
                source.skip(length)
        return found

    def _identifier(self, tag: int, length: int, *, is_known: bool) -> bytes:
        keyword = _IDENTIFIERS[tag]
        if is_known:
            _refuse(f"{keyword} occurs twice")
        if length > _MAX_UID_LENGTH + _MAX_PADDING:
            _refuse(f"{keyword} is not a UID")
        return self._source.read(length)

    def _header(self, encoding: _Encoding) -> tuple[int, bytes, int]:
        """Return tag, VR (empty where none is encoded) and length of the next element."""
        self._element_count += 1
        if self._element_count > _MAX_ELEMENTS:
            _refuse(f"the data set has more than {_MAX_ELEMENTS} elements")
        header = self._source.read(_HEADER_LENGTH)
        group, element, length = encoding.implicit.unpack(header)
        tag = group << 16 | element
        if encoding.is_implicit or group == _DELIMITER_GROUP:
            return tag, b"", length
        _, _, vr, length = encoding.explicit.unpack(header)
        if vr not in _SHORT_VRS:
            # PS3.5 7.1.2: every other VR, those to come included, has a 32 bit length
            if not (vr.isalpha() and vr.isupper()):
                _refuse("the data set has an element without a value representation")
            (length,) = encoding.long_length.unpack(self._source.read(4))
        return tag, vr, length

    def _skip_nested(self, encoding: _Encoding) -> None:
        """Pass a sequence, or encapsulated pixels, of undefined length."""
        open_levels: list[tuple[_Encoding, bool]] = [(encoding, False)]  # (encoding, is an item)
        while open_levels:
            if len(open_levels) > 2 * _MAX_DEPTH:
                _refuse(f"sequences are nested more than {_MAX_DEPTH} deep")
            encoding, is_item = open_levels[-1]
            tag, vr, length = self._header(encoding)
            if tag == (_ITEM_END if is_item else _SEQUENCE_END):
                open_levels.pop()
            elif (tag >> 16 == _DELIMITER_GROUP) if is_item else tag != _ITEM:
                _refuse("a sequence of the data set is damaged")
            elif length != _UNDEFINED:
                self._source.skip(length)
            else:
                open_levels.append(
                    (encoding if not is_item else _within(encoding, vr), not is_item)
                )


def _within(encoding: _Encoding, vr: bytes) -> _Encoding:
    """Return the encoding inside an element of undefined length (PS3.5 6.2.2: UN is implicit)."""
    return _IMPLICIT_LITTLE if vr == b"UN" else encoding
