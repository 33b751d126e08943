"""The cover of a result's summary: what was measured, what has to be known, one slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw

from converters import lettering, page_frame
from converters.lettering import Color, Pen

PICTURE: Final = (336, 388)
"""Width and height of the slice, pixels."""

NOTHING: Final = "No tumour was found."

_TITLE: Final = "AI tumour segmentation"
_FOUND: Final = "Outlines and volumes of what was found"
_NOTHING_MEANS: Final = (
    "The model labelled no voxel of this study. That does not mean that there is no tumour: it may "
    "be too small, or of a kind that the model does not know."
)
_TOP: Final = 156
_COLUMN: Final = 200
_SMALL: Final = 15  # no sentence is written smaller


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the cover's table; `values` in the order of its columns, no colour for regions."""

    label: str
    values: tuple[str, ...]
    color_rgb: Color | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What the pages say.

    Parameters
    ----------
    model : str
        Which model, in one line; stands on every page.
    is_demonstration : bool
        Whether every page has to say that the model is one for demonstrations.
    facts : tuple of (str, str)
        Label and value: model, date of the study and the like; never anything about the patient.
    columns : tuple of str
        Headings of what was measured.
    rows : tuple of Row
        What was measured, segments first.
    notes : tuple of str
        What a reader has to know, each a sentence.
    """

    model: str
    is_demonstration: bool
    facts: tuple[tuple[str, str], ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def draw_cover(
    picture: Image.Image, step_mm: float, words: Words, *, is_empty: bool
) -> Image.Image:
    """Return the cover of a summary.

    Parameters
    ----------
    picture : Image
        One slice, as large as `PICTURE`.
    step_mm : float
        How large its pixels are.
    words : Words
        What is said.
    is_empty : bool
        Whether nothing was labelled; nothing that was measured is written then.
    """
    page = page_frame.blank()
    pen, width, height = ImageDraw.Draw(page), *PICTURE
    right, pad = page_frame.SIZE - page_frame.PAD, page_frame.PAD
    middle = page_frame.SIZE // 2  # viewers write over the corners of what they show
    pen.text((middle, 26), _TITLE, page_frame.TEXT, lettering.font(44), "ma", stroke_width=1)
    told, color = (NOTHING, page_frame.TEXT) if is_empty else (_FOUND, page_frame.MUTED)
    wide = lettering.width(told, 26) + pad + page_frame.warning_width(24)
    pen.text((middle - wide // 2, 108), told, color, lettering.font(26), "lm")
    page_frame.warning(page, middle + wide // 2, 88, 24)
    page.paste(picture, (right - width, _TOP))
    page_frame.bar(pen, right, _TOP + height + 16, step_mm)
    _facts(pen, words.facts, (pad, _TOP), (right - width - 2 * pad, height + 26))
    low = _TOP + height + 32
    low = _nothing(pen, low) if is_empty else _table(pen, words, low)
    _notes(pen, words.notes, low + pad // 2, page_frame.SIZE - 48)
    return page


def _facts(
    pen: Pen, facts: Sequence[tuple[str, str]], place: tuple[int, int], room: tuple[int, int]
) -> None:
    """Write labels and values below each other into a width and a height."""
    (left, top), (width, height), size = place, room, 24
    while size > _SMALL and _facts_height(facts, size, width) > height:
        size -= 1
    small, bottom = _smaller(size), top + height
    for label, value in facts:
        most = (bottom - top - lettering.line_step(small)) // lettering.line_step(size)
        if most < 1:
            break
        pen.text(
            (left, top), lettering.cut(label, small, width), page_frame.MUTED, lettering.font(small)
        )
        top += lettering.line_step(small)
        for line in lettering.paragraph(value, size, width, most):
            pen.text((left, top), line, page_frame.TEXT, lettering.font(size))
            top += lettering.line_step(size)
        top += size // 2


def _smaller(size: int) -> int:
    return max(round(0.78 * size), lettering.SMALLEST)


def _facts_height(facts: Sequence[tuple[str, str]], size: int, width: int) -> int:
    lines = sum(len(lettering.wrapped(value, size, width)) for _, value in facts)
    labels = len(facts) * (lettering.line_step(_smaller(size)) + size // 2)
    return lines * lettering.line_step(size) + labels


def _nothing(pen: Pen, top: int) -> int:
    """Say what an empty result means; return where that ends."""
    pen.line((page_frame.PAD, top, page_frame.SIZE - page_frame.PAD, top), page_frame.LINE, 1)
    top += 16
    for line in lettering.wrapped(_NOTHING_MEANS, 22, page_frame.SIZE - 2 * page_frame.PAD):
        pen.text((page_frame.PAD, top), line, page_frame.TEXT, lettering.font(22))
        top += lettering.line_step(22)
    return top + 8


def _table(pen: Pen, words: Words, top: int) -> int:
    """Write what was measured; return where it ends."""
    height = min(38, 280 // (len(words.rows) + 1))
    size = min(max(round(0.6 * height), lettering.SMALLEST), 23)
    _cells(pen, words.columns, top + height // 2, (size - 3, page_frame.MUTED))
    for row in words.rows:
        top += height
        middle = top + height // 2
        pen.line((page_frame.PAD, top, page_frame.SIZE - page_frame.PAD, top), page_frame.LINE, 1)
        if row.color_rgb is not None:
            page_frame.mark(pen, (page_frame.PAD, middle - size // 2), size, row.color_rgb)
        left = page_frame.PAD + round(1.5 * size)
        room = page_frame.SIZE - page_frame.PAD - left - len(words.columns) * _COLUMN
        text, own = lettering.fitted(row.label, size, room)
        pen.text((left, middle), text, page_frame.TEXT, lettering.font(own), "lm")
        _cells(pen, row.values, middle, (size, page_frame.TEXT))
    return top + height


def _cells(pen: Pen, values: Sequence[str], middle: int, style: tuple[int, Color]) -> None:
    """Write values in columns that end at the right border."""
    for index, value in enumerate(reversed(values)):
        text, own = lettering.fitted(value, style[0], _COLUMN - 12)
        place = (page_frame.SIZE - page_frame.PAD - index * _COLUMN, middle)
        pen.text(place, text, style[1], lettering.font(own), "rm")


def _notes(pen: Pen, notes: Sequence[str], top: int, bottom: int) -> None:
    """Write what has to be known; what does not fit is counted."""
    if not notes:
        return
    pen.text((page_frame.PAD, top), "Notes", page_frame.AMBER, lettering.font(20))
    top += lettering.line_step(20)
    room = page_frame.SIZE - 2 * page_frame.PAD - 20
    size = 20
    while size > _SMALL and _notes_height(notes, size, room) > bottom - top:
        size -= 1
    step = lettering.line_step(size)
    for index, note in enumerate(notes):
        lines, is_last = lettering.wrapped(note, size, room), index == len(notes) - 1
        if top + (len(lines) + (not is_last)) * step > bottom:
            more = f"and {len(notes) - index} more: see the page of the case"
            pen.text((page_frame.PAD + 20, top), more, page_frame.AMBER, lettering.font(size))
            return
        pen.ellipse(
            (page_frame.PAD + 2, top + size // 2 - 2, page_frame.PAD + 8, top + size // 2 + 4),
            fill=page_frame.AMBER,
        )
        for line in lines:
            pen.text((page_frame.PAD + 20, top), line, page_frame.TEXT, lettering.font(size))
            top += step


def _notes_height(notes: Sequence[str], size: int, room: int) -> int:
    lines = sum(len(lettering.wrapped(note, size, room)) for note in notes)
    return lines * lettering.line_step(size)
