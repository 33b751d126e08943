"""STOW-RS: what is stored, what is refused and why, and nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)
from starlette.testclient import TestClient

from node import logs
from node.cases import CaseState
from node.errors import LedgerUnavailableError, SpoolUnwritableError
from tests import stow_requests
from tests.doors import encoded, make_instance, take_in
from tests.stow_requests import CONTENT_TYPE, FAILED, OTHER, REFERENCED, part10, reasons, uids
from tests.web_cases import WebNode

URL = "/dicom-web/studies"
BASE = "http://127.0.0.1:8080"
HEADERS = {"content-type": CONTENT_TYPE, "accept": "application/dicom+json"}


def _post(client: TestClient, *files: bytes, url: str = URL) -> httpx.Response:
    answer: httpx.Response = client.post(url, content=stow_requests.body(files), headers=HEADERS)
    return answer


def _files(node: WebNode) -> list[Path]:
    return list((node.spool.root / "instances").rglob("*.dcm"))


def _parts(node: WebNode) -> list[str]:
    return [one.name for one in (node.spool.root / "incoming").iterdir()]


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[tuple[WebNode, TestClient]]:
    """Yield a node with small limits."""
    stow = {"max_requests": 1, "max_request_bytes": 20_000, "silence_s": 0.3, "patience_s": 5.0}
    logs.configure(role="web", strict=True)
    made = WebNode.create(tmp_path, stow=stow, receive={"max_instance_bytes": 4000})
    with TestClient(made.app(), base_url=BASE) as client:
        yield made, client
    made.ledger.close()


def test_what_is_sent_is_stored_byte_for_byte_and_opens_a_case(
    node: WebNode, client: TestClient
) -> None:
    study = generate_uid()
    sent = [make_instance(StudyInstanceUID=study) for _ in range(3)]
    answer = _post(client, *map(part10, sent))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/dicom+json"
    assert uids(answer.json(), REFERENCED) == [one.SOPInstanceUID for one in sent]
    assert answer.json()["00081190"] == {"vr": "UR"}
    assert FAILED not in answer.json()
    (case,) = node.ledger.cases()
    assert (case.study_instance_uid, case.state) == (study, CaseState.RECEIVING)
    for ds in sent:
        row = next(
            one
            for one in node.ledger.study_instances(study)
            if one.sop_instance_uid == ds.SOPInstanceUID
        )
        assert node.spool.instance_path(row.path).read_bytes().endswith(encoded(ds))
        assert row.calling_ae_title == "STOW-RS"
    assert _parts(node) == []


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_every_transfer_syntax_is_stored_as_it_comes(
    node: WebNode, client: TestClient, syntax: str
) -> None:
    ds = make_instance()
    if syntax == ExplicitVRBigEndian:
        del ds[0x00291001], ds[0x00290010]
    ds.file_meta = None  # type: ignore[assignment]
    content = part10(ds, syntax)
    assert _post(client, content).status_code == 200
    (row,) = node.ledger.study_instances(ds.StudyInstanceUID)
    assert row.transfer_syntax_uid == syntax
    assert content.endswith(node.spool.instance_path(row.path).read_bytes()[-row.byte_count :])


def test_what_came_by_c_store_is_known_here_and_said_to_be(
    node: WebNode, client: TestClient
) -> None:
    ds = make_instance()
    take_in(node.intake(), ds)
    answer = _post(client, part10(ds), part10(make_instance()))
    assert answer.status_code == 200
    known, new = answer.json()[REFERENCED]["Value"]
    assert known["00091001"]["Value"][0].startswith("INSTANCE_KNOWN")
    assert "00091001" not in new
    assert len(_files(node)) == 2


def test_other_content_of_a_known_instance_is_a_conflict_and_the_first_stays(
    node: WebNode, client: TestClient
) -> None:
    ds = make_instance()
    assert _post(client, part10(ds)).status_code == 200
    (before,) = _files(node)
    ds.PatientID = "OTHER"
    answer = _post(client, part10(ds))
    assert answer.status_code == 409
    assert reasons(answer.json(), FAILED) == [(0xC111, "INSTANCE_CONFLICT")]
    assert _files(node) == [before]


def _broken_meta(ds: Dataset, **changes: str) -> bytes:
    content = part10(ds)
    for keyword, value in changes.items():
        old = str(ds.file_meta[keyword].value).encode()
        content = content.replace(old, value.encode().ljust(len(old), b"\0")[: len(old)], 1)
    return content


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda ds: part10(ds)[:-9], (0xC000, "INSTANCE_UNREADABLE")),
        (
            lambda ds: _broken_meta(ds, MediaStorageSOPInstanceUID="1.2.3"),
            (0xA900, "INSTANCE_MISMATCH"),
        ),
        (
            lambda ds: _broken_meta(ds, TransferSyntaxUID="1.2.840.10008.9.9.9"),
            (0xC122, "TRANSFER_SYNTAX_UNSUPPORTED"),
        ),
        (
            lambda ds: _broken_meta(ds, MediaStorageSOPClassUID="1.2.840.10008.1.1"),
            (0x0122, "SOP_CLASS_UNSUPPORTED"),
        ),
    ],
)
def test_a_bad_instance_is_refused_with_its_reason_and_the_others_are_stored(
    node: WebNode,
    client: TestClient,
    make: Callable[[Dataset], bytes],
    reason: tuple[int, str],
) -> None:
    good = make_instance(), make_instance()
    answer = _post(client, part10(good[0]), make(make_instance()), part10(good[1]))
    assert answer.status_code == 202
    assert uids(answer.json(), REFERENCED) == [one.SOPInstanceUID for one in good]
    assert reasons(answer.json(), FAILED) == [reason]
    assert len(_files(node)) == 2
    assert _parts(node) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no DICOM at all",
        bytes(128) + b"DICM",
        bytes(128) + b"DICX" + bytes(100),
        bytes(128) + b"DICM" + b"\2\0\0\0UL\4\0\xff\xff\xff\x7f" + bytes(100),
        bytes(128) + b"DICM" + b"\2\0\0\0UL\4\0\x08\0\0\0" + b"\2\0\x10\0UI\xff\xff",
        bytes(128) + b"DICM" + b"\2\0\0\0UL\4\0\x0e\0\0\0" + b"\2\0\x01\0OB\0\0\2\0\0\0\0\1",
    ],
)
def test_what_is_no_dicom_file_is_told_without_an_instance(
    node: WebNode, client: TestClient, content: bytes
) -> None:
    answer = _post(client, content)
    assert answer.status_code == 409
    assert FAILED not in answer.json()
    assert reasons(answer.json(), OTHER) == [(0xC000, "INSTANCE_UNREADABLE")]
    assert _files(node) == []


def test_a_part_of_another_type_is_refused(client: TestClient) -> None:
    body = stow_requests.body([part10(make_instance())], "application/pdf")
    answer = client.post(URL, content=body, headers=HEADERS)
    assert answer.status_code == 409
    assert reasons(answer.json(), OTHER) == [(0xC000, "INSTANCE_UNREADABLE")]


def test_only_instances_of_the_study_in_the_address_are_taken(
    node: WebNode, client: TestClient
) -> None:
    mine, other = make_instance(), make_instance()
    url = f"{URL}/{mine.StudyInstanceUID}"
    answer = _post(client, part10(mine), part10(other), url=url)
    assert answer.status_code == 202
    assert uids(answer.json(), FAILED) == [other.SOPInstanceUID]
    assert reasons(answer.json(), FAILED) == [(0xA900, "INSTANCE_MISMATCH")]
    assert [one.study_instance_uid for one in node.ledger.cases()] == [mine.StudyInstanceUID]
    assert _post(client, part10(mine), url=f"{URL}/not-a-uid").status_code == 400


def test_a_boundary_as_long_as_orthancs_is_taken(client: TestClient) -> None:
    boundary = "e5ab" * 18 + "9"  # RFC 2046 allows 70 characters
    body = stow_requests.body([part10(make_instance())]).replace(
        stow_requests.BOUNDARY.encode(), boundary.encode()
    )
    kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
    assert client.post(URL, content=body, headers={"content-type": kind}).status_code == 200


def test_a_sender_that_is_through_is_noted(node: WebNode, client: TestClient) -> None:
    _post(client, part10(make_instance()))
    (case,) = node.ledger.cases()
    assert case.released_at is not None


@pytest.mark.parametrize(
    ("content_type", "status", "code"),
    [
        ("application/dicom", 415, "STOW_TYPE"),
        ("multipart/form-data; boundary=frontier-7", 415, "STOW_TYPE"),
        ("multipart/related; type=application/dicom", 415, "STOW_TYPE"),
        ('multipart/related; type="image/png"; boundary=frontier-7', 415, "STOW_TYPE"),
        ('multipart/related; type="application/dicom"; boundary=another', 400, "STOW_INVALID"),
    ],
)
def test_another_body_is_refused(
    client: TestClient, content_type: str, status: int, code: str
) -> None:
    body = stow_requests.body([part10(make_instance())])
    answer = client.post(URL, content=body, headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_body_that_is_cut_off_keeps_what_was_whole(node: WebNode, client: TestClient) -> None:
    body = stow_requests.body([part10(make_instance()), part10(make_instance())])
    answer = client.post(URL, content=body[:-500], headers=HEADERS)
    assert (answer.status_code, answer.json()["code"]) == (400, "STOW_INVALID")
    assert len(_files(node)) == 1
    assert _parts(node) == []
    empty = client.post(URL, content=b"--frontier-7--\r\n", headers=HEADERS)
    assert empty.status_code == 400


def test_too_large_an_instance_is_refused_and_too_large_a_request_is_ended(
    limited: tuple[WebNode, TestClient],
) -> None:
    node, client = limited
    large = make_instance(PixelData=bytes(5000))
    answer = _post(client, part10(large), part10(make_instance()))
    assert answer.status_code == 202
    assert reasons(answer.json(), FAILED) == [(0xA700, "INSTANCE_TOO_LARGE")]
    many = [part10(make_instance()) for _ in range(10)]
    refused = _post(client, *many)
    assert (refused.status_code, refused.json()["code"]) == (413, "STOW_TOO_LARGE")
    body = stow_requests.body(many)

    def chunks() -> Iterator[bytes]:
        yield from (body[at : at + 999] for at in range(0, len(body), 999))

    refused = client.post(URL, content=chunks(), headers=HEADERS)  # chunked: no length is said
    assert refused.status_code == 413
    assert _parts(node) == []


def test_without_room_nothing_is_taken(node: WebNode, client: TestClient) -> None:
    node.spool.free_floor_bytes = 2**60
    answer = _post(client, part10(make_instance()))
    assert (answer.status_code, answer.json()["code"]) == (507, "SPOOL_FULL")
    assert _files(node) == []


@pytest.mark.parametrize(
    ("error", "status"),
    [(SpoolUnwritableError(reason="x"), 503), (LedgerUnavailableError(kind="x"), 503)],
)
def test_a_failure_that_passes_says_when_to_try_again(
    client: TestClient,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("node.receive.commit.GroupCommit.keep", refuse)
    answer = _post(client, part10(make_instance()))
    assert answer.status_code == status
    assert answer.headers["retry-after"]
    assert [code for code, _ in reasons(answer.json(), FAILED)] == [0xA700]


def test_one_request_too_many_is_put_off(limited: tuple[WebNode, TestClient]) -> None:
    node, _ = limited

    async def two_at_once() -> list[httpx.Response]:
        is_taken = asyncio.Event()
        whole = stow_requests.body([part10(make_instance())])

        async def slowly() -> AsyncIterator[bytes]:
            yield whole[:100]
            is_taken.set()
            await asyncio.sleep(0.1)
            yield whole[100:]

        transport = httpx.ASGITransport(app=node.app())
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
            first = asyncio.create_task(client.post(URL, content=slowly(), headers=HEADERS))
            await is_taken.wait()
            second = await client.post(URL, content=whole, headers=HEADERS)
            return [await first, second]

    first, second = asyncio.run(two_at_once())
    assert first.status_code == 200
    assert (second.status_code, second.json()["code"]) == (429, "STOW_BUSY")
    assert second.headers["retry-after"]


def test_a_silent_sender_is_given_up(limited: tuple[WebNode, TestClient]) -> None:
    node, _ = limited

    async def stalling() -> httpx.Response:
        async def content() -> AsyncIterator[bytes]:
            yield stow_requests.body([part10(make_instance())])[:900]
            await asyncio.sleep(30.0)

        transport = httpx.ASGITransport(app=node.app())
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
            return await client.post(URL, content=content(), headers=HEADERS)

    answer = asyncio.run(stalling())
    assert (answer.status_code, answer.json()["code"]) == (408, "UPLOAD_SLOW")
    assert _parts(node) == []


def test_a_page_of_another_site_stores_nothing(node: WebNode, client: TestClient) -> None:
    body = stow_requests.body([part10(make_instance())])
    answer = client.post(URL, content=body, headers={**HEADERS, "origin": "http://evil.example"})
    assert answer.status_code == 403
    assert _files(node) == []


def test_the_door_can_be_shut(tmp_path: Path) -> None:
    made = WebNode.create(tmp_path, stow={"enabled": False})
    with TestClient(made.app(), base_url=BASE) as client:
        assert _post(client, part10(make_instance())).status_code == 404
    made.ledger.close()


def test_nothing_of_the_patient_is_logged(
    client: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(role="web", strict=True)  # to what the test captures
    ds = make_instance(PatientName="Secret^Sam", PatientID="SECRET-7")
    _post(client, part10(ds), part10(ds)[:-9], b"Secret^Sam")
    said = capsys.readouterr().out
    assert "stow.finished" in said
    assert "instance.refused" in said
    for text in ("Secret", "SECRET", ds.SOPInstanceUID, ds.StudyInstanceUID):
        assert text not in said
