"""Lists on a terminal, and the same for programs."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, Final

import click

_GAP: Final = "  "
_NARROWEST: Final = 24  # the last column, however narrow the terminal


class Commands(click.Group):
    """A group of commands whose help is wrapped in its list, never cut."""

    group_class = type

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what each command does."""
        named = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        limit = 200  # characters, more than any has
        rows = [(name, one.get_short_help_str(limit)) for name, one in named if one is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def show(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns below their heads.

    On a terminal the last column is wrapped to what the others leave; elsewhere a row is a line.
    """
    table = [heads, *rows]
    widths = [max(len(row[at]) for row in table) for at in range(len(heads) - 1)]
    taken = sum(widths) + len(_GAP) * len(widths)
    room = max(shutil.get_terminal_size().columns - taken, _NARROWEST)
    for number, row in enumerate(table):
        first = "".join(f"{cell:<{width}}{_GAP}" for cell, width in zip(row, widths, strict=False))
        parts = textwrap.wrap(row[-1], room) if sys.stdout.isatty() else [row[-1]]
        text = f"\n{' ' * taken}".join(parts)
        line = f"{first}{text}".rstrip()
        click.echo(line if number else click.style(line, bold=True))


def as_json(content: Any) -> None:  # noqa: ANN401 - what JSON can say, times and enumerations
    """Print content as JSON; times are ISO 8601."""
    click.echo(json.dumps(content, indent=2, default=_plain))


def _plain(value: object) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
