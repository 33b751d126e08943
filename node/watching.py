"""An archive that is asked again and again for new MR studies, each of which is pulled once.

A study is new while the ledger knows neither a pull nor a case of it, through whichever door that
came: so nobody has to remember what was seen, and two nodes that share a ledger may both watch.

References
----------
DICOM PS3.18 10.6 Search Transaction, Table 10.6.1-5 (attributes of a study).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from node import logs
from node.deliver import stow_client
from node.errors import NodeError
from node.ledger import Ledger
from node.peers import SOURCE, Source
from node.pull_orders import PullOrders
from node.receive.dataset import is_uid

_FIELDS: Final = ("NumberOfStudyRelatedInstances", "StudyDescription")


class Watching:
    """Has new studies pulled; `look` is called again and again by one thread.

    Parameters
    ----------
    source : Source
        The archive, and which of its studies are wanted.
    ledger : Ledger
        Knows which are new.
    clock : callable, optional
        Seconds of a clock that only runs.
    """

    def __init__(
        self, source: Source, ledger: Ledger, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._peer, self._rule = source.as_destination(), source.watch
        self._ledger, self._orders = ledger, PullOrders(ledger.engine)
        self._clock = clock
        self._seen: dict[str, tuple[int, float]] = {}
        self._has_failed = False

    def look(self) -> None:
        """Ask once, and want what is new, meets the rule and has stopped growing."""
        try:
            found = self._ask()
        except NodeError as error:
            if not self._has_failed:  # once an outage
                logs.get().warning("watch.failed", code=error.code, sentence=str(error))
            self._has_failed = True
            return
        self._has_failed = False
        now = self._clock()
        earlier, self._seen = self._seen, {}
        for study, count in found.items():
            if not self._is_new(study):
                continue
            seen = earlier.get(study)
            since = seen[1] if seen is not None and seen[0] == count else now
            self._seen[study] = count, since
            if now - since >= self._rule.settle_s and self._orders.want_once(study, SOURCE):
                logs.get().info("pull.wanted", reason="it is new in the archive")

    def _ask(self) -> dict[str, int]:
        """Return how many instances each study has that meets the rule."""
        first = datetime.now(UTC).astimezone().date() - timedelta(days=self._rule.since_days)
        with stow_client.open_client(self._peer) as client:
            answers = client.search_for_studies(
                fields=list(_FIELDS),
                search_filters={"ModalitiesInStudy": "MR", "StudyDate": f"{first:%Y%m%d}-"},
            )
            return {
                str(one.StudyInstanceUID): int(one.get(_FIELDS[0]) or 0)
                for one in stow_client.datasets(answers)
                if is_uid(str(one.StudyInstanceUID))
                and re.search(self._rule.description, str(one.get(_FIELDS[1]) or ""), re.IGNORECASE)
            }

    def _is_new(self, study: str) -> bool:
        return self._orders.find(study) is None and not self._ledger.cases_of_study(study)
