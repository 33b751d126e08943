"""Text drawn into pictures: it fits the box that it was given, whatever it says.

Pillow's own typeface is used, which every installation has; it knows little beyond ASCII, so that
other letters are replaced by what comes closest.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Final, TypeAlias

from PIL import Image, ImageDraw, ImageFont

Color: TypeAlias = tuple[int, int, int]
Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont
Pen: TypeAlias = ImageDraw.ImageDraw

SMALLEST: Final = 13
"""Pixels; smaller text cannot be read in a picture of a thousand pixels."""

_LEADING: Final = 1.35  # line to line, of the size
_CUT: Final = "..."
_REPLACED: Final = str.maketrans(
    {
        "–": "-",  # noqa: RUF001 - these are what is replaced
        "—": "-",
        "‑": "-",  # noqa: RUF001
        "·": "-",
        "’": "'",  # noqa: RUF001
        "×": "x",  # noqa: RUF001
        "…": _CUT,
        "ß": "ss",
        "ø": "o",
        "Ø": "O",
        "ł": "l",
        "Ł": "L",
        "æ": "ae",
        "µ": "u",
        "≥": ">=",
        "≤": "<=",
        "→": "->",
    }
)


@lru_cache(maxsize=64)
def font(size: int) -> Font:
    """Return the typeface in a size, pixels."""
    return ImageFont.load_default(size)


def plain(text: str) -> str:
    """Return a text in the letters that the typeface has; "?" stands for what it cannot say."""
    replaced = " ".join(text.translate(_REPLACED).split())
    apart = unicodedata.normalize("NFKD", replaced)
    bare = "".join(one for one in apart if not unicodedata.combining(one))
    return bare.encode("ascii", "replace").decode("ascii")


def width(text: str, size: int) -> int:
    """Return how wide a text is, pixels."""
    return round(_measure().textlength(plain(text), font(size)))


def _measure() -> Pen:
    return ImageDraw.Draw(Image.new("L", (1, 1)))


def line_step(size: int) -> int:
    """Return the distance of two lines, pixels."""
    return round(_LEADING * size)


def wrapped(text: str, size: int, within: int) -> list[str]:
    """Return a text in lines no wider than `within`; words that are wider are broken."""
    lines = [""]
    for word in plain(text).split():
        for piece in _pieces(word, size, within):
            longer = f"{lines[-1]} {piece}".strip()
            if lines[-1] and width(longer, size) > within:
                lines.append(piece)
            else:
                lines[-1] = longer
    return lines


def _pieces(word: str, size: int, within: int) -> list[str]:
    pieces = []
    while len(word) > 1 and width(word, size) > within:
        count = len(word)
        while count > 1 and width(word[:count], size) > within:
            count -= 1
        pieces.append(word[:count])
        word = word[count:]
    return [*pieces, word]


def cut(text: str, size: int, within: int) -> str:
    """Return as much of a text as fits on one line; three dots stand for the rest."""
    text = plain(text)[: max(within, 0) + 1]  # no letter is narrower than a pixel
    if width(text, size) <= within:
        return text
    while text and width(text + _CUT, size) > within:
        text = text[:-1].rstrip()
    return text + _CUT


def fitted(text: str, size: int, within: int, *, smallest: int = SMALLEST) -> tuple[str, int]:
    """Return a text for one line and the size that it fits in; the smallest cuts it off."""
    while size > smallest and width(text, size) > within:
        size -= 1
    return cut(text, size, within), size


def paragraph(text: str, size: int, within: int, most_lines: int) -> list[str]:
    """Return a text in at most so many lines, the last of which says whether there was more."""
    lines = wrapped(text, size, within)
    if len(lines) <= most_lines:
        return lines
    return [*lines[: most_lines - 1], cut(" ".join(lines[most_lines - 1 :]), size, within)]
