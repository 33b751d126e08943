"""The registry of note codes knows every note that this package writes."""

from __future__ import annotations

import ast
from pathlib import Path

import inference.errors
from inference.note_codes import NOTE_CODES

SOURCES = sorted(Path(inference.errors.__file__).parent.glob("*.py"))


def _written_codes(tree: ast.AST) -> set[str]:
    """Return the codes of all ``Note(code=...)`` in a module."""
    given = [
        keyword.value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Note"
        for keyword in call.keywords
        if keyword.arg == "code"
    ]
    return {_code(value) for value in given}


def _code(value: ast.expr) -> str:
    if isinstance(value, ast.Constant):
        return str(value.value)
    assert isinstance(value, ast.Attribute), "a note's code is a literal or that of an error class"
    assert isinstance(value.value, ast.Name)
    return str(getattr(inference.errors, value.value.id).code)


def test_every_note_that_is_written_can_be_named_in_the_settings() -> None:
    written = set().union(*(_written_codes(ast.parse(path.read_text())) for path in SOURCES))
    assert "INPUT_MISSING" in written
    assert written <= NOTE_CODES.keys()
