"""Files that hold a secret on their first line."""

from __future__ import annotations

from pathlib import Path


def read(file: str, longest: int) -> str:
    """Return the secret, cut to its longest and without blanks around it; empty for none.

    Raises
    ------
    OSError, UnicodeDecodeError
        The file cannot be read.
    """
    with Path(file).open(encoding="utf-8") as handle:
        return handle.readline(longest).strip()
