"""Uploaded files are judged in passing: the same verdict as reading them, in little memory."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters import nifti, nifti_check
from converters.errors import CodedError, NiftiChannelsError, NiftiUnusableError

NiftiImage: Any = nib.Nifti1Image  # only half of nibabel is typed
ROLES = ("flair", "t1", "t1gd", "t2")
SHAPE = (3, 4, 5, 4)
PLENTY = 10**6


def _save(path: Path, values: np.ndarray[Any, Any], **fields: object) -> Path:
    """Write a file by nibabel alone, then change fields of its header as they lie in the file."""
    image = NiftiImage(values, np.diag([1.0, 2.0, 3.0, 1.0]))
    image.set_sform(image.affine, code=1)
    image.to_filename(path)
    if fields:
        content = bytearray(path.read_bytes())
        for name, value in fields.items():
            kind, at = NiftiImage.header_class.template_dtype.fields[name]
            content[at : at + kind.itemsize] = np.asarray(value, dtype=kind.base).tobytes()
        path.write_bytes(bytes(content))
    return path


def _values(kind: str = "float32") -> np.ndarray[Any, Any]:
    return np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(kind)


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_a_sound_file_passes(tmp_path: Path, name: str, kind: str) -> None:
    found = nifti_check.check_channels(
        _save(tmp_path / name, _values(kind)), ROLES, max_values=PLENTY
    )
    assert found.shape == SHAPE[:3]
    assert found.is_packed == name.endswith(".gz")


def test_what_a_file_is_called_says_nothing(tmp_path: Path) -> None:
    path = _save(tmp_path / "x.nii.gz", _values()).rename(tmp_path / "x.nii")
    assert nifti_check.check_channels(path, ROLES, max_values=PLENTY).is_packed


@pytest.mark.parametrize(
    ("shape", "found"),
    [((3, 4, 5), "3 dimensions"), ((3, 4, 5, 3), "3 channels"), ((3, 4, 5, 1, 4), "5 dimensions")],
)
def test_other_channels_are_refused_with_their_order(
    tmp_path: Path, shape: tuple[int, ...], found: str
) -> None:
    path = _save(tmp_path / "x.nii", np.zeros(shape, np.float32))
    with pytest.raises(NiftiChannelsError) as caught:
        nifti_check.check_channels(path, ROLES, max_values=PLENTY)
    assert found in str(caught.value)
    assert "flair, t1, t1gd, t2" in str(caught.value)


@pytest.mark.parametrize("at", [0, -1])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_is_found(tmp_path: Path, at: int, value: float) -> None:
    values = _values()
    values.flat[at] = value
    with pytest.raises(NiftiUnusableError, match="not finite"):
        nifti_check.check_channels(_save(tmp_path / "x.nii", values), ROLES, max_values=PLENTY)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("float64", {}),
        ("int16", {"scl_slope": 1e38, "scl_inter": 0.0}),
        ("int16", {"scl_slope": 1.0, "scl_inter": 3.4e38}),
    ],
)
def test_what_overflows_by_its_scaling_is_refused(
    tmp_path: Path, kind: str, fields: dict[str, float]
) -> None:
    values = _values(kind)
    values.flat[7] = 1e300 if kind == "float64" else 32767
    path = _save(tmp_path / "x.nii", values, **fields)
    if fields.get("scl_inter"):  # just below the limit
        nifti_check.check_channels(path, ROLES, max_values=PLENTY)
        return
    with pytest.raises(NiftiUnusableError, match="not finite"):
        nifti_check.check_channels(path, ROLES, max_values=PLENTY)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"magic": b"ni1"}, "no NIfTI-1 header"),
        ({"xyzt_units": 1}, "not millimetres"),
        ({"sform_code": 0, "qform_code": 0}, "neither sform nor qform"),
        ({"srow_x": [0, 0, 0, 0]}, "places no voxel"),
        ({"srow_y": [np.nan, 0, 0, 0]}, "places no voxel"),
        ({"vox_offset": 2.0**25}, "begin at byte 33554432"),
        ({"vox_offset": np.nan}, "begin at byte"),
        ({"vox_offset": 0.0}, "begin at byte 0"),
        ({"vox_offset": 400.0}, "cut off after 228 of 240 values"),
        ({"datatype": 128, "bitpix": 24}, "not real numbers"),
        ({"datatype": 999}, "unreadable"),
        ({"dim": [4, 3, 0, 5, 4, 1, 1, 1]}, "0 values"),
        ({"dim": [4, 3, -4, 5, 4, 1, 1, 1]}, "values, expected 1 to"),
        ({"dim": [4, 9999, 9999, 9999, 4, 1, 1, 1]}, "values, expected 1 to 1000000"),
    ],
)
def test_a_header_that_cannot_be_used_is_refused(
    tmp_path: Path, fields: dict[str, object], reason: str
) -> None:
    path = _save(tmp_path / "x.nii", _values(), **fields)
    with pytest.raises(CodedError, match=reason):
        nifti_check.check_channels(path, ROLES, max_values=PLENTY)


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path, name: str) -> None:
    content = _save(tmp_path / name, _values()).read_bytes()
    part = tmp_path / "part"
    for length in range(0, len(content), 7):
        part.write_bytes(content[:length])
        with pytest.raises(NiftiUnusableError):
            nifti_check.check_channels(part, ROLES, max_values=PLENTY)


def test_a_packed_file_with_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    path = _save(tmp_path / "x.nii.gz", _values())
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(NiftiUnusableError, match="BadGzipFile"):
        nifti_check.check_channels(path, ROLES, max_values=PLENTY)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(0, 347), st.integers(0, 255))
def test_whatever_passes_can_be_read(tmp_path: Path, at: int, value: int) -> None:
    content = bytearray(_save(tmp_path / "x.nii", _values("int16")).read_bytes())
    content[at] = value
    path = tmp_path / "changed.nii"
    path.write_bytes(bytes(content))
    try:
        found = nifti_check.check_channels(path, ROLES, max_values=PLENTY)
    except (NiftiUnusableError, NiftiChannelsError):
        return
    assert nifti.read_channels(path, ROLES)[0].grid.shape == found.shape[::-1]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("size", [2**31 - 1, 40, 7, 0, -16, -(2**31)])
def test_an_extension_that_does_not_end_before_the_voxels_is_refused(
    tmp_path: Path, size: int, order: str
) -> None:
    """Readers read as much as it claims: of a packed file of two megabytes, two gigabytes."""
    header = NiftiImage.header_class(endianness=order)
    image = NiftiImage(_values(f"{order}i2"), np.diag([1.0, 2.0, 3.0, 1.0]), header)
    image.set_sform(image.affine, code=1)
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"a remark"))
    content = bytearray(image.to_bytes())
    (tmp_path / "whole.nii").write_bytes(content)
    nifti_check.check_channels(tmp_path / "whole.nii", ROLES, max_values=PLENTY)
    content[352:356] = struct.pack(f"{order}i", size)
    (tmp_path / "x.nii").write_bytes(content)
    with pytest.raises(NiftiUnusableError, match="extension"):
        nifti_check.check_channels(tmp_path / "x.nii", ROLES, max_values=PLENTY)


def test_a_bomb_costs_no_memory(tmp_path: Path) -> None:
    shape = (256, 256, 128, 4)
    header = NiftiImage(np.zeros((1, 1, 1, 1), np.float32), np.eye(4)).header
    header.set_sform(np.eye(4), code=1)
    header.set_data_shape(shape)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    with gzip.open(tmp_path / "bomb.nii.gz", "wb") as packed:
        packed.write(header.binaryblock + b"\0" * 4)
        for _ in range(128):
            packed.write(bytes(2**20))
    tracemalloc.start()
    found = nifti_check.check_channels(tmp_path / "bomb.nii.gz", ROLES, max_values=2**26)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.shape == shape[:3]
    assert peak < 8 * 2**20
    with pytest.raises(NiftiUnusableError, match="33554432 values, expected 1 to 1000"):
        nifti_check.check_channels(tmp_path / "bomb.nii.gz", ROLES, max_values=1000)
