"""A label map written as the answer to a NIfTI file: on its very grid, with the labels' names.

The place of the voxels is copied field by field from the header of the source, so that not a bit of
it changes. Nothing else is: descriptions, file names and extensions may name a patient.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np

from converters import nifti, nifti_check
from converters.volume import LabelMap

_Extension: Any = nib.nifti1.Nifti1Extension  # only half of nibabel is typed

_PLACE: Final = (
    *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("sform_code", "srow_x", "srow_y", "srow_z", "xyzt_units"),
)
_COMMENT: Final = 6
_LABELS: Final = "label"
_NOTICE: Final = b"research use only"


def write_answer(label_map: LabelMap, source: Path, path: Path, *, remark: str) -> None:
    """Write labels as 3-D uint8 at the place that the header of `source` gives its voxels.

    Parameters
    ----------
    label_map : LabelMap
        Labels of the grid on which `converters.nifti.read_channels` placed the source.
    source : Path
        The file that is answered.
    path : Path
        Compressed where the name ends in ``.gz``.
    remark : str
        Goes into a header extension of code 6 (comment), which other readers pass over.

    References
    ----------
    nifti1.h: intent code 1002 (label); the section on extended headers.
    """
    stream, _ = nifti_check.open_content(source)
    with stream:
        given = nifti_check.read_header(stream)
    header = nifti.new_header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(label_map.labels.shape[::-1])
    for name in _PLACE:
        header[name] = given[name]
    header["pixdim"][:4] = given["pixdim"][:4]  # the first of them belongs to the qform
    header.set_intent(_LABELS)
    header["descrip"] = _NOTICE
    header.extensions.append(_Extension(_COMMENT, remark.encode("utf-8")))
    nifti.save(header, [label_map.labels], path)
