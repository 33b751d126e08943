"""How far a long computation has come, on a terminal or in a file."""

from __future__ import annotations

import sys

import click

_WIDTH = 32
_LINES = 10  # where there is no terminal


class WindowBar:
    """Shows windows done of all: a bar that grows on a terminal, else a line for each tenth.

    Parameters
    ----------
    is_terminal : bool, optional
        By default what standard output is.
    """

    def __init__(self, *, is_terminal: bool | None = None) -> None:
        self._is_terminal = sys.stdout.isatty() if is_terminal is None else is_terminal
        self._lines = 0

    def __call__(self, done: int, total: int) -> None:
        """Show that so many windows are done."""
        if self._is_terminal:
            filled = _WIDTH * done // total
            bar = "#" * filled + "-" * (_WIDTH - filled)
            click.echo(f"\r  [{bar}] window {done} of {total}", nl=done == total)
        elif _LINES * done // total > self._lines:
            self._lines = _LINES * done // total
            click.echo(f"  window {done} of {total}")
