"""What every derived object has to share with its source, whatever its form is."""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from converters.errors import ReadBackError

_PATIENT_AND_STUDY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
)
_IMAGE_PLANE = ("FrameOfReferenceUID", "Rows", "Columns")


def read(path: Path) -> Dataset:
    """Return a file that was written; raise `ReadBackError` where it cannot be read."""
    try:
        return pydicom.dcmread(path)
    except (InvalidDicomError, OSError) as error:
        raise ReadBackError(reason="the file cannot be read") from error


def require(condition: bool, reason: str) -> None:  # noqa: FBT001 - reads as a sentence
    """Raise `ReadBackError` with a reason unless a condition holds."""
    if not condition:
        raise ReadBackError(reason=reason)


def check_origin(written: Dataset, source: Dataset, *, has_planes: bool = False) -> None:
    """Raise `ReadBackError` unless an object as read back is of its source's patient and study.

    An attribute that the source lacks has to be there and empty.

    Parameters
    ----------
    written : Dataset
        The derived object.
    source : Dataset
        Header of any instance that it was derived from.
    has_planes : bool
        Whether its frames lie on those of the source, so that frame and matrix are equal too.
    """
    for keyword in (*_PATIENT_AND_STUDY, *(_IMAGE_PLANE if has_planes else ())):
        if keyword not in written:
            raise ReadBackError(reason=f"{keyword} is absent")
        if _text(written, keyword) != _text(source, keyword):
            raise ReadBackError(reason=keyword)


def _text(ds: Dataset, keyword: str) -> str:
    value = ds.get(keyword)
    return "" if value is None else str(value)
