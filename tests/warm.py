"""Processes of a node without the wait for their imports, for tests that start many.

`python -m tests.warm` imports once whatever a role does and then forks: whole nodes when it is
asked on its standard input, and each node's supervisor forks its roles. A forked process has no
thread, no connection and no open file of another; from there on it runs what it would run anyway.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests import machines
from tests.waiting import wait_until

_IMPORTED = "NEUROSEG_TEST_WARM"  # set in processes that have their imports behind them
_PR_SET_PDEATHSIG = 1
_ROOT = Path(__file__).resolve().parents[1]


class _Process(ABC):
    """What can be asked and told of a child, wherever its parent is."""

    pid: int

    @abstractmethod
    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code when there is one."""
        limit_s = float("inf") if timeout is None else timeout
        try:
            wait_until(lambda: self.poll() is not None, limit_s, "a process to end")
        except TimeoutError:
            raise subprocess.TimeoutExpired("a forked process", limit_s) from None
        return self.poll() or 0

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


class Forked(_Process):
    """A child of this process, as `subprocess.Popen` shows one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code


def is_warm() -> bool:
    """Say whether this process has its imports behind it and may fork."""
    return _IMPORTED in os.environ


def fork(command: Sequence[str], environment: Mapping[str, str]) -> Forked:
    """Run ``python -m MODULE ...`` in a copy of this process."""
    pid = os.fork()
    if pid:
        return Forked(pid)
    code = 1
    try:
        if sys.platform.startswith("linux"):  # nobody is left behind
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.environ.update(environment)
        if machines.NAMESPACE in environment:
            machines.enter(environment[machines.NAMESPACE])
        module = command[2]
        sys.argv = [module, *command[3:]]
        runpy.run_module(module, run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - the end of a process
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


# -- the process that forks whole nodes -----------------------------------------------------------


def _serve() -> None:
    """Fork nodes as we are asked; a line of JSON each way."""
    children: dict[int, Forked] = {}
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        if "poll" in asked:
            answer: object = children[asked["poll"]].poll()
        else:
            with Path(asked["log"]).open("ab") as log:
                for handle in (1, 2):
                    os.dup2(log.fileno(), handle)
            child = fork(asked["command"], asked["environment"])
            children[child.pid] = child
            answer = child.pid
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class WarmProcess(_Process):
    """A node's supervisor that was forked by the process that has imported everything."""

    def __init__(self, source: _Source, pid: int) -> None:
        self._source, self.pid = source, pid

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        code = self._source.ask({"poll": self.pid})
        return None if code is None else int(code)


class _Source:
    def __init__(self, preload: str) -> None:
        self._preload = {"LD_PRELOAD": preload} if preload else {}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, question: Mapping[str, object]) -> int | None:
        with self._lock:
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "tests.warm"],
                    cwd=_ROOT,
                    env={**os.environ, "OMP_NUM_THREADS": "2", _IMPORTED: "1", **self._preload},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                atexit.register(self._end, self._process)
            if self._process.stdin is None or self._process.stdout is None:
                raise RuntimeError("no pipe")
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            answer: int | None = json.loads(self._process.stdout.readline())
            return answer

    @staticmethod
    def _end(process: subprocess.Popen[str]) -> None:
        with process:
            process.kill()  # and its nodes with it


_sources: dict[str, _Source] = {}


def start(
    command: Sequence[str], environment: Mapping[str, str], log: Path, *, preload: str = ""
) -> WarmProcess:
    """Start ``python -m MODULE ...``, whose output goes to the end of a file."""
    source = _sources.setdefault(preload, _Source(preload))
    question = {"command": list(command), "environment": dict(environment), "log": str(log)}
    pid = source.ask(question)
    if pid is None:
        raise RuntimeError("no process was started")
    return WarmProcess(source, pid)


if __name__ == "__main__":
    import uvicorn
    from highdicom import _standard_utils

    import inference.model
    import node.closing
    import node.notify.notifier
    import node.receive.reconcile
    import node.receive.scp
    import node.retention
    import node.segment
    import node.web.app
    from tests import entries, poison

    _imported = (uvicorn, inference, node, entries, poison)
    for _read in (
        *(_standard_utils.get_sop_class_iod_map, _standard_utils.get_iod_module_map),
        *(_standard_utils.get_module_attribute_map, _standard_utils.get_anatomic_region_map),
    ):
        _read()  # two seconds in the life of each process that encodes
    gc.freeze()
    _serve()
