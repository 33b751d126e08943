"""One instance to a float32 plane after the modality LUT.

Uncompressed little-endian pixels, what most scanners send, are read straight from the end of the
file; everything else goes through pydicom's decoders. Planes hold the modality's values whatever
the Photometric Interpretation: MONOCHROME1 says how to display a value, not what it means.

References
----------
DICOM PS3.3 C.7.6.3 Image Pixel, C.11.1 Modality LUT; PS3.5 8.1.1 pixel encoding.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from converters.attributes import is_present, numbers, texts, whole_number
from converters.errors import PixelDecodeError
from converters.headers import UNREADABLE

_TRANSFER_SYNTAX: Final = Tag("TransferSyntaxUID")
_ROWS: Final = Tag("Rows")
_COLUMNS: Final = Tag("Columns")
_SAMPLES: Final = Tag("SamplesPerPixel")
_PHOTOMETRIC: Final = Tag("PhotometricInterpretation")
_ALLOCATED: Final = Tag("BitsAllocated")
_STORED: Final = Tag("BitsStored")
_HIGH: Final = Tag("HighBit")
_SIGNED: Final = Tag("PixelRepresentation")
_SLOPE: Final = Tag("RescaleSlope")
_INTERCEPT: Final = Tag("RescaleIntercept")
_MODALITY_LUT: Final = Tag("ModalityLUTSequence")

_GREY: Final = ("MONOCHROME1", "MONOCHROME2")
_BITS: Final = (8, 16, 32)
_BYTE: Final = 8
_LONGEST: Final = 0xFFFFFFFE  # bytes of one element, PS3.5 7.1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """How one instance stores its pixels, and what its values mean."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    unused_bits: int
    slope: float
    intercept: float

    @property
    def byte_count(self) -> int:
        return self.shape[0] * self.shape[1] * self.dtype.itemsize


def decode_into(
    plane: NDArray[np.float32], file: Path, header: Dataset, *, slice_index: int
) -> None:
    """Fill a plane with the values of one instance after the modality LUT.

    Parameters
    ----------
    plane : (rows, columns) ndarray of float32
        Written to.
    file : Path
        The instance.
    header : Dataset
        Its elements before the pixels.
    slice_index : int
        Named when something is wrong.

    Raises
    ------
    PixelDecodeError
        Colour, a Modality LUT Sequence, a bit layout that PS3.5 does not know, pixels that are
        cut short or that the decoder refuses.
    MissingAttributeError
        An attribute of the pixel's encoding or the rescale is absent or malformed.
    """
    layout = _layout(header, slice_index)
    if layout.shape != plane.shape:
        raise PixelDecodeError(slice_index=slice_index, reason="matrix")
    stored = _read_native(file, header, layout)
    if stored is None:
        stored = _decode(file, slice_index)
        if stored.shape != plane.shape:
            raise PixelDecodeError(slice_index=slice_index, reason="matrix")
    if layout.slope == 1.0 and layout.intercept == 0.0:
        plane[...] = stored
        return
    plane[...] = stored * layout.slope + layout.intercept  # in float64, rounded once


def _layout(header: Dataset, index: int) -> _Layout:
    photometric = texts(header, _PHOTOMETRIC)
    if photometric[:1] and photometric[0] not in _GREY:
        raise PixelDecodeError(slice_index=index, reason="colour")
    if is_present(header, _MODALITY_LUT):
        raise PixelDecodeError(slice_index=index, reason="ModalityLUTSequence")
    if whole_number(header, _SAMPLES, instance=index) != 1:
        raise PixelDecodeError(slice_index=index, reason="colour")
    allocated = whole_number(header, _ALLOCATED, instance=index)
    stored = whole_number(header, _STORED, instance=index)
    is_signed = whole_number(header, _SIGNED, instance=index) == 1
    is_aligned = whole_number(header, _HIGH, instance=index) == stored - 1
    if allocated not in _BITS or not 1 <= stored <= allocated or not is_aligned:
        raise PixelDecodeError(slice_index=index, reason="bit layout")
    return _Layout(
        shape=(
            whole_number(header, _ROWS, instance=index),
            whole_number(header, _COLUMNS, instance=index),
        ),
        dtype=np.dtype(f"<{'i' if is_signed else 'u'}{allocated // _BYTE}"),
        unused_bits=allocated - stored,
        slope=_rescale(header, "slope", index),
        intercept=_rescale(header, "intercept", index),
    )


def _rescale(header: Dataset, part: str, index: int) -> float:
    tag, usual = (_SLOPE, 1.0) if part == "slope" else (_INTERCEPT, 0.0)
    return numbers(header, tag, instance=index, count=1)[0] if is_present(header, tag) else usual


def _element_header(layout: _Layout, transfer_syntax: str) -> bytes | None:
    """Return the bytes before uncompressed pixels, None for an encoding that is left to pydicom."""
    if layout.byte_count > _LONGEST:
        return None
    tag = struct.pack("<HH", 0x7FE0, 0x0010)
    if transfer_syntax == ImplicitVRLittleEndian:
        return tag + struct.pack("<L", layout.byte_count)
    if transfer_syntax == ExplicitVRLittleEndian:
        representation = b"OB" if layout.dtype.itemsize == 1 else b"OW"
        return tag + representation + struct.pack("<HL", 0, layout.byte_count)
    return None


def _read_native(file: Path, header: Dataset, layout: _Layout) -> NDArray[Any] | None:
    """Return pixels that are the last element of the file, None where they are anything else.

    Parsing the file a second time would cost ten times as much as reading its pixels.
    """
    syntax = texts(getattr(header, "file_meta", header), _TRANSFER_SYNTAX)
    before = _element_header(layout, "".join(syntax))
    if before is None:
        return None
    with file.open("rb", buffering=0) as stream:
        size = stream.seek(0, 2)
        start = size - layout.byte_count - len(before)
        if start < 0:
            return None
        stream.seek(start)
        content = stream.read()
    if not content.startswith(before):
        return None
    flat = np.frombuffer(content, dtype=layout.dtype, offset=len(before))
    return _used_bits(flat, layout.unused_bits).reshape(layout.shape)


def _used_bits(stored: NDArray[Any], unused_bits: int) -> NDArray[Any]:
    """Return values without the bits above High Bit, which may hold anything (PS3.5 8.1.1)."""
    limits = np.iinfo(stored.dtype)
    if stored.max() <= limits.max >> unused_bits and stored.min() >= limits.min >> unused_bits:
        return stored
    shifted: NDArray[Any] = stored << unused_bits >> unused_bits
    return shifted


def _decode(file: Path, index: int) -> NDArray[Any]:
    content = file.read_bytes()
    try:
        decoded: NDArray[Any] = dcmread(BytesIO(content)).pixel_array
    except UNREADABLE as error:
        raise PixelDecodeError(slice_index=index, reason=type(error).__name__) from error
    return decoded
