"""Values out of headers that peers wrote: numbers and text, or a coded refusal.

Elements are taken as they stand in the file, because pydicom's conversion costs more than all of
the geometry gate and quotes the values that it does not like in warnings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal, cast

from pydicom.charset import python_encoding
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

from converters.errors import MissingAttributeError

_DECIMALS: Final = re.compile(r"[-+0-9.eE ]+")  # Decimal String, PS3.5 6.2; float() takes more
_UID: Final = re.compile(r"[0-9.]{1,64}")
_PADDING: Final = " \0"
_LARGEST: Final = 1e6  # no length, angle or time of a patient's image comes near it
_US_LENGTH: Final = 2
_LARGEST_US: Final = 65535
_SPECIFIC_CHARACTER_SET: Final = Tag("SpecificCharacterSet")


def texts(header: Dataset, tag: BaseTag) -> tuple[str, ...]:
    """Return an element's values as text in the default repertoire; none when it is absent."""
    return _split(header, tag, "latin-1")


def free_text(header: Dataset, tag: BaseTag) -> str:
    """Return an element's value in the header's own character set, '' when it is absent."""
    names = texts(header, _SPECIFIC_CHARACTER_SET)
    encoding = python_encoding.get(names[-1] if names else "", "latin-1")
    return " ".join(_split(header, tag, encoding))


def _element(header: Dataset, tag: BaseTag) -> DataElement | RawDataElement | None:
    """Return an element as it stands; pydicom's annotation leaves out two of the three."""
    found: object = header.get_item(tag, keep_deferred=True)
    return cast("DataElement | RawDataElement | None", found)


def _split(header: Dataset, tag: BaseTag, encoding: str) -> tuple[str, ...]:
    element = _element(header, tag)
    if element is None or element.value is None or element.VR == "SQ":
        return ()
    value = element.value
    if isinstance(value, bytes):
        text = value.decode(encoding, errors="replace").strip(_PADDING)
        return tuple(part.strip(_PADDING) for part in text.split("\\")) if text else ()
    many = value if isinstance(value, MultiValue | list) else [value]
    return tuple(str(one).strip(_PADDING) for one in many)


def is_present(header: Dataset, tag: BaseTag) -> bool:
    """Say whether an element is there and not empty; sequences count too."""
    element = _element(header, tag)
    return element is not None and bool(element.value)


def numbers(header: Dataset, tag: BaseTag, *, instance: int, count: int) -> tuple[float, ...]:
    """Return the numbers of an element that must hold exactly `count` of them.

    Raises
    ------
    MissingAttributeError
        Absent, another number of values, or values that are not finite numbers of a usable size.
    """
    found = _floats(texts(header, tag))
    if len(found) != count:
        raise unusable(tag, instance)
    return found


def optional_number(header: Dataset, tag: BaseTag) -> float | None:
    """Return the first number of an element, None when there is no usable one."""
    found = _floats(texts(header, tag)[:1])
    return found[0] if found else None


def _floats(words: Sequence[str]) -> tuple[float, ...]:
    """Return the words as numbers, or none at all when any of them is not a usable one."""
    if not all(_DECIMALS.fullmatch(word) for word in words):
        return ()
    try:
        found = tuple(float(word) for word in words)
    except ValueError:
        return ()
    return found if all(abs(value) <= _LARGEST for value in found) else ()


def whole_number(header: Dataset, tag: BaseTag, *, instance: int) -> int:
    """Return the value of an element of Value Representation US.

    Raises
    ------
    MissingAttributeError
        Absent, or not one unsigned 16-bit number.
    """
    value = optional_whole_number(header, tag)
    if value is None:
        raise unusable(tag, instance)
    return value


def optional_whole_number(header: Dataset, tag: BaseTag) -> int | None:
    """Return the value of an element of Value Representation US, None when there is no such."""
    element = _element(header, tag)
    value: object = None if element is None else element.value
    if isinstance(element, RawDataElement) and isinstance(value, bytes):
        order: Literal["little", "big"] = "little" if element.is_little_endian else "big"
        return int.from_bytes(value, order) if len(value) == _US_LENGTH else None
    return value if isinstance(value, int) and 0 <= value <= _LARGEST_US else None


def optional_uid(header: Dataset, tag: BaseTag, *, instance: int) -> str:
    """Return an element's UID, '' when it is absent or empty.

    Raises
    ------
    MissingAttributeError
        It holds something that is no UID (PS3.5 9.1).
    """
    found = texts(header, tag)
    if not any(found):
        return ""
    if len(found) != 1 or not _UID.fullmatch(found[0]):
        raise unusable(tag, instance)
    return found[0]


def unusable(tag: BaseTag, instance: int) -> MissingAttributeError:
    """Return the error that names an attribute of one instance; never its value."""
    return MissingAttributeError(keyword=keyword_for_tag(tag), instance=instance)
