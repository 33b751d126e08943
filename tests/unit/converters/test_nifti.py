"""NIfTI out and back, seen through nibabel, and files that cannot be used."""

from __future__ import annotations

import gzip
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters import nifti
from converters.errors import NiftiUnusableError
from converters.volume import Code, Grid, LabelMap, Layers, Segment, Volume
from tests.phantoms import WrittenStudy

NiftiImage: Any = nib.Nifti1Image  # only half of nibabel is typed
RNG = np.random.default_rng(2)
ROLES = ("flair", "t1", "t1gd", "t2")
FRAME = "1.2.3"


def _segment(number: int) -> Segment:
    code = Code(value="1", scheme="SCT", meaning="thing")
    return Segment(
        number=number, label=f"{number}", category=code, type_code=code, color_rgb=(1, 2, 3)
    )


SEGMENTS = (_segment(1), _segment(2), _segment(3))


@pytest.fixture(scope="module")
def volume(small_study: WrittenStudy) -> Volume:
    """Return an oblique volume with unequal extents and fractions in its values."""
    original = small_study.study.volumes["t1gd"]
    noise = RNG.random(original.grid.shape, dtype=np.float32)
    return Volume(intensities=original.intensities + noise, grid=original.grid, role=original.role)


def _labels(grid: Grid) -> LabelMap:
    labels = RNG.integers(0, 4, grid.shape, dtype=np.uint8)
    return LabelMap(labels=labels, grid=grid, segments=SEGMENTS, model_id="m@1")


def _save(path: Path, values: np.ndarray[Any, Any], **fields: object) -> Path:
    """Write a file by nibabel alone, then change fields of its header as they lie in the file."""
    image = NiftiImage(values, np.diag([1.0, 2.0, 3.0, 1.0]))
    image.set_sform(image.affine, code=1)
    image.to_filename(path)
    content = bytearray(path.read_bytes())
    for name, value in fields.items():
        kind, at = NiftiImage.header_class.template_dtype.fields[name]
        content[at : at + kind.itemsize] = np.asarray(value, dtype=kind.base).tobytes()
    path.write_bytes(bytes(content))
    return path


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_a_volume_comes_back_bit_for_bit(name: str, volume: Volume, tmp_path: Path) -> None:
    nifti.write_volume(volume, tmp_path / name)
    back = nifti.read_volume(tmp_path / name, role="t1gd", frame_of_reference_uid=FRAME)
    assert np.array_equal(back.intensities, volume.intensities)
    assert back.grid.is_same_place(volume.grid, tolerance_mm=1e-4)
    assert back.grid.frame_of_reference_uid == FRAME
    assert back.role == "t1gd"


def test_another_reader_finds_each_voxel_at_its_place(volume: Volume, tmp_path: Path) -> None:
    nifti.write_volume(volume, tmp_path / "x.nii")
    image = NiftiImage.from_filename(tmp_path / "x.nii")
    slice_index, row, column = 5, 17, 41
    assert image.get_fdata()[column, row, slice_index] == volume.intensities[5, 17, 41]
    ras_mm = image.affine @ np.array([column, row, slice_index, 1.0])
    lps_mm = volume.grid.lps_mm(np.array([slice_index, row, column], dtype=np.float64))
    assert np.allclose(ras_mm[:3] * [-1, -1, 1], lps_mm, atol=1e-4)


def test_sform_and_qform_agree_in_scanner_positions(volume: Volume, tmp_path: Path) -> None:
    nifti.write_volume(volume, tmp_path / "x.nii")
    header = NiftiImage.from_filename(tmp_path / "x.nii").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    assert np.allclose(header.get_sform(), header.get_qform(), atol=1e-4)
    assert header.get_xyzt_units()[0] == "mm"


def test_channels_come_back_in_order(volume: Volume, tmp_path: Path) -> None:
    volumes = [
        Volume(intensities=volume.intensities * factor, grid=volume.grid, role=role)
        for factor, role in enumerate(ROLES, start=1)
    ]
    nifti.write_channels(volumes, tmp_path / "x.nii.gz")
    back = nifti.read_channels(tmp_path / "x.nii.gz", ROLES)
    assert [one.role for one in back] == list(ROLES)
    for one, wanted in zip(back, volumes, strict=True):
        assert np.array_equal(one.intensities, wanted.intensities)
        assert one.grid.is_same_place(volume.grid, tolerance_mm=1e-4)
        assert one.grid.frame_of_reference_uid == ""
    assert NiftiImage.from_filename(tmp_path / "x.nii.gz").shape[3] == 4


def test_channels_on_two_grids_are_our_own_mistake(volume: Volume, tmp_path: Path) -> None:
    moved = volume.grid.index_to_lps_mm.copy()
    moved[0, 3] += 1.0
    grid = Grid(shape=volume.grid.shape, index_to_lps_mm=moved, frame_of_reference_uid=FRAME)
    other = Volume(intensities=volume.intensities, grid=grid, role="t1")
    with pytest.raises(ValueError, match="different grids"):
        nifti.write_channels([volume, other], tmp_path / "x.nii.gz")


def test_a_label_map_comes_back_bit_for_bit(volume: Volume, tmp_path: Path) -> None:
    label_map = _labels(volume.grid)
    nifti.write_label_map(label_map, tmp_path / "x.nii.gz")
    back = nifti.read_label_map(
        tmp_path / "x.nii.gz", segments=SEGMENTS, model_id="m@1", frame_of_reference_uid=FRAME
    )
    assert np.array_equal(back.labels, label_map.labels)
    assert back.segments == SEGMENTS
    assert back.model_id == "m@1"
    assert NiftiImage.from_filename(tmp_path / "x.nii.gz").get_data_dtype() == np.uint8


def test_layers_come_back_bit_for_bit(volume: Volume, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 256, (2, *volume.grid.shape)).astype(np.uint8)
    given = Layers(values=values, most=255, grid=volume.grid, segments=SEGMENTS[:2], model_id="m@1")
    path = tmp_path / "x.nii.gz"
    nifti.write_layers(given, path)
    read = partial(nifti.read_layers, path, model_id="m@1", frame_of_reference_uid="1.2")
    back = read(most=255, segments=given.segments)
    assert np.array_equal(back.values, values)
    assert back.grid.is_same_place(volume.grid)
    assert NiftiImage.from_filename(path).get_data_dtype() == np.uint8
    with pytest.raises(NiftiUnusableError, match="2 layers, expected 1"):
        read(most=255, segments=given.segments[:1])
    with pytest.raises(NiftiUnusableError, match="not 0 to 9"):
        read(most=9, segments=given.segments)


def test_the_same_volume_gives_the_same_bytes(volume: Volume, tmp_path: Path) -> None:
    nifti.write_volume(volume, tmp_path / "one.nii.gz")
    nifti.write_volume(volume, tmp_path / "two.nii.gz")
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()


@pytest.mark.parametrize("code", ["u1", "<i2", "<u2", "<i4", "<f4", "<f8", ">i2"])
def test_files_of_other_programs_are_read_in_any_number_type(code: str, tmp_path: Path) -> None:
    values = RNG.integers(0, 100, (4, 5, 6)).astype(code)
    path = _save(tmp_path / "x.nii", values)
    back = nifti.read_volume(path, role="t1", frame_of_reference_uid="")
    assert np.array_equal(back.intensities, values.T.astype(np.float32))
    assert back.grid.shape == (6, 5, 4)
    assert back.grid.spacing_mm == (3.0, 2.0, 1.0)


def test_compression_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    path = _save(tmp_path / "x.nii", np.ones((2, 3, 4), dtype=np.float32))
    packed = tmp_path / "packed.nii"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert nifti.read_volume(packed, role="t1", frame_of_reference_uid="").grid.shape == (4, 3, 2)


def _four(value: float = 1.0) -> np.ndarray[Any, Any]:
    values = np.ones((3, 4, 5, 4), dtype=np.float32)
    values[1, 1, 1, 1] = value
    return values


@pytest.mark.parametrize(
    ("values", "header", "reason"),
    [
        (_four()[..., 0], {}, "3 dimensions, expected 4"),
        (_four()[..., :3], {}, "3 channels, expected 4"),
        (_four(np.nan), {}, "values that are not finite"),
        (_four(np.inf), {}, "values that are not finite"),
        (_four().astype(np.complex64), {}, "values that are not real numbers"),
        (_four(), {"sform_code": 0, "qform_code": 0}, "neither sform nor qform places the voxels"),
        (_four(), {"srow_x": [np.nan, 0, 0, 0]}, "its affine places no voxel"),
        (_four(), {"srow_x": [0, 0, 0, 0]}, "its affine places no voxel"),
        (_four(), {"xyzt_units": 1}, "lengths that are not millimetres"),
        (_four().astype("f8") * 1e300, {}, "values that are not finite"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_the_reason(
    values: np.ndarray[Any, Any], header: dict[str, object], reason: str, tmp_path: Path
) -> None:
    path = _save(tmp_path / "x.nii", values, **header)
    with pytest.raises(NiftiUnusableError) as caught:
        nifti.read_channels(path, ROLES)
    assert caught.value.evidence == {"reason": reason}


def test_a_file_of_endless_size_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = _save(tmp_path / "x.nii", _four(), dim=[4, 30000, 30000, 30000, 4, 1, 1, 1])
    with pytest.raises(NiftiUnusableError, match="at most 1073741824"):
        nifti.read_channels(path, ROLES)


def test_a_file_without_voxels_is_refused(tmp_path: Path) -> None:
    path = _save(tmp_path / "x.nii", np.ones((3, 0, 5, 4), dtype=np.float32))
    with pytest.raises(NiftiUnusableError):
        nifti.read_channels(path, ROLES)


@pytest.mark.parametrize("value", [4.0, -1.0, 0.5])
def test_a_value_that_is_no_label_is_refused(value: float, tmp_path: Path) -> None:
    values = np.zeros((3, 4, 5), dtype=np.float32)
    values[1, 1, 1] = value
    path = _save(tmp_path / "x.nii", values)
    with pytest.raises(NiftiUnusableError, match="beside 0 and 3 labels"):
        nifti.read_label_map(path, segments=SEGMENTS, model_id="m", frame_of_reference_uid="")


def test_a_file_that_is_gone_is_not_the_senders_fault(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        nifti.read_volume(tmp_path / "x.nii", role="t1", frame_of_reference_uid="")


@pytest.mark.filterwarnings("ignore")  # nibabel's and NumPy's own complaints about odd headers
@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_mangled_files_end_in_a_coded_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("mangled")
    content = bytearray(_save(folder / "x.nii", _four()).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, 351))
        junk = data.draw(st.binary(min_size=1, max_size=4))
        content[at : at + len(junk)] = junk
    packed = bytes(content[: data.draw(st.one_of(st.none(), st.integers(0, len(content))))])
    if data.draw(st.booleans()):
        packed = gzip.compress(packed)[: data.draw(st.one_of(st.none(), st.integers(0, 300)))]
    (folder / "y.nii").write_bytes(packed)
    try:
        channels = nifti.read_channels(folder / "y.nii", ROLES)
    except NiftiUnusableError:
        return
    assert len(channels) == 4
