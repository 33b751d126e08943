"""Text fits the box that it was given, and only letters that the typeface has are drawn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters import lettering

LONG = "Pneumonoultramicroscopicsilicovolcanoconiosis and quite a few other words " * 3


@given(st.text(max_size=60), st.integers(13, 30), st.integers(60, 400))
def test_wrapped_lines_and_cut_ones_are_never_wider_than_their_box(
    text: str, size: int, within: int
) -> None:
    for line in [*lettering.wrapped(text, size, within), lettering.cut(text, size, within)]:
        assert lettering.width(line, size) <= within


@given(st.text(max_size=60))
def test_what_is_drawn_is_ascii_on_one_line(text: str) -> None:
    plain = lettering.plain(text)
    assert plain.isascii()
    assert "\n" not in plain


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Ödem, Größe ≥ 3 mm – links", "Odem, Grosse >= 3 mm - links"),  # noqa: RUF001
        ("52 × 41 mm²", "52 x 41 mm2"),  # noqa: RUF001
        ("Łódź\n\tdemo", "Lodz demo"),
        ("膠芽腫", "???"),
    ],
)
def test_letters_that_the_typeface_lacks_are_replaced(text: str, plain: str) -> None:
    assert lettering.plain(text) == plain


def test_nothing_is_lost_by_wrapping() -> None:
    assert " ".join(lettering.wrapped(LONG, 20, 700)) == LONG.strip()
    assert "".join(lettering.wrapped("x" * 300, 20, 100)) == "x" * 300


def test_a_text_is_made_smaller_before_it_is_cut() -> None:
    assert lettering.fitted("short", 24, 300) == ("short", 24)
    text, size = lettering.fitted("a title of middling length", 24, 250)
    assert (text, size) == ("a title of middling length", size)
    assert 13 < size < 24
    text, size = lettering.fitted(LONG, 24, 250)
    assert size == lettering.SMALLEST
    assert text.endswith("...")


def test_a_paragraph_says_that_there_was_more() -> None:
    assert lettering.paragraph("two words", 20, 300, 2) == ["two words"]
    lines = lettering.paragraph(LONG, 20, 300, 2)
    assert len(lines) == 2
    assert lines[1].endswith("...")
    assert all(lettering.width(line, 20) <= 300 for line in lines)
