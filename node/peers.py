"""Whom the node talks to: ``[source]``, ``[[destinations]]`` and, of troubles, ``[notify]``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from converters.volume import Role
from node.cases import Event, ObjectKind, Transport
from node.door_errors import PullSourceError

_AE_TITLE_LENGTH = 16
SOURCE: Final = "source"
"""What the PACS of ``[source]`` is called."""
SECRET_LENGTH: Final = 16
"""The fewest characters of a secret that signs."""


def _valid_ae_title(value: str) -> str:
    """Check an AE title (PS3.5 6.2: at most 16 characters of the default repertoire)."""
    if not 1 <= len(value.strip()) <= _AE_TITLE_LENGTH or "\\" in value or not value.isprintable():
        raise ValueError("an AE title has 1 to 16 printable characters without backslash")
    return value.strip()


AeTitle = Annotated[str, AfterValidator(_valid_ae_title)]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(ge=0)]


class Branch(BaseModel):
    """A part of the settings: unknown keys are refused, values are never shown."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class WebPeer(Branch):
    """How a system is reached by DICOMweb, and what it is shown.

    `ca_file` is who vouches for it, the certificate is ours. What a file holds instead of the
    settings is read anew each time.
    """

    url: str = ""
    username: str = ""
    password: SecretStr = SecretStr("")
    bearer_token: SecretStr = SecretStr("")
    password_file: str = ""
    bearer_token_file: str = ""
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""

    @model_validator(mode="after")
    def _speaks_whole_tls(self) -> Self:
        if bool(self.certificate_file) != bool(self.key_file):
            raise ValueError("TLS needs both certificate_file and key_file, or neither")
        if (self.ca_file or self.certificate_file) and not self.uses_tls:
            raise ValueError("ca_file and certificate_file need tls = true, or https in the url")
        return self

    @property
    def uses_tls(self) -> bool:
        """Whether what it says is encrypted."""
        return self.url.lower().startswith("https:")


class Peer(WebPeer):
    """How a remote AE is reached: DIMSE by host, port and AE title; DICOMweb by URL.

    `tls` is to DIMSE what https is to DICOMweb; `retrieve` is how studies are pulled by DIMSE.
    """

    host: str = ""
    port: Port = 0
    ae_title: AeTitle = "PACS"
    tls: bool = False
    check_host_name: bool = True
    retrieve: Literal["get", "move"] = "get"

    @model_validator(mode="after")
    def _speaks_tls_by_dimse(self) -> Self:
        if self.tls and not self.host:
            raise ValueError("tls is for DIMSE, with host and port; DICOMweb has https in its url")
        if not self.check_host_name and not (self.tls and self.ca_file):
            raise ValueError("check_host_name = false needs tls = true and a ca_file of its own")
        return self

    @property
    def uses_tls(self) -> bool:
        """Whether what it says is encrypted."""
        return self.tls or self.url.lower().startswith("https:")


class Watch(Branch):
    """Which new MR studies of the source are pulled without anybody's asking."""

    enabled: bool = False
    description: str = ""
    since_days: int = Field(default=1, ge=0, le=3650)
    settle_s: Seconds = 120.0
    poll_s: float = Field(default=60.0, ge=1)

    @field_validator("description")
    @classmethod
    def _is_an_expression(cls, description: str) -> str:
        try:
            re.compile(description)
        except re.error as error:
            raise ValueError("it is no regular expression") from error
        return description


class Source(Peer):
    """The PACS that studies come from, asked how many instances they have."""

    transport: Literal["none", "qido", "cfind"] = "none"
    timeout_s: float = Field(default=10.0, gt=0)
    poll_s: Seconds = 10.0
    watch: Watch = Watch()

    @model_validator(mode="after")
    def _has_an_address(self) -> Self:
        if self.transport == "cfind" and not (self.host and self.port):
            raise ValueError("a cfind source needs host and port")
        if self.transport == "qido" and not _is_plain_url(self.url):
            raise ValueError("a qido source needs an http(s) url without credentials in it")
        if self.watch.enabled and self.transport == "none":
            raise ValueError("a source that is watched needs transport = qido or cfind")
        return self

    def as_destination(self) -> Destination:
        """Return it as a peer that has a name."""
        return Destination(
            name=SOURCE,
            transport=Transport.DIMSE if self.transport == "cfind" else Transport.STOW,
            **self.model_dump(exclude={"transport", "poll_s", "watch"}),
        )


class Manager(WebPeer):
    """A system whose work items the node claims, by UPS-RS; off without a `url`."""

    timeout_s: float = Field(default=10.0, gt=0)
    poll_s: float = Field(default=10.0, ge=1)

    @model_validator(mode="after")
    def _has_an_address(self) -> Self:
        if self.url and not _is_plain_url(self.url):
            raise ValueError("a manager needs an http(s) url without credentials in it")
        return self

    def as_destination(self) -> Destination:
        """Return it as a peer that has a name."""
        values = self.model_dump(exclude={"poll_s"})
        return Destination(name="manager", transport=Transport.STOW, **values)


def _is_plain_url(text: str) -> bool:
    """Say whether a URL is whole and holds no credentials, which libraries would quote."""
    try:
        url = urlsplit(text)
        has_port = url.port != 0
    except ValueError:
        return False
    return bool(url.scheme in ("http", "https") and url.hostname and has_port) and (
        "@" not in url.netloc
    )


SegForm = Literal["labels", "regions", "labelmap", "probabilities"]
_KIND_OF: Final[dict[SegForm, ObjectKind]] = {
    "labels": ObjectKind.SEG,
    "regions": ObjectKind.REGIONS,
    "labelmap": ObjectKind.LABELMAP,
    "probabilities": ObjectKind.PROBABILITIES,
}


class Destination(Peer):
    """One peer, or one folder, that results go to; `seg` are the forms of Segmentation it gets."""

    name: str = Field(pattern=r"^[a-z0-9-]{1,32}$")
    transport: Transport
    seg: Annotated[tuple[SegForm, ...], Field(min_length=1)] = ("labels",)
    sr: bool = True
    entropy: bool = False
    pictures: bool = False
    also: tuple[Role, ...] = ()
    rtstruct: bool = False
    path: str = ""
    nifti: bool = True
    commitment: bool = False
    commitment_timeout_s: float = Field(default=3600.0, gt=0)
    deidentify: bool = False
    deidentify_key: SecretStr = SecretStr("")
    deidentify_key_file: str = ""
    timeout_s: float = Field(default=60.0, gt=0)

    @model_validator(mode="after")
    def _deidentifies_by_a_key(self) -> Self:
        key = self.deidentify_key.get_secret_value()
        if self.deidentify and bool(key) == bool(self.deidentify_key_file):
            raise ValueError("deidentify needs deidentify_key or deidentify_key_file, one of them")
        if key and len(key) < SECRET_LENGTH:
            raise ValueError(f"deidentify_key has at least {SECRET_LENGTH} characters")
        if self.deidentify and self.commitment:
            raise ValueError("commitment asks by UIDs that a deidentified destination never sees")
        return self

    @model_validator(mode="after")
    def _has_an_address(self) -> Self:
        if self.transport is Transport.DIMSE and not (self.host and self.port):
            raise ValueError("a dimse destination needs host and port")
        if self.transport is Transport.STOW and not _is_plain_url(self.url):
            raise ValueError("a stow destination needs an http(s) url without credentials in it")
        if self.transport is Transport.FOLDER and not Path(self.path).is_absolute():
            raise ValueError("a folder destination needs an absolute path")
        if self.transport is not Transport.DIMSE and self.commitment:
            raise ValueError("storage commitment is a DIMSE service: commitment needs dimse")
        return self

    @model_validator(mode="after")
    def _gets_what_is_referred_to(self) -> Self:
        if (self.sr or self.pictures) and "labels" not in self.seg:
            raise ValueError("sr and pictures refer to the SEG of the labels, seg lacks labels")
        return self

    @property
    def kinds(self) -> frozenset[ObjectKind]:
        """What it gets, where there is such an object."""
        beside = {
            ObjectKind.REPORT: self.sr,
            ObjectKind.ENTROPY: self.entropy,
            ObjectKind.PICTURE: self.pictures,
            ObjectKind.ALSO: bool(self.also),
            ObjectKind.STRUCTURES: self.rtstruct,
        }
        return frozenset(
            [*(_KIND_OF[one] for one in self.seg), *(kind for kind, gets in beside.items() if gets)]
        )


def archive_of(source: Source, destinations: Iterable[Destination], name: str) -> Destination:
    """Return what studies can be pulled from.

    Parameters
    ----------
    source : Source
        The one that is meant by ``source``.
    destinations : iterable of Destination
        Those that are reached over a network are archives, too.
    name : str
        Which of them.

    Raises
    ------
    PullSourceError
        None of them is called so.
    """
    if name == SOURCE and source.transport != "none":
        return source.as_destination()
    archives = {one.name: one for one in destinations if one.transport is not Transport.FOLDER}
    if name not in archives:
        raise PullSourceError
    return archives[name]


def _is_mailbox(text: str) -> bool:
    """Say whether a text is a bare e-mail address, with nothing that a header could be made of."""
    return re.fullmatch(r"[\x21-\x7e]+@[\x21-\x7e]+", text) is not None and not re.search(
        r"[<>,;:\"()]|@.*@", text
    )


class Webhook(Branch):
    """An HTTP address that is told; `secret` signs what it gets, `ca_file` is who vouches for it.

    `secret_file` holds the secret instead, and is read anew each time.
    """

    url: str = ""
    secret: SecretStr = SecretStr("")
    secret_file: str = ""
    ca_file: str = ""
    timeout_s: float = Field(default=10.0, gt=0, le=60)

    @model_validator(mode="after")
    def _is_usable(self) -> Self:
        if not self.url:
            return self
        if not _is_plain_url(self.url) or not self.url.isascii() or "#" in self.url:
            raise ValueError("a webhook needs an http(s) url without credentials in it")
        secret = self.secret.get_secret_value()
        if bool(secret) == bool(self.secret_file):
            raise ValueError("a webhook needs a secret or a secret_file, one of them")
        if secret and len(secret) < SECRET_LENGTH:
            raise ValueError(f"the secret of a webhook has at least {SECRET_LENGTH} characters")
        return self


class Email(Branch):
    """A mail server and who is told through it.

    `password_file` holds the password instead, and is read anew each time.
    """

    host: str = ""
    port: Port = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    sender: str = ""
    recipients: tuple[str, ...] = ()
    username: str = ""
    password: SecretStr = SecretStr("")
    password_file: str = ""
    ca_file: str = ""
    timeout_s: float = Field(default=20.0, gt=0, le=60)

    @model_validator(mode="after")
    def _is_usable(self) -> Self:
        if not self.host:
            return self
        if not self.port or not self.recipients:
            raise ValueError("e-mail needs port and recipients")
        if not all(map(_is_mailbox, (self.sender, *self.recipients))):
            raise ValueError("sender and recipients are bare addresses, such as node@example.org")
        password = self.password.get_secret_value()
        if password and self.password_file:
            raise ValueError("e-mail needs a password or a password_file, not both")
        if bool(self.username) != bool(password or self.password_file):
            raise ValueError("e-mail needs both username and password, or neither")
        if self.username and self.security == "none":
            raise ValueError("security is none: the password would travel in the clear")
        return self


class Notify(Branch):
    """Whom to tell of what; a channel without an address is off.

    What was not taken is told again after `first_delay_s`, doubled up to `longest_delay_s`, until
    the waits come to `deadline_s`. Of what happens again within `digest_s` there is one notice,
    which counts it. `page_url` is where people reach the status page.
    """

    events: tuple[Event, ...] = (Event.CASE_FAILED, Event.CASE_HELD, Event.DELIVERY_FAILED)
    page_url: str = ""
    digest_s: float = Field(default=300.0, ge=0)
    first_delay_s: Seconds = 30.0
    longest_delay_s: float = Field(default=3600.0, gt=0)
    deadline_s: Seconds = 259200.0
    webhook: Webhook = Webhook()
    email: Email = Email()

    @model_validator(mode="after")
    def _has_a_page(self) -> Self:
        if self.page_url and not _is_plain_url(self.page_url):
            raise ValueError("page_url is an http(s) url without credentials in it")
        return self
