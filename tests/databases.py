"""A real PostgreSQL for the tests: a cluster of our own, run as nobody's service, gone at the end.

Tests marked ``databases`` run on SQLite and on PostgreSQL, as far as they open their ledger through
the fixtures `ledger` or `database_url`. Where PostgreSQL is not installed they are counted skips.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self
from urllib.parse import quote, urlencode

import psycopg
import pytest

from tests import peers
from tests.waiting import wait_until

_USER = "postgres"
_OPTIONS = {
    "unix_socket_directories": "",
    "shared_buffers": "16MB",
    "max_connections": "150",
    "fsync": "off",  # the machine does not lose its power; that a commit is synced is not our code
    "log_min_messages": "fatal",
}


def _owner() -> str | None:
    """Return whom the server runs as: it refuses to be root's."""
    if os.geteuid():
        return None
    try:
        return pwd.getpwnam(_USER).pw_name
    except KeyError:
        return "nobody"


class Postgres:
    """A cluster in a folder of its own on a free loopback port; a context manager.

    `stop` and `start` again keep what it holds: a database that is away for a while.

    Parameters
    ----------
    address : str
        Where it listens; whoever shares the first three numbers of it is let in.
    """

    def __init__(self, address: str = "127.0.0.1") -> None:
        peers.require("postgresql")
        self._address = address
        self.port = peers.free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="neuroseg-postgres-"))
        self._user = _owner()
        self._process: subprocess.Popen[bytes] | None = None
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        self._run("initdb", "--no-sync", "--auth=trust", f"--username={_USER}", "--encoding=UTF8")
        with (self.folder / "data" / "pg_hba.conf").open("a", encoding="utf-8") as rules:
            rules.write(f"host all all {address}/24 trust\n")

    def _command(self, name: str) -> list[str]:
        return [str(peers.program(name)), "-D", str(self.folder / "data")]

    def _run(self, name: str, *options: str) -> None:
        command = [*self._command(name), *options]
        done = subprocess.run(
            command, user=self._user, cwd=self.folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(done.stderr)

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it and delete what it held."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        settings = {"listen_addresses": self._address, **_OPTIONS}
        options = [f"-c{name}={value}" for name, value in settings.items()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command("postgres"), "-p", str(self.port), *options],
                user=self._user,
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_until(self._answers, 30.0, "PostgreSQL to answer")

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """Stop it at once, as when its machine goes away; connections break."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)
            self._process = None

    def execute(self, statement: str) -> None:
        """Run a statement as the cluster's owner."""
        with psycopg.connect(self.url(_USER), autocommit=True) as connection:
            connection.execute(statement.encode())

    def url(self, database: str) -> str:
        """Return the address of a database."""
        return f"postgresql://{_USER}@{self._address}:{self.port}/{database}"

    def fresh(self, **options: str) -> str:
        """Return the address of a new empty schema, with settings of its connections.

        A database of its own would cost a second.
        """
        name = f"neuroseg_{uuid.uuid4().hex}"
        self.execute(f"CREATE SCHEMA {name}")
        said = {"search_path": name, **options}
        values = " ".join(f"-c{key}={value}" for key, value in said.items())
        return f"{self.url(_USER)}?{urlencode({'options': values}, quote_via=quote)}"

    def fresh_database(self, encoding: str = "UTF8") -> str:
        """Return the address of a new empty database."""
        name = f"neuroseg_{uuid.uuid4().hex}"
        options = f"ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
        self.execute(f"CREATE DATABASE {name} {options}")
        return self.url(name)

    def _leave_small_disk(self) -> None:
        """Drop what lies there: the next checkpoint would look for its files in vain."""
        there = (
            "SELECT DISTINCT n.nspname FROM pg_class c"
            " JOIN pg_namespace n ON n.oid = c.relnamespace"
            " JOIN pg_tablespace t ON t.oid = c.reltablespace"
            " WHERE t.spcname = 'small' AND n.nspname LIKE 'neuroseg%'"
        )
        with psycopg.connect(self.url(_USER), autocommit=True) as connection:
            for (schema,) in connection.execute(there).fetchall():
                connection.execute(f"DROP SCHEMA {schema} CASCADE".encode())
            connection.execute(b"DROP TABLESPACE small")

    @contextmanager
    def small_disk(self) -> Iterator[Path]:
        """Mount a file system of 24 MB as the tablespace `small`; needs root on Linux."""
        folder = self.folder / "small"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("no file system can be mounted here")
        try:
            if self._user is not None:
                shutil.chown(folder, self._user)
            self.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
            yield folder
            self._leave_small_disk()
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=False)
