"""Looks at open cases again and again, asks `assemble` about each, and acts on the answer.

Also the safety net of the pipeline: a case between two states that has no job gets one, and one
whose job the engine has given up is failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, NamedTuple, TypeAlias

from sqlalchemy.exc import SQLAlchemyError

from converters.errors import CodedError
from converters.sequences import SeriesKey
from converters.volume import Role
from inference.manifest import Manifest
from node import assemble, logs, model_set, owed, routing, source
from node.arrivals import Arrivals
from node.assemble import Close, Decision, Expectation, OpenCase, Rules, SeriesFacts, Wait
from node.cases import (
    WORKING,
    AssembledSeries,
    CaseRoute,
    CaseState,
    Ending,
    ReceivedInstance,
    SeriesCount,
    SeriesDecision,
)
from node.clocks import SteadyClock
from node.disposition import coded, ending_of
from node.door_errors import RouteLeftOutError
from node.errors import ConfigError, JobCrashedError, NothingNewError
from node.facts import FactReader, Site, first_readable, read_facts
from node.jobs import Jobs
from node.orders import OrderBook
from node.pipeline import Parts, finish_if_served, next_jobs
from node.pull_orders import PullOrders
from node.rows import CaseRow
from node.settings import Assemble, Settings

__all__ = ["Closer", "open_case", "read_facts", "rules_of", "site_of"]

Clock: TypeAlias = Callable[[], datetime]

_BATCH = 1000
_OVERSLEPT_S: Final = 60.0  # by which clocks of two machines may differ
_COMMON_ROLES: Final = ("flair", "t1", "t1gd", "t2")  # rules may speak of what the model leaves out


class _Seen(NamedTuple):
    """What a decision is based on; it holds only where nothing has changed since."""

    instance_count: int
    choices: Mapping[Role, SeriesKey]


class Closer:
    """Closes cases and keeps them moving; `look` once a second, `tend` now and then."""

    def __init__(self, parts: Parts, jobs: Jobs, *, clock: Clock | None = None) -> None:
        self._parts = parts
        self._ledger = parts.ledger
        self._jobs = jobs
        self._rules = {
            one.id: rules_of(one, parts.settings.assemble)
            for one in (parts.manifest, *parts.further)
        }
        site = site_of(parts.manifest, parts.settings, parts.further)
        self._facts = FactReader(parts.spool, site)
        self._source = source.from_settings(
            parts.settings.source, calling_ae_title=parts.settings.receive.ae_title
        )
        self._pulls = PullOrders(self._ledger.engine)
        self._clock = clock or SteadyClock()
        self._arrivals = Arrivals(self._clock)
        self._open: dict[str, CaseRow] = {}
        self._noted: dict[str, Wait] = {}
        self._asked: dict[str, tuple[object, datetime]] = {}

    def look(self) -> None:
        """Ask about every open case once."""
        rows = self._ledger.cases(CaseState.RECEIVING, limit=_BATCH)
        self._forget_all_but(rows)
        self._arrivals.begin_look()
        for row in rows:
            try:
                self._look_at(row, self._clock())
            except SQLAlchemyError:
                raise  # no fault of the case: the next round does the same again
            except Exception as error:  # noqa: BLE001 - one open case; its neighbours go on
                self._fail(row, coded(error))

    def _fail(self, row: CaseRow, error: CodedError) -> None:
        self._forget(row)
        self._ledger.end_case(row.case_id, ending_of(error, CaseState.FAILED))
        logs.get().error("case.failed", case_id=row.case_id, code=error.code, sentence=str(error))

    def _look_at(self, row: CaseRow, now: datetime) -> None:
        steady = self._arrivals.told_steadily(row)
        case, rules = open_case(steady), self._rules[self._parts.manifest_of(row).id]
        if not assemble.is_worth_asking(case, rules, now):
            return
        expected = self._expected(row, case, now)
        state = row.updated_at, row.last_received_at, row.released_at, expected
        earlier, asked_at = self._asked.get(row.case_id, (None, now))
        is_same = state == earlier
        if is_same and not assemble.is_worth_asking(case, rules, now, asked_at):
            return
        decision, seen = self._decide(steady, expected, now)
        if isinstance(decision, Wait):
            self._asked[row.case_id] = state, now
            self._note(row, decision)
            return
        route = self._route(row)
        manifest = self._parts.manifest_of(row)
        if route is not None and route.models is not None and manifest.id not in route.models:
            ending = ending_of(RouteLeftOutError(rule=route.rule), CaseState.CANCELLED)
            self._end(row, ending, decision.decisions, seen, route)
        elif isinstance(decision, Close):
            self._close(row, decision, seen, route)
        else:
            ending = ending_of(decision.error, CaseState.REJECTED)
            if self._end(row, ending, decision.decisions, seen, route):
                logs.get().warning(
                    "case.rejected",
                    case_id=row.case_id,
                    code=ending.code,
                    sentence=ending.sentence,
                )

    def _decide(self, row: CaseRow, expected: Expectation, now: datetime) -> tuple[Decision, _Seen]:
        case = open_case(row, self._ledger.choices(row.case_id))
        instances = self._ledger.study_instances(row.study_instance_uid)
        facts = self._facts_of(row, instances)
        rules = self._rules[self._parts.manifest_of(row).id]
        decision = assemble.decide(case, facts, rules, now, expected)
        return decision, _Seen(len(instances), case.by_hand)

    def _end(
        self,
        row: CaseRow,
        ending: Ending,
        decisions: Iterable[SeriesDecision],
        seen: _Seen,
        route: CaseRoute | None,
    ) -> bool:
        """End an open case; False when more has arrived and the next round decides anew."""
        ended = self._ledger.refuse_open_case(
            row.case_id,
            ending,
            decisions,
            seen_instances=seen.instance_count,
            seen_choices=seen.choices,
            also_for=self._others(row, route),
        )
        if ended:
            self._forget(row)
        return ended

    def _close(self, row: CaseRow, decision: Close, seen: _Seen, route: CaseRoute | None) -> None:
        if self._changes_nothing(row, decision):
            ending = ending_of(NothingNewError(), CaseState.CANCELLED)
            if self._end(row, ending, decision.decisions, seen, route):
                logs.get().info("case.cancelled", case_id=row.case_id, code=ending.code)
            return
        case = decision.case
        if route is not None and route.reference_role in {one.role for one in case.series}:
            case = replace(case, reference_role=route.reference_role)
        closed = self._ledger.close_case(
            case,
            decision.decisions,
            decision.reason,
            seen_instances=seen.instance_count,
            seen_choices=seen.choices,
            route=self._in_the_shadow(row, route),
            also_for=self._others(row, route),
        )
        if closed:
            self._forget(row)
            logs.get().info(
                "case.closed",
                case_id=row.case_id,
                revision=row.revision,
                closed_by=decision.case.closed_by.value,
                reason=decision.reason,
                series_count=len(decision.decisions),
                instance_count=seen.instance_count,
            )
            self._submit(self._ledger.case(row.case_id))

    def _route(self, row: CaseRow) -> CaseRoute | None:
        """Return where the result goes, by who sent the study and the header of an image."""
        settings, spool = self._parts.settings, self._parts.spool
        if not settings.routes:
            return None
        held = self._ledger.study_instances(row.study_instance_uid)
        header = first_readable([spool.instance_path(one.path) for one in held])
        return routing.decide(settings, self._ledger.senders(row.study_instance_uid), header)

    def _in_the_shadow(self, row: CaseRow, route: CaseRoute | None) -> CaseRoute | None:
        """Return the route of a case whose model may be one that delivers nothing."""
        parts = self._parts
        if not model_set.is_shadow(parts.manifest_of(row), parts.settings, parts.further):
            return route
        reference = "" if route is None else route.reference_role
        return CaseRoute(rule="shadow", destinations=(), reference_role=reference)

    def _others(self, row: CaseRow, route: CaseRoute | None) -> list[str]:
        """Return the models that work on the study, too, once the first one has been decided."""
        parts = self._parts
        if parts.manifest_of(row) is not parts.manifest:
            return []
        wanted = None if route is None else route.models
        return [one.model_id for one in parts.further if wanted is None or one.id in wanted]

    def _changes_nothing(self, row: CaseRow, decision: Close) -> bool:
        """Say whether an earlier revision, still good, was made from the very same instances."""
        wanted = _members(decision.case.series)
        earlier = self._ledger.earlier_revisions(row)
        return any(
            self._ledger.members(one.case_id) == wanted
            for one in earlier
            if one.state in (*WORKING, CaseState.HELD, CaseState.DELIVERED)
        )

    def _facts_of(self, row: CaseRow, instances: list[ReceivedInstance]) -> tuple[SeriesFacts, ...]:
        return self._facts.of(row.case_id, instances)

    def _expected(self, row: CaseRow, case: OpenCase, now: datetime) -> Expectation:
        """Return what more may come: of a study that is pulled, what is needed of it."""
        pulled = self._pulls.find(row.study_instance_uid)
        if pulled is not None and pulled.holds(row.last_received_at):
            counts = {
                uid: SeriesCount(modality="MR", instance_count=count)
                for uid, count in pulled.plan.items()
            }
            return Expectation(is_asked=True, is_pending=pulled.is_open, series=counts)
        if self._source is None:
            return assemble.NO_SOURCE
        return self._source.expected(case.study_instance_uid, since=case.last_received_at, now=now)

    def _note(self, row: CaseRow, decision: Wait) -> None:
        """Write down what is waited for, when that has changed."""
        if self._noted.get(row.case_id) != decision:
            self._ledger.note_waiting(row.case_id, decision.reason, decision.decisions)
            self._noted[row.case_id] = decision

    def _forget_all_but(self, rows: Iterable[CaseRow]) -> None:
        """Drop what is remembered of cases that others have ended meanwhile."""
        now = {row.case_id: row for row in rows}
        for case_id in self._open.keys() - now.keys():
            self._forget(self._open[case_id])
        self._open = now

    def _forget(self, row: CaseRow) -> None:
        self._facts.forget(row.case_id)
        self._arrivals.forget(row.case_id)
        self._noted.pop(row.case_id, None)
        self._asked.pop(row.case_id, None)
        if self._source is not None:
            self._source.forget(row.study_instance_uid)

    def _submit(self, row: CaseRow) -> None:
        for job in next_jobs(row, self._ledger, self._parts.settings.destinations):
            self._jobs.submit(job)

    def tend(self) -> None:
        """Give every unfinished case a job, and fail those whose job was given up."""
        self._act_on_reports()
        self._give_haste()
        self._jobs.wake_overslept(self._longest_wait_s())
        working = self._ledger.cases(*WORKING, limit=_BATCH)
        self._jobs.reorder({row.case_id: row.priority for row in working})
        busy = self._jobs.active_case_ids()
        for row in working:
            if row.case_id in busy:
                continue
            current = self._ledger.case(row.case_id)
            if self._jobs.dead_job_ids(row.case_id, row.run) and current.state is row.state:
                ending = ending_of(JobCrashedError(stage=row.state.value), CaseState.FAILED)
                self._ledger.end_case(row.case_id, ending)
                logs.get().error("case.failed", case_id=row.case_id, code=ending.code)
            else:
                finish_if_served(current, self._ledger, self._parts.settings.destinations)
                self._submit(current)

    def _give_haste(self) -> None:
        """Start the delayed deliveries of cases whose operator does not want to wait for them."""
        orders = OrderBook(self._ledger.engine)
        for case_id in orders.hasty():
            self._jobs.hasten(case_id)
            orders.hastened(case_id)

    def _longest_wait_s(self) -> float:
        settings = self._parts.settings
        waits_s = [one.commitment_timeout_s for one in settings.destinations if one.commitment]
        return max([settings.delivery.longest_delay_s, *waits_s]) + _OVERSLEPT_S

    def _act_on_reports(self) -> None:
        """Go on with cases that a destination has answered about: storage commitment."""
        destinations = self._parts.settings.destinations
        for one in self._ledger.answered_commitments():
            finish_if_served(self._ledger.case(one.case_id), self._ledger, destinations)
            asked = [each for each in destinations if each.name == one.destination]
            if not all(owed.is_served(one.case_id, self._ledger, each) for each in asked):
                self._jobs.hasten(one.case_id, one.destination)
            last = self._ledger.newest_commitment(one.case_id, one.destination)
            if not one.failures or one != last:
                self._ledger.conclude(one.transaction_uid)  # else the next attempt does it


def _members(series_of_case: Iterable[AssembledSeries]) -> set[tuple[str, str, str]]:
    return {
        (one.role, one.part, instance.sop_instance_uid)
        for one in series_of_case
        for instance in one.instances
    }


def open_case(row: CaseRow, by_hand: Mapping[Role, SeriesKey] | None = None) -> OpenCase:
    """Return what `assemble` has to know of a case, with what an operator chose for it."""
    return OpenCase(
        case_id=row.case_id,
        study_instance_uid=row.study_instance_uid,
        opened_at=row.opened_at,
        last_received_at=row.last_received_at,
        released_at=row.released_at,
        is_forced=row.completion_requested_at is not None,
        by_hand=by_hand or {},
    )


def rules_of(manifest: Manifest, waiting: Assemble) -> Rules:
    """Return what a model needs and how long to wait for it."""
    missing = manifest.missing_input
    return Rules(
        roles=manifest.roles,
        reference_role=manifest.reference_role,
        may_be_missing=frozenset(missing.allowed if missing.policy == "zero" else ()),
        settle_s=waiting.settle_s,
        released_quiet_s=waiting.released_quiet_s,
        quiet_s=waiting.quiet_s,
        deadline_s=waiting.deadline_s,
        deadline_action=waiting.deadline_action,
    )


def site_of(manifest: Manifest, settings: Settings, further: Sequence[Manifest] = ()) -> Site:
    """Return what the site says of its series.

    Raises
    ------
    ConfigError
        A rule names a role that neither the models nor anybody else knows, or a destination or a
        route one that the models have not.
    """
    roles = model_set.roles_of(manifest, further)
    known = {*roles, *_COMMON_ROLES}
    rules = tuple(one.as_rule() for one in settings.assemble.series_rules)
    for rule in rules:
        if rule.role is not None and rule.role not in known:
            among = ", ".join([*sorted(known), "other"])
            reason = f"assemble.series_rules {rule.name!r}: role is none of {among}"
            raise ConfigError(reason=reason)
    routing.check(settings, roles)
    for one in settings.destinations:
        if not {*one.also} <= {*roles}:
            among = ", ".join(roles)
            raise ConfigError(reason=f"destinations {one.name!r}: also is none of {among}")
    return Site(rules=rules, limits=settings.geometry.as_limits())
