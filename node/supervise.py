"""Roles as child processes: started, watched, restarted with back-off, drained together."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from node import logs
from node.ending import when_told

ROLES = ("receive", "web", "work", "infer")
_FIRST_DELAY_S = 0.5
_STEADY_S = 60.0  # a child that lived so long starts its back-off anew
_POLL_S = 0.1
_PR_SET_PDEATHSIG = 1
SUPERVISED = "NEUROSEG_SUPERVISED"


def die_with_parent() -> None:
    """Have the kernel end this process when its supervisor is gone, even by kill -9 (Linux)."""
    if not os.environ.get(SUPERVISED) or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == 1:  # it went while we were starting
        os.kill(os.getpid(), signal.SIGTERM)


class Process(Protocol):
    """What the supervisor needs of a child process, as `subprocess.Popen` has it."""

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code when there is one; raises ``TimeoutExpired``."""

    def terminate(self) -> None:
        """Send SIGTERM."""

    def kill(self) -> None:
        """Send SIGKILL."""


Launch = Callable[[Sequence[str], Mapping[str, str]], Process]
"""Starts a command, with variables beside ours in its environment."""


def launch(command: Sequence[str], environment: Mapping[str, str]) -> Process:
    """Start a process that inherits our standard output for its log."""
    return subprocess.Popen(command, env={**os.environ, **environment})  # noqa: S603 - our own


@dataclass(slots=True, kw_only=True)
class _Child:
    role: str
    command: Sequence[str]
    environment: Mapping[str, str]
    launch: Launch
    process: Process | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    longest_delay_s: float
    delay_s: float = field(default=_FIRST_DELAY_S)

    def start(self) -> None:
        """Start the process."""
        self.process = self.launch(self.command, {**self.environment, SUPERVISED: "1"})
        self.started_at = time.monotonic()

    def look(self) -> None:
        """Start the process when it is time to, after an exit with a delay."""
        now = time.monotonic()
        if self.process is None:
            if now >= self.start_at:
                self.start()
            return
        exit_code = self.process.poll()
        if exit_code is None:
            return
        if now - self.started_at > _STEADY_S:
            self.delay_s = _FIRST_DELAY_S
        logs.get().error("role.exited", kind=self.role, exit_code=exit_code, delay_s=self.delay_s)
        self.process = None
        self.start_at = now + self.delay_s
        self.delay_s = min(self.delay_s * 2, self.longest_delay_s)


class Supervisor:
    """Runs roles until it is told to stop.

    Parameters
    ----------
    roles : sequence of str
        Each becomes ``neuroseg serve --role ROLE`` in a process of its own.
    config : Path or None
        Handed on to the children.
    grace_s : float
        How long a child may take to drain before it is killed. What it leaves is durable.
    longest_delay_s : float
        The back-off of a child that ends again and again.
    entry : sequence of str
        The command line's own command; tests put another before it.
    environments : mapping of str to sequence of mapping
        Roles that run in several processes: what each finds in its environment beside ours.
    launch : callable
        Starts a child; tests fork one that has its imports behind it.
    """

    def __init__(  # noqa: PLR0913 - the last two are for tests
        self,
        roles: Sequence[str],
        config: Path | None,
        *,
        grace_s: float = 30.0,
        longest_delay_s: float = 30.0,
        entry: Sequence[str] = (sys.executable, "-m", "node"),
        environments: Mapping[str, Sequence[Mapping[str, str]]] = MappingProxyType({}),
        launch: Launch = launch,
    ) -> None:
        options = [] if config is None else ["--config", str(config)]
        self._children = [
            _Child(
                role=role,
                command=[*entry, "serve", "--role", role, *options],
                environment=environment,
                launch=launch,
                longest_delay_s=longest_delay_s,
            )
            for role in roles
            for environment in environments.get(role) or ({},)
        ]
        self._grace_s = grace_s
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Ask for the end; `run` returns when every child has ended."""
        self._stopping.set()

    def run(self) -> None:
        """Keep the children alive until `stop`, then drain them."""
        while not self._stopping.is_set():
            for child in self._children:
                child.look()
            self._stopping.wait(_POLL_S)
        self._drain()

    def _drain(self) -> None:
        living = [
            child.process
            for child in self._children
            if child.process is not None and child.process.poll() is None
        ]
        for process in living:
            process.terminate()
        deadline = time.monotonic() + self._grace_s
        for process in living:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        logs.get().info("node.stopped")


def infer_environments(
    device: str, worker_name: str, device_files: Path = Path("/dev")
) -> list[dict[str, str]]:
    """Return what the infer processes find in their environment: one for each of several GPUs.

    Each sees one GPU and is a worker of its own name. With one GPU or none there is one process,
    which finds nothing.
    """
    if device == "cpu":
        return []
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = sorted(
        int(one.name.removeprefix("nvidia")) for one in device_files.glob("nvidia[0-9]*")
    )
    gpus = [str(number) for number in found] if said is None else said.split(",")
    if len(gpus) < 2:  # noqa: PLR2004 - several
        return []
    return [
        {"CUDA_VISIBLE_DEVICES": gpu, "NEUROSEG_JOBS__WORKER_NAME": f"{worker_name}.gpu{place}"}
        for place, gpu in enumerate(gpus)
    ]


def receive_environments(count: int, worker_name: str) -> list[dict[str, str]]:
    """Return what several receive processes find in their environment: a worker's name for each."""
    names = [f"{worker_name}.receive{place}" for place in range(count)]
    return [{"NEUROSEG_JOBS__WORKER_NAME": name} for name in names] if count > 1 else []


def run_until_signal(supervisor: Supervisor) -> None:
    """Run the roles until SIGTERM or SIGINT, then drain them."""

    def _end(name: str) -> None:
        supervisor.stop()
        logs.get().info("node.stopping", signal=name)

    when_told(_end)
    logs.get().info("node.started")
    supervisor.run()
