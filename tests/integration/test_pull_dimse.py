"""Studies are pulled from real archives by DIMSE: C-FIND with C-GET, and C-MOVE to the node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from node.cases import CaseState
from node.closing import Closer
from node.jobs import Jobs
from node.ledger import Ledger
from node.pipeline import Parts
from node.pull_orders import PullOrders, PullRow, PullState
from node.pulling import Pulling
from node.settings import Settings
from node.spool import Spool
from node.watching import Watching
from tests import peers, phantoms, qrscp
from tests.doors import Door
from tests.peers import Orthanc
from tests.phantoms import WrittenStudy
from tests.scripted_peers import data_set_bytes
from tests.stages import MANIFEST

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, small_study: WrittenStudy) -> list[Path]:
    """Return a study of five series, of which no role needs the last."""
    series = generate_uid()

    def _edit(_: int, ds: Dataset) -> None:
        ds.SeriesInstanceUID, ds.SOPInstanceUID = series, generate_uid()
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.SeriesDescription, ds.ProtocolName = "ep2d_diff_3scan_trace_ADC", "ep2d_diff"
        ds.ImageType = ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]

    folder = tmp_path_factory.mktemp("diffusion")
    diffusion = phantoms.edited(small_study.files.paths["t2"], folder, _edit)
    return [*small_study.interleaved, *diffusion]


@pytest.fixture(scope="module")
def node_port() -> int:
    """Return where archives send to."""
    return peers.free_port()


@pytest.fixture(scope="module")
def orthanc(
    tmp_path_factory: pytest.TempPathFactory, files: list[Path], node_port: int
) -> Iterator[dict[str, Any]]:
    """Run an archive that tells every header by C-FIND; return how it is reached."""
    peers.require("orthanc")
    modalities = {"node": ["NEUROSEG", "127.0.0.1", node_port]}
    with Orthanc(tmp_path_factory.mktemp("orthanc"), DicomModalities=modalities) as archive:
        archive.upload(files)
        yield {"port": archive.dicom_port, "ae_title": archive.ae_title}


@pytest.fixture(scope="module")
def dcmtk(
    tmp_path_factory: pytest.TempPathFactory, files: list[Path], node_port: int
) -> Iterator[dict[str, Any]]:
    """Run an archive that tells of an image nothing but its UID."""
    to = ("NEUROSEG", node_port)
    with qrscp.running(tmp_path_factory.mktemp("dcmtk"), files, move_to=to) as port:
        yield {"port": port, "ae_title": qrscp.AE_TITLE}


@pytest.fixture(params=["orthanc", "dcmtk"])
def archive(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.getfixturevalue(request.param)
    return found


def _settings(archive: dict[str, Any], **more: object) -> Settings:
    source = {"transport": "cfind", "host": "127.0.0.1", "timeout_s": 10.0, **archive, **more}
    assemble = {"settle_s": 0.0, "released_quiet_s": 1e6, "quiet_s": 1e6}
    return Settings.model_validate({"source": source, "assemble": assemble})


def _pulled(settings: Settings, study: str, spool: Spool, ledger: Ledger) -> PullRow:
    pulling = Pulling(settings, spool, ledger, MANIFEST, executor_id="test/work")
    pulling.orders.want(study, "source")
    pulling.look()
    return pulling.orders.row(study)


def _check_files(study: WrittenStudy, spool: Spool, ledger: Ledger) -> None:
    stored = ledger.study_instances(study.files.study_instance_uid)
    held = {one.sop_instance_uid: one.path for one in stored}
    sent = {dcmread(path).SOPInstanceUID: path for path in study.interleaved}
    assert held.keys() >= sent.keys()
    for uid, path in sent.items():
        assert data_set_bytes(spool.instance_path(held[uid])) == data_set_bytes(path)


def test_four_series_of_five_come_by_c_get_byte_for_byte_and_close_the_case(
    archive: dict[str, Any], small_study: WrittenStudy, spool: Spool, ledger: Ledger, jobs: Jobs
) -> None:
    settings, study = _settings(archive), small_study.files.study_instance_uid
    row = _pulled(settings, study, spool, ledger)
    assert (row.state, row.sentence) == (PullState.DONE, None)
    needed = len(small_study.interleaved)
    assert (row.tally.series_wanted, row.tally.series_count) == (4, 5)
    assert (row.tally.images_here, row.tally.images_fetched) == (needed, needed)
    _check_files(small_study, spool, ledger)
    closer = Closer(Parts(settings=settings, ledger=ledger, spool=spool, manifest=MANIFEST), jobs)
    closer.look()
    assert [case.state for case in ledger.cases()] == [CaseState.COMPLETE]
    again = _pulled(settings, study, spool, ledger)
    assert (again.state, again.tally.images_fetched) == (PullState.DONE, 0)


def test_the_node_has_a_study_sent_to_itself_by_c_move(
    archive: dict[str, Any], small_study: WrittenStudy, node_port: int, tmp_path: Path
) -> None:
    study = small_study.files.study_instance_uid
    with Door(tmp_path, port=node_port) as door:
        settings = _settings(archive, retrieve="move")
        row = _pulled(settings, study, door.spool, door.ledger)
        assert (row.state, row.sentence) == (PullState.DONE, None)
        is_told_little = archive["ae_title"] == qrscp.AE_TITLE  # names alone leave doubts
        assert row.tally.series_wanted == (5 if is_told_little else 4)
        _check_files(small_study, door.spool, door.ledger)
        senders = {one.calling_ae_title for one in door.ledger.study_instances(study)}
        assert senders == {archive["ae_title"]}


def test_everything_is_fetched_where_the_series_are_not_what_one_image_promised(
    small_study: WrittenStudy, tmp_path: Path, spool: Spool, ledger: Ledger
) -> None:
    """Of two repeats the later one is meant; one of its slices lies where no slice belongs."""
    paths = dict(small_study.files.paths)
    earlier = _series(paths["flair"], tmp_path / "earlier", "110000", off_mm=0.0)
    later = _series(paths.pop("flair"), tmp_path / "later", "120000", off_mm=1.0)
    others = [path for many in paths.values() for path in many]
    files = [*others, *earlier, *later]
    with qrscp.running(tmp_path / "dcmtk", files) as port:
        settings = _settings({"port": port, "ae_title": qrscp.AE_TITLE})
        row = _pulled(settings, small_study.files.study_instance_uid, spool, ledger)
    assert (row.state, row.sentence) == (PullState.DONE, None)
    assert (row.tally.series_wanted, row.tally.series_count) == (5, 5)
    assert row.tally.images_fetched == len(files)


def _series(paths: list[Path], folder: Path, time: str, *, off_mm: float) -> list[Path]:
    series = generate_uid()

    def _edit(index: int, ds: Dataset) -> None:
        ds.SeriesInstanceUID, ds.SOPInstanceUID = series, generate_uid()
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.AcquisitionDate, ds.AcquisitionTime = "20260101", time
        if index == len(paths) // 2:
            ds.ImagePositionPatient = [one + off_mm for one in ds.ImagePositionPatient]

    return phantoms.edited(paths, folder, _edit)


def test_a_study_that_is_not_there_and_an_archive_that_is_away(
    archive: dict[str, Any], spool: Spool, ledger: Ledger
) -> None:
    row = _pulled(_settings(archive), "1.2.3.4.5", spool, ledger)
    assert (row.state, row.code) == (PullState.FAILED, "PULL_STUDY_UNKNOWN")
    away = _settings({**archive, "port": peers.free_port()})
    row = _pulled(away, "1.2.3.4.6", spool, ledger)
    assert (row.state, row.code) == (PullState.WANTED, "PEER_UNAVAILABLE")


def test_new_studies_are_found_by_c_find(
    archive: dict[str, Any], small_study: WrittenStudy, ledger: Ledger
) -> None:
    for description, is_wanted in (("no such", False), ("", True)):
        watch = {"enabled": True, "settle_s": 0.0, "since_days": 3650, "description": description}
        Watching(_settings(archive, watch=watch), ledger).look()
        found = PullOrders(ledger.engine).find(small_study.files.study_instance_uid)
        assert (found is not None) is is_wanted
