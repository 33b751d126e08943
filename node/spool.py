"""Files: written under a temporary name, synced, renamed, and their folder synced.

Layout below the spool's root; every name is our own, none comes from a peer::

    incoming/<uuid>.part                      being written, swept at start
    instances/<study key>/<instance key>.dcm  as received
    cases/<case id>/                          volumes, label map, SEG, preview
    predictions/<prediction id>/              an uploaded file and its answer
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from node.errors import SpoolFullError

_REMEMBERED_FOLDERS = 1000  # one more sync now and then, instead of a list that grows for ever


def _key(uid: str, length: int) -> str:
    return hashlib.sha256(uid.encode("utf-8", "surrogateescape")).hexdigest()[:length]


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Spool:
    """The node's folder.

    Parameters
    ----------
    root : Path
        Created with its sub-folders when absent.
    free_floor_bytes : int
        `check_space` refuses below it.
    """

    def __init__(self, root: Path, *, free_floor_bytes: int = 0) -> None:
        self.root = root.absolute()
        self.free_floor_bytes = free_floor_bytes
        self._incoming = self.root / "incoming"
        self._durable_folders: set[Path] = set()
        self._predictions = self.root / "predictions"
        for folder in (
            *(self._incoming, self._predictions),
            *(self.root / "instances", self.root / "cases"),
        ):
            folder.mkdir(parents=True, exist_ok=True)
        sync_folder(self.root)

    def free_bytes(self) -> int:
        """Return the bytes that are free for us on the spool's file system."""
        return shutil.disk_usage(self.root).free

    def check_space(self, wanted_bytes: int = 0) -> None:
        """Raise `SpoolFullError` when less than the floor would be free beside what is wanted."""
        free = self.free_bytes() - wanted_bytes
        if free < self.free_floor_bytes:
            raise SpoolFullError(free_bytes=free, floor_bytes=self.free_floor_bytes)

    def new_part(self) -> Path:
        """Return a fresh temporary name; the file does not exist yet."""
        return self._incoming / f"{uuid.uuid4().hex}.part"

    def sweep_parts(self) -> int:
        """Delete what an earlier process left half written; return how many files.

        Only the receiver calls it, before it listens: nothing unacknowledged is worth keeping.
        """
        parts = list(self._incoming.glob("*.part"))
        for part in parts:
            part.unlink(missing_ok=True)
        return len(parts)

    def keep_instance(
        self, part: Path, *, study_instance_uid: str, sop_instance_uid: str, sha256: str
    ) -> str:
        """Make a complete and synced temporary file an instance; return its relative path.

        The digest is part of the name, so that another content never replaces this one.
        """
        relative = (
            Path("instances")
            / _key(study_instance_uid, 16)
            / f"{_key(sop_instance_uid, 32)}-{sha256[:16]}.dcm"
        )
        final = self.root / relative
        self._ensure_folder(final.parent)
        part.rename(final)
        sync_folder(final.parent)
        return str(relative)

    def instance_path(self, relative: str) -> Path:
        """Return where an instance of the ledger lies."""
        return self.root / relative

    def case_folder(self, case_id: str) -> Path:
        """Return the folder of a case, created when absent."""
        folder = self.root / "cases" / case_id
        self._ensure_folder(folder)
        return folder

    def prediction_folder(self, prediction_id: str) -> Path:
        """Return the folder of a prediction; it exists while the prediction has files."""
        return self._predictions / prediction_id

    def new_prediction_folder(self, prediction_id: str) -> Path:
        """Make the folder of a prediction, durably."""
        folder = self.prediction_folder(prediction_id)
        folder.mkdir()
        sync_folder(self._predictions)
        return folder

    def rename_durably(self, path: Path, name: str) -> None:
        """Give a file its final name in its folder."""
        path.rename(path.with_name(name))
        sync_folder(path.parent)

    def prediction_ids(self) -> list[str]:
        """Return the predictions that have a folder."""
        return sorted(folder.name for folder in self._predictions.iterdir())

    def drop_prediction(self, prediction_id: str) -> None:
        """Delete a prediction's files; what is written into the folder meanwhile may stay."""
        shutil.rmtree(self.prediction_folder(prediction_id), ignore_errors=True)

    def _ensure_folder(self, folder: Path) -> None:
        """Make a folder whose name is durable.

        That it exists says nothing: whoever made it may have died before the sync.
        """
        if folder in self._durable_folders and folder.exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)
        if len(self._durable_folders) >= _REMEMBERED_FOLDERS:
            self._durable_folders.clear()
        self._durable_folders.add(folder)

    def sweep_case(self, case_id: str) -> None:
        """Delete what a dead process left half written in a case's folder."""
        for part in (self.root / "cases" / case_id).glob(".*.part*"):
            part.unlink(missing_ok=True)

    def publish(self, final: Path, write: Callable[[Path], object]) -> None:
        """Have `write` fill a temporary file beside `final`, then sync and rename it.

        The temporary name keeps the suffixes, since libraries choose formats by them. A file that
        stands there afterwards is whole, whenever the process dies.
        """
        part = final.with_name(f".{uuid.uuid4().hex}.part{''.join(final.suffixes)}")
        try:
            write(part)
            with part.open("rb") as handle:
                os.fsync(handle.fileno())
            part.rename(final)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(final.parent)
