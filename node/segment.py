"""Stage 3: the volumes of a case become a label map. Lives in the infer process alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from converters.volume import LabelMap, Volume
from inference import model as models
from inference.manifest import Manifest
from inference.model import LoadedModel
from inference.predict import Prediction, predict
from node import convert, findings, logs, model_set
from node.cases import AssembledCase
from node.settings import Model, Settings
from node.spool import Spool


def load_model(manifest: Manifest, settings: Model) -> LoadedModel:
    """Return a model as the settings want it; raises what `inference.model.load` does."""
    return models.load(
        manifest,
        device=settings.device,
        threads=settings.threads,
        precision=settings.precision,
        mask_folder=settings.brain_mask_folder,
        tta=settings.tta,
        uncertainty=settings.uncertainty,
        probabilities=settings.probabilities,
    )


class CaseModels:
    """Every model that segments cases, loaded, and ready before the first case.

    Parameters
    ----------
    manifest : Manifest
        The first one.
    settings : Settings
        Name the others, and where all of them run.
    """

    def __init__(self, manifest: Manifest, settings: Settings) -> None:
        self._manifest, self.further = manifest, model_set.further(settings)
        everyone = (manifest, *self.further)
        self._loaded = {one.id: load_model(one, settings.model) for one in everyone}
        self.first = self._loaded[manifest.id]

    def of(self, model_id: str) -> LoadedModel:
        """Return the one that works on a case."""
        return self._loaded[model_set.of_case(model_id, self._manifest, self.further).id]


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
    logs.get().info(
        "network.ran",
        case_id=case.case_id,
        model_id=prediction.label_map.model_id,
        duration_s=round(prediction.network_s, 3),
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
