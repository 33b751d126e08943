"""Multi-frame instances made of classic series, as scanners, routers and archives send them.

Voxels, positions and physics are those of the classic instances; what differs is how they are
packed: which frames lie in which instance, in which order, what is said once for all frames.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from highdicom.legacy import LegacyConvertedEnhancedMRImage
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, EnhancedMRImageStorage, ExplicitVRLittleEndian

from converters.mr_writer import derived_uid

Frame = tuple[Dataset, Mapping[str, Any]]
"""A classic instance with its pixels, and what sets the frame apart (`frame`)."""

_COPIED = (
    *("SpecificCharacterSet", "StudyDate", "SeriesDate", "StudyTime", "SeriesTime"),
    *("AccessionNumber", "Modality", "Manufacturer", "ReferringPhysicianName"),
    *("StudyDescription", "SeriesDescription", "ManufacturerModelName", "PatientName"),
    *("PatientID", "PatientBirthDate", "PatientSex", "ProtocolName", "PatientPosition"),
    *("StudyInstanceUID", "SeriesInstanceUID", "StudyID", "SeriesNumber", "FrameOfReferenceUID"),
    *("PositionReferenceIndicator", "SamplesPerPixel", "PhotometricInterpretation", "Rows"),
    *("Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("MagneticFieldStrength", "MRAcquisitionType", "BodyPartExamined", "AcquisitionNumber"),
)
_FIXED = {
    "SOPClassUID": EnhancedMRImageStorage,
    "ImageType": ["ORIGINAL", "PRIMARY", "UNKNOWN", "NONE"],
    "AcquisitionDuration": 1.0,
    "DeviceSerialNumber": "0001",
    "SoftwareVersions": "1",
    "ContentQualification": "RESEARCH",
    "ResonantNucleus": "1H",
    "KSpaceFiltering": "NONE",
    "ApplicableSafetyStandardAgency": "IEC",
    "PixelPresentation": "MONOCHROME",
    "VolumetricProperties": "VOLUME",
    "VolumeBasedCalculationTechnique": "NONE",
    "ComplexImageComponent": "MAGNITUDE",
    "AcquisitionContrast": "UNKNOWN",
    "PulseSequenceName": "phantom",
    "MultiPlanarExcitation": "NO",
    "PhaseContrast": "NO",
    "TimeOfFlightContrast": "NO",
    "EchoPlanarPulseSequence": "NO",
    "SteadyStatePulseSequence": "NONE",
    "SaturationRecovery": "NO",
    "SpectrallySelectedSuppression": "NONE",
    "OversamplingPhase": "NONE",
    "GeometryOfKSpaceTraversal": "RECTILINEAR",
    "SegmentedKSpaceTraversal": "SINGLE",
    "RectilinearPhaseEncodeReordering": "LINEAR",
    "NumberOfKSpaceTrajectories": 1,
    "BurnedInAnnotation": "NO",
    "LossyImageCompression": "00",
    "PresentationLUTShape": "IDENTITY",
    "AcquisitionContextSequence": [],
}


def frame(path: Path, **differs: object) -> Frame:
    """Return a classic instance as a frame.

    Parameters
    ----------
    path : Path
        The instance.
    **differs : object
        ``stack_id``, ``temporal``, ``echo_time_ms``, ``image_type``, ``slope``, ``intercept``;
        what is not given is that of the instance.
    """
    return dcmread(path), differs


def frames(paths: Sequence[Path], **differs: object) -> list[Frame]:
    """Return classic instances as frames that differ from others in the same way."""
    return [frame(path, **differs) for path in paths]


def odd_order(many: Sequence[Frame], seed: int = 0) -> list[Frame]:
    """Return frames in an order that says nothing."""
    return random.Random(seed).sample(list(many), len(many))


def _group(**elements: object) -> list[Dataset]:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return [item]


def _code(value: str, scheme: str, meaning: str) -> list[Dataset]:
    return _group(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _frame_type(image_type: Sequence[str]) -> list[Dataset]:
    return _group(
        FrameType=list(image_type),
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
        ComplexImageComponent="MAGNITUDE",
        AcquisitionContrast="UNKNOWN",
    )


def _shared(ds: Dataset) -> Dataset:
    """Return what all frames have in common: how they were acquired."""
    shared = Dataset()
    shared.MRTimingAndRelatedParametersSequence = _group(
        RepetitionTime=ds.RepetitionTime,
        FlipAngle=ds.FlipAngle,
        EchoTrainLength=ds.get("EchoTrainLength", 1),
        RFEchoTrainLength=int(ds.get("EchoTrainLength", 1)),
        GradientEchoTrainLength=0,
        SpecificAbsorptionRateSequence=_group(
            SpecificAbsorptionRateDefinition="IEC_WHOLE_BODY", SpecificAbsorptionRateValue=0.1
        ),
        GradientOutputType="ELECTRIC_FIELD",
        GradientOutput=1.0,
        OperatingModeSequence=_group(OperatingModeType="STATIC FIELD", OperatingMode="IEC_NORMAL"),
    )
    is_inverted = "InversionTime" in ds
    modifier = _group(
        InversionRecovery="YES" if is_inverted else "NO",
        FlowCompensation="NONE",
        Spoiling="NONE",
        T2Preparation="NO",
        SpectrallySelectedExcitation="NONE",
        SpatialPresaturation="NONE",
        PartialFourier="NO",
        ParallelAcquisition="NO",
    )
    if is_inverted:
        modifier[0].InversionTimes = [float(ds.InversionTime)]
    shared.MRModifierSequence = modifier
    shared.MRFOVGeometrySequence = _group(
        InPlanePhaseEncodingDirection="ROW",
        MRAcquisitionFrequencyEncodingSteps=int(ds.Columns),
        MRAcquisitionPhaseEncodingStepsInPlane=int(ds.Rows),
        PercentSampling=100.0,
        PercentPhaseFieldOfView=100.0,
    )
    shared.MRImagingModifierSequence = _group(
        MagnetizationTransfer="NONE",
        BloodSignalNulling="NO",
        Tagging="NONE",
        TransmitterFrequency=float(ds.ImagingFrequency),
        PixelBandwidth=200.0,
    )
    shared.MRReceiveCoilSequence = _group(
        ReceiveCoilName="HEAD",
        ReceiveCoilManufacturerName="",
        ReceiveCoilType="VOLUME",
        QuadratureReceiveCoil="YES",
    )
    shared.MRTransmitCoilSequence = _group(
        TransmitCoilName="BODY", TransmitCoilManufacturerName="", TransmitCoilType="BODY"
    )
    shared.MRAveragesSequence = _group(NumberOfAverages=1)
    shared.FrameAnatomySequence = _group(
        FrameLaterality="U", AnatomicRegionSequence=_code("12738006", "SCT", "Brain")
    )
    return shared


def _per_frame(ds: Dataset, differs: Mapping[str, Any], number: int) -> Dataset:
    """Return what one frame has of its own: where it lies and what its values mean."""
    stack_id, temporal = str(differs.get("stack_id", 1)), int(differs.get("temporal", 1))
    when = f"{ds.AcquisitionDate}{ds.AcquisitionTime}"
    group = Dataset()
    group.FrameContentSequence = _group(
        StackID=stack_id,
        InStackPositionNumber=number,
        TemporalPositionIndex=temporal,
        FrameAcquisitionNumber=1,
        FrameReferenceDateTime=when,
        FrameAcquisitionDateTime=when,
        FrameAcquisitionDuration=1000.0,
        DimensionIndexValues=[1, number, temporal],
    )
    group.PlanePositionSequence = _group(ImagePositionPatient=ds.ImagePositionPatient)
    group.PlaneOrientationSequence = _group(ImageOrientationPatient=ds.ImageOrientationPatient)
    group.PixelMeasuresSequence = _group(
        PixelSpacing=ds.PixelSpacing,
        SliceThickness=ds.SliceThickness,
        SpacingBetweenSlices=ds.SpacingBetweenSlices,
    )
    group.MREchoSequence = _group(
        EffectiveEchoTime=float(differs.get("echo_time_ms", ds.get("EchoTime", 0.0)))
    )
    group.MRImageFrameTypeSequence = _frame_type(
        differs.get("image_type", ["ORIGINAL", "PRIMARY", "UNKNOWN", "NONE"])
    )
    group.FrameVOILUTSequence = _group(WindowCenter=ds.WindowCenter, WindowWidth=ds.WindowWidth)
    group.PixelValueTransformationSequence = _group(
        RescaleIntercept=differs.get("intercept", 0),
        RescaleSlope=differs.get("slope", 1),
        RescaleType="US",
    )
    return group


def _head(first: Dataset) -> Dataset:
    """Return what an enhanced instance says of itself, besides its frames."""
    ds = Dataset()
    for keyword in _COPIED:
        if keyword in first:
            ds[keyword] = first[keyword]
    for keyword, value in _FIXED.items():
        setattr(ds, keyword, value)
    ds.ContentDate, ds.ContentTime = first.StudyDate, first.StudyTime
    ds.AcquisitionDateTime = f"{first.StudyDate}{first.StudyTime}"
    ds.EchoPulseSequence = "GRADIENT"
    if first.get("ScanningSequence") == "SE":
        ds.EchoPulseSequence, ds.MultipleSpinEcho = "SPIN", "NO"
    if first.MRAcquisitionType == "3D":
        ds.CoverageOfKSpace = "FULL"
    return ds


def _dimensions(ds: Dataset) -> None:
    uid = derived_uid(ds.SOPInstanceUID, "dimensions")
    ds.DimensionOrganizationSequence = _group(DimensionOrganizationUID=uid)
    ds.DimensionIndexSequence = [
        _group(
            DimensionOrganizationUID=uid,
            DimensionIndexPointer=pointer,
            FunctionalGroupPointer=0x00209111,
        )[0]
        for pointer in (0x00209056, 0x00209057, 0x00209128)
    ]


def enhanced(
    many: Sequence[Frame],
    path: Path,
    *,
    number: int = 1,
    is_open: bool = False,
    edit: Callable[[Dataset], None] | None = None,
    transfer_syntax_uid: UID = ExplicitVRLittleEndian,
) -> Path:
    """Write frames as one Enhanced MR Image, in the order given.

    Parameters
    ----------
    many : sequence of Frame
        What it holds.
    path : Path
        Its folder is created when absent.
    number : int
        Instance Number; the SOP Instance UID follows from it.
    is_open : bool
        Sequences and their items end with a delimiter and give no length.
    edit : callable, optional
        Changes the data set before it is written.
    transfer_syntax_uid : UID
        Of uncompressed pixels.
    """
    first = many[0][0]
    ds = _head(first)
    ds.SOPInstanceUID = derived_uid(first.SeriesInstanceUID, "enhanced", number)
    ds.InstanceNumber, ds.NumberOfFrames = number, len(many)
    _dimensions(ds)
    ds.SharedFunctionalGroupsSequence = [_shared(first)]
    ds.PerFrameFunctionalGroupsSequence = [
        _per_frame(one, differs, index) for index, (one, differs) in enumerate(many, start=1)
    ]
    ds.PixelData = b"".join(one.PixelData for one, _ in many)
    if edit is not None:
        edit(ds)
    if is_open:
        _open(ds)
    path.parent.mkdir(parents=True, exist_ok=True)
    return _saved(ds, path, transfer_syntax_uid)


def _open(ds: Dataset) -> None:
    for element in ds:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
                _open(item)


def _saved(ds: Dataset, path: Path, transfer_syntax_uid: UID) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = transfer_syntax_uid
    ds.file_meta = meta
    ds.save_as(path, enforce_file_format=True)
    return path


def instances(many: Sequence[Sequence[Frame]], folder: Path) -> list[Path]:
    """Write several enhanced instances of one series."""
    return [
        enhanced(one, folder / f"enhanced-{number}.dcm", number=number)
        for number, one in enumerate(many, start=1)
    ]


def concatenation(many: Sequence[Sequence[Frame]], folder: Path) -> list[Path]:
    """Write one enhanced instance that was split for sending (PS3.3 C.7.6.16.2.2.4)."""
    total, before, paths = len(many), 0, []
    source = derived_uid(many[0][0][0].SeriesInstanceUID, "concatenation")
    for number, one in enumerate(many, start=1):

        def edit(ds: Dataset, number: int = number, before: int = before) -> None:
            ds.ConcatenationUID = derived_uid(source, "parts")
            ds.SOPInstanceUIDOfConcatenationSource = source
            ds.InConcatenationNumber, ds.InConcatenationTotalNumber = number, total
            ds.ConcatenationFrameOffsetNumber = before

        paths.append(enhanced(one, folder / f"part-{number}.dcm", number=number, edit=edit))
        before += len(one)
    return paths


def legacy_converted(paths: Sequence[Path], path: Path) -> Path:
    """Write a classic series as one Legacy Converted Enhanced MR Image, by highdicom."""
    classic = [dcmread(one) for one in paths]
    for ds in classic:
        ds.BurnedInAnnotation = "NO"
    converted = LegacyConvertedEnhancedMRImage(
        classic,
        series_instance_uid=derived_uid(classic[0].SeriesInstanceUID, "legacy"),
        series_number=int(classic[0].SeriesNumber) + 100,
        sop_instance_uid=derived_uid(classic[0].SeriesInstanceUID, "legacy", 1),
        instance_number=1,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    converted.save_as(path, enforce_file_format=True)
    return path
