"""The reference of codes is whole and up to date."""

from __future__ import annotations

from scripts import write_codes


def test_the_document_lists_every_code_as_it_stands_in_the_source() -> None:
    written = write_codes.DOCUMENT.read_text(encoding="utf-8")
    assert written == write_codes.render(), "run scripts/write_codes.py"
