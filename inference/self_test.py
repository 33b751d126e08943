"""What a model gives for a window of seeded noise: measured at its import, compared ever after."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn

from inference import networks, weights
from inference.declarations import Network, SelfTest
from inference.errors import ModelImportError, ModelUnusableError
from inference.manifest import Manifest

_SEED: Final = 20
_USUAL_VOXELS: Final = 96**3  # a larger window is halved where the network allows, to save time
_LEAST_SIDE: Final = 32
_DIGITS: Final = 6
_SIGMOID_THRESHOLD: Final = 0.5


def run(declared: Manifest, parameters: dict[str, Tensor] | None = None) -> SelfTest:
    """Return what a model's folder gives now, compared with its record where there is one.

    Parameters
    ----------
    declared : Manifest
        Of the folder.
    parameters : dict of Tensor, optional
        Of the checkpoint; a network filled with them directly must give the same scores.

    Raises
    ------
    ModelImportError
        Scores are not finite, or differ from those of `parameters`.
    ModelUnusableError
        The folder does not load, its output has another shape than declared, or it gives other
        numbers than its record says.
    """
    extent = _extent(declared)
    said = declared.self_test
    seed = _SEED if said is None else said.seed
    shape = (1, len(declared.inputs), *extent)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    network = weights.filled(declared.network, declared.read_weights())
    with torch.inference_mode():
        scores = network(noise)
        if not torch.isfinite(scores).all():
            raise ModelImportError(reason="it gives scores that are not finite")
        if parameters is not None:
            direct = _filled_directly(declared.network, parameters)
            if not torch.allclose(scores, direct(noise), rtol=0.0, atol=1e-5):
                raise ModelImportError(reason="the written model gives other scores than it")
    found = _measured(scores[0], declared, seed)
    if said is not None:
        _compare(found, said)
    return found


def _filled_directly(declared: Network, parameters: dict[str, Tensor]) -> nn.Module:
    network = networks.build(declared)
    network.load_state_dict(parameters, strict=True)
    return network.eval()


def _measured(scores: Tensor, declared: Manifest, seed: int) -> SelfTest:
    """Return the numbers of a (channel, x, y, z) output."""
    flat = scores.double().flatten(1)
    if declared.output.activation == "softmax":
        counts = torch.bincount(flat.argmax(dim=0), minlength=len(flat)).double()
    else:
        counts = (torch.sigmoid(flat) >= _SIGMOID_THRESHOLD).sum(dim=1).double()
    return SelfTest(
        seed=seed,
        score_means=tuple(round(one, _DIGITS) for one in flat.mean(dim=1).tolist()),
        shares=tuple(round(one, _DIGITS) for one in (counts / flat.shape[1]).tolist()),
    )


def _compare(found: SelfTest, said: SelfTest) -> None:
    for what in ("score_means", "shares"):
        pairs = zip(getattr(found, what), getattr(said, what), strict=True)
        for channel, (now, then) in enumerate(pairs):
            if abs(now - then) > said.tolerance * max(1.0, abs(then)):
                raise ModelUnusableError(
                    field=f"self_test.{what}",
                    reason=f"output channel {channel} gives {now:g}, recorded were {then:g}",
                )


def _extent(declared: Manifest) -> tuple[int, int, int]:
    """Return the window, halved while it is large and the network takes the half.

    Raises
    ------
    ModelUnusableError
        The network does not take the declared window, or gives another shape than declared.
    """
    extent = declared.infer.window
    _check(declared, extent)
    while math.prod(extent) > _USUAL_VOXELS:
        x, y, z = (side // 2 for side in extent)
        is_even = not any(side % 2 for side in extent)
        if not is_even or min(x, y, z) < _LEAST_SIDE or not _takes(declared, (x, y, z)):
            break
        extent = (x, y, z)
    return extent


def _takes(declared: Manifest, extent: tuple[int, int, int]) -> bool:
    try:
        _check(declared, extent)
    except ModelUnusableError:
        return False
    return True


def _check(declared: Manifest, extent: tuple[int, int, int]) -> None:
    """Send a shape, without data, through the network."""
    expected = (1, declared.output_channel_count, *extent)
    try:
        with torch.device("meta"), torch.inference_mode():
            probe = networks.build(declared.network).eval()
            output = probe(torch.empty(1, len(declared.inputs), *extent))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ModelUnusableError(
            field="network.kwargs", reason=f"inputs or window do not fit: {error}"
        ) from error
    found = tuple(output.shape)
    if found != expected:
        raise ModelUnusableError(
            field="network.kwargs", reason=f"output shape is {found}, expected {expected}"
        )
