"""A study pushed to the node comes back as a SEG in the PACS: the whole way with real peers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from scipy.spatial import cKDTree

from converters import phantom, seg_check, series
from converters.phantom import PhantomFiles, PhantomStudy
from tests import browser, peers
from tests.browser import Page
from tests.nodes import RunningNode, destination, push
from tests.peers import Orthanc, storescu
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


def interleaved(files: PhantomFiles) -> list[Path]:
    rounds = itertools.zip_longest(*files.paths.values())
    return [path for one in rounds for path in one if path is not None]


def case_of(node: RunningNode, study_uid: str, state: str, *, revision: int = 1) -> dict[str, Any]:
    """Wait until a study's case is in a state; return it in full."""

    def _found() -> list[dict[str, Any]]:
        return [
            one
            for one in node.cases()
            if (one["study_instance_uid"], one["revision"]) == (study_uid, revision)
        ]

    wait_until(
        lambda: any(one["state"] == state for one in _found()), 120.0, f"the case to be {state}"
    )
    return node.case(_found()[0]["case_id"])


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    peers.require("orthanc")
    peers.require("dcmtk")
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as pacs:
        yield pacs


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, pacs: Orthanc) -> Iterator[RunningNode]:
    """Run a node that sends every result by C-STORE and by STOW-RS."""
    destinations = [
        destination("pacs", port=pacs.dicom_port, ae_title=pacs.ae_title),
        destination("pacs-web", url=pacs.dicomweb_url),
    ]
    with RunningNode(tmp_path_factory.mktemp("node"), destinations) as node:
        node.wait_ready()
        yield node


@pytest.fixture(scope="module")
def study() -> PhantomStudy:
    return phantom.make_study(3, size="small")


@pytest.fixture(scope="module")
def files(study: PhantomStudy, tmp_path_factory: pytest.TempPathFactory) -> PhantomFiles:
    return phantom.write_study(study, tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def watching(node: RunningNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page | None]:
    """Yield the list of cases, opened before there is one; None where there is no browser."""
    if browser.executable() is None:
        yield None
        return
    with browser.page(tmp_path_factory.mktemp("profile")) as page:
        page.open(node.url)
        page.until("document.body.innerText.includes('Send a first study')")
        page.value("window.isSame = true")
        yield page


@pytest.fixture(scope="module")
def delivered(
    node: RunningNode,
    files: PhantomFiles,
    watching: Page | None,  # noqa: ARG001 - it is opened before there is a case
) -> dict[str, Any]:
    """Return the case of a study that was pushed while somebody may have watched."""
    done = storescu(interleaved(files), port=node.dicom_port, called="NEUROSEG")
    assert done.returncode == 0, done.stderr
    return case_of(node, files.study_instance_uid, "delivered")


def test_the_seg_comes_back_once_by_both_ways_with_equal_bytes(
    node: RunningNode, pacs: Orthanc, files: PhantomFiles, delivered: dict[str, Any]
) -> None:
    found = pacs.find_series(files.study_instance_uid, "SEG")
    assert len(found) == 1
    ours = node.spool / "cases" / delivered["case_id"] / "seg.dcm"
    result = delivered["results"][0]  # the SEG; what goes with it follows
    assert _data_set(pacs.instance_bytes(result["sop_instance_uid"])) == _data_set(
        ours.read_bytes()
    )
    assert {one["destination"] for one in delivered["receipts"]} == {"pacs", "pacs-web"}


def _data_set(part_10: bytes) -> bytes:
    """Return the data set of a file: what follows the File Meta Information (PS3.10 7.1)."""
    return part_10[132 + 12 + int.from_bytes(part_10[140:144], "little") :]


def test_the_seg_outlines_the_phantoms_tumour(
    node: RunningNode, study: PhantomStudy, files: PhantomFiles, delivered: dict[str, Any]
) -> None:
    sources = series.stack(files.paths["t1gd"])
    folder = node.spool / "cases" / delivered["case_id"]
    found = seg_check.read_labels(folder / "seg.dcm", sources.headers) > 0
    truth = study.truth["t1gd"] > 0
    dice = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    assert dice > 0.6


def test_every_voxel_lies_where_the_label_map_has_it_after_the_whole_way(
    node: RunningNode,
    pacs: Orthanc,
    study: PhantomStudy,
    delivered: dict[str, Any],
) -> None:
    result = delivered["results"][0]  # the SEG; what goes with it follows
    ds = dcmread(BytesIO(pacs.instance_bytes(result["sop_instance_uid"])))
    folder = node.spool / "cases" / delivered["case_id"]
    image = nibabel.Nifti1Image.from_filename(folder / "labels.nii.gz")
    labels = np.asarray(image.dataobj)
    for number in (1, 2, 3):
        index = np.argwhere(labels == number)
        expected = (index @ image.affine[:3, :3].T + image.affine[:3, 3]) * [-1.0, -1.0, 1.0]
        found = positions_of(ds, number)
        assert len(found) == len(expected) > 0
        distance_mm, _ = cKDTree(expected).query(found)
        assert distance_mm.max() < 0.01
    everything = np.concatenate([positions_of(ds, number) for number in (1, 2, 3)])
    truth = np.argwhere(study.truth["t1gd"] > 0).astype(np.float64)
    centre_lps_mm = study.volumes["t1gd"].grid.lps_mm(truth).mean(axis=0)
    assert np.linalg.norm(everything.mean(axis=0) - centre_lps_mm) < 2.0  # one model voxel


def positions_of(ds: Dataset, number: int) -> NDArray[np.float64]:
    """Return patient positions of a segment's voxels from the object's own attributes.

    References
    ----------
    DICOM PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1.
    """
    frames = np.unpackbits(np.frombuffer(ds.PixelData, np.uint8), bitorder="little")
    size = ds.Rows * ds.Columns
    shared = ds.SharedFunctionalGroupsSequence[0]
    spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, np.float64)
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, np.float64)
    found = []
    for at, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        if group.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number:
            plane = frames[at * size : (at + 1) * size].reshape(ds.Rows, ds.Columns)
            rows, columns = np.nonzero(plane)
            origin = np.array(group.PlanePositionSequence[0].ImagePositionPatient, np.float64)
            along_row = np.outer(columns * spacing[1], cosines[:3])
            found.append(origin + along_row + np.outer(rows * spacing[0], cosines[3:]))
    return np.concatenate(found)


def test_no_validator_finds_fault_with_the_delivered_object(
    pacs: Orthanc, files: PhantomFiles, delivered: dict[str, Any], tmp_path: Path
) -> None:
    peers.require("dciodvfy")
    result = delivered["results"][0]  # the SEG; what goes with it follows
    path = tmp_path / "seg.dcm"
    path.write_bytes(pacs.instance_bytes(result["sop_instance_uid"]))
    source = set(peers.dciodvfy(files.paths["t1gd"][0]))
    assert [finding for finding in peers.dciodvfy(path) if finding not in source] == []


def test_the_measurements_come_back_as_a_report(
    node: RunningNode, pacs: Orthanc, files: PhantomFiles, delivered: dict[str, Any], tmp_path: Path
) -> None:
    (series_found,) = pacs.find_series(files.study_instance_uid, "SR")
    assert series_found
    seg, result = delivered["results"]
    path = tmp_path / "sr.dcm"
    path.write_bytes(pacs.instance_bytes(result["sop_instance_uid"]))
    ours = node.spool / "cases" / delivered["case_id"] / "sr.dcm"
    assert _data_set(path.read_bytes()) == _data_set(ours.read_bytes())
    referenced = dcmread(path).CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    uids = [
        one.ReferencedSOPInstanceUID for many in referenced for one in many.ReferencedSOPSequence
    ]
    inputs = [dcmread(one).SOPInstanceUID for many in files.paths.values() for one in many]
    assert sorted(uids) == sorted([seg["sop_instance_uid"], *inputs])
    if peers.has("dciodvfy"):
        assert [one for one in peers.dciodvfy(path) if one.startswith("Error")] == []
    measured = node.get(f"/api/v1/cases/{delivered['case_id']}").json()["measurements"]
    assert measured["lesions"][0]["enhancing"]["long_mm"] > 5.0


def test_the_page_reached_delivered_without_being_loaded_again(
    watching: Page | None, delivered: dict[str, Any]
) -> None:
    if watching is None:
        browser.require()
    else:
        row = f"document.getElementById('case-{delivered['case_id']}')"
        watching.until(f"({row}?.innerText ?? '').includes('Delivered')")
        assert watching.value("window.isSame") is True
        assert watching.complaints() == []


def test_both_destinations_say_that_they_are_there(node: RunningNode) -> None:
    for name, transport in (("pacs", "dimse"), ("pacs-web", "stow")):
        address = f"{node.url}/api/v1/destinations/{name}/echo"
        answer = httpx.post(address, timeout=30.0, trust_env=False).raise_for_status().json()
        assert (answer["transport"], answer["code"]) == (transport, None)


def test_every_decision_is_on_record(delivered: dict[str, Any]) -> None:
    assert {one["role"] for one in delivered["series"]} == {"flair", "t1", "t1gd", "t2"}
    assert all(one["reason"] for one in delivered["series"])
    assert delivered["closed_by"] == "complete"
    assert delivered["reason"]
    stages = [one["stage"] for one in delivered["attempts"] if one["outcome"] == "done"]
    assert stages[:3] == ["convert", "segment", "encode"]
    assert stages.count("deliver") == 2


def test_the_page_shows_the_case_with_its_picture(
    node: RunningNode, delivered: dict[str, Any]
) -> None:
    page = node.get(f"/cases/{delivered['case_id']}").text
    assert "delivered" in page.lower()
    assert "research use only" in page.lower()
    picture = node.get(f"/api/v1/cases/{delivered['case_id']}/preview.png")
    assert picture.headers["content-type"] == "image/png"
    assert len(picture.content) > 5000


def test_the_same_study_again_changes_nothing(
    node: RunningNode, pacs: Orthanc, files: PhantomFiles, delivered: dict[str, Any]
) -> None:
    assert set(push(interleaved(files), node.dicom_port)) == {0}
    assert node.case(delivered["case_id"])["state"] == "delivered"
    same = [one for one in node.cases() if one["study_instance_uid"] == files.study_instance_uid]
    assert len(same) == 1
    assert len(pacs.find_series(files.study_instance_uid, "SEG")) == 1


def test_our_own_result_sent_back_to_us_starts_nothing(
    node: RunningNode, files: PhantomFiles, delivered: dict[str, Any]
) -> None:
    folder = node.spool / "cases" / delivered["case_id"]
    ours = [folder / "seg.dcm", folder / "sr.dcm"]
    sent = storescu(ours, port=node.dicom_port, called="NEUROSEG", extra=["-R"])
    assert sent.returncode == 0, sent.stderr
    case = case_of(node, files.study_instance_uid, "cancelled", revision=2)
    assert case["code"] == "CASE_NOTHING_NEW"
    assert node.case(delivered["case_id"])["state"] == "delivered"


def test_a_rejected_study_shows_one_code_on_the_page_in_the_api_and_in_the_log(
    node: RunningNode, tmp_path: Path
) -> None:
    study = phantom.write_study(phantom.make_study(11, size="small"), tmp_path / "study")
    holed = [path for path in interleaved(study) if path != study.paths["flair"][5]]
    assert set(push(holed, node.dicom_port)) == {0}
    case = case_of(node, study.study_instance_uid, "rejected")
    assert case["code"] == "GEOM_MISSING_SLICE"
    page = node.get(f"/cases/{case['case_id']}").text
    assert case["code"] in page
    assert case["advice"] in page
    rejected = [line for line in node.log_lines() if line["event"] == "case.rejected"]
    assert case["case_id"] in [line["case_id"] for line in rejected]
    assert {line["code"] for line in rejected if line["case_id"] == case["case_id"]} == {
        case["code"]
    }

    # The missing image arrives after all: a new revision, and this one has a result.
    assert push([study.paths["flair"][5]], node.dicom_port) == [0]
    case_of(node, study.study_instance_uid, "delivered", revision=2)
    assert node.case(case["case_id"])["state"] == "superseded"


def test_a_study_without_flair_is_refused_by_name(node: RunningNode, tmp_path: Path) -> None:
    study = phantom.write_study(phantom.make_study(12, size="small"), tmp_path / "study")
    some = [path for role, paths in study.paths.items() if role != "flair" for path in paths]
    assert set(push(some, node.dicom_port)) == {0}
    case = case_of(node, study.study_instance_uid, "rejected")
    assert case["code"] == "STUDY_SEQUENCE_MISSING"
    assert "flair" in case["sentence"]


def test_two_studies_interleaved_on_two_associations_stay_apart(
    node: RunningNode, pacs: Orthanc, tmp_path: Path
) -> None:
    studies = [
        phantom.write_study(phantom.make_study(seed, size="small"), tmp_path / str(seed))
        for seed in (21, 22)
    ]
    mixed = [path for pair in zip(*map(interleaved, studies), strict=False) for path in pair]
    half = len(mixed) // 2
    for part in (mixed[:half], mixed[half:]):
        assert set(push(part, node.dicom_port)) == {0}
    rest = [path for one in studies for path in interleaved(one) if path not in set(mixed)]
    push(rest, node.dicom_port)
    for one in studies:
        case_of(node, one.study_instance_uid, "delivered")
        assert len(pacs.find_series(one.study_instance_uid, "SEG")) == 1


def test_nothing_that_was_logged_or_served_names_the_patient(
    node: RunningNode, delivered: dict[str, Any], files: PhantomFiles
) -> None:
    case_id = delivered["case_id"]
    served = "".join(
        node.get(path).text
        for path in ("/", f"/cases/{case_id}", "/api/v1/cases", f"/api/v1/cases/{case_id}")
    )
    log = node.log_path.read_text(encoding="utf-8")
    header = dcmread(files.paths["t1"][0], stop_before_pixels=True)
    keywords = ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber")
    identities = [str(header[keyword].value) for keyword in keywords if header.get(keyword)]
    assert len(identities) >= 3
    for identity in [*identities, str(header.PatientName).split("^", maxsplit=1)[0]]:
        assert identity not in log
        assert identity not in served
    assert files.study_instance_uid not in log


def test_a_study_waits_for_a_pacs_that_is_away(tmp_path: Path, orthanc: Orthanc) -> None:
    pacs = orthanc
    pacs.stop()
    destinations = [
        destination("pacs", port=pacs.dicom_port, ae_title=pacs.ae_title),
        destination("pacs-web", url=pacs.dicomweb_url),
    ]
    files = phantom.write_study(phantom.make_study(31, size="small"), tmp_path / "study")
    with RunningNode(tmp_path / "node", destinations) as node:
        node.wait_ready()
        push(interleaved(files), node.dicom_port)
        case = case_of(node, files.study_instance_uid, "encoded")

        def _tried_twice() -> bool:
            tries = [one for one in node.case(case["case_id"])["attempts"] if one["code"]]
            return len(tries) >= 4

        wait_until(_tried_twice, 60.0, "each destination to be tried twice")
        pacs.start()
        case = case_of(node, files.study_instance_uid, "delivered")
    assert len(pacs.find_series(files.study_instance_uid, "SEG")) == 1
    codes = {one["code"] for one in case["attempts"] if one["outcome"] == "retry"}
    assert codes == {"PEER_UNAVAILABLE"}
