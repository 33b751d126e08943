"""Uploads: taken, refused with a code, answered, and nothing left of them."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient
from starlette.types import Message

from node import logs
from node.prediction_queue import PredictionQueue
from node.ticker import Ticker
from tests import predictions
from tests.predictions import InstantInfer, form, multipart_body, packed
from tests.waiting import wait_until
from tests.web_cases import WebNode

BASE = "http://127.0.0.1:8080"
URL = "/api/v1/predict"
ASYNC = {"prefer": "respond-async"}


@contextmanager
def _client(node: WebNode) -> Iterator[TestClient]:
    with TestClient(node.app(), base_url=BASE, raise_server_exceptions=False) as client:
        yield client


@contextmanager
def _inferring(look: Callable[[], None]) -> Iterator[None]:
    ticker = Ticker("infer", 0.02, look)
    ticker.start()
    try:
        yield
    finally:
        ticker.stop()


def _node(folder: Path, **predict: object) -> WebNode:
    logs.configure(role="web", strict=True)
    return WebNode.create(folder, predict=predict)


def _left(node: WebNode) -> list[str]:
    return predictions.files(node.spool.root / "predictions")


def _open(node: WebNode) -> int:
    return len(PredictionQueue(node.ledger.engine).open_rows())


@pytest.mark.parametrize("is_packed", [True, False])
def test_a_file_is_answered_and_leaves_nothing(
    node: WebNode, client: TestClient, capsys: pytest.CaptureFixture[str], *, is_packed: bool
) -> None:
    logs.configure(role="web", strict=True)
    content = packed() if is_packed else gzip.decompress(packed())
    with _inferring(InstantInfer(node).look):
        answer = client.post(URL, **form(content))
    assert (answer.status_code, answer.content) == (200, content)
    assert answer.headers["content-type"] == "application/gzip"
    assert answer.headers["content-disposition"] == 'attachment; filename="labels.nii.gz"'
    assert answer.headers["neuroseg-notes"] == "INPUT_MISSING"
    assert answer.headers["neuroseg-model"] == "m@1"
    assert answer.headers["cache-control"] == "no-store"
    assert _left(node) == []
    assert _open(node) == 0
    assert "DOE" not in capsys.readouterr().out


def test_a_client_that_does_not_wait_asks_later(node: WebNode, client: TestClient) -> None:
    infer = InstantInfer(node)
    first = client.post(URL, **form(packed()), headers={"prefer": "wait=5, Respond-Async"})
    second = client.post(URL, **form(packed()), headers=ASYNC)
    assert first.status_code == 202
    assert first.headers["preference-applied"] == "respond-async"
    assert first.headers["retry-after"]
    url = second.headers["location"]
    body = client.get(url).json()
    assert body == second.json()
    assert (body["state"], body["position"], body["labels_url"]) == ("queued", 2, None)
    assert client.get(f"{url}/labels.nii.gz").json()["code"] == "PREDICTION_NOT_DONE"
    infer.look()
    body = client.get(url).json()
    assert (body["state"], body["position"], body["problem"]) == ("done", 0, None)
    assert body["notes"] == list(predictions.NOTES)
    assert body["kept_until"] > body["ended_at"] >= body["started_at"] >= body["submitted_at"]
    labels = client.get(body["labels_url"])
    assert labels.content == packed()
    assert labels.headers["neuroseg-notes"] == "INPUT_MISSING"
    assert client.delete(url).status_code == 204
    assert client.get(url).json()["code"] == "PREDICTION_UNKNOWN"
    assert client.delete(first.headers["location"]).status_code == 204
    assert _left(node) == []


def test_one_that_waits_can_be_cancelled(node: WebNode, client: TestClient) -> None:
    infer = InstantInfer(node)
    url = client.post(URL, **form(packed()), headers=ASYNC).headers["location"]
    assert client.delete(url).status_code == 204
    assert client.get(url).json()["state"] == "cancelled"
    assert infer.take() is None
    assert _left(node) == []


@pytest.mark.parametrize("headers", [{}, ASYNC])
def test_a_failure_is_answered_as_it_was_recorded(
    node: WebNode, client: TestClient, headers: dict[str, str]
) -> None:
    infer = InstantInfer(node)
    with _inferring(infer.refuse):
        answer = client.post(URL, **form(packed()), headers=headers)
        if headers:
            url = answer.headers["location"]
            wait_until(lambda: client.get(url).json()["state"] == "failed", 10.0, "the failure")
            problem = client.get(url).json()["problem"]
        else:
            assert answer.status_code == 422
            assert answer.headers["content-type"] == "application/problem+json"
            problem = answer.json()
    assert (problem["code"], problem["status"]) == ("BRAIN_NOT_FOUND", 422)
    assert (problem["detail"], problem["advice"]) == ("3 mL look like brain", "Check.")


@pytest.mark.parametrize(
    ("values", "code", "detail"),
    [
        (np.zeros((5, 6, 7)), "NIFTI_CHANNELS", "3 dimensions"),
        (np.zeros((5, 6, 7, 3)), "NIFTI_CHANNELS", "3 channels"),
        (np.full((5, 6, 7, 4), np.nan), "NIFTI_UNUSABLE", "not finite"),
        (np.zeros((50, 60, 70, 4)), "NIFTI_UNUSABLE", "840000 values"),
        (np.zeros((5, 6, 7, 4), complex), "NIFTI_UNUSABLE", "not real numbers"),
    ],
)
@pytest.mark.parametrize("headers", [{}, ASYNC])
def test_a_file_that_cannot_be_used_never_reaches_the_queue(
    tmp_path: Path, values: NDArray[np.float64], code: str, detail: str, headers: dict[str, str]
) -> None:
    node = _node(tmp_path, max_values=100_000)
    InstantInfer(node)
    with _client(node) as client:
        answer = client.post(URL, **form(packed(values)), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert detail in answer.json()["detail"]
    assert (_left(node), _open(node)) == ([], 0)


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        ({"content": packed()}, 415, "UPLOAD_TYPE"),
        ({"data": {"file": "text"}}, 415, "UPLOAD_TYPE"),
        ({"files": {"image": packed()}}, 400, "UPLOAD_INVALID"),
        ({"files": {"file": b""}}, 400, "UPLOAD_INVALID"),
        ({"files": [("file", packed()), ("file", packed())]}, 400, "UPLOAD_INVALID"),
        ({"files": {"file": packed()[:-20]}}, 422, "NIFTI_UNUSABLE"),
        ({"files": {"file": b"no image"}}, 422, "NIFTI_UNUSABLE"),
        ({"files": {"file": bytes(10_001)}}, 413, "UPLOAD_TOO_LARGE"),
        ({"files": {"file": bytes(200_000)}}, 413, "UPLOAD_TOO_LARGE"),
    ],
)
def test_an_upload_that_cannot_be_taken_is_refused(
    tmp_path: Path, arguments: dict[str, Any], status: int, code: str
) -> None:
    node = _node(tmp_path, max_upload_bytes=10_000)
    InstantInfer(node)
    with _client(node) as client:
        answer = client.post(URL, **arguments)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["status"] == status
    assert (_left(node), _open(node)) == ([], 0)


def test_a_body_of_unknown_length_is_cut_at_the_limit(tmp_path: Path) -> None:
    node = _node(tmp_path, max_upload_bytes=10_000)
    InstantInfer(node)
    body, headers = multipart_body(bytes(10**7))
    seen = 0

    def pieces() -> Iterator[bytes]:
        nonlocal seen
        for at in range(0, len(body), 10_000):
            seen += 10_000
            yield body[at : at + 10_000]

    with _client(node) as client:
        answer = client.post(URL, content=pieces(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "UPLOAD_TOO_LARGE")
    assert _left(node) == []


def test_without_a_model_nothing_is_taken(node: WebNode, client: TestClient) -> None:
    answer = client.post(URL, **form(packed()))
    assert (answer.status_code, answer.json()["code"]) == (503, "NODE_NOT_READY")
    assert answer.headers["retry-after"]
    assert answer.json()["detail"] == "not ready: infer, model missing"
    node.beat("infer", weights_sha256="0" * 64)
    assert client.post(URL, **form(packed())).json()["detail"] == "not ready: model missing"
    assert (_left(node), _open(node)) == ([], 0)


def test_a_full_disk_takes_nothing(node: WebNode) -> None:
    InstantInfer(node)
    node.spool.free_floor_bytes = 2**62
    with _client(node) as client:
        answer = client.post(URL, **form(packed()))
    assert (answer.status_code, answer.json()["code"]) == (507, "SPOOL_FULL")
    assert (_left(node), _open(node)) == ([], 0)


def test_a_full_queue_says_when_to_try_again(tmp_path: Path) -> None:
    node = _node(tmp_path, max_waiting=2)
    InstantInfer(node)
    with _client(node) as client:
        for _ in range(2):
            assert client.post(URL, **form(packed()), headers=ASYNC).status_code == 202
        answer = client.post(URL, **form(packed()))
    assert (answer.status_code, answer.json()["code"]) == (503, "PREDICTION_QUEUE_FULL")
    assert answer.headers["retry-after"]


def test_patience_ends(tmp_path: Path) -> None:
    node = _node(tmp_path, patience_s=0.5)
    InstantInfer(node)
    with _client(node) as client:
        answer = client.post(URL, **form(packed()))
    assert (answer.status_code, answer.json()["code"]) == (504, "PREDICTION_LATE")
    assert "respond-async" in answer.json()["advice"]
    assert (_left(node), _open(node)) == ([], 0)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:8081"},
        {"origin": "file://127.0.0.1:8080"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": BASE},
    ],
)
def test_a_page_of_another_site_can_send_and_delete_nothing(
    node: WebNode, client: TestClient, headers: dict[str, str]
) -> None:
    InstantInfer(node)
    url = client.post(URL, **form(packed()), headers=ASYNC).headers["location"]
    for answer in (
        client.post(URL, **form(packed()), headers=headers),
        client.delete(url, headers=headers),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "CROSS_SITE_REFUSED")
    assert client.get(url, headers=headers).status_code == 200
    own = {"origin": BASE, "sec-fetch-site": "same-origin"}
    assert client.delete(url, headers=own).status_code == 204


@pytest.mark.parametrize("name", ["0" * 32, "x", "A" * 32, "..%2f..%2fledger.sqlite", "%00"])
def test_a_hostile_id_finds_nothing(empty_client: TestClient, name: str) -> None:
    for answer in (
        empty_client.get(f"/api/v1/predictions/{name}"),
        empty_client.delete(f"/api/v1/predictions/{name}"),
        empty_client.get(f"/api/v1/predictions/{name}/labels.nii.gz"),
    ):
        assert answer.status_code == 404
        assert answer.json()["code"] in {"PREDICTION_UNKNOWN", "RESOURCE_UNKNOWN"}


def test_a_prediction_that_is_waited_for_belongs_to_its_request(node: WebNode) -> None:
    infer = InstantInfer(node)
    with _client(node) as client, ThreadPoolExecutor(1) as pool:
        pending = pool.submit(client.post, URL, **form(packed()))
        wait_until(infer.queue.has_queued, 10.0, "the upload")
        (row,) = infer.queue.open_rows()
        url = f"/api/v1/predictions/{row.prediction_id}"
        with _client(node) as other:
            assert other.get(url).status_code == 404
            assert other.delete(url).status_code == 404
        infer.look()
        assert pending.result(10).status_code == 200


def test_many_at_once_are_answered_in_their_order(node: WebNode) -> None:
    infer, order = InstantInfer(node), list[int]()
    lock = threading.Lock()
    contents = [packed(np.full((5, 6, 7, 4), number, np.int16)) for number in range(12)]

    def send(number: int) -> None:
        with _client(node) as client:
            answer = client.post(URL, **form(contents[number]))
            assert answer.content == contents[number]
        with lock:
            order.append(number)

    threads = []
    for number in range(12):
        threads.append(threading.Thread(target=send, args=(number,)))
        threads[-1].start()
        wait_until(lambda: _open(node) == len(threads) and _queued(node) == len(threads), 10.0, "")
    for number in range(12):
        row = infer.take()
        assert row is not None
        assert infer.answer(row)
        wait_until(lambda: len(order) == number + 1, 10.0, "the answer")  # noqa: B023
    for thread in threads:
        thread.join(10)
    assert order == list(range(12))
    assert _left(node) == []


def _queued(node: WebNode) -> int:
    rows = PredictionQueue(node.ledger.engine).open_rows()
    return sum(row.state == "queued" for row in rows)


# -- clients that go away or dawdle, spoken to by hand --------------------------------------------


class _Connection:
    """One request to an application, message by message."""

    def __init__(self, node: WebNode, *, headers: dict[str, str] | None = None) -> None:
        self._app = node.app()
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.sent: list[Message] = []
        given = {"host": "127.0.0.1", **(headers or multipart_body(b"")[1])}
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": URL,
            "raw_path": URL.encode(),
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "http_version": "1.1",
            "scheme": "http",
            "server": ("127.0.0.1", 8080),
            "asgi": {"version": "3.0", "spec_version": "2.3"},
        }

    def put(self, body: bytes, *, more_body: bool = True) -> None:
        self._incoming.put_nowait({"type": "http.request", "body": body, "more_body": more_body})

    def hang_up(self) -> None:
        self._incoming.put_nowait({"type": "http.disconnect"})

    async def run(self) -> None:
        async def send(message: Message) -> None:
            self.sent.append(message)

        await self._app(self.scope, self._incoming.get, send)

    @property
    def problem(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(b"".join(one.get("body", b"") for one in self.sent))
        return body


def test_a_client_that_goes_away_in_its_upload_leaves_nothing(node: WebNode) -> None:
    InstantInfer(node)
    body, _ = multipart_body(packed())

    async def story() -> None:
        connection = _Connection(node)
        connection.put(body[: len(body) // 2])
        connection.hang_up()
        await connection.run()

    asyncio.run(story())
    assert (_left(node), _open(node)) == ([], 0)


def test_a_client_that_goes_away_while_it_waits_leaves_nothing(node: WebNode) -> None:
    infer = InstantInfer(node)
    body, _ = multipart_body(packed())

    async def story() -> None:
        connection = _Connection(node)
        connection.put(body, more_body=False)
        running = asyncio.create_task(connection.run())
        await asyncio.to_thread(wait_until, infer.queue.has_queued, 10.0, "the upload")
        row = await asyncio.to_thread(infer.take)
        assert row is not None
        assert await asyncio.to_thread(infer.queue.note_progress, row, 1, 9)
        connection.hang_up()
        await running
        assert not await asyncio.to_thread(infer.queue.note_progress, row, 2, 9)

    asyncio.run(story())
    assert (_left(node), _open(node)) == ([], 0)


def test_a_request_that_is_cancelled_with_its_process_leaves_nothing(node: WebNode) -> None:
    infer = InstantInfer(node)
    body, _ = multipart_body(packed())

    async def story() -> None:
        connection = _Connection(node)
        connection.put(body, more_body=False)
        running = asyncio.create_task(connection.run())
        await asyncio.to_thread(wait_until, infer.queue.has_queued, 10.0, "the upload")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(story())
    assert (_left(node), _open(node)) == ([], 0)


def test_an_upload_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    node = _node(tmp_path, silence_s=0.2)
    InstantInfer(node)
    body, _ = multipart_body(packed())

    async def story() -> dict[str, Any]:
        connection = _Connection(node)
        connection.put(body[: len(body) // 2])
        await connection.run()
        return connection.problem

    problem = asyncio.run(story())
    assert (problem["status"], problem["code"]) == (408, "UPLOAD_SLOW")
    assert (_left(node), _open(node)) == ([], 0)


@pytest.mark.parametrize(
    ("silence_s", "patience_s", "words"), [(5.0, 0.3, "not whole"), (0.3, 60.0, "nearly silent")]
)
def test_an_upload_that_trickles_for_ever_is_given_up(
    tmp_path: Path, silence_s: float, patience_s: float, words: str
) -> None:
    node = _node(tmp_path, silence_s=silence_s, patience_s=patience_s)
    InstantInfer(node)

    async def story() -> dict[str, Any]:
        connection = _Connection(node)
        running = asyncio.create_task(connection.run())
        while not running.done():
            connection.put(b"x")
            await asyncio.sleep(0.02)
            if connection.sent:
                connection.put(b"", more_body=False)
        await running
        return connection.problem

    problem = asyncio.run(story())
    assert (problem["status"], problem["code"]) == (408, "UPLOAD_SLOW")
    assert words in problem["detail"]
    assert (_left(node), _open(node)) == ([], 0)


def test_a_client_that_asks_first_is_not_told_to_send_what_is_refused(node: WebNode) -> None:
    async def story() -> dict[str, Any]:
        headers = {**multipart_body(b"")[1], "expect": "100-continue"}
        connection = _Connection(node, headers=headers)
        await connection.run()  # nothing was put: reading would wait for ever
        return connection.problem

    assert asyncio.run(asyncio.wait_for(story(), 5))["code"] == "NODE_NOT_READY"


def test_a_short_health_is_as_plain_serving_code_gives_it(
    node: WebNode, client: TestClient
) -> None:
    assert client.get("/health").json() == {
        "status": "degraded",
        "model_loaded": False,
        "device": "unknown",
    }
    node.beat("receive", "work", "infer")
    body = client.get("/health").json()
    assert body == {"status": "healthy", "model_loaded": True, "device": "cpu"}


def test_the_page_says_what_is_computed_and_what_waits(node: WebNode, client: TestClient) -> None:
    infer = InstantInfer(node)
    assert "Uploaded files" not in client.get("/").text
    for _ in range(3):
        client.post(URL, **form(packed()), headers=ASYNC)
    row = infer.take()
    assert row is not None
    infer.queue.note_progress(row, 3, 8)
    page = client.get("/").text
    assert "one is computed, 3 of 8 windows done; 2 wait." in page
