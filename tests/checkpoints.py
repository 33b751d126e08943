"""Checkpoints as trainings leave them behind, and templates small enough to be quick."""

from __future__ import annotations

import sys
import types
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from monai.networks.nets.unet import UNet
from torch import Tensor

from inference import importing

SMALL: Final[dict[str, Any]] = {
    "spatial_dims": 3,
    "in_channels": 4,
    "out_channels": 4,
    "channels": [4, 6, 8],
    "strides": [2, 2],
    "num_res_units": 2,
    "norm": "batch",
}
TRUE: Final[dict[str, Any]] = {
    **SMALL,
    "channels": [16, 32, 64, 128, 256],
    "strides": [2, 2, 2, 2],
}


def network(kwargs: dict[str, Any] | None = None, *, seed: int = 3) -> UNet:
    """Return a network as if trained: norm layers with statistics of some data."""
    torch.manual_seed(seed)
    made = UNet(**(kwargs or SMALL))
    side = 8 * 2 ** len((kwargs or SMALL)["strides"]) // 4
    with torch.no_grad():
        made.train()(torch.randn(2, 4, side, side, side))
    return made.eval()


def template(folder: Path, *changes: tuple[str, str], small: bool = True) -> Path:
    """Return a copy of the built-in template with small windows and network, and changes."""
    text = importing.template_file("msd-unet").read_text(encoding="utf-8")
    smaller = (
        ("channels = [16, 32, 64, 128, 256]", "channels = [4, 6, 8]"),
        ("strides = [2, 2, 2, 2]", "strides = [2, 2]"),
        ("window = [96, 96, 96]", "window = [16, 16, 16]"),
    )
    for old, new in (*(smaller if small else smaller[2:]), *changes):
        assert old in text
        text = text.replace(old, new, 1)
    file = folder / "template.toml"
    file.write_text(text, encoding="utf-8")
    return file


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return a state dict under other names."""
    return OrderedDict((prefix + name, tensor) for name, tensor in state.items())


@contextmanager
def _foreign_classes() -> Iterator[dict[str, type]]:
    """Register classes of packages that are not installed, while a pickle is written."""
    names = {
        "omegaconf.dictconfig": ("DictConfig",),
        "omegaconf.listconfig": ("ListConfig",),
        "omegaconf.nodes": ("AnyNode",),
        "omegaconf.base": ("ContainerMetadata", "Metadata"),
    }
    made: dict[str, type] = {}
    modules = ["omegaconf", *names]
    for module in modules:
        sys.modules[module] = types.ModuleType(module)
    for module, classes in names.items():
        for name in classes:
            made[name] = type(name, (), {"__module__": module})
            setattr(sys.modules[module], name, made[name])
    try:
        yield made
    finally:
        for module in modules:
            del sys.modules[module]


def _hyper_parameters(classes: dict[str, type]) -> object:
    """Return what OmegaConf leaves in a checkpoint: a tree of nodes with their metadata."""

    def node(value: object) -> object:
        one = classes["AnyNode"]()
        one.__dict__.update(_val=value, _parent=None, _metadata=classes["Metadata"]())
        return one

    channels = classes["ListConfig"]()
    channels.__dict__.update(_content=[node(16), node(32)], _parent=None)
    tree = classes["DictConfig"]()
    metadata = classes["ContainerMetadata"]()
    metadata.__dict__.update(ref_type=Any, object_type=dict, flags=defaultdict(list, a=[1]))
    tree.__dict__.update(
        _content={"lr": node(1e-4), "channels": channels}, _metadata=metadata, _parent=None
    )
    return tree


def write_lightning(file: Path, state: dict[str, Tensor], trained: torch.nn.Module) -> None:
    """Write a file in the layout of a Lightning checkpoint, with the state of an optimiser."""
    optimiser = torch.optim.AdamW(trained.parameters(), lr=1e-4)
    for parameter in trained.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    with _foreign_classes() as classes:
        content = {
            "epoch": 99,
            "global_step": 9700,
            "pytorch-lightning_version": "2.5.1",
            "state_dict": state,
            "loops": {
                "fit_loop": {"state_dict": {}, "epoch_progress": {"current": {"ready": 100}}}
            },
            "callbacks": {"ModelCheckpoint{'monitor': 'val_dice'}": {"best_k_models": {}}},
            "optimizer_states": [optimiser.state_dict()],
            "lr_schedulers": [],
            "MixedPrecision": {"scale": 65536.0},
            "hparams_name": "kwargs",
            "hyper_parameters": _hyper_parameters(classes),
        }
        torch.save(content, file)
