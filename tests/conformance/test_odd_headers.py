"""Headers as real scanners and archives write them: the result is valid, or refused with a code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from converters import series
from converters.errors import CodedError
from converters.mr_writer import write_series
from converters.seg import build_segmentation, check_segmentation
from converters.volume import LabelMap, Volume
from tests import peers, phantoms, seg_examples
from tests.seg_examples import EVEN

Bytes = Mapping[str, bytes | None]

pytestmark = [
    # pydicom quotes what it does not like; logs.py closes that channel in the node.
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

IDENTIFIERS = ("PatientID", "StudyInstanceUID", "StudyID", "AccessionNumber")
TYPE_2 = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName", "SeriesNumber", "InstanceNumber"),
    *("Manufacturer", "PositionReferenceIndicator", "SliceThickness"),
)


def named(character_set: str | None, name: bytes) -> Bytes:
    declared = None if character_set is None else character_set.encode()
    return {"SpecificCharacterSet": declared, "PatientName": name}


VALID: Mapping[str, Bytes] = {
    "Latin-1": named("ISO_IR 100", "M\u00fcller^J\u00fcrgen".encode("latin-1")),
    "Cyrillic": named(
        "ISO_IR 144",
        "\u0418\u0432\u0430\u043d\u043e\u0432^\u041f\u0451\u0442\u0440".encode("iso8859_5"),
    ),
    "Japanese": named(
        "\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    ),
    "Japanese of half width": named(
        "ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
    ),
    "Japanese in UTF-8": named("ISO_IR 192", "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce".encode()),
    "Korean": named("\\ISO 2022 IR 149", b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7"),
    "Chinese": named("GB18030", "Wang^XiaoDong=\u738b^\u5c0f\u4e1c".encode("gb18030")),
    "Chinese, older": named("GBK", "Wang^XiaoDong=\u738b^\u5c0f\u4e1c".encode("gbk")),
    "misspelt character set": named("ISO IR 100", "M\u00fcller^J".encode("latin-1")),
    "name of one component": {"PatientName": b"Plain"},
    "name with spaces": {"PatientName": b"Plain ^ Name "},
    "name ended by nulls": {"PatientName": b"Plain^Name\0\0"},
    "no attribute of type 2": dict.fromkeys(TYPE_2),
    "empty attributes of type 2": dict.fromkeys(TYPE_2, b""),
    "padded sex": {"PatientSex": b"F "},
    "padded identifier": {"PatientID": b" 12 "},
    "DS of 20 characters": {
        "SliceThickness": b"2.970000000000000001",
        "PixelSpacing": b"0.90000000000000002\\0.80000000000000004",
    },
    "decimal comma": {"SliceThickness": b"2,97", "SpacingBetweenSlices": b"3,3"},
    "IS with a point": {"InstanceNumber": b"3.0", "SeriesNumber": b"4.0"},
    "SeriesNumber that is no number": {"SeriesNumber": b"abc"},
    "long SeriesDescription": {"SeriesDescription": b"d" * 80},
    "long names of equipment": {
        "Manufacturer": b"m" * 80,
        "StationName": b"s" * 20,
        "DeviceSerialNumber": b"1" * 80,
    },
    "BodyPartExamined in small letters": {"BodyPartExamined": b"head and neck"},
    "long PositionReferenceIndicator": {"PositionReferenceIndicator": b"p" * 80},
    "padded UIDs": {
        "StudyInstanceUID": b"2.25.123456789 ",
        "SeriesInstanceUID": b"2.25.12345678 ",
        "FrameOfReferenceUID": b"2.25.77 ",
    },
    "ratio of compression with a comma": {
        "LossyImageCompression": b"01",
        "LossyImageCompressionRatio": b"10,5",
    },
    "several other IDs": {"OtherPatientIDs": b"1\\2"},
}
"""Our object has no error, whatever the source has."""

AS_THEY_STAND: Mapping[str, Bytes] = {
    "undeclared Latin-1": named(None, "M\u00fcller^J".encode("latin-1")),
    "undeclared UTF-8": named(None, "M\u00fcller^J".encode()),
    "unknown character set": named("ISO-8859-1", "M\u00fcller^J".encode("latin-1")),
    "sex of no known value": {"PatientSex": b"X"},
    "birth date with points": {"PatientBirthDate": b"1970.1.1"},
    "birth date of zeros": {"PatientBirthDate": b"00000000"},
    "study date and time of old": {"StudyDate": b"2025.01.15", "StudyTime": b"10:15:00"},
    "age without a unit": {"PatientAge": b"55"},
    "weight with a comma": {"PatientWeight": b"70,5"},
    "long identifiers": {
        "PatientID": b"p" * 70,
        "StudyID": b"1" * 20,
        "AccessionNumber": b"a" * 24,
    },
    "two identifiers in one": {"PatientID": b"12\\34"},
    "long name": {"PatientName": b"a" * 70 + b"^b"},
    "name of four groups": {"PatientName": b"a^b=c=d=e"},
    "physician of seven components": {"ReferringPhysicianName": b"a^b^c^d^e^f^g"},
    "long StudyDescription": {"StudyDescription": b"d" * 80},
    "UID with a leading zero": {"StudyInstanceUID": b"1.2.03.4"},
}
"""Patient and study are copied right or wrong: our object has no error that its source lacks."""

REFUSED: Mapping[str, tuple[Bytes, str]] = {
    "PixelSpacing with commas": ({"PixelSpacing": b"0,9\\0,8"}, "DICOM_ATTRIBUTE_MISSING"),
    "position with commas": (
        {"ImagePositionPatient": b"0,9\\0,8\\1,0"},
        "DICOM_ATTRIBUTE_MISSING",
    ),
    "no frame of reference": ({"FrameOfReferenceUID": b""}, "DICOM_ATTRIBUTE_MISSING"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    grey = np.random.default_rng(2).integers(0, 4095, EVEN).astype(np.float32)
    grid = seg_examples.oblique_grid(EVEN)
    volume = Volume(intensities=grey, grid=grid, role="t1gd")
    return write_series(volume, tmp_path_factory.mktemp("series"))


def result_of(files: list[Path], folder: Path) -> Path:
    """Return the Segmentation of a series, written and checked."""
    stack = series.stack(files, "", limits=None)
    labels = LabelMap(
        labels=seg_examples.some_labels(EVEN),
        grid=stack.grid,
        segments=seg_examples.SEGMENTS,
        model_id="some-model@1.2.3",
    )
    seg = build_segmentation(labels, stack.headers, seg_examples.IDENTITY, stack.frames)
    path = seg_examples.written(seg, folder / "seg.dcm")
    check_segmentation(path, labels, stack.headers, stack.frames)
    return path


def errors(path: Path) -> set[str]:
    return {line for line in peers.dciodvfy(path) if line.startswith("Error")}


def check_identifiers(path: Path, source: Path) -> None:
    written, read = pydicom.dcmread(path), pydicom.dcmread(source)
    for keyword in IDENTIFIERS:
        assert (written.get(keyword) or "") == (read.get(keyword) or "")
    assert str(written.get("PatientName") or "") == str(read.get("PatientName") or "")


@pytest.mark.parametrize("name", VALID)
def test_the_result_is_valid(name: str, files: list[Path], tmp_path: Path) -> None:
    peers.require("dciodvfy")
    sources = phantoms.with_bytes(files, tmp_path / "odd", VALID[name])
    path = result_of(sources, tmp_path)
    assert errors(path) == set()
    check_identifiers(path, sources[0])


@pytest.mark.parametrize("name", AS_THEY_STAND)
def test_patient_and_study_are_as_wrong_as_the_sources(
    name: str, files: list[Path], tmp_path: Path
) -> None:
    peers.require("dciodvfy")
    sources = phantoms.with_bytes(files, tmp_path / "odd", AS_THEY_STAND[name])
    path = result_of(sources, tmp_path)
    assert errors(path) <= errors(sources[0])
    check_identifiers(path, sources[0])


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_placed_is_refused_with_a_code(
    name: str, files: list[Path], tmp_path: Path
) -> None:
    values, code = REFUSED[name]
    with pytest.raises(CodedError) as caught:
        result_of(phantoms.with_bytes(files, tmp_path / "odd", values), tmp_path)
    assert caught.value.code == code


def retired(ds: Dataset) -> None:
    ds.add_new("RecognitionCode", "SH", "ACR-NEMA 2.0")
    ds.add_new(0x00200030, "DS", ["1", "2", "3"])  # Image Position
    ds.add_new(0x00200050, "DS", "1")  # Location
    ds.add_new("InsurancePlanIdentification", "LO", "plan")
    ds.add_new("OtherPatientIDs", "LO", "7")


def private(ds: Dataset) -> None:
    ds.private_block(0x0009, "GEMS_IDEN_01", create=True).add_new(1, "LO", "text")
    ds.private_block(0x0011, "X OF PATIENT", create=True).add_new(1, "PN", "a^b")
    ds.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", b"ab")


@pytest.mark.parametrize("add", [retired, private])
def test_retired_and_private_attributes_do_no_harm(
    add: Callable[[Dataset], None], files: list[Path], tmp_path: Path
) -> None:
    peers.require("dciodvfy")
    sources = phantoms.edited(files, tmp_path / "odd", lambda _, ds: add(ds))
    path = result_of(sources, tmp_path)
    assert errors(path) == set()
    check_identifiers(path, sources[0])
    assert not [one for one in pydicom.dcmread(path) if one.tag.is_private]
