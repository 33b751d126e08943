"""Multipart bodies of DICOM files, read as they arrive: of requests by STOW-RS, answers by WADO-RS.

References
----------
RFC 2046 5.1 multipart, RFC 2387 multipart/related, DICOM PS3.18 8.6.1.2.
"""

from __future__ import annotations

from typing import Final, Protocol

from python_multipart.multipart import MultipartParser, MultipartState, parse_options_header

MEDIA_TYPE: Final = b"application/dicom"
_LONGEST_BOUNDARY: Final = 200  # RFC 2046 allows 70 characters, Orthanc sends 73


def form_of(content_type: str) -> tuple[bytes, bytes]:
    """Return the boundary and the type of the parts of a body, no boundary where it is no such."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    root = options.get(b"type", MEDIA_TYPE).lower()
    is_usable = kind == b"multipart/related" and len(boundary) <= _LONGEST_BOUNDARY
    return (boundary if is_usable else b""), root


def boundary_of(content_type: str) -> bytes:
    """Return the boundary of a body of DICOM files, nothing where it is no such type."""
    boundary, root = form_of(content_type)
    return boundary if root == MEDIA_TYPE else b""


class Sink(Protocol):
    """What is told of the parts of a body, one after the other."""

    def begin(self, headers: dict[bytes, bytes]) -> None:
        """Take the headers of the next part; their names are in lower case."""
        ...

    def write(self, fragment: memoryview) -> None:
        """Take the next bytes of the part."""
        ...

    def end(self) -> None:
        """Know that the part is whole."""
        ...


class MultipartReader:
    """Reads a body piece by piece; no more of it is held than a piece."""

    def __init__(self, boundary: bytes, sink: Sink) -> None:
        self._sink = sink
        self._headers: dict[bytes, bytes] = {}
        self._name, self._value = b"", b""
        self._parser = MultipartParser(
            boundary,
            {
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": sink.end,
            },
        )

    @property
    def is_whole(self) -> bool:
        """Whether the last boundary has come."""
        return bool(self._parser.state == MultipartState.END)

    def feed(self, block: bytes) -> None:
        """Take the next bytes of the body.

        Raises
        ------
        FormParserError
            It is no multipart body.
        """
        self._parser.write(block)

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name, self._value = b"", b""

    def _on_headers_finished(self) -> None:
        headers, self._headers = self._headers, {}
        self._sink.begin(headers)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._sink.write(memoryview(data)[start:end])
