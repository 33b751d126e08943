"""One study from an archive: headers first, then the pixels of the series that the roles need.

What is decided here of headers is decided again of the files when they are here (`node.closing`),
by the same rules: `chosen` makes sure that the series alone come to the same end. Where an archive
shows no header of each image the decision is tried on what has come, and all the rest fetched where
it does not hold (`Puller.widened`).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pydicom.dataset import Dataset

from converters.errors import CodedError, RoleMissingError
from converters.sequences import SeriesKey
from node import casting, disposition, facts
from node.archives import Archive, Headers, Taken
from node.assemble import Rules, SeriesFacts
from node.cases import ReceivedInstance
from node.casting import Cast
from node.disposition import Disposition
from node.door_errors import PullIncompleteError, PullStoppedError, PullStudyError
from node.facts import Site
from node.ledger import Ledger
from node.pull_orders import BEAT_S, Tally
from node.receive.instance import Intake
from node.spool import Spool

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
    everything : mapping of str to tuple of str
        SOP Instance UIDs of each series.
    needed : frozenset of str
        Which of the series are.
    is_certain : bool
        Whether every image's header is known.
    tally : Tally
        The same in numbers.
    """

    study_instance_uid: str
    known: tuple[SeriesFacts, ...]
    cast: Cast
    everything: Mapping[str, tuple[str, ...]]
    needed: frozenset[str]
    is_certain: bool
    tally: Tally

    @property
    def instances(self) -> dict[str, tuple[str, ...]]:
        """SOP Instance UIDs of each series that is needed."""
        return {uid: many for uid, many in self.everything.items() if uid in self.needed}


class Puller:
    """Pulls studies.

    Parameters
    ----------
    intake : Intake
        Takes the instances, as those that are sent.
    spool, ledger : Spool, Ledger
        Hold and know what is stored.
    rules : sequence of Rules
        What each model needs, that of the first one first.
    site : Site
        What the site says of its series.
    """

    def __init__(
        self, intake: Intake, spool: Spool, ledger: Ledger, *, rules: Sequence[Rules], site: Site
    ) -> None:
        self._intake, self._spool, self._ledger = intake, spool, ledger
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
        found: dict[str, Headers] = {}
        for uid in archive.series(study_instance_uid):
            found[uid] = archive.headers(study_instance_uid, uid)
            if not beat():
                raise PullStoppedError
        headers = {uid: one.by_uid for uid, one in found.items()}
        if not any(headers.values()):
            raise PullStudyError(destination=archive.name)
        known = tuple(
            one
            for uid, many in found.items()
            for one in self._facts(many, _instances(study_instance_uid, uid, many.by_uid))
        )
        needed = frozenset[str]().union(*(chosen(known, one) for one in self._rules))
        return Plan(
            study_instance_uid=study_instance_uid,
            known=known,
            cast=casting.cast(known, self._rules[0].roles, {}),
            everything={uid: tuple(many) for uid, many in headers.items()},
            needed=needed,
            is_certain=not any(one.is_sample for one in found.values()),
            tally=_tally(headers, needed),
        )

    def _facts(
        self, found: Headers, instances: tuple[ReceivedInstance, ...]
    ) -> tuple[SeriesFacts, ...]:
        headers = list(found.by_uid.values())
        if found.is_sample and len(instances) >= self._site.limits.fewest_slices:
            return facts.facts_of_sample(headers[0], instances, self._site)
        return facts.facts_of_headers(headers, instances, self._site)

    def widened(self, plan: Plan, tally: Tally) -> Plan | None:
        """Return a plan of everything where what has come by a plan does not do, else None."""
        if plan.is_certain or plan.needed == plan.everything.keys():
            return None
        stored = self._ledger.study_instances(plan.study_instance_uid)
        known = facts.read_facts(stored, self._spool, self._site)
        if not any(_lacks(casting.cast(known, one.roles, {}), one) for one in self._rules):
            return None
        images = sum(map(len, plan.everything.values()))
        whole = replace(
            tally, series_wanted=len(plan.everything), images_wanted=images, bytes_left_out=0
        )
        return replace(plan, needed=frozenset(plan.everything), tally=whole)

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
        lacking = {
            uid: [one for one in many if one not in here] for uid, many in plan.instances.items()
        }
        total = sum(map(len, lacking.values()))
        tally = replace(plan.tally, images_here=plan.tally.images_wanted - total)
        batches = [
            (uid, batch)
            for uid, many in lacking.items()
            for batch in archive.batches(many, plan.instances[uid])
        ]
        fetching = _Fetching(self._intake, archive, study, batches, tally)
        fetching.run(note)
        if fetching.tally.images_fetched:
            self._intake.released({study})
        if fetching.failures:
            raise PullIncompleteError(
                count=len(fetching.failures),
                total=total,
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
        batches: Sequence[tuple[str, tuple[str, ...]]],
        tally: Tally,
    ) -> None:
        self._intake, self._archive, self._study = intake, archive, study
        self._batches = deque(batches)
        self._stopping, self._lock = threading.Event(), threading.Lock()
        self.tally, self.failures = tally, list[CodedError]()

    def run(self, note: Note) -> None:
        """Fetch everything, or until told to stop."""
        count = min(self._archive.lane_count, len(self._batches))
        with ThreadPoolExecutor(max(count, 1), thread_name_prefix="pull") as lanes:
            pending = {lanes.submit(self._lane) for _ in range(count)}
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
        with self._archive.open_lane(self._study, self._intake) as lane:
            while not self._stopping.is_set():
                try:
                    series, batch = self._batches.popleft()
                except IndexError:
                    return
                self._count(lane.take(series, batch, self._stopping.is_set))

    def _count(self, taken: Taken) -> None:
        for error in taken.outcomes:
            if error is not None and disposition.of(error) is Disposition.RETRY:
                raise error  # no room, no database: nothing else can be stored either
        stored = sum(error is None for error in taken.outcomes)
        with self._lock:
            self.failures += [error for error in taken.outcomes if error is not None]
            self.tally = replace(
                self.tally,
                images_here=self.tally.images_here + stored,
                images_fetched=self.tally.images_fetched + stored,
                bytes_fetched=self.tally.bytes_fetched + (taken.byte_count if stored else 0),
            )


def chosen(known: Sequence[SeriesFacts], rules: Rules) -> frozenset[str]:
    """Return the Series Instance UIDs that the roles need.

    They are all where a role stays empty that the model cannot do without, or is in doubt: then
    the node decides, or somebody chooses, with everything there is. So they are where the series
    would play other roles without the rest of the study beside them.
    """
    everything = frozenset(one.series_instance_uid for one in known)
    players = casting.cast(known, rules.roles, {})
    if _lacks(players, rules):
        return everything
    needed = frozenset(one.series_instance_uid for one in players.players.values())
    alone = casting.cast(
        [one for one in known if one.series_instance_uid in needed], rules.roles, {}
    )
    return needed if _keys(alone) == _keys(players) else everything


def _lacks(players: Cast, rules: Rules) -> bool:
    """Say whether a role is empty that the model cannot do without, or is in doubt."""
    return any(
        role not in rules.may_be_missing or not isinstance(error, RoleMissingError)
        for role, error in players.failures.items()
    )


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
            calling_ae_title="",
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
