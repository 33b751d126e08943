"""Which hosts are answered for, who is let in, and the headers that every answer carries.

The Host check keeps a foreign web site from reading pages through the browser of somebody inside
(DNS rebinding), the check of the page's origin one from sending files or deleting through it.
Programs name no origin. Then `node.access` says who asks and what for.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from converters.errors import CodedError
from node.access import LOCAL, Gate, Principal, is_open_to_all
from node.door_errors import NotAllowedError, NotLoggedInError, RequestRateError
from node.errors import CrossSiteError, HostRefusedError
from node.rates import Rates
from node.web import problems
from node.web.body import Body
from node.web.login import COOKIE
from node.web.serving import CERTIFICATE
from node.web.trail import Trail

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_EVERYWHERE = {"0.0.0.0", "::", ""}  # noqa: S104 - compared with, not listened on

_READING = {"GET", "HEAD", "OPTIONS"}
_OWN_SITES = {"same-origin", "none"}

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        "object-src 'none'"
    ),
    "cross-origin-resource-policy": "same-origin",
    # Not no-referrer: browsers then name no origin with our own forms either, as other sites do.
    "referrer-policy": "same-origin",
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
    """ASGI middleware: refuses foreign hosts, pages and people, adds the security headers.

    Parameters
    ----------
    app : ASGIApp
        What is guarded; it finds who asks in ``request.state.principal``.
    hosts : Hosts
        Which are answered for.
    gate : Gate
        Who is let in.
    trail : Trail
        Where it is noted who did what.
    refuse : callable
        Makes the answer for somebody who is not let in.
    rates : Rates
        How often each may ask: whoever has a name by it, else by the address.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Hosts,
        gate: Gate,
        trail: Trail,
        refuse: Callable[[str, CodedError], Response],
        rates: Rates,
    ) -> None:
        self._app = app
        self._hosts, self._gate, self._trail, self._refuse = hosts, gate, trail, refuse
        self._rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have the application do it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        status = 0

        async def send_secured(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                secure(MutableHeaders(scope=message), scope["path"])
            await send(message)

        headers = Headers(scope=scope)
        refusal = self._refusal(scope["method"], headers)
        if refusal is not None:
            await problems.problem(refusal)(scope, receive, send_secured)
            return
        principal = self._principal(scope, headers)
        barred = self._barred(scope, principal)
        if barred is not None:
            answer = self._refuse(scope["path"], barred)
            await run_in_threadpool(self._trail.refusal, scope, principal, answer.status_code)
            # Else the answer would be lost together with what is still being sent.
            await Body(Request(scope, receive), silence_s=1.0, patience_s=5.0).drain()
            await answer(scope, receive, send_secured)
            return
        scope.setdefault("state", {})["principal"] = principal
        try:
            await self._app(scope, receive, send_secured)
        finally:
            await run_in_threadpool(self._trail.request, scope, principal, status)

    def _principal(self, scope: Scope, headers: Headers) -> Principal | None:
        """Return who asks: by a token, else by a session, else by a certificate."""
        if not self._gate.is_shut:
            return LOCAL
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._gate.of_token(token.strip())
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        certificate = str(scope.get("state", {}).get(CERTIFICATE, ""))
        return self._gate.of_session(cookie) or self._gate.of_certificate(certificate)

    def _barred(self, scope: Scope, principal: Principal | None) -> CodedError | None:
        if is_open_to_all(scope["path"]):
            return None
        client = scope.get("client")
        address = client[0] if client else ""
        named = principal if principal is not LOCAL else None
        if self._rates.is_over(f"name {named.name}" if named else f"address {address}"):
            return RequestRateError(limit=self._rates.per_minute)
        if principal is None:
            return NotLoggedInError()
        if not principal.role.may(scope["method"], scope["path"]):
            return NotAllowedError(role=principal.role.value)
        return None

    def _refusal(self, method: str, headers: Headers) -> CodedError | None:
        named = headers.getlist("host")
        if len(named) != 1 or not self._hosts.accepts(named[0]):
            return HostRefusedError()
        if method not in _READING and _is_cross_site(headers):
            return CrossSiteError()
        return None
