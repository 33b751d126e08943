"""Derived objects become files, Explicit VR Little Endian, as pydicom would write them.

The frames of a Segmentation and the evidence of a report are hundreds of items that say much the
same. pydicom encodes each element of each anew, and walks every item once for each level above it;
here an element that stands in many items is encoded once. Whatever else pydicom would do to an
object is left to it.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final, TypeAlias

from pydicom.charset import default_encoding
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import (
    correct_ambiguous_vr_element,
    write_data_element,
    write_dataset,
    write_file_meta_info,
)
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import AMBIGUOUS_VR, VR

_Encodings: TypeAlias = str | list[str]
_PREAMBLE: Final = bytes(128) + b"DICM"
_ITEM: Final = struct.pack("<HH", 0xFFFE, 0xE000)
_SEQUENCE: Final = struct.Struct("<HH2sHL")
_CHARACTER_SET: Final = Tag("SpecificCharacterSet")
_length: Final = struct.Struct("<L").pack


class _UnusualError(Exception):
    """Something that only pydicom writes."""


def write(derived: Dataset, path: Path) -> None:
    """Write an object with its file meta information.

    Parameters
    ----------
    derived : Dataset
        With file meta information. Kinds of its values that depend on other values are settled.
    path : Path
        Replaced if it is there.

    References
    ----------
    DICOM PS3.10 7.1 File Meta Information, PS3.5 7.1.2 and 7.5.
    """
    try:
        body = _Writer().dataset(derived, default_encoding)
    except _UnusualError:
        body = None
    if body is None or derived.file_meta.TransferSyntaxUID != ExplicitVRLittleEndian:
        derived.save_as(path, enforce_file_format=True)
        return
    meta = _buffer()
    write_file_meta_info(meta, derived.file_meta, enforce_standard=True)
    with path.open("wb") as file:
        file.writelines([_PREAMBLE, meta.getvalue(), *body])


def _buffer() -> DicomBytesIO:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    return buffer


class _Writer:
    """Encodes the data sets of one object, which it keeps alive: elements are known by identity."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], bytes] = {}

    def dataset(self, ds: Dataset, around: _Encodings) -> list[bytes]:
        """Return the encoded elements in order; text in the character set of `around` by default.

        Raises
        ------
        _UnusualError
            A sequence or an item has no length.
        """
        if ds.original_encoding != (None, None):  # read from a file: its bytes may stay as they are
            buffer = _buffer()
            write_dataset(buffer, ds, around)
            return [buffer.getvalue()]
        encodings = ds.SpecificCharacterSet if _CHARACTER_SET in ds else around
        return [self._element(element, ds, encodings) for element in ds]

    def _element(self, element: DataElement, ds: Dataset, encodings: _Encodings) -> bytes:
        if element.VR == VR.SQ:
            return self._sequence(element, encodings)
        key = id(element), str(encodings)
        if key not in self._known:
            if element.VR in AMBIGUOUS_VR:
                correct_ambiguous_vr_element(element, ds, is_little_endian=True)
            buffer = _buffer()
            write_data_element(buffer, element, encodings)
            self._known[key] = buffer.getvalue()
        return self._known[key]

    def _sequence(self, sequence: DataElement, encodings: _Encodings) -> bytes:
        if sequence.is_undefined_length:
            raise _UnusualError
        parts = []
        for item in sequence.value or ():
            if getattr(item, "is_undefined_length_sequence_item", False):
                raise _UnusualError
            encoded = b"".join(self.dataset(item, encodings))
            parts += [_ITEM, _length(len(encoded)), encoded]
        value = b"".join(parts)
        tag = sequence.tag
        return _SEQUENCE.pack(tag.group, tag.element, b"SQ", 0, len(value)) + value
