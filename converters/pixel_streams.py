"""Compressed pixels before they are decoded: which decoder reads them, and whether they are whole.

References
----------
DICOM PS3.5 8.2 native and encapsulated pixels, A.4 encapsulation; ITU-T T.81, T.87, T.800.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

_NATIVE: Final = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
_JPEG: Final = (
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEG2000Lossless,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    HTJ2K,
)
DECODED: Final = (*_JPEG, RLELossless)
"""Transfer syntaxes of compressed pixels that are read."""

_END_OF_IMAGE: Final = b"\xff\xd9"
_FILL: Final = b"\0"
_J2K_SIZE: Final = b"\xff\x4f\xff\x51"
_LONGEST_JP2_HEADER: Final = 4096  # bytes; some writers leave the boxes of a JP2 file around it
_JPEG_FRAMES: Final = {*range(0xFFC0, 0xFFD0), 0xFFF7} - {0xFFC4, 0xFFC8, 0xFFCC}
_JPEG_FILL: Final = 0xFFFF


def plugin(syntax: UID) -> str | None:
    """Return which decoder of pydicom's reads a transfer syntax.

    '' stands for uncompressed pixels, None for a transfer syntax that has no decoder here.

    Notes
    -----
    Left to itself pydicom takes GDCM where it is installed, which ends the process on a damaged
    stream; 600 mutated streams of each encoding ended in a refusal or in values here.
    """
    if syntax in _NATIVE:
        return ""
    name = "pydicom" if syntax == RLELossless else "pylibjpeg"
    is_there = syntax in DECODED and name in get_decoder(syntax).available_plugins
    return name if is_there else None


def check(ds: Dataset, indices: Sequence[int], *, frame_count: int, shape: tuple[int, int]) -> None:
    """Raise ``ValueError`` for a JPEG stream that is cut short or holds another matrix.

    Parameters
    ----------
    ds : Dataset
        With its compressed pixels.
    indices : sequence of int
        Frames to look at, from 0.
    frame_count : int
        How many there are.
    shape : tuple of int
        Rows and columns that each must hold.

    Notes
    -----
    Decoders fill what is missing with grey, and make room for any matrix before they look on.
    """
    if ds.file_meta.TransferSyntaxUID not in _JPEG:
        return
    streams = list(generate_frames(ds.PixelData, number_of_frames=frame_count))
    for index in indices:
        if not streams[index].rstrip(_FILL).endswith(_END_OF_IMAGE):
            raise ValueError("a JPEG stream has no end")
        if _stream_shape(streams[index]) != shape:
            raise ValueError("a JPEG stream holds another matrix")


def _stream_shape(stream: bytes) -> tuple[int, int]:
    """Return rows and columns that a stream says it holds (T.81 B.2.2, T.87 C.2.2, T.800 A.5.1).

    A stream that ends before it says so raises ``struct.error``.
    """
    at = stream.find(_J2K_SIZE, 0, _LONGEST_JP2_HEADER)
    if at >= 0:
        right, bottom, left, top = struct.unpack_from(">4L", stream, at + 8)
        return bottom - top, right - left
    at = 2
    while True:
        marker, length, _, rows, columns = struct.unpack_from(">HHBHH", stream, at)
        if marker in _JPEG_FRAMES:
            return rows, columns
        at += 1 if marker == _JPEG_FILL else 2 + length
