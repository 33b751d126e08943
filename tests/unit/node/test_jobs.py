"""The job engine behind its facade: once per name, delayed, in chains, lost ones found again."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
import pytest

from node import database, jobs
from node.cases import Priority, Stage
from node.errors import ConfigError
from node.jobs import Job, Jobs, Worker
from node.ledger import Ledger
from tests.databases import Postgres
from tests.waiting import wait_until


def _job(case_id: str, stage: Stage = Stage.CONVERT, **more: object) -> Job:
    return Job(case_id=case_id, run=1, stage=stage, **more)  # type: ignore[arg-type]


class _Recorder:
    """A handler that notes what it is asked to do; `gate` holds jobs of the case "slow"."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.order: list[str] = []
        self.gate = threading.Event()
        self.turnstile = threading.Event()

    def __call__(self, job: Job) -> Sequence[Job]:
        if job.case_id == "slow":
            self.gate.wait(20)
        if job.case_id == "turnstile":
            self.turnstile.wait(20)
        if job.case_id == "broken":
            raise RuntimeError("a defect")
        self.done[job.job_id] += 1
        self.order.append(job.job_id)
        if job.case_id == "patient" and job.attempt == 1:
            return [_job("patient", job.stage, attempt=2, destination=job.destination, delay_s=60)]
        if job.case_id == "chain" and job.stage is Stage.CONVERT:
            return [_job("chain", Stage.ENCODE, delay_s=0.3)]
        return []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def url(folder: Path) -> str:
    return f"sqlite:///{folder}/jobs.sqlite"


@pytest.fixture(scope="module")
def recorder() -> _Recorder:
    return _Recorder()


@pytest.fixture(scope="module")
def worker(url: str, folder: Path, recorder: _Recorder) -> Iterator[Worker]:
    worker = Worker(
        url,
        executor_id="test/work",
        queues={Stage.CONVERT: 2, Stage.ENCODE: 2, Stage.DELIVER: 1},
        handler=recorder,
        poll_s=0.05,
    )
    worker.start(folder)
    yield worker
    recorder.gate.set()
    recorder.turnstile.set()
    worker.stop(grace_s=2)


@pytest.fixture(scope="module")
def queue(url: str, worker: Worker) -> Iterator[Jobs]:
    assert worker.executor_id == "test/work"
    queue = Jobs(url)
    yield queue
    queue.close()


def test_a_job_submitted_twice_runs_once(queue: Jobs, recorder: _Recorder) -> None:
    job = _job("twice")
    queue.submit(job)
    queue.submit(job)
    wait_until(lambda: recorder.done[job.job_id] > 0, 10, "the job to run")
    queue.submit(job)
    wait_until(lambda: "twice" not in queue.active_case_ids(), 10, "the queue to be empty")
    assert recorder.done[job.job_id] == 1


def test_a_followed_job_runs_after_the_one_before_it(queue: Jobs, recorder: _Recorder) -> None:
    queue.submit(_job("chain"))
    last = _job("chain", Stage.ENCODE).job_id
    wait_until(lambda: recorder.done[last] == 1, 15, "the chain to end")
    assert recorder.order.index(_job("chain").job_id) < recorder.order.index(last)


def test_a_delayed_job_can_be_hastened(queue: Jobs, recorder: _Recorder) -> None:
    first = {name: _job("patient", destination=name) for name in ("a", "b")}
    later = {name: _job("patient", destination=name, attempt=2).job_id for name in first}
    for job in first.values():
        queue.submit(job)
    wait_until(lambda: len(queue._names(["DELAYED"], prefix="patient/")) == 2, 15, "the delay")
    assert queue.hasten("patient", "a") == 1
    wait_until(lambda: recorder.done[later["a"]] == 1, 15, "the job to run")
    assert recorder.done[later["b"]] == 0
    assert queue.hasten("patient") == 1
    wait_until(lambda: recorder.done[later["b"]] == 1, 15, "the other to run")
    assert queue.hasten("patient") == 0


def test_a_delay_that_a_clock_set_back_has_made_endless_ends(
    queue: Jobs, recorder: _Recorder
) -> None:
    later = _job("patient", attempt=2, destination="overslept").job_id
    queue.submit(_job("patient", destination="overslept"))
    wait_until(lambda: later in queue._names(["DELAYED"]), 15, "the delay")
    queue.wake_overslept(3600.0)
    assert later in queue._names(["DELAYED"])  # it waits as long as it was told to
    in_two_hours = int(1000 * (time.time() + 7200))  # which is what the engine has kept by then
    queue._client.set_workflow_delay(later, delay_until_epoch_ms=in_two_hours)
    queue.wake_overslept(3600.0)
    wait_until(lambda: recorder.done[later] == 1, 15, "the job to run")


def test_a_defect_in_a_job_leaves_a_dead_job_and_harms_no_other(
    queue: Jobs, recorder: _Recorder
) -> None:
    queue.submit(_job("broken"))
    queue.submit(_job("sound"))
    wait_until(lambda: bool(queue.dead_job_ids("broken", 1)), 15, "the job to be given up")
    wait_until(lambda: recorder.done[_job("sound").job_id] == 1, 15, "the other to run")
    assert queue.dead_job_ids("sound", 1) == []


def test_a_running_job_is_not_taken_for_a_lost_one_and_ends_by_itself(
    queue: Jobs, worker: Worker, recorder: _Recorder, tmp_path: Path
) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    queue.submit(_job("slow"))
    wait_until(lambda: any("slow" in name for name in jobs._running), 10, "the job to start")
    for _ in range(3):
        worker.sweep(ledger, timeout_s=5.0)
    assert "slow" in queue.active_case_ids()
    recorder.gate.set()
    wait_until(lambda: recorder.done[_job("slow").job_id] == 1, 10, "the job to end")
    ledger.close()


def test_who_has_priority_is_taken_first_also_when_it_got_it_while_it_waited(
    queue: Jobs, recorder: _Recorder
) -> None:
    queue.submit(_job("turnstile", Stage.DELIVER))
    wait_until(lambda: "turnstile" in str(jobs._running), 10, "the only place to be taken")
    turns = {"low": Priority.LOW, "high": Priority.HIGH}
    for name in ("low", "first", "second", "later", "high"):
        job = _job(name, Stage.DELIVER, priority=turns.get(name, Priority.NORMAL))
        queue.submit(job)
    queue.reorder({"later": Priority.HIGH, "second": Priority.LOW})
    recorder.turnstile.set()
    last = _job("second", Stage.DELIVER).job_id
    wait_until(lambda: recorder.done[last] == 1, 20, "the jobs to run")
    delivered = [name.split("/")[0] for name in recorder.order if "/deliver/" in name]
    assert delivered == ["turnstile", "later", "high", "first", "low", "second"]


def test_a_job_that_an_earlier_version_has_written_down_has_normal_priority() -> None:
    assert jobs._job_of(["a", 1, "convert", "", 1, 0.0]) == _job("a")
    values = ["a", 1, "convert", "", 1, 0.0, "high"]
    assert jobs._job_of(values) == _job("a", priority=Priority.HIGH)


def test_two_workers_of_one_name_are_refused(url: str, folder: Path, worker: Worker) -> None:
    assert worker.executor_id == "test/work"
    script = (
        "import sys; from pathlib import Path; from node.jobs import Worker; "
        "from node.errors import ConfigError\n"
        "w = Worker(sys.argv[1], executor_id='test/work', queues={}, handler=list, poll_s=1)\n"
        "try:\n    w.start(Path(sys.argv[2]))\nexcept ConfigError as e:\n    print(e.code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, url, str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == ConfigError.code


def test_a_connection_of_the_engine_gives_up_a_server_that_is_gone(postgres: Postgres) -> None:
    with psycopg.connect(jobs.lasting(postgres.url("postgres"))) as connection:
        told = connection.info.get_parameters()
    assert {name: int(told[name]) for name in database.LOST_SERVER} == database.LOST_SERVER
    own = f"{postgres.url('postgres')}?tcp_user_timeout=1000"  # its owner's word comes first
    with psycopg.connect(jobs.lasting(own)) as connection:
        assert connection.info.get_parameters()["tcp_user_timeout"] == "1000"


def test_a_database_that_knows_no_encoding_answers_in_text(postgres: Postgres) -> None:
    url = postgres.fresh_database("SQL_ASCII")
    ledger = Ledger(url)
    ledger.beat("grün/work", role="work", host="h", pid=1, detail={"port": 1})
    assert [row.executor_id for row in ledger.workers()] == ["grün/work"]
    ledger.close()
    with psycopg.connect(jobs.lasting(url)) as connection:
        assert connection.execute("SELECT 'grün'::text").fetchone() == ("grün",)


def test_the_address_of_a_file_stays_as_it_is() -> None:
    assert jobs.lasting("sqlite:////var/spool/jobs.sqlite") == "sqlite:////var/spool/jobs.sqlite"


def _held_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_memory_that_jobs_are_done_with_goes_back_to_the_system() -> None:
    """Chunks below the C library's own mapping threshold, with one in use behind all of them."""
    kept = []

    def work() -> None:
        chunks = [bytearray(100_000) for _ in range(1_000)]
        kept.append(chunks[-1])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    before = _held_bytes()
    jobs._give_back()
    assert before - _held_bytes() > 200_000_000


def test_a_connection_of_the_engine_to_sqlite_keeps_few_pages(tmp_path: Path) -> None:
    outside = Jobs(f"sqlite:///{tmp_path}/jobs.sqlite")
    with outside._client._sys_db.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA cache_size").scalar() == -256
    outside.close()
