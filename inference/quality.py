"""Whether a result can be believed: what a reader has to know about it, with a code each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from converters.volume import LabelMap
from inference import cleaning
from inference.declarations import Quality

ENTROPY_PERCENTILE: Final = 95.0
_LEAST_PIECE_MM3: Final = 50.0  # the BraTS challenge counts no smaller lesion


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What a reader of the result has to know about it or its input; codes are kept for ever."""

    code: str
    sentence: str

    def __str__(self) -> str:
        """Return both, as the page shows them."""
        return f"{self.code}: {self.sentence}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Uncertainty:
    """How unsure the model was, by the entropy of its probabilities, 0 (sure) to 1.

    Parameters
    ----------
    entropy : (slices, rows, columns) ndarray of float32
        On the grid of the reference volume; 0 beyond the model's field.
    mean_by_label : dict of str to float
        Mean over the voxels of each label that was found.
    p95 : float or None
        95th percentile over all labelled voxels; None where nothing was labelled.
    """

    entropy: NDArray[np.float32]
    mean_by_label: dict[str, float]
    p95: float | None


def uncertainty(entropy: NDArray[np.float32], label_map: LabelMap) -> Uncertainty:
    """Return what the entropy says of the labels that were found."""
    labels = label_map.labels
    means = {
        one.label: float(entropy[labels == one.number].mean(dtype=np.float64))
        for one in label_map.segments
        if (labels == one.number).any()
    }
    found = entropy[labels != 0]
    p95 = float(np.percentile(found, ENTROPY_PERCENTILE)) if found.size else None
    return Uncertainty(entropy=entropy, mean_by_label=means, p95=p95)


def judge(
    label_map: LabelMap,
    limits: Quality,
    *,
    brain_ml: float | None,
    share_outside: float,
    is_clipped: bool,
    unsure: Uncertainty | None,
) -> list[Note]:
    """Return what is unusual about a result.

    Parameters
    ----------
    label_map : LabelMap
        After post-processing.
    limits : Quality
        Of the manifest.
    brain_ml : float, optional
        How much brain there is; None where nobody knows.
    share_outside : float
        Which share of what was found lies outside of it.
    is_clipped : bool
        Whether that was removed.
    unsure : Uncertainty, optional
        None where it was not asked for.
    """
    return [
        *_size(label_map, limits, brain_ml),
        *_scatter(label_map, limits),
        *_place(limits, share_outside, is_clipped=is_clipped),
        *_doubt(limits, unsure),
    ]


def _size(label_map: LabelMap, limits: Quality, brain_ml: float | None) -> Iterator[Note]:
    tumour_ml = sum(label_map.volumes_ml().values())
    most_ml, most = limits.largest_tumour_ml, limits.largest_share_of_brain
    if most_ml is not None and tumour_ml > most_ml:
        sentence = f"{tumour_ml:.0f} mL are labelled, expected at most {most_ml:.0f} mL"
        yield Note(code="TUMOUR_LARGE", sentence=sentence)
    elif most is not None and brain_ml is not None and tumour_ml > most * brain_ml:
        share = tumour_ml / brain_ml
        sentence = f"{share:.0%} of the brain are labelled, expected at most {most:.0%}"
        yield Note(code="TUMOUR_LARGE", sentence=sentence)


def _scatter(label_map: LabelMap, limits: Quality) -> Iterator[Note]:
    if limits.most_components is None:
        return
    least_voxels = _LEAST_PIECE_MM3 / label_map.grid.voxel_volume_mm3
    count = cleaning.pieces(label_map.labels, least_voxels)
    if count > limits.most_components:
        sentence = (
            f"{count} separate pieces of {_LEAST_PIECE_MM3:.0f} mm3 or more are labelled, "
            f"expected at most {limits.most_components}"
        )
        yield Note(code="TUMOUR_SCATTERED", sentence=sentence)


def _place(limits: Quality, share: float, *, is_clipped: bool) -> Iterator[Note]:
    most = limits.largest_share_outside_brain
    if most is not None and share > most:
        where = "outside the brain" + (" and were removed" if is_clipped else "")
        sentence = f"{share:.0%} of what was found lie {where}, expected at most {most:.0%}"
        yield Note(code="TUMOUR_OUTSIDE_BRAIN", sentence=sentence)


def _doubt(limits: Quality, unsure: Uncertainty | None) -> Iterator[Note]:
    most = limits.entropy_p95
    if most is None or unsure is None or unsure.p95 is None or unsure.p95 <= most:
        return
    sentence = (
        f"the 95th percentile of the entropy is {unsure.p95:.2f}, expected at most {most:.2f}"
    )
    yield Note(code="RESULT_UNCERTAIN", sentence=sentence)
