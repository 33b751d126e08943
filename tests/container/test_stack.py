"""docker-compose.yml brought up: a study put into the archive comes back and is seen in OHIF."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from converters import series
from converters.seg_check import read_labels
from inference import manifest
from tests import browser, containers, ohif, phantoms
from tests.containers import USER, Stack
from tests.nodes import MODEL
from tests.ohif import Viewer
from tests.phantoms import WrittenStudy
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]

PATIENCE_S = 600.0
SEALED = ("node", "viewer")
WORKING = {"complete", "assembled"}  # closed, and not yet segmented


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    containers.build_node()
    containers.build_viewer()
    with Stack() as running:
        yield running


@pytest.fixture(scope="module")
def result(stack: Stack, small_study: WrittenStudy) -> tuple[str, bytes]:
    """Return series and file of the Segmentation of a study that was put into the archive."""
    stack.upload(small_study.interleaved)
    uid = small_study.files.study_instance_uid
    (series_uid,) = wait_until(
        lambda: stack.series(uid, "SEG"), PATIENCE_S, "the Segmentation", poll_s=2.0
    )
    (file,) = stack.files(series_uid)
    return series_uid, file


def test_the_segmentation_is_in_the_archive_and_lies_on_the_study(
    stack: Stack, result: tuple[str, bytes], small_study: WrittenStudy, tmp_path: Path
) -> None:
    path = tmp_path / "seg.dcm"
    path.write_bytes(result[1])
    source = series.stack(small_study.files.paths["t1gd"], "", limits=None)
    labels = read_labels(path, source.headers)
    tumour, found = small_study.study.truth["t1gd"] > 0, labels > 0
    assert 2 * np.count_nonzero(tumour & found) > 0.7 * (tumour.sum() + found.sum())
    assert stack.series(small_study.files.study_instance_uid, "SR")


def test_ohif_shows_every_voxel_of_it(
    stack: Stack, result: tuple[str, bytes], small_study: WrittenStudy, tmp_path: Path
) -> None:
    browser.require()
    path = tmp_path / "seg.dcm"
    path.write_bytes(result[1])
    source = series.stack(small_study.files.paths["t1gd"], "", limits=None)
    labels = read_labels(path, source.headers)
    with browser.page(tmp_path / "profile") as page:
        viewer = Viewer(page, f"{stack.url}/ohif")
        viewer.open_study(small_study.files.study_instance_uid, series_count=6)
        page.value(ohif.PROBE)
        shown = viewer.open_segmentation(result[0])
        segments = manifest.load(MODEL).segments
        assert shown.labels == {one.number: one.label for one in segments}
        for one in segments:
            mask = shown.mask(one.number, source.headers, source.frames)
            np.testing.assert_array_equal(mask, labels == one.number)
        pictures = Path(os.environ.get("NEUROSEG_TEST_PICTURES") or tmp_path)
        pictures.mkdir(parents=True, exist_ok=True)
        index = int(np.count_nonzero(labels, axis=(1, 2)).argmax())
        viewer.draw(source, index, pictures / "stack.png")


def test_a_node_that_is_killed_at_work_finishes_after_its_restart(
    stack: Stack, result: tuple[str, bytes], tmp_path: Path
) -> None:
    assert result
    study = phantoms.written(tmp_path, seed=5)
    before = stack.states()
    stack.upload(study.interleaved)

    def is_at_work() -> bool:
        return any(state in WORKING for one, state in stack.states().items() if one not in before)

    wait_until(is_at_work, PATIENCE_S, "the study to be worked on", poll_s=0.3)
    stack.kill("node")
    assert not stack.inspect("node")["State"]["Running"]
    stack.start("node")
    uid = study.files.study_instance_uid
    wait_until(lambda: stack.series(uid, "SEG"), PATIENCE_S, "the Segmentation", poll_s=2.0)

    def is_delivered() -> bool:
        states = stack.states()
        return bool(states) and set(states.values()) == {"delivered"}

    wait_until(is_delivered, PATIENCE_S, "every case to be delivered", poll_s=1.0)
    assert len(stack.states()) == len(before) + 1
    (series_uid,) = stack.series(uid, "SEG")
    assert len(stack.files(series_uid)) == 1


def test_node_and_viewer_are_sealed(stack: Stack) -> None:
    for service in SEALED:
        refused = stack.within(service, "sh", "-c", "touch /etc/x 2>&1 || true")
        assert "Read-only file system" in refused
        rights = stack.within(service, "sh", "-c", "cat /proc/1/status").splitlines()
        fields = dict(line.split(":\t", 1) for line in rights)
        assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
        assert fields["NoNewPrivs"] == "1"
        assert fields["Uid"].split()[0] != "0"
    assert stack.within("node", "id", "-u").strip() == USER


def test_every_port_is_loopback(stack: Stack) -> None:
    for service in ("node", "orthanc", "viewer"):
        ports = stack.inspect(service)["NetworkSettings"]["Ports"]
        published = [one for found in ports.values() for one in found or ()]
        assert published
        assert {one["HostIp"] for one in published} == {"127.0.0.1"}


def test_every_service_is_healthy(stack: Stack) -> None:
    for service in ("node", "orthanc", "viewer"):
        stack.wait_healthy(service)
    assert stack.get("/readyz").is_success


def test_one_address_serves_page_archive_and_viewer_to_nobody_foreign(stack: Stack) -> None:
    assert "NeuroSeg" in stack.get("/").text
    assert "<title>" in stack.get("/ohif/").text
    assert "Orthanc" in stack.get("/orthanc/app/explorer.html").text
    assert stack.get("/dicom-web/studies").is_success
    assert stack.get("/orthanc/system", host="evil.example.org").status_code == 421


def test_no_log_names_the_patient(
    stack: Stack, result: tuple[str, bytes], small_study: WrittenStudy
) -> None:
    assert result
    header = series.stack(small_study.files.paths["t1gd"], "", limits=None).headers[0]
    secrets = (str(header.PatientName).split("^")[0], header.PatientID, header.StudyInstanceUID)
    for service in SEALED:
        log = stack.log(service)
        assert not [one for one in secrets if one in log]
    assert '"case.finished"' in stack.log("node")
