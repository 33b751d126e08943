"""The project's images and its stack, built and run for real with a container lab."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import httpx
import pytest
from packaging.version import Version

from tests import peers
from tests.peers import free_port
from tests.waiting import wait_until

ROOT: Final = Path(__file__).resolve().parents[1]
NODE_IMAGE: Final = "localhost/neuroseg-node:test"
VIEWER_IMAGE: Final = "localhost/neuroseg-viewer:test"
STAND_INS: Final = {  # for images of a registry, made of Debian's packages: tests/container
    "POSTGRES_IMAGE": ("postgres", "localhost/neuroseg-postgres:test"),
    "BALANCER_IMAGE": ("haproxy", "localhost/neuroseg-haproxy:test"),
}
MANY: Final = ("docker-compose.yml", "deploy/compose/many.yml")
USER: Final = "10001"

_BUILD_S: Final = 3000
_PATH: Final = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
_READY_S: Final = 300
_PROJECT: Final = "neuroseg-test"
# The lab's wheels hold torch; its public index is not asked.
_BUILD: Final = (*["build", ".", "--format", "docker", "--layers"], "--build-arg", "TORCH_INDEX=")
_SEALED: Final = [
    "--rm",
    "--network",
    "none",
    "--read-only",
    "--tmpfs",
    "/tmp",
    "--cap-drop",
    "all",
]


def _run(command: Sequence[str], timeout_s: float, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
        env={**os.environ, "PATH": _PATH, **environment},
        check=False,
    )
    assert done.returncode == 0, (command[:4], done.returncode, (done.stdout + done.stderr)[-3000:])
    return done.stdout


def _lab(*arguments: str, timeout_s: float = 120.0, **environment: str) -> str:
    """Run the lab and return what it printed; without it skip the test, or fail."""
    peers.require("containers")
    return _run([str(peers.container_lab()), *arguments], timeout_s, environment)


def _podman_settings() -> dict[str, str]:
    lab = Path(os.environ.get("LAB_DIR", "/var/tmp/container-lab"))
    return {"CONTAINERS_CONF": str(lab / "containers.conf")}


def podman(*arguments: str, timeout_s: float = 120.0) -> str:
    """Run podman with the lab's settings and return what it printed."""
    return _run(["podman", *arguments], timeout_s, _podman_settings())


def build_node(*more: str, tag: str = NODE_IMAGE) -> None:
    """Build the node's image; what was built before is taken from the layers."""
    _lab(*_BUILD, *more, "-t", tag, timeout_s=_BUILD_S)


def build_viewer() -> None:
    """Build the image of OHIF and its proxy."""
    file = "deploy/compose/viewer/Dockerfile"
    _lab(*_BUILD[:5], "--file", file, "-t", VIEWER_IMAGE, timeout_s=_BUILD_S)


def build_stand_ins() -> None:
    """Build the images of PostgreSQL and HAProxy."""
    for folder, tag in STAND_INS.values():
        _lab("build", f"tests/container/{folder}", *_BUILD[2:5], "-t", tag, timeout_s=_BUILD_S)


def require_merging() -> None:
    """Skip the test where podman-compose reads no `!override`: Debian's is too old."""
    peers.require("containers")
    try:
        text = importlib.metadata.version("podman-compose")
    except importlib.metadata.PackageNotFoundError:
        text = "0"
    if Version(text) < Version("1.3"):
        pytest.skip("podman-compose 1.3 is needed: pip install '.[containers]'")


def run_sealed(image: str, *command: str, mounts: Sequence[str] = (), entry: str = "") -> str:
    """Run a command without any network, on a root file system that nobody can write to."""
    volumes = [part for one in mounts for part in ("-v", one)]
    instead = ("--entrypoint", entry) if entry else ()
    return _lab("run", *_SEALED, *volumes, *instead, image, *command, timeout_s=600)


class Stack:
    """docker-compose.yml on free loopback ports; a context manager that takes it down whole.

    Parameters
    ----------
    files : sequence of str
        What is put on top of each other; with a database, that comes up first.
    """

    def __init__(self, files: Sequence[str] = MANY[:1]) -> None:
        self._files = [part for one in files for part in ("-f", one)]
        self.web_port, self.dicom_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.web_port}"
        self._environment = {
            "NEUROSEG_IMAGE": NODE_IMAGE,
            "VIEWER_IMAGE": VIEWER_IMAGE,
            "NEUROSEG_PORT": str(self.web_port),
            "NEUROSEG_DICOM_PORT": str(self.dicom_port),
            "ORTHANC_DICOM_PORT": str(free_port()),
            **{variable: tag for variable, (_, tag) in STAND_INS.items()},
        }

    def __enter__(self) -> Self:
        """Bring it up and wait until a study that is sent now would be segmented."""
        if len(self._files) > 2:
            self._compose("up", "-d", "--no-build", "postgres")
            self.wait_healthy("postgres")  # podman asks nobody's health by itself
        self._compose("up", "-d", "--no-build")
        wait_until(self._is_ready, _READY_S, "the stack to be ready", poll_s=1.0)
        return self

    def __exit__(self, *_: object) -> None:
        """Take it down with its volumes."""
        self._compose("down", "-v")

    def _compose(self, *arguments: str) -> None:
        command = ("compose", "-p", _PROJECT, *self._files, *arguments)
        _lab(*command, timeout_s=300.0, **self._environment)

    def _is_ready(self) -> bool:
        return self._answers("/readyz") and self._answers("/orthanc/system")

    def _answers(self, path: str) -> bool:
        try:
            return self.get(path).is_success
        except httpx.TransportError:
            return False

    @staticmethod
    def container(service: str) -> str:
        """Return the name of a service's container."""
        return f"{_PROJECT}_{service}_1"

    def within(self, service: str, *command: str) -> str:
        """Return what a command prints within a container."""
        return podman("exec", self.container(service), *command)

    def inspect(self, service: str) -> dict[str, Any]:
        """Return what the engine knows of a container."""
        (found,) = json.loads(podman("inspect", self.container(service)))
        return dict(found)

    def wait_healthy(self, service: str) -> None:
        """Wait until the image's own check passes; without systemd podman asks only when told."""
        command = ["podman", "healthcheck", "run", self.container(service)]
        settings = {**os.environ, **_podman_settings()}

        def is_healthy() -> bool:
            done = subprocess.run(command, capture_output=True, env=settings, check=False)
            return done.returncode == 0

        wait_until(is_healthy, _READY_S, f"{service} to be healthy", poll_s=1.0)

    def log(self, service: str) -> str:
        """Return what a service has written."""
        done = subprocess.run(
            ["podman", "logs", self.container(service)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60.0,
            check=True,
        )
        return done.stdout + done.stderr

    def kill(self, service: str) -> None:
        """End a container as kill -9 does."""
        podman("kill", "--signal", "KILL", self.container(service))

    def start(self, service: str) -> None:
        """Start a container that has ended."""
        podman("start", self.container(service))

    def get(self, path: str, **headers: str) -> httpx.Response:
        """Return an answer at the one address."""
        return httpx.get(f"{self.url}{path}", headers=headers, timeout=30.0, trust_env=False)

    def upload(self, paths: Sequence[Path]) -> None:
        """Put files into the archive as its page does."""
        for path in paths:
            httpx.post(
                f"{self.url}/orthanc/instances",
                content=path.read_bytes(),
                timeout=60.0,
                trust_env=False,
            ).raise_for_status()

    def series(self, study_uid: str, modality: str) -> list[str]:
        """Return the Series Instance UIDs of a modality in the archive (QIDO-RS)."""
        answer = self.get(f"/dicom-web/studies/{study_uid}/series?Modality={modality}")
        found = answer.raise_for_status().json() if answer.content else []
        return [peers.value_of(one, "0020000E") for one in found]

    def files(self, series_uid: str) -> list[bytes]:
        """Return the instances of a series as the archive keeps them."""
        lookup = httpx.post(f"{self.url}/orthanc/tools/lookup", content=series_uid, trust_env=False)
        (series,) = [one["ID"] for one in lookup.raise_for_status().json()]
        instances = self.get(f"/orthanc/series/{series}").raise_for_status().json()["Instances"]
        return [self.get(f"/orthanc/instances/{one}/file").content for one in instances]

    def states(self) -> dict[str, str]:
        """Return the state of each case by its id, nothing while the node is away."""
        answer = self.get("/api/v1/cases?limit=100")
        cases = answer.json()["cases"] if answer.is_success else []
        return {one["case_id"]: one["state"] for one in cases}
