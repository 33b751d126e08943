"""Who may come in at the HTTP port, and what for: bearer tokens, client certificates, roles.

A token is given to one person or program, has one role, and is read from a file or from the
environment. Browsers get a session for it: a cookie that says who, until when, and is signed with
the token itself, so that it ends with the token and outlives a restart.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

from node.door_errors import HttpUnprotectedError
from node.errors import ConfigError
from node.settings import Web

READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
SESSION_S: Final = 12 * 3600
TOKEN_LENGTH: Final = 24
"""The fewest characters of a token."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,16}")
_OPEN: Final = frozenset({"/livez", "/readyz", "/login", "/logout"})
_MACHINES_WRITE: Final = ("/dicom-web/", "/api/v1/predict")
_PULLS: Final = re.compile(r"/api/v1/studies/[^/]+/process")
_MACHINES_READ: Final = ("/api/", "/health", "/metrics", "/openapi.json", "/docs")


class Role(StrEnum):
    """Viewers read, operators do everything, machines send studies and files and read the API."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    MACHINE = "machine"

    def may(self, method: str, path: str) -> bool:
        """Say whether a request is within the role."""
        if self is Role.OPERATOR:
            return True
        is_reading = method in READING
        if self is Role.VIEWER:
            return is_reading
        if method == "POST" and _PULLS.fullmatch(path):
            return True
        return path.startswith(_MACHINES_WRITE) or (is_reading and path.startswith(_MACHINES_READ))


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who asks."""

    name: str
    role: Role


LOCAL: Final = Principal(name="local", role=Role.OPERATOR)
"""Whoever asks a node that is bound to the loopback and has no tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    principal: Principal
    digest: bytes


def is_open_to_all(path: str) -> bool:
    """Say whether an address is answered without knowing who asks: nothing of a study is there."""
    return path in _OPEN or path.startswith("/static/")


class Gate:
    """Knows everybody who may come in.

    Parameters
    ----------
    tokens : sequence of _Token
        Those that are given out.
    certificate_role : Role or None
        The role of whoever shows a certificate that was verified; None: certificates say nothing.
    """

    def __init__(self, tokens: Sequence[_Token], certificate_role: Role | None) -> None:
        self._tokens, self._certificate_role = tuple(tokens), certificate_role

    @classmethod
    def load(cls, web: Web) -> Gate:
        """Return the gate of a web role.

        Raises
        ------
        HttpUnprotectedError
            It listens to a network and would let everybody in.
        ConfigError
            The tokens cannot be read; the message names the line, never what stands there.
        """
        tokens = _parsed(web.tokens.get_secret_value(), "NEUROSEG_WEB__TOKENS")
        if web.tokens_file:
            tokens += _parsed(_text_of(Path(web.tokens_file)), web.tokens_file)
        if len({one.principal.name for one in tokens}) < len(tokens):
            raise ConfigError(reason="two tokens of [web] have the same name")
        role = Role(web.client_role) if web.client_ca_file else None
        if not tokens and role is None and not is_loopback(web.host):
            raise HttpUnprotectedError(address=web.host)
        return cls(tokens, role)

    @property
    def is_shut(self) -> bool:
        """Whether one has to say who one is."""
        return bool(self._tokens) or self._certificate_role is not None

    @property
    def has_tokens(self) -> bool:
        """Whether there are any."""
        return bool(self._tokens)

    def of_token(self, token: str) -> Principal | None:
        """Return whose token a text is; every token is compared, in constant time."""
        digest = _digest(token)
        found = None
        for one in self._tokens:
            if hmac.compare_digest(one.digest, digest):
                found = one.principal
        return found

    def of_certificate(self, name: str) -> Principal | None:
        """Return who shows a verified certificate of a name."""
        if not name or self._certificate_role is None:
            return None
        legible = name if _NAME.fullmatch(name) else "certificate"
        return Principal(name=legible, role=self._certificate_role)

    def session(self, principal: Principal) -> str:
        """Return a cookie for one who has shown a token."""
        (token,) = (one for one in self._tokens if one.principal == principal)
        said = f"{principal.name}.{int(_now() + SESSION_S)}"
        return f"{said}.{_signature(token, said)}"

    def of_session(self, cookie: str) -> Principal | None:
        """Return whose cookie a text is, None when it is over or nobody's."""
        said, _, signature = cookie.rpartition(".")
        name, _, until = said.partition(".")
        found = None
        for one in self._tokens:
            is_same = hmac.compare_digest(_signature(one, said).encode(), signature.encode())
            if is_same and one.principal.name == name:
                found = one.principal
        return found if found is not None and until.isdigit() and int(until) > _now() else None


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches an address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _now() -> float:
    return datetime.now(UTC).timestamp()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _signature(token: _Token, said: str) -> str:
    return hmac.new(token.digest, said.encode("utf-8", "surrogateescape"), "sha256").hexdigest()


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(reason=f"{path} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(reason=f"{path} is not UTF-8") from error


def _parsed(text: str, origin: str) -> list[_Token]:
    """Return the tokens of a text: role, name and token in each line, ``#`` begins a comment."""
    tokens = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        role, name, token = words if len(words) == 3 else ("", "", "")  # noqa: PLR2004 - as said
        if role not in list(Role) or not _NAME.fullmatch(name) or len(token) < TOKEN_LENGTH:
            raise ConfigError(
                reason=f"{origin}, line {number}: expected one of {', '.join(Role)}, a name of 1 "
                f"to 16 letters, digits, - or _, and a token of at least {TOKEN_LENGTH} characters"
            )
        principal = Principal(name=name, role=Role(role))
        tokens.append(_Token(principal=principal, digest=_digest(token)))
    return tokens
