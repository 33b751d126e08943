"""Instances to float32 planes after the modality LUT.

Uncompressed little-endian pixels, what most scanners send, are read straight from the end of the
file; everything else goes through pydicom's decoders. Planes hold the modality's values whatever
the Photometric Interpretation: MONOCHROME1 says how to display a value, not what it means.

Notes
-----
Real World Value Mapping and Philips' private scale slope turn values into units that a scanner
calls physical. MR has none that its vendors agree on, so both are left out, as viewers do: only
Rescale Slope and Intercept, or a Modality LUT, are applied. Pixel Padding Value is no mask here.

References
----------
DICOM PS3.3 C.7.6.3 Image Pixel, C.7.6.24 Floating Point Image Pixel, C.11.1 Modality LUT; PS3.5
8.1.1 pixel encoding, 8.2 native and encapsulated pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import SEEK_END, BytesIO, RawIOBase
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut
from pydicom.pixels.utils import iter_pixels
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from converters import pixel_streams
from converters.attributes import is_present, numbers, optional_number, texts, whole_number
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
_FRAME_COUNT: Final = Tag("NumberOfFrames")
_SLOPE: Final = Tag("RescaleSlope")
_INTERCEPT: Final = Tag("RescaleIntercept")
_MODALITY_LUT: Final = Tag("ModalityLUTSequence")

_GREY: Final = ("MONOCHROME1", "MONOCHROME2")
_BITS: Final = (8, 16, 32)
_FLOATS: Final = {32: (0x0008, b"OF"), 64: (0x0009, b"OD")}
_BYTE: Final = 8
NO_DECODER: Final = "no decoder"
"""Reason of a refusal: the encoding itself is not known here, whatever the pixels are."""

_LONGEST: Final = 0xFFFFFFFE  # bytes of one element, PS3.5 7.1.1


class _Wanted(NamedTuple):
    """One plane to fill: where it goes, what describes it and which frame of the file it is."""

    plane: NDArray[np.float32]
    header: Dataset
    frame: int
    slice_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """How one instance stores its pixels, and what the values of one plane mean."""

    element: int
    representation: bytes
    frame_count: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    unused_bits: int
    slope: float
    intercept: float
    has_table: bool

    @property
    def frame_bytes(self) -> int:
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    @property
    def value_bytes(self) -> int:
        """Length of the element, which is even."""
        return -(-self.frame_bytes * self.frame_count // 2) * 2


def decode_into(
    plane: NDArray[np.float32], file: Path, header: Dataset, *, slice_index: int, frame: int = 0
) -> None:
    """Fill a plane with the values of one frame after the modality LUT.

    Parameters
    ----------
    plane : (rows, columns) ndarray of float32
        Written to.
    file : Path
        The instance.
    header : Dataset
        Its elements before the pixels; in a multi-frame file with those of the frame's own
        functional groups at the top level.
    slice_index : int
        Named when something is wrong.
    frame : int
        Number of the frame in a multi-frame file, from 1; 0 for a classic instance.

    Raises
    ------
    PixelDecodeError
        Colour, a bit layout that PS3.5 does not know, pixels that are cut short or that the decoder
        refuses, another number of frames than the header says.
    MissingAttributeError
        An attribute of the pixel's encoding or the rescale is absent or malformed.

    Notes
    -----
    For many frames of one file use `decode_stack`: a compressed file is parsed anew here.
    """
    _fill(file, [_Wanted(plane, header, frame, slice_index)])


def decode_stack(
    planes: NDArray[np.float32],
    files: Sequence[Path],
    headers: Sequence[Dataset],
    frames: Sequence[int],
) -> None:
    """Fill a volume; every file is opened, and parsed where it must be, once.

    Parameters
    ----------
    planes : (slices, rows, columns) ndarray of float32
        Written to.
    files, headers, frames : sequences
        File, header and frame number of each slice, as `decode_into` takes them.

    Raises
    ------
    PixelDecodeError, MissingAttributeError
        As `decode_into`.
    """
    by_file: dict[Path, list[_Wanted]] = {}
    for index, file in enumerate(files):
        one = _Wanted(planes[index], headers[index], frames[index], index)
        by_file.setdefault(file, []).append(one)
    for file, wanted in by_file.items():
        _fill(file, wanted)


def _fill(file: Path, wanted: Sequence[_Wanted]) -> None:
    """Fill planes from frames of one file."""
    layouts = [_checked_layout(one) for one in wanted]
    for one, layout, values in zip(wanted, layouts, _stored(file, wanted, layouts[0]), strict=True):
        _apply(one, layout, values)


def _apply(one: _Wanted, layout: _Layout, stored: NDArray[Any]) -> None:
    """Write stored values to a plane through the modality LUT."""
    if stored.shape != one.plane.shape:
        raise PixelDecodeError(slice_index=one.slice_index, reason="matrix")
    if layout.has_table:
        try:
            one.plane[...] = apply_modality_lut(stored, one.header)
        except UNREADABLE as error:
            reason = "ModalityLUTSequence"
            raise PixelDecodeError(slice_index=one.slice_index, reason=reason) from error
        return
    if layout.slope == 1.0 and layout.intercept == 0.0:
        one.plane[...] = stored
        return
    one.plane[...] = stored * layout.slope + layout.intercept  # in float64, rounded once


def _checked_layout(one: _Wanted) -> _Layout:
    layout = _layout(one.header, one.slice_index)
    if layout.shape != one.plane.shape:
        raise PixelDecodeError(slice_index=one.slice_index, reason="matrix")
    is_classic = one.frame == 0 and layout.frame_count == 1
    if not is_classic and not 1 <= one.frame <= layout.frame_count:
        raise PixelDecodeError(slice_index=one.slice_index, reason="frame")
    return layout


def _layout(header: Dataset, index: int) -> _Layout:
    photometric = texts(header, _PHOTOMETRIC)
    is_grey = not photometric or photometric[0] in _GREY
    if not is_grey or whole_number(header, _SAMPLES, instance=index) != 1:
        raise PixelDecodeError(slice_index=index, reason="colour")
    element, representation, dtype, unused_bits = _bits(header, index)
    return _Layout(
        element=element,
        representation=representation,
        frame_count=int(optional_number(header, _FRAME_COUNT) or 1),
        shape=(
            whole_number(header, _ROWS, instance=index),
            whole_number(header, _COLUMNS, instance=index),
        ),
        dtype=dtype,
        unused_bits=unused_bits,
        slope=_rescale(header, "slope", index),
        intercept=_rescale(header, "intercept", index),
        has_table=is_present(header, _MODALITY_LUT),
    )


def _bits(header: Dataset, index: int) -> tuple[int, bytes, np.dtype[Any], int]:
    """Return element, value representation and type of the pixels, and the bits that do not count.

    Pixels that have no Pixel Representation are floating-point numbers (PS3.3 C.7.6.24).
    """
    allocated = whole_number(header, _ALLOCATED, instance=index)
    if allocated in _FLOATS and _SIGNED not in header:
        element, representation = _FLOATS[allocated]
        return element, representation, np.dtype(f"<f{allocated // _BYTE}"), 0
    stored = whole_number(header, _STORED, instance=index)
    is_signed = whole_number(header, _SIGNED, instance=index) == 1
    is_aligned = whole_number(header, _HIGH, instance=index) == stored - 1
    if allocated not in _BITS or not 1 <= stored <= allocated or not is_aligned:
        raise PixelDecodeError(slice_index=index, reason="bit layout")
    dtype = np.dtype(f"<{'i' if is_signed else 'u'}{allocated // _BYTE}")
    representation = b"OB" if allocated == _BYTE else b"OW"
    return 0x0010, representation, dtype, allocated - stored


def _rescale(header: Dataset, part: str, index: int) -> float:
    tag, usual = (_SLOPE, 1.0) if part == "slope" else (_INTERCEPT, 0.0)
    return numbers(header, tag, instance=index, count=1)[0] if is_present(header, tag) else usual


def _element_header(layout: _Layout, transfer_syntax: str) -> bytes | None:
    """Return the bytes before uncompressed pixels, None for an encoding that is left to pydicom."""
    if layout.value_bytes > _LONGEST:
        return None
    tag = struct.pack("<HH", 0x7FE0, layout.element)
    if transfer_syntax == ImplicitVRLittleEndian:
        return tag + struct.pack("<L", layout.value_bytes)
    if transfer_syntax == ExplicitVRLittleEndian:
        return tag + layout.representation + struct.pack("<HL", 0, layout.value_bytes)
    return None


def _stored(file: Path, wanted: Sequence[_Wanted], layout: _Layout) -> Iterator[NDArray[Any]]:
    """Yield the stored values of each plane, read one after the other.

    Parsing the file a second time would cost ten times as much as reading its pixels.
    """
    with file.open("rb", buffering=0) as stream:
        start = _native_start(stream, wanted[0].header, layout)
        if start is None:
            yield from _decoded(stream, wanted, layout)
            return
        for one in wanted:
            stream.seek(start + max(one.frame - 1, 0) * layout.frame_bytes)
            flat = np.frombuffer(stream.read(layout.frame_bytes), dtype=layout.dtype)
            yield _used_bits(flat, layout.unused_bits).reshape(layout.shape)


def _native_start(stream: RawIOBase, header: Dataset, layout: _Layout) -> int | None:
    """Return where uncompressed pixels at the end of a file start, None where there are none."""
    syntax = texts(getattr(header, "file_meta", header), _TRANSFER_SYNTAX)
    before = _element_header(layout, "".join(syntax))
    if before is None:
        return None
    start = stream.seek(0, SEEK_END) - layout.value_bytes
    if start < len(before):
        return None
    stream.seek(start - len(before))
    return start if stream.read(len(before)) == before else None


def _used_bits(stored: NDArray[Any], unused_bits: int) -> NDArray[Any]:
    """Return values without the bits above High Bit, which may hold anything (PS3.5 8.1.1)."""
    if not unused_bits:
        return stored
    limits = np.iinfo(stored.dtype)
    if stored.max() <= limits.max >> unused_bits and stored.min() >= limits.min >> unused_bits:
        return stored
    shifted: NDArray[Any] = stored << unused_bits >> unused_bits
    return shifted


def _decoded(
    stream: RawIOBase, wanted: Sequence[_Wanted], layout: _Layout
) -> Iterator[NDArray[Any]]:
    """Yield frames as pydicom's decoders give them."""
    indices = [max(one.frame - 1, 0) for one in wanted]
    stream.seek(0)
    content, done = stream.read(), 0
    try:
        ds = dcmread(BytesIO(content))
        plugin = pixel_streams.plugin(ds.file_meta.TransferSyntaxUID)
        if plugin is None:
            raise PixelDecodeError(slice_index=wanted[0].slice_index, reason=NO_DECODER)
        pixel_streams.check(ds, indices, frame_count=layout.frame_count, shape=layout.shape)
        for values in iter_pixels(ds, indices=indices, raw=True, decoding_plugin=plugin):
            yield values
            done += 1
    except UNREADABLE as error:
        index = wanted[min(done, len(wanted) - 1)].slice_index
        raise PixelDecodeError(slice_index=index, reason=type(error).__name__) from error
