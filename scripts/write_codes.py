"""Write docs/codes.md: every code of the project with its sentence and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import converters.errors
import inference.errors
import inference.note_codes
import node.door_errors
import node.errors
import node.work_errors
from converters.errors import CodedError, InputRejectedError

DOCUMENT: Final = Path(__file__).parent.parent / "docs" / "codes.md"
_HEAD: Final = """\
# Codes

Whatever the node refuses or cannot do has one of these codes, kept for ever; the page, the API, the
log and the command line show the same one. The sentence is filled in with numbers, DICOM keywords
and roles, never with a value of a patient's header. Each code is an anchor: `codes.md#GEOM_SPACING`
leads to its line, `codes.md#note-INPUT_MISSING` to that of a note. What to do with a case as a
whole stands in [operate.md](operate.md#states-of-a-case). Written by `scripts/write_codes.py`.
"""
_REJECTED: Final = """\
The study is rejected; a retry without new images, another choice of series or another setting ends
the same way."""
_GROUPS: Final = (
    ("Images that cannot be used", _REJECTED),
    ("Results that could not be written", "Our own defect until shown otherwise."),
    ("Model and device", ""),
    ("The node", ""),
)
_NOTES: Final = """\
## Notes on a result

They stand beside a result that was made and say what its reader has to know. With `[delivery]
hold_codes` a result that has one waits for a person instead of being delivered.

| code | meaning |
|---|---|
"""
_PLACE: Final = re.compile(r"\{(\w+)(?::[^}]*)?\}")


def render() -> str:
    """Return the document."""
    parts = [_HEAD]
    for (title, text), kinds in zip(_GROUPS, _grouped(), strict=True):
        parts.append(f"## {title}\n")
        if text:
            parts.append(f"{text}\n")
        rows = [
            f"| {_anchored(one.code)} | {_shown(one.sentence)} | {one.advice} |" for one in kinds
        ]
        parts.append("\n".join(["| code | sentence | what to do |", "|---|---|---|", *rows, ""]))
    notes = inference.note_codes.NOTE_CODES.items()
    parts.append(
        _NOTES + "".join(f"| {_anchored(code, 'note-')} | {meaning} |\n" for code, meaning in notes)
    )
    return "\n".join(parts)


def _grouped() -> tuple[list[type[CodedError]], ...]:
    known = sorted(_concrete(CodedError), key=lambda one: one.code)
    by_home = {
        module: [one for one in known if one.__module__ == module.__name__]
        for module in (
            converters.errors,
            inference.errors,
            node.errors,
            node.door_errors,
            node.work_errors,
        )
    }
    own = by_home[converters.errors]
    return (
        [one for one in own if issubclass(one, InputRejectedError)],
        [one for one in own if not issubclass(one, InputRejectedError)],
        by_home[inference.errors],
        [*by_home[node.errors], *by_home[node.door_errors], *by_home[node.work_errors]],
    )


def _concrete(kind: type[CodedError]) -> Iterator[type[CodedError]]:
    for one in kind.__subclasses__():
        if one.code:
            yield one
        yield from _concrete(one)


def _anchored(code: str, prefix: str = "") -> str:
    """Return a code as the first cell of its line, and what a link leads to."""
    return f'<a id="{prefix}{code}"></a>`{code}`'


def _shown(sentence: str) -> str:
    """Return a sentence with its places as a reader of the table understands them."""
    return _PLACE.sub(r"*\1*", sentence.replace("|", "\\|"))


if __name__ == "__main__":
    DOCUMENT.write_text(render(), encoding="utf-8")
