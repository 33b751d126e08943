"""Download a trained model from Weights & Biases and make a model folder of it.

For the build of an image or by hand, never when the node starts. The reference must be one that
cannot change: a version such as `:v7`, or an alias together with the artifact's digest.

What went wrong is told by the exit code; `--help` lists them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, Never

from converters.errors import CodedError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from wandb import Api, Artifact

NO_KEY: Final = 3
BAD_REFERENCE: Final = 4
WRONG_ARTIFACT: Final = 5
OTHER_DIGEST: Final = 6
NO_ANSWER: Final = 7
REFUSED: Final = 8

_KEY: Final = "WANDB_API_KEY"
_REFERENCE: Final = re.compile(r"(?P<name>(?:[\w.-]+/){2}[\w.-]+):(?P<version>[\w.-]+)", re.ASCII)
_IMMUTABLE: Final = re.compile(r"v\d+")
_CHECKPOINTS: Final = (".ckpt", ".pt", ".pth", ".ts", ".safetensors")
_FOLDERS: Final = ("plans.json", "configs/metadata.json")  # nnU-Net's result, MONAI bundle
_TYPE: Final = "model"
_PATIENCE_S: Final = 900
_REQUEST_S: Final = 30
_HELP: Final = """\
exit codes:
  0  the model folder is written and tested
  2  wrong usage
  3  no key, or one that the server does not accept
  4  the reference is none, or could mean another artifact tomorrow
  5  the artifact is absent, no model, or has no or several checkpoints
  6  what was downloaded has another digest
  7  the server cannot be reached, fails or took too long
  8  the import was refused

The key is read from WANDB_API_KEY or a file and is never shown. WANDB_BASE_URL names a server of
your own. Nothing stays behind but the model folder.

example:
  python -m scripts.fetch_model brats/unet/model-326li7z2:v19 --template msd-unet \\
      --id brats-unet --version 1.0.0 -o models/brats-unet
"""


class FetchError(Exception):
    """Why there is no model; `exit_code` is one of those above."""

    def __init__(self, exit_code: int, reason: str) -> None:
        super().__init__(exit_code, reason)
        self.exit_code = exit_code
        self.reason = reason

    def __str__(self) -> str:
        """Return the sentence."""
        return self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be fetched.

    Parameters
    ----------
    reference : str
        ``entity/project/name:version``.
    digest : str, optional
        Of the artifact, as the server shows it.
    """

    reference: str
    digest: str | None = None

    def __post_init__(self) -> None:
        found = _REFERENCE.fullmatch(self.reference)
        if found is None:
            raise FetchError(
                BAD_REFERENCE, "the reference is not of the form entity/project/name:v7"
            )
        if self.digest is None and not _IMMUTABLE.fullmatch(found["version"]):
            raise FetchError(
                BAD_REFERENCE,
                f"{found['version']} may be another artifact tomorrow; name a version such as v7, "
                "or say the artifact's --digest",
            )


def api_key(environment: Mapping[str, str], file: Path | None) -> str:
    """Return the key, from a file or the environment.

    Raises
    ------
    FetchError
        There is none.
    """
    try:
        found = environment.get(_KEY, "") if file is None else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FetchError(
            NO_KEY, f"the file of the key cannot be read ({type(error).__name__})"
        ) from error
    if not (key := found.strip()):
        raise FetchError(NO_KEY, f"there is no key; set {_KEY} or say --api-key-file")
    return key


def fetch(wanted: Wanted, key: str, folder: Path) -> tuple[Path, str, str]:
    """Download an artifact into an empty folder.

    Returns
    -------
    tuple of Path, str and str
        The checkpoint or folder to import; the artifact's immutable reference; its digest.

    Raises
    ------
    FetchError
        It is not there, not what was asked for, or did not arrive.
    """
    import wandb  # noqa: PLC0415 - takes two seconds, which `--help` can do without

    with _translated(wandb.errors.AuthenticationError, wandb.errors.CommError):
        artifact = _found(wandb.Api(timeout=_REQUEST_S, api_key=key), wanted)
        source = _checkpoint(artifact)
        artifact.download(root=str(folder), skip_cache=True)
    try:
        artifact.verify(str(folder))
    except ValueError as error:
        raise FetchError(
            OTHER_DIGEST, "a downloaded file has another digest than the artifact's manifest says"
        ) from error
    name = wanted.reference.rpartition(":")[0]
    return folder / source, f"wandb:{name}:{artifact.version}", artifact.digest


@contextmanager
def _translated(no_key: type[Exception], no_answer: type[Exception]) -> Iterator[None]:
    """Turn the client's errors into ours; their texts may quote a request and are not shown."""
    import requests  # noqa: PLC0415 - with the client

    try:
        yield
    except no_key as error:
        raise FetchError(NO_KEY, "the server does not accept the key") from error
    except (no_answer, requests.RequestException, OSError, TimeoutError) as error:
        raise FetchError(
            NO_ANSWER, f"the server cannot be reached or fails ({type(error).__name__})"
        ) from error


def _found(api: Api, wanted: Wanted) -> Artifact:
    """Return the artifact, once it is the one that was asked for."""
    from wandb.errors import CommError  # noqa: PLC0415 - with the client

    try:
        artifact: Artifact = api.artifact(wanted.reference)
    except CommError as error:
        if not isinstance(error.exc, ValueError):  # how the client says that there is none
            raise
        raise FetchError(
            WRONG_ARTIFACT, f"there is no artifact {wanted.reference}, or the key may not see it"
        ) from error
    if artifact.type != _TYPE:
        raise FetchError(
            WRONG_ARTIFACT, f"the artifact is of the type {artifact.type}, expected {_TYPE}"
        )
    if wanted.digest is not None and artifact.digest != wanted.digest:
        raise FetchError(
            OTHER_DIGEST, f"the artifact's digest is {artifact.digest}, expected {wanted.digest}"
        )
    if artifact.manifest.digest() != artifact.digest:
        raise FetchError(OTHER_DIGEST, "the artifact's list of files has another digest than it")
    return artifact


def _checkpoint(artifact: Artifact) -> PurePosixPath:
    """Return which of an artifact's files is the checkpoint; '.' where it is a whole folder."""
    entries = artifact.manifest.entries
    for name, entry in entries.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or entry.ref is not None:
            raise FetchError(
                WRONG_ARTIFACT, "the artifact refers to files elsewhere instead of holding them"
            )
    if any(name in entries for name in _FOLDERS):
        return PurePosixPath()
    found = sorted(name for name in entries if PurePosixPath(name).suffix in _CHECKPOINTS)
    if len(found) != 1:
        raise FetchError(
            WRONG_ARTIFACT,
            f"the artifact has {len(found)} files that could be a checkpoint "
            f"({', '.join(_CHECKPOINTS)}), expected one",
        )
    return PurePosixPath(found[0])


def _in_time(wanted: Wanted, key: str, folder: Path, seconds: int) -> tuple[Path, str, str]:
    """Fetch in a process of its own, which can be ended whatever the client waits for."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_tell, args=(there, wanted, key, folder), daemon=True)
    child.start()
    there.close()
    try:
        if not here.poll(seconds):
            raise FetchError(NO_ANSWER, f"no model within {seconds} s; see --timeout")
        found: tuple[Path, str, str] | FetchError = here.recv()
    except EOFError:
        child.join()
        raise FetchError(
            NO_ANSWER, f"the client ended with {child.exitcode} before it had the artifact"
        ) from None
    finally:
        child.kill()
        child.join()
    if isinstance(found, FetchError):
        raise found
    return found


def _tell(
    to: Connection[tuple[Path, str, str] | FetchError, Never],
    wanted: Wanted,
    key: str,
    folder: Path,
) -> None:
    """Send what was fetched, or why nothing was."""
    try:
        to.send(fetch(wanted, key, folder))
    except FetchError as error:
        to.send(error)


def _seal(environment: MutableMapping[str, str], key: str, place: Path) -> None:
    """Keep the client quiet and everything that it writes in a place that is removed."""
    (place / "home").mkdir()
    for name in ("DIR", "CACHE_DIR", "CONFIG_DIR", "DATA_DIR", "ARTIFACT_DIR"):
        environment[f"WANDB_{name}"] = str(place / "home")
    environment.pop("WANDB_DEBUG", None)
    environment.update(WANDB_SILENT="true", WANDB_ERROR_REPORTING="false", WANDB_API_KEY=key)


def run(options: argparse.Namespace, environment: MutableMapping[str, str]) -> None:
    """Fetch and import a model.

    Raises
    ------
    FetchError
        There is no model.
    """
    wanted = Wanted(reference=options.reference, digest=options.digest)
    key = api_key(environment, options.api_key_file)
    with tempfile.TemporaryDirectory(prefix="neuroseg-fetch-") as place:
        _seal(environment, key, Path(place))
        files = Path(place) / "files"
        source, name, digest = _in_time(wanted, key, files, options.timeout)
        _import(source, options, name, digest)
    print(f"{options.id}: {name} with the digest {digest} is in {options.out}, loaded and tested")


def _import(source: Path, options: argparse.Namespace, name: str, digest: str) -> None:
    from inference import importing  # noqa: PLC0415 - torch takes seconds, a refusal need not

    identity = importing.Identity(
        model_id=options.id,
        version=options.version,
        source_name=name,
        source_digest=f"wandb:{digest}",
    )
    try:
        template = importing.template_file(options.template) if options.template else None
        importing.import_model(
            source, options.out, template, identity=identity, prefix=options.prefix
        )
    except CodedError as error:
        raise FetchError(REFUSED, f"{error.code}: {error}") from error


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        prog="fetch_model",
        description="Download a trained model from Weights & Biases and make a model folder of it.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("reference", metavar="ENTITY/PROJECT/NAME:vN", help="the artifact")
    made.add_argument("--digest", help="of the artifact; needed where the version is an alias")
    made.add_argument("--template", metavar="NAME|FILE", help="see neuroseg model import --help")
    made.add_argument("--id", required=True, help="of the model: small letters, digits, hyphens")
    made.add_argument("--version", help="of the model, such as 1.0.0")
    made.add_argument("--prefix", help="which network of the checkpoint, where several fit")
    made.add_argument("--api-key-file", type=Path, metavar="FILE", help=f"instead of {_KEY}")
    made.add_argument(
        "--timeout", type=int, default=_PATIENCE_S, metavar="S", help="default: %(default)s"
    )
    made.add_argument(
        "-o", "--out", required=True, type=Path, metavar="FOLDER", help="must not exist"
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = parser().parse_args(arguments)
    try:
        run(options, os.environ)
    except FetchError as error:
        print(f"fetch_model: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
