"""DCMTK's archive: it tells little by C-FIND, and sends by C-GET and C-MOVE."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests import peers
from tests.waiting import wait_until

AE_TITLE = "QRSCP"


@contextmanager
def running(
    folder: Path, files: Sequence[Path], *, move_to: tuple[str, int] = ("NEUROSEG", 104)
) -> Iterator[int]:
    """Run it with files; yield its port. `move_to` is an AE on loopback that it may send to."""
    peers.require("dcmtk")
    port, store = peers.free_port(), folder / "store"
    store.mkdir(parents=True)
    title, to = move_to
    config = folder / "dcmqrscp.cfg"
    config.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        f"HostTable BEGIN\nnode = ({title}, 127.0.0.1, {to})\nHostTable END\n"
        f"VendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\n{AE_TITLE} {store} RW (50, 1024mb) ANY\nAETable END\n"
    )
    process = subprocess.Popen([peers.program("dcmqrscp") or "dcmqrscp", "-c", str(config)])
    try:
        wait_until(
            lambda: peers.echoscu(port=port, called=AE_TITLE).returncode == 0, 20, "dcmqrscp"
        )
        sent = peers.storescu(files, port=port, called=AE_TITLE)
        assert sent.returncode == 0, sent.stderr
        yield port
    finally:
        process.kill()
        process.wait()
