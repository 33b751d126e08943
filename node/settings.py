"""config/node.toml and the environment, read once into one frozen tree.

The environment wins over the file: ``NEUROSEG_RECEIVE__PORT=104`` overrides ``[receive] port``.
Secrets belong there and are never shown.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from converters import gate
from inference.note_codes import NOTE_CODES
from node.cases import ObjectKind
from node.errors import ConfigError
from node.peers import AeTitle, Branch, Destination, Manager, Notify, Port, Seconds, Source
from node.site_rules import SENDER, Route, SeriesRule

_PREFIX, _DELIMITER = "NEUROSEG_", "__"

Days = Annotated[float, Field(ge=0)]


class DimseTls(Branch):
    """DICOM over TLS on a port of its own; 0: there is none."""

    host: str = "127.0.0.1"
    port: Port = 0
    certificate_file: str = ""
    key_file: str = ""
    client_ca_file: str = ""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.port and not (self.certificate_file and self.key_file):
            raise ValueError("DICOM over TLS needs certificate_file and key_file")
        return self


class Receive(Branch):
    """The C-STORE door; limits of associations are those of each of its `processes`."""

    host: str = "127.0.0.1"
    port: Port = 11112
    ae_title: AeTitle = "NEUROSEG"
    check_called_ae_title: bool = False
    calling_ae_titles: tuple[AeTitle, ...] = ()
    calling_addresses: tuple[str, ...] = ()
    processes: int = Field(default=1, ge=1, le=16)
    max_associations: int = Field(default=20, ge=1)
    max_associations_per_address: int = Field(default=0, ge=0)
    associations_per_minute: int = Field(default=0, ge=0)
    max_pdu_bytes: int = Field(default=131072, ge=4096)
    max_instance_bytes: int = Field(default=2**30, ge=2**10)
    idle_timeout_s: Seconds = 60.0
    tls: DimseTls = DimseTls()

    @field_validator("calling_addresses")
    @classmethod
    def _are_networks(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for one in addresses:
            ipaddress.ip_network(one, strict=False)
        return addresses


class Web(Branch):
    """The status page and API, and who may come in there (`node.access`)."""

    host: str = "127.0.0.1"
    port: Port = 8080
    host_names: tuple[str, ...] = ()
    tokens: SecretStr = SecretStr("")
    tokens_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    client_ca_file: str = ""
    client_role: Literal["viewer", "operator", "machine"] = "machine"
    requests_per_minute: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _has_whole_tls(self) -> Self:
        if bool(self.certificate_file) != bool(self.key_file):
            raise ValueError("TLS needs both certificate_file and key_file, or neither")
        if self.client_ca_file and not self.certificate_file:
            raise ValueError("client_ca_file needs certificate_file and key_file")
        return self


class Stow(Branch):
    """The STOW-RS door, at the port of the status page."""

    enabled: bool = True
    max_requests: int = Field(default=8, ge=1, le=64)
    max_request_bytes: int = Field(default=16 * 2**30, ge=2**10)
    silence_s: float = Field(default=60.0, gt=0)
    patience_s: float = Field(default=3600.0, gt=0)


class Worklist(Branch):
    """Work items by UPS-RS at the port of the status page, and whether the node performs them."""

    enabled: bool = True
    perform: bool = False
    label: str = ""
    manager: Manager = Manager()


class Spool(Branch):
    """Where everything durable lives."""

    path: Path = Path("var")
    free_floor_bytes: int = Field(default=2 * 2**30, ge=0)
    quota_bytes: int = Field(default=0, ge=0)


class Retention(Branch):
    """How many days files are kept after a case has reached a final state; 0: for ever."""

    volumes_days: Days = 2.0
    delivered_days: Days = 30.0
    superseded_days: Days = 30.0
    cancelled_days: Days = 30.0
    rejected_days: Days = 90.0
    failed_days: Days = 180.0
    make_room: bool = False


class Assemble(Branch):
    """When a study is complete, and what the site says of its series."""

    poll_s: Seconds = 1.0
    settle_s: Seconds = 3.0
    released_quiet_s: Seconds = 15.0
    quiet_s: Seconds = 60.0
    deadline_s: Seconds = 3600.0
    deadline_action: Literal["process", "refuse"] = "process"
    series_rules: tuple[SeriesRule, ...] = ()


class Geometry(Branch):
    """What the image of a head may measure; see `converters.gate.Limits`."""

    finest_mm: float = Field(default=gate.DEFAULT.finest_mm, gt=0)
    coarsest_mm: float = Field(default=gate.DEFAULT.coarsest_mm, gt=0)
    narrowest_mm: float = Field(default=gate.DEFAULT.narrowest_mm, ge=0)
    widest_mm: float = Field(default=gate.DEFAULT.widest_mm, gt=0)
    longest_mm: float = Field(default=gate.DEFAULT.longest_mm, gt=0)
    coverage_mm: float = Field(default=gate.DEFAULT.coverage_mm, ge=0)
    fewest_slices: int = Field(default=gate.DEFAULT.fewest_slices, ge=1)
    content_ml: float = Field(default=gate.DEFAULT.content_ml, ge=0)
    blank_slices: int = Field(default=gate.DEFAULT.blank_slices, ge=0)

    def as_limits(self) -> gate.Limits:
        """Return them as `converters` applies them."""
        return gate.Limits(**dict(self))


class Align(Branch):
    """How the series of a study are brought together."""

    registration: Literal["auto", "off"] = "auto"
    largest_shift_mm: float = Field(default=60.0, gt=0)
    largest_rotation_deg: float = Field(default=30.0, gt=0, le=90)


class Model(Branch):
    """Which model the node serves; `folder` holds model.toml and the weights."""

    folder: Path = Path("models/demo-glioma")
    brain_mask_folder: Path = Path("models/brain-mask")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=0, ge=0)
    precision: Literal["auto", "float32"] = "auto"
    tta: bool = False
    uncertainty: bool = False
    probabilities: bool = False
    shadow: bool = False


class FurtherModel(Branch):
    """A model that works on studies beside the first one, as `Model` says how."""

    folder: Path
    shadow: bool = False


class Jobs(Branch):
    """The durable job engine; an empty URL means an SQLite file in the spool."""

    url: SecretStr = SecretStr("")
    worker_name: str = Field(default="node-1", pattern=r"^[A-Za-z0-9_.-]{1,40}$")
    workers: int = Field(default=2, ge=1)
    heartbeat_timeout_s: float = Field(default=60.0, ge=1)
    sweep_s: float = Field(default=5.0, ge=0.1)
    poll_s: float = Field(default=0.5, ge=0.05)

    def executor_id(self, role: str) -> str:
        """Return the stable name of a role's process on this machine."""
        return f"{self.worker_name}/{role}"


class Ledger(Branch):
    """The truth about studies; an empty URL means an SQLite file in the spool."""

    url: SecretStr = SecretStr("")


class Predict(Branch):
    """NIfTI files that are sent to the web role for a prediction."""

    max_upload_bytes: int = Field(default=2**30, ge=2**10)
    max_values: int = Field(default=2**28, ge=1)
    max_waiting: int = Field(default=50, ge=1)
    silence_s: float = Field(default=60.0, gt=0)
    patience_s: float = Field(default=900.0, gt=0)
    keep_s: Seconds = 3600.0


ANY_NOTE = "*"


class Delivery(Branch):
    """What is delivered by itself, and how failed deliveries are repeated.

    Results with a note of `hold_codes` wait for a person; `empty` is what says that nothing was
    found; `first_delay_s` is doubled up to `longest_delay_s`.
    """

    empty: Literal["seg", "report"] = "seg"
    hold_codes: tuple[str, ...] = ()
    first_delay_s: Seconds = 10.0
    longest_delay_s: Seconds = 1800.0
    max_attempts: int = Field(default=200, ge=1)

    @field_validator("hold_codes")
    @classmethod
    def _are_known(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        if not {*codes} <= {ANY_NOTE, *NOTE_CODES}:
            raise ValueError(f"one is none of {', '.join((ANY_NOTE, *NOTE_CODES))}")
        return codes

    def holds(self, note_code: str) -> bool:
        """Say whether a result with such a note waits for a person."""
        return ANY_NOTE in self.hold_codes or note_code in self.hold_codes


class Traces(Branch):
    """Who collects traces of cases: OTLP over HTTP at `url`; empty: nobody."""

    url: str = ""


class Settings(BaseSettings):
    """Everything the node can be told; the environment wins over the file."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix=_PREFIX,
        env_nested_delimiter=_DELIMITER,
        hide_input_in_errors=True,
    )

    receive: Receive = Receive()
    web: Web = Web()
    stow: Stow = Stow()
    worklist: Worklist = Worklist()
    spool: Spool = Spool()
    retention: Retention = Retention()
    assemble: Assemble = Assemble()
    source: Source = Source()
    geometry: Geometry = Geometry()
    align: Align = Align()
    model: Model = Model()
    further_models: tuple[FurtherModel, ...] = ()
    jobs: Jobs = Jobs()
    ledger: Ledger = Ledger()
    delivery: Delivery = Delivery()
    predict: Predict = Predict()
    notify: Notify = Notify()
    traces: Traces = Traces()
    destinations: tuple[Destination, ...] = ()
    routes: tuple[Route, ...] = ()
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [destination.name for destination in self.destinations]
        if len(set(names)) != len(names):
            raise ValueError("two destinations have the same name")
        if any(one.entropy for one in self.destinations) and not self.model.uncertainty:
            raise ValueError("a destination wants the entropy, [model] uncertainty is off")
        if ObjectKind.PROBABILITIES in self.wanted and not self.model.probabilities:
            raise ValueError("a destination wants probabilities, [model] probabilities is off")
        if self.delivery.empty == "report" and not all(one.sr for one in self.destinations):
            raise ValueError("[delivery] empty is report, a destination with sr = false gets none")
        return self

    @model_validator(mode="after")
    def _routes_lead_somewhere(self) -> Self:
        names = {one.name for one in self.destinations}
        if SENDER in names:
            raise ValueError(f"no destination can be called {SENDER}: routes mean the sender by it")
        if len({one.name for one in self.routes}) < len(self.routes):
            raise ValueError("two routes have the same name")
        for one in self.routes:
            if not {*(one.destinations or ())} <= {*names, SENDER}:
                raise ValueError(f"route {one.name!r} names a destination that does not exist")
            others = {*one.called_ae_titles} - {self.receive.ae_title}
            if others and self.receive.check_called_ae_title:
                raise ValueError(f"route {one.name!r}: check_called_ae_title keeps its titles out")
        return self

    @property
    def wanted(self) -> frozenset[ObjectKind]:
        """What some destination gets."""
        return frozenset().union(*(one.kinds for one in self.destinations))

    @property
    def ledger_url(self) -> str:
        """Where the ledger is: an SQLAlchemy URL."""
        return self.ledger.url.get_secret_value() or _sqlite(self.spool.path / "ledger.sqlite")

    @property
    def jobs_url(self) -> str:
        """Where the job engine keeps its rows: an SQLAlchemy URL."""
        return self.jobs.url.get_secret_value() or _sqlite(self.spool.path / "jobs.sqlite")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the library's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file, and read nothing else."""
        return env_settings, init_settings


def _sqlite(path: Path) -> str:
    return f"sqlite:///{path.absolute()}"


def _check_branches_of_environment() -> None:
    """Refuse a variable of a branch that does not exist; the library would ignore it."""
    known = tuple(f"{_PREFIX}{name.upper()}{_DELIMITER}" for name in Settings.model_fields)
    for name in sorted(os.environ):
        upper = name.upper()
        if upper.startswith(_PREFIX) and _DELIMITER in upper and not upper.startswith(known):
            raise ConfigError(reason=f"environment: {name} belongs to no setting")


def load(path: Path | None) -> Settings:
    """Return the settings of a file (None: defaults) overridden by the environment.

    Raises
    ------
    ConfigError
        The file cannot be read, is no TOML, or a key or value is not allowed. The message names
        the keys, never the values.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(reason=f"{path} cannot be read ({error.strerror})") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(reason=f"{path} is not valid TOML") from error
    _check_branches_of_environment()
    try:
        return Settings(**values)
    except SettingsError as error:  # names the field; what it could not parse may be a secret
        raise ConfigError(reason=f"environment: {error}, expected JSON") from None
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or 'settings'}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_context=False)
        )
        raise ConfigError(reason=problems) from error
