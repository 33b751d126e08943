"""Tell what a trained network comes in, and read its parameters and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from inference import bundle, checkpoints, nnunet
from inference.checkpoints import Checkpoint
from inference.description import Description
from inference.errors import ModelImportError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """Parameters, and what was said of them.

    Parameters
    ----------
    kind : str
        ``bundle``, ``nnunet``, or the kind of a file; see `inference.checkpoints`.
    name : str
        Of the file, below the source's own name; no path of this machine.
    checkpoint : Checkpoint
        The parameters.
    description : Description
        What the source says of its model; a file alone says nothing.
    """

    kind: str
    name: str
    checkpoint: Checkpoint
    description: Description


def read(source: Path, *, fold: str | None = None) -> Source:
    """Return what a file or folder holds: a checkpoint, a MONAI bundle, a result of nnU-Net.

    Parameters
    ----------
    source : Path
        A checkpoint of any kind that `inference.checkpoints` reads, or a folder.
    fold : str, optional
        Of a result of nnU-Net: a number or ``all``.

    Raises
    ------
    ModelImportError
        It is nothing that can be read, or contradicts itself.
    """
    is_nnunet = (source / nnunet.PLANS).is_file()
    if fold is not None and not is_nnunet:
        raise ModelImportError(reason="only a result folder of nnU-Net has folds")
    if not source.is_dir():
        return _of_file(source)
    try:
        if is_nnunet:
            return _of_nnunet(source, fold)
        if (source / bundle.METADATA).is_file():
            return _of_bundle(source)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        reason = f"its plans or metadata are malformed ({type(error).__name__})"
        raise ModelImportError(reason=reason) from error
    raise ModelImportError(
        reason=f"the folder has neither {bundle.METADATA} (MONAI bundle) nor {nnunet.PLANS} "
        "(result of nnU-Net, named trainer__plans__configuration)"
    )


def _of_file(file: Path) -> Source:
    found = checkpoints.read(file)
    return Source(kind=found.kind, name=file.name, checkpoint=found, description=Description())


def _of_bundle(folder: Path) -> Source:
    file = bundle.checkpoint_file(folder)
    description = bundle.describe(folder)
    return Source(
        kind="bundle",
        name=_below(folder, file),
        checkpoint=checkpoints.read(file),
        description=description,
    )


def _of_nnunet(folder: Path, fold: str | None) -> Source:
    file = nnunet.checkpoint_file(folder, fold)
    found = checkpoints.read(file)
    return Source(
        kind="nnunet",
        name=_below(folder, file),
        checkpoint=found,
        description=nnunet.describe(folder, found.facts),
    )


def _below(folder: Path, file: Path) -> str:
    return (Path(folder.resolve().name) / file.relative_to(folder)).as_posix()
