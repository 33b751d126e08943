"""What the segment stage found out about its input, kept beside the label map of the case."""

from __future__ import annotations

import json
from typing import Any

from node.cases import AssembledCase
from node.spool import Spool

_FILE = "findings.json"


def write(content: dict[str, Any], case: AssembledCase, spool: Spool) -> None:
    """Keep the findings of a case: numbers, roles and our own sentences, under ``notes``."""
    text = json.dumps(content, indent=1, sort_keys=True)
    final = spool.case_folder(case.case_id) / _FILE
    spool.publish(final, lambda part: part.write_text(text, encoding="utf-8"))


def read(case: AssembledCase, spool: Spool) -> dict[str, Any]:
    """Return the findings of a case; empty where it was segmented by a version that kept none."""
    path = spool.case_folder(case.case_id) / _FILE
    if not path.exists():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def code_of(note: str) -> str:
    """Return the code of a note."""
    return note.partition(":")[0]
