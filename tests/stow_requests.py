"""Bodies of STOW-RS requests, made here byte by byte."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

BOUNDARY = "frontier-7"
CONTENT_TYPE = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
REFERENCED, FAILED, OTHER = "00081199", "00081198", "0008119A"


def part10(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Return a data set as a DICOM file, by pydicom."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, ds, enforce_file_format=True)
    return stream.getvalue()


def body(files: Iterable[bytes], media_type: str = "application/dicom") -> bytes:
    """Return files as one multipart body."""
    head = f"--{BOUNDARY}\r\nContent-Type: {media_type}\r\n\r\n".encode()
    return b"".join(head + one + b"\r\n" for one in files) + f"--{BOUNDARY}--\r\n".encode()


def uids(answer: dict[str, Any], sequence: str) -> list[str]:
    """Return the SOP Instance UIDs of a sequence in an answer."""
    return [one["00081155"]["Value"][0] for one in answer.get(sequence, {}).get("Value", [])]


def reasons(answer: dict[str, Any], sequence: str) -> list[tuple[int, str]]:
    """Return Failure Reason and our code of each item of a sequence."""
    return [
        (one["00081197"]["Value"][0], one["00091001"]["Value"][0].partition(":")[0])
        for one in answer.get(sequence, {}).get("Value", [])
    ]
