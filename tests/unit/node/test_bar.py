"""A bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import pytest

from node.bar import WindowBar


def _shown(capsys: pytest.CaptureFixture[str], *, total: int, is_terminal: bool | None) -> str:
    bar = WindowBar(is_terminal=is_terminal)
    for done in range(1, total + 1):
        bar(done, total)
    return capsys.readouterr().out


def test_a_bar_grows_in_one_line_of_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    out = _shown(capsys, total=4, is_terminal=True)
    assert out.count("\n") == 1
    assert out.endswith("] window 4 of 4\n")
    first, *_, last = out.rstrip().split("\r")[1:]
    assert first.count("#") * 4 == last.count("#") == len(last.split("[")[1].split("]")[0])


@pytest.mark.parametrize(("total", "lines"), [(4, 4), (10, 10), (137, 10)])
def test_elsewhere_ten_whole_lines_are_enough(
    capsys: pytest.CaptureFixture[str], total: int, lines: int
) -> None:
    out = _shown(capsys, total=total, is_terminal=None)  # captured: no terminal
    assert "\r" not in out
    assert len(out.splitlines()) == lines
    assert out.endswith(f"  window {total} of {total}\n")
