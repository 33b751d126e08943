"""Pictures as Secondary Capture: whose they are, what they refer to, and the same bytes again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from converters.errors import ReadBackError
from converters.secondary_capture import Picture, ShownSeries, build_capture, check_capture
from converters.seg import build_segmentation
from tests import seg_examples
from tests.seg_examples import EVEN, IDENTITY

PICTURE = Picture(
    pixels=np.random.default_rng(3).integers(0, 256, (6, 5, 3)).astype(np.uint8),
    title="Axial slices through the tumour, FLAIR",
    number=3,
)
OWN = replace(
    IDENTITY,
    sop_instance_uid="2.25.2001",
    series_instance_uid="2.25.2002",
    series_number=9004,
    series_description="AI pictures - research use only",
)
FLAIR = ShownSeries(
    series_instance_uid="2.25.3000",
    instances=(
        ("1.2.840.10008.5.1.4.1.1.4", "2.25.3001"),
        ("1.2.840.10008.5.1.4.1.1.4", "2.25.3002"),
    ),
)


@pytest.fixture
def sources(tmp_path: Path) -> list[Dataset]:
    return seg_examples.read_sources(tmp_path / "series", EVEN)


@pytest.fixture
def seg(sources: list[Dataset]) -> Dataset:
    labels = seg_examples.label_map(seg_examples.some_labels(EVEN))
    return build_segmentation(labels, sources, IDENTITY)


def read_back(capture: Dataset, folder: Path) -> Dataset:
    return pydicom.dcmread(seg_examples.written(capture, folder / "capture.dcm"))


def test_pixels_come_back_as_they_were(
    sources: list[Dataset], seg: Dataset, tmp_path: Path
) -> None:
    ds = read_back(build_capture(PICTURE, seg, sources[0], OWN), tmp_path)
    assert np.array_equal(ds.pixel_array, PICTURE.pixels)
    assert ds.SOPClassUID == SecondaryCaptureImageStorage
    assert (ds.PhotometricInterpretation, ds.BitsAllocated) == ("RGB", 8)
    assert ds.file_meta.TransferSyntaxUID.is_little_endian
    assert not ds.file_meta.TransferSyntaxUID.is_compressed


def test_a_capture_belongs_to_the_patient_and_study_in_a_series_of_its_own(
    sources: list[Dataset], seg: Dataset, tmp_path: Path
) -> None:
    ds = read_back(build_capture(PICTURE, seg, sources[0], OWN), tmp_path)
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID"):
        assert ds[keyword].value == sources[0][keyword].value
    assert ds.get("SpecificCharacterSet") == sources[0].get("SpecificCharacterSet")
    assert (ds.SOPInstanceUID, ds.SeriesInstanceUID) == ("2.25.2001", "2.25.2002")
    assert (ds.Modality, ds.InstanceNumber) == ("OT", 3)
    assert "research use only" in ds.SeriesDescription
    assert "research use only" in ds.ImageComments
    assert (ds.Manufacturer, ds.ManufacturerModelName) == ("NeuroSeg Node", "NeuroSeg Node")


def test_a_capture_says_that_something_is_burnt_in_and_what_it_was_drawn_from(
    sources: list[Dataset], seg: Dataset, tmp_path: Path
) -> None:
    ds = read_back(build_capture(PICTURE, seg, sources[0], OWN, [FLAIR]), tmp_path)
    assert ds.BurnedInAnnotation == "YES"
    assert "some-model 1.2.3" in ds.DerivationDescription
    assert ds.PatientOrientation in ("", None)
    series = {one.SeriesInstanceUID for one in ds.ReferencedSeriesSequence}
    assert series == {
        IDENTITY.series_instance_uid,
        sources[0].SeriesInstanceUID,
        FLAIR.series_instance_uid,
    }
    images = [one.ReferencedSOPInstanceUID for one in ds.SourceImageSequence]
    assert images[0] == IDENTITY.sop_instance_uid
    assert {one.SOPInstanceUID for one in sources} <= set(images)
    assert images[-2:] == ["2.25.3001", "2.25.3002"]
    assert len(images) == 1 + len(sources) + 2


def test_a_series_that_holds_both_sequences_is_referenced_once(
    sources: list[Dataset], seg: Dataset
) -> None:
    same = replace(FLAIR, series_instance_uid=str(sources[0].SeriesInstanceUID))
    ds = build_capture(PICTURE, seg, sources[0], OWN, [same])
    assert len(ds.ReferencedSeriesSequence) == 2
    assert len(ds.SourceImageSequence) == 1 + len(sources)


def test_a_lossy_source_makes_a_lossy_picture(sources: list[Dataset], seg: Dataset) -> None:
    seg.LossyImageCompression, seg.LossyImageCompressionRatio = "01", 12.5
    seg.LossyImageCompressionMethod = "ISO_10918_1"
    ds = build_capture(PICTURE, seg, sources[0], OWN)
    assert (ds.LossyImageCompression, ds.LossyImageCompressionRatio) == ("01", 12.5)


def test_the_same_picture_gives_the_same_bytes(
    sources: list[Dataset], seg: Dataset, tmp_path: Path
) -> None:
    files = []
    for name in ("one.dcm", "two.dcm"):
        capture = build_capture(PICTURE, seg, sources[0], OWN, [FLAIR])
        files.append(seg_examples.written(capture, tmp_path / name).read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID"])
def test_a_file_for_another_patient_is_found_out(
    sources: list[Dataset], seg: Dataset, tmp_path: Path, keyword: str
) -> None:
    capture = build_capture(PICTURE, seg, sources[0], OWN)
    setattr(capture, keyword, "2.25.9")
    path = seg_examples.written(capture, tmp_path / "other.dcm")
    with pytest.raises(ReadBackError, match=keyword):
        check_capture(path, PICTURE, sources[0])


def test_a_file_with_other_pixels_is_found_out(
    sources: list[Dataset], seg: Dataset, tmp_path: Path
) -> None:
    path = seg_examples.written(build_capture(PICTURE, seg, sources[0], OWN), tmp_path / "c.dcm")
    check_capture(path, PICTURE, sources[0])
    with pytest.raises(ReadBackError, match="pixels"):
        check_capture(path, replace(PICTURE, pixels=PICTURE.pixels[::-1]), sources[0])


@pytest.mark.parametrize("keyword", ["PatientName", "PatientBirthDate", "AccessionNumber"])
def test_a_source_that_lacks_an_attribute_gives_a_good_picture(
    sources: list[Dataset], seg: Dataset, tmp_path: Path, keyword: str
) -> None:
    del sources[0][keyword]
    path = seg_examples.written(build_capture(PICTURE, seg, sources[0], OWN), tmp_path / "c.dcm")
    check_capture(path, PICTURE, sources[0])
    assert pydicom.dcmread(path)[keyword].is_empty


def test_without_a_segmentation_a_capture_refers_to_the_images_that_it_shows(
    sources: list[Dataset], tmp_path: Path
) -> None:
    sources[0].LossyImageCompression = "01"
    ds = read_back(build_capture(PICTURE, None, sources[0], OWN, [FLAIR]), tmp_path)
    check_capture(tmp_path / "capture.dcm", PICTURE, sources[0])
    assert [one.SeriesInstanceUID for one in ds.ReferencedSeriesSequence] == ["2.25.3000"]
    images = [one.ReferencedSOPInstanceUID for one in ds.SourceImageSequence]
    assert images == ["2.25.3001", "2.25.3002"]
    assert ds.LossyImageCompression == "01"
