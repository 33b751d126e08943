"""Shared fixtures: studies, archives, and the node's own stores in a temporary folder."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from node import logs
from node.demo.archive import DemoArchive
from node.jobs import Jobs, Worker
from node.ledger import Ledger
from node.spool import Spool
from tests import peers, phantoms
from tests.databases import Postgres
from tests.peers import Orthanc
from tests.phantoms import WrittenStudy


@pytest.fixture(autouse=True)
def _strict_logs() -> None:
    """Let a log key outside the closed list raise."""
    logs.configure(strict=True)


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Return the folder of real exams; a counted skip where it is absent."""
    peers.require("realdata")
    folder = peers.real_data_folder()
    assert folder is not None
    return folder


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[DemoArchive]:
    """Run the demonstration's own archive, empty."""
    archive = DemoArchive(tmp_path / "archive")
    archive.start()
    yield archive
    archive.stop()


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """Run an empty archive."""
    peers.require("orthanc")
    with Orthanc(tmp_path / "orthanc") as archive:
        yield archive


@pytest.fixture(scope="session")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> WrittenStudy:
    """Return a quick study of about 100 instances, written once; not to be changed in place."""
    return phantoms.written(tmp_path_factory.mktemp("small"), size="small")


@pytest.fixture(scope="session")
def full_study(tmp_path_factory: pytest.TempPathFactory) -> WrittenStudy:
    """Return a study on clinical grids, written once; not to be changed in place."""
    return phantoms.written(tmp_path_factory.mktemp("full"), size="clinical")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """Return an empty spool."""
    return Spool(tmp_path / "spool")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 24 MB; needs root on Linux."""
    peers.require("mount")
    folder = tmp_path / "tiny"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests marked `databases` on both kinds."""
    is_marked = metafunc.definition.get_closest_marker("databases") is not None
    if is_marked and "database_url" in metafunc.fixturenames:
        metafunc.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Run a PostgreSQL of our own."""
    with Postgres() as server:
        yield server


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of an empty database: an SQLite file, unless a test asks for both."""
    if getattr(request, "param", "sqlite") == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        return server.fresh()
    return f"sqlite:///{tmp_path}/ledger.sqlite"


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    """Return an empty ledger."""
    ledger = Ledger(database_url)
    yield ledger
    ledger.close()


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    """Return a queue whose tables a worker has made and that nobody serves."""
    folder = tmp_path_factory.mktemp("jobs")
    url = f"sqlite:///{folder}/jobs.sqlite"
    worker = Worker(url, executor_id="test/idle", queues={}, handler=lambda _: [], poll_s=1.0)
    worker.start(folder)
    jobs = Jobs(url)
    yield jobs
    jobs.close()
    worker.stop(grace_s=1)
