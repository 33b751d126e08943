"""The bytes of a data set, plain or deflated, without ever holding more than a block of them."""

from __future__ import annotations

import mmap
import struct
import zlib
from typing import NoReturn, Protocol, TypeAlias

from node.errors import InstanceTooLargeError, InstanceUnreadableError

Encoded: TypeAlias = bytes | mmap.mmap

_BLOCK = 2**16
_FIRST_GROUP, _DELIMITER_GROUP = 0x0008, 0xFFFE  # groups 0000 to 0006 are of commands and files

SHORT_VRS = frozenset(
    vr.encode()
    for vr in "AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split()  # noqa: SIM905 - as PS3.5 Table 7.1-2 lists them
)


def refuse(reason: str) -> NoReturn:
    """Say why an instance cannot be accepted."""
    raise InstanceUnreadableError(reason=reason)


class Source(Protocol):
    """An encoded data set, read from its beginning to its end."""

    @property
    def position(self) -> int:
        """Offset of the next byte."""
        ...

    def read(self, count: int) -> bytes:
        """Return the next bytes and go on."""
        ...

    def peek(self, count: int) -> bytes:
        """Return the next bytes, fewer at the end."""
        ...

    def skip(self, count: int) -> None:
        """Go on."""
        ...

    def is_at_end(self) -> bool:
        """Say whether all was read."""
        ...

    def skip_short(self, header: struct.Struct, stops: frozenset[int]) -> int:
        """Go past whole elements of a short VR whose tags are none of `stops`; return how many.

        `header` is that of an explicit encoding. It may go past fewer, or none.
        """
        ...


class Plain:
    """A data set that lies in memory as it is."""

    def __init__(self, data: Encoded, start: int) -> None:
        self._data = data
        self.position = start
        self._end = len(data)

    def read(self, count: int) -> bytes:
        """Return the next bytes and go on."""
        begin = self.position
        self.skip(count)
        return self._data[begin : self.position]

    def peek(self, count: int) -> bytes:
        """Return the next bytes, fewer at the end."""
        return self._data[self.position : self.position + count]

    def skip(self, count: int) -> None:
        """Go on."""
        self.position += count
        if self.position > self._end:
            refuse("the data set is truncated")

    def is_at_end(self) -> bool:
        """Say whether all was read."""
        return self.position == self._end

    def skip_short(self, header: struct.Struct, stops: frozenset[int]) -> int:
        """Go past simple elements: most of a header, at a quarter of the price of a walk."""
        data, at, count = self._data, self.position, 0
        last = self._end - header.size
        while at <= last:
            group, element, vr, length = header.unpack_from(data, at)
            behind = at + header.size + length
            if (
                vr not in SHORT_VRS
                or not _FIRST_GROUP <= group < _DELIMITER_GROUP
                or behind > self._end
                or group << 16 | element in stops
            ):
                break
            at, count = behind, count + 1
        self.position = at
        return count


class Inflated:
    """A deflated data set, inflated block by block and never held whole."""

    def __init__(self, data: Encoded, start: int, limit_bytes: int) -> None:
        self._data = data
        self._next = start
        self._limit_bytes = limit_bytes
        self._total = 0
        self._block = b""
        self._at = 0
        self._decoder = zlib.decompressobj(-zlib.MAX_WBITS)

    @property
    def position(self) -> int:
        """Offset of the next byte."""
        return self._total - len(self._block) + self._at

    def read(self, count: int) -> bytes:
        """Return the next bytes and go on."""
        while len(self._block) - self._at < count:
            self._require(self._inflate())
        begin = self._at
        self._at += count
        return self._block[begin : self._at]

    def peek(self, count: int) -> bytes:
        """Return the next bytes, fewer at the end."""
        while len(self._block) - self._at < count and self._inflate():
            pass
        return self._block[self._at : self._at + count]

    def skip(self, count: int) -> None:
        """Go on."""
        while (held := len(self._block) - self._at) < count:
            count -= held
            self._at = len(self._block)
            self._require(self._inflate())
        self._at += count

    def is_at_end(self) -> bool:
        """Say whether all was read."""
        return self._at == len(self._block) and not self._inflate()

    def skip_short(self, header: struct.Struct, stops: frozenset[int]) -> int:
        """Go past none."""
        del header, stops
        return 0

    @staticmethod
    def _require(is_more: bool) -> None:  # noqa: FBT001 - a condition, not an option
        if not is_more:
            refuse("the data set is truncated")

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
        begin = self._next
        self._next = min(begin + _BLOCK, len(self._data))
        return self._data[begin : self._next]

    def _count(self, length: int) -> None:
        self._total += length
        if self._total > self._limit_bytes:
            raise InstanceTooLargeError(limit_bytes=self._limit_bytes)
