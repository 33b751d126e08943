"""Who may come in: tokens, sessions, certificates, roles."""

from __future__ import annotations

from pathlib import Path

import pytest

from node import access
from node.access import Gate, Principal, Role
from node.door_errors import HttpUnprotectedError
from node.errors import ConfigError
from node.settings import Web

ALICE, BOB = "alice-" + "a" * 24, "bob-" + "b" * 24


def _gate(text: str = f"operator alice {ALICE}\n# a comment\n\nviewer bob {BOB}\n") -> Gate:
    return Gate.load(Web.model_validate({"tokens": text}))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_the_loopback_needs_no_tokens(host: str) -> None:
    assert not Gate.load(Web(host=host)).is_shut


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "node.hospital.example", ""])
def test_no_other_address_is_bound_without_tokens_or_certificates(host: str) -> None:
    with pytest.raises(HttpUnprotectedError) as caught:
        Gate.load(Web(host=host))
    assert caught.value.code == "HTTP_UNPROTECTED"
    assert Gate.load(Web.model_validate({"host": host, "tokens": f"viewer bob {BOB}"})).is_shut
    tls = {"certificate_file": "c", "key_file": "k", "client_ca_file": "a"}
    assert Gate.load(Web.model_validate({"host": host, **tls})).is_shut
    tls["client_ca_file"] = ""  # a certificate of our own lets nobody prove who he is
    with pytest.raises(HttpUnprotectedError):
        Gate.load(Web.model_validate({"host": host, **tls}))


def test_a_token_says_who_and_a_wrong_one_nobody() -> None:
    gate = _gate()
    assert gate.of_token(ALICE) == Principal(name="alice", role=Role.OPERATOR)
    assert gate.of_token(BOB) == Principal(name="bob", role=Role.VIEWER)
    for wrong in ("", ALICE[:-1], ALICE + "a", "x" * 30, "\udcff"):
        assert gate.of_token(wrong) is None


def test_tokens_come_from_a_file_as_well(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"machine pacs {ALICE}\n")
    web = Web.model_validate({"tokens": f"viewer bob {BOB}", "tokens_file": str(file)})
    found = Gate.load(web).of_token(ALICE)
    assert found == Principal(name="pacs", role=Role.MACHINE)
    assert BOB not in repr(web)


@pytest.mark.parametrize(
    "line",
    [
        f"admin alice {ALICE}",
        "operator alice tooshort",
        f"operator al/ice {ALICE}",
        f"operator {'a' * 17} {ALICE}",
        f"operator {ALICE}",
        f"operator alice {ALICE} more",
        f"operator alice {ALICE}\nviewer alice {BOB}",
    ],
)
def test_a_line_that_cannot_be_is_refused_without_its_token(line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _gate(line)
    assert "aaaa" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Gate.load(Web(tokens_file=str(tmp_path / "absent")))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        Gate.load(Web(tokens_file=str(tmp_path / "binary")))


def test_a_session_outlives_the_process_and_ends_with_its_time_or_its_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cookie = _gate().session(Principal(name="alice", role=Role.OPERATOR))
    assert _gate().of_session(cookie) == Principal(name="alice", role=Role.OPERATOR)
    assert ALICE not in cookie
    assert _gate(f"operator alice {BOB}").of_session(cookie) is None
    name, until, signature = cookie.split(".")
    for forged in (
        f"bob.{until}.{signature}",
        f"{name}.{int(until) + 1}.{signature}",
        f"{name}.{until}.{signature[:-1]}",
        f"{name}.{until}.",
        f"{name}.{signature}",
        "..",
        "",
        "ä.ö.ü",
        "\udcff.1.x",
    ):
        assert _gate().of_session(forged) is None
    later = access._now() + access.SESSION_S + 1
    monkeypatch.setattr(access, "_now", lambda: later)
    assert _gate().of_session(cookie) is None


def test_a_certificate_has_the_role_that_is_set() -> None:
    tls = {"certificate_file": "c", "key_file": "k", "client_ca_file": "a", "client_role": "viewer"}
    gate = Gate.load(Web.model_validate(tls))
    assert gate.of_certificate("pacs-1") == Principal(name="pacs-1", role=Role.VIEWER)
    odd = gate.of_certificate("Pacs of <ward>, 3rd floor")
    assert odd == Principal(name="certificate", role=Role.VIEWER)
    assert gate.of_certificate("") is None
    assert _gate().of_certificate("pacs-1") is None


@pytest.mark.parametrize(
    ("role", "method", "path", "is_allowed"),
    [
        (Role.VIEWER, "GET", "/", True),
        (Role.VIEWER, "GET", "/api/v1/cases", True),
        (Role.VIEWER, "POST", "/api/v1/predict", False),
        (Role.VIEWER, "POST", "/dicom-web/studies", False),
        (Role.VIEWER, "DELETE", "/api/v1/predictions/1", False),
        (Role.OPERATOR, "POST", "/api/v1/predict", True),
        (Role.OPERATOR, "POST", "/cases/1/retry", True),
        (Role.MACHINE, "POST", "/dicom-web/studies", True),
        (Role.MACHINE, "POST", "/api/v1/predict", True),
        (Role.MACHINE, "POST", "/api/v1/studies/1.2/process", True),
        (Role.MACHINE, "POST", "/api/v1/studies/1.2/process/3", False),
        (Role.VIEWER, "POST", "/api/v1/studies/1.2/process", False),
        (Role.MACHINE, "GET", "/metrics", True),
        (Role.MACHINE, "GET", "/api/v1/cases", True),
        (Role.MACHINE, "GET", "/", False),
        (Role.MACHINE, "GET", "/cases/1", False),
        (Role.MACHINE, "POST", "/api/v1/cases/1/retry", False),
    ],
)
def test_what_each_role_may_do(role: Role, method: str, path: str, is_allowed: bool) -> None:  # noqa: FBT001
    assert role.may(method, path) is is_allowed


def test_half_of_tls_is_refused() -> None:
    for half in ({"certificate_file": "c"}, {"key_file": "k"}, {"client_ca_file": "a"}):
        with pytest.raises(ValueError, match="_file"):
            Web.model_validate(half)
