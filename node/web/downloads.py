"""The files of a case that are given out: which, of what media type, and where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from converters.volume import Role
from node.cases import also_name
from node.spool import Spool

PREVIEW: Final = "preview.png"
LOG: Final = "log.jsonl"
"""Made from the ledger whenever it is asked for; there is no such file."""
JSON_LINES: Final = "application/x-ndjson"
_DICOM, _GZIP = "application/dicom", "application/gzip"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileView:
    """A file of the case that can be downloaded."""

    name: str
    url: str
    byte_count: int


def files_of(roles: Iterable[Role]) -> Mapping[str, str]:
    """Return file name -> media type of whatever a case may have, in the order of the page."""
    return {
        "seg.dcm": _DICOM,
        "sr.dcm": _DICOM,
        "measurements.json": "application/json",
        "regions.dcm": _DICOM,
        "labelmap.dcm": _DICOM,
        "probabilities.dcm": _DICOM,
        **{also_name(role): _DICOM for role in roles},
        "rtstruct.dcm": _DICOM,
        "entropy.dcm": _DICOM,
        "labels.nii.gz": _GZIP,
        "channels.nii.gz": _GZIP,
        "entropy.nii.gz": _GZIP,
        "probabilities.nii.gz": _GZIP,
        PREVIEW: "image/png",
    }


def case_file(spool: Spool, case_id: str, name: str) -> Path:
    """Return where a file of a case lies; unlike `Spool.case_folder` nothing is created."""
    return spool.root / "cases" / case_id / name


def views(spool: Spool, case_id: str, roles: Iterable[Role]) -> tuple[FileView, ...]:
    """Return the files that a case has."""
    paths = {name: case_file(spool, case_id, name) for name in files_of(roles)}
    return tuple(
        FileView(
            name=name,
            url=f"/api/v1/cases/{case_id}/files/{name}",
            byte_count=path.stat().st_size,
        )
        for name, path in paths.items()
        if path.is_file()
    )
