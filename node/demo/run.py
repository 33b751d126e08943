"""The demonstration: a node of its own, a synthetic study pushed by C-STORE, the SEG back.

Everything is real but the patient: the node runs as `neuroseg serve` does, the archive is Orthanc
where it is installed, and what is shown was read from what the archive holds at the end.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import httpx
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pynetdicom.presentation import build_context

from converters import phantom, seg_check, series
from converters.phantom import PhantomFiles, PhantomStudy
from converters.volume import MM3_PER_ML
from node.demo.archive import DemoArchive, OrthancArchive, choose_archive
from node.requesting import RequestingEntity
from node.supervise import SUPERVISED

_LOOPBACK = "127.0.0.1"
_AE_TITLE = "NEUROSEG"
_READY_LIMIT_S = 180.0
_DONE_LIMIT_S = 900.0
_POLL_S = 0.25
_STOP_LIMIT_S = 60.0
_ENDED_BADLY = ("rejected", "failed", "cancelled")
_MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_SHOWN_FILES = (
    "summary-cover.png",
    "preview.png",
    "labels.nii.gz",
    "channels.nii.gz",
    "seg.dcm",
    "sr.dcm",
)


class DemoFailedError(Exception):
    """The demonstration did not reach its end; the message says where."""


def run(folder: Path, *, seed: int, once: bool) -> int:
    """Run the demonstration below `folder` until it is through or stopped; return the exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: archive and node end with us
        signal.signal(number, signal.default_int_handler)
    folder = folder / f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True)
    archive = choose_archive(folder / "archive")
    archive.start()
    try:
        with _node(folder, archive) as (node, page, dicom_port):
            _show(folder, archive, node, page, dicom_port, seed)
            if not once:
                click.echo("The node stays up. Ctrl-C ends it.")
                node.wait()
    except (DemoFailedError, httpx.HTTPError) as error:
        click.echo(f"\nThe demonstration failed: {error}\nLog: {folder / 'node.log'}", err=True)
        return 1
    except KeyboardInterrupt:
        click.echo("\nstopping")
    finally:
        archive.stop()
    return 0


@contextmanager
def _node(
    folder: Path, archive: DemoArchive | OrthancArchive
) -> Iterator[tuple[subprocess.Popen[bytes], str, int]]:
    """Run a node; give its process, the address of its page and its DICOM port."""
    web_port, dicom_port = _port(8080), _port(11112)
    config = _write_config(folder, archive, web_port, dicom_port)
    node = _start_node(config, folder / "node.log")
    try:
        yield node, f"http://{_LOOPBACK}:{web_port}", dicom_port
    finally:
        _stop_node(node)


def _show(
    folder: Path,
    archive: DemoArchive | OrthancArchive,
    node: subprocess.Popen[bytes],
    page: str,
    dicom_port: int,
    seed: int,
) -> None:
    started = time.monotonic()

    def say(text: str) -> None:
        click.echo(f"[{time.monotonic() - started:6.1f} s] {text}")

    say(f"archive standing for the PACS: {_describe(archive)}")
    with httpx.Client(base_url=page, timeout=10.0, trust_env=False) as client:
        study, files = _make_study(folder, seed, say)
        _wait_ready(client, node, say)
        _push(files, dicom_port, say)
        case = _follow(client, node, say)
    _report(folder, archive, study, files, case)
    click.echo(f"\nStatus page: {page}")


def _describe(archive: DemoArchive | OrthancArchive) -> str:
    if isinstance(archive, OrthancArchive):
        return f"Orthanc at {archive.http_url} (DICOM port {archive.port})"
    return f"built-in (DICOM port {archive.port}); install Orthanc and it is used instead"


def _port(wanted: int) -> int:
    """Return a port that is free on loopback, the wanted one when possible."""
    for port in (wanted, 0):
        try:
            with socket.create_server((_LOOPBACK, port)) as listener:
                return int(listener.getsockname()[1])
        except OSError:
            continue
    raise DemoFailedError("no free port on this machine")


def _write_config(
    folder: Path, archive: DemoArchive | OrthancArchive, web_port: int, dicom_port: int
) -> Path:
    path = folder / "node.toml"
    path.write_text(
        f"""[receive]
port = {dicom_port}
ae_title = "{_AE_TITLE}"
[web]
port = {web_port}
[spool]
path = '{(folder / "spool").absolute()}'
free_floor_bytes = 0
[assemble]
settle_s = 1.0
[model]
folder = '{model_folder()}'
brain_mask_folder = '{model_folder().with_name("brain-mask")}'
[[destinations]]
name = "archive"
transport = "dimse"
host = "{_LOOPBACK}"
port = {archive.port}
ae_title = "{archive.ae_title}"
pictures = true
""",
        encoding="utf-8",
    )
    return path


def model_folder() -> Path:
    """Return the demonstration model beside the packages."""
    return Path(__file__).resolve().parents[2] / "models" / "demo-glioma"


def _start_node(config: Path, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "node", "serve", "--config", str(config)]
    with log.open("wb") as output:
        return subprocess.Popen(  # noqa: S603 - our own command
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches us first, and we stop it in order
            env={**os.environ, SUPERVISED: "1"},
        )


def _stop_node(node: subprocess.Popen[bytes]) -> None:
    if node.poll() is None:
        node.send_signal(signal.SIGTERM)
        try:
            node.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            node.kill()


def _make_study(
    folder: Path, seed: int, say: Callable[[str], None]
) -> tuple[PhantomStudy, PhantomFiles]:
    study = phantom.make_study(seed)
    files = phantom.write_study(study, folder / "study")
    counts = ", ".join(f"{role} {len(paths)}" for role, paths in files.paths.items())
    say(f"synthetic study with a tumour written: {counts} images")
    return study, files


def _wait_ready(
    client: httpx.Client, node: subprocess.Popen[bytes], say: Callable[[str], None]
) -> None:
    for _ in _until(_READY_LIMIT_S, node):
        if _is_ready(client):
            health = client.get("/api/v1/health").json()
            say(f"node ready: model {health['model']['id']} on {health['device']}")
            return
    raise DemoFailedError(f"the node was not ready within {_READY_LIMIT_S:.0f} s")


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").is_success
    except httpx.TransportError:
        return False


def _until(limit_s: float, node: subprocess.Popen[bytes]) -> Iterator[None]:
    """Yield again and again until the time is over; raise when the node has ended."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if node.poll() is not None:
            raise DemoFailedError("the node ended")
        yield
        time.sleep(_POLL_S)


def _interleaved(groups: Sequence[Sequence[Path]]) -> list[Path]:
    """Return one of each group in turn, as a scanner that sends series side by side."""
    rounds = itertools.zip_longest(*groups)
    return [path for one in rounds for path in one if path is not None]


def _push(files: PhantomFiles, port: int, say: Callable[[str], None]) -> None:
    paths = _interleaved(list(files.paths.values()))
    entity = RequestingEntity("DEMO")
    entity.requested_contexts = [build_context(_MR_IMAGE_STORAGE, _EXPLICIT_VR_LITTLE_ENDIAN)]
    association = entity.associate(_LOOPBACK, port, ae_title=_AE_TITLE)
    if not association.is_established:
        raise DemoFailedError("the node does not accept the association")
    refused = 0
    for number, path in enumerate(paths):
        try:
            status = association.send_c_store(dcmread(path))
        except RuntimeError as error:  # what pynetdicom says of an association that is gone
            reason = f"the association ended after {number} of {len(paths)} images"
            raise DemoFailedError(reason) from error
        refused += "Status" not in status or int(status.Status) != 0
    association.release()
    if refused:
        raise DemoFailedError(f"the node refused {refused} of {len(paths)} images")
    say(f"{len(paths)} images pushed by C-STORE, series interleaved; all are stored")


def _follow(
    client: httpx.Client, node: subprocess.Popen[bytes], say: Callable[[str], None]
) -> dict[str, Any]:
    """Show each state of the case until the last; return the case."""
    shown = ""
    for _ in _until(_DONE_LIMIT_S, node):
        found = client.get("/api/v1/cases").json()["cases"]
        if not found:
            continue
        case: dict[str, Any] = client.get(f"/api/v1/cases/{found[0]['case_id']}").json()
        if case["state"] != shown:
            shown = case["state"]
            say(f"case {case['case_id'][:8]}: {shown}")
        if shown == "delivered":
            return case
        if shown in _ENDED_BADLY:
            raise DemoFailedError(f"{case['code']}: {case['sentence']}")
    raise DemoFailedError(f"no result within {_DONE_LIMIT_S:.0f} s")


def _report(
    folder: Path,
    archive: DemoArchive | OrthancArchive,
    study: PhantomStudy,
    files: PhantomFiles,
    case: dict[str, Any],
) -> None:
    """Print what the archive holds, measured against the phantom's truth."""
    found = archive.find(files.study_instance_uid, "SEG")
    if len(found) != 1:
        raise DemoFailedError(f"the archive holds {len(found)} SEG objects, expected 1")
    (result,) = found
    sources = series.stack(files.paths["t1gd"])
    labels = seg_check.read_labels(result.path, sources.headers)
    truth = study.truth["t1gd"]
    voxel_ml = sources.grid.voxel_volume_mm3 / MM3_PER_ML
    click.echo("\nThe SEG that came back to the archive:")
    click.echo(f"  {'segment':<44}{'found':>10}{'truth':>10}{'Dice':>8}")
    names = list(case["summary"]["volumes_ml"])
    for number, name in enumerate(names, start=1):
        _line(name, labels == number, truth == number, voxel_ml)
    _line("whole tumour", labels > 0, truth > 0, voxel_ml)
    click.echo(f"\n  SEG in the archive   {result.path}")
    for name in _SHOWN_FILES:
        click.echo(f"  {name:<20} {folder / 'spool' / 'cases' / case['case_id'] / name}")
    click.echo(f"  {'log of the node':<20} {folder / 'node.log'}")
    if not (labels > 0).any():
        raise DemoFailedError("no tumour was found in a study that has one")


def _line(name: str, found: NDArray[np.bool_], truth: NDArray[np.bool_], voxel_ml: float) -> None:
    both, either = int((found & truth).sum()), int(found.sum()) + int(truth.sum())
    dice = 2 * both / either if either else 1.0
    found_ml, truth_ml = found.sum() * voxel_ml, truth.sum() * voxel_ml
    click.echo(f"  {name:<44}{found_ml:>7.1f} mL{truth_ml:>7.1f} mL{dice:>8.2f}")
