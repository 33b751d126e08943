"""Where mutation begins: valid and deliberately malformed files, none of a patient."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Final

import numpy as np
import pydicom
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    MRImageStorage,
    UncompressedTransferSyntaxes,
    generate_uid,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from tests.doors import encoded, make_instance

SLICES: Final = 5
_LARGEST: Final = 100_000
_META: Final = Path(pydicom.__file__).parent / "data" / "test_files"
TEXTS: Final = (
    *(b"", b" ", b"\\", b"\\\\\\", b"nan", b"inf\\inf", b"1e400", b"-1", b"0", b"0\\0", b"1,5"),
    *(b"9" * 30, b"1\\0\\0\\0\\1", b"1\\0\\0\\1\\0\\0", b"1\\0\\0\\0\\1\\nan", b"\xff\xfe\x00"),
    *(b"../../etc/passwd", b"%s%n{0}", b"<script>", b"\x1b[31m", b"ISO 2022 IR 87", b"ISO_IR 192"),
    *(b"\\ISO 2022 IR 149\\ISO 2022 IR 58", b"19700101", b"20261301", b"256160.999", b"99:99"),
    *(b"M", b"DERIVED\\MOSAIC", b"a" * 70_000, b"\x00" * 8, b"3F0", b"1.2.840.10008.5.1.4.1.1.4.1"),
)
NUMBERS: Final = tuple(
    value.to_bytes(width, "little")
    for width in (1, 2, 4, 8)
    for value in (0, 1, 2, 3, 7, 8, 12, 16, 32, 64, 256**width - 1, 256**width // 2)
    if value < 256**width
)
TOKENS: Final = (
    struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF),
    struct.pack("<HHL", 0xFFFE, 0xE000, 0),
    struct.pack("<HHL", 0xFFFE, 0xE00D, 0),
    struct.pack("<HHL", 0xFFFE, 0xE0DD, 0),
    struct.pack("<HH2sHL", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF),
    struct.pack("<HH2sHL", 0x0040, 0xA730, b"UN", 0, 0xFFFFFFFF),
    struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, 0xFFFFFFFE),
    struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF),
    struct.pack("<HH2sHL", 0x5200, 0x9230, b"SQ", 0, 0xFFFFFFFF),
    struct.pack("<HH2sH", 0x0008, 0x0005, b"CS", 10) + b"ISO_IR 192",
    struct.pack("<HH2sH", 0x0028, 0x0008, b"IS", 10) + b"2147483647",
    struct.pack("<HH2sHL", 0x3004, 0x000C, b"FL", 0, 4),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A data set as a peer sends it."""

    syntax: str
    sop_class_uid: str
    sop_instance_uid: str
    data: bytes


@cache
def instances() -> tuple[Encoded, ...]:
    """Return pydicom's own test files, malformed ones included, and some MR images."""
    found = [one for file in sorted(_META.rglob("*")) if (one := _of_file(file)) is not None]
    return (*found, *(of(ds) for ds in stack() for _ in range(6)))


def _of_file(file: Path) -> Encoded | None:
    """Return the data set of a file byte for byte; none where there is no such thing."""
    if not file.is_file() or file.stat().st_size > _LARGEST:
        return None
    try:
        ds = dcmread(file, stop_before_pixels=True, specific_tags=["SOPInstanceUID"])
        syntax, sop_class = (
            str(ds.file_meta.TransferSyntaxUID),
            ds.file_meta.MediaStorageSOPClassUID,
        )
        uid = str(ds.get("SOPInstanceUID") or ds.file_meta.MediaStorageSOPInstanceUID)
    except (InvalidDicomError, AttributeError, ValueError, TypeError, EOFError):
        return None
    content = file.read_bytes()
    start = 132 + 12 + int(ds.file_meta.get("FileMetaInformationGroupLength", 0))
    return Encoded(
        syntax=syntax, sop_class_uid=str(sop_class), sop_instance_uid=uid, data=content[start:]
    )


def of(ds: Dataset) -> Encoded:
    return Encoded(
        syntax=ExplicitVRLittleEndian,
        sop_class_uid=ds.SOPClassUID,
        sop_instance_uid=ds.SOPInstanceUID,
        data=encoded(ds),
    )


@cache
def stack() -> tuple[Dataset, ...]:
    """Return the slices of one small axial series."""
    study, series, frame = (generate_uid(entropy_srcs=[name]) for name in ("1", "2", "3"))
    return tuple(
        make_instance(
            SOPInstanceUID=generate_uid(entropy_srcs=["slice", str(number)]),
            StudyInstanceUID=study,
            SeriesInstanceUID=series,
            FrameOfReferenceUID=frame,
            ImagePositionPatient=[-100.0, -100.0, 4.0 * number],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[6.0, 6.0],
            SliceThickness=4.0,
            RepetitionTime=9000.0,
            EchoTime=88.0,
            InversionTime=2500.0,
            EchoTrainLength=16,
            SeriesDescription="t2_tirm_tra_dark-fluid",
            ProtocolName="FLAIR",
            ImageType=["ORIGINAL", "PRIMARY", "M"],
            ScanningSequence=["SE", "IR"],
            SpecificCharacterSet="ISO_IR 100",
            AcquisitionTime="101500.25",
            ContentDate="20260101",
            InstanceNumber=number + 1,
            RescaleSlope=1.0,
            RescaleIntercept=0.0,
            PixelData=np.arange(number, number + 1024, dtype="<u2").tobytes(),
        )
        for number in range(SLICES)
    )


def with_values(number: int, rng: Random, choose: Callable[[Random, str], bytes]) -> Encoded:
    """Return a slice of the series in which one to three elements have values of `choose`."""
    whole, parts = stack()[number], dict(_elements(number))
    strange = [tag for tag, (vr, _) in parts.items() if vr != "SQ" and tag not in _NEEDED]
    for tag in rng.sample(strange, rng.choice((1, 1, 2, 3))):
        vr = parts[tag][0]
        if rng.random() < 0.1:
            del parts[tag]
            continue
        vr = rng.choice((vr,) * 9 + ("UN",))
        value = choose(rng, vr)
        value += b"\0" * (len(value) % 2)
        head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
        if vr in EXPLICIT_VR_LENGTH_32:
            parts[tag] = vr, head + struct.pack("<HL", 0, len(value)) + value
        else:
            value = value[:65_534]
            parts[tag] = vr, head + struct.pack("<H", len(value)) + value
    return Encoded(
        syntax=ExplicitVRLittleEndian,
        sop_class_uid=whole.SOPClassUID,
        sop_instance_uid=whole.SOPInstanceUID,
        data=b"".join(encoded_part for _, encoded_part in parts.values()),
    )


@cache
def _elements(number: int) -> tuple[tuple[int, tuple[str, bytes]], ...]:
    """Return the elements of a slice by tag: VR and whole encoding."""
    return tuple(
        (int(one.tag), (str(one.VR), encoded(Dataset({one.tag: one})))) for one in stack()[number]
    )


_NEEDED: Final = (0x00080016, 0x00080018, 0x0020000D, 0x0020000E)


def nasty(rng: Random, vr: str) -> bytes:
    """Return a value that its VR does not foresee."""
    if vr in ("US", "SS", "UL", "SL", "FL", "FD", "OW", "OB", "AT") or rng.random() < 0.1:
        return rng.choice(NUMBERS) * rng.choice((1, 1, 1, 2, 3, 40))
    return rng.choice(TEXTS)


def contexts() -> Sequence[tuple[str, tuple[str, ...]]]:
    """Return presentation contexts for every seed, at most the 128 that an association has."""
    pairs = {(one.sop_class_uid, one.syntax): None for one in instances()}
    plain = [(MRImageStorage, str(syntax)) for syntax in UncompressedTransferSyntaxes]
    wanted = dict.fromkeys([*plain, *pairs])
    return [(sop, (syntax,)) for sop, syntax in wanted if UID(sop).is_valid][:126]
