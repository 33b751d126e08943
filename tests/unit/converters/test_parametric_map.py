"""The entropy as a Parametric Map: values on their source images; the gate sees what is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from converters.errors import GridMismatchError, ReadBackError
from converters.parametric_map import build_parametric_map, check_parametric_map
from tests import peers, seg_examples
from tests.seg_examples import EVEN, IDENTITY, ODD, oblique_grid, read_sources

ENTROPY = replace(IDENTITY, tracking_uids={}, content_label="ENTROPY")


def some_field(shape: tuple[int, int, int]) -> NDArray[np.float32]:
    return np.random.default_rng(3).random(shape, dtype=np.float32)


@pytest.mark.parametrize("shape", [EVEN, ODD])
def test_values_come_back_to_the_bit_from_their_source_images(
    tmp_path: Path, shape: tuple[int, int, int]
) -> None:
    sources, field, grid = read_sources(tmp_path, shape), some_field(shape), oblique_grid(shape)
    path = tmp_path / "map.dcm"
    build_parametric_map(field, grid, sources, ENTROPY).save_as(path, enforce_file_format=True)
    check_parametric_map(path, field, grid, sources)
    found = pydicom.dcmread(path)
    assert found.SOPClassUID == pydicom.uid.ParametricMapStorage
    assert found.PatientID == sources[0].PatientID
    assert found.ContentQualification == "RESEARCH"
    assert found.SeriesDescription == IDENTITY.series_description
    shared = found.SharedFunctionalGroupsSequence[0]
    (mapping,) = shared.RealWorldValueMappingSequence
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    assert found.SoftwareVersions == list(IDENTITY.software_versions)


def test_the_same_field_gives_the_same_bytes(tmp_path: Path) -> None:
    sources, field, grid = read_sources(tmp_path, EVEN), some_field(EVEN), oblique_grid(EVEN)
    for name in ("one.dcm", "two.dcm"):
        built = build_parametric_map(field, grid, sources, ENTROPY)
        built.save_as(tmp_path / name, enforce_file_format=True)
    assert (tmp_path / "one.dcm").read_bytes() == (tmp_path / "two.dcm").read_bytes()


def test_frames_of_an_enhanced_instance_are_named(tmp_path: Path) -> None:
    field, grid = some_field(EVEN), oblique_grid(EVEN)
    sources, frames = seg_examples.as_frames(read_sources(tmp_path, EVEN), 9)
    path = tmp_path / "map.dcm"
    built = build_parametric_map(field, grid, sources, ENTROPY, frames)
    built.save_as(path, enforce_file_format=True)
    check_parametric_map(path, field, grid, sources, frames)
    with pytest.raises(ReadBackError):
        check_parametric_map(path, field, grid, sources, frames[::-1])


def test_what_differs_from_the_field_is_never_given_on(tmp_path: Path) -> None:
    sources, field, grid = read_sources(tmp_path, EVEN), some_field(EVEN), oblique_grid(EVEN)
    path = tmp_path / "map.dcm"
    build_parametric_map(field, grid, sources, ENTROPY).save_as(path, enforce_file_format=True)
    with pytest.raises(ReadBackError, match="other values"):
        check_parametric_map(path, field[::-1], grid, sources)
    with pytest.raises(ReadBackError, match="source image"):
        check_parametric_map(path, field, grid, sources[::-1])
    with pytest.raises(ReadBackError, match="frames"):
        check_parametric_map(path, field[:-1], grid, sources[:-1])
    foreign = pydicom.dcmread(path)
    foreign.PatientID = "another"
    foreign.save_as(path)
    with pytest.raises(ReadBackError, match="PatientID"):
        check_parametric_map(path, field, grid, sources)


def test_a_field_on_another_grid_is_refused(tmp_path: Path) -> None:
    sources = read_sources(tmp_path, EVEN)
    moved = oblique_grid(EVEN).index_to_lps_mm.copy()
    moved[0, 3] += 5.0
    grid = replace(oblique_grid(EVEN), index_to_lps_mm=moved)
    with pytest.raises(GridMismatchError):
        build_parametric_map(some_field(EVEN), grid, sources, ENTROPY)


def test_the_validator_finds_no_error(tmp_path: Path) -> None:
    peers.require("dciodvfy")
    sources, field, grid = read_sources(tmp_path, EVEN), some_field(EVEN), oblique_grid(EVEN)
    path = tmp_path / "map.dcm"
    build_parametric_map(field, grid, sources, ENTROPY).save_as(path, enforce_file_format=True)
    assert [line for line in peers.dciodvfy(path) if line.startswith("Error")] == []
