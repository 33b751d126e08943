"""STOW-RS as metadata and bulk data."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from pydicom.dataset import Dataset
from starlette.testclient import TestClient

from tests.doors import make_instance
from tests.stow_requests import BOUNDARY, FAILED, OTHER, REFERENCED, part10, reasons, uids
from tests.web_cases import WebNode

URL = "/dicom-web/studies"
HEADERS = {
    "content-type": f'multipart/related; type="application/dicom+json"; boundary={BOUNDARY}',
}
OCTETS = "application/octet-stream"


def _part(content: bytes, kind: str, location: str = "") -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Type: {kind}\r\n"
    if location:
        head += f"Content-Location: {location}\r\n"
    return head.encode() + b"\r\n" + content + b"\r\n"


def _body(metadata: object, bulk: dict[str, bytes], kind: str = OCTETS) -> bytes:
    text = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
    parts = [_part(text, "application/dicom+json")]
    parts += [_part(content, kind, location) for location, content in bulk.items()]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def _described(ds: Dataset) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return a data set as metadata, and its pixels under the address that stands there."""
    location = f"bulk/{ds.SOPInstanceUID}"
    item = ds.to_json_dict(bulk_data_threshold=200, bulk_data_element_handler=lambda _: location)
    assert item["7FE00010"]["BulkDataURI"] == location
    return item, {location: ds.PixelData}


def _post(client: TestClient, body: bytes, url: str = URL) -> httpx.Response:
    answer: httpx.Response = client.post(url, content=body, headers=HEADERS)
    return answer


def _left(node: WebNode) -> list[Path]:
    return list((node.spool.root / "incoming").iterdir())


def test_metadata_and_bulk_data_become_an_instance(node: WebNode, client: TestClient) -> None:
    ds = make_instance(PatientName="Müller^Jürgen", SpecificCharacterSet="ISO_IR 192")
    item, bulk = _described(ds)
    answer = _post(client, _body([item], bulk))
    assert answer.status_code == 200
    assert uids(answer.json(), REFERENCED) == [ds.SOPInstanceUID]
    (row,) = node.ledger.study_instances(ds.StudyInstanceUID)
    sent = pydicom.dcmread(io.BytesIO(part10(ds)))
    assert pydicom.dcmread(node.spool.instance_path(row.path)) == sent
    assert _left(node) == []
    again = _post(client, _body([item], bulk))
    assert "00091001" in again.json()[REFERENCED]["Value"][0]


def test_each_instance_has_its_own_outcome(node: WebNode, client: TestClient) -> None:
    sent = [make_instance() for _ in range(5)]
    items, parts = zip(*map(_described, sent), strict=True)
    bulk = {key: value for one in parts for key, value in one.items()}
    del bulk[f"bulk/{sent[1].SOPInstanceUID}"]
    items[2]["00020010"] = {"vr": "UI", "Value": ["1.2.840.10008.1.2.4.50"]}
    items[3]["7FE00010"]["BulkDataURI"] = f"bulk/{sent[0].SOPInstanceUID}"  # used before
    del items[4]["00080018"]
    answer = _post(client, _body([*items, "no data set", {"00100010": {}}], bulk))
    assert answer.status_code == 202
    assert uids(answer.json(), REFERENCED) == [sent[0].SOPInstanceUID]
    assert FAILED not in answer.json()  # which instances they are was not read yet
    assert reasons(answer.json(), OTHER) == [
        (0xC000, "INSTANCE_UNREADABLE"),
        (0xC122, "TRANSFER_SYNTAX_UNSUPPORTED"),
        *[(0xC000, "INSTANCE_UNREADABLE")] * 4,
    ]
    assert _left(node) == []


def test_compressed_bulk_data_is_not_taken(client: TestClient) -> None:
    item, bulk = _described(make_instance())
    answer = _post(client, _body([item], bulk, "image/jp2"))
    assert answer.status_code == 409
    assert reasons(answer.json(), OTHER) == [(0xC000, "INSTANCE_UNREADABLE")]


def test_an_instance_of_another_study_than_the_address_names_is_refused(
    node: WebNode, client: TestClient
) -> None:
    item, bulk = _described(make_instance())
    answer = _post(client, _body([item], bulk), f"{URL}/1.2.3")
    assert answer.status_code == 409
    assert reasons(answer.json(), FAILED) == [(0xA900, "INSTANCE_MISMATCH")]
    assert node.ledger.cases() == []


@pytest.mark.parametrize("metadata", [b"", b"[", b"{}", b"7", b"[" * 100_000, b"\xff"])
def test_metadata_that_is_no_list_of_data_sets_is_refused(
    node: WebNode, client: TestClient, metadata: bytes
) -> None:
    answer = _post(client, _body(metadata, {"x": b"bulk"}))
    assert (answer.status_code, answer.json()["code"]) == (400, "STOW_INVALID")
    assert _left(node) == []


def test_odd_values_are_refused_and_nothing_crashes(client: TestClient) -> None:
    item, _ = _described(make_instance())
    values: tuple[object, ...] = (
        {"vr": "US", "Value": ["x"]},
        {"vr": "US", "Value": [10**9]},
        {"vr": "SQ", "Value": [7]},
        {"vr": "OW", "InlineBinary": 7},
        {"vr": "OW", "BulkDataURI": {}},
        {"vr": "ZZ", "Value": ["x"]},
        {"Value": ["x"]},
        [],
        None,
    )
    for odd in values:
        answer = _post(client, _body([{**item, "7FE00010": odd}], {}))
        assert answer.status_code == 409, odd
