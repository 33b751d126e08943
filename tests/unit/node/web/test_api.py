"""Cases and their files, for programs."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from node import logs
from node.cases import CaseState, Stage
from node.web import downloads, problems
from tests.web_cases import ALIGNMENT, GEOMETRY, ROLES, WebNode
from tests.web_pictures import picture

UNKNOWN = "0" * 32


def test_no_cases_are_an_empty_list(empty_client: TestClient) -> None:
    body = empty_client.get("/api/v1/cases").json()
    assert body == {"cases": [], "total": 0, "limit": 50, "offset": 0}


def test_an_open_case_counts_what_has_arrived(node: WebNode, client: TestClient) -> None:
    case_id = node.receive("1.2.1", roles=("flair", "t1"), slices=5)
    body = client.get(f"/api/v1/cases/{case_id}").json()
    assert (body["state"], body["received_series"], body["received_instances"]) == (
        "receiving",
        2,
        10,
    )
    assert body["series"] == []
    assert body["preview_url"] is None
    assert body["closed_by"] is None
    assert (body["alignment"], body["notes"], body["waits_for"]) == ([], [], "")
    node.wait(case_id, "silence")
    body = client.get(f"/api/v1/cases/{case_id}").json()
    assert (body["waits_for"], body["reason"], len(body["series"])) == ("silence", "", 1)
    assert (body["received_series"], body["received_instances"]) == (2, 10)


def test_a_delivered_case_says_everything(node: WebNode, client: TestClient) -> None:
    case_id = node.delivered("1.2.1")
    body = client.get(f"/api/v1/cases/{case_id}").json()
    assert body["state"] == "delivered"
    assert body["study_instance_uid"] == "1.2.1"
    assert (body["closed_by"], body["reference_role"]) == ("complete", "t1gd")
    assert {one["role"] for one in body["series"]} == set(ROLES)
    assert all(one["score"] == 0.97 and one["reason"] for one in body["series"])
    assert sorted(one["number"] for one in body["series"]) == [1, 2, 3, 4]
    assert {(one["part"], one["geometry"]) for one in body["series"]} == {("", GEOMETRY)}
    assert {one["runner_up"] for one in body["series"]} == {"", "PD 0.20"}
    assert body["alignment"] == list(ALIGNMENT)
    assert body["notes"] == body["summary"]["notes"]
    assert (body["held_for"], body["released_at"]) == ([], None)
    assert (body["waits_for"], body["reason"]) == (
        "",
        "four series are whole and nothing came for 3 s",
    )
    assert [one["stage"] for one in body["attempts"]] == [stage.value for stage in Stage]
    assert all(one["outcome"] == "done" and one["duration_s"] >= 0 for one in body["attempts"])
    assert [(one["destination"], one["status_code"]) for one in body["receipts"]] == [
        ("pacs", "0x0000")
    ]
    assert body["results"][0]["sop_instance_uid"] == "2.25.101"
    assert [one["volume_ml"] for one in body["volumes"]] == [48.31, 0.42, 12.7]
    assert [(one["label"], one["volume_ml"]) for one in body["regions"]] == [
        ("Whole tumour", 61.43),
        ("Tumour core", 13.12),
    ]
    assert all(one["color_rgb"] for one in body["regions"])
    assert body["uncertainty"] == body["summary"]["uncertainty"]
    assert body["tta"]["passes"] == 8
    assert [one["entropy"] for one in body["confidence"]] == [0.31, 0.46, 0.12, 0.74]
    assert body["confidence"][2]["name"] == "Enhancing tumour"
    assert body["summary"]["reference_role"] == "t1gd"
    assert [one["condition"] for one in body["steps"]] == ["done"] * 5
    names = {one["name"] for one in body["files"]}
    assert names == set(downloads.files_of(["flair"]))
    assert body["turnaround_s"] >= 0


def test_a_case_lists_its_lesions(node: WebNode, client: TestClient) -> None:
    body = client.get(f"/api/v1/cases/{node.delivered('1.2.1')}").json()
    assert body["measurements"] == body["summary"]["measurements"]
    first, second = body["lesions"]
    assert (first["enhancing_ml"], first["long_mm"], first["short_mm"]) == (12.7, 41.27, 28.93)
    assert (second["number"], second["volume_ml"], second["long_mm"]) == (2, 3.12, None)


def test_a_case_says_how_many_windows_are_done_while_they_run(
    node: WebNode, client: TestClient
) -> None:
    case_id, other = node.receive("1.2.1"), node.receive("1.2.2")
    for one in (case_id, other):
        node.close(one)
        node.attempt(one, Stage.CONVERT, CaseState.ASSEMBLED)
    assert client.get(f"/api/v1/cases/{case_id}").json()["progress"] is None
    node.run_windows(case_id, 7, 27)
    body = client.get(f"/api/v1/cases/{case_id}").json()
    assert body["progress"] == {"windows_done": 7, "window_count": 27}
    assert client.get(f"/api/v1/cases/{other}").json()["progress"] is None
    node.attempt(case_id, Stage.SEGMENT, CaseState.SEGMENTED)
    assert client.get(f"/api/v1/cases/{case_id}").json()["progress"] is None


def test_a_case_has_one_shape_in_the_list_and_alone(node: WebNode, client: TestClient) -> None:
    case_id = node.delivered("1.2.1")
    listed = client.get("/api/v1/cases").json()["cases"]
    assert listed == [client.get(f"/api/v1/cases/{case_id}").json()]


def test_a_result_that_was_taken_out_of_the_spool_has_no_files(
    node: WebNode, client: TestClient
) -> None:
    case_id = node.delivered("1.2.1")
    (node.spool.case_folder(case_id) / "seg.dcm").unlink()
    body = client.get(f"/api/v1/cases/{case_id}").json()
    assert "seg.dcm" not in {one["name"] for one in body["files"]}
    answer = client.get(f"/api/v1/cases/{case_id}/files/seg.dcm")
    assert (answer.status_code, answer.json()["code"]) == (404, "CASE_FILE_ABSENT")


def test_cases_are_chosen_by_state_and_cut_into_pages(node: WebNode, client: TestClient) -> None:
    ids = {
        "rejected": [node.rejected(f"1.2.{number}") for number in (1, 2, 3)],
        "failed": [node.failed("1.2.4")],
        "delivered": [node.delivered("1.2.5")],
    }

    def found(address: str) -> tuple[list[str], int]:
        body = client.get(address).json()
        return [case["case_id"] for case in body["cases"]], body["total"]

    assert found("/api/v1/cases?state=rejected") == (ids["rejected"][::-1], 3)
    assert found("/api/v1/cases?state=rejected&state=failed&limit=1") == (ids["failed"], 4)
    assert found("/api/v1/cases?limit=2&offset=1") == (ids["failed"] + ids["rejected"][2:], 5)
    assert found("/api/v1/cases?offset=99") == ([], 5)
    assert found("/api/v1/cases?state=cancelled") == ([], 0)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "limit=-1",
        "limit=1.0",
        "limit=",
        "limit=1_0",
        "limit=%D9%A3",
        "limit=99999999999999999999",
        "offset=-1",
        "offset=10000001",
        "offset=%00",
        "state=unknown",
        "state=",
        "state=%27%20OR%201%3D1",
        "state=delivered&state=nothing",
    ],
)
def test_a_wrong_query_is_refused_with_its_parameter(empty_client: TestClient, query: str) -> None:
    answer = empty_client.get(f"/api/v1/cases?{query}")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["code"], body["status"], body["type"]) == ("REQUEST_INVALID", 400, "about:blank")
    name = query.split("=", maxsplit=1)[0]
    assert f"{name} of the request is not" in body["detail"]
    assert empty_client.get(f"/?{query}").status_code == 400


@pytest.mark.parametrize(
    "case_id",
    [
        UNKNOWN,
        "1",
        "0" * 31,
        "0" * 33,
        "A" * 32,
        "g" * 32,
        UNKNOWN + "%0a",
        "%2e%2e",
        "..%2f..%2fledger.sqlite",
        "%00",
        "%ff",
        "1.2.840.113619.2.55",
        "'%20OR%20'1'='1",
        "<script>alert(1)<%2fscript>",
        "%F0%9F%A7%A0",
    ],
)
@pytest.mark.parametrize(
    "tail", ["", "/preview.png", "/pictures/summary-cover.png", "/files/seg.dcm"]
)
def test_a_hostile_case_id_finds_nothing(empty_client: TestClient, case_id: str, tail: str) -> None:
    answer = empty_client.get(f"/api/v1/cases/{case_id}{tail}")
    assert answer.status_code == 404
    assert answer.json()["code"] in {"CASE_UNKNOWN", "RESOURCE_UNKNOWN"}
    page = empty_client.get(f"/cases/{case_id}")
    assert page.status_code == 404
    assert "<script>alert" not in page.text


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("seg.dcm", "application/dicom"),
        ("sr.dcm", "application/dicom"),
        ("measurements.json", "application/json"),
        ("labels.nii.gz", "application/gzip"),
        ("channels.nii.gz", "application/gzip"),
        ("preview.png", "image/png"),
    ],
)
def test_a_file_is_given_out_as_it_lies_in_the_spool(
    node: WebNode, client: TestClient, name: str, media_type: str
) -> None:
    case_id = node.delivered("1.2.1")
    answer = client.get(f"/api/v1/cases/{case_id}/files/{name}")
    stored = (node.spool.case_folder(case_id) / name).read_bytes()
    assert answer.status_code == 200
    assert hashlib.sha256(answer.content).digest() == hashlib.sha256(stored).digest()
    assert answer.headers["content-type"] == media_type
    expected = f'attachment; filename="neuroseg-{case_id[:8]}-{name}"'
    assert answer.headers["content-disposition"] == expected
    assert answer.headers["cache-control"] == "no-store"


def test_the_preview_is_shown_in_place(node: WebNode, client: TestClient) -> None:
    case_id = node.delivered("1.2.1")
    address = client.get(f"/api/v1/cases/{case_id}").json()["preview_url"]
    answer = client.get(address)
    assert answer.content == picture()
    assert answer.headers["content-disposition"].startswith("inline;")


def test_the_pictures_of_the_summary_are_shown_in_place(node: WebNode, client: TestClient) -> None:
    case_id = node.delivered("1.2.1")
    found = client.get(f"/api/v1/cases/{case_id}").json()["pictures"]
    assert [one["name"] for one in found] == [
        "summary-cover.png",
        "summary-planes.png",
        "summary-axial-t1gd.png",
        "summary-axial-flair.png",
    ]
    for one in found:
        assert len(one["alt"]) > 40
        answer = client.get(one["url"])
        assert answer.content == picture()
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["content-disposition"].startswith("inline;")


def test_a_picture_that_a_case_lacks_is_said_to_be_absent(
    node: WebNode, client: TestClient
) -> None:
    case_id = node.delivered("1.2.1")
    answer = client.get(f"/api/v1/cases/{case_id}/pictures/summary-axial-t2.png")
    assert (answer.status_code, answer.json()["code"]) == (404, "CASE_FILE_ABSENT")


@pytest.mark.parametrize(
    "name",
    ["preview.png", "seg.dcm", "summary-cover.dcm", "..%2fseg.dcm", "summary-axial-..png", "%00"],
)
def test_nothing_but_pictures_is_given_out_as_a_picture(
    node: WebNode, client: TestClient, name: str
) -> None:
    case_id = node.delivered("1.2.1")
    answer = client.get(f"/api/v1/cases/{case_id}/pictures/{name}")
    assert (answer.status_code, answer.json()["code"]) == (404, "RESOURCE_UNKNOWN")


@pytest.fixture(scope="module")
def delivered_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, str]]:
    """Yield a client, and a case that it can see."""
    node = WebNode.create(tmp_path_factory.mktemp("delivered"))
    case_id = node.delivered("1.2.1")
    (node.spool.case_folder(case_id) / "flair.nii").write_bytes(b"voxels")
    with TestClient(node.app(), base_url="http://127.0.0.1:8080") as client:
        yield client, case_id
    node.ledger.close()


@pytest.mark.parametrize(
    "name",
    [
        "flair.nii",
        "seg.dcm.bak",
        "SEG.DCM",
        "%2e%2e%2e",
        "..%2fseg.dcm",
        "%2e%2e%2f%2e%2e%2fledger.sqlite",
        "..%5cseg.dcm",
        "seg.dcm%00",
        "%2fetc%2fpasswd",
        "",
    ],
)
def test_no_other_file_leaves_the_spool(
    delivered_client: tuple[TestClient, str], name: str
) -> None:
    client, case_id = delivered_client
    answer = client.get(f"/api/v1/cases/{case_id}/files/{name}")
    assert answer.status_code == 404
    assert answer.json()["code"] == "RESOURCE_UNKNOWN"


def test_looking_at_a_case_leaves_no_folder_behind(node: WebNode, client: TestClient) -> None:
    case_id = node.receive("1.2.1")
    client.get(f"/api/v1/cases/{case_id}")
    client.get(f"/api/v1/cases/{case_id}/preview.png")
    client.get(f"/cases/{case_id}")
    assert list((node.spool.root / "cases").iterdir()) == []


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "path",
    ["/", "/livez", "/readyz", "/api/v1/health", "/api/v1/cases", f"/api/v1/cases/{UNKNOWN}"],
)
def test_nothing_can_be_written(empty_client: TestClient, method: str, path: str) -> None:
    answer = empty_client.request(method, path, content=b"x" * 1000)
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]
    assert "REQUEST_REFUSED" in answer.text


def test_head_answers_without_a_body(node: WebNode, client: TestClient) -> None:
    case_id = node.delivered("1.2.1")
    for path in ("/", "/livez", "/api/v1/cases", f"/api/v1/cases/{case_id}/files/seg.dcm"):
        answer = client.head(path)
        assert (answer.status_code, answer.content) == (200, b"")


def test_an_unforeseen_failure_tells_nothing_of_its_cause(
    node: WebNode, client: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(role="web", strict=True)  # now, so that it writes to what is captured
    case_id = node.receive("1.2.1")
    with sqlite3.connect(node.spool.root / "ledger.sqlite") as connection:
        connection.execute("UPDATE imaging_case SET state = 'secret-word'")
    connection.close()
    answer = client.get(f"/api/v1/cases/{case_id}")
    assert answer.status_code == 500
    assert answer.json()["code"] == "UNFORESEEN"
    assert answer.headers["x-content-type-options"] == "nosniff"
    logged = capsys.readouterr().out
    assert '"request.failed"' in logged
    assert "UNFORESEEN" in logged
    for text in (answer.text, logged):
        assert "secret-word" not in text
        assert "1.2.1" not in text


def test_every_error_of_the_table_is_a_failure_for_the_client() -> None:
    assert all(status >= 400 for status in problems.STATUSES.values())


def test_a_case_that_ended_keeps_its_reason(node: WebNode, client: TestClient) -> None:
    body = client.get(f"/api/v1/cases/{node.rejected('1.2.1')}").json()
    assert body["state"] == CaseState.REJECTED
    assert body["code"] == "STUDY_SEQUENCE_MISSING"
    assert body["sentence"] == "no series serves as t1, t1gd; found flair, t2"
    assert body["advice"]
