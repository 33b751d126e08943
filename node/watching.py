"""An archive that is asked again and again for new MR studies, each of which is pulled once.

A study is new while the ledger knows neither a pull nor a case of it, through whichever door that
came: so nobody has to remember what was seen, and two nodes that share a ledger may both watch.

References
----------
DICOM PS3.18 10.6 Search Transaction, Table 10.6.1-5 (attributes of a study); PS3.4 C.6.2.1.2.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from pydicom.dataset import Dataset

from node import cfind, logs
from node.cases import Transport
from node.deliver import stow_client
from node.errors import NodeError, PeerRefusedError
from node.ledger import Ledger
from node.peers import SOURCE
from node.pull_orders import PullOrders
from node.receive.dataset import is_uid
from node.settings import Settings

_FIELDS: Final = ("NumberOfStudyRelatedInstances", "StudyDescription")


class Watching:
    """Has new studies pulled; `look` is called again and again by one thread.

    Parameters
    ----------
    settings : Settings
        Name the archive, which of its studies are wanted, and who we are.
    ledger : Ledger
        Knows which are new.
    clock : callable, optional
        Seconds of a clock that only runs.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._peer, self._rule = settings.source.as_destination(), settings.source.watch
        self._calling_ae_title = settings.receive.ae_title
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
        keys = {"ModalitiesInStudy": "MR", "StudyDate": f"{first:%Y%m%d}-"}
        if self._peer.transport is Transport.STOW:
            with stow_client.open_client(self._peer) as client:
                found = client.search_for_studies(fields=list(_FIELDS), search_filters=keys)
                return self._meeting(stow_client.datasets(found))
        asked = cfind.query("STUDY", ("StudyInstanceUID", *_FIELDS), **keys)
        try:
            return self._meeting(cfind.find(self._peer, self._calling_ae_title, asked))
        except (ValueError, TypeError, AttributeError) as error:
            raise PeerRefusedError(destination=SOURCE, status="unreadable answer") from error

    def _meeting(self, answers: Iterable[Dataset]) -> dict[str, int]:
        """Return of the answers those that meet the rule; some archives do not ask for MR."""
        return {
            str(one.StudyInstanceUID): int(one.get(_FIELDS[0]) or 0)
            for one in answers
            if is_uid(str(one.StudyInstanceUID))
            and "MR" in (one.get("ModalitiesInStudy") or "MR")
            and re.search(self._rule.description, str(one.get(_FIELDS[1]) or ""), re.IGNORECASE)
        }

    def _is_new(self, study: str) -> bool:
        return self._orders.find(study) is None and not self._ledger.cases_of_study(study)
