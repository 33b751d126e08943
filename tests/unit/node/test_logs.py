"""Logs are JSON with a closed list of keys and without the words of others."""

from __future__ import annotations

import json
import logging
import time
import warnings
from typing import Any

import pytest

from node import logs


def _lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_line_is_json_with_time_level_and_role(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(role="web", strict=True)
    logs.get().info("case.assembled", case_id="c1", slice_count=3)
    (line,) = _lines(capsys)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "event": "case.assembled",
        "level": "info",
        "role": "web",
        "case_id": "c1",
        "slice_count": 3,
    }


def test_an_unknown_key_is_dropped_in_production(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    logs.get().info("instance.stored", patient_name="Somebody", port=104)
    (line,) = _lines(capsys)
    assert "patient_name" not in line
    assert "Somebody" not in json.dumps(line)
    assert line["port"] == 104


def test_an_unknown_key_raises_in_tests() -> None:
    logs.configure(strict=True)
    with pytest.raises(KeyError, match="patient_name"):
        logs.get().info("instance.stored", patient_name="Somebody")


def test_lines_below_the_level_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="WARNING")
    logs.get().info("case.assembled")
    logs.get().warning("stage.failed")
    assert [line["event"] for line in _lines(capsys)] == ["stage.failed"]


def test_a_librarys_words_are_reduced_to_its_name_and_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure()
    logging.getLogger("pydicom.dataset").warning("bad value %r", "Somebody^Else")
    logging.getLogger("pydicom.dataset").info("chatter")
    (line,) = _lines(capsys)
    assert (line["event"], line["library"]) == ("library.complained", "pydicom")
    assert line["place"].startswith("test_logs:")
    assert "Somebody" not in json.dumps(line)


def test_what_a_library_repeats_is_told_once_a_second_with_its_number(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    logs.configure()
    for later in (0.0, 0.3, 0.9, 1.1):
        now = 100.0 + later
        logging.getLogger("pynetdicom.dul").error("Unknown PDU type")
    first, last = _lines(capsys)
    assert "untold_count" not in first
    assert last["untold_count"] == 2


def test_a_library_with_a_handler_of_its_own_quotes_no_file(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It prints bytes of the headers that it is given, whatever the root logger does."""
    import nibabel  # noqa: F401, PLC0415 - its handler writes to what is standard error by now

    logs.configure()
    logging.getLogger("nibabel.global").warning("magic string %r is not valid", b"DOE^")
    assert "DOE" not in "".join(capfd.readouterr())


def test_a_librarys_traceback_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    try:
        _raise_below()
    except ValueError:
        logging.getLogger("pynetdicom").exception("in a handler")
    captured = capsys.readouterr()
    assert "Somebody" not in captured.out + captured.err
    assert json.loads(captured.out)["level"] == "error"


def test_a_warning_is_reduced_to_its_kind_and_place(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logs.configure()
        warnings.warn("Invalid value for VR PN: 'Somebody'", UserWarning, stacklevel=1)
    (line,) = _lines(capsys)
    assert (line["event"], line["kind"]) == ("library.warned", "UserWarning")
    assert line["place"].startswith("test_logs.py:")
    assert "Somebody" not in json.dumps(line)


def _raise_below() -> None:
    raise ValueError("Somebody^Else")


def test_the_place_of_an_error_is_where_it_was_raised() -> None:
    with pytest.raises(ValueError, match="Somebody") as caught:
        _raise_below()
    line = _raise_below.__code__.co_firstlineno + 1
    assert logs.place_of(caught.value) == f"test_logs.py:{line}"
    assert logs.place_of(ValueError("never raised")) == "unknown"
