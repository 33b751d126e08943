"""What a benchmark finds, ours and a named peer in turns on the same data: table and picture."""

from __future__ import annotations

import importlib
import json
import math
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final, Literal

_DOCS: Final = Path(__file__).parents[2] / "docs"
_PAGE, _RATIOS = _DOCS / "performance.md", _DOCS / "performance.json"

_OURS, _MISSED, _LINE, _TEXT = "#2f855a", "#c05621", "#718096", "#4a5568"
_WIDTH, _ROW, _LABEL, _HEAD, _FOOT = 840, 30, 366, 34, 22
_AFTER = 120  # room for the figure behind the longest bar
_LINEAR = 1.2  # what is more than noise above 1

LOSS: Final = 0.2
"""What the guard takes for noise: a ratio that fell by less is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One row: the rounds of both, pairwise.

    Parameters
    ----------
    name : str
        What is compared.
    unit : str
        Of both series of figures; one that ends in ``/s`` is better when it is higher.
    peer : str
        Who the other is.
    ours, theirs : sequence of float
        A figure for each round, in order.
    target : float or None
        The ratio to reach.
    note : str
        What else was seen, such as memory.
    """

    name: str
    unit: str
    peer: str
    ours: Sequence[float]
    theirs: Sequence[float]
    target: float | None = None
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        """How many times as fast as the peer we are, round by round."""
        pairs = zip(self.ours, self.theirs, strict=True)
        if self.unit.endswith("/s"):
            return [own / theirs for own, theirs in pairs]
        return [theirs / own for own, theirs in pairs]

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios)


def table(rows: Sequence[Comparison]) -> str:
    """Return a Markdown table: medians, ranges, ratios and their ranges."""
    lines = [
        "| what | ours | peer | ratio | target | |",
        "|---|---|---|---|---|---|",
    ]
    for one in rows:
        target = "" if one.target is None else f"{one.target:g}"
        ratio = f"**{one.ratio:.2f}** ({min(one.ratios):.2f} to {max(one.ratios):.2f})"
        ours, theirs = (_figures(many, one.unit) for many in (one.ours, one.theirs))
        lines.append(
            f"| {one.name} | {ours} | {one.peer}: {theirs} | {ratio} | {target} | {one.note} |"
        )
    return "\n".join(lines)


def _figures(values: Sequence[float], unit: str) -> str:
    digits = 0 if statistics.median(values) >= 100 else 2
    middle, low, high = (
        f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values))
    )
    return f"{middle} {unit} ({low} to {high})"


def picture(title: str, rows: Sequence[Comparison]) -> str:
    """Return an SVG: a bar for each ratio with its range, a line at 1, a mark at the target."""
    most = max(1.1, *(max(one.ratios) for one in rows), *(one.target or 0.0 for one in rows)) * 1.05
    scale = (_WIDTH - _LABEL - _AFTER) / most
    height = _HEAD + _ROW * len(rows) + _FOOT
    parts = [_text(12, 22, title, "font-weight='600'"), *_one(scale, height, "1: the peer")]
    for index, one in enumerate(rows):
        top = _HEAD + index * _ROW
        middle = top + _ROW / 2
        is_reached = one.target is None or one.ratio >= one.target
        low, high = (_LABEL + scale * edge for edge in (min(one.ratios), max(one.ratios)))
        parts += [
            _text(_LABEL - 10, middle + 4, one.name, "text-anchor='end'"),
            _bar(top + 6, scale * one.ratio, _OURS if is_reached else _MISSED),
            _line(low, middle, high, middle, "2"),
        ]
        right, figure = max(high, _LABEL + scale * one.ratio), f"{one.ratio:.2f}"
        if one.target is not None:
            at = _LABEL + scale * one.target
            parts.append(_line(at, top + 3, at, top + _ROW - 3, "3"))
            figure += f" (target {one.target:g})"
            right = at if right < at < right + _AFTER else right
        parts.append(_text(right + 8, middle + 4, figure))
    return _svg(title, height, parts)


def stacked(
    title: str, rows: Sequence[Mapping[str, float]], colours: Sequence[str], most: float
) -> str:
    """Return an SVG: a bar for each row, made of its parts, whose names stand above."""
    left, height = 40, _HEAD + 26 + _ROW * len(rows) + 8
    scale = (_WIDTH - left - 60) / most
    parts = [_text(12, 22, title, "font-weight='600'")]
    for index, (name, colour) in enumerate(zip(rows[0], colours, strict=True)):
        at = float(left + index * 95)
        parts += [_bar(_HEAD + 4, 14, colour, at, 14), _text(at + 20, _HEAD + 16, name)]
    for number, row in enumerate(rows):
        top, at = _HEAD + 26 + number * _ROW, float(left)
        parts.append(_text(12, top + _ROW / 2 + 4, str(number + 1)))
        for value, colour in zip(row.values(), colours, strict=True):
            parts.append(_bar(top + 6, scale * value, colour, at))
            at += scale * value
        parts.append(_text(at + 8, top + _ROW / 2 + 4, f"{sum(row.values()):.1f} s"))
    return _svg(title, height, parts)


def slope(counts: Sequence[int], values: Sequence[float]) -> float:
    """Return the exponent of the power law that fits best; 1 grows as the counts do."""
    across, up = ([math.log(one) for one in many] for many in (counts, values))
    return statistics.linear_regression(across, up).slope


def growth_table(
    what: str, counts: Sequence[int], found: Mapping[str, Sequence[float]], digits: int
) -> str:
    """Return a Markdown table: a row for each name, its value at each count and the slope."""
    heads = " | ".join(f"{count:,}" for count in counts)
    lines = [f"| {what} | {heads} | slope |", f"|---|{'---|' * len(counts)}---|"]
    for name, values in found.items():
        cells = " | ".join(f"{value:.{digits}f}" for value in values)
        lines.append(f"| {name} | {cells} | {slope(counts, values):z.2f} |")
    return "\n".join(lines)


def growth_picture(title: str, slopes: Mapping[str, float]) -> str:
    """Return an SVG: a bar for each slope and a line at 1, where cost grows as what it is for."""
    scale = (_WIDTH - _LABEL - _AFTER) / max(1.1, *slopes.values())
    height = _HEAD + _ROW * len(slopes) + _FOOT
    parts = [_text(12, 22, title, "font-weight='600'"), *_one(scale, height, "1: linear")]
    for index, (name, value) in enumerate(slopes.items()):
        top, width = _HEAD + index * _ROW, scale * max(value, 0.0)
        parts += [
            _text(_LABEL - 10, top + _ROW / 2 + 4, name, "text-anchor='end'"),
            _bar(top + 6, width, _OURS if value <= _LINEAR else _MISSED),
            _text(_LABEL + width + 8, top + _ROW / 2 + 4, f"{value:z.2f}"),
        ]
    return _svg(title, height, parts)


def record(name: str, title: str, svg: str, text: str) -> None:
    """Write what was measured, and a picture of it, into its place on the page.

    Parameters
    ----------
    name : str
        Of the place, between two marks, and of the picture's file.
    title, svg, text : str
        What the picture is, the picture, and the tables with whatever is to be said of them.
    """
    picture_file = _DOCS / "images" / f"bench-{name}.svg"
    picture_file.write_text(svg, encoding="utf-8")
    put(name, f"![{title}](images/{picture_file.name})\n\n{text}")


def put(name: str, text: str) -> None:
    """Write a text into its place on the page, between the marks of its name."""
    begin, end = f"<!-- bench {name} -->", f"<!-- end of bench {name} -->"
    before, has_begin, rest = _PAGE.read_text(encoding="utf-8").partition(begin)
    _, has_end, after = rest.partition(end)
    if not (has_begin and has_end):
        raise SystemExit(f"{_PAGE.name} has no place for {name}: {begin} ... {end}")
    _PAGE.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def record_ratios(rows: Sequence[Comparison]) -> None:
    """Keep what the guard compares with."""
    ratios = _recorded() | {one.name: round(one.ratio, 3) for one in rows}
    _RATIOS.write_text(json.dumps(ratios, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def losses(rows: Sequence[Comparison]) -> list[str]:
    """Return the ratios that fell since they were recorded, as sentences."""
    before = _recorded()
    return [
        f"{one.name}: {one.ratio:.2f}, recorded {before[one.name]:.2f}"
        for one in rows
        if one.name in before and max(one.ratios) < before[one.name] * (1 - LOSS)
    ]


def _recorded() -> dict[str, float]:
    if not _RATIOS.exists():
        return {}
    found: dict[str, float] = json.loads(_RATIOS.read_text(encoding="utf-8"))
    return found


def peak_bytes(pid: int | Literal["self"] = "self") -> int:
    """Return the most memory that a process has held.

    Not `getrusage`: what that tells of a process may be the peak of the one that started it.
    """
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def machine(*packages: str) -> str:
    """Return what the figures were measured with, as a sentence."""
    cores = len(os.sched_getaffinity(0))
    parts = [f"Python {platform.python_version()}", f"{cores} cores ({_instructions()})"]
    parts += [f"load {os.getloadavg()[0]:.1f} at the end"]
    for package in packages:
        parts.append(f"{package} {importlib.import_module(package).__version__.partition('-')[0]}")
    return f"Measured with {', '.join(parts)}."


def _instructions() -> str:
    """Return which of the instructions that matter for a network the processor has."""
    said = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    names = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "bf16", "amx_bf16": "AMX"}
    return ", ".join(name for flag, name in names.items() if flag in said) or "none of AVX2"


def version(command: str, option: str, pattern: str) -> str:
    """Return what a peer's command says of its version."""
    told = subprocess.run([command, option], capture_output=True, text=True, check=False)
    found = re.search(pattern, told.stdout)
    return found[1] if found else "of unknown version"


def _svg(title: str, height: int, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {height}' "
        f"font-family='system-ui, sans-serif' font-size='13' fill='{_TEXT}' role='img'>\n"
        f"<title>{escape(title)}</title>\n"
        "<style>text{paint-order:stroke;stroke:#fff;stroke-width:4px}</style>\n"
        f"<rect width='{_WIDTH}' height='{height}' fill='#ffffff'/>\n{body}\n</svg>\n"
    )


def _one(scale: float, height: float, says: str) -> list[str]:
    """Return the dashed line at 1 and what it is; they come first, so that figures stand on it."""
    at, end = _LABEL + scale, height - _FOOT + 4
    return [
        _line(at, _HEAD, at, end, "1", dash="4 3"),
        _text(at, end + 13, says, "text-anchor='middle' font-size='11'"),
    ]


def _bar(
    top: float, width: float, colour: str, left: float = _LABEL, height: float = _ROW - 12
) -> str:
    return (
        f"<rect x='{left:.1f}' y='{top:.1f}' width='{width:.1f}' height='{height:.0f}' rx='2' "
        f"fill='{colour}'/>"
    )


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' {more}>{escape(text)}</text>"


def _line(x1: float, y1: float, x2: float, y2: float, width: str, *, dash: str = "") -> str:
    dashed = f" stroke-dasharray='{dash}'" if dash else ""
    return (
        f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' "
        f"stroke='{_LINE}' stroke-width='{width}'{dashed}/>"
    )
