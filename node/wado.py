"""What an archive has of a study, and its instances as it keeps them: QIDO-RS and WADO-RS.

References
----------
DICOM PS3.18 10.6 (Search), 10.4 (Retrieve; 10.4.3.3.2 transfer-syntax), F (JSON model).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import requests
from pydicom.dataset import Dataset
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from node.archives import Headers, Stop, Taken
from node.deliver import stow_client
from node.errors import InstanceUnreadableError, PeerRefusedError, PeerUnavailableError
from node.pace import is_too_slow
from node.peers import Destination
from node.receive import multipart
from node.receive.dataset import checked_uid
from node.receive.instance import Intake
from node.receive.multipart import MultipartReader, Sink
from node.receive.stow import Sender, StoreRequest

CALLING: Final = "WADO-RS"
"""The calling AE title of instances that were pulled."""
_MODALITIES: Final = ("MR", "")
_PIXELS: Final = ("7FE00008", "7FE00009", "7FE00010")
_HEADERS: Final = {
    # As they are stored: without that the archive would decode compressed images.
    "Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*',
    "Accept-Encoding": "identity",
}
_BLOCK: Final = 2**16
_FRAMING_BYTES: Final = 2**16


class Archive:
    """A DICOMweb server that studies are pulled from.

    Parameters
    ----------
    peer : Destination
        Its address and what it asks for; errors name it.
    limit_bytes : int
        The largest instance that is taken.
    """

    def __init__(self, peer: Destination, *, limit_bytes: int) -> None:
        self._peer, self._limit_bytes = peer, limit_bytes

    @property
    def name(self) -> str:
        """What it is called here."""
        return self._peer.name

    @property
    def lane_count(self) -> int:
        """How many connections are opened at once."""
        return 4

    def series(self, study_instance_uid: str) -> list[str]:
        """Return the Series Instance UIDs of a study that may be MR; none where it has no such.

        Raises
        ------
        PeerUnavailableError, PeerRefusedError
            No usable answer, as of every method here.
        """
        with stow_client.open_client(self._peer) as client:
            found = client.search_for_series(study_instance_uid, fields=["Modality"])
            answers = stow_client.datasets(found)
            wanted = [one for one in answers if str(one.get("Modality") or "") in _MODALITIES]
            return sorted({_uid(one, "SeriesInstanceUID") for one in wanted})

    def headers(self, study_instance_uid: str, series_instance_uid: str) -> Headers:
        """Return the header of each instance of a series, by SOP Instance UID."""
        with stow_client.open_client(self._peer) as client:
            found = client.retrieve_series_metadata(study_instance_uid, series_instance_uid)
            headers = stow_client.datasets(
                {tag: one for tag, one in each.items() if tag not in _PIXELS} for each in found
            )
            return Headers(by_uid={_uid(one, "SOPInstanceUID"): one for one in headers})

    def batches(self, lacking: Sequence[str], whole: Sequence[str]) -> list[tuple[str, ...]]:  # noqa: ARG002 - see `node.archives`
        """Return them one by one."""
        return [(one,) for one in lacking]

    @contextmanager
    def open_lane(self, study_instance_uid: str, intake: Intake) -> Iterator[_Lane]:
        """Open one connection for many instances, for one thread."""
        with stow_client.open_session(self._peer) as session:
            # A connection that is kept may end just when it is used again; a GET may be repeated.
            once_more = HTTPAdapter(max_retries=Retry(total=1, connect=0, read=1, status=0))
            session.mount("http://", once_more)
            session.mount("https://", once_more)
            yield _Lane(self, session, study_instance_uid, intake)

    def fetch(self, session: requests.Session, address: str, sink: Sink, stop: Stop) -> int:
        """Give a sink what one address answers, as it comes; return how many bytes.

        Parameters
        ----------
        session : requests.Session
            Of `open_lane`.
        address : str
            Below the root of the archive.
        sink : Sink
            Gets the one part.
        stop : callable
            Asked between blocks; what has not come then is left.
        """
        url = f"{self._peer.url.rstrip('/')}/{address}"
        timeout_s = self._peer.timeout_s
        began, byte_count = time.monotonic(), 0
        with session.get(url, headers=_HEADERS, stream=True, timeout=timeout_s) as answer:
            answer.raise_for_status()
            boundary = multipart.boundary_of(answer.headers.get("Content-Type", ""))
            if not boundary:
                raise self._refused("no multipart answer")
            reader = MultipartReader(boundary, sink)
            for block in answer.iter_content(_BLOCK):
                byte_count += len(block)
                if byte_count > self._limit_bytes + _FRAMING_BYTES:
                    raise self._refused("an answer without end")
                if is_too_slow(byte_count, time.monotonic() - began, timeout_s):
                    raise PeerUnavailableError(destination=self.name, reason="too slow")
                if stop():
                    return byte_count
                reader.feed(block)
        if not reader.is_whole:
            raise PeerUnavailableError(destination=self.name, reason="the answer was cut off")
        return byte_count

    def _refused(self, status: str) -> PeerRefusedError:
        return PeerRefusedError(destination=self.name, status=status)


class _Lane:
    """One connection."""

    def __init__(
        self, archive: Archive, session: requests.Session, study_instance_uid: str, intake: Intake
    ) -> None:
        self._archive, self._session = archive, session
        self._study, self._intake = study_instance_uid, intake

    def take(self, series_instance_uid: str, instances: Sequence[str], stop: Stop) -> Taken:
        """Store one instance as it comes."""
        (instance,) = instances
        sender = Sender(calling_ae_title=CALLING, study_instance_uid=self._study)
        store = StoreRequest(self._intake, sender)
        address = f"studies/{self._study}/series/{series_instance_uid}/instances/{instance}"
        try:
            byte_count = self._archive.fetch(self._session, address, store, stop)
        finally:
            store.close()
        if stop() and not store.outcomes:
            return Taken()
        if [one.sop_instance_uid for one in store.outcomes] != [instance]:
            raise PeerRefusedError(destination=self._archive.name, status="another instance")
        return Taken(byte_count=byte_count, outcomes=[one.error for one in store.outcomes])


def _uid(ds: Dataset, keyword: str) -> str:
    """Return a UID that may stand in an address; anything else makes an answer unreadable."""
    try:
        return checked_uid(str(ds.get(keyword) or "").encode("utf-8", "replace"), keyword)
    except InstanceUnreadableError as error:
        raise ValueError(keyword) from error
