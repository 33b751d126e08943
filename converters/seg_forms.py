"""The other forms of a Segmentation: segments that overlap, probabilities, and a label map.

Identity, sources and gate are those of `converters.seg`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from highdicom.seg import SegmentationTypeValues
from pydicom.dataset import Dataset

from converters.seg import Pixels, SegIdentity, encode, masks_form
from converters.seg_check import check_label_map, check_layers
from converters.volume import LabelMap, Layers

__all__ = ["build_label_map", "build_layers", "check_label_map", "check_layers"]


def build_layers(
    layers: Layers, sources: Sequence[Dataset], identity: SegIdentity, frames: Sequence[int] = ()
) -> Dataset:
    """Return the Segmentation of layers, with file meta information.

    Parameters
    ----------
    layers : Layers
        Masks become BINARY, or FRACTIONAL OCCUPANCY as in `build_segmentation`; probabilities
        become FRACTIONAL PROBABILITY of 8 bits.
    sources, identity, frames
        See `converters.seg.build_segmentation`, which also says what is raised.

    References
    ----------
    DICOM PS3.3 C.8.20.2 Segmentation Image: Segments Overlap, Segmentation Fractional Type.
    """
    values, has_any = np.moveaxis(layers.values, 0, -1), bool(layers.values.any())
    _, rows, columns = layers.grid.shape
    if layers.most == 1:
        pixels = Pixels(values=values, form=masks_form(rows, columns), has_any=has_any)
    else:
        pixels = Pixels(
            values=values / np.float32(layers.most),
            form=SegmentationTypeValues.FRACTIONAL,
            has_any=has_any,
            fractional="PROBABILITY",
            most=layers.most,
        )
    seg = encode(pixels, layers, sources, identity, frames)
    seg.SegmentsOverlap = "YES"  # they may, whether or not they do here
    return seg


def build_label_map(
    label_map: LabelMap,
    sources: Sequence[Dataset],
    identity: SegIdentity,
    frames: Sequence[int] = (),
) -> Dataset:
    """Return the Label Map Segmentation of a label map, as `build_segmentation` its Segmentation.

    References
    ----------
    DICOM PS3.3 A.51 with Segmentation Type LABELMAP (Supplement 243, since 2024c).
    """
    pixels = Pixels(
        values=label_map.labels,
        form=SegmentationTypeValues.LABELMAP,
        has_any=bool(label_map.labels.any()),
    )
    return encode(pixels, label_map, sources, identity, frames)
