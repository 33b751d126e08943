"""Several machines, one database and one spool: one of them dies, is cut off, or stands still.

Each machine is a network namespace (`tests.machines`) with a whole node of its own; PostgreSQL and
a real Orthanc are beyond the bridge, and the sender asks one machine after the other.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from node.cases import CaseState
from node.ledger import Ledger
from node.receive.reconcile import Kind, Reconciliation
from node.spool import Spool
from tests import tiny_models
from tests.databases import Postgres
from tests.faults.audit import Archive, Audit, audit
from tests.faults.load import Load
from tests.faults.storm import NODE
from tests.machines import NAMESPACE, Machine, Network
from tests.nodes import RunningNode
from tests.small_studies import SmallStudies
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        "NEUROSEG_TEST_MACHINES" not in os.environ,
        reason="two whole nodes take minutes: set NEUROSEG_TEST_MACHINES",
    ),
]

_HEARTBEAT_S = 5.0
_PATIENCE_S = 300.0
_ROLES = {"receive", "work", "infer"}
_REFUSED = {Kind.HALF_WRITTEN, Kind.ADOPTED, Kind.DOUBLE}  # files of what nobody was told is stored


@dataclass(slots=True)
class _Host:
    machine: Machine
    node: RunningNode

    @property
    def name(self) -> str:
        return self.node.folder.name


@dataclass(slots=True)
class _Site:
    """Two machines and what they share."""

    folder: Path
    url: str
    ledger: Ledger
    archive: Archive
    studies: SmallStudies
    hosts: list[_Host] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)

    @property
    def spool(self) -> Path:
        return self.folder / "spool"

    def send(self, count: int, *hosts: _Host) -> Load:
        """Begin to send so many studies to these machines in turn."""
        first = 1 + sum(len(one.begun) for one in self.loads)
        addresses = [one.machine.address for one in hosts]
        port = hosts[0].node.dicom_port
        load = Load(self.studies, port, first=first, count=count, hosts=addresses)
        self.loads.append(load)
        for thread in load.threads:
            thread.start()
        return load

    def wait_delivered(self, load: Load) -> None:
        wanted = {one.study_instance_uid for one in load.begun}

        def is_done() -> bool:
            rows = self.ledger.cases(CaseState.DELIVERED, limit=1000)
            return wanted <= {row.study_instance_uid for row in rows}

        wait_until(is_done, _PATIENCE_S, "all to be delivered", poll_s=0.3)

    def wait_alive(self, host: _Host) -> None:
        """Wait until every role of a machine beats."""

        def is_alive() -> bool:
            found = self.ledger.workers()
            mine = [one for one in found if one.executor_id.startswith(f"{host.name}/")]
            return {one.role for one in mine if one.is_alive(_HEARTBEAT_S)} >= _ROLES

        wait_until(is_alive, _PATIENCE_S, f"{host.name} to beat", poll_s=0.3)

    def jobs_of(self, host: _Host) -> int:
        """Return how many jobs a machine has begun and not ended."""
        query = (
            "SELECT count(*) FROM dbos.workflow_status"
            " WHERE status = 'PENDING' AND executor_id LIKE %s"
        )
        with psycopg.connect(self.url) as connection:
            (count,) = connection.execute(query, [f"{host.name}/%"]).fetchone() or (0,)
        return int(count)

    def audit(self) -> Audit:
        """Count, after what the next start of a receiver does."""
        check = Reconciliation(
            Spool(self.spool), self.ledger, model_id="-", limit_bytes=2**30, is_deep=True
        )
        assert {one.kind for one in check.run()} <= _REFUSED
        accepted = [uid for load in self.loads for uid in load.accepted]
        studies = [one.study_instance_uid for load in self.loads for one in load.begun]
        return audit(self.spool, self.archive, accepted, studies, self.url)


def _node(site: _Site, machine: Machine, number: int, network: Network, model: Path) -> RunningNode:
    orthanc = site.archive
    destination = (
        f'[[destinations]]\nname = "orthanc"\ntransport = "dimse"\nhost = "{network.address}"\n'
        f'port = {orthanc.dicom_port}\nae_title = "{orthanc.ae_title}"\ntimeout_s = 3.0\n'
    )
    name = f"machine-{number}"
    node = RunningNode(
        site.folder / name,
        [destination],
        entry=NODE,
        environment={
            "NEUROSEG_MODEL__FOLDER": str(model),
            "CRASH_PLAN": str(site.folder / "no-plan"),
            "POISON_PLAN": str(site.folder / "poison"),
            "OMP_NUM_THREADS": "1",
            NAMESPACE: machine.name,
        },
        options={
            "align": 'registration = "off"',
            "assemble": "settle_s = 1.0\nquiet_s = 60.0\nreleased_quiet_s = 60.0\npoll_s = 1.0",
            "delivery": "first_delay_s = 0.2\nlongest_delay_s = 1.0",
            "receive": f"host = '{machine.address}'\nport = 11112",
            "spool": f"path = '{site.spool}'",
            "ledger": f"url = '{site.url}'",
            "jobs": f"url = '{site.url}'\nworker_name = '{name}'\npoll_s = 0.5\n"
            f"sweep_s = 2.0\nheartbeat_timeout_s = {_HEARTBEAT_S}",
        },
        is_warm=True,
    )
    node.dicom_port = 11112
    return node


@contextmanager
def _built(folder: Path) -> Iterator[_Site]:
    with Network() as network, Postgres(network.address) as postgres:
        limits = "-cidle_in_transaction_session_timeout=15s"
        url = f"{postgres.fresh_database()}?options={quote(limits)}"
        ledger = Ledger(url)
        archive = Archive(folder / "orthanc")
        (folder / "poison").write_text("{}", encoding="utf-8")
        model = tiny_models.written(folder / "model" / "tiny", skull="any")
        site = _Site(folder, url, ledger, archive, SmallStudies(folder / "drawn"))
        for number in (1, 2):
            machine = network.machine()
            site.hosts.append(_Host(machine, _node(site, machine, number, network, model)))
        with archive:
            try:
                for host in site.hosts:
                    host.node.start()
                for host in site.hosts:
                    site.wait_alive(host)
                yield site
            finally:
                for load in site.loads:
                    load.abandon()
                for host in site.hosts:
                    host.machine.hit(signal.SIGKILL)
                ledger.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Site]:
    with _built(tmp_path_factory.mktemp("machines")) as built:
        yield built


def _kill(host: _Host) -> None:
    host.machine.hit(signal.SIGKILL)


def _start_again(host: _Host) -> None:
    host.node.start()


def _cut_off(host: _Host) -> None:
    host.machine.pull_cable()


def _let_back(host: _Host) -> None:
    host.machine.plug_cable()


def _freeze(host: _Host) -> None:
    host.machine.hit(signal.SIGSTOP)


def _thaw(host: _Host) -> None:
    host.machine.hit(signal.SIGCONT)


Act = Callable[[_Host], None]


@pytest.mark.parametrize(
    ("strike", "heal"),
    [(_kill, _start_again), (_cut_off, _let_back), (_freeze, _thaw)],
    ids=["killed", "cut off", "frozen"],
)
def test_a_machine_that_is_lost_loses_and_doubles_nothing(
    site: _Site, strike: Act, heal: Act
) -> None:
    victim, other = site.hosts
    load = site.send(3, victim, other)
    wait_until(lambda: site.jobs_of(victim), _PATIENCE_S, "the victim to be at work", poll_s=0.05)
    strike(victim)
    try:
        load.wait()
        site.wait_delivered(load)  # by the other one, without the victim
    finally:
        heal(victim)
    site.wait_alive(victim)
    wait_until(lambda: not site.jobs_of(victim), _PATIENCE_S, "the victim to lay down its work")
    after = site.send(1, victim)  # which takes part again
    after.wait()
    site.wait_delivered(after)
    counted = site.audit()
    assert counted.is_clean, counted
