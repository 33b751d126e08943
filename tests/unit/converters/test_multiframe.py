"""Multi-frame instances hold the same volume as the classic ones that they were made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RawDataStorage,
    RLELossless,
)

from converters import series
from converters.errors import InputRejectedError
from converters.series import Part
from tests import enhanced, phantoms
from tests.phantoms import WrittenStudy

FEW = 8


@pytest.fixture(scope="module")
def classic(small_study: WrittenStudy) -> list[Path]:
    """Return an oblique series with an inversion time, in slice order."""
    return small_study.files.paths["flair"]


def parts_of(paths: list[Path]) -> tuple[Part, ...]:
    return series.parts(series.read_headers(paths), paths)


def assert_same_volume(part: Part, classic: list[Path]) -> None:
    found, wanted = part.stack(limits=None), series.stack(classic, limits=None)
    assert np.array_equal(found.grid.index_to_lps_mm, wanted.grid.index_to_lps_mm)
    assert found.grid.shape == wanted.grid.shape
    assert found.grid.frame_of_reference_uid == wanted.grid.frame_of_reference_uid
    voxels = series.load(found, "flair", limits=None).intensities
    assert np.array_equal(voxels, series.load(wanted, "flair", limits=None).intensities)


def refusal(paths: list[Path]) -> InputRejectedError:
    (part,) = parts_of(paths)
    assert part.headers
    with pytest.raises(InputRejectedError) as caught:
        part.stack()
    return caught.value


@pytest.mark.parametrize("is_open", [False, True], ids=["lengths", "delimiters"])
def test_an_enhanced_instance_is_the_classic_volume(
    classic: list[Path], tmp_path: Path, *, is_open: bool
) -> None:
    many = enhanced.odd_order(enhanced.frames(classic))
    path = enhanced.enhanced(many, tmp_path / "enhanced.dcm", is_open=is_open)
    (part,) = parts_of([path])
    assert part.name == ""
    assert sorted(part.frames) == list(range(1, len(classic) + 1))
    assert_same_volume(part, classic)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_encodings_of_an_enhanced_instance_are_the_same_volume(
    syntax: UID, classic: list[Path], tmp_path: Path
) -> None:
    def edit(ds: Dataset) -> None:
        if syntax == ExplicitVRBigEndian:
            ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()

    path = enhanced.enhanced(
        enhanced.frames(classic), tmp_path / "x.dcm", transfer_syntax_uid=syntax, edit=edit
    )
    (part,) = parts_of([path])
    assert float(part.headers[0].EchoTime) == 88.0
    assert_same_volume(part, classic)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_a_compressed_enhanced_instance_is_the_same_volume(
    syntax: UID, classic: list[Path], tmp_path: Path
) -> None:
    many = enhanced.odd_order(enhanced.frames(classic))
    path = enhanced.enhanced(many, tmp_path / "x.dcm")
    ds = dcmread(path)
    ds.compress(syntax)
    ds.save_as(path)
    (part,) = parts_of([path])
    assert_same_volume(part, classic)


def test_a_legacy_converted_instance_is_the_classic_volume(
    classic: list[Path], tmp_path: Path
) -> None:
    (part,) = parts_of([enhanced.legacy_converted(classic, tmp_path / "legacy.dcm")])
    assert_same_volume(part, classic)
    wanted = dcmread(classic[0])
    for keyword in ("EchoTime", "RepetitionTime", "InversionTime", "FlipAngle", "SequenceVariant"):
        assert part.headers[0].get(keyword) == wanted.get(keyword), keyword


def test_an_instance_for_every_slice_is_one_volume(classic: list[Path], tmp_path: Path) -> None:
    single = [[enhanced.frame(path)] for path in classic]
    paths = enhanced.instances(enhanced.odd_order(single), tmp_path)  # type: ignore[arg-type]
    (part,) = parts_of(paths)
    assert set(part.frames) == {1}
    assert_same_volume(part, classic)


def test_several_instances_are_one_volume(classic: list[Path], tmp_path: Path) -> None:
    halves = [enhanced.frames(classic[0::2]), enhanced.frames(classic[1::2])]
    (part,) = parts_of(enhanced.instances(halves, tmp_path))
    assert_same_volume(part, classic)


def test_classic_and_enhanced_instances_may_share_a_series(
    classic: list[Path], tmp_path: Path
) -> None:
    path = enhanced.enhanced(enhanced.frames(classic[5:]), tmp_path / "x.dcm")
    (part,) = parts_of([path, *classic[:5]])
    assert part.frames[-5:] == (0,) * 5
    assert_same_volume(part, classic)


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ({"echo_time_ms": 11.0}, {"echo_time_ms": 92.0}, ("EchoTime=11", "EchoTime=92")),
        (
            {"temporal": 1},
            {"temporal": 2},
            ("TemporalPositionIdentifier=1", "TemporalPositionIdentifier=2"),
        ),
        (
            {"image_type": ["ORIGINAL", "PRIMARY", "T1", "WATER"]},
            {"image_type": ["DERIVED", "PRIMARY", "T1", "FAT"]},
            ("ImageType=2", "ImageType=1"),
        ),
    ],
    ids=["echoes", "times", "kinds"],
)
def test_acquisitions_in_one_instance_are_told_apart(
    first: dict[str, object],
    second: dict[str, object],
    names: tuple[str, str],
    classic: list[Path],
    tmp_path: Path,
) -> None:
    other = phantoms.negative_values(classic, tmp_path / "other")
    for path in other:  # one encoding for all frames of an instance
        ds = dcmread(path)
        ds.PixelRepresentation, ds.BitsStored, ds.HighBit = 0, 12, 11
        ds.PixelData = bytes(reversed(dcmread(classic[0]).PixelData))[: len(ds.PixelData)]
        ds.PixelData = (np.frombuffer(ds.PixelData, "<u2") & 0xFFF).tobytes()
        ds.RescaleSlope, ds.RescaleIntercept = 1, 0
        ds.save_as(path)
    many = enhanced.odd_order(
        [*enhanced.frames(classic, **first), *enhanced.frames(other, **second)]
    )
    found = {one.name: one for one in parts_of([enhanced.enhanced(many, tmp_path / "x.dcm")])}
    assert set(found) == set(names)
    assert_same_volume(found[names[0]], classic)
    assert_same_volume(found[names[1]], other)


def test_stacks_in_one_instance_are_told_apart(classic: list[Path], tmp_path: Path) -> None:
    def far(_: int, ds: Dataset) -> None:
        ds.ImagePositionPatient = [float(part) + 500 for part in ds.ImagePositionPatient]

    other = phantoms.edited(classic, tmp_path / "other", far)
    many = [*enhanced.frames(classic, stack_id=1), *enhanced.frames(other, stack_id=2)]
    found = {one.name: one for one in parts_of([enhanced.enhanced(many, tmp_path / "x.dcm")])}
    assert_same_volume(found["StackID=1"], classic)
    assert_same_volume(found["StackID=2"], other)


def test_every_frame_has_a_rescale_of_its_own(classic: list[Path], tmp_path: Path) -> None:
    many = [
        enhanced.frame(path, slope=1 + index / 4, intercept=-index)
        for index, path in enumerate(classic)
    ]
    (part,) = parts_of([enhanced.enhanced(enhanced.odd_order(many), tmp_path / "x.dcm")])
    voxels = series.load(part.stack(), "flair").intensities
    for index, path in enumerate(classic):
        assert np.array_equal(voxels[index], dcmread(path).pixel_array * (1 + index / 4) - index)


def test_raw_data_among_the_images_is_left_out(classic: list[Path], tmp_path: Path) -> None:
    (raw,) = phantoms.with_attribute(classic[:1], tmp_path, "SOPClassUID", RawDataStorage)
    (part,) = parts_of([raw, *classic])
    assert_same_volume(part, classic)


def test_nothing_but_raw_data_is_no_volume(classic: list[Path], tmp_path: Path) -> None:
    raw = phantoms.with_attribute(classic[:2], tmp_path, "SOPClassUID", RawDataStorage)
    assert refusal(raw).code == "GEOM_TOO_FEW_SLICES"


def test_a_concatenation_is_one_volume(classic: list[Path], tmp_path: Path) -> None:
    thirds = [enhanced.frames(classic[at::3]) for at in range(3)]
    (part,) = parts_of(enhanced.concatenation(thirds, tmp_path))
    assert_same_volume(part, classic)


def test_a_concatenation_that_does_not_say_its_size_is_taken_as_it_is(
    classic: list[Path], tmp_path: Path
) -> None:
    paths = enhanced.concatenation([enhanced.frames(classic)], tmp_path)
    ds = dcmread(paths[0])
    del ds.InConcatenationTotalNumber
    ds.save_as(paths[0])
    assert_same_volume(parts_of(paths)[0], classic)
