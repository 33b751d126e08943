"""A field of numbers becomes a DICOM Parametric Map on the grid of one source series.

Real numbers of 32 bits, one frame a slice, each tied to its one source image, as in
`converters.seg`, whose identity and sources it shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
from highdicom.pm import ParametricMap, RealWorldValueMapping
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from converters import seg_sources
from converters.errors import ReadBackError
from converters.read_back import check_origin, read
from converters.seg import SegIdentity, dress, made_by
from converters.volume import OWN_SCHEME, Grid

ENTROPY = Code("PREDICTIVE_ENTROPY", OWN_SCHEME, "Predictive entropy, share of the largest")
"""No standard code says it; the scheme is our own."""


_TOLERANCE_MM = 0.12  # as much as the stacking gate lets a slice lie off the even grid


def build_parametric_map(
    field: NDArray[np.float32],
    grid: Grid,
    sources: Sequence[Dataset],
    identity: SegIdentity,
    frames: Sequence[int] = (),
) -> Dataset:
    """Return the Parametric Map of a field between 0 and 1, with file meta information.

    Parameters
    ----------
    field : (slices, rows, columns) ndarray of float32
        On the native grid of the sources.
    grid : Grid
        Where its voxels lie.
    sources, identity, frames
        See `converters.seg.build_segmentation`; tracking UIDs and segments are not used.

    Raises
    ------
    GridMismatchError
        The field does not lie on the grid of the sources.
    MissingAttributeError
        A source lacks an attribute that places or names it.

    References
    ----------
    DICOM PS3.3 A.75 Parametric Map IOD.
    """
    carriers = seg_sources.carriers_of(sources, grid, frames)
    seg_sources.check_grid(grid, carriers)
    created = seg_sources.on_clock_of(sources[0], identity.created_at)
    mapping = RealWorldValueMapping(
        lut_label="ENTROPY",
        lut_explanation=ENTROPY.meaning,
        unit=codes.UCUM.NoUnits,
        value_range=(0.0, 1.0),
        slope=1.0,
        intercept=0.0,
        quantity_definition=ENTROPY,
    )
    found = ParametricMap(
        source_images=carriers,
        pixel_array=field,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=0.5, window_width=1.0)],
        **made_by(identity, created),
    )
    seg_sources.point_at_frames(found, sources, frames)
    dress(found, sources[0], identity, created)
    return found


def check_parametric_map(
    path: Path,
    field: NDArray[np.float32],
    grid: Grid,
    sources: Sequence[Dataset],
    frames: Sequence[int] = (),
) -> None:
    """Raise `ReadBackError` unless a file holds the field, each frame on its own source image.

    Parameters
    ----------
    path : Path
        The written file.
    field, grid, sources, frames
        What it was built from.
    """
    written = read(path)
    check_origin(written, sources[0], has_planes=True)
    index = np.zeros((len(field), 3))
    index[:, 0] = np.arange(len(field))
    positions_mm = grid.lps_mm(index)
    groups = written.PerFrameFunctionalGroupsSequence
    if len(groups) != len(field):
        raise ReadBackError(reason=f"{len(groups)} frames, expected {len(field)}")
    for group, values in zip(groups, written.pixel_array, strict=True):
        position_mm = np.array(group.PlanePositionSequence[0].ImagePositionPatient, np.float64)
        off_mm = np.linalg.norm(positions_mm - position_mm, axis=1)
        at = int(off_mm.argmin())
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        is_source = image.ReferencedSOPInstanceUID == sources[at].SOPInstanceUID
        if any(frames):
            is_source &= image.get("ReferencedFrameNumber") == frames[at]
        if off_mm[at] > _TOLERANCE_MM or not is_source:
            raise ReadBackError(reason="a frame is not on its source image")
        if not np.array_equal(values, field[at]):
            raise ReadBackError(reason="a frame holds other values")
