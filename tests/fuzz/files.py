"""What is read after it was taken in: stored DICOM series, and NIfTI files."""

from __future__ import annotations

import contextlib
import gzip
import struct
import warnings
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final

import nibabel as nib
import numpy as np

from converters import gate, nifti, nifti_check, series
from converters.errors import CodedError, InputRejectedError, NiftiUnusableError
from node.cases import ReceivedInstance
from node.errors import InstanceTooLargeError, InstanceUnreadableError
from node.facts import Site, facts_of
from node.receive.dataset import read_identifiers
from node.receive.instance import Offer, file_meta
from tests.fuzz import seeds
from tests.fuzz.mutation import mutated
from tests.fuzz.target import CrashError, Folder, Verdict

ROLES: Final = ("flair", "t1", "t1gd", "t2")
_MOST_VALUES: Final = 10**6
_LIMIT_BYTES: Final = 2**22
_ANY_HEAD: Final = replace(
    gate.DEFAULT,
    narrowest_mm=0.0,
    coverage_mm=0.0,
    fewest_slices=1,
    content_ml=0.0,
    blank_slices=99,
)
_SITE: Final = Site(limits=_ANY_HEAD)
_WHEN: Final = datetime(2026, 1, 1, tzinfo=UTC)
_NIFTI_TOKENS: Final = (b"n+1\0", b"ni1\0", b"n+2\0", b"\x1f\x8b\x08", struct.pack("<f", np.nan))
_NIFTI_IMAGE: Any = nib.Nifti1Image  # only half of nibabel is typed


class StoredSeries:
    """A series with one strange image in it: taken in, told apart, stacked and loaded.

    The input is a transfer syntax, preceded by its length, and the data set of the strange image.
    """

    name = "dicom-series"
    pools = 0

    def __init__(self, folder: Folder) -> None:
        self._folder = folder.work
        self._good = [
            self._written(number, seeds.of(ds)) for number, ds in enumerate(seeds.stack())
        ]

    def _written(self, number: int, one: seeds.Encoded) -> Path:
        offer = Offer(
            sop_class_uid=one.sop_class_uid,
            sop_instance_uid=one.sop_instance_uid,
            transfer_syntax_uid=one.syntax,
            calling_ae_title="FUZZ",
        )
        path = self._folder / f"{number}.dcm"
        path.write_bytes(file_meta(offer) + one.data)
        return path

    def make(self, rng: Random) -> bytes:
        """Return an image of the series with strange values, or any other file, mutated."""
        if rng.random() < 0.6:
            one = seeds.with_values(rng.randrange(seeds.SLICES), rng, seeds.nasty)
        else:
            one = rng.choice(seeds.instances())
        syntax, data = one.syntax, one.data
        if rng.random() < 0.5:
            data = mutated(data, rng, seeds.TOKENS)
        return bytes([len(syntax)]) + syntax.encode() + data

    def give(self, content: bytes) -> Verdict:
        """Return whether the series became a volume."""
        length = content[0]
        syntax, data = content[1 : 1 + length].decode("ascii", "replace"), content[1 + length :]
        try:
            found = read_identifiers(data, syntax, limit_bytes=_LIMIT_BYTES)
        except (InstanceUnreadableError, InstanceTooLargeError):
            return Verdict.REFUSED
        strange = seeds.Encoded(
            syntax=syntax,
            sop_class_uid=found.sop_class_uid,
            sop_instance_uid=found.sop_instance_uid,
            data=data,
        )
        files = [*self._good[1:], self._written(99, strange)]
        verdicts = {self._of(files), self._of(files[-1:])}
        return Verdict.ACCEPTED if Verdict.ACCEPTED in verdicts else Verdict.REFUSED

    def _of(self, files: list[Path]) -> Verdict:
        rows = tuple(_row(file, number) for number, file in enumerate(files))
        for facts in facts_of(rows, files, _SITE):
            if facts.fault is not None and facts.fault.code == "SERIES_UNREADABLE":
                raise CrashError(f"unforeseen: {facts.fault}")
        try:
            for part in series.parts(series.read_headers(files), files):
                series.load(part.stack(_ANY_HEAD), "flair", _ANY_HEAD)
        except InputRejectedError:
            return Verdict.REFUSED
        return Verdict.ACCEPTED

    def problems(self) -> list[str]:
        """Return nothing: no component goes on."""
        return []

    def close(self) -> None:
        """Do nothing."""


def _row(file: Path, number: int) -> ReceivedInstance:
    return ReceivedInstance(
        study_instance_uid="1.2.3",
        series_instance_uid="1.2.3.4",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
        sop_instance_uid=f"1.2.3.4.{number}",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        calling_ae_title="FUZZ",
        path=str(file),
        byte_count=file.stat().st_size,
        sha256="0" * 64,
        received_at=_WHEN,
    )


@cache
def nifti_seeds() -> tuple[bytes, ...]:
    """Return files of several number types, packed ones among them."""
    found = []
    for kind in ("<i2", ">i2", "u1", "<f4", "<f8", ">u4"):
        values = np.arange(3 * 4 * 5 * 4).reshape(3, 4, 5, 4).astype(kind)
        image = _NIFTI_IMAGE(values, np.diag([1.0, 2.0, 3.0, 1.0]))
        image.header.set_xyzt_units("mm")
        if kind == "<i2":
            image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"remark"))
            image.header.set_slope_inter(2.0, 1.0)
        found.append(image.to_bytes())
    return (*found, *(gzip.compress(one, 1, mtime=0) for one in found))


def nifti_input(rng: Random) -> bytes:
    """Return a NIfTI file with something wrong in it; mostly before it is packed."""
    content = rng.choice(nifti_seeds())
    if content.startswith(b"\x1f\x8b") and rng.random() < 0.7:
        content = gzip.compress(mutated(gzip.decompress(content), rng, _NIFTI_TOKENS), 1, mtime=0)
        return content if rng.random() < 0.8 else mutated(content, rng)
    return mutated(content, rng, _NIFTI_TOKENS)


class Nifti:
    """NIfTI files: what the upload's check lets pass, the reader must be able to read."""

    name = "nifti"
    pools = 0

    def __init__(self, folder: Folder) -> None:
        self._file = folder.work / "x.nii"

    def make(self, rng: Random) -> bytes:
        """Return a file."""
        return nifti_input(rng)

    def give(self, content: bytes) -> Verdict:
        """Return whether the file was read."""
        self._file.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nibabel's and NumPy's complaints about odd headers
            is_checked = True
            try:
                nifti_check.check_channels(self._file, ROLES, max_values=_MOST_VALUES)
            except CodedError:
                is_checked = False
            try:
                nifti.read_channels(self._file, ROLES)
            except NiftiUnusableError as error:
                if is_checked:
                    raise CrashError(f"let pass, then refused: {error}") from error
                return Verdict.REFUSED
        return Verdict.ACCEPTED if is_checked else Verdict.REFUSED

    def problems(self) -> list[str]:
        """Return nothing: no component goes on."""
        return []

    def close(self) -> None:
        """Remove the file."""
        with contextlib.suppress(FileNotFoundError):
            self._file.unlink()
