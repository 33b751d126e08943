"""Parameters out of a file of any supported kind; a pickle is read in a process with limits."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from inference import read_apart, tensor_files, unpickle
from inference.errors import ModelImportError

PATIENCE_S: Final = 120.0

_ROOT: Final = Path(read_apart.__file__).parents[1]
_PROGRAM: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); from inference import read_apart; "
    "read_apart.main(sys.argv[2], sys.argv[3])"
)
_MOST_BYTES: Final = 4 * unpickle.MOST_BYTES  # a checkpoint holds an optimiser's state beside it
# One thread: nothing to compute, and every thread of the algebra library reserves memory.
_ENVIRONMENT: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """What a file holds.

    Parameters
    ----------
    parameters : dict of Tensor
        Under the names of the file.
    kind : str
        ``pickle``, ``torchscript`` or ``safetensors``.
    place : str
        Under which key of the file the state dict stood; '' at its top.
    sha256 : str
        Digest of the file, lower-case hexadecimal.
    others : tuple of str
        Keys of the state dict that hold no tensor.
    inert : tuple of str
        Names of classes and functions in the pickle that were not called.
    facts : mapping of str to object
        What a checkpoint of nnU-Net says of itself; see `inference.unpickle`.
    """

    parameters: dict[str, Tensor]
    kind: str
    place: str
    sha256: str
    others: tuple[str, ...] = ()
    inert: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def read(source: Path) -> Checkpoint:
    """Return the parameters in a file: safetensors, or what torch saves, TorchScript included.

    Raises
    ------
    ModelImportError
        The file cannot be read, is neither, claims too much or is an attack.
    """
    is_pickle = source.suffix != ".safetensors"
    try:
        if source.stat().st_size > (_MOST_BYTES if is_pickle else unpickle.MOST_BYTES):
            raise ModelImportError(reason="the file is too large")
        digest = _digest(source)
    except OSError as error:
        raise ModelImportError(reason=f"it cannot be read ({type(error).__name__})") from error
    if not is_pickle:
        return Checkpoint(parameters=_tensors(source), kind="safetensors", place="", sha256=digest)
    with tempfile.TemporaryDirectory(prefix="neuroseg-import-") as place:
        target = Path(place) / "tensors.safetensors"
        report = _read_apart(source.resolve(), target)
        return Checkpoint(
            parameters=_tensors(target),
            kind="torchscript" if report["place"] == unpickle.PROGRAM else "pickle",
            place=str(report["place"]),
            sha256=digest,
            others=tuple(report["others"]),
            inert=tuple(report["inert"]),
            facts=report["facts"],
        )


def _digest(source: Path) -> str:
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        return tensor_files.tensors_of(file.read_bytes())
    except tensor_files.TensorFileError as error:
        raise ModelImportError(reason=str(error)) from error


def _read_apart(source: Path, target: Path) -> dict[str, Any]:
    """Run the reader as a process without this one's environment, and return its report."""
    command = [sys.executable, "-I", "-c", _PROGRAM, str(_ROOT), str(source), str(target)]
    try:
        done = subprocess.run(  # noqa: S603 - our own program; paths are absolute
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_ENVIRONMENT,
            cwd=target.parent,
            timeout=PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelImportError(reason=f"reading it took more than {PATIENCE_S:.0f} s") from error
    if done.returncode < 0:
        raise ModelImportError(reason="reading it needed more than a checkpoint of its size may")
    if done.returncode not in {0, read_apart.REFUSED}:
        raise ModelImportError(reason="it is damaged or no checkpoint")
    report: dict[str, Any] = json.loads(done.stdout)
    if "refused" in report:
        raise ModelImportError(reason=str(report["refused"]))
    return report
