"""Fill a declared network with the parameters of a safetensors file, or say why they do not fit."""

from __future__ import annotations

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from inference import networks
from inference.declarations import Network
from inference.errors import ModelUnusableError

_NAMED = 3  # parameters named in a refusal


def filled(declared: Network, weights: bytes) -> nn.Module:
    """Return a network with its weights, in evaluation mode, on the CPU.

    Raises
    ------
    ModelUnusableError
        The weights are no safetensors file or do not fit the network.
    """
    network = networks.build(declared)
    _fill(network, _parameters(weights))
    return network.eval()


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
