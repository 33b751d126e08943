"""Stage 3: the volumes of a case become a label map. Lives in the infer process alone."""

from __future__ import annotations

from collections.abc import Callable

from converters.volume import LabelMap
from inference.model import LoadedModel
from inference.predict import predict
from node import convert
from node.cases import AssembledCase
from node.spool import Spool


def segment_case(
    case: AssembledCase,
    model: LoadedModel,
    spool: Spool,
    progress: Callable[[int, int], None] | None = None,
) -> LabelMap:
    """Return the labels of a converted case on its reference series' grid.

    Raises
    ------
    InferenceError
        The model does not fit the input, or its output cannot be used.
    """
    volumes = convert.read_volumes(case, spool)
    return predict(
        list(volumes.values()), model, reference_role=case.reference_role, progress=progress
    )
