"""Results of a case as a folder of files, on a disk or a share that is there already.

The folder of a case is filled under a hidden name beside its own, synced, and renamed, so that it
is there whole or not at all. What stands there is never replaced.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from node.cases import DeliveryReceipt, EncodedObject
from node.deliver.receipt import receipt_of
from node.errors import FolderUnavailableError
from node.peers import Destination
from node.spool import sync_folder

STORED: Final = "stored"
"""Status of a receipt; HTTP and DIMSE have their own."""

_UNSYNCED: Final = {errno.EINVAL, errno.ENOTSUP}
"""What network file systems answer that cannot sync a folder."""


def place(
    objects: Sequence[EncodedObject], files: Sequence[Path], destination: Destination
) -> None:
    """Put the files of one case where the destination wants them, all at once.

    Parameters
    ----------
    objects : sequence of EncodedObject
        What the files hold of DICOM, at least one; `send` then proves that each is there.
    files : sequence of Path
        Objects and what goes with them, by the names that they shall have.
    destination : Destination
        With the transport ``folder``.

    Raises
    ------
    FolderUnavailableError
        The folder is not there (a share that is not mounted), full, or cannot be written.
    """
    with _translated(destination):
        root = _root(destination)
        final = root / objects[0].case_id
        _sweep(root, final.name)
        missing = [one for one in files if not (final / one.name).exists()]
        if final.is_dir():  # by an attempt before; what it did not want then is added
            for one in missing:
                _add(one, final)
        else:
            _make(final, missing)


def send(
    seg: EncodedObject,
    file: Path,
    destination: Destination,
    *,
    calling_ae_title: str,  # noqa: ARG001 - the signature that all transports share
    attempt: int,
) -> DeliveryReceipt:
    """Return the receipt of an object that `place` put there, now or in an attempt before.

    Parameters
    ----------
    seg, file, destination, calling_ae_title, attempt
        As for the other transports; the AE title is not used.

    Raises
    ------
    FolderUnavailableError
        It is not there, or not whole.
    """
    with _translated(destination):
        there = _root(destination) / seg.case_id / file.name
        if there.stat().st_size != seg.byte_count:
            raise FolderUnavailableError(
                destination=destination.name, reason="a file there is not whole"
            )
    return receipt_of(seg, destination, STORED, attempt)


def echo(
    destination: Destination,
    *,
    calling_ae_title: str,  # noqa: ARG001 - the signature that all transports share
) -> None:
    """Write into the folder and delete it again.

    Raises
    ------
    FolderUnavailableError
        As for `place`.
    """
    with (
        _translated(destination),
        tempfile.NamedTemporaryFile(dir=_root(destination), prefix=".neuroseg-") as probe,
    ):
        probe.write(b"neuroseg")
        probe.flush()
        os.fsync(probe.fileno())


@contextmanager
def _translated(destination: Destination) -> Iterator[None]:
    """Let what the system says leave as our error, free of paths."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else "cannot be used"
        raise FolderUnavailableError(destination=destination.name, reason=reason) from error


def _root(destination: Destination) -> Path:
    """Return the destination's folder, which is never made: a share may lie there tomorrow."""
    root = Path(destination.path)
    if not root.is_dir():
        raise FolderUnavailableError(destination=destination.name, reason="no such folder")
    return root


def _make(final: Path, files: Sequence[Path]) -> None:
    part = _part_of(final)
    part.mkdir()
    try:
        for one in files:
            _copy(one, part / one.name)
        _sync(part)
        part.rename(final)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    _sync(final.parent)


def _add(file: Path, final: Path) -> None:
    part = _part_of(final / file.name)
    try:
        _copy(file, part)
        part.rename(final / file.name)
    finally:
        part.unlink(missing_ok=True)
    _sync(final)


def _part_of(final: Path) -> Path:
    return final.with_name(f".{final.name}-{uuid.uuid4().hex}.part")


def _copy(file: Path, to: Path) -> None:
    shutil.copyfile(file, to)
    with to.open("rb") as handle:
        os.fsync(handle.fileno())


def _sync(folder: Path) -> None:
    try:
        sync_folder(folder)
    except OSError as error:
        if error.errno not in _UNSYNCED:
            raise


def _sweep(root: Path, name: str) -> None:
    """Delete what a dead process left of this case.

    It is renamed first: whoever still works on it after all then fails, instead of giving a half
    empty folder its name.
    """
    for part in root.glob(f".{name}-*.part"):
        gone = part.with_suffix(".gone")
        part.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
