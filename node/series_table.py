"""The series of a study as a table of text: the same for every command that shows one.

A block a series: its figures in columns, below them what the sender calls it, why it was taken for
what it was, and what is wrong with it.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any, Final

import click

from converters.volume import Role
from node.cases import SeriesDecision

NARROWEST: Final = 80
WIDEST: Final = 140
USUAL: Final = 120
OTHER: Final = "other"

_HEADS: Final = ("#", "role", "sequence", "score", "runner-up", "images", "geometry")
_IS_NUMBER: Final = (True, False, False, True, False, True, False)
_WIDEST_CELLS: Final = (4, 16, 22, 5, 20, 6, WIDEST)
_GAP: Final = "  "
_NARROWEST_GEOMETRY: Final = 20
_FINDING: Final = {"first": "  ", "further": "    "}
_HIDDEN: Final = frozenset({"series_instance_uid"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A series of the table.

    Parameters
    ----------
    number : int
        By which an operator names it, from 1.
    decision : SeriesDecision
        What it was taken for.
    fault : str
        The sentence that belongs to the decision's code, where it is known.
    """

    number: int
    decision: SeriesDecision
    fault: str = ""


def numbered(decisions: Iterable[SeriesDecision]) -> tuple[Row, ...]:
    """Return the series of a case with numbers that stay, whatever is chosen among them."""
    known = sorted(decisions, key=lambda one: (one.series_instance_uid, one.part))
    return tuple(Row(number=number, decision=one) for number, one in enumerate(known, start=1))


def ordered(rows: Iterable[Row], roles: Sequence[Role]) -> list[Row]:
    """Return the series that the model gets, in its order, then the others by number."""
    rank = {role: index for index, role in enumerate(roles)}

    def _key(row: Row) -> tuple[bool, int, int]:
        role = row.decision.role
        return role is None, rank.get(role or "", len(rank)), row.number

    return sorted(rows, key=_key)


def show(rows: Iterable[Row], roles: Sequence[Role]) -> None:
    """Print the table as wide as the terminal allows, `USUAL` where there is none."""
    for line in lines(rows, roles, _terminal_width()):
        click.echo(line)


def say(text: str, *, first: str = "", further: str = "", color: str | None = None) -> None:
    """Print a sentence on as many lines as it needs; `first` and `further` begin them."""
    width = max(NARROWEST, min(_terminal_width(), WIDEST))
    for line in textwrap.wrap(text, width, initial_indent=first, subsequent_indent=further):
        click.secho(line, fg=color)


def _terminal_width() -> int:
    return shutil.get_terminal_size((USUAL, 0)).columns


def show_findings(summary: Mapping[str, Any]) -> None:
    """Print what was found on the way of a case: how far its series were moved, every note."""
    for one in summary.get("alignment", ()):
        say(f"alignment of {one['role']}: {one['reason']}", **_FINDING)
    for note in summary.get("notes", ()):
        say(f"note: {note}", **_FINDING)


def show_volumes(summary: Mapping[str, Any]) -> None:
    """Print the volumes of a result: those of its labels, then those of regions, which overlap."""
    for label, volume_ml in summary.get("volumes_ml", {}).items():
        click.echo(f"  {label:<44}{volume_ml:>8.1f} mL")
    regions_ml = summary.get("regions_ml", {})
    if regions_ml:
        click.echo("  taken together, overlapping:")
    for label, volume_ml in regions_ml.items():
        click.echo(f"    {label:<42}{volume_ml:>8.1f} mL")
    for lesion in summary.get("measurements", {}).get("lesions", ()):
        _show_lesion(lesion)


def _show_lesion(lesion: Mapping[str, Any]) -> None:
    """Print what is measured of one lesion."""
    enhancing, name = lesion["enhancing"], f"lesion {lesion['number']}"
    across = "does not enhance"
    if enhancing:
        across = f"enhancing {enhancing['long_mm']:.1f} x {enhancing['short_mm']:.1f} mm"
    click.echo(f"  {name:<44}{lesion['volume_ml']:>8.1f} mL, {across}")


def lines(rows: Iterable[Row], roles: Sequence[Role], width: int) -> list[str]:
    """Return the table.

    Parameters
    ----------
    rows : iterable of Row
        The series in any order.
    roles : sequence of str
        The inputs of the model in its order.
    width : int
        Of the terminal, in characters; kept from `NARROWEST` to `WIDEST`.
    """
    width = max(NARROWEST, min(width, WIDEST))
    shown = ordered(rows, roles)
    cells = [_cells(row) for row in shown]
    widths = _widths([_HEADS, *cells], width)
    indent = " " * (widths[0] + 2 * len(_GAP))
    table = _columns(_HEADS, widths)
    for row, columns in zip(shown, cells, strict=True):
        table += _columns(columns, widths)
        for text in _texts(row):
            table += textwrap.wrap(
                text, width, initial_indent=indent, subsequent_indent=indent + _GAP
            )
    return table


def as_json(row: Row) -> dict[str, Any]:
    """Return a series for programs; without its UID, which leads to the patient."""
    values = {key: one for key, one in asdict(row.decision).items() if key not in _HIDDEN}
    return {"number": row.number, **values, "sentence": row.fault or None}


def printable(text: str) -> str:
    """Return the text of a peer without what could steer a terminal."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def _cells(row: Row) -> tuple[str, ...]:
    one = row.decision
    return (
        str(row.number),
        one.role or "-",
        one.sequence,
        f"{one.score:.2f}",
        one.runner_up or "-",
        str(one.instance_count),
        one.geometry or "-",
    )


def _texts(row: Row) -> list[str]:
    """Return what stands below the figures."""
    one = row.decision
    called = f'"{printable(one.description)}"' if one.description else "no description"
    part = f", of it {printable(one.part)}" if one.part else ""
    texts = [called + part, one.reason]
    is_other = one.role is None and one.sequence.startswith(OTHER)
    if one.code and not is_other:  # nobody misses what could not serve anyway
        texts.append(f"{one.code}: {row.fault}" if row.fault else one.code)
    return texts


def _widths(table: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the width of each column; geometry gets what the others leave."""
    widths = [
        min(max(len(row[column]) for row in table), widest)
        for column, widest in enumerate(_WIDEST_CELLS)
    ]
    left = width - len(_GAP) - sum(one + len(_GAP) for one in widths[:-1])
    widths[-1] = max(min(widths[-1], left), _NARROWEST_GEOMETRY)
    return widths


def _columns(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Return a row of cells; what does not fit goes on below, in its own column."""
    wrapped = [textwrap.wrap(cell, width) for cell, width in zip(cells, widths, strict=True)]
    return [
        (_GAP + _GAP.join(map(_padded, parts, widths, _IS_NUMBER))).rstrip()
        for parts in zip_longest(*wrapped, fillvalue="")
    ]


def _padded(cell: str, width: int, is_number: bool) -> str:  # noqa: FBT001 - mapped over columns
    return cell.rjust(width) if is_number else cell.ljust(width)


def numbers_by_role(rows: Iterable[Row]) -> Mapping[Role, int]:
    """Return which series serves each role."""
    return {row.decision.role: row.number for row in rows if row.decision.role is not None}
