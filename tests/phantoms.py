"""Synthetic studies on disk, and every way in which a series can be broken.

Each function copies a written series to another folder with one thing wrong; the files come back
in the order they went in. What went in stays as it is.
"""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from converters import phantom
from converters.mr_writer import derived_uid
from converters.phantom import PhantomFiles, PhantomStudy
from converters.phantom_scanner import Size

Edit = Callable[[int, Dataset], None]
"""Changes the instance at a slice index in place."""

HOSTILE_UIDS: tuple[bytes, ...] = (
    b"../../../../tmp/escaped",
    b"/etc/passwd",
    b"1.2.840/../../evil",
    b"1.2.3\r\nINJECTED 1",
    b"1.2.3'; DROP TABLE x;--",
    b"1.2.\xff\xfe\xe4.3",
    b"1.2.3.{0.__class__}",
    b"not a uid at all",
    b"1..2.3",
    b"1.2.003",
    b".",
)
"""Bytes that no identifier may hold; all fit where the phantom's own identifiers stand."""

ODD_AE_TITLES: tuple[str, ...] = (
    "A" * 16,
    "PACS WITH SPACE",
    "../../tmp/x",
    "$(touch x)",
    "{case_id}",
    "%s%n",
    "'\"<b>",
    "\u00c4\u00d6\u00dc",
)
"""Calling AE titles that must harm nobody; all within 16 characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenStudy:
    """A synthetic study and its files."""

    study: PhantomStudy
    files: PhantomFiles
    folder: Path

    @property
    def interleaved(self) -> list[Path]:
        """All files, one of each series in turn, as a router may send them."""
        rounds = itertools.zip_longest(*self.files.paths.values())
        return [path for one in rounds for path in one if path is not None]


def written(folder: Path, *, seed: int = 0, size: Size = "small") -> WrittenStudy:
    """Make a study and write it."""
    study = phantom.make_study(seed, size=size)
    return WrittenStudy(study=study, files=phantom.write_study(study, folder), folder=folder)


def edited(paths: Sequence[Path], folder: Path, edit: Edit) -> list[Path]:
    """Copy a series with an edit of each instance."""
    folder.mkdir(parents=True, exist_ok=True)
    copies = []
    for index, path in enumerate(paths):
        ds = dcmread(path)
        edit(index, ds)
        copies.append(_saved(ds, folder / path.name))
    return copies


def _saved(ds: Dataset, path: Path) -> Path:
    ds.save_as(path, enforce_file_format=True)
    return path


def copied(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Copy files as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copy(path, folder / path.name)) for path in paths]


def _normal(ds: Dataset) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    cosines = np.array(ds.ImageOrientationPatient, dtype=np.float64)
    return np.asarray(np.cross(cosines[:3], cosines[3:]))


def _move(ds: Dataset, by_mm: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    moved = np.array(ds.ImagePositionPatient, dtype=np.float64) + by_mm
    ds.ImagePositionPatient = [round(float(part), 6) for part in moved]


# -- series for the geometry gate -----------------------------------------------------------------


def missing_slice(paths: Sequence[Path], folder: Path, index: int = 3) -> list[Path]:
    """Leave out a slice from within."""
    return copied([path for at, path in enumerate(paths) if at != index], folder)


def duplicate_slice(paths: Sequence[Path], folder: Path, index: int = 3) -> list[Path]:
    """Add another instance at the position of a slice, as a second echo would."""
    copies = copied(paths, folder)
    ds = dcmread(paths[index])
    ds.SOPInstanceUID = derived_uid(ds.SOPInstanceUID, "again")
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.InstanceNumber = len(paths) + 1
    return [*copies, _saved(ds, folder / "again.dcm")]


def uneven_gap(
    paths: Sequence[Path], folder: Path, index: int = 3, shift_mm: float = 1.0
) -> list[Path]:
    """Move one slice along the normal."""

    def edit(at: int, ds: Dataset) -> None:
        if at == index:
            _move(ds, shift_mm * _normal(ds))

    return edited(paths, folder, edit)


def growing_gap(paths: Sequence[Path], folder: Path, growth_mm: float = 0.2) -> list[Path]:
    """Make every gap a little wider than the one before."""

    def edit(at: int, ds: Dataset) -> None:
        _move(ds, growth_mm * at * at * _normal(ds))

    return edited(paths, folder, edit)


def mixed_orientation(
    paths: Sequence[Path], folder: Path, index: int = 3, angle_deg: float = 5.0
) -> list[Path]:
    """Turn one slice about the first axis of the patient."""
    turn = np.radians(angle_deg)
    matrix = np.array(
        [[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]]
    )

    def edit(at: int, ds: Dataset) -> None:
        if at == index:
            turned = np.array(ds.ImageOrientationPatient, dtype=np.float64).reshape(2, 3) @ matrix.T
            ds.ImageOrientationPatient = [round(float(part), 9) for part in turned.ravel()]

    return edited(paths, folder, edit)


def mixed_matrix(paths: Sequence[Path], folder: Path, index: int = 3) -> list[Path]:
    """Cut the last row off one slice."""

    def edit(at: int, ds: Dataset) -> None:
        if at == index:
            ds.PixelData = ds.PixelData[: -2 * ds.Columns]
            ds.Rows -= 1

    return edited(paths, folder, edit)


def mixed_spacing(paths: Sequence[Path], folder: Path, index: int = 3) -> list[Path]:
    """Give one slice larger pixels."""

    def edit(at: int, ds: Dataset) -> None:
        if at == index:
            ds.PixelSpacing = [1.2 * float(part) for part in ds.PixelSpacing]

    return edited(paths, folder, edit)


def other_frame_of_reference(
    paths: Sequence[Path], folder: Path, index: int | None = None
) -> list[Path]:
    """Put one slice, or with None the whole series, into another frame of reference."""

    def edit(at: int, ds: Dataset) -> None:
        if index is None or at == index:
            ds.FrameOfReferenceUID = derived_uid(ds.FrameOfReferenceUID, "other")

    return edited(paths, folder, edit)


def sheared(paths: Sequence[Path], folder: Path, shift_mm: float = 0.5) -> list[Path]:
    """Displace each slice within its plane against the one before, as a tilted gantry does."""

    def edit(at: int, ds: Dataset) -> None:
        down_column = np.array(ds.ImageOrientationPatient[3:], dtype=np.float64)
        _move(ds, shift_mm * at * down_column)

    return edited(paths, folder, edit)


def without_attribute(
    paths: Sequence[Path], folder: Path, keyword: str, index: int | None = None
) -> list[Path]:
    """Delete an attribute from one slice, or with None from every one."""

    def edit(at: int, ds: Dataset) -> None:
        if index is None or at == index:
            delattr(ds, keyword)

    return edited(paths, folder, edit)


def with_attribute(
    paths: Sequence[Path], folder: Path, keyword: str, value: object, index: int | None = None
) -> list[Path]:
    """Set an attribute of one slice, or with None of every one; None empties it."""

    def edit(at: int, ds: Dataset) -> None:
        if index is None or at == index:
            setattr(ds, keyword, value)

    return edited(paths, folder, edit)


def with_bytes(
    paths: Sequence[Path], folder: Path, values: Mapping[str, bytes | None]
) -> list[Path]:
    """Put bytes, right or wrong, where values stand, or with None delete them.

    Other text that is not ASCII is replaced, so that it is right in any character set.
    """
    plain = {"PatientName": b"Plain^Name", "StudyDescription": b"plain"}

    def edit(_: int, ds: Dataset) -> None:
        for keyword, value in {**plain, **values}.items():
            ds.pop(keyword, None)
            if value is None:
                continue
            tag, kind = Tag(keyword), dictionary_VR(keyword)
            even = value + (b"\0" if kind == "UI" else b" ") * (len(value) % 2)
            ds[tag] = RawDataElement(tag, kind, len(even), even, 0, False, True)  # noqa: FBT003
        # What was read in another character set would be recoded.
        ds.set_original_encoding(
            is_implicit_vr=False, is_little_endian=True, character_encoding=ds._character_set
        )

    return edited(paths, folder, edit)


def constant_image(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Give every pixel the same value."""

    def edit(_: int, ds: Dataset) -> None:
        pixels = np.full((ds.Rows, ds.Columns), 7, dtype="<u2")
        ds.PixelData = pixels.tobytes()

    return edited(paths, folder, edit)


def multi_frame(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Put all slices as frames into one instance."""
    folder.mkdir(parents=True, exist_ok=True)
    headers = [dcmread(path) for path in paths]
    ds = deepcopy(headers[0])
    ds.NumberOfFrames = len(headers)
    ds.PixelData = b"".join(one.PixelData for one in headers)
    return [_saved(ds, folder / "frames.dcm")]


def two_series_in_one(first: Sequence[Path], second: Sequence[Path], folder: Path) -> list[Path]:
    """Give the instances of a second series the Series Instance UID of the first."""
    series_uid = dcmread(first[0], stop_before_pixels=True).SeriesInstanceUID

    def edit(_: int, ds: Dataset) -> None:
        ds.SeriesInstanceUID = series_uid

    return copied(first, folder / "first") + edited(second, folder / "second", edit)


# -- series that are unusual and whole ------------------------------------------------------------


def shuffled(paths: Sequence[Path], folder: Path, seed: int = 0) -> list[Path]:
    """Give the slices random instance numbers and file names; geometry alone tells the order."""
    numbers = random.Random(seed).sample(range(1, len(paths) + 1), len(paths))
    folder.mkdir(parents=True, exist_ok=True)
    copies = []
    for number, path in zip(numbers, paths, strict=True):
        ds = dcmread(path)
        ds.InstanceNumber = number
        copies.append(_saved(ds, folder / f"IM{number:05d}"))
    return sorted(copies)


def negative_values(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Store signed pixels with a slope and an intercept."""

    def edit(_: int, ds: Dataset) -> None:
        stored = np.frombuffer(ds.PixelData, dtype="<u2").astype(np.int32) - 1024
        ds.PixelData = stored.astype("<i2").tobytes()
        ds.PixelRepresentation, ds.BitsStored, ds.HighBit = 1, 16, 15
        ds.RescaleSlope, ds.RescaleIntercept = 0.5, -3.25

    return edited(paths, folder, edit)


# -- files for the way in -------------------------------------------------------------------------


def truncated(path: Path, folder: Path, share: float = 0.6) -> Path:
    """Cut a file off."""
    folder.mkdir(parents=True, exist_ok=True)
    content = path.read_bytes()
    target = folder / f"truncated-{path.name}"
    target.write_bytes(content[: int(len(content) * share)])
    return target


def same_uid_other_bytes(path: Path, folder: Path) -> Path:
    """Change one pixel and nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    ds = dcmread(path)
    first = int.from_bytes(ds.PixelData[:2], "little")
    ds.PixelData = ((first + 1) % 4096).to_bytes(2, "little") + ds.PixelData[2:]
    return _saved(ds, folder / f"changed-{path.name}")


def without_uid(path: Path, folder: Path, keyword: str) -> Path:
    """Delete an identifier from the data set; the file's own header keeps it."""
    folder.mkdir(parents=True, exist_ok=True)
    ds = dcmread(path)
    delattr(ds, keyword)
    return _saved(ds, folder / f"without-{keyword}-{path.name}")


def with_raw_uid(path: Path, folder: Path, keyword: str, value: bytes) -> Path:
    """Overwrite an identifier in the data set with any bytes, padded with nulls.

    Raises
    ------
    ValueError
        `value` is longer than what stands there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = path.read_bytes()
    start, length = _element(content, path, keyword)
    if len(value) > length:
        raise ValueError(f"{len(value)} bytes do not fit into {length}")
    target = folder / f"raw-{keyword}-{path.name}"
    target.write_bytes(content[:start] + value.ljust(length, b"\0") + content[start + length :])
    return target


def _element(content: bytes, path: Path, keyword: str) -> tuple[int, int]:
    """Return where the value of a UI element of the data set starts, and its length."""
    tag = Tag(keyword)
    head = tag.group.to_bytes(2, "little") + tag.elem.to_bytes(2, "little") + b"UI"
    value = str(dcmread(path, stop_before_pixels=True)[keyword].value).encode("ascii")
    start = content.index(head)
    length = int.from_bytes(content[start + 6 : start + 8], "little")
    if not content[start + 8 :].startswith(value):
        raise ValueError(f"{keyword} is not where it is expected")
    return start + 8, length
