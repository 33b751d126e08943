"""Logging in with a token: browsers get a session for it, which scripts cannot read."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs

import jinja2
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from node import logs
from node.access import SESSION_S, Gate
from node.web.body import Body
from node.web.trail import Trail

COOKIE: Final = "neuroseg_session"
_LONGEST_FORM: Final = 4096
_FORM_S: Final = 15.0


class Login:
    """The endpoints.

    Parameters
    ----------
    gate : Gate
        Knows whose token is whose.
    templates : jinja2.Environment
        Of the pages.
    trail : Trail
        Where it is noted.
    """

    def __init__(self, gate: Gate, templates: jinja2.Environment, trail: Trail) -> None:
        self._gate, self._templates, self._trail = gate, templates, trail

    def routes(self) -> list[BaseRoute]:
        """Return where each one answers."""
        return [
            Route("/login", self.ask),
            Route("/login", self.enter, methods=["POST"]),
            Route("/logout", self.leave, methods=["POST"]),
        ]

    def page(self, status: HTTPStatus = HTTPStatus.OK, *, is_wrong: bool = False) -> Response:
        """Return the page that asks for a token."""
        template = self._templates.get_template("login.html")
        page = template.render(is_wrong=is_wrong, has_tokens=self._gate.has_tokens)
        return HTMLResponse(page, status.value)

    def ask(self, _: Request) -> Response:
        """Answer the page that asks for a token."""
        return self.page() if self._gate.is_shut else _to_the_cases()

    async def enter(self, request: Request) -> Response:
        """Let somebody in who has a token, and remember it for twelve hours."""
        principal = self._gate.of_token(await _token_of(request))
        status = HTTPStatus.UNAUTHORIZED if principal is None else HTTPStatus.SEE_OTHER
        await run_in_threadpool(self._trail.login, request.scope, principal, status.value)
        if principal is None:
            logs.get().warning("login.refused")
            return self.page(status, is_wrong=True)
        answer = _to_the_cases()
        answer.set_cookie(
            COOKIE,
            self._gate.session(principal),
            max_age=SESSION_S,
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return answer

    def leave(self, _: Request) -> Response:
        """Forget who it was."""
        answer = RedirectResponse("/login", HTTPStatus.SEE_OTHER.value)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer


def _to_the_cases() -> Response:
    return RedirectResponse("/", HTTPStatus.SEE_OTHER.value)


async def _token_of(request: Request) -> str:
    """Return the token of a form; what is no such form has none."""
    form = await Body(request, silence_s=_FORM_S, patience_s=_FORM_S).whole(_LONGEST_FORM)
    fields = parse_qs((form or b"").decode("utf-8", "replace"), max_num_fields=10)
    return fields.get("token", [""])[0].strip()
