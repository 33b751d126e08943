"""Which hosts are answered for, and the headers that every answer carries.

Pages show study data without a login, for a trusted network. The Host check keeps a foreign web
site from reading them through the browser of somebody inside (DNS rebinding), the check of the
page's origin one from sending files or deleting through it. Programs name no origin.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from converters.errors import CodedError
from node.errors import CrossSiteError, HostRefusedError
from node.web import problems

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_EVERYWHERE = {"0.0.0.0", "::", ""}  # noqa: S104 - compared with, not listened on

_READING = {"GET", "HEAD", "OPTIONS"}
_OWN_SITES = {"same-origin", "none"}

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "object-src 'none'"
    ),
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Hosts:
    """The host names that a node answers for.

    Parameters
    ----------
    bound : str
        What the web role listens on. When it is every address, any IP literal and the machine's
        own name are answered for too: only a name can be rebound, an IP literal cannot.
    host_names : sequence of str
        Further names, such as that of a reverse proxy.
    """

    def __init__(self, bound: str, host_names: Sequence[str] = ()) -> None:
        self._is_everywhere = bound in _EVERYWHERE
        self._names = {"localhost", bound.lower(), *(name.lower() for name in host_names)}
        if self._is_everywhere:
            self._names.add(socket.gethostname().lower())

    def accepts(self, header: str) -> bool:
        """Say whether a Host header names this node."""
        match = _HOST.fullmatch(header)
        if match is None:
            return False
        name = match[1].lower().strip("[]")
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._is_everywhere or address.is_loopback


def secure(headers: MutableHeaders, path: str) -> None:
    """Add the headers that every answer carries; nothing of a study stays in a browser's cache."""
    headers.update(SECURITY_HEADERS)
    headers["cache-control"] = "no-cache" if path.startswith("/static/") else "no-store"


def _is_cross_site(headers: Headers) -> bool:
    """Say whether a browser sends a request for a page that is not ours.

    Every browser names the page's origin on requests that may change something; newer ones say
    how it relates to us as well.
    """
    if headers.get("sec-fetch-site", "none").lower() not in _OWN_SITES:
        return True
    origin = headers.get("origin")
    if origin is None:
        return False
    scheme, _, authority = origin.partition("://")
    is_own = scheme in ("http", "https") and authority.lower() == headers["host"].lower()
    return not is_own


class Guard:
    """ASGI middleware that refuses foreign hosts and pages and adds the security headers."""

    def __init__(self, app: ASGIApp, *, hosts: Hosts) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have the application do it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                secure(MutableHeaders(scope=message), scope["path"])
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        answer = self._app if refusal is None else problems.problem(refusal)
        await answer(scope, receive, send_secured)

    def _refusal(self, method: str, headers: Headers) -> CodedError | None:
        named = headers.getlist("host")
        if len(named) != 1 or not self._hosts.accepts(named[0]):
            return HostRefusedError()
        if method not in _READING and _is_cross_site(headers):
            return CrossSiteError()
        return None
