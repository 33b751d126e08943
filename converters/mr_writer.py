"""Volumes to classic MR images: one DICOM instance a slice, as a scanner would send them.

Synthetic studies and exams that exist only as NIfTI take this way into the node, so that it is
entered through its front door.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import DSfloat

from converters.volume import Role, Volume

_NAMESPACE = uuid.UUID("0b5c9a52-77f3-5d3e-8a35-2f3c4b1d6e90")
_MAX_STORED = 4095
_THICKNESS_RATIO = 0.9  # slices have a gap: Slice Thickness is not the distance between slices


def derived_uid(*parts: object) -> str:
    """Return the UID that belongs to some words and numbers (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, '|'.join(str(part) for part in parts)).int}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyIdentity:
    """Whose study it is; every UID follows from `seed`."""

    seed: int = 0
    patient_name: str = "Phantom^Bj\u00f6rn"
    patient_id: str = "PHANTOM-0"
    patient_sex: str = "O"
    patient_birth_date: str = "19700101"
    study_date: str = "20250115"
    study_time: str = "101500"
    accession_number: str = "PH0"

    @property
    def study_instance_uid(self) -> str:
        """Study Instance UID (0020,000D)."""
        return derived_uid(self.seed, "study")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesPlan:
    """How a series was acquired: description and the attributes of its physics.

    Parameters
    ----------
    description, protocol_name : str
        Series Description (0008,103E) and Protocol Name (0018,1030).
    attributes : mapping of DICOM keyword to value
        Further elements of every instance.
    is_numbered_backwards : bool
        Instance Number falls along the slice axis.
    """

    description: str
    protocol_name: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    is_numbered_backwards: bool = False


def _physics(
    scanning: str | list[str], variant: str | list[str], acquisition: str, **more: object
) -> dict[str, Any]:
    return {
        "ScanningSequence": scanning,
        "SequenceVariant": variant,
        "MRAcquisitionType": acquisition,
        **more,
    }


_GADOLINIUM = {
    "ContrastBolusAgent": "Gadobutrol",
    "ContrastBolusRoute": "IV",
    "ContrastBolusVolume": 7.5,
}
PLANS: Mapping[Role, SeriesPlan] = {
    "flair": SeriesPlan(
        description="t2_tirm_tra_dark-fluid",
        protocol_name="t2_tirm_tra_dark-fluid_4mm",
        attributes=_physics(
            ["SE", "IR"],
            ["SK", "SP", "MP"],
            "2D",
            RepetitionTime=9000,
            EchoTime=88,
            InversionTime=2500,
            FlipAngle=150,
            EchoTrainLength=16,
        ),
    ),
    "t1": SeriesPlan(
        description="t1_se_tra",
        protocol_name="t1_se_tra_4mm",
        attributes=_physics(
            "SE",
            ["SP", "OSP"],
            "2D",
            RepetitionTime=550,
            EchoTime=9.4,
            FlipAngle=90,
            EchoTrainLength=1,
        ),
    ),
    "t1gd": SeriesPlan(
        description="t1_mprage_tra_KM",
        protocol_name="t1_mprage_tra_KM",
        attributes=_physics(
            ["GR", "IR"],
            ["SK", "SP", "MP"],
            "3D",
            RepetitionTime=1900,
            EchoTime=2.9,
            InversionTime=900,
            FlipAngle=9,
            EchoTrainLength=1,
            **_GADOLINIUM,
        ),
    ),
    "t2": SeriesPlan(
        description="t2_tse_tra",
        protocol_name="t2_tse_tra_4mm",
        attributes=_physics(
            "SE",
            ["SK", "SP"],
            "2D",
            RepetitionTime=5200,
            EchoTime=98,
            FlipAngle=150,
            EchoTrainLength=13,
        ),
        is_numbered_backwards=True,
    ),
}


def _decimals(values: NDArray[np.float64]) -> list[DSfloat]:
    """Return Decimal Strings that keep as many digits as 16 characters can (PS3.5 6.2)."""
    return [DSfloat(float(value) + 0.0, auto_format=True) for value in values]


def _twelve_bits(intensities: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return stored values: whole numbers of 12 bits as they are, anything else scaled to them."""
    low, high = float(intensities.min()), float(intensities.max())
    is_stored = low >= 0 and high <= _MAX_STORED and bool((intensities % 1 == 0).all())
    if is_stored:
        return intensities.astype(np.uint16)
    low = min(low, 0.0)
    scale = _MAX_STORED / (high - low) if high > low else 1.0
    return np.asarray(np.rint((intensities - low) * scale), dtype=np.uint16)


def _study_level(study: StudyIdentity) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.PatientName = study.patient_name
    ds.PatientID = study.patient_id
    ds.PatientBirthDate = study.patient_birth_date
    ds.PatientSex = study.patient_sex
    ds.StudyInstanceUID = study.study_instance_uid
    ds.StudyDate = study.study_date
    ds.StudyTime = study.study_time
    ds.StudyID = "1"
    ds.StudyDescription = "MRT Schädel, synthetisch"
    ds.AccessionNumber = study.accession_number
    ds.ReferringPhysicianName = ""
    return ds


def _series_level(ds: Dataset, volume: Volume, plan: SeriesPlan, series_uid: str) -> None:
    ds.SOPClassUID = MRImageStorage
    ds.Modality = "MR"
    ds.SeriesInstanceUID = series_uid
    ds.SeriesDescription = plan.description
    ds.ProtocolName = plan.protocol_name or plan.description
    ds.BodyPartExamined = "HEAD"
    ds.PatientPosition = "HFS"
    ds.Manufacturer = "NeuroSeg Node"
    ds.ManufacturerModelName = "Phantom"
    ds.MagneticFieldStrength = 3.0
    ds.ImagingFrequency = 123.2
    ds.ImagedNucleus = "1H"
    ds.FrameOfReferenceUID = volume.grid.frame_of_reference_uid
    ds.PositionReferenceIndicator = ""
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    ds.ScanOptions = ""
    for keyword, value in plan.attributes.items():
        setattr(ds, keyword, value)


def _pixel_level(ds: Dataset, volume: Volume, stored: NDArray[np.uint16]) -> None:
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = volume.grid.shape[1:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.PixelRepresentation = 0
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    ds.WindowCenter = int(stored.max()) // 2
    ds.WindowWidth = int(stored.max()) or 1
    step = volume.grid.index_to_lps_mm[:3, :3]
    spacing = np.round(volume.grid.spacing_mm, 9)
    ds.PixelSpacing = _decimals(spacing[1:])
    ds.SpacingBetweenSlices = _decimals(spacing[:1])[0]
    ds.SliceThickness = _decimals(np.round(spacing[:1] * _THICKNESS_RATIO, 3))[0]
    along_row, down_column = (step[:, axis] / np.linalg.norm(step[:, axis]) for axis in (2, 1))
    ds.ImageOrientationPatient = _decimals(np.concatenate([along_row, down_column]))


def _slice_level(ds: Dataset, volume: Volume, index: int, number: int) -> None:
    position = volume.grid.lps_mm(np.array([index, 0.0, 0.0]))
    normal = np.cross(
        np.array(ds.ImageOrientationPatient[:3], float),
        np.array(ds.ImageOrientationPatient[3:], float),
    )
    ds.InstanceNumber = number
    ds.AcquisitionNumber = 1
    ds.ImagePositionPatient = _decimals(position)
    ds.SliceLocation = _decimals(np.array([round(float(position @ normal), 4)]))[0]
    ds.SOPInstanceUID = derived_uid(ds.SeriesInstanceUID, "instance", index)


def _save(ds: Dataset, path: Path) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta = meta
    ds.save_as(path, enforce_file_format=True)


def write_series(
    volume: Volume,
    folder: Path,
    *,
    study: StudyIdentity | None = None,
    series_number: int = 2,
    plan: SeriesPlan | None = None,
) -> list[Path]:
    """Write a volume as a series of classic MR images and return the files in slice order.

    Parameters
    ----------
    volume : Volume
        Whole numbers from 0 to 4095 are stored as they are, anything else is scaled linearly to
        12 bits. The grid is kept to the 16 characters of a Decimal String.
    folder : Path
        Created when absent.
    study : StudyIdentity, optional
        Patient and study; the phantom's by default.
    series_number : int
        Also tells the series of one study apart: the Series Instance UID follows from it.
    plan : SeriesPlan, optional
        Description and physics; the usual ones of the volume's role by default.
    """
    study, plan = study or StudyIdentity(), plan or PLANS[volume.role]
    folder.mkdir(parents=True, exist_ok=True)
    stored = _twelve_bits(volume.intensities)
    ds = _study_level(study)
    _series_level(ds, volume, plan, derived_uid(study.seed, "series", series_number))
    ds.SeriesNumber = series_number
    ds.SeriesDate, ds.SeriesTime = study.study_date, study.study_time
    if not volume.grid.frame_of_reference_uid:
        ds.FrameOfReferenceUID = derived_uid(study.seed, "frame")
    _pixel_level(ds, volume, stored)
    paths, count = [], volume.grid.shape[0]
    for index in range(count):
        number = count - index if plan.is_numbered_backwards else index + 1
        _slice_level(ds, volume, index, number)
        ds.ContentDate, ds.ContentTime = study.study_date, study.study_time
        ds.AcquisitionDate, ds.AcquisitionTime = study.study_date, study.study_time
        ds.PixelData = stored[index].astype("<u2").tobytes()
        paths.append(folder / f"{number:04d}.dcm")
        _save(ds, paths[-1])
    return paths
