"""Write docs/licences.md: the licence of every package that a node runs with, as it says itself.

Run by hand after a change of requirements: ``python -m scripts.write_licences``. Packages of tests
and benchmarks are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

PAGE: Final = Path(__file__).parents[1] / "docs" / "licences.md"
_LONG: Final = 60
_TOLD: Final = {  # where the metadata holds the whole text, or nothing
    "dicomweb-client": "MIT",
    "pylibjpeg-libjpeg": "GPL-3.0-or-later",
}


def running() -> list[Distribution]:
    """Return the packages that the project and its extra `nnunet` need, and theirs, by name."""
    found: dict[str, Distribution] = {}
    waiting = ["neuroseg-node", "dynamic-network-architectures"]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = distribution(name)
        if name != "dynamic-network-architectures":  # installed without what it asks for
            waiting += _required(found[name])
    del found["neuroseg-node"]
    return [found[name] for name in sorted(found)]


def _required(package: Distribution) -> Iterator[str]:
    for line in package.requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield re.sub(r"[-_.]+", "-", requirement.name).lower()


def licence(package: Distribution) -> str:
    """Return what a package says of its licence, in few words."""
    meta = package.metadata
    name = re.sub(r"[-_.]+", "-", meta["Name"]).lower()
    said = _TOLD.get(name) or meta["License-Expression"] or meta["License"] or ""
    if said and len(said) <= _LONG and "\n" not in said:
        return str(said)
    classed = [
        one.rpartition(" :: ")[2]
        for one in meta.get_all("Classifier") or []
        if one.startswith("License ::")
    ]
    return ", ".join(classed) or str(said).strip().split("\n")[0][:_LONG] or "not said"


def page() -> str:
    """Return the page."""
    rows = "\n".join(
        f"| {package.metadata['Name']} | {package.version} | {licence(package)} |"
        for package in running()
    )
    return f"""# Licences

NeuroSeg Node is under the Apache License 2.0. It runs with the packages below, each under its
own licence, as its metadata says. Written by `python -m scripts.write_licences`; the image's
`/opt/neuroseg/sbom.cdx.json` lists the same.

**Copyleft among them.** psycopg, the driver of PostgreSQL that the job engine brings along, is
under the LGPL: it is used as a library, unchanged, and an installed Python package can be
exchanged by whoever gets an image. The decoder of JPEG, pylibjpeg-libjpeg, is under the GPL:
that binds nobody who runs a node, but whoever hands an image on hands this package on under the
GPL. `pip uninstall pylibjpeg-libjpeg` takes it out; JPEG-compressed instances are then refused
with a code.

| package | version | licence |
|---|---|---|
{rows}
"""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
