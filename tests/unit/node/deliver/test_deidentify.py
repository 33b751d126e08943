"""What a destination that must not see identity gets, and that it fits its images."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pydicom
import pytest
from dicognito.anonymizer import Anonymizer
from pydantic import ValidationError
from pydicom.dataset import Dataset

from node.cases import EncodedObject
from node.deliver import routes
from node.demo.archive import DemoArchive
from node.door_errors import SecretAbsentError
from node.peers import Destination
from tests import peers, seg_examples, sr_examples
from tests.scripted_peers import described

KEY = "a key of sixteen characters"
IDENTITY = {
    "PatientName": "Mustermann^Erika",
    "PatientID": "PID-77-4711",
    "PatientBirthDate": "19711123",
    "PatientSex": "F",
    "PatientAge": "055Y",
    "PatientWeight": "63",
    "StudyDescription": "Kontrolle Mustermann",
    "AccessionNumber": "ACC-4711",
    "StudyID": "STID-4711",
    "ReferringPhysicianName": "Wald^Hans",
    "InstitutionName": "Klinikum Waldstadt",
    "StudyDate": "20260217",
}
_TELLING = ("Mustermann", "4711", "19711123", "055Y", "Wald", "20260217")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Dataset]]:
    """Return a folder with SEG and report of a patient, and the headers of the images."""
    folder = tmp_path_factory.mktemp("results")
    sources = seg_examples.read_sources(folder / "series", sr_examples.SHAPE)
    for ds in sources:
        for keyword, value in IDENTITY.items():
            setattr(ds, keyword, value)
    sr_examples.write_report(folder, sr_examples.two_lesions(sources), sources)
    return folder, sources


def _destination(**values: Any) -> Destination:  # noqa: ANN401 - settings
    own = {"name": "study", "deidentify": True, "deidentify_key": KEY}
    return Destination.model_validate({**own, **values})


def _sent(folder: Path, archive: DemoArchive) -> dict[str, Path]:
    at = {"transport": "dimse", "host": "127.0.0.1", "port": archive.port}
    for name in ("seg.dcm", "sr.dcm"):
        one = described(pydicom.dcmread(folder / name), folder / name)
        told = routes.send(one, folder / name, _destination(**at), calling_ae_title="N", attempt=1)
        assert told.sop_instance_uid == one.sop_instance_uid
    return {one.modality: one.path for one in archive.instances()}


def test_nothing_of_the_patient_is_left_and_what_is_meant_stays(
    results: tuple[Path, list[Dataset]], archive: DemoArchive
) -> None:
    folder, sources = results
    held = _sent(folder, archive)
    assert held.keys() == {"SEG", "SR"}
    uids = {str(getattr(one, f"{kind}InstanceUID")) for one in sources for kind in ("Study", "SOP")}
    for path in held.values():
        content = path.read_bytes()
        assert not [word for word in (*_TELLING, *uids) if word.encode() in content]
        ds = pydicom.dcmread(path)
        assert (ds.PatientIdentityRemoved, ds.PatientBirthDate) == ("YES", "")
        assert ds.SeriesDescription
    seg, original = pydicom.dcmread(held["SEG"]), pydicom.dcmread(folder / "seg.dcm")
    assert seg.PixelData == original.PixelData
    assert [one.SegmentLabel for one in seg.SegmentSequence] == [
        one.SegmentLabel for one in original.SegmentSequence
    ]
    report = pydicom.dcmread(held["SR"])
    (reference,) = {
        str(item.ReferencedSOPInstanceUID) for item in _references(report) if _is_seg(item)
    }
    assert reference == seg.SOPInstanceUID


def _references(ds: Dataset) -> list[Dataset]:
    found: list[Dataset] = []
    for element in ds:
        if element.VR == "SQ":
            for item in element.value:
                found += [item] if "ReferencedSOPInstanceUID" in item else _references(item)
    return found


def _is_seg(item: Dataset) -> bool:
    return bool(item.ReferencedSOPClassUID == pydicom.uid.SegmentationStorage)


def test_a_result_refers_to_images_that_were_deidentified_with_the_same_key(
    results: tuple[Path, list[Dataset]], archive: DemoArchive
) -> None:
    folder, sources = results
    seg = pydicom.dcmread(_sent(folder, archive)["SEG"])
    images = []
    for one in map(copy.deepcopy, sources):
        Anonymizer(seed=KEY).anonymize(one)  # as somebody who prepares images for a study does
        images.append(one)
    referenced = {
        str(item.ReferencedSOPInstanceUID)
        for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert referenced <= {str(one.SOPInstanceUID) for one in images}
    for keyword in (
        "StudyInstanceUID",
        "FrameOfReferenceUID",
        "PatientID",
        "PatientName",
        "StudyDate",
    ):
        assert {getattr(one, keyword) for one in images} == {getattr(seg, keyword)}


def test_a_folder_gets_images_without_what_names_the_case(
    results: tuple[Path, list[Dataset]], tmp_path: Path
) -> None:
    folder, _ = results
    share = tmp_path / "share"
    share.mkdir()
    destination = _destination(transport="folder", path=str(share))
    (folder / "labels.nii.gz").write_bytes(b"labels")
    (folder / "measurements.json").write_text("{}")
    files = [folder / name for name in ("seg.dcm", "labels.nii.gz", "measurements.json")]
    one: EncodedObject = described(pydicom.dcmread(files[0]), files[0])
    for attempt in (1, 2):
        routes.prepare([one], files, destination)
        told = routes.send(one, files[0], destination, calling_ae_title="N", attempt=attempt)
        assert told.sop_instance_uid == one.sop_instance_uid
    names = {path.name for path in (share / one.case_id).iterdir()}
    assert names == {"seg.dcm", "labels.nii.gz"}
    assert b"Mustermann" not in (share / one.case_id / "seg.dcm").read_bytes()


def test_no_validator_finds_a_new_fault(
    results: tuple[Path, list[Dataset]], archive: DemoArchive
) -> None:
    peers.require("dciodvfy")
    folder, _ = results
    held = _sent(folder, archive)
    for modality, name in (("SEG", "seg.dcm"), ("SR", "sr.dcm")):
        errors = [one for one in peers.dciodvfy(held[modality]) if one.startswith("Error")]
        before = [one for one in peers.dciodvfy(folder / name) if one.startswith("Error")]
        assert set(errors) <= set(before)


@pytest.mark.parametrize(
    "values",
    [
        {"deidentify_key": ""},
        {"deidentify_key": "short"},
        {"deidentify_key_file": "/run/secrets/key"},
        {"transport": "dimse", "host": "h", "port": 1, "commitment": True},
    ],
)
def test_a_key_is_needed_and_commitment_cannot_be_had(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        _destination(**{"transport": "stow", "url": "http://h/d", **values})


def test_without_its_key_nothing_leaves(
    results: tuple[Path, list[Dataset]], tmp_path: Path
) -> None:
    folder, _ = results
    one = described(pydicom.dcmread(folder / "seg.dcm"), folder / "seg.dcm")
    share = tmp_path / "share"
    share.mkdir()
    lost = {"deidentify_key": "", "deidentify_key_file": str(tmp_path / "absent")}
    destination = _destination(transport="folder", path=str(share), **lost)
    with pytest.raises(SecretAbsentError):
        routes.prepare([one], [folder / "seg.dcm"], destination)
    assert list(share.iterdir()) == []
