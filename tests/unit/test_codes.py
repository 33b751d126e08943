"""The reference of codes is whole and up to date."""

from __future__ import annotations

import re

from converters.errors import CodedError
from inference.note_codes import NOTE_CODES
from scripts import write_codes


def test_the_document_lists_every_code_as_it_stands_in_the_source() -> None:
    written = write_codes.DOCUMENT.read_text(encoding="utf-8")
    assert written == write_codes.render(), "run scripts/write_codes.py"


def test_every_code_is_an_anchor_once() -> None:
    anchors = re.findall(r'<a id="([^"]+)">', write_codes.render())
    kinds, codes = [CodedError], set[str]()
    while kinds:
        kinds += kinds.pop().__subclasses__()
        codes |= {kind.code for kind in kinds if kind.code}
    assert sorted(anchors) == sorted({*codes, *(f"note-{code}" for code in NOTE_CODES)})
