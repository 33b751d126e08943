"""Machines on one machine: network namespaces with an address each, joined by a bridge.

What a machine runs sees its own network alone: its loopback is its own, and once its cable is
pulled it reaches nobody and nobody reaches it. Processors, memory, clock and disk are shared.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

from tests import peers

NAMESPACE = "WARM_NETWORK"  # the variable that names the one that a process is to live in
_CLONE_NEWNET = 0x40000000
_FOLDER = Path("/run/netns")


def enter(name: str) -> None:
    """Put this thread, and whatever it starts, into a network namespace."""
    with (_FOLDER / name).open("rb") as handle:
        if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "no such network")


def _ip(*words: str) -> str:
    command = [peers.program("ip") or "ip", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(done.stderr.strip() or "ip")
    return done.stdout


class Machine:
    """A network of its own, by the name that `enter` takes; made by `Network.machine`."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address

    def pids(self) -> list[int]:
        """Return every process that runs on it."""
        return [int(one) for one in _ip("netns", "pids", self.name).split()]

    def hit(self, number: signal.Signals) -> None:
        """Send all its processes a signal."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def pull_cable(self) -> None:
        """Cut it off: packets are dropped, nobody is told."""
        _ip("link", "set", self.name, "down")

    def plug_cable(self) -> None:
        """Let it back."""
        _ip("link", "set", self.name, "up")


class Network:
    """A bridge with an address of this machine; a context manager. Needs root on Linux."""

    def __init__(self) -> None:
        peers.require("iproute2")
        self._key = uuid.uuid4().hex[:6]
        self._prefix = f"10.{200 + os.getpid() % 50}.{int(self._key[:2], 16)}"
        self._bridge = f"nb{self._key}"
        self.address = f"{self._prefix}.1"
        self._machines: list[Machine] = []

    def __enter__(self) -> Self:
        """Make the bridge; skip the test where that is forbidden."""
        try:
            _ip("link", "add", self._bridge, "type", "bridge")
            _ip("address", "add", f"{self.address}/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            self._try_out()
        except OSError as error:
            self.__exit__()
            pytest.skip(f"no networks can be made here: {error}")
        return self

    def _try_out(self) -> None:
        name = f"nt{self._key}"
        _ip("netns", "add", name)
        _ip("netns", "delete", name)

    def __exit__(self, *_: object) -> None:
        """End what runs on the machines, and take all down."""
        for one in self._machines:
            one.hit(signal.SIGKILL)
            _ip("netns", "delete", one.name)
            with suppress(OSError):
                _ip("link", "delete", one.name)
        with suppress(OSError):
            _ip("link", "delete", self._bridge)

    def machine(self) -> Machine:
        """Return one more machine, with its cable plugged in."""
        number = len(self._machines) + 1
        name, inside = f"nm{self._key}{number}", f"ni{self._key}{number}"
        address = f"{self._prefix}.{10 + number}"
        _ip("netns", "add", name)
        self._machines.append(Machine(name, address))
        _ip("link", "add", name, "type", "veth", "peer", "name", inside)
        _ip("link", "set", name, "master", self._bridge, "up")
        _ip("link", "set", inside, "netns", name)
        for words in (
            ("address", "add", f"{address}/24", "dev", inside),
            ("link", "set", inside, "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-netns", name, *words)
        return self._machines[-1]
