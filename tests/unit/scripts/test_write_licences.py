"""The list of licences is that of what is installed."""

from __future__ import annotations

import re

from scripts import write_licences


def test_every_package_that_runs_is_on_the_page_with_a_licence() -> None:
    rows = dict(re.findall(r"^\| (\S+) \| \S+ \| (.+) \|$", write_licences.page(), re.MULTILINE))
    assert {"torch", "pydicom", "psycopg", "numpy"} <= rows.keys()
    assert "not said" not in rows.values()
    listed = write_licences.PAGE.read_text(encoding="utf-8")
    missing = [name for name in rows if f"| {name} |" not in listed]
    assert not missing, "python -m scripts.write_licences"


def test_copyleft_is_named() -> None:
    text = write_licences.page()
    for name, said in re.findall(r"^\| (\S+) \| \S+ \| (.*GPL.*) \|$", text, re.MULTILINE):
        assert name in text.split("| package |")[0], said
