"""The PACS that can be asked: how many instances it holds of each series of a study.

Asking happens on threads of its own and never holds anybody up: `Source.expected` answers at once
with what is known by then. A PACS that does not answer costs one warning and is left alone for a
while; meanwhile the quiet period decides.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Final, TypeAlias

from pydicom.dataset import Dataset

from node import cfind, logs, peers
from node.assemble import Expectation
from node.cases import SeriesCount, Transport
from node.deliver import stow_client
from node.errors import NodeError, PeerRefusedError
from node.peers import Destination

Counts: TypeAlias = Mapping[str, SeriesCount]
"""Series Instance UID -> how many instances; a series whose count is not given has 0."""
Ask: TypeAlias = Callable[[str], Counts]
"""Asks the PACS about a Study Instance UID; raises a `NodeError` when it does not answer."""

_NAME: Final = "source"
_ASKED_AT_ONCE: Final = 4
_UNREADABLE: Final = (ValueError, TypeError, AttributeError)
_FIELDS: Final = ("Modality", "NumberOfSeriesRelatedInstances")


class Source:
    """What a PACS says of open studies, asked in the background.

    Parameters
    ----------
    ask : callable
        See `Ask`; it must come back by itself within a known time.
    poll_s : float
        How long an answer is good while nothing arrives, and how long a PACS that failed is left
        alone.
    """

    def __init__(self, ask: Ask, *, poll_s: float) -> None:
        self._ask = ask
        self._poll_s = poll_s
        self._lock = threading.Lock()
        self._answers: dict[str, tuple[datetime, Counts]] = {}
        self._asking: set[str] = set()
        self._paused_until = 0.0
        self._has_failed = False
        self._failed_at: datetime | None = None

    def expected(self, study_instance_uid: str, *, since: datetime, now: datetime) -> Expectation:
        """Return what the PACS has said of a study, and see to it that it is asked.

        Only what it was asked after `since`, when the last instance arrived, counts: it may have
        got more itself meanwhile. A question that is pending is one that may be waited for; after
        an outage none is.
        """
        with self._lock:
            asked_at, counts = self._answers.get(study_instance_uid, (since, {}))
            is_current = asked_at > since
            has_failed = self._failed_at is not None and self._failed_at > since
            if not is_current or (now - asked_at).total_seconds() >= self._poll_s:
                self._begin(study_instance_uid, now)
        if is_current:
            return Expectation(is_asked=True, series=counts)
        return Expectation(is_asked=True, is_pending=not has_failed)

    def forget(self, study_instance_uid: str) -> None:
        """Drop what is known of a study."""
        with self._lock:
            self._answers.pop(study_instance_uid, None)

    def _begin(self, study_instance_uid: str, now: datetime) -> None:
        is_paused = time.monotonic() < self._paused_until
        if is_paused or study_instance_uid in self._asking or len(self._asking) >= _ASKED_AT_ONCE:
            return
        self._asking.add(study_instance_uid)
        threading.Thread(
            target=self._inquire, args=(study_instance_uid, now), name=_NAME, daemon=True
        ).start()

    def _inquire(self, study_instance_uid: str, asked_at: datetime) -> None:
        counts: Counts | None = None
        try:
            counts = self._ask(study_instance_uid)
        except NodeError as error:
            if not self._has_failed:  # once an outage
                logs.get().warning("source.failed", code=error.code, sentence=str(error))
        finally:  # whatever else goes wrong ends this thread and is logged where threads end
            with self._lock:
                self._asking.discard(study_instance_uid)
                self._keep(study_instance_uid, asked_at, counts)

    def _keep(self, study_instance_uid: str, asked_at: datetime, counts: Counts | None) -> None:
        self._has_failed = counts is None
        if counts is None:
            self._answers.clear()  # nobody says any more whether they still hold
            self._paused_until = time.monotonic() + self._poll_s
            self._failed_at = asked_at
        else:
            self._answers[study_instance_uid] = asked_at, counts


def from_settings(source: peers.Source, *, calling_ae_title: str) -> Source | None:
    """Return the PACS of the settings, None where there is none."""
    if source.transport == "none":
        return None
    return Source(asking(source, calling_ae_title=calling_ae_title), poll_s=source.poll_s)


def asking(source: peers.Source, *, calling_ae_title: str) -> Ask:
    """Return what asks the PACS of the settings, on the thread that calls it."""
    peer = source.as_destination()
    is_dimse = peer.transport is Transport.DIMSE
    return partial(find, peer, calling_ae_title) if is_dimse else partial(qido, peer)


def qido(peer: Destination, study_instance_uid: str) -> Counts:
    """Return what a PACS holds of a study, asked by QIDO-RS.

    Raises
    ------
    PeerUnavailableError, PeerRefusedError
        No usable answer.

    References
    ----------
    DICOM PS3.18 10.6 Search Transaction, Table 10.6.3-4 (Number of Series Related Instances).
    """
    with stow_client.open_client(peer) as client:
        found = client.search_for_series(study_instance_uid, fields=list(_FIELDS))
        answers = [Dataset.from_json(one) for one in found]
        return _counts(answers)


def find(peer: Destination, calling_ae_title: str, study_instance_uid: str) -> Counts:
    """Return what a PACS holds of a study, asked by C-FIND.

    Raises
    ------
    PeerUnavailableError, PeerRefusedError
        No usable answer.
    """
    fields = ("SeriesInstanceUID", *_FIELDS)
    asked = cfind.query("SERIES", fields, StudyInstanceUID=study_instance_uid)
    try:
        return _counts(cfind.find(peer, calling_ae_title, asked))
    except _UNREADABLE as error:
        raise PeerRefusedError(destination=peer.name, status="unreadable answer") from error


def _counts(answers: list[Dataset]) -> Counts:
    return {
        str(one.SeriesInstanceUID): SeriesCount(
            modality=str(one.get("Modality") or ""),
            instance_count=int(one.get("NumberOfSeriesRelatedInstances") or 0),
        )
        for one in answers
    }
