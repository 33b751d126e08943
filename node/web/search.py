"""Cases by the number of a patient or of an order, for operators alone.

The ledger knows no such number, and none is kept for this: it is read from one image of each study.
What was read is remembered as a digest under a key that lives as long as this process. What is
asked for comes in a body, is not said again in the answer, and stands in no address and no log.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs

from pydicom import dcmread
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from converters.headers import UNREADABLE
from node.door_errors import NotAllowedError
from node.errors import RequestInvalidError
from node.spool import Spool
from node.web import orders, views
from node.web.api import as_json
from node.web.operations import JSON, Answer, Endpoint, Operation
from node.web.pages import Pages
from node.web.views import CaseView, Sources

_KEYWORDS: Final = ("AccessionNumber", "PatientID")
_LONGEST: Final = 64
_STUDIES: Final = 20_000  # the newest
_REMEMBERED: Final = 50_000
_SHOWN: Final = 100
_BODY: Final = {
    JSON: {
        "schema": {
            "type": "object",
            "required": ["number"],
            "properties": {"number": {"type": "string", "minLength": 1, "maxLength": _LONGEST}},
        }
    }
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundView:
    """The cases of a number, newest first; `is_cut` where there are more than are shown."""

    cases: tuple[CaseView, ...]
    is_cut: bool


class Register:
    """Says which studies bear a number.

    Parameters
    ----------
    sources : Sources
        Whose cases they are.
    """

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[str, frozenset[bytes]] = OrderedDict()
        self._turn = threading.Lock()  # a look at the whole spool is enough at a time

    def found(self, number: str) -> FoundView:
        """Return the cases whose Accession Number or Patient ID is this one."""
        wanted, ledger = self._digest(number), self._sources.ledger
        with self._turn:
            paths = ledger.an_instance_of_each_study(_STUDIES)
            studies = [study for study, path in paths.items() if wanted in self._numbers(path)]
        rows = [row for study in studies for row in ledger.cases_of_study(study)]
        rows.sort(key=lambda row: row.opened_at, reverse=True)
        now = datetime.now(UTC)
        shown = [views.case_view(self._sources, row, now=now) for row in rows[:_SHOWN]]
        return FoundView(cases=tuple(shown), is_cut=len(rows) > _SHOWN)

    def _numbers(self, path: str) -> frozenset[bytes]:
        """Return the digests of an instance's numbers; its file never changes."""
        if path not in self._known:
            self._known[path] = self._read(self._sources.spool, path)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return self._known[path]

    def _read(self, spool: Spool, path: str) -> frozenset[bytes]:
        try:
            header = dcmread(
                spool.instance_path(path),
                stop_before_pixels=True,
                specific_tags=["SpecificCharacterSet", *_KEYWORDS],
            )
            numbers = [str(header.get(keyword) or "") for keyword in _KEYWORDS]
        except UNREADABLE:
            return frozenset()
        return frozenset(self._digest(one) for one in numbers if one.strip())

    def _digest(self, number: str) -> bytes:
        plain = number.strip().casefold().encode("utf-8", "surrogateescape")
        return hashlib.blake2b(plain, key=self._key, digest_size=16).digest()


class Search:
    """The endpoints: a form's for people, and one for programs."""

    def __init__(self, sources: Sources, pages: Pages) -> None:
        self._register, self._pages = Register(sources), pages

    def routes(self) -> list[BaseRoute]:
        """Return where programs search."""
        operation = Operation(
            tag="cases",
            method="POST",
            body=_BODY,
            answers=(Answer(what="the cases, newest first", shape=FoundView),),
            errors=(RequestInvalidError, NotAllowedError),
        )
        return [Endpoint("/api/v1/search", self.answer, operation)]

    def pages(self) -> list[BaseRoute]:
        """Return where the form of the list is sent to."""
        return [Route("/search", self.page, methods=["POST"])]

    async def answer(self, request: Request) -> Response:
        """Answer the cases whose accession number or patient ID is `number`; operators alone."""
        try:
            content = json.loads(await orders.body_of(request))
        except (ValueError, RecursionError):
            content = None
        number = content.get("number") if isinstance(content, dict) else None
        found = await run_in_threadpool(self._register.found, _checked(number))
        return await run_in_threadpool(as_json, found)

    async def page(self, request: Request) -> Response:
        """Answer the list of what was found."""
        body = (await orders.body_of(request)).decode("utf-8", "replace")
        (number,) = parse_qs(body, max_num_fields=5).get("number", [""])[:1]
        if not number.strip():
            return RedirectResponse("/", HTTPStatus.SEE_OTHER.value)
        found = await run_in_threadpool(self._register.found, _checked(number))
        return await run_in_threadpool(self._pages.found, request, found.cases, is_cut=found.is_cut)


def _checked(number: object) -> str:
    if not isinstance(number, str) or not number.strip() or len(number) > _LONGEST:
        raise RequestInvalidError(parameter="number", expected=f"1 to {_LONGEST} characters")
    return number
