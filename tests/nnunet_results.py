"""Result folders as nnU-Net v2 leaves them behind, with a network small enough to be quick."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

NAME: Final = "nnUNetTrainer__nnUNetPlans__3d_fullres"
KERNELS: Final = [[1, 3, 3], [3, 3, 3], [3, 3, 3]]
STRIDES: Final = [[1, 1, 1], [1, 2, 2], [2, 2, 2]]

ARCHITECTURE: Final[dict[str, Any]] = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": {
        "n_stages": 3,
        "features_per_stage": [4, 8, 12],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": KERNELS,
        "strides": STRIDES,
        "n_conv_per_stage": [2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    },
    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
}
OLDER: Final[dict[str, Any]] = {
    "UNet_class_name": "PlainConvUNet",
    "UNet_base_num_features": 4,
    "n_conv_per_stage_encoder": [2, 2, 2],
    "n_conv_per_stage_decoder": [2, 2],
    "num_pool_per_axis": [1, 2, 2],
    "pool_op_kernel_sizes": STRIDES,
    "conv_kernel_sizes": KERNELS,
    "unet_max_num_features": 12,
}
_PLAN: Final[dict[str, Any]] = {
    "data_identifier": "nnUNetPlans_3d_fullres",
    "preprocessor_name": "DefaultPreprocessor",
    "batch_size": 2,
    "patch_size": [16, 24, 24],
    "spacing": [2.0, 1.0, 1.0],
    "normalization_schemes": ["ZScoreNormalization"] * 4,
    "use_mask_for_norm": [True] * 4,
    "resampling_fn_data": "resample_data_or_seg_to_shape",
    "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0},
}
PLANS: Final[dict[str, Any]] = {
    "dataset_name": "Dataset001_BrainTumour",
    "plans_name": "nnUNetPlans",
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "configurations": {
        "2d": {"patch_size": [192, 160], "spacing": [1.0, 1.0]},
        "3d_fullres": {**_PLAN, "architecture": ARCHITECTURE},
        "3d_bs4": {"inherits_from": "3d_fullres", "batch_size": 4},
        "older": {**_PLAN, **OLDER},
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
    },
}
DATASET: Final[dict[str, Any]] = {
    "channel_names": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
    "labels": {"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumour": 3},
    "name": "BRATS",
    "licence": "CC-BY-SA 4.0",
    "file_ending": ".nii.gz",
}
REGIONS: Final[dict[str, Any]] = {
    **DATASET,
    "labels": {
        "background": 0,
        "whole tumor": [1, 2, 3],
        "tumor core": [2, 3],
        "enhancing tumor": [3],
    },
    "regions_class_order": [1, 2, 3],
}


def network(outputs: int = 4, *, is_residual: bool = False) -> nn.Module:
    """Return a network as nnU-Net trains it: with outputs at several scales."""
    torch.manual_seed(4)
    kwargs = {
        **ARCHITECTURE["arch_kwargs"],
        "input_channels": 4,
        "num_classes": outputs,
        "conv_op": nn.Conv3d,
        "norm_op": nn.InstanceNorm3d,
        "nonlin": nn.LeakyReLU,
        "deep_supervision": True,
    }
    if not is_residual:
        made: nn.Module = PlainConvUNet(**kwargs)
        return made
    kwargs["n_blocks_per_stage"] = kwargs.pop("n_conv_per_stage")
    residual: nn.Module = ResidualEncoderUNet(**kwargs)
    return residual


def write(
    folder: Path,
    trained: nn.Module | None = None,
    *,
    plans: dict[str, Any] = PLANS,
    dataset: dict[str, Any] = DATASET,
    configuration: str = "3d_fullres",
    folds: tuple[str, ...] = ("0",),
    **more: object,
) -> Path:
    """Write a result folder and return it; `more` goes into the checkpoint."""
    root = folder / f"nnUNetTrainer__nnUNetPlans__{configuration}"
    state = (trained or network()).state_dict()
    for fold in folds:
        place = root / f"fold_{fold}"
        place.mkdir(parents=True)
        content = {
            "network_weights": state,
            "optimizer_state": {"state": {}, "param_groups": []},
            "grad_scaler_state": None,
            "logging": {"mean_fg_dice": [np.float64(0.5)]},
            "_best_ema": np.float64(0.7),
            "current_epoch": 1000,
            "init_args": {"configuration": configuration, "fold": fold, "plans": plans},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": (0, 2),
            **more,
        }
        torch.save(content, place / "checkpoint_final.pth")
    (root / "plans.json").write_text(json.dumps(plans))
    (root / "dataset.json").write_text(json.dumps(dataset))
    return root


def changed(content: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """Return a copy of plans or a data set with another value at ``a/b/c``."""
    copied = copy.deepcopy(content)
    *parents, last = path.split("/")
    place = copied
    for part in parents:
        place = place[part]
    place[last] = value
    return copied
