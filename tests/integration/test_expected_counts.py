"""The PACS is asked how many images a study has; where it does not answer, nobody waits for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from pydicom import dcmread

from node import logs, source
from node.assemble import Expectation
from node.cases import SeriesCount
from node.errors import PeerRefusedError, PeerUnavailableError
from node.peers import Source as SourceSettings
from node.source import Counts, Source
from tests import peers
from tests.peers import Orthanc, free_port
from tests.phantoms import WrittenStudy
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

START = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def archive(
    tmp_path_factory: pytest.TempPathFactory, small_study: WrittenStudy
) -> Iterator[Orthanc]:
    """Run an archive that holds a study."""
    peers.require("orthanc")
    modality = {"node": ["NEUROSEG", "127.0.0.1", 104]}
    folder = tmp_path_factory.mktemp("orthanc")
    with Orthanc(folder, DicomModalities=modality, DicomAlwaysAllowFind=True) as orthanc:
        orthanc.upload(small_study.interleaved)
        yield orthanc


def _source(archive: Orthanc, transport: str, **more: object) -> Source:
    values = {
        "transport": transport,
        "host": "127.0.0.1",
        "port": archive.dicom_port,
        "ae_title": archive.ae_title,
        "url": archive.dicomweb_url,
        "timeout_s": 10.0,
        "poll_s": 5.0,
        **more,
    }
    asked = source.from_settings(SourceSettings.model_validate(values), calling_ae_title="NEUROSEG")
    assert asked is not None
    return asked


def _expected(small_study: WrittenStudy) -> dict[str, SeriesCount]:
    return {
        str(dcmread(paths[0]).SeriesInstanceUID): SeriesCount(
            modality="MR", instance_count=len(paths)
        )
        for paths in small_study.files.paths.values()
    }


def _answered(
    asked: Source, study: str, *, since: datetime = START, now: datetime | None = None
) -> Expectation:
    """Ask until there is an answer."""
    now = now or since + timedelta(seconds=3)
    wait_until(
        lambda: bool(asked.expected(study, since=since, now=now).series), 10, "the PACS's answer"
    )
    return asked.expected(study, since=since, now=now)


@pytest.mark.parametrize("transport", ["qido", "cfind"])
def test_a_pacs_says_how_many_images_each_series_has(
    transport: str, archive: Orthanc, small_study: WrittenStudy
) -> None:
    asked = _source(archive, transport)
    study = small_study.files.study_instance_uid
    pending = Expectation(is_asked=True, is_pending=True)
    assert asked.expected(study, since=START, now=START) == pending
    assert dict(_answered(asked, study).series) == _expected(small_study)


@pytest.mark.parametrize("transport", ["qido", "cfind"])
def test_a_study_that_the_pacs_does_not_have_is_not_expected(
    transport: str, archive: Orthanc
) -> None:
    peer = SourceSettings.model_validate(
        {
            "transport": transport,
            "host": "127.0.0.1",
            "port": archive.dicom_port,
            "url": archive.dicomweb_url,
        }
    )
    assert dict(source.asking(peer, calling_ae_title="NEUROSEG")("1.2.3.4.5")) == {}


def test_an_answer_from_before_the_last_instance_does_not_count(
    archive: Orthanc, small_study: WrittenStudy
) -> None:
    asked = _source(archive, "qido", poll_s=1000.0)
    study = small_study.files.study_instance_uid
    _answered(asked, study)
    later = START + timedelta(seconds=30)
    assert not asked.expected(study, since=later, now=later).series
    assert _answered(asked, study, since=later).series


def test_a_pacs_that_is_away_is_warned_about_once_and_asked_again_later(
    archive: Orthanc, small_study: WrittenStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(strict=True)  # anew, to write where this test reads
    study = small_study.files.study_instance_uid
    dead = {"host": "127.0.0.1", "port": free_port(), "timeout_s": 2.0, "poll_s": 0.2}
    asked = _source(archive, "cfind", **dead)
    started = datetime.now(UTC)
    said: list[str] = []
    held_up: list[bool] = []

    def _has_failed_again() -> bool:
        found = asked.expected(study, since=START, now=datetime.now(UTC))
        assert not found.series
        held_up.append(found.is_pending)
        said.extend(line for line in capsys.readouterr().out.splitlines() if "source." in line)
        return (datetime.now(UTC) - started).total_seconds() > 1.5

    wait_until(_has_failed_again, 20, "several questions")
    warnings = [json.loads(line) for line in said]
    assert [(one["event"], one["code"]) for one in warnings] == [
        ("source.failed", "PEER_UNAVAILABLE")
    ]
    assert study not in "".join(said)
    assert held_up[0]
    assert not held_up[-1]
    assert held_up == sorted(held_up, reverse=True)  # once it has failed, nobody waits for it


@pytest.mark.parametrize(
    ("transport", "more", "error"),
    [
        ("cfind", {"port": 1}, PeerUnavailableError),
        ("qido", {"url": "http://127.0.0.1:1/dicom-web"}, PeerUnavailableError),
        ("qido", {"url_end": "/nowhere"}, PeerRefusedError),
    ],
)
def test_a_pacs_that_cannot_answer_is_a_coded_error(
    transport: str, more: dict[str, object], error: type[Exception], archive: Orthanc
) -> None:
    values = {
        "transport": transport,
        "host": "127.0.0.1",
        "port": archive.dicom_port,
        "url": archive.dicomweb_url + str(more.pop("url_end", "")),
        "timeout_s": 3.0,
        **more,
    }
    peer = SourceSettings.model_validate(values)
    with pytest.raises(error):
        source.asking(peer, calling_ae_title="NEUROSEG")("1.2.3.4.5")


def test_an_answer_is_asked_for_again_when_it_is_old() -> None:
    asked_for: list[str] = []

    def _ask(study: str) -> Counts:
        asked_for.append(study)
        return {"1.1": SeriesCount(modality="MR", instance_count=len(asked_for))}

    asked = Source(_ask, poll_s=5.0)
    first = _answered(asked, "1").series["1.1"]
    for age_s in (4.9, 5.0, 5.1):
        now = START + timedelta(seconds=3.0 + age_s)
        assert asked.expected("1", since=START, now=now).series  # the old one counts meanwhile
    wait_until(lambda: len(asked_for) == 2, 5, "the second question")
    assert (first.instance_count, asked_for) == (1, ["1", "1"])
    asked.forget("1")
    assert not asked.expected("1", since=START, now=START).series


def test_after_an_outage_what_was_known_no_longer_holds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure(strict=True)  # anew, to write where this test reads
    answers: list[Counts | PeerUnavailableError] = [
        {"1.1": SeriesCount(modality="MR", instance_count=9)},
        PeerUnavailableError(destination="source", reason="no connection"),
        {"1.1": SeriesCount(modality="MR", instance_count=10)},
    ]

    def _ask(study: str) -> Counts:
        del study
        answer = answers.pop(0)
        if isinstance(answer, PeerUnavailableError):
            raise answer
        return answer

    asked = Source(_ask, poll_s=0.05)
    _answered(asked, "1")
    now = START + timedelta(seconds=60)
    wait_until(lambda: not asked.expected("1", since=START, now=now).series, 5, "the outage")
    assert _answered(asked, "1", now=now).series["1.1"].instance_count == 10
    assert capsys.readouterr().out.count("source.failed") == 1


def test_no_source_is_asked_by_default() -> None:
    assert source.from_settings(SourceSettings(), calling_ae_title="NEUROSEG") is None


def test_at_most_a_few_questions_are_open_at_once() -> None:
    open_now: list[str] = []
    gate = threading.Event()

    def _ask(study: str) -> Counts:
        open_now.append(study)
        gate.wait(10)
        return {}

    asked = Source(_ask, poll_s=5.0)
    for number in range(20):
        asked.expected(str(number), since=START, now=START + timedelta(seconds=3))
    wait_until(lambda: len(open_now) == 4, 5, "four questions")
    gate.set()
