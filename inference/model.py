"""Load a model: verify its weights, check them against its manifest, place it on a device."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import nn

from inference import choosing, mask_model, weights
from inference.choosing import Chosen, Precision
from inference.errors import InvalidOutputError, ModelUnusableError
from inference.manifest import Manifest
from inference.mask_model import MaskModel
from inference.runtime import Runtime

DeviceChoice: TypeAlias = Literal["auto", "cpu", "cuda"]

_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedModel:
    """A network with its weights, ready to predict.

    Parameters
    ----------
    manifest : Manifest
        What the model declares about itself.
    network : torch.nn.Module
        In evaluation mode, float32, on `device`.
    device : str
        ``cpu`` or ``cuda``.
    runtime : Runtime
        What runs the network.
    runtime_reason : str
        Why it is not the fastest one; '' where it is.
    mask : MaskModel or None
        The network that finds the brain; see `Manifest.needs_brain_for`.
    tta : bool
        Whether copies that are mirrored along the manifest's axes are averaged.
    uncertainty : bool
        Whether the entropy of the probabilities is wanted.
    probabilities : bool
        Whether the probabilities themselves are wanted.
    """

    manifest: Manifest
    network: nn.Module
    device: str
    runtime: Runtime
    runtime_reason: str = ""
    mask: MaskModel | None = None
    tta: bool = False
    uncertainty: bool = False
    probabilities: bool = False


def granted_cores(cpu_limit: Path = _CPU_LIMIT) -> int:
    """Return how many cores this process may use: its affinity, capped by its control group.

    Notes
    -----
    torch takes the machine's cores by default; under a container's quota its waiting threads then
    spin, which doubled the CPU seconds measured for one window.

    References
    ----------
    Linux control group v2, ``cpu.max``: quota and period in microseconds, or ``max``.
    """
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_limit.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    if quota == "max":
        return cores
    return max(1, min(cores, int(quota) // int(period)))


def load(  # noqa: PLR0913 - what a site asks of a model
    manifest: Manifest,
    *,
    device: DeviceChoice = "auto",
    threads: int = 0,
    precision: Precision = "auto",
    mask_folder: Path | None = None,
    tta: bool = False,
    uncertainty: bool = False,
    probabilities: bool = False,
) -> LoadedModel:
    """Return the model with verified weights on a device.

    Parameters
    ----------
    manifest : Manifest
        The model to load.
    device : str
        ``auto`` takes CUDA where there is one.
    threads : int
        CPU threads of this process's torch; 0 for as many as the machine grants.
    precision : str
        ``auto`` takes half precision where that gives the same labels, ``float32`` never does.
    mask_folder : Path, optional
        Where the brain mask network lies; see `inference.mask_model`.
    tta, uncertainty, probabilities : bool
        See `LoadedModel`.

    Raises
    ------
    ModelUnusableError
        The weights differ from their digest or do not fit the network, the network does not fit
        the declared inputs, labels and window, the device is absent, or copies are to be mirrored
        along axes that the manifest does not have.
    """
    thread_count = threads or granted_cores()
    torch.set_num_threads(thread_count)
    name = _device_name(device)
    if tta and not manifest.infer.tta_axes:
        raise ModelUnusableError(field="infer.tta_axes", reason="there is no axis to mirror")
    network = weights.filled(manifest.network, manifest.read_weights())
    chosen = _chosen(manifest, network, name, thread_count, precision)
    return LoadedModel(
        manifest=manifest,
        network=network,
        device=name,
        runtime=chosen.runtime,
        runtime_reason=chosen.reason,
        mask=mask_model.load(mask_folder) if mask_folder is not None else None,
        tta=tta,
        uncertainty=uncertainty,
        probabilities=probabilities,
    )


def _device_name(device: DeviceChoice) -> str:
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise ModelUnusableError(field="device", reason="cuda was asked for, none is available")
    if device == "cpu" or not has_cuda:
        return "cpu"
    # The same input must give the same labels, on any device of this node.
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return "cuda"


def _chosen(
    manifest: Manifest, network: nn.Module, device: str, threads: int, precision: Precision
) -> Chosen:
    """Return what runs the network, once its scores lie as the manifest says."""
    window = manifest.infer.window
    try:
        chosen = choosing.choose(
            network,
            device,
            window=window,
            channels=len(manifest.inputs),
            threads=threads,
            activation=manifest.output.activation,
            precision=precision,
        )
    except RuntimeError as error:
        raise ModelUnusableError(
            field="network.kwargs", reason=f"inputs or window do not fit: {error}"
        ) from error
    except InvalidOutputError as error:
        raise ModelUnusableError(
            field="network.architecture", reason=str(error.evidence["reason"])
        ) from error
    expected = (1, manifest.output_channel_count, *window)
    if chosen.shape != expected:
        raise ModelUnusableError(
            field="network.kwargs", reason=f"output shape is {chosen.shape}, expected {expected}"
        )
    return chosen
