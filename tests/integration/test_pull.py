"""Studies are pulled from a real archive: what is needed, once, whatever happens on the way."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from node.__main__ import main
from node.cases import CaseState, ClosedBy
from node.closing import Closer
from node.jobs import Jobs
from node.ledger import Ledger
from node.pipeline import Parts
from node.pull_orders import PullState
from node.pulling import Pulling
from node.settings import Settings
from node.spool import Spool
from tests import peers, phantoms
from tests.nodes import PLAIN, ROOT, RunningNode, destination
from tests.peers import Orthanc
from tests.phantoms import WrittenStudy
from tests.scripted_peers import data_set_bytes
from tests.stages import MANIFEST
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory: pytest.TempPathFactory, small_study: WrittenStudy) -> list[Path]:
    """Return a fifth series of the study, which no role needs."""
    series = generate_uid()

    def _edit(_: int, ds: Dataset) -> None:
        ds.SeriesInstanceUID, ds.SOPInstanceUID = series, generate_uid()
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.SeriesDescription, ds.ProtocolName = "ep2d_diff_3scan_trace_ADC", "ep2d_diff"
        ds.ImageType = ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]

    folder = tmp_path_factory.mktemp("diffusion")
    return phantoms.edited(small_study.files.paths["t2"], folder, _edit)


@pytest.fixture(scope="module")
def archive(
    tmp_path_factory: pytest.TempPathFactory, small_study: WrittenStudy, diffusion: list[Path]
) -> Iterator[Orthanc]:
    """Run an archive that holds the study of five series."""
    peers.require("orthanc")
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as orthanc:
        orthanc.upload([*small_study.interleaved, *diffusion])
        yield orthanc


def _settings(archive: Orthanc, **more: object) -> Settings:
    source = {"transport": "qido", "url": archive.dicomweb_url}
    assemble = {"settle_s": 0.0, "released_quiet_s": 1e6, "quiet_s": 1e6}
    return Settings.model_validate({"source": source, "assemble": assemble, **more})


def _of(pulling: Pulling, study: str) -> Mapping[str, int]:
    tally = pulling.orders.row(study).tally
    return {
        "here": tally.images_here,
        "fetched": tally.images_fetched,
        "wanted": tally.images_wanted,
        "all": tally.image_count,
    }


def test_four_series_of_five_are_pulled_byte_for_byte_and_the_case_closes_with_them(
    archive: Orthanc, small_study: WrittenStudy, spool: Spool, ledger: Ledger, jobs: Jobs
) -> None:
    settings, study = _settings(archive), small_study.files.study_instance_uid
    pulling = Pulling(settings, spool, ledger, MANIFEST, executor_id="test/work")
    closer = Closer(Parts(settings=settings, ledger=ledger, spool=spool, manifest=MANIFEST), jobs)
    pulling.orders.want(study, "source")
    pulling.look()
    row = pulling.orders.row(study)
    assert (row.state, row.code) == (PullState.DONE, None)
    needed = len(small_study.interleaved)
    left_out = len(small_study.files.paths["t2"])
    counts = {"here": needed, "fetched": needed, "wanted": needed, "all": needed + left_out}
    assert _of(pulling, study) == counts
    assert (row.tally.series_wanted, row.tally.series_count) == (4, 5)
    pixels = sum(len(dcmread(one).PixelData) for one in small_study.files.paths["t2"])
    assert row.tally.bytes_left_out == pixels

    stored = {one.sop_instance_uid: one.path for one in ledger.study_instances(study)}
    sent = {dcmread(path).SOPInstanceUID: path for path in small_study.interleaved}
    assert stored.keys() == sent.keys()
    for uid, path in sent.items():
        assert data_set_bytes(spool.instance_path(stored[uid])) == data_set_bytes(path)

    closer.look()  # would wait for the fifth series, which the archive counts, for ever
    (case,) = ledger.cases()
    assert (case.state, case.closed_by) == (CaseState.COMPLETE, ClosedBy.COMPLETE)
    roles = {one.role: one.series_instance_uid for one in ledger.assembled(case.case_id).series}
    assert roles == {
        role: dcmread(paths[0]).SeriesInstanceUID for role, paths in small_study.files.paths.items()
    }


def test_a_case_waits_for_a_pull_that_goes_on(
    archive: Orthanc, small_study: WrittenStudy, spool: Spool, ledger: Ledger, jobs: Jobs
) -> None:
    settings, study = _settings(archive), small_study.files.study_instance_uid
    closer = Closer(Parts(settings=settings, ledger=ledger, spool=spool, manifest=MANIFEST), jobs)
    pulling = Pulling(settings, spool, ledger, MANIFEST, executor_id="test/work")
    pulling.orders.want(study, "source")
    pulling.look()
    pulling.orders.want(study, "source")  # once more, and nobody is at it yet
    closer.look()
    assert [row.state for row in ledger.cases()] == [CaseState.RECEIVING]
    pulling.look()
    assert _of(pulling, study)["fetched"] == 0
    closer.look()
    assert [row.state for row in ledger.cases()] == [CaseState.COMPLETE]


def _config(folder: Path, archive: Orthanc) -> Path:
    config = folder / "node.toml"
    config.write_text(
        f"[spool]\npath = '{folder}/spool'\nfree_floor_bytes = 0\n"
        f"[ledger]\nurl = 'sqlite:///{folder}/ledger.sqlite'\n"
        f"[source]\ntransport = 'qido'\nurl = '{archive.dicomweb_url}'\n"
        f"{destination('web', url=archive.dicomweb_url)}"
    )
    return config


def test_the_command_shows_decision_and_saving_and_fetches_nothing_twice(
    archive: Orthanc, small_study: WrittenStudy, tmp_path: Path
) -> None:
    command = ["pull", small_study.files.study_instance_uid, "--config"]
    command.append(str(_config(tmp_path, archive)))
    needed = len(small_study.interleaved)
    for options, fetched in ((["--from", "web"], needed), ([], 0)):
        done = CliRunner().invoke(main, [*command, *options])
        assert done.exit_code == 0, done.output
        assert f"4 of 5 series, {needed} of" in done.output
        assert f"fetched {fetched} images" in done.output
        assert "other: DWI" in done.output
        assert f"left out: {len(small_study.files.paths['t2'])} images" in done.output
    assert "pull {study_instance_uid}" in (tmp_path / "spool" / "audit.jsonl").read_text()


@pytest.mark.parametrize(
    ("study", "options", "code", "said"),
    [
        ("1.2.3.4.5", [], 1, "PULL_STUDY_UNKNOWN"),
        ("1.2.3.4.5", ["--from", "nowhere"], 2, "PULL_SOURCE"),
        ("Jane Doe", [], 2, "digits and dots"),
    ],
)
def test_the_command_ends_with_what_it_came_to(
    archive: Orthanc, tmp_path: Path, study: str, options: list[str], code: int, said: str
) -> None:
    command = ["pull", study, "--config", str(_config(tmp_path, archive)), *options]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == code
    assert said in done.output


@pytest.mark.faults
def test_a_pull_that_is_killed_is_ended_by_the_node_and_nothing_is_fetched_twice(
    archive: Orthanc, small_study: WrittenStudy, spool: Spool, ledger: Ledger, tmp_path: Path
) -> None:
    study = small_study.files.study_instance_uid
    command = [*PLAIN, "pull", study, "--config", str(_config(tmp_path, archive))]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: ledger.received(study)[1] > 5, 120, "the first images", poll_s=0.005)
        process.kill()
    before = ledger.received(study)[1]
    needed = len(small_study.interleaved)
    assert 5 < before < needed, "the pull was over before it was killed"
    settings = _settings(archive, jobs={"heartbeat_timeout_s": 1.0})
    pulling = Pulling(settings, spool, ledger, MANIFEST, executor_id="test/work")
    wait_until(lambda: pulling.orders.has_due("test/work"), 10, "the dead process to be missed")
    pulling.look()
    counts = _of(pulling, study)
    assert (counts["here"], counts["fetched"]) == (needed, needed - before)
    assert ledger.received(study) == (4, needed)


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_a_node_pulls_a_study_that_a_program_asks_for_though_it_is_killed(
    archive: Orthanc, small_study: WrittenStudy, tmp_path: Path
) -> None:
    study = small_study.files.study_instance_uid
    source = f"[source]\ntransport = 'qido'\nurl = '{archive.dicomweb_url}'\n"
    back = destination("web", url=archive.dicomweb_url)
    with RunningNode(tmp_path / "node", [source, back]) as node:
        node.wait_ready()
        url = f"{node.url}/api/v1/studies/{study}/process"
        asked = httpx.post(url, timeout=30.0, trust_env=False)
        assert (asked.status_code, asked.json()["state"]) == (202, "wanted")
        assert node.kill_role("work")
        (case,) = node.wait_states("delivered")
        told = httpx.get(url, timeout=30.0, trust_env=False).json()
    assert (told["state"], told["case_ids"]) == ("done", [case["case_id"]])
    assert told["tally"]["images_here"] == len(small_study.interleaved)
    assert len(archive.find_series(study, "SEG")) == 1
    assert study not in node.log_path.read_text()
