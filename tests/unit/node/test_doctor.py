"""The doctor sees what is wrong and says what to do about it."""

from __future__ import annotations

import shutil
import socket
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pynetdicom.ae import ApplicationEntity
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at run time

from node import doctor
from node.demo.archive import DemoArchive
from node.dimse import IMPLEMENTATION_CLASS_UID
from node.doctor import Finding
from node.ledger import Ledger
from node.settings import Settings
from tests.scripted_peers import HttpPeer, Reply, closed_port, tcp_peer

MODEL = Path(__file__).parents[3] / "models" / "demo-glioma"


def settings_in(folder: Path, **more: object) -> Settings:
    """Return settings whose every file lies in `folder` and whose ports are free."""
    values: dict[str, Any] = {
        "spool": {"path": folder, "free_floor_bytes": 0},
        "receive": {"port": closed_port()},
        "web": {"port": closed_port()},
        "model": {"folder": MODEL},
    }
    return Settings(**{**values, **more})


def finding(name: str, settings: Settings, config: Path | None = None) -> Finding:
    (found,) = [one for one in doctor.checks(settings, config) if one.name == name]
    assert bool(found.advice) is not found.ok
    return found


def test_a_sound_node_has_no_complaint_and_nothing_is_left_behind(tmp_path: Path) -> None:
    findings = doctor.checks(settings_in(tmp_path), None)
    assert [one for one in findings if not one.ok] == []
    assert list(tmp_path.iterdir()) == []


def test_a_spool_that_does_not_exist_yet_is_not_made(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    findings = doctor.checks(settings_in(folder), None)
    assert [one for one in findings if not one.ok] == []
    assert not (tmp_path / "not").exists()


def test_a_damaged_configuration_is_named(tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text("[receive]\nportt = 1\n")
    found = finding("configuration", settings_in(tmp_path), config)
    assert not found.ok
    assert "receive.portt" in found.detail


def test_a_full_disk_is_told_with_its_floor(tmp_path: Path) -> None:
    spool = {"path": tmp_path, "free_floor_bytes": 2**62}
    found = finding("spool", settings_in(tmp_path, spool=spool))
    assert not found.ok
    assert "floor 4398046511104 MiB" in found.detail


def test_the_quota_of_the_spool_is_named(tmp_path: Path) -> None:
    spool = {"path": tmp_path, "free_floor_bytes": 0}
    assert finding("spool", settings_in(tmp_path, spool=spool)).detail.endswith("no quota")
    limited = {**spool, "quota_bytes": 3 * 2**30}
    assert finding("spool", settings_in(tmp_path, spool=limited)).detail.endswith("3072 MiB")


def test_a_file_in_place_of_the_ledger_is_told(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_text("no database at all, but long enough for a header")
    found = finding("ledger", settings_in(tmp_path))
    assert not found.ok
    assert "DatabaseError" in found.detail


def test_a_ledger_in_use_is_fine(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    ledger = Ledger(settings.ledger_url)
    assert finding("ledger", settings).ok
    ledger.close()


def test_a_ledger_of_another_version_is_told(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    Ledger(settings.ledger_url).close()
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as connection:
        connection.execute("UPDATE ledger_meta SET schema_version = 99")
        connection.commit()
    found = finding("ledger", settings)
    assert not found.ok
    assert "schema 99" in found.detail


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://node:open-sesame@127.0.0.1:{port}/jobs", "OperationalError"),
        ("nosuch://node:open-sesame@127.0.0.1:{port}/jobs", "NoSuchModuleError"),
        ("open-sesame", "malformed"),
    ],
)
def test_a_database_that_cannot_be_reached_is_told_without_its_password(
    tmp_path: Path, url: str, told: str
) -> None:
    jobs = {"url": url.format(port=closed_port())}
    found = finding("jobs", settings_in(tmp_path, jobs=jobs))
    assert not found.ok
    assert told in found.detail
    assert "open-sesame" not in f"{found}"


def test_a_model_that_is_absent_or_altered_is_told(tmp_path: Path) -> None:
    absent = finding("model", settings_in(tmp_path, model={"folder": tmp_path}))
    assert not absent.ok
    altered = tmp_path / "model"
    shutil.copytree(MODEL, altered)
    (weights,) = altered.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    found = finding("model", settings_in(tmp_path, model={"folder": altered}))
    assert not found.ok
    assert "weights.sha256" in found.detail


def test_a_brain_mask_that_the_model_needs_and_that_is_absent_is_told(tmp_path: Path) -> None:
    model = {"folder": MODEL, "brain_mask_folder": tmp_path}
    found = finding("model", settings_in(tmp_path, model=model))
    assert not found.ok
    assert "mask.toml" in found.detail


@pytest.mark.parametrize(
    ("old", "new", "ok"),
    [
        ("[space]", "[space]", True),
        ('mask = "nonzero"', 'mask = "brain"', False),
        ('crop = "foreground"', 'crop = "brain"', False),
        ("clip_to_brain = false", "clip_to_brain = true", False),
    ],
)
def test_a_model_for_whole_heads_may_need_the_brain_mask_too(
    tmp_path: Path, old: str, new: str, *, ok: bool
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(MODEL, folder)
    text = (folder / "model.toml").read_text()
    for needing, without in (
        ('mask = "brain"\noutside = "kept"', 'mask = "nonzero"'),
        ('crop = "brain"\ncrop_margin_mm = 12.0', 'crop = "foreground"'),
        ("clip_to_brain = true", "clip_to_brain = false"),
    ):
        assert needing in text
        text = text.replace(needing, without)
    assert old in text
    (folder / "model.toml").write_text(text.replace(old, new, 1))
    model = {"folder": folder, "brain_mask_folder": tmp_path}
    assert finding("model", settings_in(tmp_path, model=model)).ok is ok


def test_a_gpu_that_is_asked_for_and_not_there_is_told(tmp_path: Path) -> None:
    asks = settings_in(tmp_path, model={"folder": MODEL, "device": "cuda"}).model
    assert not doctor._device(asks, tmp_path).ok
    (tmp_path / "nvidia0").touch()
    assert doctor._device(asks, tmp_path).detail == "GPU"


@pytest.mark.parametrize("name", ["receive port", "web port"])
def test_a_port_of_another_program_is_told(tmp_path: Path, name: str) -> None:
    with tcp_peer(socket.socket.close) as port:
        section, _, _ = name.partition(" ")
        found = finding(name, settings_in(tmp_path, **{section: {"port": port}}))
    assert not found.ok
    assert found.detail == f"{port} is used by another program"


def test_another_dicom_node_on_the_port_is_told(tmp_path: Path, archive: DemoArchive) -> None:
    found = finding("receive port", settings_in(tmp_path, receive={"port": archive.port}))
    assert not found.ok
    assert found.detail == f"{archive.port} is used by another program"


def test_the_running_node_may_hold_its_receive_port(tmp_path: Path) -> None:
    entity = ApplicationEntity("NEUROSEG")
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.add_supported_context(Verification)
    server = entity.start_server(("127.0.0.1", 0), block=False)
    assert server is not None
    receive = {"port": server.server_address[1]}
    found = finding("receive port", settings_in(tmp_path, receive=receive))
    entity.shutdown()
    assert found.ok
    assert "running node answers" in found.detail


@pytest.mark.parametrize(("body", "ok"), [(b'{"status":"alive"}', True), (b"Welcome", False)])
def test_the_running_node_alone_may_hold_its_web_port(
    tmp_path: Path, body: bytes, *, ok: bool
) -> None:
    with HttpPeer(Reply(body=body)) as peer:
        port = int(peer.url.split(":")[2].split("/")[0])
        found = finding("web port", settings_in(tmp_path, web={"port": port}))
    assert found.ok is ok
    assert [request.path for request in peer.requests] == ["/livez"]


def test_an_address_of_another_machine_is_told(tmp_path: Path) -> None:
    receive = {"host": "192.0.2.1", "port": 11112}
    found = finding("receive port", settings_in(tmp_path, receive=receive))
    assert not found.ok
    assert found.detail == "192.0.2.1 is no address of this machine"


def test_each_destination_is_asked(tmp_path: Path, archive: DemoArchive) -> None:
    with HttpPeer(Reply(status=401)) as refusing:
        destinations = [
            {"name": "here", "transport": "dimse", "host": "127.0.0.1", "port": archive.port},
            {"name": "away", "transport": "dimse", "host": "127.0.0.1", "port": closed_port()},
            {"name": "locked", "transport": "stow", "url": refusing.url},
            {"name": "share", "transport": "folder", "path": str(tmp_path)},
            {"name": "unmounted", "transport": "folder", "path": str(tmp_path / "mnt")},
        ]
        settings = settings_in(tmp_path, destinations=destinations)
        told = {one.name: one for one in doctor.checks(settings, None)}
    assert told["destination here"].ok
    assert not told["destination away"].ok
    assert "no connection" in told["destination away"].detail
    assert "HTTP 401" in told["destination locked"].detail
    assert told["destination share"].detail == "is there and can be written"
    assert "no such folder" in told["destination unmounted"].detail
    assert all(told[f"destination {name}"].advice for name in ("away", "locked", "unmounted"))


@pytest.mark.parametrize("years", [-30, 200])
def test_a_clock_that_cannot_be_right_is_told(years: int) -> None:
    installed = datetime(2026, 1, 1, tzinfo=UTC)
    now = installed + timedelta(days=365 * years)
    assert not doctor._clock(now, installed=installed).ok
    assert doctor._clock(installed, installed=installed).ok
