"""The answer to a NIfTI file lies on its grid bit for bit, and carries nothing else of it."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from converters import nifti, nifti_answer
from converters.volume import Code, LabelMap, Segment

NiftiImage: Any = nib.Nifti1Image  # only half of nibabel is typed
Extension: Any = nib.nifti1.Nifti1Extension
ROLES = ("flair", "t1")
SHAPE = (5, 6, 7)
RNG = np.random.default_rng(4)
REMARK = '{"notice": "research use only"}'
PLACE = ("qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "xyzt_units", "quatern_b")

CODE = Code(value="1", scheme="SCT", meaning="thing")
SEGMENTS = tuple(
    Segment(number=one, label=f"{one}", category=CODE, type_code=CODE, color_rgb=(1, 2, 3))
    for one in (1, 2, 3)
)


def _oblique() -> NDArray[np.float64]:
    turn = np.radians(17.0)
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ np.diag([0.9, 1.1, 3.3])
    return np.block([[matrix, np.array([[-71.25], [40.1], [-3.75]])], [np.zeros(3), 1.0]])


AFFINES = {
    "RAS": np.diag([1.0, 1.0, 2.0, 1.0]),
    "LAS": np.diag([-0.97, 1.0, 2.0, 1.0]),
    "LPI": np.diag([-1.0, -1.0, -2.0, 1.0]),
    "turned": np.array([[0, 0, 2.0, 5], [1.5, 0, 0, 6], [0, -1.0, 0, 7], [0, 0, 0, 1]]),
    "oblique": _oblique(),
}


def _answered(
    tmp_path: Path, affine: NDArray[np.float64], codes: tuple[int, int], *, order: str = "<"
) -> tuple[Any, Any, NDArray[np.uint8]]:
    """Return the source, the answer read by nibabel alone, and the labels in the file's order."""
    header = NiftiImage.header_class(endianness=order)
    source = NiftiImage(np.zeros((*SHAPE, 2), np.int16), None, header, dtype=f"{order}i2")
    source.set_qform(affine, code=codes[0])
    source.set_sform(affine if codes[1] else None, code=codes[1])
    source.header.set_xyzt_units("mm", "sec")
    source.header["descrip"] = b"DOE^JANE"
    source.header["db_name"] = b"DOE^JANE"
    source.header["aux_file"] = b"DOE^JANE"
    source.header["intent_name"] = b"DOE^JANE"
    source.header["pixdim"][4] = 7.0
    source.header.extensions.append(Extension(6, b"DOE^JANE"))
    source.to_filename(tmp_path / "source.nii.gz")
    grid = nifti.read_channels(tmp_path / "source.nii.gz", ROLES)[0].grid
    labels = RNG.integers(0, 4, SHAPE, dtype=np.uint8)
    label_map = LabelMap(labels=labels.T, grid=grid, segments=SEGMENTS, model_id="m@1")
    nifti_answer.write_answer(
        label_map, tmp_path / "source.nii.gz", tmp_path / "answer.nii.gz", remark=REMARK
    )
    return (
        NiftiImage.from_filename(tmp_path / "source.nii.gz"),
        NiftiImage.from_filename(tmp_path / "answer.nii.gz"),
        labels,
    )


@pytest.mark.parametrize("codes", [(1, 1), (1, 0), (0, 2), (1, 4)])
@pytest.mark.parametrize("name", AFFINES)
def test_the_answer_lies_where_the_source_lies(
    tmp_path: Path, name: str, codes: tuple[int, int]
) -> None:
    source, answer, labels = _answered(tmp_path, AFFINES[name], codes)
    assert answer.shape == source.shape[:3]
    assert answer.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(answer.dataobj), labels)
    assert np.array_equal(answer.affine, source.affine)
    for field in PLACE:
        assert np.array_equal(answer.header[field], source.header[field]), field
    assert np.array_equal(answer.header["pixdim"][:4], source.header["pixdim"][:4])
    assert answer.header.get_intent()[0] == "label"


def test_nothing_that_may_name_a_patient_is_carried_over(tmp_path: Path) -> None:
    _, answer, _ = _answered(tmp_path, AFFINES["oblique"], (1, 1))
    content = gzip.decompress((tmp_path / "answer.nii.gz").read_bytes())
    assert b"DOE" not in content
    assert answer.header["descrip"] == b"research use only"
    assert [one.get_content() for one in answer.header.extensions] == [REMARK.encode()]
    assert [one.get_code() for one in answer.header.extensions] == [6]


def test_a_source_of_the_other_byte_order_is_answered_too(tmp_path: Path) -> None:
    source, answer, labels = _answered(tmp_path, AFFINES["oblique"], (1, 1), order=">")
    assert source.header.endianness == ">"
    assert np.array_equal(answer.affine, source.affine)
    assert np.array_equal(np.asarray(answer.dataobj), labels)


def test_the_extension_lies_where_the_format_wants_it(tmp_path: Path) -> None:
    _answered(tmp_path, AFFINES["LAS"], (1, 1))
    content = gzip.decompress((tmp_path / "answer.nii.gz").read_bytes())
    (offset,) = struct.unpack_from("<f", content, 108)
    flag, size, code = struct.unpack_from("<B3xii", content, 348)
    assert (flag, code, size % 16, int(offset)) == (1, 6, 0, 352 + size)
    assert content[360 : 352 + size].rstrip(b"\0") == REMARK.encode()
    assert len(content) == offset + np.prod(SHAPE)


@pytest.mark.parametrize("name", AFFINES)
def test_an_independent_reader_opens_the_answer_and_agrees(tmp_path: Path, name: str) -> None:
    sitk = pytest.importorskip("SimpleITK")
    _, answer, labels = _answered(tmp_path, AFFINES[name], (1, 1))
    image = sitk.ReadImage(str(tmp_path / "answer.nii.gz"))
    assert np.array_equal(sitk.GetArrayFromImage(image), labels.T)
    index = (1, 2, 3)
    lps = np.array(image.TransformIndexToPhysicalPoint(index))
    ras = (answer.affine @ [*index, 1.0])[:3]
    assert np.allclose(lps * [-1, -1, 1], ras, atol=1e-3)


def test_the_same_labels_give_the_same_bytes(tmp_path: Path) -> None:
    _answered(tmp_path, AFFINES["LAS"], (1, 1))
    first = (tmp_path / "answer.nii.gz").read_bytes()
    labels = np.asarray(NiftiImage.from_filename(tmp_path / "answer.nii.gz").dataobj)
    grid = nifti.read_channels(tmp_path / "source.nii.gz", ROLES)[0].grid
    label_map = LabelMap(labels=labels.T, grid=grid, segments=SEGMENTS, model_id="m@1")
    nifti_answer.write_answer(
        label_map, tmp_path / "source.nii.gz", tmp_path / "again.nii.gz", remark=REMARK
    )
    assert (tmp_path / "again.nii.gz").read_bytes() == first
