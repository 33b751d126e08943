"""The card of a model that is served: what it takes, what it gives, and who vouches for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from inference.declarations import Concept
from inference.manifest import Manifest
from node import model_set
from node.web import health
from node.web.views import Sources

_CARD: Final = "MODEL_CARD.md"
_LONGEST_CARD: Final = 2**18


@dataclass(frozen=True, slots=True, kw_only=True)
class InputView:
    """A sequence that the model takes; one that is not required may be missing."""

    role: str
    sequence: str
    is_required: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MeaningView:
    """What a label, or labels together, mean: the code is that of the Segmented Property Type."""

    numbers: tuple[int, ...]
    label: str
    code: str
    scheme: str
    meaning: str
    color_rgb: tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """A model as its folder declares it.

    `is_loaded`: a living process has loaded exactly these weights, checked against their digest.
    `has_self_test`: what it gives for seeded noise was recorded, `neuroseg model test` compares.
    What an `is_shadow` finds goes to nobody. `text` is that of its MODEL_CARD.md, where it has one.
    """

    id: str
    version: str
    title: str
    demonstration: bool
    is_shadow: bool
    licence: str
    intended_use: str
    architecture: str
    weights_file: str
    weights_sha256: str
    is_loaded: bool
    has_self_test: bool
    spacing_mm: tuple[float, ...]
    orientation: str
    skull: str
    window: tuple[int, ...]
    reference_role: str
    inputs: tuple[InputView, ...]
    labels: tuple[MeaningView, ...]
    regions: tuple[MeaningView, ...]
    text: str


def cards(sources: Sources) -> tuple[ModelCard, ...]:
    """Return the cards of the models that the node serves, the first one first."""
    return tuple(_card(sources, one) for one in (sources.manifest, *sources.further))


def _card(sources: Sources, manifest: Manifest) -> ModelCard:
    state = health.read(sources.ledger, manifest, sources.settings.jobs, sources.spool)
    return ModelCard(
        id=manifest.id,
        version=manifest.version,
        title=manifest.title,
        demonstration=manifest.is_demonstration,
        is_shadow=model_set.is_shadow(manifest, sources.settings, sources.further),
        licence=manifest.licence,
        intended_use=manifest.intended_use,
        architecture=manifest.network.architecture,
        weights_file=manifest.weights.file,
        weights_sha256=manifest.weights_sha256,
        is_loaded=state.model_loaded,
        has_self_test=manifest.self_test is not None,
        spacing_mm=manifest.space.spacing_mm,
        orientation=manifest.space.orientation,
        skull=manifest.space.skull,
        window=manifest.infer.window,
        reference_role=manifest.reference_role,
        inputs=tuple(
            InputView(
                role=one.role,
                sequence=one.sequence,
                is_required=one.role not in manifest.missing_input.allowed,
            )
            for one in manifest.inputs
        ),
        labels=tuple(_meaning((one.number,), one) for one in manifest.labels),
        regions=tuple(_meaning(one.labels, one) for one in manifest.regions),
        text=_text(manifest),
    )


def _meaning(numbers: tuple[int, ...], concept: Concept) -> MeaningView:
    return MeaningView(
        numbers=numbers,
        label=concept.label,
        code=concept.type_code.value,
        scheme=concept.type_code.scheme,
        meaning=concept.type_code.meaning,
        color_rgb=concept.color_rgb,
    )


def _text(manifest: Manifest) -> str:
    """Return the text of the card; one that is absent or no text is none."""
    try:
        with (manifest.folder / _CARD).open(encoding="utf-8") as file:
            return file.read(_LONGEST_CARD)
    except (OSError, ValueError):
        return ""
