"""Values of a header for telling sequences apart: absent or malformed is nothing, never an error.

Numbers are read from text and from binary value representations alike: enhanced MR writes its times
and angles as doubles.
"""

from __future__ import annotations

import math
import struct
from typing import Final

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from converters.attributes import free_text, texts

_BINARY: Final = {"FD": "d", "FL": "f", "US": "H", "SS": "h", "UL": "L", "SL": "l"}
_LONGEST_TEXT: Final = 1024
_MOST_NUMBERS: Final = 64
_LARGEST: Final = 1e6


def numbers(header: Dataset, keyword: str) -> tuple[float, ...]:
    """Return the finite numbers of an element in their order; what is none is left out."""
    tag = Tag(keyword)
    element: object = header.get_item(tag, keep_deferred=True)
    if isinstance(element, RawDataElement) and isinstance(element.value, bytes):
        layout = _BINARY.get(dictionary_VR(tag))
        if layout:
            return _unpacked(element.value, layout, is_little=element.is_little_endian)
    found = (_number(word) for word in texts(header, tag)[:_MOST_NUMBERS])
    return tuple(one for one in found if one is not None)


def number(header: Dataset, keyword: str) -> float | None:
    """Return the first number of an element, None where there is none."""
    return next(iter(numbers(header, keyword)), None)


def words(header: Dataset, keyword: str) -> tuple[str, ...]:
    """Return the values of a coded element, upper case and without padding."""
    return tuple(word.upper()[:_LONGEST_TEXT] for word in texts(header, Tag(keyword)))


def word(header: Dataset, keyword: str) -> str:
    """Return the first of the `words`, '' where there is none."""
    return next(iter(words(header, keyword)), "")


def text(header: Dataset, tag: BaseTag) -> str:
    """Return free text in the header's own character set, cut to a usable length."""
    return free_text(header, tag)[:_LONGEST_TEXT]


def _number(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return value if _is_usable(value) else None


def _unpacked(value: bytes, layout: str, *, is_little: bool) -> tuple[float, ...]:
    size = struct.calcsize(f"<{layout}")
    count = min(len(value) // size, _MOST_NUMBERS)
    order = "<" if is_little else ">"
    found = struct.unpack(f"{order}{count}{layout}", value[: count * size])
    return tuple(float(one) for one in found if _is_usable(float(one)))


def _is_usable(value: float) -> bool:
    return math.isfinite(value) and abs(value) <= _LARGEST
