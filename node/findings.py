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


def notes(case: AssembledCase, spool: Spool) -> list[str]:
    """Return what a reader of the result has to know, each as code and sentence."""
    path = spool.case_folder(case.case_id) / _FILE
    if not path.exists():
        return []  # segmented by a version that kept none
    return [str(note) for note in json.loads(path.read_text(encoding="utf-8"))["notes"]]
