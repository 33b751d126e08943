"""Load a model: verify its weights, check them against its manifest, place it on a device."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from inference import networks
from inference.errors import ModelUnusableError
from inference.manifest import Manifest

DeviceChoice: TypeAlias = Literal["auto", "cpu", "cuda"]

_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
_NAMED = 3  # parameters named in a refusal


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
    """

    manifest: Manifest
    network: nn.Module
    device: str


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


def load(manifest: Manifest, *, device: DeviceChoice = "auto", threads: int = 0) -> LoadedModel:
    """Return the model with verified weights on a device.

    Parameters
    ----------
    manifest : Manifest
        The model to load.
    device : str
        ``auto`` takes CUDA where there is one.
    threads : int
        CPU threads of this process's torch; 0 for as many as the machine grants.

    Raises
    ------
    ModelUnusableError
        The weights differ from their digest or do not fit the network, the network does not fit
        the declared inputs, labels and window, or the device is absent.
    """
    torch.set_num_threads(threads or granted_cores())
    name = _device_name(device)
    _check_shapes(manifest)
    network = networks.build(manifest.network)
    _fill(network, _parameters(manifest.read_weights()))
    return LoadedModel(manifest=manifest, network=network.eval().to(name), device=name)


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


def _check_shapes(manifest: Manifest) -> None:
    """Send a window's shape, without data, through the network."""
    expected = (1, manifest.output_channel_count, *manifest.infer.window)
    try:
        with torch.device("meta"), torch.inference_mode():
            probe = networks.build(manifest.network).eval()
            found = tuple(probe(torch.empty(1, len(manifest.inputs), *manifest.infer.window)).shape)
    except RuntimeError as error:
        raise ModelUnusableError(
            field="network.kwargs", reason=f"inputs or window do not fit: {error}"
        ) from error
    if found != expected:
        raise ModelUnusableError(
            field="network.kwargs", reason=f"output shape is {found}, expected {expected}"
        )


def _parameters(content: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise ModelUnusableError(
            field="weights.format", reason=f"not a safetensors file: {error}"
        ) from error


def _fill(network: nn.Module, parameters: dict[str, Tensor]) -> None:
    wanted = network.state_dict()
    _refuse("missing", wanted.keys() - parameters.keys())
    _refuse("unexpected", parameters.keys() - wanted.keys())
    _refuse("of another shape", {k for k, v in wanted.items() if v.shape != parameters[k].shape})
    _refuse("not finite", {k for k, v in parameters.items() if not torch.isfinite(v).all()})
    network.load_state_dict(parameters, strict=True)


def _refuse(what: str, names: set[str]) -> None:
    if names:
        shown = ", ".join(sorted(names)[:_NAMED])
        raise ModelUnusableError(
            field="weights.file", reason=f"{len(names)} parameters {what}: {shown}"
        )
