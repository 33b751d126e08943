"""What stands around the pictures of a page: title, warning, legend, scale, model and number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from PIL import Image, ImageDraw

from converters import lettering
from converters.lettering import Color, Pen
from converters.volume import Segment

SIZE: Final = 1024
"""Rows and columns of every page."""

WARNING: Final = "AI, research use only"

PAGE: Final = (13, 17, 23)
LINE: Final = (48, 57, 68)
TEXT: Final = (230, 237, 243)
MUTED: Final = (150, 160, 171)
AMBER: Final = (240, 180, 70)
BLUE: Final = (110, 168, 254)

HEAD: Final = 112
"""Rows above the pictures, which hold the title."""
FOOT: Final = 92
"""Rows below the pictures, which hold legend, model and number."""
PAD: Final = 28

_INK: Final = (24, 18, 4)
_BAR_MM: Final = 50.0


def blank() -> Image.Image:
    """Return an empty page."""
    return Image.new("RGB", (SIZE, SIZE), PAGE)


def head(page: Image.Image, title: str) -> None:
    """Write the title of a page and what every page has to say, in the middle of its upper border.

    Viewers write over the corners of what they show.
    """
    pen = ImageDraw.Draw(page)
    text, size = lettering.fitted(title, 28, SIZE - 2 * PAD)
    pen.text((SIZE // 2, 32), text, TEXT, lettering.font(size), "mm")
    warning(page, (SIZE + warning_width(24)) // 2, 58, 24)


def warning_width(size: int) -> int:
    """Return how wide the box of `warning` is."""
    return lettering.width(WARNING, size) + size


def warning(page: Image.Image, right: int, top: int, size: int) -> None:
    """Write what every page has to say in a box that ends at `right`."""
    pen, wide = ImageDraw.Draw(page), warning_width(size)
    height = round(1.65 * size)
    pen.rounded_rectangle((right - wide, top, right, top + height), 7, fill=AMBER)
    place = (right - wide // 2, top + height // 2)
    pen.text(place, WARNING, _INK, lettering.font(size), "mm", stroke_width=0)


def foot(page: Image.Image, segments: Sequence[Segment], step_mm: float) -> None:
    """Write the legend of a page of pictures and how long five centimetres are."""
    pen, top = ImageDraw.Draw(page), SIZE - FOOT + 10
    _legend(pen, segments, top, bar(pen, SIZE - PAD, top + 12, step_mm) - 2 * PAD)


def bar(pen: Pen, right: int, middle: int, step_mm: float) -> int:
    """Draw how long five centimetres are, up to `right`; return where it begins."""
    left, text = right - round(_BAR_MM / step_mm), f"{_BAR_MM / 10:.0f} cm"
    pen.line((left, middle, right, middle), TEXT, 3)
    for end in (left, right):
        pen.line((end, middle - 6, end, middle + 6), TEXT, 3)
    pen.text((left - 10, middle), text, TEXT, lettering.font(20), "rm")
    return left - 10 - lettering.width(text, 20)


def _legend(pen: Pen, segments: Sequence[Segment], top: int, room: int) -> None:
    if not segments:
        return
    size, names = 22, [one.label for one in segments]
    while size > lettering.SMALLEST and _legend_width(names, size) > room:
        size -= 1
    if _legend_width(names, size) > room:
        each = room // len(names) - round(2.4 * size)
        names = [lettering.cut(name, size, each) for name in names]
    left = PAD
    for segment, name in zip(segments, names, strict=True):
        mark(pen, (left, top + 12 - size // 2), size, segment.color_rgb)
        pen.text(
            (left + round(1.4 * size), top + 12),
            lettering.plain(name),
            TEXT,
            lettering.font(size),
            "lm",
        )
        left += lettering.width(name, size) + round(2.4 * size)


def _legend_width(names: Sequence[str], size: int) -> int:
    return sum(lettering.width(name, size) + round(2.4 * size) for name in names)


def mark(pen: Pen, place: tuple[int, int], size: int, color: Color) -> None:
    """Draw the mark of a segment, its upper left corner at a place."""
    left, top = place
    pen.rounded_rectangle((left, top, left + size - 1, top + size - 1), size // 5, fill=color)


def sign(page: Image.Image, model: str, place: str, *, is_demonstration: bool) -> None:
    """Write along the lower border which model it was and which page this is."""
    pen, middle = ImageDraw.Draw(page), SIZE - 26
    room = SIZE - 3 * PAD - lettering.width(place, 18)
    pen.text((SIZE - PAD, middle), place, MUTED, lettering.font(18), "rm")
    left = PAD
    if is_demonstration:
        stamp = "Demonstration model"
        pen.text((left, middle), stamp, AMBER, lettering.font(18), "lm")
        left += lettering.width(stamp, 18) + 16
    text, size = lettering.fitted(model, 18, room - left + PAD)
    pen.text((left, middle), text, MUTED, lettering.font(size), "lm")
