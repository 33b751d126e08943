"""Stage 3: the volumes of a case become a label map. Lives in the infer process alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from converters.volume import LabelMap, Volume
from inference.model import LoadedModel
from inference.predict import Prediction, predict
from node import convert, findings
from node.cases import AssembledCase
from node.spool import Spool


def segment_case(
    case: AssembledCase,
    model: LoadedModel,
    spool: Spool,
    progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> LabelMap:
    """Return the labels of a converted case on its reference series' grid; keep the findings.

    Raises
    ------
    InferenceError
        The input is not what the model can work on, the model does not fit it, its output cannot
        be used, or `stop` said that nobody wants it any more.
    """
    volumes = convert.read_volumes(case, spool)
    prediction = predict(
        list(volumes.values()),
        model,
        reference_role=case.reference_role,
        progress=progress,
        stop=stop,
    )
    findings.write(_content(prediction), case, spool)
    convert.drop_extras(case, spool)
    if prediction.uncertainty is not None:
        entropy = Volume(
            intensities=prediction.uncertainty.entropy,
            grid=prediction.label_map.grid,
            role="entropy",
        )
        convert.write_entropy(entropy, case, spool)
    if prediction.probabilities is not None:
        convert.write_probabilities(prediction.probabilities, case, spool)
    return prediction.label_map


def _content(prediction: Prediction) -> dict[str, Any]:
    unsure, mirrored = prediction.uncertainty, prediction.mirrored_axes
    return {
        "notes": [str(note) for note in prediction.notes],
        "brain_ml": prediction.brain_ml,
        "mask_source": prediction.mask_source,
        "coverage": dict(prediction.coverage),
        "plausibility": asdict(prediction.plausibility),
        "uncertainty": unsure and {"mean_by_label": unsure.mean_by_label, "p95": unsure.p95},
        "tta": {"axes": list(mirrored), "passes": 2 ** len(mirrored)} if mirrored else None,
    }
