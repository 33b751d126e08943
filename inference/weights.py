"""Fill a declared network with the parameters of a safetensors file, or say why they do not fit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from inference import networks, tensor_files
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
    parameters = _parameters(weights)
    with torch.device("meta"):  # takes no memory, however much the manifest asks for
        wanted = networks.build(declared).state_dict()
    _check(wanted, parameters)
    network = networks.build(declared)
    network.load_state_dict(parameters, strict=True)
    return network.eval()


def _parameters(content: bytes) -> dict[str, Tensor]:
    try:
        return tensor_files.tensors_of(content)
    except tensor_files.TensorFileError as error:
        raise ModelUnusableError(field="weights.format", reason=str(error)) from error


def _check(wanted: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
    _refuse("missing", wanted.keys() - parameters.keys())
    _refuse("unexpected", parameters.keys() - wanted.keys())
    _refuse("of another shape", {k for k, v in wanted.items() if v.shape != parameters[k].shape})
    _refuse("not finite", {k for k, v in parameters.items() if not torch.isfinite(v).all()})


def _refuse(what: str, names: set[str]) -> None:
    if names:
        shown = ", ".join(sorted(names)[:_NAMED])
        raise ModelUnusableError(
            field="weights.file", reason=f"{len(names)} parameters {what}: {shown}"
        )
