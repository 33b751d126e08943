"""The nouns that the three packages share: grids, volumes, segments and label maps.

One array convention holds everywhere: axes are (slice, row, column), positions are patient LPS in
millimetres at voxel centres. A value that exists is valid: constructors check, instances are
frozen, arrays are read-only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

Role: TypeAlias = str
"""What a series is to the model: ``flair``, ``t1``, ``t1gd``, ``t2``."""

Shape: TypeAlias = tuple[int, int, int]
"""Slices, rows, columns."""

Box: TypeAlias = tuple[slice, slice, slice]
"""Part of an array: where it starts and stops along each axis."""

MM3_PER_ML = 1000.0

OWN_SCHEME = "99NEUROSEG"
"""Coding Scheme Designator of what no standard code says (private, PS3.3 8.2)."""

PROBABILITY_OF_ONE = 255
"""What a probability of 1 is kept as in 8 bits; the error of any is half a step at most."""

T = TypeVar("T", bound=np.generic)

_ROLE = re.compile(r"[a-z][a-z0-9_]{0,15}")
_MAX_LABEL = 255  # labels are uint8
_MAX_LABEL_LENGTH = 64  # Segment Label is LO, PS3.5 6.2
_MAX_COLOR = 255
_MIN_DETERMINANT = 1e-9


def _frozen(array: NDArray[T]) -> NDArray[T]:
    """Return a read-only view, so that a consumer copies knowingly."""
    view = array.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """Where the voxels of an array lie in the patient.

    Parameters
    ----------
    shape : tuple of int
        Slices, rows, columns; each at least 1.
    index_to_lps_mm : (4, 4) ndarray of float64
        Maps (slice, row, column, 1) to patient LPS millimetres of the voxel's centre.
    frame_of_reference_uid : str
        Frame of Reference UID (0020,0052) in which the positions hold; may be empty for files
        that carry none (NIfTI).

    Raises
    ------
    ValueError
        The shape has a zero, or the matrix is not finite, not affine or not invertible.

    References
    ----------
    DICOM PS3.3 C.7.6.2.1.1 Image Position and Image Orientation.
    """

    shape: Shape
    index_to_lps_mm: NDArray[np.float64]
    frame_of_reference_uid: str

    def __post_init__(self) -> None:
        matrix = np.asarray(self.index_to_lps_mm, dtype=np.float64)
        if min(self.shape) < 1:
            raise ValueError(f"grid shape {self.shape} is not three positive counts")
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            raise ValueError("index_to_lps_mm is not a finite 4x4 matrix")
        if not np.array_equal(matrix[3], [0.0, 0.0, 0.0, 1.0]):
            raise ValueError("index_to_lps_mm is not affine")
        if abs(np.linalg.det(matrix[:3, :3])) < _MIN_DETERMINANT:
            raise ValueError("index_to_lps_mm is not invertible")
        object.__setattr__(self, "shape", tuple(int(count) for count in self.shape))
        object.__setattr__(self, "index_to_lps_mm", _frozen(matrix.copy()))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbours along slice, row and column index, millimetres."""
        lengths = np.linalg.norm(self.index_to_lps_mm[:3, :3], axis=0)
        return float(lengths[0]), float(lengths[1]), float(lengths[2])

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel, cubic millimetres."""
        return float(abs(np.linalg.det(self.index_to_lps_mm[:3, :3])))

    def lps_mm(self, index: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return patient LPS positions of (..., 3) indices (slice, row, column)."""
        matrix = self.index_to_lps_mm
        return np.asarray(index, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3]

    def part(self, box: Box) -> Grid:
        """Return the grid of ``array[box]``."""
        matrix = self.index_to_lps_mm.copy()
        matrix[:3, 3] = self.lps_mm(np.array([one.start for one in box], dtype=np.float64))
        slices, rows, columns = (one.stop - one.start for one in box)
        return Grid(
            shape=(slices, rows, columns),
            index_to_lps_mm=matrix,
            frame_of_reference_uid=self.frame_of_reference_uid,
        )

    def is_same_place(self, other: Grid, *, tolerance_mm: float = 1e-3) -> bool:
        """Say whether both grids put every voxel on the same patient point."""
        if self.shape != other.shape:
            return False
        corners = np.array([[0, 0, 0], np.subtract(self.shape, 1)], dtype=np.float64)
        steps = np.vstack([corners, np.diag(np.subtract(self.shape, 1)).astype(np.float64)])
        return bool(np.abs(self.lps_mm(steps) - other.lps_mm(steps)).max() <= tolerance_mm)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Volume:
    """Intensities of one series on its own grid.

    Parameters
    ----------
    intensities : (slices, rows, columns) ndarray of float32
        After the modality LUT; MR units are arbitrary.
    grid : Grid
        Where the voxels lie.
    role : str
        What the series is to the model, lower case.
    """

    intensities: NDArray[np.float32]
    grid: Grid
    role: Role

    def __post_init__(self) -> None:
        if self.intensities.dtype != np.float32:
            raise ValueError(f"intensities are {self.intensities.dtype}, expected float32")
        if self.intensities.shape != self.grid.shape:
            raise ValueError(f"array {self.intensities.shape} lies on a grid {self.grid.shape}")
        if not _ROLE.fullmatch(self.role):
            raise ValueError("role is not a short lower-case word")
        object.__setattr__(self, "intensities", _frozen(self.intensities))


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A coded concept: value, coding scheme designator and meaning (PS3.3 section 8)."""

    value: str
    scheme: str
    meaning: str

    def __post_init__(self) -> None:
        if not (self.value and self.scheme and self.meaning):
            raise ValueError("a code needs value, scheme and meaning")


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One segment of a label map; its number is the voxel value and the DICOM Segment Number.

    Parameters
    ----------
    number : int
        1 to 255.
    label : str
        Segment Label (0062,0005), at most 64 characters.
    category, type_code : Code
        Segmented Property Category and Type (CID 7150, CID 7169).
    color_rgb : tuple of int
        Recommended display colour, sRGB 0 to 255.
    """

    number: int
    label: str
    category: Code
    type_code: Code
    color_rgb: tuple[int, int, int]

    def __post_init__(self) -> None:
        if not 1 <= self.number <= _MAX_LABEL:
            raise ValueError(f"segment number {self.number} is outside 1 to {_MAX_LABEL}")
        if not 1 <= len(self.label) <= _MAX_LABEL_LENGTH:
            raise ValueError("segment label has 1 to 64 characters")
        if not all(0 <= part <= _MAX_COLOR for part in self.color_rgb):
            raise ValueError(f"colour {self.color_rgb} is not sRGB 0 to 255")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelMap:
    """Integer labels on a grid, with what each of them means.

    Parameters
    ----------
    labels : (slices, rows, columns) ndarray of uint8
        0 is background, any other value the number of one of `segments`.
    grid : Grid
        Where the voxels lie.
    segments : tuple of Segment
        Numbered 1, 2, ... without a hole, in order.
    model_id : str
        Which model made it, as ``id@version``.
    """

    labels: NDArray[np.uint8]
    grid: Grid
    segments: tuple[Segment, ...]
    model_id: str

    def __post_init__(self) -> None:
        if self.labels.dtype != np.uint8:
            raise ValueError(f"labels are {self.labels.dtype}, expected uint8")
        if self.labels.shape != self.grid.shape:
            raise ValueError(f"array {self.labels.shape} lies on a grid {self.grid.shape}")
        if tuple(s.number for s in self.segments) != tuple(range(1, len(self.segments) + 1)):
            raise ValueError("segments are not numbered 1, 2, ... in order")
        if self.labels.max(initial=0) > len(self.segments):
            raise ValueError(f"label {self.labels.max()} has no segment")
        object.__setattr__(self, "labels", _frozen(self.labels))

    def volumes_ml(self) -> dict[int, float]:
        """Return the volume of each segment in millilitres, by segment number."""
        counts = {s.number: np.count_nonzero(self.labels == s.number) for s in self.segments}
        return {
            number: float(count) * self.grid.voxel_volume_mm3 / MM3_PER_ML
            for number, count in counts.items()
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layers:
    """A value for every voxel and segment: segments may overlap.

    Parameters
    ----------
    values : (segments, slices, rows, columns) ndarray of uint8
        0 to `most`.
    most : int
        1 where layers are masks, 255 where they are probabilities, as shares of 255.
    grid, segments, model_id
        As of a `LabelMap`.
    """

    values: NDArray[np.uint8]
    most: int
    grid: Grid
    segments: tuple[Segment, ...]
    model_id: str

    def __post_init__(self) -> None:
        if self.values.dtype != np.uint8:
            raise ValueError(f"values are {self.values.dtype}, expected uint8")
        if self.values.shape != (len(self.segments), *self.grid.shape):
            raise ValueError(f"array {self.values.shape} for {len(self.segments)} segments")
        if tuple(s.number for s in self.segments) != tuple(range(1, len(self.segments) + 1)):
            raise ValueError("segments are not numbered 1, 2, ... in order")
        if self.values.max(initial=0) > self.most:
            raise ValueError(f"value {self.values.max()} is above {self.most}")
        object.__setattr__(self, "values", _frozen(self.values))
