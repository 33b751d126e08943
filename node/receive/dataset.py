"""From an encoded data set to its identifiers: every element is walked, none is decoded.

Peers are not trusted, so the walk neither recurses nor allocates by a length that a data set
claims, and whatever it is given ends in identifiers or in one of our errors. It goes to the end: a
data set that stops in mid-element was truncated on its way and must not be acknowledged.

References
----------
DICOM PS3.5 7.1 (data elements), 7.5 (nested data sets), A.4 (encapsulation), A.5 (deflated).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from node.receive.encoded import SHORT_VRS, Encoded, Inflated, Plain, Source, refuse

_IDENTIFIERS = {
    0x00080016: "SOPClassUID",
    0x00080018: "SOPInstanceUID",
    0x0020000D: "StudyInstanceUID",
    0x0020000E: "SeriesInstanceUID",
}
_STOPS = frozenset(_IDENTIFIERS)
_FIRST_TAG = 0x00080000  # groups 0000 to 0006 belong to commands, file meta and directories
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_DELIMITER_GROUP = 0xFFFE
_UNDEFINED = 0xFFFFFFFF
_HEADER_LENGTH = 8
_NO_LENGTH = -1

_UID = re.compile(rb"[0-9]+(\.[0-9]+)*")
_MAX_UID_LENGTH = 64
_MAX_PADDING = 2

_MAX_DEPTH = 64  # of sequences in sequences; readers that recurse must survive what we accept
_MAX_LEVELS = 2 * _MAX_DEPTH  # sequences and their items
_LOOKED_INTO = _MAX_LEVELS * 8  # what is shorter cannot hold the headers of so many levels
_MAX_ELEMENTS = 2_000_000  # a deflated megabyte can hold 130 million empty elements

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


def is_uid(text: str) -> bool:
    """Say whether a text is a UID as `checked_uid` takes it."""
    return len(text) <= _MAX_UID_LENGTH and bool(_UID.fullmatch(text.encode("utf-8", "replace")))


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
        refuse(f"{keyword} is missing or empty")
    if len(text) > _MAX_UID_LENGTH or not _UID.fullmatch(text):
        refuse(f"{keyword} is not a UID")
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
    source: Source
    if transfer_syntax_uid in _DEFLATED_SYNTAXES:
        source = Inflated(data, start, limit_bytes)
    else:
        source = Plain(data, start)
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


@dataclass(frozen=True, slots=True, eq=False)
class _Encoding:
    """How the header of a data element is laid out."""

    is_implicit: bool
    implicit: struct.Struct  # group, element, 32 bit length; also of every item and delimiter
    explicit: struct.Struct  # group, element, VR, 16 bit length
    long_length: struct.Struct
    item: bytes  # tag of an item


def _encoding(order: str, *, is_implicit: bool) -> _Encoding:
    return _Encoding(
        is_implicit,
        struct.Struct(f"{order}HHL"),
        struct.Struct(f"{order}HH2sH"),
        struct.Struct(f"{order}L"),
        struct.pack(f"{order}HH", _ITEM >> 16, _ITEM & 0xFFFF),
    )


_IMPLICIT_LITTLE = _encoding("<", is_implicit=True)
_EXPLICIT_LITTLE = _encoding("<", is_implicit=False)
_EXPLICIT_BIG = _encoding(">", is_implicit=False)


def _encoding_of(transfer_syntax_uid: str) -> _Encoding:
    if transfer_syntax_uid in _IMPLICIT_SYNTAXES:
        return _IMPLICIT_LITTLE
    return _EXPLICIT_BIG if transfer_syntax_uid in _BIG_ENDIAN_SYNTAXES else _EXPLICIT_LITTLE


@dataclass(frozen=True, slots=True, eq=False)
class _Level:
    """A sequence, or an item of one, that is being passed.

    `end` where its length is said, `bound` is the end of the innermost of which that is so.
    """

    encoding: _Encoding
    is_item: bool
    end: int | None
    bound: int | None


class _Walk:
    """One way through a data set."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._element_count = 0

    def top_level(self, encoding: _Encoding) -> dict[int, bytes]:
        """Return the values of the identifiers, as encoded, by tag."""
        source = self._source
        found: dict[int, bytes] = {}
        while True:
            if not encoding.is_implicit:
                self._count(source.skip_short(encoding.explicit, _STOPS))
            if source.is_at_end():
                return found
            tag, vr, length = self._header(encoding)
            if length == _NO_LENGTH:
                refuse("the data set has an element without a value representation")
            if tag < _FIRST_TAG or tag >> 16 == _DELIMITER_GROUP:
                refuse("the data set has an element that belongs elsewhere")
            if tag in _IDENTIFIERS:
                found[tag] = self._identifier(tag, length, is_known=tag in found)
            elif length >= _LOOKED_INTO and self._may_nest(encoding, vr, length, level_count=0):
                end = self._end_of(length)
                self._skip_nested(_Level(_within(encoding, vr), is_item=False, end=end, bound=end))
            else:
                source.skip(length)

    def _identifier(self, tag: int, length: int, *, is_known: bool) -> bytes:
        keyword = _IDENTIFIERS[tag]
        if is_known:
            refuse(f"{keyword} occurs twice")
        if length > _MAX_UID_LENGTH + _MAX_PADDING:
            refuse(f"{keyword} is not a UID")
        return self._source.read(length)

    def _header(self, encoding: _Encoding) -> tuple[int, bytes, int]:
        """Return tag, VR (empty where none is encoded) and length of the next element.

        `_NO_LENGTH` where a VR should stand and none does.
        """
        self._count(1)
        header = self._source.read(_HEADER_LENGTH)
        group, element, length = encoding.implicit.unpack(header)
        tag = group << 16 | element
        if encoding.is_implicit or group == _DELIMITER_GROUP:
            return tag, b"", length
        _, _, vr, length = encoding.explicit.unpack(header)
        if vr not in SHORT_VRS:
            # PS3.5 7.1.2: every other VR, those to come included, has a 32 bit length
            if not (vr.isalpha() and vr.isupper()):
                return tag, vr, _NO_LENGTH
            (length,) = encoding.long_length.unpack(self._source.read(4))
        return tag, vr, length

    def _count(self, element_count: int) -> None:
        self._element_count += element_count
        if self._element_count > _MAX_ELEMENTS:
            refuse(f"the data set has more than {_MAX_ELEMENTS} elements")

    def _may_nest(self, encoding: _Encoding, vr: bytes, length: int, level_count: int) -> bool:
        """Say whether an element has to be looked into: it may be nested deeper than is allowed.

        What is shorter than the headers of so many levels cannot be. Without a VR the value tells.
        """
        if length == _UNDEFINED:
            return True
        if length < (_MAX_LEVELS - level_count) * _HEADER_LENGTH:
            return False
        if vr == b"SQ":
            return True
        item = _within(encoding, vr).item
        return vr in (b"", b"UN") and self._source.peek(len(item)) == item

    def _end_of(self, length: int) -> int | None:
        return None if length == _UNDEFINED else self._source.position + length

    def _skip_nested(self, outermost: _Level) -> None:
        """Pass a sequence, or encapsulated pixels.

        A sequence without a length has to be whole: where else would it end. One that has a length
        and is damaged within ends where it says, and only its reader is the worse for it.
        """
        levels = [outermost]
        while levels:
            if len(levels) > _MAX_LEVELS:
                refuse(f"sequences are nested more than {_MAX_DEPTH} deep")
            level = levels[-1]
            left = None if level.end is None else level.end - self._source.position
            if left == 0:
                levels.pop()
            elif (left is not None and left < _HEADER_LENGTH) or not self._step(levels, level):
                self._skip_damaged(levels)

    def _step(self, levels: list[_Level], level: _Level) -> bool:
        """Pass the next header; False where there should be another."""
        tag, vr, length = self._header(level.encoding)
        if tag == (_ITEM_END if level.is_item else _SEQUENCE_END):
            levels.pop()
            return level.end is None
        is_delimiter = tag >> 16 == _DELIMITER_GROUP
        if length == _NO_LENGTH or (is_delimiter if level.is_item else tag != _ITEM):
            return False
        bound = level.bound
        if bound is not None and _UNDEFINED != length > bound - self._source.position:
            return False
        if not level.is_item:
            is_deep = length >= (_MAX_LEVELS - len(levels)) * _HEADER_LENGTH  # or undefined
            encoding = level.encoding
        else:
            is_deep = self._may_nest(level.encoding, vr, length, len(levels))
            encoding = _within(level.encoding, vr)
        if is_deep:
            end = self._end_of(length)
            levels.append(_Level(encoding, not level.is_item, end, bound if end is None else end))
        else:
            self._source.skip(length)
        return True

    def _skip_damaged(self, levels: list[_Level]) -> None:
        """Go to the end of the outermost level that has one."""
        at = next((at for at, one in enumerate(levels) if one.end is not None), None)
        end = None if at is None else levels[at].end
        if at is None or end is None or end < self._source.position:
            refuse("a sequence of the data set is damaged")
        del levels[at:]
        self._source.skip(end - self._source.position)


def _within(encoding: _Encoding, vr: bytes) -> _Encoding:
    """Return the encoding inside an element of undefined length (PS3.5 6.2.2: UN is implicit)."""
    return _IMPLICIT_LITTLE if vr == b"UN" else encoding
