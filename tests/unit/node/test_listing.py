"""Lists on a terminal and for programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from node import listing
from node.cases import Priority

ROWS = [("a1", "delivered", "one two three four five six seven eight"), ("b22", "failed", "")]


def test_columns_stand_below_their_heads_and_a_row_is_a_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    listing.show(("case", "state", "what"), ROWS)
    assert capsys.readouterr().out.splitlines() == [
        "case  state      what",
        "a1    delivered  one two three four five six seven eight",
        "b22   failed",
    ]


def test_a_terminal_gets_the_last_column_wrapped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "45")
    listing.show(("case", "state", "what"), ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "a1    delivered  one two three four five six"
    assert lines[2] == f"{' ' * 17}seven eight"


def test_times_and_words_of_ours_are_text_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    listing.as_json([{"at": datetime(2026, 11, 30, tzinfo=UTC), "priority": Priority.HIGH}])
    said = json.loads(capsys.readouterr().out)
    assert said == [{"at": "2026-11-30T00:00:00+00:00", "priority": "high"}]


@pytest.mark.parametrize(
    ("shell", "words", "expected"),
    [("bash", "neuroseg cases ch", "choose"), ("zsh", "neuroseg cases ch", "choose")],
)
def test_a_shell_completes_what_the_command_line_knows(
    shell: str, words: str, expected: str
) -> None:
    asked = {"_NEUROSEG_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": "2"}
    command = (sys.executable, "-c", "from node.__main__ import main; main(prog_name='neuroseg')")
    done = subprocess.run(
        command, env={**os.environ, **asked}, capture_output=True, text=True, check=True
    )
    assert expected in done.stdout.replace(",", " ").split()
    made = subprocess.run(
        (sys.executable, "-m", "node", "completion", shell),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "_NEUROSEG_COMPLETE" in made.stdout
