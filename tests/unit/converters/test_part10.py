"""Files are to the byte what pydicom would write, whatever stands in the object."""

from __future__ import annotations

import warnings
from pathlib import Path

import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from converters import part10


def _object() -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID("2.25.1")
    return ds


def _both(ds: Dataset, folder: Path) -> tuple[bytes, bytes]:
    part10.write(ds, folder / "ours.dcm")
    ds.save_as(folder / "pydicom.dcm", enforce_file_format=True)
    return (folder / "ours.dcm").read_bytes(), (folder / "pydicom.dcm").read_bytes()


def test_whatever_stands_in_pydicoms_own_files_is_written_alike(tmp_path: Path) -> None:
    seen = 0
    for path in (Path(pydicom.__file__).parent / "data" / "test_files").glob("*.dcm"):
        made, again = _object(), _object()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                for one in (made, again):
                    read = pydicom.dcmread(path, stop_before_pixels=True)
                    one.update({each.tag: each for each in read if each.tag.element})
                    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID
                    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID
                again.save_as(tmp_path / "pydicom.dcm", enforce_file_format=True)
            except Exception:  # noqa: BLE001 - nothing to compare with
                continue
            part10.write(made, tmp_path / "ours.dcm")
        theirs = (tmp_path / "pydicom.dcm").read_bytes()
        assert (tmp_path / "ours.dcm").read_bytes() == theirs, path.name
        seen += 1
    assert seen > 40


@pytest.mark.parametrize("character_set", ["ISO_IR 100", "ISO_IR 192", ["", "ISO 2022 IR 87"]])
def test_an_element_in_items_of_two_character_sets_is_encoded_in_each(
    tmp_path: Path, character_set: str | list[str]
) -> None:
    ds = _object()
    ds.SpecificCharacterSet = character_set
    text = DataElement("SeriesDescription", "LO", "Muller" if "87" in str(character_set) else "Ü")
    inside, inherits = Dataset(), Dataset()
    inside.SpecificCharacterSet = "ISO_IR 192"
    inside.add(text)
    inherits.add(text)
    ds.ReferencedSeriesSequence = [inside, inherits, inside]
    ours, theirs = _both(ds, tmp_path)
    assert ours == theirs


def test_kinds_that_depend_on_others_are_settled(tmp_path: Path) -> None:
    ds = _object()
    ds.BitsAllocated, ds.PixelRepresentation = 16, 1
    ds.SmallestImagePixelValue = -3
    ds.PixelData = b"\1\0\2\0"
    ours, theirs = _both(ds, tmp_path)
    assert ours == theirs
    assert pydicom.dcmread(tmp_path / "ours.dcm").SmallestImagePixelValue == -3


def test_what_has_no_length_and_other_syntaxes_are_left_to_pydicom(tmp_path: Path) -> None:
    ds = _object()
    ds.ReferencedSeriesSequence = [Dataset()]
    ds["ReferencedSeriesSequence"].is_undefined_length = True
    assert len(set(_both(ds, tmp_path))) == 1
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    assert len(set(_both(ds, tmp_path))) == 1


def test_an_object_that_names_no_instance_is_not_written(tmp_path: Path) -> None:
    ds = _object()
    del ds.file_meta.MediaStorageSOPInstanceUID
    with pytest.raises(AttributeError, match="Media Storage SOP Instance UID"):
        part10.write(ds, tmp_path / "ours.dcm")
    assert not (tmp_path / "ours.dcm").exists()
