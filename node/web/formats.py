"""How values are written on a page."""

from __future__ import annotations

from datetime import datetime

from markupsafe import Markup, escape

_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 86400
_EXACT_BELOW_S = 9.95  # what would be written as 10.0
_KILO = 1000
_FIGURES = {"p95": "95th percentile of the tumour", "mean": "Mean"}
_SEQUENCES = {"flair": "FLAIR", "t1": "T1w", "t1gd": "T1gd", "t2": "T2w"}


def duration(seconds: float | None) -> str:
    """Return a duration in at most two units, as in ``1.2 s``, ``3 min 5 s``, ``2 h 10 min``."""
    if seconds is None:
        return ""
    if seconds < _EXACT_BELOW_S:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit_s, name, part_s, part in (
        (_DAY_S, "d", _HOUR_S, "h"),
        (_HOUR_S, "h", _MINUTE_S, "min"),
        (_MINUTE_S, "min", 1, "s"),
    ):
        if whole >= unit_s:
            rest = whole % unit_s // part_s
            return (
                f"{whole // unit_s} {name} {rest} {part}" if rest else f"{whole // unit_s} {name}"
            )
    return f"{whole} s"


def moment(at: datetime) -> str:
    """Return a time of the node's own clock, to the second, with its zone."""
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S %Z}"


def parsed(at: str) -> datetime:
    """Return a time that was kept as text (ISO 8601)."""
    return datetime.fromisoformat(at)


def clock(at: datetime) -> str:
    """Return the day and the minute of the node's own clock."""
    return f"{at.astimezone():%d %b, %H:%M}".lstrip("0")


def age(at: datetime, now: datetime) -> str:
    """Return how long ago a time was, in its largest unit."""
    passed_s = (now - at).total_seconds()
    for unit_s, name in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min")):
        if passed_s >= unit_s:
            return f"{passed_s // unit_s:.0f} {name} ago"
    return "just now"


def size(byte_count: int) -> str:
    """Return a file size in decimal units."""
    value = float(byte_count)
    for unit in ("B", "kB", "MB"):
        if value < _KILO:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= _KILO
    return f"{value:.1f} GB"


def millilitres(volume_ml: float) -> str:
    """Return a volume without its unit, as exact as is useful."""
    return f"{volume_ml:.2f}" if volume_ml < 1 else f"{volume_ml:.1f}"


def prose(text: str) -> Markup:
    """Return a sentence, escaped, in which words between backticks are code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    shown = [
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part)
        for index, part in enumerate(parts)
    ]
    return Markup("").join(shown)


def breakable(text: str) -> Markup:
    """Return a text, escaped, that may go on in another line after each underscore."""
    return Markup(str(escape(text)).replace("_", "_<wbr>"))  # noqa: S704 - escaped before


def sequence(role: str) -> str:
    """Return the usual name of a role's sequence; a role that is not known stands for itself."""
    return _SEQUENCES.get(role, role)


def figure(name: str) -> str:
    """Return what a figure is called; a label stands for itself."""
    return _FIGURES.get(name, name)


FILTERS = {
    "duration": duration,
    "moment": moment,
    "parsed": parsed,
    "clock": clock,
    "age": age,
    "size": size,
    "millilitres": millilitres,
    "prose": prose,
    "breakable": breakable,
    "sequence": sequence,
    "figure": figure,
}
