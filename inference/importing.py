"""Bring a trained network into the node: a checkpoint and a template become a model folder.

A template is a ``model.toml`` without identity and weights: it says what no checkpoint can, such as
the order of the inputs, the spacing and the meaning of the labels.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch
from torch import Tensor

from inference import checkpoints, fitting, manifest, networks, toml_text
from inference import model as models
from inference.checkpoints import Checkpoint
from inference.declarations import Network
from inference.errors import ModelImportError, ModelUnusableError
from inference.fitting import Fit
from inference.manifest import Manifest

WEIGHTS_NAME: Final = "model.safetensors"
REPORT_NAME: Final = "import.json"
TEMPLATES: Final = Path(__file__).parents[1] / "models" / "templates"

_NOT_IN_TEMPLATE: Final = ("id", "version", "weights")
_UNKNOWN_SHA256: Final = "0" * 64
_AUTO: Final = "auto"
_SEED: Final = 20
_HEAD: Final = "# Written by `neuroseg model import`; import.json says from what.\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was imported and what was left aside; kept beside the model.

    Parameters
    ----------
    source_sha256, kind, place, inert : str
        Of the checkpoint; see `inference.checkpoints.Checkpoint`.
    stripped, added : str
        How its names became the network's; see `inference.fitting.Fit`.
    parameter_count : int
        Numbers in the network, without counters.
    ignored : tuple of str
        Names in the state dict that are not the network's.
    norm : str
        Norm layers of a MONAI ``UNet``, as its names show them; '' for other networks.
    """

    source_sha256: str
    kind: str
    place: str
    stripped: str
    added: str
    parameter_count: int
    norm: str
    ignored: tuple[str, ...]
    inert: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Imported:
    """A model folder that was written and tested, and how it came to be."""

    manifest: Manifest
    report: Report


def template_file(name: str) -> Path:
    """Return the file of a template: one that comes with the project, or a path.

    Raises
    ------
    ModelImportError
        There is no such file.
    """
    built_in = sorted(file.stem for file in TEMPLATES.glob("*.toml"))
    file = TEMPLATES / f"{name}.toml" if name in built_in else Path(name)
    if not file.is_file():
        known = ", ".join(built_in)
        raise ModelImportError(reason=f"there is no template {name}; built in: {known}")
    return file


def import_checkpoint(
    source: Path,
    target_folder: Path,
    template: Path,
    *,
    model_id: str,
    version: str,
    prefix: str | None = None,
) -> Imported:
    """Write a model folder from a checkpoint, test it, and return it.

    Parameters
    ----------
    source : Path
        Written by ``torch.save`` (a Lightning checkpoint, a state dict) or safetensors.
    target_folder : Path
        Must not exist; appears whole or not at all.
    template : Path
        A ``model.toml`` without ``id``, ``version`` and ``[weights]``.
    model_id, version : str
        The model's identity.
    prefix : str, optional
        Which network of the checkpoint; needed where several fit.

    Raises
    ------
    ModelImportError
        The checkpoint cannot be read, is an attack or does not fit; the folder exists; the
        imported model fails its test.
    ModelUnusableError
        The template or the identity cannot be; `field` names the key.
    """
    target = target_folder.absolute()
    if target.exists():
        raise ModelImportError(reason=f"{target_folder} exists already; nothing is overwritten")
    draft = _draft(template, model_id, version)
    checkpoint = checkpoints.read(source)
    try:
        report = _written(target, draft, checkpoint, prefix)
    except OSError as error:
        reason = f"{target_folder} cannot be written ({type(error).__name__})"
        raise ModelImportError(reason=reason) from error
    return Imported(manifest=manifest.load(target), report=report)


def _written(
    target: Path, draft: dict[str, Any], checkpoint: Checkpoint, prefix: str | None
) -> Report:
    """Write a model folder beside its place, and move it there once it is tested and synced."""
    target.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        report = _fill(place, draft, checkpoint, prefix)
        place.chmod(0o755)
        _sync(place)
        place.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return report


def _draft(template: Path, model_id: str, version: str) -> dict[str, Any]:
    """Return the keys of the model to be, weights not yet known."""
    try:
        content = tomllib.loads(template.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = f"the template cannot be read ({type(error).__name__})"
        raise ModelImportError(reason=reason) from error
    for key in _NOT_IN_TEMPLATE:
        if key in content:
            raise ModelImportError(
                reason=f"the template has the key {key}, which it must leave out"
            )
    weights = {"file": WEIGHTS_NAME, "format": "safetensors", "sha256": _UNKNOWN_SHA256}
    first = {"schema_version": content.pop("schema_version", None)}
    return {**first, "id": model_id, "version": version, **content, "weights": weights}


def _fill(place: Path, draft: dict[str, Any], source: Checkpoint, prefix: str | None) -> Report:
    """Write all files of the model folder and test it."""
    norm = _settle_norm(draft, source)
    network = _declared(place, draft).network
    with torch.device("meta"):
        wanted = {name: one.shape for name, one in networks.build(network).state_dict().items()}
    fit = fitting.fit(source.parameters, wanted, prefix=prefix)
    content = safetensors.torch.save({key: t.contiguous() for key, t in fit.parameters.items()})
    draft["weights"]["sha256"] = hashlib.sha256(content).hexdigest()
    _write(place / WEIGHTS_NAME, content)
    declared = _declared(place, draft)
    report = _report(source, fit, norm)
    _write(place / REPORT_NAME, f"{json.dumps(asdict(report), indent=2)}\n".encode())
    self_test(declared, fit.parameters)
    return report


def _declared(place: Path, draft: dict[str, Any]) -> Manifest:
    _write(place / manifest.FILE_NAME, (_HEAD + toml_text.dumps(draft)).encode())
    return manifest.load(place)


def _settle_norm(draft: dict[str, Any], source: Checkpoint) -> str:
    """Check the norm layers that a template declares for a MONAI ``UNet``, or fill them in.

    MONAI's default has no parameters, so that a network of the wrong norm may load strictly and
    give other labels; hence the look at the names.
    """
    network = draft.get("network")
    if not isinstance(network, dict) or network.get("architecture") != "monai.UNet":
        return ""
    kwargs = network.get("kwargs")
    if not isinstance(kwargs, dict):
        return ""
    found = fitting.norm_of_unet(source.parameters)
    said = kwargs.get("norm", _AUTO)
    if said != _AUTO:
        expected = _kind_of(said)
        if found != expected:
            raise ModelImportError(
                reason=f"the template declares {expected} norm, the parameters show {found} norm"
            )
    elif found == "affine":
        raise ModelImportError(
            reason="its norm layers have weights and no running statistics; the template has to "
            "say which they are, such as norm = ['group', {num_groups = 4}]"
        )
    else:
        kwargs["norm"] = found
    return found


def _kind_of(norm: object) -> str:
    """Return the kind that a MONAI ``norm`` argument will show in the names."""
    match norm:
        case [str(name), dict(options)]:
            has_weights = bool(options.get("affine", name.lower() != "instance"))
        case str(name):
            has_weights = name.lower() != "instance"
        case _:
            raise ModelUnusableError(field="network.kwargs", reason="norm is not a known one")
    if name.lower() == "batch":
        return "batch"
    return "affine" if has_weights else "instance"


def _report(source: Checkpoint, fit: Fit, norm: str) -> Report:
    return Report(
        source_sha256=source.sha256,
        kind=source.kind,
        place=source.place,
        stripped=fit.stripped,
        added=fit.added,
        parameter_count=sum(
            one.numel()
            for name, one in fit.parameters.items()
            if one.is_floating_point() and "running_" not in name
        ),
        norm=norm,
        ignored=(*fit.ignored, *source.others),
        inert=source.inert,
    )


# -- the test of a model --------------------------------------------------------------------------


def self_test(declared: Manifest, parameters: dict[str, Tensor] | None = None) -> None:
    """Load a model as the node does and send one window of seeded noise through it.

    Parameters
    ----------
    declared : Manifest
        Of the folder.
    parameters : dict of Tensor, optional
        Of the checkpoint; a network filled with them directly must give the same scores.

    Raises
    ------
    ModelImportError
        Scores are not finite, or differ.
    ModelUnusableError
        The folder does not load; its output has another shape than declared.
    """
    loaded = models.load(declared, device="cpu", threads=torch.get_num_threads())
    shape = (1, len(declared.inputs), *declared.infer.window)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(_SEED))
    with torch.inference_mode():
        scores = loaded.network(noise)
        if not torch.isfinite(scores).all():
            raise ModelImportError(reason="it gives scores that are not finite")
        if parameters is not None:
            direct = _filled_directly(declared.network, parameters)
            if not torch.allclose(scores, direct(noise), rtol=0.0, atol=1e-5):
                raise ModelImportError(reason="the written model gives other scores than it")


def _filled_directly(declared: Network, parameters: dict[str, Tensor]) -> torch.nn.Module:
    network = networks.build(declared)
    network.load_state_dict(parameters, strict=True)
    return network.eval()


# -- files ----------------------------------------------------------------------------------------


def _write(file: Path, content: bytes) -> None:
    with file.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
