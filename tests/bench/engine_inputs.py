"""What the engine is measured on: networks fitted to generated studies, and an image.

Networks are fitted first (minutes, kept in ``var/bench``): with random weights labels flip at the
slightest rounding, and agreement would say nothing. The image is the real exam of the test data
where it is there, never used for fitting, else a generated study, of 4 x 240 x 240 x 155 voxels for
the UNet, and its middle for networks that take long.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from converters import nifti, phantom
from converters.volume import Volume
from inference import manifest, networks, preprocess
from inference.declarations import Infer, Network
from inference.manifest import Manifest
from tests import peers

KEPT: Final = Path("var") / "bench"
_TEMPLATE: Final = manifest.load(Path(__file__).parents[2] / "models" / "demo-glioma")
WINDOW: Final = (96, 96, 96)
_MIDDLE: Final = 144
_SHAPE: Final = (240, 240, 155)
_CROP: Final = 48  # voxels a side
STEPS: Final = {"unet": 120, "segresnet": 40, "dynunet": 8}  # of fitting: minutes each
_FROM_BRATS: Final = np.array([0, 2, 1, 0, 3], np.uint8)  # 1 core, 2 oedema, 4 enhancing
_NAMES: Final = {"flair": "flair", "t1": "t1", "t1gd": "t1ce", "t2": "t2"}
Way = Literal["monai", "engine", "half", "crop", "half-crop"]
_CROPPED: Final = ("crop", "half-crop")

NETWORKS: Final[Mapping[str, Network]] = {
    "unet": Network(
        architecture="monai.UNet",
        kwargs={
            "spatial_dims": 3,
            "in_channels": 4,
            "out_channels": 4,
            "channels": [16, 32, 64, 128, 256],
            "strides": [2, 2, 2, 2],
            "num_res_units": 2,
            "norm": "batch",
        },
    ),
    "segresnet": Network(
        architecture="monai.SegResNet",
        kwargs={
            "init_filters": 16,
            "blocks_down": [1, 2, 2, 4],
            "blocks_up": [1, 1, 1],
            "in_channels": 4,
            "out_channels": 4,
        },
    ),
    "dynunet": Network(
        architecture="monai.DynUNet",
        kwargs={
            "spatial_dims": 3,
            "in_channels": 4,
            "out_channels": 4,
            "kernel_size": [3, 3, 3, 3, 3],
            "strides": [1, 2, 2, 2, 2],
            "upsample_kernel_size": [2, 2, 2, 2],
            "filters": [16, 32, 64, 128, 256],
        },
    ),
}


def declared(name: str, way: Way, axes: tuple[int, ...]) -> Manifest:
    """Return a manifest with the reference project's window plan."""
    plan = Infer(
        window=WINDOW,
        overlap=0.5,
        blending="constant",
        crop="foreground" if way in _CROPPED else "none",
        tta_axes=axes,
    )
    space = _TEMPLATE.space.model_copy(update={"spacing_mm": (1.0, 1.0, 1.0), "skull": "any"})
    normalise = _TEMPLATE.normalise.model_copy(update={"mask": "nonzero", "outside": "zero"})
    postprocess = _TEMPLATE.postprocess.model_copy(update={"clip_to_brain": False})
    update = {
        "network": NETWORKS[name],
        "infer": plan,
        "space": space,
        "normalise": normalise,
        "postprocess": postprocess,
    }
    return _TEMPLATE.model_copy(update=update)


# -- images ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Image:
    """What a network sees (channels, x, y, z), and the truth there (x, y, z)."""

    name: str
    channels: Tensor
    truth: NDArray[np.uint8]


def generated(seed: int) -> Image:
    """Return a generated study on a grid of 1 mm."""
    study = phantom.make_study(seed)
    model = declared("unet", "monai", ())
    reference = study.volumes["t1gd"].grid
    ordered = [study.volumes[role] for role in model.roles]
    prepared = preprocess.prepare(ordered, reference, model)
    truth = study.truth["t1gd"].astype(np.float32)
    parts = [
        preprocess.resample(
            Volume(intensities=(truth == number).astype(np.float32), grid=reference, role="t1"),
            prepared.grid,
        )
        for number in (1, 2, 3)
    ]
    labels = np.where(np.max(parts, axis=0) > 0.5, np.argmax(parts, axis=0) + 1, 0)
    return Image(
        name=f"generated study {seed}", channels=prepared.channels, truth=labels.astype(np.uint8)
    )


def measured_image() -> Image:
    """Return the image that is measured on."""
    folder = peers.real_data_folder()
    if folder is None:
        image = generated(90)
        pads = [(0, want - have) for want, have in zip(_SHAPE, image.truth.shape, strict=True)]
        flat = [count for pair in reversed(pads) for count in pair]
        channels = functional.pad(image.channels, flat)
        return Image(name=image.name, channels=channels, truth=np.pad(image.truth, pads))
    exam = folder / "tumour" / "Brats17_2013_27_1_GT"
    volumes = {
        role: nifti.read_volume(
            next(exam.glob(f"*_{name}.nii.gz")), role=role, frame_of_reference_uid=""
        )
        for role, name in _NAMES.items()
    }
    model = declared("unet", "monai", ())
    reference = volumes["t1gd"].grid
    prepared = preprocess.prepare([volumes[role] for role in model.roles], reference, model)
    truth = nifti.read_volume(next(exam.glob("*_seg.nii.gz")), role="t1", frame_of_reference_uid="")
    on_grid = preprocess.resample(truth, prepared.grid).round().astype(np.uint8)
    return Image(
        name="real exam BraTS 2013", channels=prepared.channels, truth=_FROM_BRATS[on_grid]
    )


def middle(image: Image) -> Image:
    """Return the middle of an image, of eight windows, for networks that take long."""
    spans = [slice((size - _MIDDLE) // 2, (size + _MIDDLE) // 2) for size in image.truth.shape]
    channels = image.channels[(slice(None), *spans)].contiguous()
    return Image(name=image.name, channels=channels, truth=image.truth[tuple(spans)])


# -- fitting --------------------------------------------------------------------------------------


def fitted(name: str, steps: int) -> nn.Module:
    """Return a network that was fitted to generated studies; fitted once and kept."""
    network = networks.build(NETWORKS[name])
    file = KEPT / f"{name}-{steps}.safetensors"
    if not file.is_file():
        KEPT.mkdir(parents=True, exist_ok=True)
        _fit(name, network.train(), [generated(seed) for seed in (1, 2, 3)], steps)
        save(network, file)
    network.load_state_dict(safetensors.torch.load_file(file))
    return network.eval()


def save(network: nn.Module, file: Path) -> None:
    """Write what a network has learnt."""
    # DynUNet names some of its parameters twice, which safetensors takes only as copies.
    copies = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    safetensors.torch.save_file(copies, file)


def _fit(name: str, network: nn.Module, images: list[Image], steps: int) -> None:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=steps)
    started = time.monotonic()
    for step in range(steps):
        pairs = [_piece(images[int(rng.integers(len(images)))], rng) for _ in range(2)]
        x = torch.stack([pair[0] for pair in pairs])
        y = torch.stack([pair[1] for pair in pairs])
        scores = network(x)
        loss = functional.cross_entropy(scores, y, torch.tensor([0.2, 1.0, 1.0, 1.5]))
        soft, hot = torch.softmax(scores, 1), functional.one_hot(y, 4).movedim(-1, 1)
        shared = (soft * hot).sum((0, 2, 3, 4))[1:]
        dice = (2 * shared + 1) / (soft.sum((0, 2, 3, 4)) + hot.sum((0, 2, 3, 4)) + 1)[1:]
        optimiser.zero_grad()
        (loss + 1.0 - dice.mean()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if step % 20 == 0 or step == steps - 1:
            spent = time.monotonic() - started
            say(
                f"  {name} step {step}/{steps} dice {float(dice.detach().mean()):.2f} {spent:.0f} s"
            )


def _piece(image: Image, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return a cube, two times of three around a voxel of the tumour."""
    where = np.argwhere(image.truth if rng.random() < 0.67 else image.channels[0].numpy())
    centre = where[int(rng.integers(len(where)))] + rng.integers(-12, 13, 3)
    first = [
        int(np.clip(middle - _CROP // 2, 0, size - _CROP))
        for middle, size in zip(centre, image.truth.shape, strict=True)
    ]
    x, y, z = (slice(start, start + _CROP) for start in first)
    axes = [axis for axis in range(3) if rng.random() < 0.5]
    channels = image.channels[:, x, y, z].flip([axis + 1 for axis in axes])
    noisy = channels + 0.1 * torch.randn(channels.shape) * (channels != 0)
    return noisy, torch.from_numpy(image.truth[x, y, z].astype(np.int64)).flip(axes)


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
