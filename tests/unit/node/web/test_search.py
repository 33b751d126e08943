"""Searching by the numbers of patients and orders: for operators, and without a trace of them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from starlette.testclient import TestClient

from node.audit import FILE_NAME
from tests.unit.node.web.conftest import BASE
from tests.web_cases import MR_IMAGE_STORAGE, WebNode

OPERATOR, VIEWER, MACHINE = "o" * 24, "v" * 24, "m" * 24
TOKENS = f"operator anna {OPERATOR}\nviewer bert {VIEWER}\nmachine pacs {MACHINE}"


def write_images(node: WebNode, study: str, *, patient: str, accession: str) -> None:
    """Write the headers of a study's instances to where the ledger says that they lie."""
    for one in node.ledger.study_instances(study):
        ds = Dataset()
        ds.SpecificCharacterSet = "ISO_IR 192"
        ds.SOPClassUID, ds.SOPInstanceUID = MR_IMAGE_STORAGE, one.sop_instance_uid
        ds.AccessionNumber, ds.PatientID = accession, patient
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = node.spool.instance_path(one.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        ds.save_as(path, enforce_file_format=True)


def fill(node: WebNode) -> list[str]:
    found = [node.receive(study) for study in ("1.2.1", "1.2.2", "1.2.3")]
    write_images(node, "1.2.1", patient="P-Ä1", accession="A100")
    write_images(node, "1.2.2", patient="P-2", accession="")
    return found  # of the third there is no file


def search(client: TestClient, number: object, token: str = "") -> tuple[int, list[str]]:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    answer = client.post("/api/v1/search", json={"number": number}, headers=headers)
    return answer.status_code, [one["case_id"] for one in answer.json().get("cases", [])]


def test_a_case_is_found_by_its_patient_or_its_order(node: WebNode, client: TestClient) -> None:
    first, second, _ = fill(node)
    assert search(client, "A100") == (200, [first])
    assert search(client, " p-ä1 ") == (200, [first])
    assert search(client, "P-2") == (200, [second])
    for nobody in ("A10", "P-", "A1000", "%", "1.2.1"):
        assert search(client, nobody) == (200, [])


@pytest.mark.parametrize("number", ["", "  ", "x" * 65, 7, None, ["A100"]])
def test_what_is_no_number_is_refused(client: TestClient, number: object) -> None:
    assert search(client, number)[0] == 400


def test_the_page_shows_what_was_found_and_does_not_say_what_was_searched(
    node: WebNode, client: TestClient
) -> None:
    first, second, _ = fill(node)
    page = client.post("/search", data={"number": "A100"})
    assert page.url.path == "/search"
    assert not page.url.query
    assert "1 case with this number" in page.text
    assert first in page.text
    assert second not in page.text
    assert "A100" not in page.text
    assert "refresh" not in page.text.partition("<main")[0]  # it would load the list instead
    assert "No cases with this number" in client.post("/search", data={"number": "B"}).text
    assert client.post("/search", data={"number": " "}).url.path == "/"


def test_only_operators_search_and_nothing_of_it_stands_anywhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    node = WebNode.create(tmp_path, web={"tokens": TOKENS})
    first, *_ = fill(node)
    with TestClient(node.app(), base_url=BASE) as client:
        assert search(client, "A100", OPERATOR) == (200, [first])
        for token, status in ((VIEWER, 403), (MACHINE, 403), ("", 401)):
            assert search(client, "A100", token) == (status, [])
            headers = {"authorization": f"Bearer {token}"}
            answer = client.post("/search", data={"number": "A100"}, headers=headers)
            assert answer.status_code == status
        for token, is_offered in ((OPERATOR, True), (VIEWER, False)):
            page = client.get("/", headers={"authorization": f"Bearer {token}"}).text
            assert ('action="/search"' in page) is is_offered
            assert "P-Ä1" not in page
    node.ledger.close()
    trail = (tmp_path / FILE_NAME).read_text(encoding="utf-8")
    events = [json.loads(line)["EventIdentification"] for line in trail.splitlines()]
    assert [one["EventID"]["originalText"] for one in events].count("Query") == 1
    said = trail + caplog.text + "".join(capfd.readouterr())
    assert "A100" not in said
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("ledger.sqlite*") if path.is_file())
    assert b"A100" not in kept
