"""``/dicom-web/workitems``: a worklist by UPS-RS, on the ledger.

References
----------
DICOM PS3.18 11 (Worklist Service and Resources): 11.4 Create, 11.5 Retrieve, 11.6 Update, 11.7
Change State, 11.8 Request Cancellation, 11.9 Search. Subscriptions are not offered.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any, Final

from pydicom.datadict import tag_for_keyword
from pydicom.uid import generate_uid
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from node import logs, worksteps
from node.receive.dataset import is_uid
from node.web.body import Body
from node.web.operations import Answer, Endpoint, Operation
from node.work_errors import (
    WorkitemConflictError,
    WorkitemExistsError,
    WorkitemInvalidError,
    WorkitemRefusedError,
    WorkitemUnknownError,
)
from node.workitems import Worklist as Rows
from node.worksteps import Item, StepState

_MEDIA_TYPE: Final = "application/dicom+json"
_ROOT: Final = "/dicom-web/workitems"
_ONE: Final = f"{_ROOT}/{{workitem}}"
_LARGEST: Final = 2**20
_SILENCE_S, _PATIENCE_S = 15.0, 30.0
_TAG: Final = re.compile(r"[0-9A-F]{8}")
_MOST: Final = 200
_CONTROL: Final = {"limit", "offset", "includefield", "fuzzymatching"}
_UID_KEYS: Final = ("AffectedSOPInstanceUID", "workitem")
_TRANSACTION_KEYS: Final = ("transaction-uid", "transaction", "TransactionUID")


class Worklist:
    """The endpoints.

    Parameters
    ----------
    rows : Rows
        The work items.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def routes(self) -> list[BaseRoute]:
        """Return where the endpoints answer."""
        return [
            Endpoint(_ROOT, self.collection, _SEARCH, _CREATE),
            Endpoint(_ONE, self.item, _RETRIEVE, _UPDATE),
            Endpoint(f"{_ONE}/state", self.state, _CHANGE),
            Endpoint(f"{_ONE}/cancelrequest", self.cancel, _CANCEL),
        ]

    async def collection(self, request: Request) -> Response:
        """Answer the work items that have these values, or create one."""
        if request.method == "POST":
            return await self._create(request)
        keys, limit, offset = _query(request)
        found = await run_in_threadpool(self._rows.search, keys, limit=limit, offset=offset)
        if not found:
            return Response(status_code=HTTPStatus.NO_CONTENT)
        return _told([one.content for one in found])

    async def _create(self, request: Request) -> Response:
        content = await _content(request)
        uid = _bare(request, _UID_KEYS) or worksteps.value_of(content, worksteps.SOP_INSTANCE)
        uid = _checked(uid or generate_uid(prefix=None))
        await run_in_threadpool(self._rows.create, uid, content)
        logs.get().info("workitem.created")
        where = {"content-location": f"{_ROOT}/{uid}", "location": f"{_ROOT}/{uid}"}
        return Response(status_code=HTTPStatus.CREATED, headers=where)

    async def item(self, request: Request) -> Response:
        """Answer a work item, or change what it says."""
        uid = _uid_of(request)
        if request.method == "POST":
            change = await _content(request)
            shown = _bare(request, _TRANSACTION_KEYS)
            shown = shown or worksteps.value_of(change, worksteps.TRANSACTION)
            await run_in_threadpool(self._rows.update, uid, change, shown)
            return Response(status_code=HTTPStatus.OK)
        found = await run_in_threadpool(self._rows.find, uid)
        return _told([found.content])

    async def state(self, request: Request) -> Response:
        """Claim, complete or cancel a work item."""
        uid, content = _uid_of(request), await _content(request)
        wanted = worksteps.value_of(content, worksteps.STATE)
        if wanted not in list(StepState):
            raise WorkitemInvalidError(reason="it names none of the four Procedure Step States")
        shown = worksteps.value_of(content, worksteps.TRANSACTION)
        if shown:
            _checked(shown)
        moved = await run_in_threadpool(self._rows.change, uid, StepState(wanted), shown)
        return _done(HTTPStatus.OK, "" if moved else f"it is already {wanted}")

    async def cancel(self, request: Request) -> Response:
        """Cancel a work item that nobody has claimed, or ask its performer to."""
        uid = _uid_of(request)
        reason = await _content(request, may_be_empty=True)
        did = await run_in_threadpool(self._rows.request_cancel, uid, reason)
        return _done(HTTPStatus.ACCEPTED, "" if did else "it is already CANCELED")


def _done(status: HTTPStatus, warning: str) -> Response:
    headers = {"warning": f'299 neuroseg "{warning}"'} if warning else None
    return Response(status_code=status, headers=headers)


def _told(items: list[Item]) -> Response:
    return Response(json.dumps(items), media_type=_MEDIA_TYPE)


def _checked(uid: str) -> str:
    if not is_uid(uid):
        raise WorkitemInvalidError(reason="a UID has digits and dots, at most 64")
    return uid


def _uid_of(request: Request) -> str:
    uid = str(request.path_params["workitem"])
    if not is_uid(uid):
        raise WorkitemUnknownError
    return uid


def _bare(request: Request, names: tuple[str, ...]) -> str:
    """Return a UID of the query: its only word, as PS3.18 writes it, or by a name."""
    given = request.query_params
    found = next((given[name] for name in names if name in given), "")
    if not found and len(given) == 1 and not next(iter(given.values())):
        found = next(iter(given))
    return _checked(found) if found else ""


def _query(request: Request) -> tuple[dict[str, str], int, int]:
    """Return what attributes have to be, and which part of the answer is wanted."""
    keys, numbers = {}, {"limit": _MOST, "offset": 0}
    for name, value in request.query_params.items():
        if name in numbers:
            if not value.isdigit() or len(value) > len(str(10**8)):
                raise WorkitemInvalidError(reason=f"{name} is no number")
            numbers[name] = int(value)
        elif name not in _CONTROL:
            tag = tag_for_keyword(name.rpartition(".")[2])
            spelt = f"{tag:08X}" if tag is not None else name.rpartition(".")[2].upper()
            if not _TAG.fullmatch(spelt):
                raise WorkitemInvalidError(reason="the query names an attribute that DICOM has not")
            keys[spelt] = value
    return keys, min(numbers["limit"], _MOST), numbers["offset"]


async def _content(request: Request, *, may_be_empty: bool = False) -> Item:
    """Return the data set of a request.

    Raises
    ------
    WorkitemInvalidError
        It is too large, or no data set in the JSON model.
    """
    body = Body(request, silence_s=_SILENCE_S, patience_s=_PATIENCE_S)
    sent = await body.whole(_LARGEST)
    if sent is None:
        raise WorkitemInvalidError(reason=f"it has more than {_LARGEST} bytes")
    if not sent and may_be_empty:
        return {}
    try:
        found: Any = json.loads(sent)
    except (ValueError, RecursionError) as error:
        raise WorkitemInvalidError(reason="it is no JSON") from error
    one = found[0] if isinstance(found, list) and len(found) == 1 else found
    if not isinstance(one, dict) or not all(_is_element(tag, each) for tag, each in one.items()):
        raise WorkitemInvalidError(reason="it is no data set in the JSON model of DICOM")
    return one


def _is_element(tag: str, element: object) -> bool:
    """Say whether this is an element, and everything below it."""
    if not _TAG.fullmatch(tag) or not isinstance(element, dict):
        return False
    values = element.get("Value", [])
    if not isinstance(element.get("vr"), str) or not isinstance(values, list):
        return False
    if element["vr"] != "SQ":
        return True
    return all(
        isinstance(item, dict) and all(_is_element(*each) for each in item.items())
        for item in values
    )


_BODY: Final = {_MEDIA_TYPE: {"schema": {"type": ["object", "array"]}}}
_SEARCH: Final = Operation(
    tag="worklist",
    what="Work items whose attributes (by keyword or tag) have these values, oldest first.",
    answers=(
        Answer(what="those", media_type=_MEDIA_TYPE),
        Answer(what="there is none", status=HTTPStatus.NO_CONTENT),
    ),
    errors=(WorkitemInvalidError,),
)
_CREATE: Final = Operation(
    tag="worklist",
    method="POST",
    what="Create a work item; its UID may stand in the query.",
    body=_BODY,
    answers=(Answer(what="it is created", media_type="", status=HTTPStatus.CREATED),),
    errors=(WorkitemInvalidError, WorkitemExistsError),
)
_RETRIEVE: Final = Operation(
    tag="worklist",
    what="A work item, without its Transaction UID.",
    answers=(Answer(what="the work item", media_type=_MEDIA_TYPE),),
    errors=(WorkitemUnknownError,),
)
_REFUSALS: Final = (  # of whatever changes a work item
    WorkitemUnknownError,
    WorkitemInvalidError,
    WorkitemConflictError,
    WorkitemRefusedError,
)
_UPDATE: Final = Operation(
    tag="worklist",
    method="POST",
    what="Change what a work item says; one in progress by its Transaction UID in the query.",
    body=_BODY,
    answers=(Answer(what="it is changed", media_type=""),),
    errors=_REFUSALS,
)
_CHANGE: Final = Operation(
    tag="worklist",
    method="PUT",
    what="Claim, complete or cancel a work item.",
    body=_BODY,
    answers=(Answer(what="it is there", media_type=""),),
    errors=_REFUSALS,
)
_CANCEL: Final = Operation(
    tag="worklist",
    method="POST",
    what="Cancel a work item that nobody has claimed, or ask its performer to.",
    body=_BODY,
    answers=(Answer(what="it is canceled or asked", media_type="", status=HTTPStatus.ACCEPTED),),
    errors=_REFUSALS,
)
