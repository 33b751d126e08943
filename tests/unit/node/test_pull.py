"""What is pulled of a study, and what an archive that answers wrongly is called."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydicom.dataset import Dataset

from inference import manifest as manifests
from node.errors import InstanceTooLargeError, PeerUnavailableError
from node.ledger import Ledger
from node.pull_orders import PullRow, PullState
from node.pulling import Pulling
from node.settings import Settings
from node.spool import Spool
from tests.doors import make_instance
from tests.nodes import MODEL
from tests.scripted_peers import HttpPeer, Reply, closed_port
from tests.stow_requests import CONTENT_TYPE, body, part10

STUDY, SERIES = "1.2.3", "1.2.3.4"
_JSON = {"Content-Type": "application/dicom+json"}
Change = Callable[["Script"], object]


class Script:
    """An archive of one series with two images, whose answers a test may spoil."""

    def __init__(self) -> None:
        self.images = [_image(number) for number in (1, 2)]
        files = {one.SOPInstanceUID: part10(one) for one in self.images}
        self.series = [{"0020000E": _uid(SERIES), "00080060": {"vr": "CS", "Value": ["MR"]}}]
        self.metadata = [_bulky(one) for one in self.images]
        self.parts = {uid: body([file]) for uid, file in files.items()}
        self.media_type = CONTENT_TYPE
        self.status = 200
        self.headers: dict[str, str] = {}

    def reply(self, path: str) -> Reply:
        """Return what is answered."""
        address = path.partition("?")[0]
        if address.endswith("/metadata"):
            return Reply(body=json.dumps(self.metadata).encode(), headers=_JSON)
        if address.endswith("/series"):
            return Reply(body=json.dumps(self.series).encode(), headers=_JSON)
        headers = {"Content-Type": self.media_type, **self.headers}
        return Reply(
            status=self.status, body=self.parts[address.rpartition("/")[2]], headers=headers
        )


def _image(number: int, **changes: object) -> Dataset:
    uids = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES}
    return make_instance(**uids, SOPInstanceUID=f"{SERIES}.{number}", **changes)


def _uid(value: str) -> dict[str, Any]:
    return {"vr": "UI", "Value": [value]}


def _bulky(image: Dataset) -> dict[str, Any]:
    """Return metadata as archives give it: whatever is large is somewhere else."""
    told: dict[str, Any] = image.to_json_dict()
    told["7FE00010"] = {"vr": "OW", "BulkDataURI": "http://elsewhere.invalid/pixels"}
    told["00291001"] = {"vr": "OB", "BulkDataURI": "http://elsewhere.invalid/private"}
    return told


@contextmanager
def _pulling(url: str, spool: Spool, ledger: Ledger, **more: object) -> Iterator[Pulling]:
    source = {"transport": "qido", "url": url, "timeout_s": 3.0}
    settings = Settings.model_validate({"source": source, **more})
    yield Pulling(settings, spool, ledger, manifests.load(MODEL), executor_id="test/work")


def _pulled(url: str, spool: Spool, ledger: Ledger, **more: object) -> PullRow:
    with _pulling(url, spool, ledger, **more) as pulling:
        pulling.orders.want(STUDY, "source")
        pulling.look()
        return pulling.orders.row(STUDY)


def test_where_roles_stay_empty_everything_is_pulled(spool: Spool, ledger: Ledger) -> None:
    script = Script()
    with HttpPeer(script.reply) as peer:
        row = _pulled(peer.url, spool, ledger)
        asked = [one for one in peer.requests if "/instances/" in one.path]
    assert (row.state, row.code, row.plan) == (PullState.DONE, None, {SERIES: 2})
    assert (row.tally.images_here, row.tally.images_fetched) == (2, 2)
    stored = {one.sop_instance_uid: one for one in ledger.study_instances(STUDY)}
    assert stored.keys() == {one.SOPInstanceUID for one in script.images}
    assert {one.calling_ae_title for one in stored.values()} == {"WADO-RS"}
    assert all("transfer-syntax=*" in one.headers["Accept"] for one in asked)
    (case,) = ledger.cases()
    assert case.released_at is not None


def test_what_is_stored_is_not_fetched_again(spool: Spool, ledger: Ledger) -> None:
    script = Script()
    with HttpPeer(script.reply) as peer, _pulling(peer.url, spool, ledger) as pulling:
        for _ in range(2):
            pulling.orders.want(STUDY, "source")
            pulling.look()
        asked = [one.path for one in peer.requests if "/instances/" in one.path]
        row = pulling.orders.row(STUDY)
    assert (len(asked), len(set(asked))) == (2, 2)
    assert (row.state, row.tally.images_here, row.tally.images_fetched) == (PullState.DONE, 2, 0)


def _spoil_series(script: Script) -> None:
    script.series = [{"0020000E": _uid("../../etc")}]


def _spoil_metadata(script: Script) -> None:
    script.metadata = [{"00080018": {"vr": "UI", "Value": [7]}}, {"not a tag": {}}]


def _swap(script: Script) -> None:
    first, second = script.parts
    script.parts = {first: script.parts[second], second: script.parts[first]}


def _cut(script: Script) -> None:
    script.parts = {uid: part[:-200] for uid, part in script.parts.items()}


def _page(script: Script) -> None:
    script.media_type = "text/html"


def _other_study(script: Script) -> None:
    other = [make_instance(SOPInstanceUID=uid) for uid in script.parts]
    script.parts = {one.SOPInstanceUID: body([part10(one)]) for one in other}


def _nothing(script: Script) -> None:
    script.series = []


def _two(script: Script) -> None:
    script.parts = dict.fromkeys(script.parts, body([part10(one) for one in script.images]))


def _busy(script: Script) -> None:
    script.status = 503


def _elsewhere(script: Script) -> None:
    script.status, script.headers = 302, {"Location": "http://127.0.0.1:1/"}


@pytest.mark.parametrize(
    ("change", "code", "state"),
    [
        (_spoil_series, "PEER_REFUSED", PullState.FAILED),
        (_spoil_metadata, "PEER_REFUSED", PullState.FAILED),
        (_swap, "PEER_REFUSED", PullState.FAILED),
        (_two, "PEER_REFUSED", PullState.FAILED),
        (_page, "PEER_REFUSED", PullState.FAILED),
        (_elsewhere, "PEER_REFUSED", PullState.FAILED),
        (_other_study, "PULL_INCOMPLETE", PullState.FAILED),
        (_nothing, "PULL_STUDY_UNKNOWN", PullState.FAILED),
        (_cut, "PEER_UNAVAILABLE", PullState.WANTED),
        (_busy, "PEER_UNAVAILABLE", PullState.WANTED),
    ],
)
def test_a_wrong_answer_has_a_code(
    change: Change, code: str, state: PullState, spool: Spool, ledger: Ledger
) -> None:
    script = Script()
    change(script)
    with HttpPeer(script.reply) as peer:
        row = _pulled(peer.url, spool, ledger)
    assert (row.code, row.state) == (code, state)
    assert (row.next_at is not None) == (state is PullState.WANTED)
    assert list((spool.root / "incoming").iterdir()) == []
    assert STUDY not in f"{row.sentence}{row.advice}"


def test_an_archive_that_is_away_is_asked_again_later(spool: Spool, ledger: Ledger) -> None:
    url = f"http://127.0.0.1:{closed_port()}/dicom-web"
    with _pulling(url, spool, ledger, delivery={"first_delay_s": 0.0}) as pulling:
        pulling.orders.want(STUDY, "source")
        (row,) = _looks(pulling, 1)
        assert (row.state, row.code, row.tries) == (PullState.WANTED, "PEER_UNAVAILABLE", 1)
        assert row.is_open


def _looks(pulling: Pulling, count: int) -> list[PullRow]:
    """Take what is due so many times, and return how it stands after each."""
    found = []
    for _ in range(count):
        row = pulling.orders.take("test/work")
        assert row is not None
        pulling.end_badly(row, PeerUnavailableError(destination="source", reason="connection"))
        found.append(pulling.orders.row(STUDY))
    return found


def test_after_the_last_attempt_a_pull_has_failed(spool: Spool, ledger: Ledger) -> None:
    delivery = {"first_delay_s": 0.0, "longest_delay_s": 0.0, "max_attempts": 3}
    with _pulling("http://127.0.0.1:1/x", spool, ledger, delivery=delivery) as pulling:
        pulling.orders.want(STUDY, "source")
        states = [row.state for row in _looks(pulling, 3)]
    assert states == [PullState.WANTED, PullState.WANTED, PullState.FAILED]


def test_what_is_too_large_is_left_and_the_rest_is_stored(spool: Spool, ledger: Ledger) -> None:
    script = Script()
    large = _image(1, PixelData=bytes(20000))
    script.parts[large.SOPInstanceUID] = body([part10(large)])
    with HttpPeer(script.reply) as peer:
        row = _pulled(peer.url, spool, ledger, receive={"max_instance_bytes": 8192})
    assert (row.code, row.state) == ("PULL_INCOMPLETE", PullState.FAILED)
    assert InstanceTooLargeError.code in str(row.sentence)
    assert [one.sop_instance_uid for one in ledger.study_instances(STUDY)] == [f"{SERIES}.2"]


def test_without_room_a_pull_waits(tmp_path: Any, ledger: Ledger) -> None:  # noqa: ANN401
    full = Spool(tmp_path / "full", free_floor_bytes=2**60)
    with HttpPeer(Script().reply) as peer:
        row = _pulled(peer.url, full, ledger)
    assert (row.code, row.state) == ("SPOOL_FULL", PullState.WANTED)


def test_an_archive_that_is_no_longer_named_is_said(spool: Spool, ledger: Ledger) -> None:
    with _pulling("http://127.0.0.1:1/x", spool, ledger) as pulling:
        pulling.orders.want(STUDY, "gone")
        pulling.look()
        row = pulling.orders.row(STUDY)
    assert (row.code, row.state) == ("PULL_SOURCE", PullState.FAILED)
