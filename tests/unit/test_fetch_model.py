"""`scripts.fetch_model` with the real client of Weights & Biases and a stand-in for its server."""

from __future__ import annotations

import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias
from unittest import mock

import pytest
import torch

from inference import manifest
from scripts import fetch_model
from tests import checkpoints, wandb_server
from tests.waiting import wait_until
from tests.wandb_server import KEY, REFERENCE, Shelf

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def content() -> bytes:
    """Return a checkpoint."""
    buffer = io.BytesIO()
    torch.save(checkpoints.network().state_dict(), buffer)
    return buffer.getvalue()


@pytest.fixture
def shelf(content: bytes) -> Iterator[Shelf]:
    """Return what a running server has."""
    with wandb_server.serving(Shelf(files={"model.ckpt": content})) as shelf:
        yield shelf


@contextmanager
def environment(folder: Path, url: str, key: str = KEY) -> Iterator[dict[str, str]]:
    """Let the client write below a folder only; the key must be nowhere in what is left."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    changes = {"WANDB_BASE_URL": url, "WANDB_API_KEY": key, "HOME": str(home), "TMPDIR": str(home)}
    with mock.patch.dict(os.environ, changes), mock.patch.object(tempfile, "tempdir", None):
        yield dict(os.environ)
    assert not [path for path, content in files_below(folder) if key.encode() in content]


def files_below(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield what stands below a folder while a client that was given up may still tidy up."""
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            with suppress(FileNotFoundError):
                if path.is_file():
                    yield path, path.read_bytes()


def options_of(folder: Path, *more: str) -> list[str]:
    template = checkpoints.template(folder)
    options = ["--template", str(template), "--id", "unet", "--version", "1", *more]
    return [*options, "-o", str(folder / "unet")]


Fetch: TypeAlias = Callable[..., tuple[int, str]]


@pytest.fixture
def fetch(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Fetch:
    """Return a function that runs the script in this process: exit code and output."""

    def run(
        url: str, *more: str, reference: str = f"{REFERENCE}:v7", key: str = KEY
    ) -> tuple[int, str]:
        with environment(tmp_path, url, key):
            code = fetch_model.main([reference, *options_of(tmp_path, *more)])
        output = "".join(capfd.readouterr())
        assert key not in output
        return code, output

    return run


def test_an_artifact_becomes_a_model_with_its_provenance(tmp_path: Path, shelf: Shelf) -> None:
    reference = f"{REFERENCE}:latest"  # immutable by its digest
    options = options_of(tmp_path, "--digest", shelf.digest)
    with environment(tmp_path, shelf.url) as env:
        done = subprocess.run(
            [sys.executable, "-m", "scripts.fetch_model", reference, *options],
            env=env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    output = done.stdout + done.stderr
    assert (done.returncode, "loaded and tested" in output) == (0, True), output
    assert KEY not in output
    assert not list(files_below(tmp_path / "home"))
    found = manifest.load(tmp_path / "unet")
    assert found.provenance is not None
    assert found.provenance.source == f"wandb:{REFERENCE}:v7"
    assert found.provenance.digest is not None
    sha256, wandb = found.provenance.digest.split(", ")
    assert sha256.startswith("sha256:")
    assert wandb == f"wandb:{shelf.digest}"


def test_contents_that_differ_from_their_digest_are_refused(
    tmp_path: Path, shelf: Shelf, fetch: Fetch
) -> None:
    shelf.served = {"model.ckpt": shelf.files["model.ckpt"][:-1] + b"x"}
    code, output = fetch(shelf.url)
    assert code == fetch_model.OTHER_DIGEST, output
    assert not (tmp_path / "unet").exists()


def test_another_artifact_than_asked_for_is_refused(shelf: Shelf, fetch: Fetch) -> None:
    code, output = fetch(shelf.url, "--digest", "0" * 32)
    assert (code, f"is {shelf.digest}, expected 000" in output) == (6, True), output


@pytest.mark.parametrize(
    ("reference", "kind", "names", "words"),
    [
        (f"{REFERENCE}:v8", "model", ("model.ckpt",), "there is no artifact"),
        (f"{REFERENCE}:v7", "dataset", ("model.ckpt",), "type dataset, expected model"),
        (f"{REFERENCE}:v7", "model", ("readme.txt",), "has 0 files that could be a checkpoint"),
        (f"{REFERENCE}:v7", "model", ("a.ckpt", "b.pt"), "has 2 files"),
    ],
)
def test_what_is_no_single_model_is_refused(
    shelf: Shelf, fetch: Fetch, reference: str, kind: str, names: tuple[str, ...], words: str
) -> None:
    shelf.files, shelf.kind = dict.fromkeys(names, b"content"), kind
    code, output = fetch(shelf.url, reference=reference)
    assert (code, words in output) == (fetch_model.WRONG_ARTIFACT, True), output
    assert not [one for one in shelf.asked if one.startswith("/files")]


def test_a_file_elsewhere_is_not_fetched(shelf: Shelf, fetch: Fetch) -> None:
    shelf.references = {"other.ckpt": "file:///etc/hostname"}
    code, output = fetch(shelf.url)
    assert (code, "refers to files elsewhere" in output) == (5, True), output


def test_a_key_that_the_server_does_not_accept_is_said(shelf: Shelf, fetch: Fetch) -> None:
    code, output = fetch(shelf.url, key="0badc0de" * 5)
    assert (code, "does not accept the key" in output) == (fetch_model.NO_KEY, True), output


def test_a_server_that_is_slow_or_absent_is_given_up(shelf: Shelf, fetch: Fetch) -> None:
    shelf.delay_s = 6.0
    code, output = fetch(shelf.url, "--timeout", "2")
    assert (code, "no model within 2 s" in output) == (fetch_model.NO_ANSWER, True), output
    code, output = fetch("http://127.0.0.1:9", "--timeout", "4")
    assert code == fetch_model.NO_ANSWER, output


def test_a_client_that_is_killed_is_said(shelf: Shelf, fetch: Fetch) -> None:
    def kill() -> None:
        wait_until(lambda: shelf.asked, 60, "the client to ask")
        multiprocessing.active_children()[0].kill()

    shelf.delay_s = 20.0
    with ThreadPoolExecutor() as beside:
        killing = beside.submit(kill)
        code, output = fetch(shelf.url)
        killing.result()
    assert (code, "the client ended with -9" in output) == (fetch_model.NO_ANSWER, True), output


def test_an_import_that_is_refused_says_why(tmp_path: Path, shelf: Shelf, fetch: Fetch) -> None:
    buffer = io.BytesIO()
    torch.save({"other": torch.ones(3)}, buffer)
    shelf.files = {"model.pt": buffer.getvalue()}
    code, output = fetch(shelf.url)
    assert (code, "MODEL_IMPORT_REFUSED" in output) == (fetch_model.REFUSED, True), output
    assert not (tmp_path / "unet").exists()


# -- before anything is asked ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("name:v7", "not of the form"),
        ("a/b/c", "not of the form"),
        ("a/b/c/d:v7", "not of the form"),
        ("a/b/c:latest", "may be another artifact tomorrow"),
        ("a/b/c:best", "may be another artifact tomorrow"),
        ("a/b/c:v7a", "may be another artifact tomorrow"),
    ],
)
def test_a_reference_must_be_whole_and_immutable(reference: str, words: str) -> None:
    with pytest.raises(fetch_model.FetchError, match=words) as caught:
        fetch_model.Wanted(reference=reference)
    assert caught.value.exit_code == fetch_model.BAD_REFERENCE


def test_the_key_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert fetch_model.api_key({"WANDB_API_KEY": "other"}, file) == KEY
    assert fetch_model.api_key({"WANDB_API_KEY": KEY}, None) == KEY
    for environment, source in (({}, None), ({"WANDB_API_KEY": " "}, None), ({}, tmp_path)):
        with pytest.raises(fetch_model.FetchError, match="key") as caught:
            fetch_model.api_key(environment, source)
        assert caught.value.exit_code == fetch_model.NO_KEY


def test_the_exit_codes_are_told_apart_and_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fetch_model.main(["--help"])
    shown = capsys.readouterr().out
    codes = [fetch_model.NO_KEY, fetch_model.BAD_REFERENCE, fetch_model.WRONG_ARTIFACT]
    codes += [fetch_model.OTHER_DIGEST, fetch_model.NO_ANSWER, fetch_model.REFUSED]
    assert codes == list(range(3, 9))
    assert all(f"\n  {code}  " in shown for code in codes)
    assert fetch_model.main(["a/b/c:latest", "--id", "a", "-o", "x"]) == 4
    assert "tomorrow" in capsys.readouterr().err
