"""One study from an archive: headers first, then the pixels of the series that the roles need.

What is decided here of headers is decided again of the files when they are here (`node.closing`),
by the same rules: `chosen` makes sure that the series alone come to the same end.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

import requests
from pydicom.dataset import Dataset

from converters.errors import CodedError, RoleMissingError
from converters.sequences import SeriesKey
from node import casting, disposition, facts
from node.assemble import Rules, SeriesFacts
from node.cases import ReceivedInstance
from node.casting import Cast
from node.disposition import Disposition
from node.door_errors import PullIncompleteError, PullStoppedError, PullStudyError
from node.errors import NodeError, PeerRefusedError
from node.facts import Site
from node.ledger import Ledger
from node.pull_orders import BEAT_S, Tally
from node.receive.instance import Intake
from node.receive.stow import Sender, StoreRequest
from node.wado import Archive

CALLING: Final = "WADO-RS"
"""The calling AE title of instances that were pulled."""
_AT_ONCE: Final = 4

Note = Callable[[Tally], bool]
"""Told how far a pull is, once a second and more; False ends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an archive has of a study, and what of it is needed.

    Parameters
    ----------
    study_instance_uid : str
        Which study.
    known : tuple of SeriesFacts
        What the headers say.
    cast : Cast
        Which acquisition would play which role, and why.
    instances : mapping of str to tuple of str
        SOP Instance UIDs of each series that is needed.
    tally : Tally
        The same in numbers.
    """

    study_instance_uid: str
    known: tuple[SeriesFacts, ...]
    cast: Cast
    instances: Mapping[str, tuple[str, ...]]
    tally: Tally


class Puller:
    """Pulls studies.

    Parameters
    ----------
    intake : Intake
        Takes the instances, as those that are sent.
    ledger : Ledger
        Knows what is stored.
    rules : Rules
        What the model needs.
    site : Site
        What the site says of its series.
    """

    def __init__(self, intake: Intake, ledger: Ledger, rules: Rules, site: Site) -> None:
        self._intake, self._ledger = intake, ledger
        self._rules, self._site = rules, site

    def plan(self, archive: Archive, study_instance_uid: str, beat: Callable[[], bool]) -> Plan:
        """Return what is needed of a study; nothing but headers is fetched.

        Raises
        ------
        PullStudyError
            The archive has nothing of it that could be used.
        PullStoppedError
            `beat`, called after each series, says that it is no longer wanted.
        PeerUnavailableError, PeerRefusedError
            The archive gives no usable answer.
        """
        headers: dict[str, dict[str, Dataset]] = {}
        for uid in archive.series(study_instance_uid):
            headers[uid] = archive.headers(study_instance_uid, uid)
            if not beat():
                raise PullStoppedError
        if not any(headers.values()):
            raise PullStudyError(destination=archive.name)
        known = tuple(
            one
            for uid, many in headers.items()
            for one in facts.facts_of_headers(
                list(many.values()), _instances(study_instance_uid, uid, many), self._site
            )
        )
        needed = chosen(known, self._rules)
        return Plan(
            study_instance_uid=study_instance_uid,
            known=known,
            cast=casting.cast(known, self._rules.roles, {}),
            instances={uid: tuple(many) for uid, many in headers.items() if uid in needed},
            tally=_tally(headers, needed),
        )

    def fetch(self, archive: Archive, plan: Plan, note: Note) -> Tally:
        """Store what is needed and not here yet; return the end of the tally.

        Raises
        ------
        PullStoppedError
            `note` says that it is no longer wanted.
        PullIncompleteError
            Instances cannot be stored; the others are.
        NodeError
            The archive gives no usable answer, or nothing can be stored for now.
        """
        study = plan.study_instance_uid
        here = {one.sop_instance_uid for one in self._ledger.study_instances(study)}
        lacking = [
            (uid, one) for uid, many in plan.instances.items() for one in many if one not in here
        ]
        tally = replace(plan.tally, images_here=plan.tally.images_wanted - len(lacking))
        fetching = _Fetching(self._intake, archive, study, lacking, tally)
        fetching.run(note)
        if fetching.tally.images_fetched:
            self._intake.released({study})
        if fetching.failures:
            raise PullIncompleteError(
                count=len(fetching.failures),
                total=len(lacking),
                first=fetching.failures[0].code,
            )
        return fetching.tally


class _Fetching:
    """Instances on their way, over a few connections at once."""

    def __init__(
        self,
        intake: Intake,
        archive: Archive,
        study: str,
        lacking: Sequence[tuple[str, str]],
        tally: Tally,
    ) -> None:
        self._intake, self._archive, self._study = intake, archive, study
        self._lacking = deque(lacking)
        self._stopping, self._lock = threading.Event(), threading.Lock()
        self.tally, self.failures = tally, list[CodedError]()

    def run(self, note: Note) -> None:
        """Fetch everything, or until told to stop."""
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="pull") as lanes:
            pending = {lanes.submit(self._lane) for _ in range(_AT_ONCE)}
            try:
                while pending:
                    done, pending = wait(pending, BEAT_S, FIRST_EXCEPTION)
                    for one in done:
                        one.result()
                    if not note(self.tally):
                        raise PullStoppedError
            finally:
                self._stopping.set()

    def _lane(self) -> None:
        with self._archive.open_session() as session:
            while not self._stopping.is_set():
                try:
                    series, instance = self._lacking.popleft()
                except IndexError:
                    return
                self._take(session, series, instance)

    def _take(self, session: requests.Session, series: str, instance: str) -> None:
        sender = Sender(calling_ae_title=CALLING, study_instance_uid=self._study)
        store = StoreRequest(self._intake, sender)
        address = f"studies/{self._study}/series/{series}/instances/{instance}"
        try:
            byte_count = self._archive.fetch(session, address, store, self._stopping.is_set)
        finally:
            store.close()
        if self._stopping.is_set() and not store.outcomes:
            return
        if [one.sop_instance_uid for one in store.outcomes] != [instance]:
            raise PeerRefusedError(destination=self._archive.name, status="another instance")
        self._count(store.outcomes[0].error, byte_count)

    def _count(self, error: NodeError | None, byte_count: int) -> None:
        if error is not None and disposition.of(error) is Disposition.RETRY:
            raise error  # no room, no database: nothing else can be stored either
        with self._lock:
            if error is not None:
                self.failures.append(error)
                return
            self.tally = replace(
                self.tally,
                images_here=self.tally.images_here + 1,
                images_fetched=self.tally.images_fetched + 1,
                bytes_fetched=self.tally.bytes_fetched + byte_count,
            )


def chosen(known: Sequence[SeriesFacts], rules: Rules) -> frozenset[str]:
    """Return the Series Instance UIDs that the roles need.

    They are all where a role stays empty that the model cannot do without, or is in doubt: then
    the node decides, or somebody chooses, with everything there is. So they are where the series
    would play other roles without the rest of the study beside them.
    """
    everything = frozenset(one.series_instance_uid for one in known)
    players = casting.cast(known, rules.roles, {})
    for role, error in players.failures.items():
        if role not in rules.may_be_missing or not isinstance(error, RoleMissingError):
            return everything
    needed = frozenset(one.series_instance_uid for one in players.players.values())
    alone = casting.cast(
        [one for one in known if one.series_instance_uid in needed], rules.roles, {}
    )
    return needed if _keys(alone) == _keys(players) else everything


def _keys(players: Cast) -> dict[str, SeriesKey]:
    return {role: facts.key for role, facts in players.players.items()}


def _instances(
    study: str, series: str, headers: Mapping[str, Dataset]
) -> tuple[ReceivedInstance, ...]:
    """Return instances of an archive as those that are received; nothing of them is here."""
    now = datetime.now(UTC)
    return tuple(
        ReceivedInstance(
            study_instance_uid=study,
            series_instance_uid=series,
            sop_class_uid=str(header.get("SOPClassUID") or ""),
            sop_instance_uid=uid,
            transfer_syntax_uid="",
            calling_ae_title=CALLING,
            path=uid,
            byte_count=0,
            sha256="",
            received_at=now,
        )
        for uid, header in headers.items()
    )


def _tally(headers: Mapping[str, Mapping[str, Dataset]], needed: frozenset[str]) -> Tally:
    wanted = [many for uid, many in headers.items() if uid in needed]
    left_out = [many for uid, many in headers.items() if uid not in needed]
    return Tally(
        series_count=len(headers),
        image_count=sum(map(len, headers.values())),
        series_wanted=len(wanted),
        images_wanted=sum(map(len, wanted)),
        bytes_left_out=sum(_pixel_bytes(one) for many in left_out for one in many.values()),
    )


def _pixel_bytes(header: Dataset) -> int:
    """Return how much the pixels of an instance take, uncompressed; 0 where it does not say."""
    try:
        frames = int(header.get("NumberOfFrames") or 1)
        bits = int(header.Rows) * int(header.Columns) * int(header.BitsAllocated)
        return frames * bits * int(header.get("SamplesPerPixel") or 1) // 8
    except (AttributeError, TypeError, ValueError):
        return 0
