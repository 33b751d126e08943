"""The models that work on studies: one that every study opens a case of, and further ones.

A study is received once. As the case of the first model is decided the study's cases of the further
ones are opened (`Ledger.close_case`), each of which is then decided by what its own model needs.
"""

from __future__ import annotations

from collections.abc import Sequence

from converters.volume import Role
from inference import manifest as manifests
from inference.manifest import Manifest
from node.errors import ConfigError
from node.settings import Settings


def further(settings: Settings) -> tuple[Manifest, ...]:
    """Return the manifests of the further models; weights are not read.

    Raises
    ------
    ModelUnusableError
        A folder holds no model.
    ConfigError
        Two models have the same name, or a route names one that there is not.
    """
    found = tuple(manifests.load(one.folder) for one in settings.further_models)
    names = [one.id for one in found]
    if names:
        names.insert(0, manifests.load(settings.model.folder).id)
    if len({*names}) < len(names):
        raise ConfigError(reason="two models have the same id: each needs a folder of its own")
    for route in settings.routes:
        if names and not {*(route.models or ())} <= {*names}:
            among = ", ".join(names)
            raise ConfigError(reason=f"route {route.name!r}: models is none of {among}")
    return found


def of_case(model_id: str, first: Manifest, others: Sequence[Manifest]) -> Manifest:
    """Return the model of a case; the first one where its own is no longer served.

    Another version of a model takes the cases of an earlier one.
    """
    name = model_id.partition("@")[0]
    return next((one for one in others if one.id == name), first)


def is_shadow(manifest: Manifest, settings: Settings, others: Sequence[Manifest]) -> bool:
    """Say whether what a model finds is recorded and goes to nobody."""
    shadows = [one.shadow for one in settings.further_models]
    for other, shadow in zip(others, shadows, strict=False):
        if other.id == manifest.id:
            return shadow
    return settings.model.shadow


def roles_of(first: Manifest, others: Sequence[Manifest]) -> tuple[Role, ...]:
    """Return the inputs of all models, those of the first one first."""
    return tuple(dict.fromkeys(role for one in (first, *others) for role in one.roles))


def roles(settings: Settings) -> tuple[Role, ...]:
    """Return the inputs of all models of the settings; raises what `further` does."""
    return roles_of(manifests.load(settings.model.folder), further(settings))
