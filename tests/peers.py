"""Real peers and tools: Orthanc on free loopback ports, DCMTK's senders, and what is installed."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from tests.waiting import wait_until

_ROOT = Path(__file__).resolve().parents[1]
_PLUGIN_FOLDERS = (Path("/usr/share/orthanc/plugins"), Path("/usr/lib/orthanc"))
_PROGRAMS = {
    "orthanc": ("Orthanc",),
    "dcmtk": ("storescu", "echoscu", "dcmdump"),
    "dcm2niix": ("dcm2niix",),
    "dciodvfy": ("dciodvfy",),
    "iproute2": ("ip",),
    "mount": ("mount",),
    "postgresql": ("initdb", "postgres"),
    "prometheus": ("promtool",),
}
OHIF_FOLDER = _ROOT / ".venv" / "ohif"
AXE_FOLDER = _ROOT / ".venv" / "axe"
_FILES = {"ohif": OHIF_FOLDER / "index.html", "axe": AXE_FOLDER / "axe.min.js"}
_HTTP_TIMEOUT_S = 30.0


def program(name: str) -> str | None:
    """Return where a program is, also when it is not in everybody's PATH."""
    databases = map(str, Path("/usr/lib/postgresql").glob("*/bin"))
    other = os.pathsep.join(["/usr/sbin", "/usr/local/sbin", *databases])
    return shutil.which(name) or shutil.which(name, path=other)


def real_data_folder() -> Path | None:
    """Return the folder of real exams, None where there is none."""
    folder = Path(os.environ.get("NEUROSEG_REALDATA") or _ROOT.parent / "shared" / "realdata")
    return folder if folder.is_dir() else None


def container_lab() -> Path | None:
    """Return what builds and runs images (`build`, `run`, `compose`), None where it is absent."""
    beside = _ROOT.parent / "shared" / "container-lab" / "lab"
    lab = Path(os.environ.get("NEUROSEG_CONTAINER_LAB") or beside)
    return lab if lab.is_file() and program("podman-compose") else None


def has(tool: str) -> bool:
    """Say whether a tool of `_PROGRAMS` is installed, or another known tool is there."""
    if tool == "containers":
        return container_lab() is not None
    if tool == "realdata":
        return real_data_folder() is not None
    if tool in _FILES:
        return _FILES[tool].is_file()
    is_complete = all(program(name) for name in _PROGRAMS[tool])
    return is_complete and (tool != "orthanc" or _dicom_web_plugin() is not None)


def require(tool: str) -> None:
    """Skip the test where a tool is absent; fail where NEUROSEG_TEST_REQUIRE names it."""
    if has(tool):
        return
    if tool in os.environ.get("NEUROSEG_TEST_REQUIRE", "").replace(",", " ").split():
        pytest.fail(f"{tool} is required here (NEUROSEG_TEST_REQUIRE) and is not installed")
    pytest.skip(f"{tool} is not installed")


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _dicom_web_plugin() -> Path | None:
    found = [path for folder in _PLUGIN_FOLDERS for path in folder.glob("libOrthancDicomWeb.so*")]
    return found[0] if found else None


class Orthanc:
    """A real archive with DICOMweb on free loopback ports; a context manager.

    `stop` and `start` again keep the storage and the ports: an archive that is away for a while.

    Parameters
    ----------
    folder : Path
        Holds its configuration, storage and log.
    ae_title : str
        What it is called.
    options : keyword arguments
        Further entries of Orthanc's configuration.
    """

    def __init__(self, folder: Path, *, ae_title: str = "ORTHANC", **options: object) -> None:
        self.folder = folder
        self.ae_title = ae_title
        self.dicom_port, self.http_port = free_port(), free_port()
        self.http_url = f"http://127.0.0.1:{self.http_port}"
        self.dicomweb_url = f"{self.http_url}/dicom-web"
        self.log = folder / "orthanc.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._configuration = folder / "orthanc.json"
        folder.mkdir(parents=True, exist_ok=True)
        self._configuration.write_text(json.dumps({**self._defaults(), **options}))

    def _defaults(self) -> dict[str, object]:
        return {
            "Name": self.ae_title,
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "Plugins": [str(_dicom_web_plugin())],
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomPort": self.dicom_port,
            "DicomAet": self.ae_title,
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowStore": True,
            "OverwriteInstances": True,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "StudiesMetadata": "Full"},
        }

    @staticmethod
    def is_available() -> bool:
        """Say whether Orthanc and its DICOMweb plugin are installed."""
        return has("orthanc")

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it at once: closing down takes it three seconds, and its storage goes anyway."""
        if self._process is not None:
            self._process.kill()
        self.stop()

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, timeout_s: float = 60.0) -> None:
        """Start it and wait until both doors answer."""
        if self.is_running:
            return
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [program("Orthanc") or "Orthanc", str(self._configuration)],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        atexit.register(self._process.kill)
        wait_until(self._answers, timeout_s, f"Orthanc to answer (its log: {self.log})")

    def _answers(self) -> bool:
        if not self.is_running:
            raise RuntimeError(f"Orthanc ended: {self.log.read_text(errors='replace')[-2000:]}")
        try:
            with socket.create_connection(("127.0.0.1", self.dicom_port), timeout=2.0):
                return self._get("/system").is_success
        except (httpx.TransportError, OSError):
            return False

    def stop(self) -> None:
        """Stop it and wait until its process is gone; the database stays locked before that."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(15.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(15.0)
        atexit.unregister(self._process.kill)
        self._process = None

    def _get(self, path: str, **query: str) -> httpx.Response:
        # One connection a request: Orthanc now and then drops a kept one without an answer.
        return httpx.get(
            f"{self.http_url}{path}", params=query, timeout=_HTTP_TIMEOUT_S, trust_env=False
        )

    def _query(self, path: str, **query: str) -> list[dict[str, Any]]:
        answer = self._get(f"/dicom-web{path}", **query).raise_for_status()
        found: list[dict[str, Any]] = answer.json() if answer.content else []
        return found

    def studies(self) -> list[str]:
        """Return the Study Instance UIDs it holds (QIDO-RS)."""
        return [value_of(one, "0020000D") for one in self._query("/studies")]

    def find_series(self, study_uid: str, modality: str) -> list[str]:
        """Return the Series Instance UIDs of a modality in a study (QIDO-RS)."""
        found = self._query(f"/studies/{study_uid}/series", Modality=modality)
        return [value_of(one, "0020000E") for one in found]

    def find_instances(self, study_uid: str, modality: str) -> list[str]:
        """Return the SOP Instance UIDs of a modality in a study (QIDO-RS)."""
        return [
            value_of(one, "00080018")
            for series_uid in self.find_series(study_uid, modality)
            for one in self._query(f"/studies/{study_uid}/series/{series_uid}/instances")
        ]

    def instance_bytes(self, sop_instance_uid: str) -> bytes:
        """Return the file of an instance exactly as it is stored."""
        return self._get(f"{self._address(sop_instance_uid)}/file").raise_for_status().content

    def delete(self, sop_instance_uid: str) -> None:
        """Lose an instance."""
        address = f"{self.http_url}{self._address(sop_instance_uid)}"
        httpx.delete(address, timeout=_HTTP_TIMEOUT_S, trust_env=False).raise_for_status()

    def _address(self, sop_instance_uid: str) -> str:
        return f"/instances/{self._lookup(sop_instance_uid, 'Instance')}"

    def _lookup(self, uid: str, kind: str) -> str:
        answer = httpx.post(
            f"{self.http_url}/tools/lookup",
            content=uid,
            timeout=_HTTP_TIMEOUT_S,
            trust_env=False,
        ).raise_for_status()
        (found,) = [one["ID"] for one in answer.json() if one["Type"] == kind]
        return str(found)

    def know(self, ae_title: str, port: int) -> None:
        """Let it reach an AE on loopback, as storage commitment needs."""
        httpx.put(
            f"{self.http_url}/modalities/{ae_title.lower()}",
            json={"AET": ae_title, "Host": "127.0.0.1", "Port": port},
            timeout=_HTTP_TIMEOUT_S,
            trust_env=False,
        ).raise_for_status()

    def stow(self, url: str, study_uid: str, **server: object) -> int:
        """Have it send a study to a DICOMweb server; return how many instances it says it sent."""
        httpx.put(
            f"{self.dicomweb_url}/servers/receiver",
            json={"Url": url, **server},
            timeout=_HTTP_TIMEOUT_S,
            trust_env=False,
        ).raise_for_status()
        study = self._lookup(study_uid, "Study")
        answer = httpx.post(
            f"{self.dicomweb_url}/servers/receiver/stow",
            json={"Resources": [study], "Synchronous": True},
            timeout=_HTTP_TIMEOUT_S,
            trust_env=False,
        ).raise_for_status()
        return int(answer.json()["InstancesCount"])

    def upload(self, paths: Sequence[Path]) -> None:
        """Put files into it by REST, which is 20 times faster than C-STORE on loopback."""
        for path in paths:
            httpx.post(
                f"{self.http_url}/instances",
                content=path.read_bytes(),
                timeout=_HTTP_TIMEOUT_S,
                trust_env=False,
            ).raise_for_status()


def value_of(answer: dict[str, Any], tag: str) -> str:
    """Return the first value of an element in the DICOM JSON model."""
    return str(answer[tag]["Value"][0])


def _dcmtk(
    name: str, arguments: Sequence[str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program(name) or name, *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
    )


def storescu(
    paths: Sequence[Path],
    *,
    port: int,
    called: str = "NEUROSEG",
    calling: str = "STORESCU",
    extra: Sequence[str] = (),
    timeout_s: float = 120.0,
) -> subprocess.CompletedProcess[str]:
    """Send files, or all files below folders, to a loopback port with DCMTK's storescu."""
    scan = ("--scan-directories", "--recurse") if any(path.is_dir() for path in paths) else ()
    return _dcmtk(
        "storescu",
        [*extra, *scan, "-aet", calling, "-aec", called, "127.0.0.1", str(port), *map(str, paths)],
        timeout_s,
    )


def echoscu(
    *,
    port: int,
    called: str = "NEUROSEG",
    calling: str = "ECHOSCU",
    extra: Sequence[str] = (),
    timeout_s: float = 30.0,
) -> subprocess.CompletedProcess[str]:
    """Verify a loopback port with DCMTK's echoscu."""
    return _dcmtk(
        "echoscu", [*extra, "-aet", calling, "-aec", called, "127.0.0.1", str(port)], timeout_s
    )


def dciodvfy(path: Path, *, timeout_s: float = 60.0) -> list[str]:
    """Return what the validator of dicom3tools says about a file, a line a finding."""
    done = subprocess.run(
        [program("dciodvfy") or "dciodvfy", str(path)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
    )
    lines = (done.stdout + done.stderr).splitlines()
    return [line.strip() for line in lines if line.startswith(("Error", "Warning"))]
