"""How values are written on a page."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from node.web import formats


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.0, "0.0 s"),
        (1.24, "1.2 s"),
        (9.97, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (185.0, "3 min 5 s"),
        (3600.0, "1 h"),
        (7859.0, "2 h 10 min"),
        (86400.0 * 2 + 3600 * 5, "2 d 5 h"),
    ],
)
def test_a_duration_is_written_in_at_most_two_units(seconds: float | None, text: str) -> None:
    assert formats.duration(seconds) == text


@pytest.mark.parametrize(
    ("byte_count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (90_132, "90.1 kB"),
        (12_345_678, "12.3 MB"),
        (5_000_000_000, "5.0 GB"),
    ],
)
def test_a_size_is_written_in_decimal_units(byte_count: int, text: str) -> None:
    assert formats.size(byte_count) == text


def test_small_volumes_keep_a_second_digit() -> None:
    assert (formats.millilitres(0.424), formats.millilitres(48.31)) == ("0.42", "48.3")


def test_a_time_is_written_with_its_zone() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    local = at.astimezone()
    assert formats.moment(at) == local.strftime("%Y-%m-%d %H:%M:%S %Z")
    assert formats.clock(at) == f"{local.day} Jan, {local:%H:%M}"


def test_words_between_backticks_are_code_and_everything_is_escaped() -> None:
    assert formats.prose("run `a <b>` & wait") == "run <code>a &lt;b&gt;</code> &amp; wait"


def test_a_lone_backtick_stays() -> None:
    assert formats.prose("a ` <b>") == "a ` &lt;b&gt;"


def test_a_role_is_shown_by_the_name_of_its_sequence() -> None:
    assert [formats.sequence(role) for role in ("t1gd", "pd")] == ["T1gd", "pd"]
