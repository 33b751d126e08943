"""Files: written under a temporary name, synced, renamed, and their folder synced.

Layout below the spool's root; every name is our own, none comes from a peer::

    incoming/<random>.part                    being written, swept at start; the web role's own
                                              names begin with stow-, of a pull with pull-
    instances/<study key>/<instance key>.dcm  as received; no such name is ever used twice
    cases/<case id>/                          volumes, label map, SEG, preview
    predictions/<prediction id>/              an uploaded file and its answer
    quarantine/                               what belongs to nothing, each with its reason beside
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from node.errors import SpoolFullError, SpoolQuotaError

INSTANCES, CASES, QUARANTINE = "instances", "cases", "quarantine"
STOWED: Final = "stow-"
PULLED: Final = "pull-"
_ABANDONED_S: Final = 3600.0
_REMEMBERED_FOLDERS = 1000  # one more sync now and then, instead of a list that grows for ever


def _key(uid: str, length: int) -> str:
    return hashlib.sha256(uid.encode("utf-8", "surrogateescape")).hexdigest()[:length]


def _file_bytes(entry: os.DirEntry[str]) -> int:
    """Return the size of a file, -1 for anything else."""
    return entry.stat().st_size if entry.is_file(follow_symlinks=False) else -1


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
    quota_bytes : int
        `check_space` refuses above it; 0: no quota.
    """

    def __init__(self, root: Path, *, free_floor_bytes: int = 0, quota_bytes: int = 0) -> None:
        self.root = root.absolute()
        self.free_floor_bytes = free_floor_bytes
        self.quota_bytes = quota_bytes
        self.used_bytes: Callable[[], int] = lambda: 0  # `node.space` knows
        self._incoming = self.root / "incoming"
        self._durable_folders: set[Path] = set()
        self._predictions = self.root / "predictions"
        for folder in (
            *(self._incoming, self._predictions),
            *(self.root / INSTANCES, self.root / CASES, self.root / QUARANTINE),
        ):
            folder.mkdir(parents=True, exist_ok=True)
        sync_folder(self.root)

    def free_bytes(self) -> int:
        """Return the bytes that are free for us on the spool's file system."""
        return shutil.disk_usage(self.root).free

    def check_space(self, wanted_bytes: int = 0) -> None:
        """Refuse what would leave less than the floor free, or exceed the quota.

        Raises
        ------
        SpoolFullError
            As one of it, `SpoolQuotaError`, where it is the quota.
        """
        free = self.free_bytes() - wanted_bytes
        if free < self.free_floor_bytes:
            raise SpoolFullError(free_bytes=free, floor_bytes=self.free_floor_bytes)
        if not self.quota_bytes:
            return
        used = self.used_bytes() + wanted_bytes
        if used >= self.quota_bytes:
            raise SpoolQuotaError(used_bytes=used, quota_bytes=self.quota_bytes)

    def has_space(self, wanted_bytes: int = 0) -> bool:
        """Say whether `check_space` would let something in."""
        try:
            self.check_space(wanted_bytes)
        except SpoolFullError:
            return False
        return True

    def new_part(self, door: str = "") -> Path:
        """Return a fresh temporary name; the file does not exist yet."""
        return self._incoming / f"{door}{secrets.token_hex(16)}.part"

    def sweep_stowed(self) -> None:
        """Delete what an earlier web process left half written."""
        for part in self._incoming.glob(f"{STOWED}*.part"):
            part.unlink(missing_ok=True)

    def instance_name(self, *, study_instance_uid: str, sop_instance_uid: str, sha256: str) -> str:
        """Return a relative path for an instance that no file has or ever had.

        So whoever deletes a file by its name never meets one that arrived meanwhile.
        """
        name = f"{_key(sop_instance_uid, 32)}-{sha256[:16]}-{secrets.token_hex(4)}.dcm"
        return f"{INSTANCES}/{_key(study_instance_uid, 16)}/{name}"

    def keep_instance(self, part: Path, relative: str) -> Path:
        """Make a complete and synced temporary file an instance; return its folder, not synced."""
        final = self.root / relative
        folder = final.parent
        if folder not in self._durable_folders:
            self._ensure_folder(folder)
        try:
            os.rename(part, final)  # noqa: PTH104 - makes no path of it, which takes as long
        except FileNotFoundError:  # a purge has removed the empty folder
            self._ensure_folder(folder)
            part.rename(final)
        return folder

    def instance_path(self, relative: str) -> Path:
        """Return where an instance of the ledger lies."""
        return self.root / relative

    def case_folder(self, case_id: str) -> Path:
        """Return the folder of a case, created when absent."""
        folder = self.root / CASES / case_id
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

    # -- what lies there ---------------------------------------------------------------------

    def parts(self, *, older_than_s: float = 0.0) -> list[Path]:
        """Return what was left half written, here and in the folders of cases.

        There, by STOW-RS and by a pull, other processes may be writing at this moment, so that
        only what nobody has touched for an hour is left over.
        """
        abandoned_s = max(older_than_s, _ABANDONED_S)
        found = [
            (one, abandoned_s if one.name.startswith((STOWED, PULLED)) else older_than_s)
            for one in self._incoming.glob("*.part")
        ]
        in_cases = (self.root / CASES).glob("*/.*.part*")
        found += [(one, abandoned_s) for one in in_cases]
        return [one for one, age_s in found if self.age_s(one) >= age_s]

    @staticmethod
    def age_s(path: Path) -> float:
        """Return the time since a file was written to; less than nothing when it is gone."""
        try:
            return time.time() - path.stat().st_mtime
        except FileNotFoundError:
            return -1.0

    def instance_files(self) -> Iterator[tuple[str, int]]:
        """Yield relative path and size of whatever lies where instances do; -1 for no file."""
        for study in os.scandir(self.root / INSTANCES):
            relative = f"{INSTANCES}/{study.name}"
            if not study.is_dir(follow_symlinks=False):
                yield relative, _file_bytes(study)
                continue
            for one in os.scandir(study):
                with suppress(FileNotFoundError):
                    yield f"{relative}/{one.name}", _file_bytes(one)

    def case_ids(self) -> list[str]:
        """Return the names in the folder of the cases."""
        return [one.name for one in os.scandir(self.root / CASES)]

    def case_bytes(self, case_id: str) -> int:
        """Return how much a case's folder holds."""
        total = 0
        with suppress(FileNotFoundError, NotADirectoryError):
            for one in os.scandir(self.root / CASES / case_id):
                with suppress(FileNotFoundError):
                    total += one.stat().st_size
        return total

    def working_files(self, case_id: str) -> list[str]:
        """Return the relative paths of the volumes that a case's result was worked out with."""
        folder = self.root / CASES / case_id
        found = [*folder.glob("*.nii"), *folder.glob("channels.nii.gz")]
        return [str(one.relative_to(self.root)) for one in found]

    # -- what goes ---------------------------------------------------------------------------

    def quarantine(self, relative: str, *, code: str, reason: str) -> None:
        """Put away what belongs to nothing, with the reason in a file beside it."""
        path, folder = self.root / relative, self.root / QUARANTINE
        name = f"{uuid.uuid4().hex[:8]}-{relative.replace('/', '-')}"
        note = {"path": relative, "code": code, "reason": reason, "at": time.time()}
        text = json.dumps(note, indent=1)
        self.publish(folder / f"{name}.json", lambda part: part.write_text(text, encoding="utf-8"))
        path.rename(folder / name)
        for changed in (folder, path.parent):
            sync_folder(changed)

    def delete(self, relatives: Iterable[str]) -> None:
        """Delete files and folders durably; what is gone already is none."""
        folders = set()
        for relative in relatives:
            path = self.root / relative
            folders.add(path.parent)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        for folder in folders:
            with suppress(FileNotFoundError):
                sync_folder(folder)
            if folder.parent == self.root / INSTANCES:
                with suppress(OSError):  # other instances of the study are there
                    folder.rmdir()

    def sweep_case(self, case_id: str) -> None:
        """Delete what a dead process left half written in a case's folder.

        What one that lives is writing, or has stopped in the middle of, is locked and left to it.
        """
        for part in (self.root / CASES / case_id).glob(".*.part*"):
            with suppress(FileNotFoundError, BlockingIOError), part.open("rb") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink(missing_ok=True)

    def publish(self, final: Path, write: Callable[[Path], object]) -> None:
        """Have `write` fill a temporary file beside `final`, then sync and rename it.

        The temporary name keeps the suffixes, since libraries choose formats by them. A file that
        stands there afterwards is whole, whenever the process dies.
        """
        part = final.with_name(f".{uuid.uuid4().hex}.part{''.join(final.suffixes)}")
        try:
            with part.open("xb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # see `sweep_case`
                write(part)
                with part.open("rb") as handle:
                    os.fsync(handle.fileno())
                part.rename(final)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(final.parent)
