"""An archive that stands for the PACS of the demonstration: Orthanc where it is installed.

Both archives listen on loopback, keep what they are sent, and say what they hold.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import httpx
import pydicom
from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at run time
from pynetdicom.transport import ThreadedAssociationServer

from node.errors import PeerUnavailableError
from node.spool import sync_folder

LOOPBACK = "127.0.0.1"
_STORED = 0x0000
_MAX_PDU_BYTES = 131072
_IDENTIFIERS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
]
_ORTHANC_FOLDERS = "/usr/sbin:/usr/local/sbin"
_PLUGIN_FOLDERS = (
    Path("/usr/share/orthanc/plugins"),
    Path("/usr/local/share/orthanc/plugins"),
    Path("/usr/lib/orthanc"),
)
_START_LIMIT_S = 60.0
_STOP_LIMIT_S = 20.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredInstance:
    """One instance that an archive holds, and the file with its bytes."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    modality: str
    path: Path


class DemoArchive:
    """A small C-STORE archive within this process, one file an instance.

    Parameters
    ----------
    folder : Path
        Where the files lie; created when absent. What lies there already is held, too.
    port : int
        0 takes a free one; `port` tells which.
    ae_title : str
        How it is called; other called AE titles are answered as well.

    Attributes
    ----------
    arrivals : Counter
        How often each SOP Instance UID was stored since the start.
    """

    def __init__(self, folder: Path, *, port: int = 0, ae_title: str = "ARCHIVE") -> None:
        self.folder = folder
        self.port = port
        self.ae_title = ae_title
        self.arrivals: Counter[str] = Counter()
        self._held: dict[str, StoredInstance] = {}
        self._lock = threading.Lock()
        self._server: ThreadedAssociationServer | None = None

    def start(self) -> None:
        """Listen."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob("*.dcm"):
            self._hold(_identified(path, path.read_bytes()))
        entity = ApplicationEntity(self.ae_title)
        entity.maximum_pdu_size = _MAX_PDU_BYTES
        entity.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(str(context.abstract_syntax), ALL_TRANSFER_SYNTAXES)
        handlers: list[evt.EventHandlerType] = [(evt.EVT_C_STORE, self._store)]
        address = (LOOPBACK, self.port)
        server = entity.start_server(address, block=False, evt_handlers=handlers)
        self._server = cast("ThreadedAssociationServer", server)  # as it does not block
        self.port = int(self._server.server_address[1])

    def stop(self) -> None:
        """End all associations and stop listening; the files stay."""
        if self._server is not None:
            self._server.ae.shutdown()
            self._server = None

    def instances(self) -> list[StoredInstance]:
        """Return everything that is held, in the order of arrival."""
        with self._lock:
            return list(self._held.values())

    def find(self, study_instance_uid: str, modality: str) -> list[StoredInstance]:
        """Return the instances of one modality in a study."""
        return [
            one
            for one in self.instances()
            if (one.study_instance_uid, one.modality) == (study_instance_uid, modality)
        ]

    def _store(self, event: Event) -> int:
        """Write one instance; a failure here becomes status 0xC211 in the library."""
        encoded = event.encoded_dataset()
        uid = cast("C_STORE", event.request).AffectedSOPInstanceUID
        path = self.folder / f"{hashlib.sha256(str(uid).encode()).hexdigest()[:32]}.dcm"
        instance = _identified(path, encoded)
        _write_whole(path, encoded)
        self._hold(instance)
        with self._lock:
            self.arrivals[instance.sop_instance_uid] += 1
        return _STORED

    def _hold(self, instance: StoredInstance) -> None:
        with self._lock:
            self._held[instance.sop_instance_uid] = instance


class OrthancArchive:
    """The installed Orthanc as a child process, with a folder and ports of its own.

    Parameters
    ----------
    folder : Path
        Where its configuration, database and log lie; created when absent.
    program : str
        Path of the Orthanc executable.

    Attributes
    ----------
    port : int
        DICOM port.
    http_url : str
        REST API and explorer; ``/dicom-web`` below it when `has_dicom_web`.
    """

    def __init__(self, folder: Path, *, program: str, ae_title: str = "ORTHANC") -> None:
        self.folder = folder
        self.ae_title = ae_title
        self.port, self._http_port = _free_ports(2)
        self.http_url = f"http://{LOOPBACK}:{self._http_port}"
        self._program = program
        self._plugin = _dicom_web_plugin()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def has_dicom_web(self) -> bool:
        """Say whether the DICOMweb plug-in was found."""
        return self._plugin is not None

    def start(self) -> None:
        """Start Orthanc and return when it answers.

        Raises
        ------
        PeerUnavailableError
            It ended, or did not answer in time; its log lies in the folder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        configuration = self.folder / "orthanc.json"
        configuration.write_text(json.dumps(self._configuration(), indent=2), encoding="utf-8")
        with (self.folder / "orthanc.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - a program found by its own name
                [self._program, str(configuration)], stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + _START_LIMIT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise PeerUnavailableError(destination="Orthanc", reason="it did not start")
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """Stop Orthanc and wait until it is gone, since its database allows one process only."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def instances(self) -> list[StoredInstance]:
        """Return everything that is held; the files are copies made by this call."""
        return self._fetched({})

    def find(self, study_instance_uid: str, modality: str) -> list[StoredInstance]:
        """Return the instances of one modality in a study; the files are copies."""
        return self._fetched({"StudyInstanceUID": study_instance_uid, "Modality": modality})

    def _fetched(self, query: Mapping[str, str]) -> list[StoredInstance]:
        copies = self.folder / "copies"
        copies.mkdir(exist_ok=True)
        found = []
        with httpx.Client(base_url=self.http_url, trust_env=False) as client:
            request = {"Level": "Instance", "Query": dict(query)}
            for key in client.post("/tools/find", json=request).raise_for_status().json():
                encoded = client.get(f"/instances/{key}/file").raise_for_status().content
                _write_whole(copies / f"{key}.dcm", encoded)
                found.append(_identified(copies / f"{key}.dcm", encoded))
        return found

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.http_url}/system", trust_env=False).is_success
        except httpx.TransportError:
            return False

    def _configuration(self) -> dict[str, Any]:
        """Return settings for loopback use; Orthanc itself cannot be bound to one address."""
        return {
            "Name": "NeuroSeg demonstration archive",
            "StorageDirectory": str(self.folder.absolute() / "storage"),
            "IndexDirectory": str(self.folder.absolute() / "storage"),
            "Plugins": [str(self._plugin)] if self._plugin else [],
            "HttpPort": self._http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomPort": self.port,
            "DicomAet": self.ae_title,
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowStore": True,
            "OverwriteInstances": True,
            "UnknownSopClassAccepted": True,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "StudiesMetadata": "Full"},
        }


def choose_archive(folder: Path) -> DemoArchive | OrthancArchive:
    """Return an Orthanc archive when Orthanc is installed, else the built-in one; not started."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), _ORTHANC_FOLDERS])
    program = shutil.which("Orthanc", path=path)
    return OrthancArchive(folder, program=program) if program else DemoArchive(folder)


def _identified(path: Path, encoded: bytes) -> StoredInstance:
    ds = pydicom.dcmread(BytesIO(encoded), stop_before_pixels=True, specific_tags=_IDENTIFIERS)
    return StoredInstance(
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        study_instance_uid=str(ds.StudyInstanceUID),
        series_instance_uid=str(ds.SeriesInstanceUID),
        modality=str(ds.get("Modality", "")),
        path=path,
    )


def _write_whole(path: Path, content: bytes) -> None:
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
    sync_folder(path.parent)


def _dicom_web_plugin() -> Path | None:
    for folder in _PLUGIN_FOLDERS:
        for plugin in sorted(folder.glob("libOrthancDicomWeb.so*")):
            return plugin
    return None


def _free_ports(count: int) -> tuple[int, ...]:
    """Return loopback ports that are free now, all different."""
    sockets = [socket.create_server((LOOPBACK, 0)) for _ in range(count)]
    ports = tuple(int(one.getsockname()[1]) for one in sockets)
    for one in sockets:
        one.close()
    return ports
