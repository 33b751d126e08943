"""Write the lock files: every version that is installed, with the hashes of its files.

``make lock`` does it, with what stands in them kept as long as pyproject.toml allows it;
``make lock UPGRADE=1`` takes the newest. torch has one hash, of its build for processors, which
PyTorch's own index has: it is of the file that pip finds (PIP_EXTRA_INDEX_URL). Another build is
installed before the rest, and pip then leaves it as it is.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
LOCKS: Final = {
    "requirements.lock": ["--extra", "nnunet"],
    "requirements-fetch.lock": ["--extra", "nnunet", "--extra", "fetch"],
    "requirements-test.lock": ["--all-extras"],
}
_COMPILE: Final = (
    *("uv", "pip", "compile", "pyproject.toml", "--quiet", "--no-annotate", "--no-header"),
    *("--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28"),
    *("--default-index", "https://pypi.org/simple", "--generate-hashes"),
)


def main() -> None:
    """Write all of them; arguments are handed on to uv."""
    build = ""
    for name, extras in LOCKS.items():
        lock = ROOT / name
        command = [*_COMPILE, *extras, *sys.argv[1:], "--output-file", name]
        subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=True)  # noqa: S603 - uv
        text = lock.read_text(encoding="utf-8")
        version = text.partition("\ntorch==")[2].split(maxsplit=1)[0]
        build = build or _hash_for_processors(version)
        torch = r"(\ntorch==.*\n)(    --hash=.*\n)+"
        text = re.sub(torch, rf"\g<1>    --hash=sha256:{build}\n", text)
        text = f"# pip install --require-hashes --no-deps -r {name}\n{text}"
        lock.write_text(text, encoding="utf-8")


def _hash_for_processors(version: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
        subprocess.run([*pip, f"torch=={version}+cpu"], check=True)  # noqa: S603 - pip
        (wheel,) = Path(folder).iterdir()
        with wheel.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    main()
