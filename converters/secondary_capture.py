"""Pictures for people become Secondary Capture images in a series of their own.

One single-frame instance a picture, RGB, 8 bits, uncompressed: the form that archives, viewers and
printers have always taken. Multi-frame True Color would be one object instead of a few, but
highdicom does not write it and not every archive negotiates it.

Burned In Annotation is YES. The pictures name no patient, but they do bear the date of the study,
and whoever removes identities from a series has to look at them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.valuerep import DA, TM

from converters import seg_sources
from converters.errors import ReadBackError
from converters.read_back import check_origin, read
from converters.seg import SegIdentity, dress, made_by

_OF_SEGMENTATIONS: Final = ("content_description", "content_label")
_LOSSY: Final = (
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """What is captured.

    Parameters
    ----------
    pixels : (rows, columns, 3) ndarray of uint8
        sRGB.
    title : str
        What it shows.
    number : int
        Its place in the series, from 1.
    """

    pixels: NDArray[np.uint8]
    title: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSeries:
    """A source series that pictures show; `instances` are SOP Class and Instance UIDs."""

    series_instance_uid: str
    instances: tuple[tuple[str, str], ...]


def build_capture(
    picture: Picture,
    seg: Dataset | None,
    source: Dataset,
    identity: SegIdentity,
    more: Sequence[ShownSeries] = (),
) -> Dataset:
    """Return a picture as a Secondary Capture image, with file meta information.

    Parameters
    ----------
    picture : Picture
        Pixels and what they show.
    seg : Dataset or None
        The Segmentation whose outlines it shows, if there is one; pixel data is not needed.
    source : Dataset
        Header of an instance of the series that the Segmentation was made on.
    identity : SegIdentity
        Of this instance; tracking UIDs, dimensions, description and label of content are not used.
    more : sequence of ShownSeries
        Other series that are shown.

    References
    ----------
    DICOM PS3.3 A.8.1 Secondary Capture Image IOD, C.7.6.1 General Image.
    """
    created = seg_sources.on_clock_of(source, identity.created_at)
    told = {
        name: value
        for name, value in made_by(identity, created).items()
        if name not in _OF_SEGMENTATIONS
    }
    capture = hd.sc.SCImage(
        pixel_array=picture.pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),  # asked for; replaced below
        study_instance_uid=source.StudyInstanceUID,
        **{**told, "instance_number": picture.number},
    )
    capture.PatientOrientation = []  # a page shows several planes
    capture.ConversionType = "WSD"
    capture.SecondaryCaptureDeviceManufacturer = identity.manufacturer
    capture.SecondaryCaptureDeviceManufacturerModelName = identity.model_name
    capture.SecondaryCaptureDeviceSoftwareVersions = list(identity.software_versions)
    capture.DateOfSecondaryCapture = DA(created.date())
    capture.TimeOfSecondaryCapture = TM(created.time())
    capture.BurnedInAnnotation = "YES"
    capture.ImageComments = f"{picture.title}. AI, research use only."
    capture.DerivationDescription = (
        f"{picture.title}: outlines of a Segmentation by {identity.algorithm_name} "
        f"{identity.algorithm_version}, drawn over resampled images; not to be measured."
    )
    _refer(capture, seg, more)
    derived = source if seg is None else seg
    for keyword in _LOSSY:
        if derived.get(keyword) not in (None, ""):
            setattr(capture, keyword, derived.get(keyword))
    dress(capture, source, identity, created)
    return capture


def _refer(capture: Dataset, seg: Dataset | None, more: Sequence[ShownSeries]) -> None:
    """Say which Segmentation and which images were drawn."""
    images, drawn = ([], []) if seg is None else _of_segmentation(seg)
    known = {str(one.SeriesInstanceUID) for one in drawn}
    more = [one for one in more if one.series_instance_uid not in known]
    images += [_reference(*one) for series in more for one in series.instances]
    for image in images:
        purpose = hd.sr.CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)
        image.PurposeOfReferenceCodeSequence = [purpose]
    capture.SourceImageSequence = images
    capture.ReferencedSeriesSequence = [*drawn, *(_series(one) for one in more)]


def _of_segmentation(seg: Dataset) -> tuple[list[Dataset], list[Dataset]]:
    """Return references to a Segmentation and its source images, and to their series."""
    outlined = (str(seg.SOPClassUID), str(seg.SOPInstanceUID))
    own = ShownSeries(series_instance_uid=str(seg.SeriesInstanceUID), instances=(outlined,))
    images = [_reference(*outlined), *copy.deepcopy(list(seg.SourceImageSequence))]
    return images, [_series(own), *copy.deepcopy(list(seg.ReferencedSeriesSequence))]


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


def _series(shown: ShownSeries) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = shown.series_instance_uid
    item.ReferencedInstanceSequence = [_reference(*one) for one in shown.instances]
    return item


def check_capture(path: Path, picture: Picture, source: Dataset) -> None:
    """Raise `ReadBackError` unless a file holds the picture for the source's patient and study.

    Parameters
    ----------
    path : Path
        The written file.
    picture, source
        What it was built from.
    """
    written = read(path)
    check_origin(written, source)
    if not np.array_equal(written.pixel_array, picture.pixels):
        raise ReadBackError(reason="the picture has other pixels")
