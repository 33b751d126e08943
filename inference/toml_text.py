"""Write plain values as TOML; the standard library only reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence


def dumps(content: Mapping[str, object]) -> str:
    """Return tables, arrays, strings, numbers and booleans as TOML text.

    Keys that hold None are left out. Arrays of tables are written as such, other tables inside
    arrays inline.
    """
    return "\n".join(_table((), content)).strip() + "\n"


def _table(path: tuple[str, ...], content: Mapping[str, object]) -> list[str]:
    lines, below = [], []
    for key, value in content.items():
        name = ".".join(_key(part) for part in (*path, key))
        if isinstance(value, Mapping):
            below += ["", f"[{name}]", *_table((*path, key), value)]
        elif tables := _tables(value):
            for table in tables:
                below += ["", f"[[{name}]]", *_table((*path, key), table)]
        elif value is not None:
            lines.append(f"{_key(key)} = {_value(value)}")
    return lines + below


def _tables(value: object) -> list[Mapping[str, object]]:
    """Return the entries of an array that holds tables alone."""
    if not isinstance(value, (list, tuple)):
        return []
    tables = [entry for entry in value if isinstance(entry, Mapping)]
    return tables if len(tables) == len(value) else []


def _key(key: str) -> str:
    is_bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if is_bare else _text(key)


def _text(value: str) -> str:
    # JSON's escapes are TOML's; only the delete character must be escaped here and not there.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return _text(value)
        case Mapping():
            return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + "}"
        case Sequence():
            return "[" + ", ".join(_value(entry) for entry in value) + "]"
    raise TypeError(type(value).__name__)
