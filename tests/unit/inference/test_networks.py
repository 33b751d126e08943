"""Architectures of the allow-list."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, get_args

import pytest
import torch

from inference import networks
from inference.declarations import Architecture, Network
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

STAGES: dict[str, Any] = {
    "input_channels": 2,
    "num_classes": 3,
    "n_stages": 3,
    "features_per_stage": [4, 6, 8],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    "n_conv_per_stage_decoder": [1, 1],
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
EVERY: dict[Architecture, dict[str, Any]] = {
    "neuroseg.ResidualUNet": RESIDUAL.kwargs,
    "neuroseg.StridedUNet": {"in_channels": 2, "out_channels": 3, "channels": [4, 6], "fine": 4},
    "monai.UNet": MONAI.kwargs,
    "monai.BasicUNet": {
        "in_channels": 2,
        "out_channels": 3,
        "features": [4, 4, 6, 8, 8, 4],
    },
    "monai.AttentionUnet": {
        "spatial_dims": 3,
        "in_channels": 2,
        "out_channels": 3,
        "channels": [4, 6, 8],
        "strides": [2, 2],
    },
    "monai.SegResNet": {"in_channels": 2, "out_channels": 3, "init_filters": 8},
    "monai.DynUNet": {
        "spatial_dims": 3,
        "in_channels": 2,
        "out_channels": 3,
        "kernel_size": [3, 3, 3, 3],
        "strides": [1, 2, 2, 2],
        "upsample_kernel_size": [2, 2, 2],
        "filters": [4, 6, 8, 8],
        "deep_supervision": True,
        "deep_supr_num": 2,
    },
    "monai.SwinUNETR": {"in_channels": 2, "out_channels": 3, "feature_size": 12},
    "monai.UNETR": {
        "in_channels": 2,
        "out_channels": 3,
        "img_size": [32, 32, 32],
        "feature_size": 4,
        "hidden_size": 12,
        "mlp_dim": 16,
        "num_heads": 3,
    },
    "dynamic.PlainConvUNet": {**STAGES, "n_conv_per_stage": [1, 1, 1], "deep_supervision": True},
    "dynamic.ResidualEncoderUNet": {**STAGES, "n_blocks_per_stage": [1, 1, 1]},
}


@pytest.mark.parametrize("architecture", get_args(Architecture))
def test_every_architecture_that_a_manifest_may_name_gives_one_output(
    architecture: Architecture,
) -> None:
    torch.manual_seed(0)
    built = networks.build(Network(architecture=architecture, kwargs=EVERY[architecture])).eval()
    # The coarsest level of SwinUNETR is 32 times coarser and must not be one voxel.
    extent = (64, 32, 32) if architecture == "monai.SwinUNETR" else (32, 32, 32)
    with torch.inference_mode():
        scores = built(torch.randn(1, 2, *extent))
    assert isinstance(scores, torch.Tensor)
    assert scores.shape == (1, 3, *extent)
    assert torch.isfinite(scores).all()


def test_the_parameters_of_a_network_trained_with_deep_supervision_fit() -> None:
    """nnU-Net trains with several outputs; their convolutions stand in every checkpoint."""
    from dynamic_network_architectures.architectures.unet import (  # noqa: PLC0415
        PlainConvUNet,
    )

    trained = PlainConvUNet(
        **{
            **EVERY["dynamic.PlainConvUNet"],
            "conv_op": torch.nn.Conv3d,
            "norm_op": torch.nn.InstanceNorm3d,
            "nonlin": torch.nn.LeakyReLU,
        }
    )
    network = Network(architecture="dynamic.PlainConvUNet", kwargs=EVERY["dynamic.PlainConvUNet"])
    built = networks.build(network)
    built.load_state_dict(trained.state_dict(), strict=True)
    image = torch.randn(1, 2, 8, 16, 16)
    with torch.inference_mode():
        several = trained(image)
        assert isinstance(several, list)
        assert torch.equal(several[0], built(image))


@pytest.mark.parametrize(
    ("key", "name"),
    [("conv_op", "os.system"), ("norm_op", "evil.InstanceNorm3d"), ("nonlin", "LeakyReLU")],
)
def test_a_class_is_looked_up_in_a_closed_table(key: str, name: str) -> None:
    kwargs = {**EVERY["dynamic.PlainConvUNet"], key: name}
    with pytest.raises(ModelUnusableError, match=key):
        networks.build(Network(architecture="dynamic.PlainConvUNet", kwargs=kwargs))


def test_only_the_family_of_a_model_is_imported() -> None:
    program = (
        "import sys; from inference import networks; from inference.declarations import Network; "
        "networks.build(Network(architecture='neuroseg.ResidualUNet', "
        "kwargs={'in_channels': 1, 'out_channels': 2, 'channels': [2, 2]})); "
        "print({'monai', 'dynamic_network_architectures'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


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
