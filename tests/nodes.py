"""A whole node as child processes, as an operator runs it, for integration and fault tests."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import httpx
from pydicom import dcmread
from pynetdicom.presentation import build_context

from node.reading import LedgerReader
from node.requesting import RequestingEntity
from tests import warm
from tests.peers import free_port
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "models" / "demo-glioma"
BRAIN_MASK = ROOT / "models" / "brain-mask"
POISONED = (sys.executable, "-m", "tests.poisoned_node")
PLAIN = (sys.executable, "-m", "node")
_MR = "1.2.840.10008.5.1.4.1.1.4"
_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


def destination(name: str, *, port: int = 0, ae_title: str = "PACS", url: str = "") -> str:
    """Return the TOML of a destination: STOW-RS with a url, else C-STORE."""
    if url:
        return f'[[destinations]]\nname = "{name}"\ntransport = "stow"\nurl = "{url}"\n'
    return (
        f'[[destinations]]\nname = "{name}"\ntransport = "dimse"\nhost = "127.0.0.1"\n'
        f'port = {port}\nae_title = "{ae_title}"\ntimeout_s = 10.0\n'
    )


class RunningNode:
    """A node in its own folder with free ports; a context manager that drains it at the end.

    Parameters
    ----------
    folder : Path
        Holds configuration, log and spool; a second node may be started on the same one.
    destinations : sequence of str
        TOML of each, see `destination`.
    entry : sequence of str
        What stands before ``serve`` on the command line.
    options : mapping
        Further TOML lines by table name, such as ``{"assemble": "quiet_s = 5.0"}``.
    is_warm : bool
        Fork its processes off one that has imported everything (`tests.warm`), for entries that
        are made of `tests.entries`.
    role : str
        Run this one alone, without a supervisor.
    preload : str
        A library that warm processes are to have loaded.
    """

    def __init__(  # noqa: PLR0913 - options, each with its default
        self,
        folder: Path,
        destinations: Sequence[str] = (),
        *,
        entry: Sequence[str] = PLAIN,
        options: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        is_warm: bool = False,
        role: str = "",
        preload: str = "",
    ) -> None:
        self.folder = folder
        self.dicom_port, self.web_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.web_port}"
        self.log_path = folder / "node.log"
        self.config = folder / "node.toml"
        self.spool = folder / "spool"
        self._entry = entry
        self._is_warm = is_warm
        self._role = ["--role", role] if role else []
        self._preload = preload
        self._environment = {"OMP_NUM_THREADS": "2", **(environment or {})}
        self._process: subprocess.Popen[bytes] | warm.WarmProcess | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(self._toml(destinations, options or {}), encoding="utf-8")

    def _toml(self, destinations: Sequence[str], options: Mapping[str, str]) -> str:
        tables = {
            "receive": f"port = {self.dicom_port}",
            "web": f"port = {self.web_port}",
            "spool": f"path = '{self.spool}'\nfree_floor_bytes = 0",
            "assemble": "settle_s = 0.5\nquiet_s = 4.0\npoll_s = 0.2",
            "model": f"folder = '{MODEL}'\nbrain_mask_folder = '{BRAIN_MASK}'",
            "align": "",
            "jobs": "poll_s = 0.1\nsweep_s = 1.0\nheartbeat_timeout_s = 10.0",
            "delivery": "first_delay_s = 0.5\nlongest_delay_s = 2.0",
        }
        lines = []
        for name in dict.fromkeys([*tables, *options]):
            ours, given = (one.get(name, "").splitlines() for one in (tables, options))
            keys = {line.partition("=")[0] for line in given}
            kept = [line for line in ours if line.partition("=")[0] not in keys]
            lines += [f"[{name}]", *kept, *given]
        return "\n".join([*lines, *destinations]) + "\n"

    def __enter__(self) -> Self:
        """Start the node."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Drain the node."""
        self.stop()

    def start(self) -> None:
        """Start the supervisor, which starts the roles."""
        command = [*self._entry, "serve", "--config", str(self.config), *self._role]
        if self._is_warm:
            started = warm.start(command, self._environment, self.log_path, preload=self._preload)
            self._process = started
            return
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment},
            )

    @property
    def process(self) -> subprocess.Popen[bytes] | warm.WarmProcess:
        """The supervisor."""
        if self._process is None:
            raise RuntimeError("the node was not started")
        return self._process

    def stop(self) -> int:
        """Drain the node and return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()

    def beside(self, role: str, environment: Mapping[str, str]) -> RunningNode:
        """Return one more process of a role on the same folder, not started: a second machine."""
        other = copy.copy(self)
        other._environment = {**self._environment, **environment}
        other._role, other._process = ["--role", role], None
        return other

    def kill(self) -> None:
        """End every process at once, as a machine's end does; none writes anything any more.

        Of a supervisor that is killed alone the children drain, as they do when told to stop.
        """
        supervisor = self.process.pid
        hit(supervisor, signal.SIGSTOP)  # it starts nobody meanwhile
        processes = [supervisor, *children(supervisor)]
        for pid in processes:
            hit(pid, signal.SIGKILL)
        self.process.wait(30)
        wait_until(lambda: all(map(_is_gone, processes)), 30.0, "the node to be dead")

    def kill_role(self, role: str) -> bool:
        """Kill a role's process as kill -9 does; False when it was not there."""
        ledger = LedgerReader(f"sqlite:///{self.spool}/ledger.sqlite")
        pids = [row.pid for row in ledger.workers() if row.role == role]
        ledger.close()
        killed = [hit(pid, signal.SIGKILL) for pid in pids]
        return bool(killed) and all(killed)

    def get(self, path: str) -> httpx.Response:
        """Return an answer of the web role."""
        return httpx.get(f"{self.url}{path}", timeout=10.0, trust_env=False)

    def is_ready(self) -> bool:
        """Say whether every part works."""
        try:
            return self.get("/readyz").is_success
        except httpx.TransportError:
            return False

    def wait_ready(self) -> None:
        """Wait until every part works."""
        wait_until(self.is_ready, 90.0, "the node to be ready")

    def cases(self) -> list[dict[str, Any]]:
        """Return the cases that the API lists, none while it does not answer."""
        try:
            found: list[dict[str, Any]] = self.get("/api/v1/cases?limit=100").json()["cases"]
        except httpx.TransportError:
            return []
        return found

    def case(self, case_id: str) -> dict[str, Any]:
        """Return one case in full."""
        found: dict[str, Any] = self.get(f"/api/v1/cases/{case_id}").json()
        return found

    def wait_states(
        self, state: str, count: int = 1, *, timeout_s: float = 120.0
    ) -> list[dict[str, Any]]:
        """Wait until so many cases are in a state; return them."""
        wait_until(
            lambda: len([one for one in self.cases() if one["state"] == state]) >= count,
            timeout_s,
            f"{count} cases to be {state}",
            poll_s=0.3,  # the answer names every case: asked more often, it slows what it waits for
        )
        return [one for one in self.cases() if one["state"] == state]

    def log_lines(self) -> list[dict[str, Any]]:
        """Return what the node logged; every line must be JSON."""
        text = self.log_path.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines() if line.strip()]


def children(pid: int) -> list[int]:
    """Return the child processes of one, as Linux lists them."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(_state(stat)[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def hit(pid: int, number: signal.Signals) -> bool:
    """Send a signal to a process; False when it is not there."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _is_gone(pid: int) -> bool:
    try:
        return _state(Path(f"/proc/{pid}/stat"))[0] in "ZX"
    except OSError:
        return True


def _state(stat: Path) -> list[str]:
    """Return what Linux says of a process behind its name: state, parent and so on."""
    return stat.read_text(encoding="utf-8").rpartition(")")[2].split()


def push(paths: Iterable[Path], port: int, *, calling: str = "SCANNER") -> list[int]:
    """Send MR instances; return each one's status, -1 for what stayed without an answer."""
    entity = RequestingEntity(calling)
    entity.requested_contexts = [build_context(_MR, _EXPLICIT_VR_LITTLE_ENDIAN)]
    association = entity.associate("127.0.0.1", port, ae_title="NEUROSEG")
    statuses = []
    for path in paths:
        if not association.is_established:
            statuses.append(-1)
            continue
        answer = association.send_c_store(dcmread(path))
        statuses.append(int(answer.Status) if "Status" in answer else -1)
    if association.is_established:
        association.release()
    return statuses
