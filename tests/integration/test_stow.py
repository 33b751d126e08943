"""STOW-RS as its senders speak it: dicomweb-client, curl, Orthanc."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pydicom
import pytest
from dicomweb_client import DICOMwebClient

from converters import phantom
from tests import stow_requests
from tests.doors import make_instance
from tests.nodes import RunningNode, destination
from tests.peers import Orthanc
from tests.stow_requests import CONTENT_TYPE, REFERENCED, part10, uids
from tests.web_cases import WebNode, served

pytestmark = pytest.mark.integration


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[WebNode, str]]:
    """Yield a node and the address of its web role on a real port."""
    node = WebNode.create(tmp_path)
    with served(node.app()) as url:
        yield node, url
    node.ledger.close()


def test_dicomweb_client_stores_instances(web: tuple[WebNode, str]) -> None:
    node, url = web
    sent = [make_instance() for _ in range(3)]
    read = [pydicom.dcmread(io.BytesIO(part10(ds))) for ds in sent]
    client = DICOMwebClient(f"{url}/dicom-web")
    answer = client.store_instances(read)
    stored = [one.ReferencedSOPInstanceUID for one in answer.ReferencedSOPSequence]
    assert stored == [ds.SOPInstanceUID for ds in sent]
    again = client.store_instances(read[:1], study_instance_uid=sent[0].StudyInstanceUID)
    assert "FailedSOPSequence" not in again
    assert len(node.ledger.cases()) == 3


@pytest.mark.parametrize("framing", ["Content-Length:", "Transfer-Encoding: chunked"])
def test_curl_stores_a_body_with_and_without_a_length(
    web: tuple[WebNode, str], tmp_path: Path, framing: str
) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    node, url = web
    sent = [make_instance(PixelData=bytes(2048) * 400) for _ in range(3)]  # curl asks first
    body = tmp_path / "body"
    body.write_bytes(stow_requests.body(map(part10, sent)))
    chunked = ["-H", framing] if framing.endswith("chunked") else []
    command = [curl, "--silent", "--show-error", "-H", f"Content-Type: {CONTENT_TYPE}", *chunked]
    done = subprocess.run(
        [*command, "--data-binary", f"@{body}", f"{url}/dicom-web/studies"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    answer = json.loads(done.stdout)
    assert uids(answer, REFERENCED) == [ds.SOPInstanceUID for ds in sent]
    assert len(node.ledger.cases()) == 3


@pytest.mark.timeout(300)
def test_a_study_that_orthanc_stows_comes_back_to_it_as_a_result(
    orthanc: Orthanc, tmp_path: Path
) -> None:
    study = phantom.write_study(phantom.make_study(5, size="small"), tmp_path / "study")
    paths = [path for series in study.paths.values() for path in series]
    orthanc.upload(paths)
    node = RunningNode(
        tmp_path / "node",
        [destination("orthanc", url=orthanc.dicomweb_url)],
        options={"align": 'registration = "off"'},
    )
    with node:
        node.wait_ready()
        sent = orthanc.stow(f"{node.url}/dicom-web/", study.study_instance_uid)
        assert sent == len(paths)
        (case,) = node.wait_states("delivered")
        assert case["received_instances"] == len(paths)
        assert len(orthanc.find_instances(study.study_instance_uid, "SEG")) == 1
        node.stop()
    (stowed, *_) = [one for one in node.log_lines() if one["event"] == "stow.finished"]
    assert stowed["failed_count"] == 0
    assert study.study_instance_uid not in node.log_path.read_text(encoding="utf-8")


def test_what_orthanc_sends_twice_is_known(orthanc: Orthanc, web: tuple[WebNode, str]) -> None:
    node, url = web
    ds = make_instance()
    httpx.post(
        f"{orthanc.http_url}/instances", content=part10(ds), trust_env=False
    ).raise_for_status()
    for _ in range(2):
        assert orthanc.stow(f"{url}/dicom-web/", ds.StudyInstanceUID) == 1
    assert len(list((node.spool.root / "instances").rglob("*.dcm"))) == 1
