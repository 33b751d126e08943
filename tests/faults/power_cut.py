"""A disk that loses whatever was not synced: builds what is left of a folder after a power cut.

`power_cut.c` notes what processes sync. Left is, from the folder itself downwards: each name that a
sync of its folder has noted, and behind it the content that the last sync of that file has noted;
an empty file where there was none, as ext4 leaves it.

Notes
-----
A harsher disk than a real one in that nothing gets there by itself, and a milder one in that
writes between two syncs are lost together and whole sectors never tear: of what was not synced, a
real disk may keep any part in any order. Syncs by other calls (``O_SYNC``, ``syncfs``,
``sync_file_range``, ``msync``) are not seen; the node makes none.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_SOURCE = Path(__file__).with_suffix(".c")
_SYNC_ALL = """
import os, sys
for folder, _, names in os.walk(sys.argv[1]):
    for path in (*(os.path.join(folder, name) for name in names), folder):
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
"""


def library(folder: Path) -> Path:
    """Return the compiled shim; a counted skip where there is no compiler or it is not Linux."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("no C compiler is installed")
    target = folder / "power_cut.so"
    options = ["-shared", "-fPIC", "-O2", "-Wall", "-Werror"]
    subprocess.run([compiler, *options, "-o", str(target), str(_SOURCE), "-ldl"], check=True)
    return target


class FragileDisk:
    """A folder whose processes note what they sync; `cut` leaves no more than that.

    Parameters
    ----------
    root : Path
        The folder; it is there already when its processes start.
    shadow : Path
        Where the notes lie.
    shim : Path
        What `library` returned.
    ignores : str
        Syncs that shall not count: files, folders or databases.
    """

    def __init__(self, root: Path, shadow: Path, shim: Path, *, ignores: str = "") -> None:
        self.root, self._shadow, self._shim, self._ignores = root, shadow, shim, ignores
        root.mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a process has to find in its environment."""
        return {"LD_PRELOAD": str(self._shim), **self._noting(self._ignores)}

    def _noting(self, ignores: str) -> dict[str, str]:
        return {
            "POWER_ROOT": str(self.root),
            "POWER_SHADOW": str(self._shadow),
            "POWER_IGNORES": ignores,
        }

    def begin(self) -> None:
        """Take for synced what is there; to be called when no process is at work there yet."""
        shutil.rmtree(self._shadow, ignore_errors=True)
        for name in ("data", "names"):
            (self._shadow / name).mkdir(parents=True)
        environment = {**os.environ, "LD_PRELOAD": str(self._shim), **self._noting("")}
        command = [sys.executable, "-S", "-c", _SYNC_ALL, str(self.root)]
        subprocess.run(command, env=environment, check=True)

    def cut(self) -> None:
        """Leave in the folder what was synced; no process may be at work there."""
        left = self._shadow.with_name(f"{self._shadow.name}-left")
        self._build("root", left)
        shutil.rmtree(self.root)
        left.rename(self.root)

    def _build(self, folder_id: str, target: Path) -> None:
        target.mkdir()
        names = self._shadow / "names" / folder_id
        for line in names.read_text(encoding="utf-8").splitlines() if names.exists() else ():
            kind, own_id, name = line.split(" ", 2)
            content = self._shadow / "data" / own_id
            if kind == "d":
                self._build(own_id, target / name)
            elif content.exists():
                shutil.copyfile(content, target / name)
            else:
                (target / name).touch()
