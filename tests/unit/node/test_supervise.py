"""Roles are restarted when they end, with a back-off, and drained together."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from node import logs
from node.supervise import Supervisor, infer_environments
from tests.waiting import wait_until

# Stands before `serve --role ROLE`: notes its pid in a folder, then ends or stays.
SCRIPT = """
import os, sys, signal, time
from pathlib import Path
role = sys.argv[sys.argv.index("--role") + 1]
role += os.environ.get("CUDA_VISIBLE_DEVICES", "")
Path(sys.argv[1], f"{role}-{os.getpid()}").touch()
if role == "short":
    sys.exit(3)
if role == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(60)
"""


@pytest.fixture
def entry(tmp_path: Path) -> list[str]:
    script = tmp_path / "role.py"
    script.write_text(SCRIPT, encoding="utf-8")
    notes = tmp_path / "notes"
    notes.mkdir()
    return [sys.executable, str(script), str(notes)]


def _starts(tmp_path: Path, role: str) -> list[int]:
    return [int(path.name.split("-")[1]) for path in (tmp_path / "notes").glob(f"{role}-*")]


def _running(supervisor: Supervisor) -> threading.Thread:
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    return thread


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_killed_role_is_started_again_and_its_neighbour_is_left_alone(
    tmp_path: Path, entry: list[str]
) -> None:
    supervisor = Supervisor(["steady", "other"], None, entry=entry)
    thread = _running(supervisor)
    wait_until(
        lambda: _starts(tmp_path, "steady") and _starts(tmp_path, "other"), 10, "both to start"
    )
    os.kill(_starts(tmp_path, "steady")[0], signal.SIGKILL)
    wait_until(lambda: len(_starts(tmp_path, "steady")) == 2, 10, "a second start")
    assert len(_starts(tmp_path, "other")) == 1
    supervisor.stop()
    thread.join(10)
    assert not any(_is_alive(pid) for pid in _starts(tmp_path, "steady"))


def test_a_role_that_ends_at_once_is_not_started_in_a_busy_loop(
    tmp_path: Path, entry: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(strict=True)  # to the captured standard output
    supervisor = Supervisor(["short"], None, entry=entry)
    thread = _running(supervisor)
    wait_until(lambda: len(_starts(tmp_path, "short")) == 3, 15, "three starts")
    supervisor.stop()
    thread.join(10)
    exits = [line for line in capsys.readouterr().out.splitlines() if "role.exited" in line]
    assert '"delay_s": 0.5' in exits[0]
    assert '"delay_s": 1.0' in exits[1]
    assert '"exit_code": 3' in exits[0]


def test_a_role_that_does_not_drain_is_killed_after_the_grace(
    tmp_path: Path, entry: list[str]
) -> None:
    supervisor = Supervisor(["stubborn"], None, entry=entry, grace_s=0.5)
    thread = _running(supervisor)
    wait_until(lambda: bool(_starts(tmp_path, "stubborn")), 10, "the start")
    supervisor.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert not _is_alive(_starts(tmp_path, "stubborn")[0])


def _gpus(folder: Path, count: int) -> Path:
    for number in range(count):
        (folder / f"nvidia{number}").touch()
    (folder / "nvidiactl").touch()
    return folder


@pytest.mark.parametrize(
    ("count", "visible", "expected"),
    [
        (0, None, []),
        (1, None, []),
        (2, None, ["0", "1"]),
        (4, "3,1", ["3", "1"]),
        (4, "2", []),
        (2, "", []),
    ],
)
def test_each_of_several_gpus_gets_a_process_of_its_own(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    visible: str | None,
    expected: list[str],
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = infer_environments("auto", "node-1", _gpus(tmp_path, count))
    assert [one["CUDA_VISIBLE_DEVICES"] for one in found] == expected
    names = [one["NEUROSEG_JOBS__WORKER_NAME"] for one in found]
    assert len(set(names)) == len(names)
    assert infer_environments("cpu", "node-1", tmp_path) == []


def test_processes_of_one_role_have_their_own_environment(tmp_path: Path, entry: list[str]) -> None:
    environments = {"infer": [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]}
    supervisor = Supervisor(["infer", "web"], None, entry=entry, environments=environments)
    thread = _running(supervisor)
    roles = ("infer0", "infer1", "web")
    wait_until(lambda: all(_starts(tmp_path, role) for role in roles), 10, "all to start")
    supervisor.stop()
    thread.join(10)
    assert [len(_starts(tmp_path, role)) for role in roles] == [1, 1, 1]
