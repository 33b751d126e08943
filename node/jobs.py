"""Durable jobs: the only module that knows the job engine (DBOS).

A job is one try of one stage of one case. Its name is derived from what it does, so that asking for
it twice asks for it once. Jobs hold no truth: they can be submitted again from the ledger, and the
engine could be replaced by changing this file.

Notes
-----
What the engine leaves to us, each found by breaking it: work of a dead machine is never taken over
(heartbeats in the ledger and `Worker.sweep` do it), a database error inside the engine strands a
row in a live process (the sweep finds it), a changed application version strands everything (it is
a constant here), and the default journal mode of SQLite is slow (WAL is set once).
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import sqlalchemy as sa
from dbos import (
    DBOS,
    DBOSClient,
    DBOSPortableJSONSerializer,
    SetEnqueueOptions,
    SetWorkflowID,
    WorkflowStatus,
)

from node import database, logs
from node.cases import Priority, Stage
from node.errors import ConfigError
from node.ledger import Ledger
from node.pulse import Pulses

APPLICATION = "neuroseg-node"
# Changes only when a running job could not be finished by new code. The engine's default is a hash
# over source and library version, with which any upgrade strands the jobs in flight.
PIPELINE_VERSION = "pipeline-1"
MAX_CRASHES = 5
_MAX_RESUMPTIONS = 5
_CONNECTIONS = 8  # of a worker to a PostgreSQL; the engine takes 20, which nothing here needs
_WAITING = ["ENQUEUED", "DELAYED"]
_ACTIVE = [*_WAITING, "PENDING"]
_DEAD = ["ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
_TURN = {Priority.HIGH: 10, Priority.NORMAL: 20, Priority.LOW: 30}  # the smallest comes first


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One try of one stage of one case, started after `delay_s` seconds."""

    case_id: str
    run: int
    stage: Stage
    destination: str = ""
    attempt: int = 1
    delay_s: float = 0.0
    priority: Priority = Priority.NORMAL

    @property
    def job_id(self) -> str:
        """The name under which the engine runs it at most once."""
        return f"{self.case_id}/{self.run}/{self.stage}/{self.destination or '-'}/{self.attempt}"


Handler = Callable[[Job], Sequence[Job]]
"""Does a job and returns those that follow it."""

_gnu = ctypes.CDLL(None)  # where it is the GNU C library, it can be told how to keep memory
_trim, _tell = getattr(_gnu, "malloc_trim", None), getattr(_gnu, "mallopt", None)
_MOST_ARENAS, _ARENAS = -8, 2
_handler: Handler | None = None
_running: set[str] = set()


@DBOS.step(name="perform")
def _perform(
    case_id: str, run: int, stage: str, destination: str, attempt: int
) -> list[list[object]]:
    if _handler is None:
        raise RuntimeError("a job was started before the worker")
    job = Job(
        case_id=case_id, run=run, stage=Stage(stage), destination=destination, attempt=attempt
    )
    return [
        [
            next_.case_id,
            next_.run,
            next_.stage.value,
            next_.destination,
            next_.attempt,
            next_.delay_s,
            next_.priority.value,
        ]
        for next_ in _handler(job)
    ]


@DBOS.workflow(name="job", max_recovery_attempts=MAX_CRASHES)
def _job(case_id: str, run: int, stage: str, destination: str, attempt: int) -> None:
    """Do a job, then put what follows it into the queues, each in one transaction."""
    own_id = str(DBOS.workflow_id)
    _running.add(own_id)
    try:
        for values in _perform(case_id, run, stage, destination, attempt):
            follower = _job_of(values)
            options = SetEnqueueOptions(
                delay_seconds=follower.delay_s or None, priority=_TURN[follower.priority]
            )
            with SetWorkflowID(follower.job_id), options:
                DBOS.enqueue_workflow(
                    follower.stage.value,
                    _job,
                    follower.case_id,
                    follower.run,
                    follower.stage.value,
                    follower.destination,
                    follower.attempt,
                )
    finally:
        _running.discard(own_id)
        _give_back()


def _give_back() -> None:
    """Leave no more memory taken than is used, so that a process grows with nothing but its work.

    Beside millions of objects of libraries, the collector by itself waits for hundreds of thousands
    of new ones: a process would gain some 60 KB with each study meanwhile. The C library keeps what
    was freed, once for each thread that has ever been at its largest: tens of megabytes.
    """
    gc.collect()
    if _trim is not None:
        _trim(0)


def _job_of(values: Sequence[object]) -> Job:
    case_id, run, stage, destination, attempt, delay_s, *more = values
    return Job(
        case_id=str(case_id),
        run=int(str(run)),
        stage=Stage(str(stage)),
        destination=str(destination),
        attempt=int(str(attempt)),
        delay_s=float(str(delay_s)),
        priority=Priority(str(more[0])) if more else Priority.NORMAL,  # an earlier version's
    )


def prepare(url: str) -> None:
    """Make the SQLite file of the engine and put it into WAL mode; nothing for other databases.

    Raises
    ------
    ConfigError
        The file system cannot do WAL: a network share, where SQLite must not be used.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return
    path = Path(str(parsed.database))
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=30)
    try:
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    finally:
        connection.close()
    if mode != "wal":
        raise ConfigError(reason="the job database must lie on a local disk (no WAL possible)")


def lasting(url: str) -> str:
    """Return the address with what gives up a server that is gone, where it does not say so.

    The engine waits for an answer as long as the operating system does: of a machine that was cut
    off, for hours.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return url
    ours = {name: str(value) for name, value in database.CONNECTION.items()}
    return parsed.set(query={**ours, **parsed.query}).render_as_string(hide_password=False)


class Jobs:
    """The queue seen from outside: submit, look, reorder. Runs nothing."""

    def __init__(self, url: str) -> None:
        prepare(url)
        self._client = DBOSClient(
            system_database_url=lasting(url),
            application_name=APPLICATION,
            serializer=DBOSPortableJSONSerializer(),
        )

    def submit(self, job: Job) -> None:
        """Put a job into its queue; a job of that name, even an ended one, is left alone."""
        self._client.enqueue(
            {
                "workflow_name": "job",
                "queue_name": job.stage.value,
                "workflow_id": job.job_id,
                "app_version": PIPELINE_VERSION,
                "priority": _TURN[job.priority],
            },
            job.case_id,
            job.run,
            job.stage.value,
            job.destination,
            job.attempt,
        )

    def active_case_ids(self) -> set[str]:
        """Return the cases that have a job waiting, delayed or running."""
        return {name.split("/")[0] for name in self._names(_ACTIVE)}

    def dead_job_ids(self, case_id: str, run: int) -> list[str]:
        """Return the jobs of a case's run that the engine has given up."""
        return self._names(_DEAD, prefix=f"{case_id}/{run}/")

    def reorder(self, priorities: Mapping[str, Priority]) -> None:
        """Give the waiting jobs of cases, by their ids, the turn that is now wanted of them."""
        database = self._client._sys_db  # noqa: SLF001 - no public way; see ADR 1
        table = database.tables.workflow_status
        for row in self._rows(_WAITING):
            wanted = priorities.get(row.workflow_id.split("/")[0])
            if wanted is None or row.priority == _TURN[wanted]:
                continue
            waits = (table.c.workflow_uuid == row.workflow_id) & table.c.status.in_(_WAITING)
            with database.engine.begin() as connection:
                connection.execute(table.update().where(waits).values(priority=_TURN[wanted]))

    def hasten(self, case_id: str, destination: str = "") -> int:
        """Start the delayed deliveries of a case now, those to one destination where it is named.

        Returns how many there were.
        """
        names = [
            name
            for name in self._names(["DELAYED"], prefix=f"{case_id}/")
            if destination in ("", name.split("/")[3])
        ]
        for name in names:
            self._client.set_workflow_delay(name, delay_seconds=0)
        return len(names)

    def wake_overslept(self, longest_s: float) -> None:
        """Start jobs whose delay ends later than any can: the clock was set back meanwhile.

        The engine keeps the end of a delay as a moment of the wall clock.
        """
        latest_ms = 1000.0 * (time.time() + longest_s)
        for row in self._rows(["DELAYED"]):
            if (row.delay_until_epoch_ms or 0) > latest_ms:
                self._client.set_workflow_delay(row.workflow_id, delay_seconds=0)
                logs.get().warning("job.overslept", case_id=row.workflow_id.split("/")[0])

    def _names(self, statuses: list[str], prefix: str | None = None) -> list[str]:
        return [row.workflow_id for row in self._rows(statuses, prefix)]

    def _rows(self, statuses: list[str], prefix: str | None = None) -> list[WorkflowStatus]:
        return self._client.list_workflows(
            status=statuses, workflow_id_prefix=prefix, load_input=False, load_output=False
        )

    def close(self) -> None:
        """Give the connections back."""
        self._client.destroy()


class Worker:
    """A process that takes jobs from queues.

    Parameters
    ----------
    url : str
        Database of the job engine.
    executor_id : str
        Unique and stable name of this process; two with one name are refused on one machine.
    queues : mapping of Stage to int
        What to take, and how many at the same time.
    handler : callable
        Does a job and returns those that follow it. It must be able to run twice.
    """

    def __init__(
        self,
        url: str,
        *,
        executor_id: str,
        queues: Mapping[Stage, int],
        handler: Handler,
        poll_s: float,
    ) -> None:
        prepare(url)
        self.executor_id = executor_id
        self._queues = queues
        self._poll_s = poll_s
        self._lock: IO[str] | None = None
        self._pulses: Pulses | None = None
        self._stranded: Counter[str] = Counter()
        self._resumed: Counter[str] = Counter()
        global _handler  # noqa: PLW0603 - the engine calls module-level functions only
        _handler = handler
        DBOS(
            config={
                "name": APPLICATION,
                "system_database_url": lasting(url),
                "sys_db_pool_size": _CONNECTIONS,
                "application_version": PIPELINE_VERSION,
                "executor_id": executor_id,
                "serializer": DBOSPortableJSONSerializer(),
                "log_level": "ERROR",
            }
        )

    def start(self, lock_folder: Path) -> None:
        """Take over what this worker was doing when it died, then take new jobs.

        Raises
        ------
        ConfigError
            Another live process on this machine has the same name.
        """
        lock_folder.mkdir(parents=True, exist_ok=True)
        self._lock = (lock_folder / f"{self.executor_id.replace('/', '-')}.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(reason=f"a worker named {self.executor_id} already runs") from error
        gc.freeze()  # what libraries have made stays; `_job` need not look at it each time
        if _tell is not None:
            _tell(_MOST_ARENAS, _ARENAS)  # not one for each thread, full of holes of its own
        DBOS.listen_queues([stage.value for stage in self._queues])
        DBOS.launch()
        for stage, count in self._queues.items():
            DBOS.register_queue(
                stage.value,
                worker_concurrency=count,
                polling_interval_sec=self._poll_s,
                on_conflict="always_update",
            )

    def stop(self, *, grace_s: float = 20.0) -> None:
        """Let running jobs finish for a while; what does not is taken up at the next start."""
        DBOS.destroy(workflow_completion_timeout_sec=int(grace_s))
        if self._lock is not None:
            self._lock.close()

    def sweep(self, ledger: Ledger, *, timeout_s: float) -> None:
        """Take over jobs of dead workers, and start those again that this process has lost."""
        self._pulses = self._pulses or Pulses(ledger.engine)
        alive = {self.executor_id} | self._pulses.alive(timeout_s=timeout_s)
        pending = DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)
        for executor in {str(row.executor_id) for row in pending} - alive:
            DBOS._recover_pending_workflows([executor])  # noqa: SLF001 - no public way; see ADR 1
            logs.get().warning("worker.taken_over", reason="no heartbeat")
        mine = {
            row.workflow_id: str(row.queue_name)
            for row in pending
            if row.executor_id == self.executor_id and row.workflow_id not in _running
        }
        self._restart_stranded(mine)

    def _restart_stranded(self, lost: Mapping[str, str]) -> None:
        """Resume rows that are lost twice in a row; a starting job may look so once."""
        self._stranded = Counter({name: self._stranded[name] + 1 for name in lost})
        for name in [name for name, rounds in self._stranded.items() if rounds > 1]:
            self._stranded.pop(name)
            self._resumed[name] += 1
            if self._resumed[name] > _MAX_RESUMPTIONS:
                DBOS.cancel_workflow(name)
            else:
                DBOS.resume_workflow(name, queue_name=lost[name])
