"""What the segment stage keeps of a prediction."""

from __future__ import annotations

import json
from typing import Any

import nibabel
import numpy as np

from converters.volume import Grid, LabelMap, Volume
from inference import manifest
from inference.plausibility import Plausibility
from inference.predict import Prediction
from inference.quality import Note, Uncertainty
from node import convert, segment
from node.spool import Spool
from tests.nodes import MODEL
from tests.unit.node.test_findings import CASE

SEGMENTS = manifest.load(MODEL).segments
GRID = Grid(shape=(3, 4, 5), index_to_lps_mm=np.diag([2.0, 2, 2, 1]), frame_of_reference_uid="")
ENTROPY = np.linspace(0.0, 1.0, 60, dtype=np.float32).reshape(GRID.shape)


def _prediction(unsure: Uncertainty | None, mirrored_axes: tuple[int, ...]) -> Prediction:
    labels = np.zeros(GRID.shape, np.uint8)
    return Prediction(
        label_map=LabelMap(labels=labels, grid=GRID, segments=SEGMENTS, model_id="m@1"),
        notes=(Note(code="RESULT_UNCERTAIN", sentence="very"),),
        brain_ml=1400.0,
        mask_source="network",
        coverage={"flair": 1.0},
        plausibility=Plausibility(),
        uncertainty=unsure,
        probabilities=None,
        mirrored_axes=mirrored_axes,
        network_s=1.5,
    )


def _kept(prediction: Prediction) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps(segment._content(prediction)))
    return content


def test_how_sure_the_model_is_is_kept_as_figures_without_voxels() -> None:
    unsure = Uncertainty(entropy=ENTROPY, mean_by_label={"Oedema": 0.25}, p95=0.5)
    content = _kept(_prediction(unsure, (0, 2)))
    assert content["uncertainty"] == {"mean_by_label": {"Oedema": 0.25}, "p95": 0.5}
    assert content["tta"] == {"axes": [0, 2], "passes": 4}
    assert content["notes"] == ["RESULT_UNCERTAIN: very"]


def test_what_was_not_asked_for_is_null() -> None:
    content = _kept(_prediction(None, ()))
    assert (content["uncertainty"], content["tta"]) == (None, None)


def test_the_entropy_lies_on_the_grid_of_the_labels(spool: Spool) -> None:
    convert.write_entropy(Volume(intensities=ENTROPY, grid=GRID, role="entropy"), CASE, spool)
    image = nibabel.Nifti1Image.from_filename(spool.case_folder(CASE.case_id) / "entropy.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, ENTROPY)
