"""The slices that the page of a case leafs through: one file of voxels beside its result.

It is no working file: it stays as long as the result does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from converters import slice_views
from converters.planes import Rgb
from converters.slice_views import Layout
from converters.volume import LabelMap, Volume
from node.cases import AssembledCase
from node.spool import Spool

FILE_NAME: Final = "slices.npy"
KEY: Final = "slices"
"""Of a case's summary, where the layout of the file stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptLabel:
    """A label of the result, as the model that gave it declared it."""

    number: int
    label: str
    color_rgb: Rgb


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the file of a case holds."""

    layout: Layout
    labels: tuple[KeptLabel, ...]


def keep(
    volumes: Sequence[Volume], label_map: LabelMap, case: AssembledCase, spool: Spool
) -> dict[str, Any]:
    """Write the voxels of a segmented case to its folder; return what `of` reads.

    Parameters
    ----------
    volumes, label_map
        As of `slice_views.laid_out`.
    case, spool
        Whose they are, and where they go.
    """
    layout, layers = slice_views.laid_out(volumes, label_map)
    spool.publish(spool.case_folder(case.case_id) / FILE_NAME, partial(np.save, arr=layers))
    labels = [
        {"number": one.number, "label": one.label, "color_rgb": list(one.color_rgb)}
        for one in label_map.segments
    ]
    return {"layout": asdict(layout), "labels": labels}


def of(summary: Mapping[str, Any] | None) -> Kept | None:
    """Return what was kept of a case, by its summary; None for one without any."""
    found = (summary or {}).get(KEY)
    if found is None:
        return None
    return Kept(
        layout=Layout(**{name: tuple(values) for name, values in found["layout"].items()}),
        labels=tuple(
            KeptLabel(**{**one, "color_rgb": tuple(one["color_rgb"])}) for one in found["labels"]
        ),
    )


def layers(path: Path, layout: Layout) -> NDArray[np.uint8] | None:
    """Return the voxels, not read before they are needed; None while another run writes them."""
    if not path.is_file():
        return None
    found: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    return found if found.shape == layout.layers_shape else None
