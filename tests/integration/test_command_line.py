"""The command line as an operator uses it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from converters import phantom
from tests.nodes import MODEL, ROOT
from tests.peers import free_port
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


def neuroseg(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "node", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def config(folder: Path, more: str = "") -> Path:
    """Write a configuration with free ports and a spool in the folder."""
    path = folder / "node.toml"
    path.write_text(
        f"[spool]\npath = '{folder / 'spool'}'\nfree_floor_bytes = 0\n"
        f"[model]\nfolder = '{MODEL}'\n"
        f"[receive]\nport = {free_port()}\n[web]\nport = {free_port()}\n{more}",
        encoding="utf-8",
    )
    return path


def test_a_folder_is_segmented_without_any_network(tmp_path: Path) -> None:
    files = phantom.write_study(phantom.make_study(5, size="small"), tmp_path / "study")
    (tmp_path / "study" / "notes.txt").write_text("not DICOM", encoding="utf-8")
    out = tmp_path / "out"
    forms = ("regions", "labelmap", "probabilities", "entropy", "rtstruct")
    asked_for = [word for form in forms for word in ("--form", form)] + ["--also", "flair"]
    done = neuroseg("segment", str(tmp_path / "study"), "-o", str(out), *asked_for)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} == {
        "seg.dcm",
        "sr.dcm",
        "measurements.json",
        "labels.nii.gz",
        "channels.nii.gz",
        "preview.png",
        *(
            f"summary-{name}.{kind}"
            for name in ("cover", "planes", "axial-t1gd", "axial-flair")
            for kind in ("png", "dcm")
        ),
        *(f"{form}.dcm" for form in forms),
        "seg-flair.dcm",
        "entropy.nii.gz",
        "probabilities.nii.gz",
    }
    count = sum(len(paths) for paths in files.paths.values())
    assert f"{count} instances read" in done.stdout
    assert "Research use only" in done.stdout
    assert "#  role   sequence" in done.stdout
    assert "axial, 3-D" in done.stdout
    assert "left out notes.txt: INSTANCE_UNREADABLE" in done.stderr


def test_a_folder_without_flair_is_refused_with_its_code_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    files = phantom.write_study(phantom.make_study(5, size="small"), tmp_path / "study")
    for path in files.paths["flair"]:
        path.unlink()
    done = neuroseg("segment", str(tmp_path / "study"), "-o", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "STUDY_SEQUENCE_MISSING" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_with_two_studies_is_refused(tmp_path: Path) -> None:
    for seed in (1, 2):
        phantom.write_study(phantom.make_study(seed, size="small"), tmp_path / "study" / str(seed))
    done = neuroseg("segment", str(tmp_path / "study"), "-o", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "STUDY_COUNT: the folder holds 2 studies, expected one" in done.stderr


def test_explain_and_segment_print_the_same_table(tmp_path: Path) -> None:
    phantom.write_study(phantom.make_study(5, size="small"), tmp_path / "study")
    told = neuroseg("explain", str(tmp_path / "study"))
    assert told.returncode == 0, told.stderr
    assert told.stderr == ""  # no progress line where nobody looks
    assert "WOULD RUN" in told.stdout
    done = neuroseg("segment", str(tmp_path / "study"), "-o", str(tmp_path / "out"))
    blocks = [set(_table(one.stdout)) for one in (told, done)]
    assert blocks[0] == blocks[1]
    assert len(blocks[0]) > 8


def _table(output: str) -> list[str]:
    """Return the lines of the series table without the numbers of the series."""
    lines = output.splitlines()
    start = next(index for index, line in enumerate(lines) if line.split()[:2] == ["#", "role"])
    block = lines[start:]
    end = next(index for index, line in enumerate(block) if line.startswith(("  WOULD", "model:")))
    return [line[4:] for line in block[:end]]


def test_the_doctor_names_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    more = (
        '[[destinations]]\nname = "away"\ntransport = "dimse"\nhost = "127.0.0.1"\n'
        f"port = {free_port()}\n"
    )
    done = neuroseg("doctor", "--json", "--config", str(config(tmp_path, more)))
    assert done.returncode == 1
    findings = {one["name"]: one for one in json.loads(done.stdout)}
    bad = [one for one in findings.values() if not one["ok"]]
    assert [one["name"] for one in bad] == ["destination away"]
    assert bad[0]["advice"]


def test_the_doctor_is_content_with_a_node_that_is_in_order(tmp_path: Path) -> None:
    done = neuroseg("doctor", "--config", str(config(tmp_path)))
    assert done.returncode == 0, done.stdout
    assert "FAIL" not in done.stdout


def test_a_wrong_configuration_ends_with_code_2_and_names_the_key(tmp_path: Path) -> None:
    path = config(tmp_path, "[delivery]\nmax_atempts = 3\n")
    done = neuroseg("serve", "--config", str(path))
    assert done.returncode == 2
    assert "delivery.max_atempts" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_absent_ledger_is_an_error_with_a_code_and_no_traceback(tmp_path: Path) -> None:
    done = neuroseg("cases", "--config", str(config(tmp_path)))
    assert done.returncode == 1
    assert "LEDGER_UNAVAILABLE" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.timeout(400)
def test_the_demonstration_ends_well_and_finds_the_tumour(tmp_path: Path) -> None:
    done = neuroseg("demo", "--once", "--folder", str(tmp_path / "demo"))
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "whole tumour" in line]
    assert float(line.split()[-1]) > 0.85
    assert "Status page: http://127.0.0.1:" in done.stdout


def test_a_demonstration_that_is_told_to_end_leaves_nothing_running(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "node", "demo", "--folder", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as demo:
        wait_until(lambda: list(tmp_path.glob("*/node.log")), 60, "the node to be started")
        assert len(running(tmp_path)) > 1
        demo.terminate()
        assert demo.wait(60) == 0
    assert running(tmp_path) == []


def running(folder: Path) -> list[str]:
    """Return the command lines of the processes that name a folder."""
    found = []
    for one in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(one.read_text(encoding="utf-8").replace("\0", " "))
    return [one for one in found if str(folder) in one]


def test_help_answers_for_every_command() -> None:
    top = neuroseg("--help").stdout
    for command in ("serve", "doctor", "echo", "cases", "explain", "segment", "demo"):
        assert command in top
        assert neuroseg(command, "--help").returncode == 0
    assert "..." not in top.partition("Commands:")[2]  # as where a line is cut


def test_a_node_without_its_model_does_not_start_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text(f"[spool]\npath = '{tmp_path}'\n[model]\nfolder = '{tmp_path / 'none'}'\n")
    done = neuroseg("serve", "--config", str(path))
    assert done.returncode == 1
    assert "MODEL_UNUSABLE" in done.stderr


@pytest.mark.parametrize("role", ["receive", "web"])
def test_a_port_that_is_taken_is_named_in_the_log(tmp_path: Path, role: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        path = config(tmp_path).read_text(encoding="utf-8").split(f"[{role}]")
        head, _, rest = path[1].lstrip().partition("\n")
        assert head.startswith("port")
        (tmp_path / "node.toml").write_text(f"{path[0]}[{role}]\nport = {port}\n{rest}")
        done = neuroseg("serve", "--role", role, "--config", str(tmp_path / "node.toml"))
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if "role.failed" in line]
    assert json.loads(line)["code"] == "ADDRESS_UNAVAILABLE"
    assert f"127.0.0.1:{port}" in json.loads(line)["sentence"]
