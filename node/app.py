"""Builds every part from the settings, starts and stops them in order: the composition root.

One function a role. Each blocks until SIGTERM or SIGINT, then drains. Heavy libraries are imported
where a role needs them: the receiver and the web role load neither torch nor the job engine.
"""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from inference import manifest as manifests
from inference.manifest import Manifest
from node import logs
from node.access import Gate, is_loopback
from node.cases import AssembledCase, Stage
from node.ending import when_told
from node.errors import AddressUnavailableError
from node.ledger import Ledger
from node.rows import place_of_processes
from node.settings import DimseTls, Settings, Web
from node.space import Meter
from node.spool import STOWED, Spool
from node.ticker import Ticker
from node.tls import ServerTls

if TYPE_CHECKING:
    from converters.volume import LabelMap
    from inference.model import LoadedModel
    from node.jobs import Worker
    from node.pipeline import Boundary, Parts, Stop
    from node.predictions import Predictor
    from node.receive.instance import Intake
    from node.turns import Turns

_BEAT_S = 1.0
_LOOK_S = 0.2
_KEEP_S = 5.0
_PURGE_S = 10.0
_NOTIFY_S = 1.0  # also the shortest time between two notices on a channel
_PULL_S = 0.5
_DELIVERIES_AT_ONCE = 4


def _stop_signal() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stopping = threading.Event()

    def _end(name: str) -> None:
        stopping.set()
        logs.get().info("role.stopping", signal=name)

    when_told(_end)
    return stopping


def open_stores(settings: Settings) -> tuple[Spool, Ledger, Manifest]:
    """Return the spool, the ledger and the model's manifest (its weights are not read)."""
    spool = Spool(
        settings.spool.path,
        free_floor_bytes=settings.spool.free_floor_bytes,
        quota_bytes=settings.spool.quota_bytes,
    )
    ledger = Ledger(settings.ledger_url)
    spool.used_bytes = Meter(ledger)
    return spool, ledger, manifests.load(settings.model.folder)


def _listener(address: str, port: int) -> socket.socket:
    try:
        return socket.create_server((address, port), backlog=128)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise AddressUnavailableError(address=address, port=port, reason=reason) from error


def _beating(
    ledger: Ledger, settings: Settings, role: str, detail: Mapping[str, Any] | None = None
) -> Ticker:
    """Return a started thread that says once a second that this role lives."""

    def _beat() -> None:
        ledger.beat(
            settings.jobs.executor_id(role),
            role=role,
            host=socket.gethostname(),
            pid=os.getpid(),
            detail={**(detail or {}), "place": place_of_processes()},
        )

    ticker = Ticker("beat", _BEAT_S, _beat)
    ticker.start()
    return ticker


def run_receive(settings: Settings) -> None:
    """Receive instances until told to stop."""
    from node.receive.company import company
    from node.receive.reconcile import Reconciliation
    from node.receive.scp import StorageScp

    stopping = _stop_signal()
    tls = _dimse_tls(settings.receive.tls)
    spool, ledger, manifest = open_stores(settings)
    model_id, receive = manifest.model_id, settings.receive
    limit = receive.max_instance_bytes
    with company(spool, ledger, settings.jobs.worker_name) as others:
        Reconciliation(
            spool, ledger, model_id=model_id, limit_bytes=limit, has_company=others.is_there
        ).run()
        others.let_in()
        scp = StorageScp(receive, spool=spool, ledger=ledger, model_id=model_id, tls=tls)
        scp.start()
        tickers = _certificates(tls)
        beat = _beating(ledger, settings, "receive", {"port": scp.port, "refused": scp.refused})
        logs.get().info("role.started", port=scp.port, address=receive.host)
        stopping.wait()
        scp.stop()
    for ticker in (*tickers, beat):
        ticker.stop()
    ledger.close()


def _certificates(tls: ServerTls | None) -> list[Ticker]:
    """Return the started thread that looks for new certificates; none where there is no TLS."""
    tickers = [] if tls is None else [Ticker("certificates", _KEEP_S, tls.refresh)]
    for ticker in tickers:
        ticker.start()
    return tickers


def _dimse_tls(tls: DimseTls) -> ServerTls | None:
    """Return what the DICOM port for TLS shows; None where there is none."""
    if not tls.port:
        return None
    return ServerTls(tls.certificate_file, tls.key_file, tls.client_ca_file, needs_client=True)


def run_web(settings: Settings) -> None:
    """Serve the status page and the API until told to stop."""
    import uvicorn

    from node.housekeeping import Housekeeper
    from node.prediction_queue import PredictionQueue
    from node.web import serving
    from node.web.app import create_app

    stopping = _stop_signal()
    gate = Gate.load(settings.web)
    tls = _web_tls(settings.web, gate)
    spool, ledger, manifest = open_stores(settings)
    housekeeper = Housekeeper(
        PredictionQueue(ledger.engine),
        spool,
        owner=settings.jobs.executor_id("web"),
        keep_s=settings.predict.keep_s,
    )
    housekeeper.begin(is_alone=not ledger.has_others("web", settings.jobs.worker_name))
    listener = _listener(settings.web.host, settings.web.port)
    port = int(listener.getsockname()[1])
    intake = _web_intake(settings, spool, ledger, manifest.model_id)
    beat = _beating(ledger, settings, "web", {"port": port, "refused": intake.refused})
    logs.get().info("role.started", port=port, address=settings.web.host)
    app = create_app(ledger, spool, settings, manifest, intake, gate)
    server = uvicorn.Server(serving.config(app, tls))
    keeping = Ticker("housekeeper", _KEEP_S, housekeeper.look)
    keeping.start()
    tickers = [keeping, *_certificates(tls)]
    # In a thread of its own it leaves the signals to us, as in the other roles.
    thread = threading.Thread(target=server.run, args=([listener],), name="web")
    thread.start()
    stopping.wait()
    server.should_exit = True
    thread.join()
    for ticker in (*tickers, beat):
        ticker.stop()
    ledger.close()


def _web_intake(settings: Settings, spool: Spool, ledger: Ledger, model_id: str) -> Intake:
    """Return the way in of instances that come by STOW-RS."""
    from node.receive.instance import Intake

    return Intake(
        spool,
        ledger,
        model_id=model_id,
        limit_bytes=settings.receive.max_instance_bytes,
        door=STOWED,
    )


def _web_tls(web: Web, gate: Gate) -> ServerTls | None:
    """Return what the HTTP port shows; None where it speaks in the clear."""
    if web.certificate_file:
        needs_client = not gate.has_tokens
        return ServerTls(
            web.certificate_file, web.key_file, web.client_ca_file, needs_client=needs_client
        )
    if not is_loopback(web.host):
        logs.get().warning("web.in_the_clear", address=web.host)
    return None


def run_work(settings: Settings, boundary: Boundary | None = None) -> None:
    """Close, convert, encode and deliver cases until told to stop."""
    from node import model_set, traces
    from node.closing import Closer
    from node.jobs import Jobs
    from node.notify.notifier import Notifier
    from node.outbox import Outbox
    from node.pipeline import Parts
    from node.pulling import Pulling
    from node.retention import Purger

    stopping = _stop_signal()
    spool, ledger, manifest = open_stores(settings)
    parts = Parts(
        settings=settings,
        ledger=ledger,
        spool=spool,
        manifest=manifest,
        further=model_set.further(settings),
        boundary=boundary,
    )
    queues = dict.fromkeys((Stage.CONVERT, Stage.ENCODE), settings.jobs.workers)
    queues[Stage.DELIVER] = _DELIVERIES_AT_ONCE
    worker, sweeper = _worker(parts, "work", queues)
    jobs = Jobs(settings.jobs_url)
    closer, executor_id = Closer(parts, jobs), settings.jobs.executor_id("work")
    purger = Purger(ledger, spool, settings.retention, settings.destinations)
    notifier = Notifier(Outbox(ledger.engine), settings.notify, boundary)
    pulling = Pulling(settings, spool, ledger, manifest, executor_id=executor_id)
    tickers = [
        _beating(ledger, settings, "work"),
        sweeper,
        Ticker("puller", _PULL_S, pulling.look),
        *_on_their_own(settings, ledger),
        *traces.tickers(settings.traces, ledger),
        Ticker("closer", settings.assemble.poll_s, closer.look),
        Ticker("tender", settings.jobs.sweep_s, closer.tend),
        Ticker("purger", _PURGE_S, purger.look),
        Ticker("notifier", _NOTIFY_S, notifier.route),
        *(
            Ticker(f"notifier-{channel}", _NOTIFY_S, partial(notifier.look, channel))
            for channel in notifier.channels
        ),
    ]
    for ticker in tickers[1:]:
        ticker.start()
    logs.get().info("role.started")
    stopping.wait()
    pulling.end()
    for ticker in reversed(tickers):
        ticker.stop()
    worker.stop()
    jobs.close()
    ledger.close()


def _on_their_own(settings: Settings, ledger: Ledger) -> list[Ticker]:
    """Return the not yet started threads that watch the source and work the worklist off."""
    from node import performing
    from node.watching import Watching

    watch, found = settings.source.watch, list[Ticker]()
    if watch.enabled:
        found.append(Ticker("watcher", watch.poll_s, Watching(settings, ledger).look))
    found += performing.tickers(settings, ledger)
    return found


def run_infer(settings: Settings, boundary: Boundary | None = None) -> None:
    """Load the model, then segment cases until told to stop."""
    from node.pipeline import Parts
    from node.segment import CaseModels, segment_case
    from node.turns import Turns

    stopping = _stop_signal()
    spool, ledger, manifest = open_stores(settings)
    models = CaseModels(manifest, settings)
    detail: dict[str, Any] = {
        "model_id": manifest.model_id,
        "weights_sha256": manifest.weights_sha256,
        "device": models.first.device,
        "runtime": models.first.runtime.name,
        "further": [one.weights_sha256 for one in models.further],
    }
    turns = Turns()

    def _segment(case: AssembledCase, stop: Stop) -> LabelMap:
        def _progress(done: int, total: int) -> None:
            detail.update(case_id=case.case_id, windows_done=done, window_count=total)

        try:
            with turns.turn():
                return segment_case(
                    case, models.of(ledger.case(case.case_id).model_id), spool, _progress, stop
                )
        finally:
            for key in ("case_id", "windows_done", "window_count"):
                detail.pop(key, None)

    parts = Parts(
        settings=settings,
        ledger=ledger,
        spool=spool,
        manifest=manifest,
        further=models.further,
        segmenter=_segment,
        boundary=boundary,
    )
    predictor, looking = _predicting(parts, models.first, turns)
    worker, sweeper = _worker(parts, "infer", {Stage.SEGMENT: 1})
    beat = _beating(ledger, settings, "infer", detail)
    for ticker in (sweeper, *looking):
        ticker.start()
    _say_what_runs(models.first)
    stopping.wait()
    predictor.end()
    for ticker in (sweeper, *looking, beat):
        ticker.stop()
    worker.stop()
    ledger.close()


def _say_what_runs(model: LoadedModel) -> None:
    if model.runtime_reason:
        logs.get().warning("runtime.fallen_back", reason=model.runtime_reason)
    logs.get().info(
        "role.started",
        model_id=model.manifest.model_id,
        device=model.device,
        runtime=model.runtime.name,
    )


def _predicting(
    parts: Parts, model: LoadedModel, turns: Turns
) -> tuple[Predictor, tuple[Ticker, ...]]:
    """Return what computes predictions and the not yet started threads that have it do so."""
    from node.prediction_queue import PredictionQueue
    from node.predictions import Predictor

    jobs = parts.settings.jobs
    predictor = Predictor(
        PredictionQueue(parts.ledger.engine),
        parts.spool,
        model,
        turns,
        executor_id=parts.settings.jobs.executor_id("infer"),
        boundary=parts.boundary,
    )
    return predictor, (
        Ticker("predictor", _LOOK_S, predictor.look),
        Ticker("prediction-watch", _LOOK_S, predictor.watch),
        Ticker(
            "prediction-sweeper",
            jobs.sweep_s,
            lambda: predictor.take_over(timeout_s=jobs.heartbeat_timeout_s),
        ),
    )


def _worker(parts: Parts, role: str, queues: Mapping[Stage, int]) -> tuple[Worker, Ticker]:
    """Return a started worker and the not yet started thread that sweeps for it."""
    from node.jobs import Worker
    from node.pipeline import Pipeline

    settings = parts.settings
    worker = Worker(
        settings.jobs_url,
        executor_id=settings.jobs.executor_id(role),
        queues=queues,
        handler=Pipeline(parts).perform,
        poll_s=settings.jobs.poll_s,
    )
    worker.start(parts.spool.root / "run")
    sweeper = Ticker(
        "sweeper",
        settings.jobs.sweep_s,
        lambda: worker.sweep(parts.ledger, timeout_s=settings.jobs.heartbeat_timeout_s),
    )
    return worker, sweeper


RUN_ROLE: Mapping[str, Callable[[Settings], None]] = {
    "receive": run_receive,
    "web": run_web,
    "work": run_work,
    "infer": run_infer,
}
