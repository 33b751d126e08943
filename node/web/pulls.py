"""``/api/v1/studies/{uid}/process``: programs have a study pulled, and ask how far it is.

The request is a row of the ledger; the work role pulls (`node.pulling`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from node import logs, peers
from node.door_errors import PullSourceError, PullUnknownError
from node.errors import RequestInvalidError
from node.ledger import Ledger
from node.pull_orders import PullOrders, PullState, Tally
from node.receive.dataset import is_uid
from node.web.api import as_json
from node.web.operations import Answer, Endpoint, Operation, Parameter
from node.web.views import Sources

_PATH: Final = "/api/v1/studies/{study_instance_uid}/process"
_FROM: Final = Parameter(
    name="from",
    place="query",
    what="which archive: source, or the name of a destination",
    schema={"type": "string", "default": peers.SOURCE},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PullView:
    """How a pull stands; `code`, `sentence` and `advice` say why it failed or is tried again."""

    state: PullState
    source: str
    asked_at: datetime
    ended_at: datetime | None
    next_at: datetime | None
    attempt_count: int
    tally: Tally
    code: str | None
    sentence: str | None
    advice: str | None
    case_ids: tuple[str, ...]


class Pulls:
    """The endpoint.

    Parameters
    ----------
    sources : Sources
        What the web role reads from.
    ledger : Ledger
        Takes what is wanted.
    """

    def __init__(self, sources: Sources, ledger: Ledger) -> None:
        self._settings, self._ledger = sources.settings, ledger
        self._orders = PullOrders(
            ledger.engine, timeout_s=sources.settings.jobs.heartbeat_timeout_s
        )

    def routes(self) -> list[BaseRoute]:
        """Return where the endpoint answers."""
        return [Endpoint(_PATH, self.process, _SHOW, _WANT)]

    async def process(self, request: Request) -> Response:
        """Answer how the pull of a study stands, which POST asks for.

        What is stored is not fetched again; while the study is being pulled nothing changes.
        """
        study = _study_of(request)
        if request.method != "POST":
            return as_json(await run_in_threadpool(self._view, study))
        name = request.query_params.get("from", peers.SOURCE)
        peers.archive_of(self._settings.source, self._settings.destinations, name)
        await run_in_threadpool(self._orders.want, study, name)
        logs.get().info("pull.wanted")
        answer = as_json(await run_in_threadpool(self._view, study))
        answer.status_code = HTTPStatus.ACCEPTED.value
        answer.headers["location"] = request.url.path
        return answer

    def _view(self, study: str) -> PullView:
        row = self._orders.row(study)
        return PullView(
            state=row.state,
            source=row.source,
            asked_at=row.asked_at,
            ended_at=row.ended_at,
            next_at=row.next_at,
            attempt_count=row.tries,
            tally=row.tally,
            code=row.code,
            sentence=row.sentence,
            advice=row.advice,
            case_ids=tuple(one.case_id for one in self._ledger.cases_of_study(study)),
        )


def _study_of(request: Request) -> str:
    study = str(request.path_params["study_instance_uid"])
    if not is_uid(study):
        raise RequestInvalidError(parameter="study_instance_uid", expected="a UID")
    return study


_SHOW: Final = Operation(
    tag="studies",
    what="How far the pull of a study is, and its cases, newest first.",
    answers=(Answer(what="how it stands", shape=PullView),),
    errors=(PullUnknownError, RequestInvalidError),
)
_WANT: Final = Operation(
    tag="studies",
    method="POST",
    what="Have the node fetch a study from an archive and process it.",
    parameters=(_FROM,),
    answers=(
        Answer(
            what="it is wanted; ask at the same address", shape=PullView, status=HTTPStatus.ACCEPTED
        ),
    ),
    errors=(PullSourceError, RequestInvalidError),
)
