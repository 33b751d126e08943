"""STOW-RS of a result to a DICOMweb destination, and a QIDO-RS query to try it.

An HTTP status alone proves nothing: some servers answer 200 to what they could not read. A result
counts as stored when its SOP Instance UID stands in the Referenced SOP Sequence of the answer.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

import pydicom
import requests
from dicomweb_client import DICOMwebClient
from pydicom import config
from pydicom.dataset import Dataset
from requests.auth import AuthBase, HTTPBasicAuth

from node import tls
from node.cases import DeliveryReceipt, EncodedObject
from node.deliver.credentials import secret_of
from node.deliver.receipt import receipt_of
from node.dimse import Status, is_out_of_resources
from node.errors import PeerRefusedError, PeerUnavailableError
from node.peers import Destination

_VALIDATION: Final = threading.Lock()
_MULTIPART_ALLOWANCE_BYTES = 10_000
_JSON = {"application/dicom+json", "application/json"}
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError, ParseError)
"""What the client's parsers raise on a damaged answer."""


def send(
    seg: EncodedObject,
    file: Path,
    destination: Destination,
    *,
    calling_ae_title: str,  # noqa: ARG001 - the signature that all transports share
    attempt: int,
) -> DeliveryReceipt:
    """Return the receipt of one instance that the destination says it has stored.

    Parameters
    ----------
    seg : EncodedObject
        What the file holds.
    file : Path
        A DICOM file (PS3.10).
    destination : Destination
        Where to; its `timeout_s` bounds connecting and every wait for data.
    calling_ae_title : str
        Not used: HTTP knows no AE titles.
    attempt : int
        Which try this is, for the receipt.

    Raises
    ------
    PeerUnavailableError
        No connection, no answer in time, HTTP 429 or 5xx, or the peer lacks resources.
    PeerRefusedError
        Another HTTP status, a Failure Reason, or an answer that does not name the instance.

    References
    ----------
    DICOM PS3.18 10.5 Store Transaction; PS3.18 I.2 Store Instances Response Module.
    """
    ds = pydicom.dcmread(file)  # elements stay as they are encoded, so the same bytes travel
    with open_client(destination, largest_body_bytes=seg.byte_count) as client:
        answer = _store(client, ds)
        status = _stored_status(answer, seg.sop_instance_uid, destination)
    return receipt_of(seg, destination, f"0x{status:04X}", attempt)


def _store(client: DICOMwebClient, ds: Dataset) -> Dataset:
    """Return the answer to one instance; HTTP 409 has one too, which says why it was not stored."""
    try:
        return client.store_instances([ds])
    except requests.HTTPError as error:
        if error.response is None or error.response.status_code != HTTPStatus.CONFLICT:
            raise
        if error.response.headers["Content-Type"] not in _JSON or not error.response.content:
            raise
        answer = Dataset.from_json(error.response.json())
        if not answer.get("FailedSOPSequence"):
            raise
        answer.pop("ReferencedSOPSequence", None)  # nothing was stored
        return answer


def echo(
    destination: Destination,
    *,
    calling_ae_title: str,  # noqa: ARG001 - the signature that all transports share
) -> None:
    """Ask the destination for one study (QIDO-RS).

    Raises
    ------
    PeerUnavailableError, PeerRefusedError
        As for `send`.
    """
    with open_client(destination) as client:
        client.search_for_studies(limit=1)


def _unavailable(destination: Destination, reason: str) -> PeerUnavailableError:
    return PeerUnavailableError(destination=destination.name, reason=reason)


def _refused(destination: Destination, status: str) -> PeerRefusedError:
    return PeerRefusedError(destination=destination.name, status=status)


class _Bearer(AuthBase):
    """A token, sent to the destination's own host alone."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


@contextmanager
def open_client(
    destination: Destination, *, largest_body_bytes: int = 0
) -> Iterator[DICOMwebClient]:
    """Open a client; what goes wrong with it leaves as one of our errors, free of addresses."""
    with open_session(destination) as session:
        client = DICOMwebClient(
            destination.url.rstrip("/"),
            session=session,
            headers={"Accept": "application/dicom+json"},
            callback=_name_media_type,
            # One piece with its length: not every server takes a chunked body.
            chunk_size=largest_body_bytes + _MULTIPART_ALLOWANCE_BYTES,
            timeout=destination.timeout_s,
        )
        client.host = urlsplit(
            destination.url
        ).netloc  # becomes the Host header; the client itself leaves the port out
        client.set_http_retry_params(retry=False)  # repeating is the job engine's business
        yield client


@contextmanager
def open_session(destination: Destination) -> Iterator[requests.Session]:
    """Open what the client speaks through; errors leave as of `open_client`."""
    if destination.ca_file or destination.certificate_file:
        tls.client_context(destination)  # says what is wrong with the files; the client would not
    with _Session() as session:
        session.verify = destination.ca_file or True
        if destination.certificate_file:
            session.cert = destination.certificate_file, destination.key_file
        session.auth = _credentials(destination)
        session.max_redirects = 0  # a redirect would carry the patient's data elsewhere
        with _translated(destination):
            yield session


def datasets(answers: Iterable[dict[str, Any]]) -> list[Dataset]:
    """Return answers of the JSON model as data sets, whatever their values; bulk data is empty.

    The library would warn of values that are against the rules, and quote them.
    """
    with _VALIDATION:  # one setting for all threads, which does nothing but warn
        earlier = config.settings.reading_validation_mode
        config.settings.reading_validation_mode = config.IGNORE
        try:
            return [Dataset.from_json(one, _nothing) for one in answers]
        finally:
            config.settings.reading_validation_mode = earlier


def _nothing(_: str, __: str, ___: str) -> None:
    """Leave bulk data where it is."""


class _Session(requests.Session):
    """A session whose own authorities count for more than those of the environment."""

    def merge_environment_settings(
        self,
        url: str,
        proxies: dict[str, str] | None,
        stream: bool | None,  # noqa: FBT001 - the library's signature
        verify: bool | str | None,  # noqa: FBT001
        cert: str | tuple[str, str] | None,
    ) -> dict[str, Any]:
        own = self.verify if isinstance(self.verify, str) else verify
        return super().merge_environment_settings(url, proxies, stream, own, cert)


def _credentials(destination: Destination) -> AuthBase | None:
    token = secret_of(destination, destination.bearer_token, destination.bearer_token_file)
    if token:
        return _Bearer(token)
    if destination.username:
        password = secret_of(destination, destination.password, destination.password_file)
        return HTTPBasicAuth(destination.username.encode(), password.encode())
    return None


def _name_media_type(response: requests.Response, **_: object) -> requests.Response:
    """Reduce the Content-Type to what the client compares it with: no parameters, lower case."""
    stated = response.headers.get("Content-Type", "")
    response.headers["Content-Type"] = stated.partition(";")[0].strip().lower()
    return response


@contextmanager
def _translated(destination: Destination) -> Iterator[None]:
    try:
        yield
    except (requests.HTTPError, requests.TooManyRedirects) as error:
        status = error.response.status_code if error.response is not None else 0
        raise _by_status(destination, status) from error
    except requests.JSONDecodeError as error:
        raise _refused(destination, "unreadable answer") from error
    except requests.Timeout as error:
        reason = f"no answer within {destination.timeout_s:.0f} s"
        raise _unavailable(destination, reason) from error
    except requests.exceptions.SSLError as error:
        raise _unavailable(destination, "TLS connection failed") from error
    except requests.RequestException as error:
        raise _unavailable(destination, "connection failed") from error
    except _UNREADABLE as error:
        raise _refused(destination, "unreadable answer") from error


def _by_status(destination: Destination, status: int) -> PeerUnavailableError | PeerRefusedError:
    passing = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.REQUEST_TIMEOUT,
    }
    kind = _unavailable if passing else _refused
    return kind(destination, f"HTTP {status}")


def _stored_status(answer: Dataset, sop_instance_uid: str, destination: Destination) -> int:
    """Return the status under which the instance was stored: 0, or its Warning Reason."""
    for item in answer.get("ReferencedSOPSequence", []):
        if item.get("ReferencedSOPInstanceUID") == sop_instance_uid:
            return int(item.get("WarningReason", Status.SUCCESS))
    for item in answer.get("FailedSOPSequence", []):
        if item.get("ReferencedSOPInstanceUID") in {sop_instance_uid, None}:
            return _failure(int(item.get("FailureReason", Status.PROCESSING_FAILURE)), destination)
    raise _refused(destination, "not in the list of stored instances")


def _failure(reason: int, destination: Destination) -> int:
    if reason == Status.DUPLICATE_SOP_INSTANCE:
        return reason
    if is_out_of_resources(reason):
        raise _unavailable(destination, f"out of resources, status 0x{reason:04X}")
    raise _refused(destination, f"0x{reason:04X}")
