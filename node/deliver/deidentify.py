"""Results for destinations that must not see identity: names, numbers, UIDs and dates replaced.

The library replaces them by what a key makes of them, so that everything of a patient stays
together and refers to images that were de-identified with the same key. What it leaves and the
profile does not is removed here.

References
----------
DICOM PS3.15 Annex E (Basic Application Level Confidentiality Profile, with the option to retain
longitudinal temporal information with modified dates), Table E.1-1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pydicom
from dicognito.anonymizer import Anonymizer
from dicognito.element_anonymizer import ElementAnonymizer
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from node.cases import EncodedObject
from node.deliver.credentials import secret_of
from node.peers import Destination

_DICOM: Final = ".dcm"
_NIFTI: Final = (".nii", ".gz")
_OF_THE_STANDARD: Final = "1.2.840.10008."
_EMPTIED: Final = ("PatientBirthDate", "PatientSex")
_REMOVED: Final = (
    "AdditionalPatientHistory",
    "AdmittingDiagnosesDescription",
    "EthnicGroup",
    "ImageComments",
    "InstitutionalDepartmentName",
    "IssuerOfPatientID",
    "MedicalAlerts",
    "Allergies",
    "PatientAge",
    "PatientBirthTime",
    "PatientComments",
    "PatientSize",
    "PatientState",
    "PatientWeight",
    "PerformedProcedureStepDescription",
    "PregnancyStatus",
    "ProtocolName",
    "ReasonForStudy",
    "RequestAttributesSequence",
    "RequestedProcedureDescription",
    "SmokingStatus",
    "StudyComments",
    "StudyDescription",
    "VisitComments",
)
"""Of the profile, what results can have from their images and the library keeps."""
_METHODS: Final = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
)


class _KeepsTheStandards(ElementAnonymizer):
    """UIDs of the standard name no instance, and stay."""

    def __call__(self, dataset: Dataset, data_element: DataElement) -> bool:  # noqa: ARG002
        """Say that such an element is done with."""
        return data_element.VR == "UI" and str(data_element.value).startswith(_OF_THE_STANDARD)

    def describe_actions(self) -> Iterator[str]:
        """Describe it."""
        yield "Keep UIDs of the standard"


def anonymizer_of(destination: Destination) -> Anonymizer:
    """Return what de-identifies for a destination.

    Raises
    ------
    SecretAbsentError
        The file with its key cannot be read.
    """
    key = secret_of(destination, destination.deidentify_key, destination.deidentify_key_file)
    anonymizer = Anonymizer(seed=key)
    anonymizer.add_element_handler(_KeepsTheStandards())
    return anonymizer


def apply(ds: Dataset, anonymizer: Anonymizer) -> None:
    """De-identify a result in place."""
    anonymizer.anonymize(ds)
    ds.remove_private_tags()
    for keyword in _REMOVED:
        if keyword in ds:
            delattr(ds, keyword)
    for keyword in _EMPTIED:
        setattr(ds, keyword, "")
    ds.PatientIdentityRemoved = "YES"  # no result has anything of the patient in its pixels
    ds.DeidentificationMethodCodeSequence = [_code(*one) for one in _METHODS]


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


@contextmanager
def copied(file: Path, one: EncodedObject, destination: Destination) -> Iterator[EncodedCopy]:
    """Give a de-identified copy of a result, whose UIDs are others, for as long as it is needed."""
    with TemporaryDirectory(prefix="neuroseg-") as folder:
        path = Path(folder) / file.name
        ds = _write(file, path, destination)
        yield (
            replace(
                one,
                sop_instance_uid=str(ds.SOPInstanceUID),
                series_instance_uid=str(ds.SeriesInstanceUID),
                study_instance_uid=str(ds.StudyInstanceUID),
                byte_count=path.stat().st_size,
                sha256="",
            ),
            path,
        )


EncodedCopy = tuple[EncodedObject, Path]


@contextmanager
def copied_files(files: Sequence[Path], destination: Destination) -> Iterator[list[Path]]:
    """Give de-identified copies of files; what is neither DICOM nor an image is left out."""
    with TemporaryDirectory(prefix="neuroseg-") as folder:
        found = [one for one in files if one.suffix in _NIFTI]
        for file in files:
            if file.suffix == _DICOM:
                path = Path(folder) / file.name
                _write(file, path, destination)
                found.append(path)
        yield found


def _write(file: Path, path: Path, destination: Destination) -> Dataset:
    ds = pydicom.dcmread(file)
    apply(ds, anonymizer_of(destination))
    ds.save_as(path, enforce_file_format=True)
    return ds
