"""Read a result folder of nnU-Net v2 as data: plans, data set and one fold's checkpoint.

``postprocessing.pkl`` beside them is a program and is never opened.

References
----------
https://github.com/MIC-DKFZ/nnUNet, `nnunetv2.utilities.plans_handling.plans_handler`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from inference.description import Channel, Description
from inference.errors import ModelImportError
from inference.tumour_names import Entry, shown

PLANS: Final = Path("plans.json")

_DATASET: Final = Path("dataset.json")
_CHECKPOINT: Final = "checkpoint_final.pth"
_ALL: Final = "fold_all"
_MOST_BYTES: Final = 16 * 1024**2
_MOST_PARENTS: Final = 8
_NO_LICENCE: Final = "Not stated by the authors of the weights: ask them."
_INTENDED_USE: Final = "Research only; not for diagnosis or treatment."

_ARCHITECTURES: Final = {
    "dynamic_network_architectures.architectures.unet.PlainConvUNet": "dynamic.PlainConvUNet",
    "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet": (
        "dynamic.ResidualEncoderUNet"
    ),
    "dynamic_network_architectures.architectures.residual_unet.ResidualEncoderUNet": (
        "dynamic.ResidualEncoderUNet"
    ),
    "PlainConvUNet": "dynamic.PlainConvUNet",
    "ResidualEncoderUNet": "dynamic.ResidualEncoderUNet",
}
# Where the axes of the arrays grow to that a reader gives, last axis of the file first. Two readers
# keep the axes of the file, which is presumed to be LPS as the BraTS challenge's; two turn it.
_KEEPING: Final = {"SimpleITKIO": "SPL", "NibabelIO": "SPL"}
_TURNING: Final = {"SimpleITKIOWithReorient": "SAR", "NibabelIOWithReorient": "SAR"}


def checkpoint_file(folder: Path, fold: str | None = None) -> Path:
    """Return the checkpoint of a fold: the one asked for, the only one, or that of all data.

    Raises
    ------
    ModelImportError
        There is none, or several and none was asked for.
    """
    found = {file.parent.name: file for file in sorted(folder.glob(f"fold_*/{_CHECKPOINT}"))}
    names = ", ".join(name.removeprefix("fold_") for name in found) or "none"
    if fold is not None:
        wanted = f"fold_{fold.removeprefix('fold_')}"
    else:
        wanted = next(iter(found)) if len(found) == 1 else _ALL
    if wanted not in found:
        asked = f"there is no fold {shown(fold)}" if fold else "which fold is not said"
        raise ModelImportError(reason=f"{asked}; with a {_CHECKPOINT}: {names} (--fold)")
    return found[wanted]


def describe(folder: Path, facts: Mapping[str, Any]) -> Description:
    """Return what a result folder says of its model.

    Parameters
    ----------
    folder : Path
        ``<trainer>__<plans>__<configuration>``.
    facts : mapping
        What the checkpoint says; see `inference.checkpoints`.

    Raises
    ------
    ModelImportError
        A file is absent or damaged; the configuration is not one that can be served. The key is
        named.
    """
    plans, dataset = _read(folder / PLANS), _read(folder / _DATASET)
    name = _configuration_name(folder, facts)
    plan = _configuration(plans, name)
    inputs = _table(dataset, "channel_names" if "channel_names" in dataset else "modality")
    outputs, is_regions = _outputs(dataset)
    count = len(outputs) + (not is_regions)
    orientation, is_certain = _orientation(plans)
    space = {"spacing_mm": _numbers(plan, "spacing"), **_interpolation(plan)}
    return Description(
        said={
            "network": _network(plan, len(inputs), count),
            "space": {**space, **({"orientation": orientation} if is_certain else {})},
            "normalise": _normalise(plan),
            "infer": {"mode": "sliding", "window": _numbers(plan, "patch_size")},
            "output": {"activation": "sigmoid"}
            if is_regions
            else {"activation": "softmax", "background_index": 0},
        },
        presumed=_presumed(orientation, plan, facts),
        texts=_texts(dataset),
        training_data=_text(plans, "dataset_name"),
        inputs=tuple(str(inputs[key]) for key in sorted(inputs, key=int)),
        outputs=outputs,
        are_regions=is_regions,
    )


def _read(file: Path) -> Mapping[str, Any]:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise ModelImportError(reason=f"{file.name} is too large")
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = f"{file.name} cannot be read ({type(error).__name__})"
        raise ModelImportError(reason=reason) from error
    if not isinstance(content, dict):
        raise ModelImportError(reason=f"{file.name} is no table")
    return content


# -- parts ----------------------------------------------------------------------------------------


def _configuration_name(folder: Path, facts: Mapping[str, Any]) -> str:
    parts = folder.resolve().name.split("__")
    of_folder = parts[-1] if len(parts) == len(("trainer", "plans", "configuration")) else None
    of_checkpoint = facts.get("configuration")
    if of_folder and of_checkpoint and of_folder != of_checkpoint:
        raise ModelImportError(
            reason=f"the folder is of the configuration {shown(of_folder)}, the checkpoint of "
            f"{shown(str(of_checkpoint))}"
        )
    if not (name := of_folder or of_checkpoint):
        raise ModelImportError(
            reason="neither folder nor checkpoint say the configuration; expected a folder named "
            "trainer__plans__configuration"
        )
    return str(name)


def _configuration(plans: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the keys of a configuration with those that it inherits."""
    known = _table(plans, "configurations")
    merged: dict[str, Any] = {}
    parent: object = name
    for _ in range(_MOST_PARENTS):
        found = known.get(str(parent))
        if not isinstance(found, dict):
            raise ModelImportError(
                reason=f"plans.json has no configuration {shown(str(parent))}; it has "
                f"{', '.join(map(shown, known))}"
            )
        merged = {**found, **merged}
        parent = found.get("inherits_from")
        if parent is None:
            break
    if merged.get("previous_stage"):
        raise ModelImportError(
            reason="it refines the labels of a first network (cascade), which is not supported; "
            "take 3d_fullres or 3d_lowres"
        )
    return merged


def _network(plan: Mapping[str, Any], inputs: int, outputs: int) -> Entry:
    architecture = plan.get("architecture")
    if isinstance(architecture, dict):
        name, kwargs = architecture.get("network_class_name"), _table(architecture, "arch_kwargs")
    else:
        name, kwargs = plan.get("UNet_class_name"), _older(plan)
    known = _ARCHITECTURES.get(str(name))
    if known is None:
        raise ModelImportError(
            reason=f"network_class_name is {shown(str(name))}, expected one of "
            f"{', '.join(_ARCHITECTURES)}"
        )
    own = {key: value for key, value in kwargs.items() if value is not None}
    own.pop("deep_supervision", None)  # of the training; nothing of it is needed afterwards
    return {
        "architecture": known,
        "kwargs": {"input_channels": inputs, "num_classes": outputs, **own},
    }


def _older(plan: Mapping[str, Any]) -> Entry:
    """Return the arguments that plans before version 2.3 state one by one, or leave implied."""
    counts = plan.get("n_conv_per_stage_encoder")
    if not isinstance(counts, list):
        raise ModelImportError(reason="plans.json: n_conv_per_stage_encoder is missing or no list")
    is_plain = plan.get("UNet_class_name") == "PlainConvUNet"
    first, most = _number(plan, "UNet_base_num_features"), _number(plan, "unet_max_num_features")
    return {
        "n_stages": len(counts),
        "features_per_stage": [min(first * 2**stage, most) for stage in range(len(counts))],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": plan.get("conv_kernel_sizes"),
        "strides": plan.get("pool_op_kernel_sizes"),
        "n_conv_per_stage" if is_plain else "n_blocks_per_stage": counts,
        "n_conv_per_stage_decoder": plan.get("n_conv_per_stage_decoder"),
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }


def _outputs(dataset: Mapping[str, Any]) -> tuple[tuple[Channel, ...], bool]:
    """Return the output channels, and whether they are regions."""
    labels = {
        name: value
        for name, value in _table(dataset, "labels").items()
        if name not in {"background", "ignore"}
    }
    if any(isinstance(value, list) and len(value) > 1 for value in labels.values()):
        return _regions(labels, dataset.get("regions_class_order")), True
    values = [value[0] if isinstance(value, list) else value for value in labels.values()]
    if sorted(values) != list(range(1, len(values) + 1)):
        raise ModelImportError(reason="dataset.json: labels are not numbered 1, 2, ...")
    pairs = sorted(zip(values, labels, strict=True))
    return tuple(Channel(index=value, name=name) for value, name in pairs), False


def _regions(labels: Mapping[str, Any], order: object) -> tuple[Channel, ...]:
    """Return regions as nnU-Net paints them: in their order, each one over those before it."""
    if not isinstance(order, list) or len(order) != len(labels):
        raise ModelImportError(
            reason="dataset.json: regions_class_order does not have one number for each region"
        )
    contents = [set(one) if isinstance(one, list) else {one} for one in labels.values()]
    for wider, narrower in itertools.pairwise(contents):
        if not narrower < wider:
            raise ModelImportError(
                reason="dataset.json: regions do not lie within each other, the widest first"
            )
    return tuple(Channel(index=index, name=name) for index, name in enumerate(labels))


def _normalise(plan: Mapping[str, Any]) -> Entry:
    schemes = plan.get("normalization_schemes")
    masks = plan.get("use_mask_for_norm")
    if not isinstance(schemes, list) or not isinstance(masks, list):
        raise ModelImportError(
            reason="plans.json: normalization_schemes or use_mask_for_norm is missing"
        )
    for scheme in schemes:
        if scheme != "ZScoreNormalization":
            raise ModelImportError(
                reason=f"normalization_schemes has {shown(str(scheme))}, expected "
                "ZScoreNormalization for every channel"
            )
    if len(set(masks)) != 1:
        raise ModelImportError(reason="use_mask_for_norm differs from channel to channel")
    return {"kind": "zscore", "mask": "nonzero" if masks[0] else "all", "per_channel": True}


def _interpolation(plan: Mapping[str, Any]) -> Entry:
    kwargs = plan.get("resampling_fn_data_kwargs")
    order = kwargs.get("order", 3) if isinstance(kwargs, dict) else 3
    return {"interpolation": "linear" if order == 1 else "cubic"}


def _orientation(plans: Mapping[str, Any]) -> tuple[str, bool]:
    """Return where the axes of the network's input grow to, and whether that is certain."""
    reader = str(plans.get("image_reader_writer"))
    known = {**_KEEPING, **_TURNING}
    if reader not in known:
        raise ModelImportError(
            reason=f"image_reader_writer is {shown(reader)}, expected one of {', '.join(known)}"
        )
    turned = plans.get("transpose_forward", [0, 1, 2])
    if sorted(turned) != [0, 1, 2]:
        raise ModelImportError(reason="plans.json: transpose_forward is no order of three axes")
    return "".join(known[reader][axis] for axis in turned), reader in _TURNING


def _presumed(
    orientation: str, plan: Mapping[str, Any], facts: Mapping[str, Any]
) -> dict[str, Entry]:
    """Return what nnU-Net does not say outright, but does or implies."""
    # A mask is used where images are mostly zero, which means that they were stripped.
    is_masked = bool(plan["use_mask_for_norm"][0])
    return {
        "space": {"orientation": orientation, "skull": "stripped" if is_masked else "whole"},
        "infer": {
            "overlap": 0.5,
            "blending": "gaussian",
            "crop": "foreground",
            "tta_axes": facts.get("inference_allowed_mirroring_axes") or [],
        },
    }


def _texts(dataset: Mapping[str, Any]) -> dict[str, str]:
    title = _text(dataset, "description") or _text(dataset, "name") or "nnU-Net"
    licence = _text(dataset, "licence") or _text(dataset, "license")
    return {"title": title, "licence": licence or _NO_LICENCE, "intended_use": _INTENDED_USE}


# -- values ---------------------------------------------------------------------------------------


def _table(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = content.get(key)
    if not isinstance(found, dict):
        raise ModelImportError(reason=f"{key} is missing or no table")
    return found


def _text(content: Mapping[str, Any], key: str) -> str | None:
    value = content.get(key)
    return value.strip() if isinstance(value, str) and value.strip() else None


def _number(content: Mapping[str, Any], key: str) -> int:
    value = content.get(key)
    if not isinstance(value, int):
        raise ModelImportError(reason=f"plans.json: {key} is missing or no whole number")
    return value


def _numbers(content: Mapping[str, Any], key: str) -> list[float]:
    value = content.get(key)
    if not isinstance(value, list) or len(value) != len("xyz"):
        raise ModelImportError(
            reason=f"plans.json: {key} has not three numbers; only 3-D configurations are served"
        )
    return value
