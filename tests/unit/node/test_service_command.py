"""The unit of systemd: that systemd takes it, and that it names what the settings say."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from node import service_command
from node.__main__ import main
from tests import peers


def config(folder: Path, port: int = 11112, spool: str = "spool") -> Path:
    file = folder / "node.toml"
    file.write_text(f'[receive]\nport = {port}\n[spool]\npath = "{folder / spool}"\n')
    return file


def lines(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def test_systemd_takes_it(tmp_path: Path) -> None:
    program = peers.program("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "neuroseg.service"
    unit.write_text(service_command.unit(config(tmp_path), "root"))
    done = subprocess.run(
        [program, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_it_may_write_to_the_spool_alone_and_has_no_capability(tmp_path: Path) -> None:
    said = lines(service_command.unit(config(tmp_path, spool="a%b"), "neuroseg"))
    assert said["ReadWritePaths"] == f"{tmp_path}/a%%b"
    assert said["ProtectSystem"] == "strict"
    assert said["CapabilityBoundingSet"] == said["AmbientCapabilities"] == ""
    assert said["User"] == "neuroseg"


def test_a_port_below_1024_takes_one_capability(tmp_path: Path) -> None:
    said = lines(service_command.unit(config(tmp_path, port=104), "neuroseg"))
    assert said["AmbientCapabilities"] == "CAP_NET_BIND_SERVICE"


def test_it_can_be_looked_at_and_settings_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    file = config(tmp_path)
    command = ["install-service", "--print", "--config", str(file)]
    shown = CliRunner().invoke(main, command)
    assert shown.exit_code == 0
    assert shown.output == service_command.unit(file, "neuroseg")
    file.write_text("nonsense = 1\n")
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 2
    assert "CONFIG_INVALID" in refused.output
