"""Uploaded files on a real node: right labels on their grid, in order, and nothing left."""

from __future__ import annotations

import json
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from converters import nifti
from inference import manifest, model
from inference.model import LoadedModel
from inference.predict import predict
from node.prediction_queue import PredictionQueue
from node.reading import LedgerReader
from tests import predictions, tiny_models
from tests.nodes import BRAIN_MASK, RunningNode
from tests.predictions import form, head, multipart_body
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

NiftiImage: Any = nib.Nifti1Image  # only half of nibabel is typed
ASYNC = {"prefer": "respond-async"}
WINDOW = (24, 32, 24)
MANY = 20


def _turned(degrees: float) -> NDArray[np.float64]:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
    return np.block([[turn * 3.0, np.zeros((3, 1))], [np.zeros(3), 1.0]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.written(tmp_path_factory.mktemp("model") / "tiny", window=WINDOW)


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedModel:
    return model.load(manifest.load(folder), device="cpu", mask_folder=BRAIN_MASK)


@pytest.fixture(scope="module")
def node(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    environment = {"NEUROSEG_MODEL__FOLDER": str(folder), "NEUROSEG_PREDICT__KEEP_S": "1000"}
    running = RunningNode(tmp_path_factory.mktemp("node"), environment=environment)
    with running:
        running.wait_ready()
        yield running


@pytest.fixture(scope="module")
def upload() -> bytes:
    content: bytes = head().to_bytes()
    return content


@pytest.fixture
def client(node: RunningNode) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=node.url, timeout=300.0, trust_env=False) as made:
        yield made


def _left(node: RunningNode) -> list[str]:
    return predictions.files(node.spool / "predictions")


def _sent(client: httpx.Client, content: bytes) -> str:
    answer = client.post("/api/v1/predict", **form(content), headers=ASYNC)
    assert answer.status_code == 202, answer.text
    return answer.headers["location"]


def _until(client: httpx.Client, url: str, *states: str) -> dict[str, Any]:
    wait_until(lambda: client.get(url).json()["state"] in states, 120.0, f"one of {states}")
    body: dict[str, Any] = client.get(url).json()
    return body


def _odd(name: str) -> tuple[Any, str]:
    """Return an image that lies or is stored in another way, and the name of its file."""
    if name == "LAS, not packed":
        return head(np.diag([-3.0, 3.0, 3.0, 1.0])), "x.nii"
    if name == "oblique, scaled integers, qform alone":
        image = head(_turned(12.0), (56, 48, 64))
        stored = np.round(image.get_fdata() / 0.25 + 100).astype(np.int16)
        scaled = NiftiImage(stored, None, image.header, dtype=np.int16)
        scaled.header.set_slope_inter(0.25, -25.0)
        scaled.set_sform(None, code=0)
        return scaled, "x.nii.gz"
    return head(), "x.nii.gz"


@pytest.mark.parametrize(
    "name", ["RAS", "LAS, not packed", "oblique, scaled integers, qform alone"]
)
def test_the_answer_is_what_the_model_finds_on_the_grid_of_the_file(
    client: httpx.Client, node: RunningNode, loaded: LoadedModel, tmp_path: Path, name: str
) -> None:
    image, file_name = _odd(name)
    path = tmp_path / file_name
    image.to_filename(path)
    answer = client.post("/api/v1/predict", files={"file": ("x", path.read_bytes())})
    assert answer.status_code == 200, answer.text
    assert answer.headers["neuroseg-model"] == loaded.manifest.model_id

    (tmp_path / "labels.nii.gz").write_bytes(answer.content)
    source = NiftiImage.from_filename(path)
    labels = NiftiImage.from_filename(tmp_path / "labels.nii.gz")
    assert labels.shape == source.shape[:3]
    assert labels.get_data_dtype() == np.uint8
    assert np.array_equal(labels.affine, source.affine)
    for field in ("qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "xyzt_units"):
        assert np.array_equal(labels.header[field], source.header[field]), field
    volumes = nifti.read_channels(path, loaded.manifest.roles)
    expected = predict(volumes, loaded, reference_role=loaded.manifest.space.reference_role)
    found = np.asarray(labels.dataobj)
    assert np.array_equal(found, expected.label_map.labels.T)
    assert len(np.unique(found)) > 1
    (extension,) = labels.header.extensions
    said = json.loads(extension.get_content())
    assert [one["value"] for one in said["labels"]] == [1, 2, 3]
    assert said["labels"][0]["code"]["value"] == "79654002"
    assert "Research use only" in said["notice"]
    assert said["notes"] == [
        {"code": note.code, "sentence": note.sentence} for note in expected.notes
    ]
    assert _left(node) == []


def test_images_that_show_nothing_are_refused_by_the_model(
    client: httpx.Client, node: RunningNode
) -> None:
    image = NiftiImage(np.zeros((40, 40, 40, 4), np.float32), np.diag([3.0, 3.0, 3.0, 1.0]))
    answer = client.post("/api/v1/predict", **form(image.to_bytes()))
    assert (answer.status_code, answer.json()["code"]) == (422, "CHANNEL_CONSTANT")
    assert _left(node) == []


def test_a_running_one_is_stopped_and_the_next_one_goes_on(
    client: httpx.Client, node: RunningNode, upload: bytes
) -> None:
    first, second = _sent(client, upload), _sent(client, upload)
    assert _until(client, first, "running")["position"] == 0
    assert client.delete(first).status_code == 204
    assert client.get(first).json()["state"] == "cancelled"
    body = _until(client, second, "done")
    assert body["windows_done"] == body["window_count"] > 1
    assert client.get(body["labels_url"]).is_success
    assert client.delete(second).status_code == 204
    wait_until(lambda: _left(node) == [], 30.0, "the files to go")


def test_a_client_that_goes_away_frees_the_device(
    client: httpx.Client, node: RunningNode, upload: bytes
) -> None:
    body, headers = multipart_body(upload)
    lines = [
        "POST /api/v1/predict HTTP/1.1",
        f"host: 127.0.0.1:{node.web_port}",
        f"content-length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    with socket.create_connection(("127.0.0.1", node.web_port), timeout=30) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        wait_until(lambda: "running" in _states(node), 60.0, "the computation")
    wait_until(lambda: _states(node) == [] and _left(node) == [], 30.0, "all to be gone")
    url = _sent(client, upload)  # the device is free for the next one
    _until(client, url, "done")
    client.delete(url)
    assert _left(node) == []


def _states(node: RunningNode) -> list[str]:
    ledger = LedgerReader(f"sqlite:///{node.spool}/ledger.sqlite")
    states = [row.state.value for row in PredictionQueue(ledger.engine).open_rows()]
    ledger.close()
    return states


def _web_peak_kib(node: RunningNode) -> int:
    ledger = LedgerReader(f"sqlite:///{node.spool}/ledger.sqlite")
    (pid,) = (row.pid for row in ledger.workers() if row.role == "web")
    ledger.close()
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0])


class _Asking(threading.Thread):
    """Asks for the health again and again, and remembers how long each answer took."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url, self._stopping = url, threading.Event()
        self.seconds: list[float] = []

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30.0, trust_env=False) as client:
            while not self._stopping.wait(0.05):
                started = time.perf_counter()
                client.get("/api/v1/health").raise_for_status()
                self.seconds.append(time.perf_counter() - started)

    def stop(self) -> list[float]:
        self._stopping.set()
        self.join()
        return sorted(self.seconds)


@pytest.mark.timeout(400)
def test_many_clients_at_once_are_all_answered_in_order_and_the_web_role_stays_awake(
    client: httpx.Client, node: RunningNode, upload: bytes
) -> None:
    first = client.post("/api/v1/predict", **form(upload))
    before_kib = _web_peak_kib(node)
    asking = _Asking(node.url)
    asking.start()
    ended: list[str] = []

    def send(number: int) -> tuple[int, bytes]:
        with httpx.Client(base_url=node.url, timeout=300.0, trust_env=False) as own:
            answer = own.post("/api/v1/predict", **form(upload, f"{number}.nii"))
        ended.append(answer.headers.get("neuroseg-number", ""))
        return answer.status_code, answer.content

    with ThreadPoolExecutor(MANY) as pool:
        answers = list(pool.map(send, range(MANY)))
    seconds = asking.stop()
    grown_kib = _web_peak_kib(node) - before_kib
    assert [status for status, _ in answers] == [200] * MANY
    assert {content for _, content in answers} == {first.content}
    numbers = [int(one) for one in ended]
    assert numbers == sorted(numbers)
    assert _left(node) == []
    median, most = statistics.median(seconds), seconds[-1]
    print(  # noqa: T201 - a measurement, shown by pytest -s
        f"\n{MANY} uploads of {len(upload)} bytes; health asked {len(seconds)} times: "
        f"median {1000 * median:.0f} ms, 95 % {1000 * seconds[int(0.95 * len(seconds))]:.0f} ms, "
        f"most {1000 * most:.0f} ms; memory of the web role + {grown_kib / 1024:.1f} MiB"
    )
    assert median < 0.25  # on an idle machine a tenth; others may be computing beside the test
    assert grown_kib * 1024 < MANY * len(upload) / 2


def test_the_log_names_no_file_of_a_client(node: RunningNode) -> None:
    assert {"prediction.queued", "prediction.done"} <= {one["event"] for one in node.log_lines()}
    assert "DOE" not in node.log_path.read_text(encoding="utf-8")
