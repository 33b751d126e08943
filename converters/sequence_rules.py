"""What a site says of its series: rules on attributes, which come before every other evidence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from converters import sequence_values
from converters.attributes import is_present
from converters.sequences import Ruling
from converters.volume import Role

__all__ = ["Condition", "Rule", "Ruling", "ruling"]

_NUMERIC: Final = frozenset({"DS", "IS", "FD", "FL", "US", "SS", "UL", "SL"})
_LOCAL: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})  # in the header's repertoire
_BULK: Final = frozenset({"SQ", "OB", "OD", "OF", "OL", "OV", "OW", "UN", "AT"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What one attribute must be; everything that is given must hold.

    Parameters
    ----------
    matches : str, optional
        A regular expression that is found anywhere in the text, in whatever case; several values
        are joined by a backslash, those of free text by a blank.
    at_least, at_most : float, optional
        Limits of the first number.
    any_of : tuple of str
        One of the values is one of these, in whatever case.
    none_of : tuple of str
        No value is one of these; holds for an absent attribute too.
    is_present : bool, optional
        The attribute is there and not empty, or is not.

    Raises
    ------
    ValueError
        Nothing is asked, the limits exclude each other, or the expression is none.
    """

    matches: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    any_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()
    is_present: bool | None = None
    _pattern: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.is_present is None and not (self.asks_value or self.asks_number):
            raise ValueError("a condition must ask something")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least {self.at_least:g} lies above at_most {self.at_most:g}")
        object.__setattr__(self, "_pattern", _compiled(self.matches))

    @property
    def asks_number(self) -> bool:
        """Whether only a number can fulfil it."""
        return self.at_least is not None or self.at_most is not None

    @property
    def asks_value(self) -> bool:
        """Whether the text of the attribute counts."""
        return self.matches is not None or bool(self.any_of or self.none_of)

    def holds(self, header: Dataset, keyword: str) -> bool:
        """Say whether an attribute of a header is as asked."""
        tag = Tag(keyword)
        if self.is_present is not None and is_present(header, tag) is not self.is_present:
            return False
        if self.asks_number and not self._is_within(sequence_values.number(header, keyword)):
            return False
        return not self.asks_value or self._fits(_values(header, keyword))

    def _is_within(self, value: float | None) -> bool:
        if value is None or (self.at_least is not None and value < self.at_least):
            return False
        return self.at_most is None or value <= self.at_most

    def _fits(self, values: tuple[str, ...]) -> bool:
        folded = {value.casefold() for value in values}
        if self.any_of and folded.isdisjoint(one.casefold() for one in self.any_of):
            return False
        if not folded.isdisjoint(one.casefold() for one in self.none_of):
            return False
        return self._pattern is None or self._pattern.search("\\".join(values)) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A series whose attributes fulfil every condition serves `role`, None for no role at all.

    Parameters
    ----------
    name : str
        What the site calls it; shown with every series that it decides.
    role : str, optional
        ``flair``, ``t1``, ``t1gd``, ``t2``, or None: the series is never used.
    where : mapping of str to Condition
        DICOM keyword -> condition.

    Raises
    ------
    ValueError
        No name, no condition, a keyword that DICOM does not know, or a condition that the attribute
        cannot fulfil.
    """

    name: str
    role: Role | None
    where: Mapping[str, Condition]

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("a rule must have a name")
        if not self.where:
            raise ValueError(f"rule {self.name!r} has no condition")
        for keyword, condition in self.where.items():
            _check(self.name, keyword, condition)

    def holds(self, header: Dataset) -> bool:
        """Say whether a header fulfils every condition."""
        return all(condition.holds(header, keyword) for keyword, condition in self.where.items())


def ruling(header: Dataset, rules: Iterable[Rule]) -> Ruling | None:
    """Return what the first rule that holds says of a series, None where none does.

    Parameters
    ----------
    header : Dataset
        Of one instance of the series, or of one slice of a part: classic keywords at the top.
    rules : iterable of Rule
        In the order of the site.
    """
    first = next((rule for rule in rules if rule.holds(header)), None)
    return None if first is None else Ruling(role=first.role, rule=first.name)


def _compiled(expression: str | None) -> re.Pattern[str] | None:
    if expression is None:
        return None
    try:
        return re.compile(expression, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"{expression!r} is no regular expression: {error}") from error


def _check(name: str, keyword: str, condition: Condition) -> None:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"rule {name!r}: {keyword!r} is no DICOM keyword")
    kind = dictionary_VR(tag)
    if condition.asks_number and kind not in _NUMERIC:
        raise ValueError(f"rule {name!r}: {keyword} is no number, at_least and at_most cannot hold")
    if condition.asks_value and not _BULK.isdisjoint(kind.split(" or ")):
        raise ValueError(f"rule {name!r}: {keyword} has no text, only is_present can be asked")


def _values(header: Dataset, keyword: str) -> tuple[str, ...]:
    """Return an attribute's values as text; numbers of binary elements as people write them."""
    tag = Tag(keyword)
    kind = dictionary_VR(tag)
    if kind in _NUMERIC:
        return tuple(f"{one:g}" for one in sequence_values.numbers(header, keyword))
    if kind in _LOCAL:
        return (sequence_values.text(header, tag),)
    return sequence_values.words(header, keyword)
