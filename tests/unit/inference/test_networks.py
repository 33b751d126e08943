"""Architectures of the allow-list."""

from __future__ import annotations

import pytest
import torch

from inference import networks
from inference.declarations import Network
from inference.errors import ModelUnusableError

RESIDUAL = Network(
    architecture="neuroseg.ResidualUNet",
    kwargs={"in_channels": 2, "out_channels": 3, "channels": [4, 6, 8]},
)
# The family of the reference project: batch norm must be said, MONAI's default is instance norm.
MONAI = Network(
    architecture="monai.UNet",
    kwargs={
        "spatial_dims": 3,
        "in_channels": 2,
        "out_channels": 3,
        "channels": [4, 6, 8],
        "strides": [2, 2],
        "num_res_units": 2,
        "norm": "batch",
    },
)


@pytest.mark.parametrize("network", [RESIDUAL, MONAI], ids=["residual", "monai"])
def test_a_network_gives_one_score_per_class_and_voxel(network: Network) -> None:
    torch.manual_seed(0)
    built = networks.build(network).eval()
    with torch.inference_mode():
        scores = built(torch.randn(1, 2, 8, 12, 16))
    assert scores.shape == (1, 3, 8, 12, 16)
    assert torch.isfinite(scores).all()


def test_skips_carry_the_image_past_the_coarse_levels() -> None:
    torch.manual_seed(0)
    built = networks.build(RESIDUAL).eval()
    assert isinstance(built, networks.ResidualUNet)
    for parameter in built.up.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.inference_mode():
        one, other = (built(torch.randn(1, 2, 8, 8, 8)) for _ in range(2))
    assert (one - other).abs().max() > 0.1


def test_both_block_branches_count() -> None:
    block = networks.ResidualBlock(3, 3).eval()
    image = torch.randn(1, 3, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    torch.nn.init.zeros_(block.norm2.weight)
    with torch.inference_mode():
        assert torch.equal(block(image), torch.where(image > 0, image, 0.01 * image))


@pytest.mark.parametrize(
    "network",
    [
        RESIDUAL.model_copy(update={"kwargs": {**RESIDUAL.kwargs, "depth": 3}}),
        RESIDUAL.model_copy(update={"kwargs": {**RESIDUAL.kwargs, "channels": []}}),
        RESIDUAL.model_copy(update={"kwargs": {**RESIDUAL.kwargs, "channels": [-1]}}),
        MONAI.model_copy(update={"kwargs": {**MONAI.kwargs, "strides": [2]}}),
    ],
)
def test_arguments_that_no_network_takes_are_refused(network: Network) -> None:
    with pytest.raises(ModelUnusableError) as caught:
        networks.build(network)
    assert caught.value.evidence["field"] == "network.kwargs"
