"""The pictures of a case's summary: which there may be, what each shows, where it is served.

The names are a closed list made from the model's roles; nothing that a client writes becomes a
path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.volume import Role
from node.web.formats import sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureView:
    """A picture that is there; `alt` says in words what it shows."""

    name: str
    url: str
    alt: str


def known(roles: Sequence[Role]) -> dict[str, str]:
    """Return what every picture that a model's cases may have shows, by file name."""
    return {
        "summary-cover.png": "Cover of the summary: model, volumes and notes as on this page, and "
        "one slice",
        "summary-planes.png": "Axial, coronal and sagittal plane through the centre of the largest "
        "finding, with the outlines of the segments",
        **{
            f"summary-axial-{role}.png": "Up to twelve axial slices through the tumour with the "
            f"outlines of the segments, {sequence(role)}"
            for role in roles
        },
    }


def views(case_id: str, folder: Path, roles: Sequence[Role]) -> tuple[PictureView, ...]:
    """Return the pictures of a case; an address changes when its picture does."""
    found = []
    for name, alt in known(roles).items():
        path = folder / name
        if path.is_file():
            url = f"/api/v1/cases/{case_id}/pictures/{name}?v={path.stat().st_mtime_ns}"
            found.append(PictureView(name=name, url=url, alt=alt))
    return tuple(found)
