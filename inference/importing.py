"""Bring a trained network into the node: a source and a template become a model folder.

A template is a ``model.toml`` without identity and weights: it says what no checkpoint can, such as
the order of the inputs, the spacing and the meaning of the labels. MONAI bundles and results of
nnU-Net say a part of it, or all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch
from torch import nn

from inference import description, fitting, manifest, networks, self_test, sources, toml_text
from inference.checkpoints import Checkpoint
from inference.errors import ModelImportError, ModelUnusableError
from inference.fitting import Fit
from inference.manifest import Manifest
from inference.sources import Source

WEIGHTS_NAME: Final = "model.safetensors"
REPORT_NAME: Final = "import.json"
TEMPLATES: Final = Path(__file__).parents[1] / "models" / "templates"

_UNKNOWN_SHA256: Final = "0" * 64
_AUTO: Final = "auto"
_HEAD: Final = "# Written by `neuroseg model import`; import.json says from what.\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was imported and what was left aside; kept beside the model.

    Parameters
    ----------
    source : str
        Where it came from: what the importer was told, or the name of the file.
    kind : str
        See `inference.sources.Source`.
    source_sha256, place, inert : str
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

    source: str
    kind: str
    source_sha256: str
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a model is called.

    Parameters
    ----------
    model_id : str
        Small letters, digits and hyphens.
    version : str, optional
        Of the model; needed where the source does not say one.
    source_name : str, optional
        Where the weights come from, such as ``wandb:entity/project/name:v7``; by default the name
        of the file.
    source_digest : str, optional
        What the place where they come from calls their digest, beside that of the file.
    """

    model_id: str
    version: str | None = None
    source_name: str | None = None
    source_digest: str | None = None


def import_model(
    source: Path,
    target_folder: Path,
    template: Path | None = None,
    *,
    identity: Identity,
    prefix: str | None = None,
    fold: str | None = None,
) -> Imported:
    """Write a model folder from a source, test it, and return it.

    Parameters
    ----------
    source : Path
        A file or folder; see `inference.sources`.
    target_folder : Path
        Must not exist; appears whole or not at all.
    template : Path, optional
        A ``model.toml`` without ``id``, ``version`` and ``[weights]``; needed where the source
        does not say everything.
    identity : Identity
        The model's, and its source's.
    prefix : str, optional
        Which network of the checkpoint; needed where several fit.
    fold : str, optional
        Which fold of a result of nnU-Net; needed where there are several and none of all data.

    Raises
    ------
    ModelImportError
        The source cannot be read, is an attack or does not fit; it and the template contradict
        each other; the folder exists; the imported model fails its test.
    ModelUnusableError
        The template or the identity cannot be; `field` names the key.
    """
    target = target_folder.absolute()
    if target.exists():
        raise ModelImportError(reason=f"{target_folder} exists already; nothing is overwritten")
    own = description.read_template(template)
    found = sources.read(source, fold=fold)
    draft = _draft(description.completed(found.description, own), found, identity)
    try:
        report = _written(target, draft, found, prefix)
    except OSError as error:
        reason = f"{target_folder} cannot be written ({type(error).__name__})"
        raise ModelImportError(reason=reason) from error
    return Imported(manifest=manifest.load(target), report=report)


def _draft(completed: dict[str, Any], found: Source, identity: Identity) -> dict[str, Any]:
    """Return the keys of the model to be, weights not yet known."""
    version = identity.version or found.description.version
    if version is None:
        raise ModelImportError(reason="the source says no version; say one (--version)")
    first = {"schema_version": completed.pop("schema_version")}
    own = completed.pop("provenance", None)
    own_digest = f"sha256:{found.checkpoint.sha256}"
    provenance = {
        "training_data": found.description.training_data,
        **(own if isinstance(own, dict) else {}),
        "source": identity.source_name or found.name,
        "digest": ", ".join(one for one in (own_digest, identity.source_digest) if one),
        "converted_by": f"neuroseg-node {metadata.version('neuroseg-node')}",
    }
    weights = {"file": WEIGHTS_NAME, "format": "safetensors", "sha256": _UNKNOWN_SHA256}
    return {
        **first,
        "id": identity.model_id,
        "version": version,
        **completed,
        "provenance": {key: value for key, value in provenance.items() if value is not None},
        "weights": weights,
    }


def _written(target: Path, draft: dict[str, Any], source: Source, prefix: str | None) -> Report:
    """Write a model folder beside its place, and move it there once it is tested and synced."""
    target.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        report = _fill(place, draft, source, prefix)
        place.chmod(0o755)
        _sync(place)
        place.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return report


def _fill(place: Path, draft: dict[str, Any], source: Source, prefix: str | None) -> Report:
    """Write all files of the model folder and test it."""
    checkpoint = source.checkpoint
    norm = _settle_norm(draft, checkpoint)
    with torch.device("meta"):
        network = networks.build(_declared(place, draft).network)
    wanted = {name: one.shape for name, one in network.state_dict().items()}
    fit = fitting.fit(checkpoint.parameters, wanted, prefix=prefix)
    content = safetensors.torch.save({key: t.contiguous() for key, t in fit.parameters.items()})
    draft["weights"]["sha256"] = hashlib.sha256(content).hexdigest()
    _write(place / WEIGHTS_NAME, content)
    measured = self_test.run(_declared(place, draft), fit.parameters)
    draft["self_test"] = measured.model_dump()
    _declared(place, draft)
    report = _report(source, fit, norm, network)
    report = replace(report, source=draft["provenance"]["source"])
    _write(place / REPORT_NAME, f"{json.dumps(asdict(report), indent=2)}\n".encode())
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


def _report(source: Source, fit: Fit, norm: str, network: nn.Module) -> Report:
    checkpoint = source.checkpoint
    return Report(
        source=source.name,
        kind=source.kind,
        source_sha256=checkpoint.sha256,
        place=checkpoint.place,
        stripped=fit.stripped,
        added=fit.added,
        parameter_count=sum(one.numel() for one in network.parameters()),
        norm=norm,
        ignored=(*fit.ignored, *checkpoint.others),
        inert=checkpoint.inert,
    )


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
