"""Copy the tensors of a checkpoint into a safetensors file, in a process with limits.

`inference.checkpoints` runs `main` in a process of its own, which imports nothing of the project
but the two modules of this job.
"""

from __future__ import annotations

import json
import pickle
import resource
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from inference import unpickle
from inference.unpickle import ITEM_BYTES, MOST_BYTES, Claim, RefusedError

REFUSED: Final = 3
"""Exit code with which a reason is printed."""

_MIB: Final = 1024**2
_MOST_PICKLE_BYTES: Final = 64 * _MIB
_MEMORY_BYTES: Final = 1024 * _MIB  # of address space, beside the size of the file
_CPU_S: Final = 60
_OPEN_FILES: Final = 16
_FORBIDDEN_EVENTS: Final = ("os.", "subprocess.", "socket.", "ctypes.", "pty.", "shutil.")


class Archive:
    """The zip file that ``torch.save`` writes: a pickle, and one stored entry per storage."""

    def __init__(self, file: BinaryIO) -> None:
        try:
            self._zip = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise RefusedError(
                "it is no checkpoint of torch 1.6 or later; save it again with a present torch"
            ) from error
        names = self._zip.namelist()
        roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise RefusedError("it is a zip file, but no checkpoint")
        self._root = roots[0]
        if f"{self._root}byteorder" in names and self._read("byteorder", _MIB) != b"little":
            raise RefusedError("its numbers are big-endian")

    def content(self) -> tuple[object, frozenset[str]]:
        """Return what the pickle describes, and the names in it that were left inert."""
        with self._zip.open(self._entry("data.pkl", _MOST_PICKLE_BYTES)) as file:
            reader = unpickle.Unpickler(file)  # type: ignore[arg-type] # typeshed wants more than is read
            return reader.load(), frozenset(reader.inert)

    def values(self, claim: Claim) -> NDArray[Any]:
        """Return the elements of a tensor, contiguous, as unsigned integers of their width."""
        width = ITEM_BYTES.get(claim.storage.dtype, 1)
        content = np.frombuffer(self._read(f"data/{claim.storage.key}", MOST_BYTES), f"<u{width}")
        if claim.count == 0:
            return content[:0]
        steps = zip(claim.shape, claim.strides, strict=True)
        last = claim.offset + sum((extent - 1) * stride for extent, stride in steps)
        if last >= content.size or claim.count > content.size:
            raise RefusedError("a tensor in it claims more numbers than there are")
        strides = [width * stride for stride in claim.strides]
        view = np.lib.stride_tricks.as_strided(content[claim.offset :], claim.shape, strides)
        return np.ascontiguousarray(view)

    def _read(self, name: str, most_bytes: int) -> bytes:
        return self._zip.read(self._entry(name, most_bytes))

    def _entry(self, name: str, most_bytes: int) -> zipfile.ZipInfo:
        try:
            entry = self._zip.getinfo(self._root + name)
        except KeyError as error:
            raise RefusedError("a part of it is missing") from error
        # torch stores; only a bomb is compressed.
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > most_bytes:
            raise RefusedError("a part of it is compressed or too large")
        return entry


def write_safetensors(archive: Archive, tensors: Mapping[str, Claim], file: BinaryIO) -> None:
    """Write tensors as the safetensors format wants them: a header in JSON, then the numbers."""
    header: dict[str, object] = {}
    end = 0
    for key, claim in tensors.items():
        start, end = end, end + claim.byte_count
        header[key] = {
            "dtype": claim.storage.dtype,
            "shape": claim.shape,
            "data_offsets": (start, end),
        }
    text = json.dumps(header).encode("ascii")
    file.write(len(text).to_bytes(8, "little") + text)
    for claim in tensors.values():
        file.write(archive.values(claim).tobytes())


# -- the process ----------------------------------------------------------------------------------


def lock_down(source_bytes: int) -> None:
    """Take from this process what reading does not need; there is no way back.

    The limits hold a checkpoint that claims too much; the hook would stop one that got to run
    something after all.
    """
    limits = {
        resource.RLIMIT_AS: _MEMORY_BYTES + 2 * source_bytes,
        resource.RLIMIT_CPU: _CPU_S,
        resource.RLIMIT_FSIZE: MOST_BYTES + 64 * _MIB,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
        resource.RLIMIT_NPROC: 0,
    }
    for limit, most in limits.items():
        hard = resource.getrlimit(limit)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (least, least))
    sys.addaudithook(_forbid)


def _forbid(event: str, _arguments: tuple[object, ...]) -> None:
    if event.startswith(_FORBIDDEN_EVENTS):
        raise PermissionError(event)


def main(source: str, target: str) -> None:
    """Write the tensors of a checkpoint to a safetensors file and print what it was."""
    with Path(source).open("rb") as file, Path(target).open("xb") as out:
        lock_down(Path(source).stat().st_size)
        try:
            archive = Archive(file)
            content, inert = archive.content()
            place, tensors, others = unpickle.state_of(content)
            write_safetensors(archive, tensors, out)
        except RefusedError as refusal:
            _refuse(str(refusal))
        except (MemoryError, RecursionError):
            _refuse("it claims more memory than a checkpoint of its size needs")
        except (pickle.UnpicklingError, zipfile.BadZipFile, EOFError, ValueError, TypeError):
            _refuse("it is damaged")
    report = {
        "place": place,
        "others": others[: unpickle.MOST_NAMES],
        "inert": sorted(inert),
        "facts": unpickle.facts_of(content),
    }
    sys.stdout.write(json.dumps(report))


def _refuse(reason: str) -> NoReturn:
    sys.stdout.write(json.dumps({"refused": reason}))
    sys.exit(REFUSED)
