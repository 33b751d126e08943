"""What the node counts, in the text format of Prometheus; nothing in it is about a patient.

Every figure is read from the ledger when it is asked for, so that all processes of a node, and
those that were restarted, count as one; refusals alone, which leave nothing in it, begin anew with
the process of their door.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from node import tallies
from node.cases import CaseState
from node.rows import WorkerRow
from node.tallies import BOUNDS_S, Durations
from node.web import health, machine
from node.web.operations import Answer, Endpoint, Operation
from node.web.views import Sources

_FRESH_S: Final = 5.0
_DOORS: Final = {"receive": "dimse", "web": "stow"}
_QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)


class Metrics:
    """The endpoint; an answer is good for five seconds, however often it is asked for."""

    def __init__(self, sources: Sources) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Node(sources))
        self._turn = threading.Lock()
        self._text, self._made_at = b"", -_FRESH_S

    def routes(self) -> list[BaseRoute]:
        """Return where the endpoint answers."""
        answer = Answer(what="the figures", media_type="text/plain")
        return [Endpoint("/metrics", self.metrics, Operation(tag="node", answers=(answer,)))]

    def metrics(self, _: Request) -> Response:
        """Answer all figures in the text format of Prometheus."""
        with self._turn:
            if time.monotonic() - self._made_at >= _FRESH_S:
                self._text, self._made_at = generate_latest(self._registry), time.monotonic()
            return Response(self._text, headers={"Content-Type": CONTENT_TYPE_LATEST})


class _Node(Collector):
    """All families of figures."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def describe(self) -> list[Metric]:
        """Return nothing: the ledger is not asked before somebody wants to know."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        found = tallies.read(self._sources.ledger)
        yield from self._of_health()
        yield from self._of_spool(found)
        states = {state.value: found.states.get(state.value, 0) for state in CaseState}
        yield _gauge("cases", "Cases in each state", ["state"], states)
        yield _gauge(
            "cases_with_code", "Cases that ended with a code", ["state", "code"], found.codes
        )
        yield _counter(
            "attempts",
            "Attempts that ended, by stage and outcome",
            ["stage", "destination", "outcome", "code"],
            found.attempts,
        )
        yield _gauge(
            "cases_to_try_again",
            "Cases that a destination has not taken yet, after an attempt that failed",
            ["destination"],
            machine.retry_counts(self._sources),
        )
        yield _counter(
            "refusals",
            "Instances and associations that a door refused since its process began",
            ["door", "code"],
            _refusals(self._sources.ledger.workers()),
        )
        yield _counter(
            "delivered_objects",
            "Objects that a destination has taken",
            ["destination", "transport", "status"],
            found.receipts,
        )
        stages = HistogramMetricFamily(
            "neuroseg_stage_seconds", "How long a stage took that was done", labels=["stage"]
        )
        for stage, durations in found.stages.items():
            stages.add_metric([stage], *_buckets(durations))
        yield stages
        turnaround = HistogramMetricFamily(
            "neuroseg_turnaround_seconds", "From a study's last image to its delivered result"
        )
        turnaround.add_metric([], *_buckets(found.turnaround))
        yield turnaround
        yield from _of_results(found.latest)

    def _of_health(self) -> Iterator[Metric]:
        sources = self._sources
        state = health.read(sources.ledger, sources.manifest, sources.settings.jobs, sources.spool)
        told = "1 where a study sent now would be segmented"
        yield _gauge("ready", told, [], {(): not state.missing})
        yield _gauge("queue_depth", "Cases that wait or are worked on", [], {(): state.queue_depth})
        alive = {role.name: role.alive_count for role in health.roles(state, sources.settings.jobs)}
        yield _gauge("workers_alive", "Living processes of each role", ["role"], alive)
        served = (state.model.id, state.model.version, state.device or "", state.runtime or "")
        yield _gauge(
            "model",
            "The model that is served; 1 where it is loaded",
            ["id", "version", "device", "runtime"],
            {served: state.model_loaded},
        )

    def _of_spool(self, found: tallies.Tallies) -> Iterator[Metric]:
        spool = self._sources.spool
        yield _gauge("instances_kept", "Instances in the spool", [], {(): found.instance_count})
        yield _gauge("instances_bytes", "Their size", [], {(): found.instance_bytes})
        yield _gauge("spool_bytes", "All that is in the spool", [], {(): found.spool_bytes})
        limits = {"free": spool.free_bytes(), "floor": spool.free_floor_bytes}
        limits |= {"quota": spool.quota_bytes} if spool.quota_bytes else {}
        yield _gauge(
            "disk_bytes",
            "Free on the spool's disk, the floor below which nothing is taken in, and the quota",
            ["kind"],
            limits,
        )


def _refusals(workers: Sequence[WorkerRow]) -> Mapping[tuple[str, str], int]:
    """Return how often each door refused something, by code; of its processes that still beat."""
    found: Counter[tuple[str, str]] = Counter()
    for row in workers:
        for code, count in ((row.detail or {}).get("refused") or {}).items():
            found[_DOORS.get(row.role, row.role), code] += count
    return found


def _of_results(latest: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    """Yield how the latest 200 results spread: a model or a scanner that drifts shows here."""
    yield _gauge("recent_results", "Results that the spreads are of", [], {(): len(latest)})
    volumes, regions = (tallies.recent(latest, key) for key in ("volumes_ml", "regions_ml"))
    yield _spread("recent_volume_ml", "Volume of each label", volumes)
    yield _spread("recent_region_ml", "Volume of each region", regions)
    entropies = [one["uncertainty"] for one in latest if one.get("uncertainty")]
    by_label = tallies.recent(entropies, "mean_by_label")
    yield _spread("recent_entropy", "Mean entropy of each label, 0 is sure", by_label)


def _spread(name: str, told: str, found: Mapping[str, Sequence[float]]) -> Metric:
    values = {
        (label, str(quantile)): many[round(quantile * (len(many) - 1))]
        for label, many in found.items()
        for quantile in _QUANTILES
    }
    return _gauge(name, f"{told}, quantiles of the latest results", ["label", "quantile"], values)


def _gauge(name: str, told: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    family = GaugeMetricFamily(f"neuroseg_{name}", told, labels=labels)
    for key, value in values.items():
        family.add_metric((key,) if isinstance(key, str) else key, float(value))
    return family


def _counter(name: str, told: str, labels: Sequence[str], values: Mapping[Any, int]) -> Metric:
    family = CounterMetricFamily(f"neuroseg_{name}", told, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _buckets(durations: Durations) -> tuple[list[tuple[str, float]], float]:
    bounds = [*(str(bound) for bound in BOUNDS_S), "+Inf"]
    counts = [*durations.within, durations.count]
    return list(zip(bounds, map(float, counts), strict=True)), durations.sum_s
