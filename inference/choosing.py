"""Which runtime runs a network: the fastest one that gives the scores or the labels of torch.

On the processor that is OpenVINO, which gives the scores of torch to rounding; where it does not (a
network that it cannot take, or other scores), torch runs it. On a GPU torch does. Half precision is
taken where the device computes in it and it gives the same labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import torch
from torch import Tensor, nn

from inference.activation import Activation, most_probable
from inference.runtime import (
    OPENVINO_FAILS,
    OpenVinoRuntime,
    Runtime,
    TorchRuntime,
    knows_half,
    never,
    single,
)

Precision: TypeAlias = Literal["auto", "float32"]
"""Half precision where it gives the same labels, or never."""

_MOST_DIFFERENT: Final = 1e-3  # of the largest score; rounding is a thousandth of that
_LEAST_EQUAL: Final = 0.999  # of the labels of a window of noise, in half precision
_SEED: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A runtime, the shape of its scores, and why it is not the fastest one; '' where it is."""

    runtime: Runtime
    shape: tuple[int, ...]
    reason: str = ""


def choose(  # noqa: PLR0913 - what a model is and what a site asks of it
    network: nn.Module,
    device: str,
    *,
    window: tuple[int, ...],
    channels: int,
    threads: int,
    activation: Activation = "softmax",
    precision: Precision = "auto",
) -> Chosen:
    """Return what runs a network fastest with the scores, or the labels, of torch in float32.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode, float32, on the CPU.
    device : str
        ``cpu`` or ``cuda``.
    window : tuple of int
        Its extent; a window of seeded noise is what candidates are compared on.
    channels : int
        Inputs of the network.
    threads : int
        To compute with on the processor.
    activation : str
        What makes labels of scores.
    precision : str
        ``auto`` takes half precision where the device computes in it and it labels the noise as
        float32 does.

    Raises
    ------
    InvalidOutputError
        The network gives anything but one tensor.
    RuntimeError
        torch cannot run the network on such a window.
    """
    noise = torch.randn((1, channels, *window), generator=torch.Generator().manual_seed(_SEED))
    may_halve = precision == "auto"
    if device == "cuda":
        return _on_gpu(network, noise, activation, may_halve=may_halve)
    try:
        return _in_openvino(network, noise, threads, activation, may_halve=may_halve)
    except OPENVINO_FAILS as error:
        reason = f"OpenVINO cannot run the network ({type(error).__name__})"
        return _in_torch(network, noise, reason)


def _in_openvino(
    network: nn.Module, noise: Tensor, threads: int, activation: Activation, *, may_halve: bool
) -> Chosen:
    reasons = []
    for half in (True, False) if may_halve and knows_half() else (False,):
        candidate = OpenVinoRuntime(network, threads, half=half)
        expected = candidate.prepare(noise)
        (found,) = candidate.scores([noise], never)
        reasons.append(
            _other_labels(found, expected, activation) if half else _other_scores(found, expected)
        )
        if not reasons[-1]:
            return Chosen(runtime=candidate, shape=tuple(found.shape), reason=reasons[0])
    return _in_torch(network, noise, reasons[-1])


def _other_labels(found: Tensor, expected: Tensor, activation: Activation) -> str:
    """Return why scores in half precision cannot be taken; '' where they can."""
    if found.shape != expected.shape or not bool(torch.isfinite(found).all()):
        return "half precision gives no scores"
    if activation == "softmax":
        same = most_probable(found[0]) == most_probable(expected[0])
    else:
        same = ((found > 0) == (expected > 0)).all(dim=1)
    equal = float(same.float().mean())
    if equal >= _LEAST_EQUAL:
        return ""
    return f"half precision labels {100 * equal:.2f} % of noise as float32 does"


def _other_scores(found: Tensor, expected: Tensor) -> str:
    """Return why scores in float32 cannot be taken; '' where they can."""
    if found.shape != expected.shape:
        return "OpenVINO gives other scores (of another shape)"
    share = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-6))
    if share <= _MOST_DIFFERENT:
        return ""
    return f"OpenVINO gives other scores (by {share:.1g} of the largest)"


def _in_torch(network: nn.Module, noise: Tensor, reason: str) -> Chosen:
    runtime = TorchRuntime(network, "cpu")
    (found,) = runtime.scores([noise], never)
    return Chosen(runtime=runtime, shape=tuple(found.shape), reason=reason)


def _on_gpu(
    network: nn.Module, noise: Tensor, activation: Activation, *, may_halve: bool
) -> Chosen:
    """Return torch on the GPU."""
    with torch.inference_mode():
        expected = single(network(noise))
    network.to("cuda")
    reason = ""
    if may_halve:
        half = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        candidate = TorchRuntime(network, "cuda", half)
        (found,) = candidate.scores([noise], never)
        reason = _other_labels(found, expected, activation)
        if not reason:
            return Chosen(runtime=candidate, shape=tuple(found.shape))
    runtime = TorchRuntime(network, "cuda")
    return Chosen(runtime=runtime, shape=tuple(expected.shape), reason=reason)
