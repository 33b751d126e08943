"""A work item that names a study of the archive comes back completed, with its results there."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests import peers, tiny_models
from tests.nodes import RunningNode, destination
from tests.peers import Orthanc
from tests.phantoms import WrittenStudy
from tests.waiting import wait_until

pytestmark = pytest.mark.integration
_JSON = {"content-type": "application/dicom+json"}


def test_a_work_item_has_its_study_pulled_and_names_what_came_of_it(
    small_study: WrittenStudy, tmp_path: Path
) -> None:
    peers.require("orthanc")
    study = small_study.files.study_instance_uid
    model = tiny_models.written(tmp_path / "tiny", skull="any")
    with Orthanc(tmp_path / "orthanc") as archive:
        archive.upload(small_study.interleaved)
        source = f"[source]\ntransport = 'qido'\nurl = '{archive.dicomweb_url}'\n"
        places = [source, destination("pacs", url=archive.dicomweb_url)]
        options = {"model": f"folder = '{model}'", "worklist": "perform = true"}
        with RunningNode(tmp_path / "node", places, options=options) as node:
            node.wait_ready()
            root = f"{node.url}/dicom-web/workitems"
            item = {"0020000D": {"vr": "UI", "Value": [study]}}
            made = httpx.post(f"{root}?1.2.3", json=item, headers=_JSON, trust_env=False)
            assert made.status_code == 201

            def _ended() -> bool:
                (told,) = httpx.get(f"{root}/1.2.3", trust_env=False).json()
                return told["00741000"]["Value"][0] in ("COMPLETED", "CANCELED")

            wait_until(_ended, 120, "the work item to end", poll_s=0.5)
            (told,) = httpx.get(f"{root}/1.2.3", trust_env=False).json()
        assert told["00741000"]["Value"] == ["COMPLETED"], told.get("00741238")
        (performed,) = told["00741216"]["Value"]
        named = {
            reference["00081155"]["Value"][0]
            for output in performed["00404033"]["Value"]
            for reference in output["00081199"]["Value"]
        }
        assert set(archive.find_instances(study, "SEG")) <= named
        assert archive.find_instances(study, "SEG")
        assert study not in node.log_path.read_text()
