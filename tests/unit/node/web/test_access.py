"""The gate at work: tokens, the login page, sessions, roles, TLS, and the audit trail."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from node import logs
from node.audit import FILE_NAME
from node.tls import ServerTls
from tests import certificates, stow_requests
from tests.doors import make_instance
from tests.stow_requests import CONTENT_TYPE, part10
from tests.web_cases import WebNode, served

BASE = "http://127.0.0.1:8080"
TOKENS = {role: f"{role}-" + "t" * 24 for role in ("viewer", "operator", "machine")}
LINES = "\n".join(f"{role} the-{role} {token}" for role, token in TOKENS.items())


@pytest.fixture
def node(tmp_path: Path) -> Iterator[WebNode]:
    logs.configure(role="web", strict=True)
    made = WebNode.create(tmp_path / "spool", web={"tokens": LINES})
    yield made
    made.ledger.close()


@pytest.fixture
def client(node: WebNode) -> Iterator[TestClient]:
    with TestClient(node.app(), base_url=BASE, follow_redirects=False) as made:
        yield made


def bearer(role: str) -> dict[str, str]:
    return {"authorization": f"Bearer {TOKENS[role]}"}


def trail(node: WebNode) -> list[dict[str, Any]]:
    """Return the lines of the audit trail."""
    path = node.spool.root / FILE_NAME
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def told(line: dict[str, Any]) -> tuple[str, str, str, str]:
    """Return what happened, who did it, what with, and how it ended."""
    (who,), (what,) = line["ActiveParticipant"], line["ParticipantObjectIdentification"]
    event = line["EventIdentification"]
    return (
        event["EventID"]["csd-code"],
        who["UserID"],
        what["ParticipantObjectID"],
        event["EventOutcomeDescription"],
    )


def test_who_asks_too_often_waits_while_others_are_answered(tmp_path: Path) -> None:
    web = {"tokens": LINES, "requests_per_minute": 2}
    node = WebNode.create(tmp_path / "spool", web=web)
    with TestClient(node.app(), base_url=BASE, follow_redirects=False) as client:
        path = "/api/v1/cases"
        asked = [client.get(path, headers=bearer("viewer")) for _ in range(3)]
        assert [one.status_code for one in asked] == [200, 200, 429]
        assert asked[2].json()["code"] == "REQUEST_RATE"
        assert int(asked[2].headers["retry-after"]) > 0
        assert client.get(path, headers=bearer("machine")).status_code == 200
        guesses = [client.get(path, headers={"authorization": "Bearer x"}) for _ in range(3)]
        assert [one.status_code for one in guesses] == [401, 401, 429]
        assert all(client.get("/livez").status_code == 200 for _ in range(5))
    node.ledger.close()


def test_nobody_reads_anything_without_a_token(node: WebNode, client: TestClient) -> None:
    case_id = node.delivered("1.2.3.4")
    for path in ("/api/v1/cases", "/metrics", "/health", "/openapi.json", "/nothing"):
        answer = client.get(path, headers={"authorization": "Bearer wrong"})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert case_id not in answer.text
    assert client.get("/api/v1/cases").json()["code"] == "NOT_LOGGED_IN"
    for path in ("/", f"/cases/{case_id}", "/docs"):
        answer = client.get(path)
        assert answer.status_code == 401
        assert 'type="password"' in answer.text
        assert case_id[:8] not in answer.text
    for path in ("/livez", "/static/style.css"):
        assert client.get(path).status_code == 200


def test_a_role_gets_what_is_its_and_nothing_else(node: WebNode, client: TestClient) -> None:
    node.delivered("1.2.3.4")
    assert client.get("/", headers=bearer("viewer")).status_code == 200
    assert client.get("/", headers=bearer("machine")).status_code == 403
    assert client.get("/metrics", headers=bearer("machine")).status_code == 200
    body = stow_requests.body([part10(make_instance())])
    kind = {"content-type": CONTENT_TYPE}
    refused = client.post("/dicom-web/studies", content=body, headers={**kind, **bearer("viewer")})
    assert (refused.status_code, refused.json()["code"]) == (403, "NOT_ALLOWED")
    stored = client.post("/dicom-web/studies", content=body, headers={**kind, **bearer("machine")})
    assert stored.status_code == 200
    titles = [one.calling_ae_title for one in node.ledger.instance_files()]
    assert "the-machine" in titles


def test_a_browser_logs_in_and_out(node: WebNode, client: TestClient) -> None:
    wrong = client.post("/login", data={"token": "wrong"})
    assert wrong.status_code == 401
    assert "set-cookie" not in wrong.headers
    right = client.post("/login", data={"token": TOKENS["viewer"]})
    assert (right.status_code, right.headers["location"]) == (303, "/")
    cookie = right.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKENS["viewer"] not in cookie
    assert client.get("/").status_code == 200
    assert client.post("/logout").status_code == 303
    assert client.get("/").status_code == 401
    assert client.post("/login", data={"token": "x" * 9000}).status_code == 401
    logins = [told(one) for one in trail(node) if told(one)[0] == "110114"]
    assert [(who, how) for _, who, _, how in logins] == [
        ("", "HTTP 401"),
        ("the-viewer", "HTTP 303"),
        ("", "HTTP 401"),
    ]


def test_a_session_does_not_act_for_another_site(client: TestClient) -> None:
    client.post("/login", data={"token": TOKENS["operator"]})
    for foreign in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
        for path in ("/logout", "/login", "/dicom-web/studies"):
            answer = client.post(path, headers=foreign)
            assert (answer.status_code, answer.json()["code"]) == (403, "CROSS_SITE_REFUSED")


def test_it_is_noted_who_did_what_and_nothing_of_the_patient(
    node: WebNode, client: TestClient
) -> None:
    case_id = node.delivered("1.2.3.4")
    ds = make_instance(PatientName="Secret^Sam")
    study = f"/dicom-web/studies/{ds.StudyInstanceUID}"
    body, kind = stow_requests.body([part10(ds)]), {"content-type": CONTENT_TYPE}
    client.post(study, content=body, headers={**kind, **bearer("machine")})
    file = f"/api/v1/cases/{case_id}/files/seg.dcm"
    client.get(file, headers=bearer("viewer"))
    client.get("/api/v1/cases", headers=bearer("viewer"))  # looking is not noted
    client.get(f"/cases/Secret^Sam{ds.StudyInstanceUID}")
    client.delete(f"/api/v1/predictions/{'0' * 32}", headers=bearer("operator"))
    assert [told(one) for one in trail(node)] == [
        ("110104", "the-machine", "POST /dicom-web/studies/{study_instance_uid}", "HTTP 200"),
        ("110106", "the-viewer", f"GET {file}", "HTTP 200"),
        ("110113", "", "GET ", "HTTP 401"),
        ("110103", "the-operator", f"DELETE /api/v1/predictions/{'0' * 32}", "HTTP 404"),
    ]
    text = (node.spool.root / FILE_NAME).read_text()
    for secret in ("Secret", ds.StudyInstanceUID, *TOKENS.values()):
        assert secret not in text
    assert (node.spool.root / FILE_NAME).stat().st_mode & 0o077 == 0


def test_the_trail_is_only_added_to(node: WebNode, client: TestClient) -> None:
    client.get("/")
    before = (node.spool.root / FILE_NAME).read_bytes()
    client.get("/")
    assert (node.spool.root / FILE_NAME).read_bytes().startswith(before)
    assert len(trail(node)) == 2


def test_over_tls_a_client_shows_its_certificate_or_a_token(tmp_path: Path) -> None:
    _, own = certificates.made(tmp_path)
    clients = tmp_path / "clients"
    clients.mkdir()
    ca = certificates.authority(clients, ("pacs-1",))
    files = {"certificate_file": str(own), "key_file": str(tmp_path / "key.pem")}
    web = {"tokens": LINES, **files, "client_ca_file": str(ca)}
    node = WebNode.create(tmp_path / "spool", web=web)
    tls = ServerTls(str(own), files["key_file"], str(ca), needs_client=False)
    trusting = ssl.create_default_context(cafile=str(own))
    showing = ssl.create_default_context(cafile=str(own))
    showing.load_cert_chain(clients / "pacs-1.pem", clients / "pacs-1.key")
    with served(node.app(), tls) as url:
        with httpx.Client(base_url=url, verify=trusting) as client:
            assert client.get("/api/v1/cases").status_code == 401
            assert client.get("/api/v1/cases", headers=bearer("viewer")).status_code == 200
            login = client.post("/login", data={"token": TOKENS["viewer"]})
            assert "secure" in login.headers["set-cookie"].lower()
        with httpx.Client(base_url=url, verify=showing) as client:
            assert client.get("/api/v1/cases").status_code == 200
            assert client.get("/").status_code == 403  # machines read no pages
        old = ssl.create_default_context(cafile=str(own))
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with httpx.Client(base_url=url, verify=old) as client:
            assert client.get("/livez").status_code == 200
    node.ledger.close()


def test_where_everybody_needs_a_certificate_nobody_comes_in_without(tmp_path: Path) -> None:
    _, own = certificates.made(tmp_path)
    tls = ServerTls(str(own), str(tmp_path / "key.pem"), str(own), needs_client=True)
    node = WebNode.create(tmp_path / "spool")
    trusting = ssl.create_default_context(cafile=str(own))
    with (
        served(node.app(), tls) as url,
        httpx.Client(base_url=url, verify=trusting) as client,
        pytest.raises(httpx.TransportError),
    ):
        client.get("/livez")
    node.ledger.close()
