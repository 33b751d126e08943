"""Uploads: multipart bodies with one file in them, written to disk as they arrive.

Nothing of what the client calls the file is used, and no more of the body is ever held than the
block that is being written.

References
----------
RFC 2046 5.1 multipart, RFC 7578 multipart/form-data.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from node.errors import (
    SpoolFullError,
    SpoolUnwritableError,
    UploadInvalidError,
    UploadTooLargeError,
    UploadTypeError,
)
from node.receive.multipart import MultipartReader

FIELD: Final = b"file"
FRAMING_BYTES: Final = 2**16
"""How much of a body may be something other than the file: boundaries, headers, a preamble."""
_LONGEST_BOUNDARY: Final = 70  # RFC 2046 5.1.1


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that a Content-Type header names.

    Raises
    ------
    UploadTypeError
        It is another type, or names no boundary that can be one.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 1 <= len(boundary) <= _LONGEST_BOUNDARY:
        raise UploadTypeError
    return boundary


class UploadedFile:
    """The file of a body; a context manager that closes it.

    Parameters
    ----------
    boundary : bytes
        Of the body.
    path : Path
        Where the file is written; it must not exist.
    limit_bytes : int
        The most that the file may have.
    """

    def __init__(self, boundary: bytes, path: Path, *, limit_bytes: int) -> None:
        self.path, self.byte_count = path, 0
        self._body_bytes = 0
        self._limit_bytes = limit_bytes
        self._part_count = 0
        self._file = path.open("xb")
        self._reader = MultipartReader(boundary, self)

    def __enter__(self) -> Self:
        """Return the file, open."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it; what could not be written any more was reported or is not wanted."""
        with suppress(OSError):
            self._file.close()

    def feed(self, block: bytes) -> None:
        """Take the next bytes of the body.

        Raises
        ------
        UploadInvalidError
            The body is damaged, or holds something other than one part named file.
        UploadTooLargeError
            There is more than may be.
        SpoolFullError, SpoolUnwritableError
            The disk does not take it.
        """
        self._body_bytes += len(block)
        if self._body_bytes > self._limit_bytes + FRAMING_BYTES:
            raise UploadTooLargeError(limit_bytes=self._limit_bytes)
        try:
            self._reader.feed(block)
        except FormParserError as error:
            raise UploadInvalidError(reason="it is no multipart body") from error
        except OSError as error:
            raise _unwritten(error) from error

    def finish(self, *, is_durable: bool) -> None:
        """Check that the body came to its end; with `is_durable` a power cut leaves the file whole.

        Raises
        ------
        UploadInvalidError
            The body ended before its last boundary, or the file is empty or absent.
        SpoolFullError, SpoolUnwritableError
            The disk does not take the rest.
        """
        if not self._reader.is_whole:
            raise UploadInvalidError(reason="it ends before its last boundary")
        if not self.byte_count:
            raise UploadInvalidError(reason="there is no file in it, or an empty one")
        try:
            self._file.flush()
            if is_durable:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise _unwritten(error) from error

    # -- what the reader finds ---------------------------------------------------------------

    def begin(self, headers: dict[bytes, bytes]) -> None:
        """Check that it is the one part that is wanted."""
        self._part_count += 1
        if self._part_count > 1:
            raise UploadInvalidError(reason="it has a second part")
        kind, options = parse_options_header(headers.get(b"content-disposition"))
        if kind != b"form-data" or options.get(b"name") != FIELD:
            raise UploadInvalidError(reason="its part has another name")

    def write(self, fragment: memoryview) -> None:
        """Append to the file."""
        self.byte_count += len(fragment)
        if self.byte_count > self._limit_bytes:
            raise UploadTooLargeError(limit_bytes=self._limit_bytes)
        self._file.write(fragment)

    def end(self) -> None:
        """Wait for the last boundary."""


def _unwritten(error: OSError) -> SpoolFullError | SpoolUnwritableError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SpoolFullError(free_bytes=0, floor_bytes=0)
    return SpoolUnwritableError(reason=error.strerror or type(error).__name__)
