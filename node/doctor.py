"""Whether everything the node needs is there, and what to do about what is not.

The checks look and try; apart from short-lived probe files they leave nothing behind, so that they
may run beside a working node, and before the first start under another user.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import socket
import sqlite3
import ssl
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import httpx
import sqlalchemy as sa

from inference import manifest
from inference.errors import ModelUnusableError
from node import model_set, routing, schema
from node import settings as settings_file
from node.access import Gate
from node.cases import Transport
from node.deliver import store_scu
from node.deliver.asking import ANSWERS, PATIENCE_S, ask
from node.dimse import IMPLEMENTATION_CLASS_UID
from node.errors import ConfigError, NodeError, NotificationFailedError
from node.notify import mail, webhook
from node.peers import Destination, Notify
from node.settings import FurtherModel, Model, Receive, Settings, Spool, Web
from node.spool import sync_folder
from node.tables import SCHEMA_VERSION
from node.tls import ServerTls

_CLOCK_SLACK = timedelta(days=1)
_CLOCK_END = datetime(2100, 1, 1, tzinfo=UTC)
_DEVICES = ("nvidia[0-9]*", "dxg")  # Linux; Windows Subsystem for Linux
_MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check saw; `advice` says what to do when it is not `ok`, and is empty otherwise."""

    name: str
    ok: bool
    detail: str
    advice: str = ""


def checks(settings: Settings, config_path: Path | None) -> list[Finding]:
    """Return the findings of all checks, in the order in which problems are best solved.

    Parameters
    ----------
    settings : Settings
        What the node would run with.
    config_path : Path or None
        The file they were read from.
    """
    spool = settings.spool
    return [
        _configuration(config_path),
        _clock(datetime.now(UTC), installed=_installed_at()),
        _spool(spool),
        _database("ledger", settings.ledger_url, schema_version=SCHEMA_VERSION),
        _database("jobs", settings.jobs_url),
        _model(settings.model),
        *(_further_model(settings, one) for one in settings.further_models),
        _torch(),
        _device(settings.model, Path("/dev")),
        _receive_port(settings.receive),
        _web_access(settings.web),
        _web_port(settings.web),
        *_destinations(settings.destinations, settings.receive.ae_title),
        *_routes(settings),
        *_notify(settings.notify),
    ]


def _good(name: str, detail: str) -> Finding:
    return Finding(name=name, ok=True, detail=detail)


def _bad(name: str, detail: str, advice: str) -> Finding:
    return Finding(name=name, ok=False, detail=detail, advice=advice)


# -- this machine ---------------------------------------------------------------------------------


def _configuration(path: Path | None) -> Finding:
    name = "configuration"
    if path is None:
        return _good(name, "no file, built-in defaults and the environment")
    try:
        settings_file.load(path)
    except ConfigError as error:
        return _bad(name, str(error), error.advice)
    return _good(name, f"{path} is valid")


def _installed_at() -> datetime:
    return datetime.fromtimestamp(Path(__file__).stat().st_mtime, UTC)


def _clock(now: datetime, *, installed: datetime) -> Finding:
    """Compare the clock with the only certain past there is: when this program was installed."""
    detail = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    if installed - _CLOCK_SLACK <= now < _CLOCK_END:
        return _good("clock", detail)
    advice = "Set the clock (NTP): dates in results and all waiting times depend on it."
    return _bad("clock", f"{detail} cannot be right", advice)


def _spool(spool: Spool) -> Finding:
    name = "spool"
    folder = _existing(spool.path)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as probe:
            probe.write(b"neuroseg")
            probe.flush()
            os.fsync(probe.fileno())
            sync_folder(folder)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        advice = "Give the node's user a folder it may write to, or change [spool] path."
        return _bad(name, f"{spool.path} cannot be written ({error.strerror})", advice)
    quota = f"quota {spool.quota_bytes // _MIB} MiB" if spool.quota_bytes else "no quota"
    floor = f"floor {spool.free_floor_bytes // _MIB} MiB"
    detail = f"{spool.path}, {free // _MIB} MiB free, {floor}, {quota}"
    if free < spool.free_floor_bytes:
        advice = "Free space, or lower [spool] free_floor_bytes: nothing is received below it."
        return _bad(name, detail, advice)
    return _good(name, detail)


def _existing(path: Path) -> Path:
    """Return the folder itself, or the nearest one above it that exists."""
    whole = path.absolute()
    return next(one for one in (whole, *whole.parents) if one.is_dir())


def _torch() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return _bad("torch", "PyTorch is not installed", "Install the node with its dependencies.")
    return _good("torch", "PyTorch is installed")


def _device(model: Model, device_files: Path) -> Finding:
    has_gpu = any(path for pattern in _DEVICES for path in device_files.glob(pattern))
    cores = len(os.sched_getaffinity(0))
    if model.device == "cuda" and not has_gpu:
        advice = 'Install the driver, pass the GPU into the container, or set [model] device="cpu".'
        return _bad("device", "no GPU is visible, [model] device asks for one", advice)
    wants_gpu = model.device != "cpu" and has_gpu
    return _good("device", "GPU" if wants_gpu else f"CPU, {cores} cores")


# -- databases and model --------------------------------------------------------------------------


def _database(name: str, url: str, *, schema_version: int | None = None) -> Finding:
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "sqlite":
            return _sqlite(name, Path(parsed.database or ""), schema_version)
        return _server(name, parsed)
    except sa.exc.ArgumentError:
        advice = f"Write [{name}] url as postgresql://user:password@host/database, or leave it out."
        return _bad(name, "the database URL is malformed", advice)


def _sqlite(name: str, file: Path, schema_version: int | None) -> Finding:
    try:
        mode = _journal_mode(_existing(file.parent))
        if mode != "wal":
            advice = "Put it on a local disk (no network share), or use PostgreSQL."
            return _bad(name, f"write-ahead logging does not work beside {file}", advice)
        found = _schema_version(file, schema_version) if file.exists() else schema_version
    except (OSError, sqlite3.Error) as error:
        advice = "Give the node's user write access to the file and its folder; check the disk."
        return _bad(name, f"{file} cannot be used ({type(error).__name__})", advice)
    if found is not None and schema.OLDEST <= found < (schema_version or 0):
        return _good(name, f"{file} (schema {found} becomes {schema_version} at the first start)")
    if found != schema_version:
        advice = "Run the version of the node that wrote it, or start with a new spool."
        return _bad(name, f"{file} has schema {found}, expected {schema_version}", advice)
    return _good(name, f"{file}{'' if file.exists() else ' (made at the first start)'}")


def _journal_mode(folder: Path) -> str:
    """Return what SQLite makes of the request for write-ahead logging in this folder."""
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-") as place,
        closing(sqlite3.connect(Path(place) / "probe.sqlite")) as probe,
    ):
        return str(probe.execute("PRAGMA journal_mode=WAL").fetchone()[0])


def _schema_version(file: Path, expected: int | None) -> int | None:
    """Return the version in a ledger's file; proves for any file that it can be written."""
    address = f"{file.absolute().as_uri()}?mode=rw"
    with closing(sqlite3.connect(address, uri=True, timeout=PATIENCE_S)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.rollback()
        if expected is None:
            return None
        (version,) = connection.execute("SELECT schema_version FROM ledger_meta").fetchone()
    return int(version)


def _server(name: str, url: sa.URL) -> Finding:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    try:
        arguments = {"connect_timeout": int(PATIENCE_S)}
        engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args=arguments)
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
    except (sa.exc.SQLAlchemyError, ImportError) as error:
        advice = f"Check that the server runs, its address and the credentials in [{name}] url."
        return _bad(name, f"the database does not answer ({type(error).__name__})", advice)
    return _good(name, f"the {url.get_backend_name()} database answers")


def _model(model: Model) -> Finding:
    try:
        found = manifest.load(model.folder)
        found.verify()
        if found.needs_brain_for:
            from inference import mask_model  # noqa: PLC0415 - brings torch, which takes seconds

            mask_model.load(model.brain_mask_folder)
    except ModelUnusableError as error:
        return _bad("model", str(error), error.advice)
    return _good("model", f"{found.model_id}, weights as declared")


def _further_model(settings: Settings, further: FurtherModel) -> Finding:
    found = _model(settings.model.model_copy(update={"folder": further.folder}))
    return replace(found, name=f"model {further.folder.name}")


# -- ports ----------------------------------------------------------------------------------------


def _receive_port(receive: Receive) -> Finding:
    problem = _listening_problem(receive.host, receive.port)
    if problem != errno.EADDRINUSE:
        return _port_finding("receive port", receive.host, receive.port, problem)
    node = Destination(
        name="receive",
        transport=Transport.DIMSE,
        host=_reachable(receive.host),
        port=receive.port,
        ae_title=receive.ae_title,
        timeout_s=PATIENCE_S,
    )
    calling = next(iter(receive.calling_ae_titles), receive.ae_title)
    try:
        owner = store_scu.implementation_of(node, calling_ae_title=calling)
    except NodeError:
        owner = ""
    if owner == IMPLEMENTATION_CLASS_UID:
        return _good("receive port", f"{receive.port}: the running node answers")
    return _port_finding("receive port", receive.host, receive.port, problem)


def _web_access(web: Web) -> Finding:
    name = "web access"
    try:
        gate = Gate.load(web)
        if web.certificate_file:
            ServerTls(web.certificate_file, web.key_file, web.client_ca_file, needs_client=False)
    except NodeError as error:
        return _bad(name, str(error), error.advice)
    way = "over TLS" if web.certificate_file else "in the clear"
    if not gate.is_shut:
        return _good(name, f"{way}, everybody on this machine is let in")
    return _good(name, f"{way}, by {'tokens' if gate.has_tokens else 'certificates'}")


def _web_port(web: Web) -> Finding:
    problem = _listening_problem(web.host, web.port)
    if problem == errno.EADDRINUSE:
        host = _reachable(web.host)
        scheme = "https" if web.certificate_file else "http"
        address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{web.port}/livez"
        try:
            answer = httpx.get(
                address, timeout=PATIENCE_S, trust_env=False, verify=_own(web.certificate_file)
            )
        except (httpx.HTTPError, OSError):
            return _port_finding("web port", web.host, web.port, problem)
        if answer.is_success and "alive" in answer.text:
            return _good("web port", f"{web.port}: the running node answers")
    return _port_finding("web port", web.host, web.port, problem)


def _own(certificate_file: str) -> ssl.SSLContext:
    """Return what trusts the node's own certificate, whatever it is called there."""
    context = ssl.create_default_context(cafile=certificate_file or None)
    context.check_hostname = False
    return context


def _listening_problem(host: str, port: int) -> int:
    """Return the error number of an attempt to listen; 0 when it succeeds."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        return error.errno or errno.EINVAL
    return 0


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104


def _port_finding(name: str, host: str, port: int, problem: int) -> Finding:
    section = name.partition(" ")[0]
    if not problem:
        return _good(name, f"{port or 'any'} on {host or 'all addresses'} is free")
    if problem == errno.EADDRINUSE:
        advice = f"Stop the program that listens there, or change [{section}] port."
        return _bad(name, f"{port} is used by another program", advice)
    if problem in {errno.EACCES, errno.EPERM}:
        advice = f"Use [{section}] port above 1023, or grant the right to bind lower ones."
        return _bad(name, f"{port} may not be opened by this user", advice)
    advice = f"Set [{section}] host to an address of this machine."
    return _bad(name, f"{host} is no address of this machine", advice)


# -- destinations ---------------------------------------------------------------------------------


def _destinations(destinations: Sequence[Destination], calling_ae_title: str) -> list[Finding]:
    if not destinations:
        return [_good("destinations", "none configured; results stay on this node")]
    return [_destination(one, calling_ae_title) for one in destinations]


def _destination(destination: Destination, calling_ae_title: str) -> Finding:
    name = f"destination {destination.name}"
    answer = ask(destination, calling_ae_title=calling_ae_title, patience_s=PATIENCE_S)
    if answer.code is not None:
        return _bad(name, str(answer.sentence), str(answer.advice))
    return _good(name, ANSWERS[destination.transport])


def _routes(settings: Settings) -> list[Finding]:
    """Say in words where studies go; nothing where all go everywhere."""
    if not settings.routes:
        return []
    try:
        routing.check(settings, model_set.roles(settings))
    except (ConfigError, ModelUnusableError) as error:
        return [_bad("routes", str(error), error.advice)]
    return [_good(f"route {one.name}", routing.words(one)) for one in settings.routes]


def _hurried(timeout_s: float) -> dict[str, float]:
    return {"timeout_s": min(timeout_s, PATIENCE_S)}


def _notify(notify: Notify) -> list[Finding]:
    found = []
    if notify.webhook.url:
        hook = notify.webhook.model_copy(update=_hurried(notify.webhook.timeout_s))
        found.append(_channel("webhook", partial(webhook.probe, hook), "can be reached"))
    if notify.email.host:
        post = notify.email.model_copy(update=_hurried(notify.email.timeout_s))
        found.append(_channel("email", partial(mail.probe, post), "the mail server knows us"))
    return found or [_good("notify", "nobody is told of failures ([notify] names no channel)")]


def _channel(name: str, probe: Callable[[], None], works: str) -> Finding:
    try:
        probe()
    except NotificationFailedError as error:
        return _bad(f"notify {name}", str(error), error.advice)
    return _good(f"notify {name}", works)
