"""Speed, memory and labels of the engine against the plain MONAI call, in one run.

``python -m tests.bench engine``; for one network ``python -m tests.bench.bench_engine unet``. The
peer is what the reference project does: ``sliding_window_inference`` in torch with float32 on the
processor, windows of 96 with half of them shared, four at a time. Each measurement is a process of
its own, peer and engine take turns.

Networks are fitted to generated studies first (minutes, kept in ``var/bench``): with random weights
labels flip at the slightest rounding, and agreement would say nothing. The image is the real exam
of the test data where it is there, never used for fitting, else a generated study, of
4 x 240 x 240 x 155 voxels for the UNet, and its middle for networks that take long.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import safetensors.torch
import torch
from monai.inferers.utils import sliding_window_inference
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from converters import nifti, phantom
from converters.volume import Volume
from inference import manifest, networks, preprocess, runtime, windows
from inference.declarations import Infer, Network
from inference.manifest import Manifest
from inference.model import LoadedModel
from tests import peers
from tests.bench import comparison
from tests.bench.comparison import Comparison

_KEPT: Final = Path("var") / "bench"
_TEMPLATE: Final = manifest.load(Path(__file__).parents[2] / "models" / "demo-glioma")
_WINDOW: Final = (96, 96, 96)
_AT_ONCE: Final = 4
_MIDDLE: Final = 144
_SHAPE: Final = (240, 240, 155)
_CROP: Final = 48  # voxels a side
_STEPS: Final = {"unet": 120, "segresnet": 40, "dynunet": 8}  # of fitting: minutes each
_MOST_ROUNDS: Final = 3  # a round of the UNet takes a minute
_FROM_BRATS: Final = np.array([0, 2, 1, 0, 3], np.uint8)  # 1 core, 2 oedema, 4 enhancing
_NAMES: Final = {"flair": "flair", "t1": "t1", "t1gd": "t1ce", "t2": "t2"}
Way = Literal["monai", "engine", "crop"]

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
        window=_WINDOW,
        overlap=0.5,
        blending="constant",
        crop="foreground" if way == "crop" else "none",
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
    file = _KEPT / f"{name}-{steps}.safetensors"
    if not file.is_file():
        _KEPT.mkdir(parents=True, exist_ok=True)
        _fit(name, network.train(), [generated(seed) for seed in (1, 2, 3)], steps)
        _save(network, file)
    network.load_state_dict(safetensors.torch.load_file(file))
    return network.eval()


def _save(network: nn.Module, file: Path) -> None:
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
            _say(
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


# -- one measurement, in a process of its own ----------------------------------------------------


def measure(name: str, way: Way, axes: tuple[int, ...]) -> dict[str, float]:
    """Compute the labels of the image once and return what it took."""
    threads = torch.get_num_threads()
    model = declared(name, way, axes)
    network = networks.build(model.network)
    network.load_state_dict(safetensors.torch.load_file(_KEPT / "weights.safetensors"))
    network.eval()
    channels = torch.from_numpy(np.load(_KEPT / "channels.npy"))
    run = _plain(network, axes) if way == "monai" else _engine(network, model, threads)
    wall, cpu = time.monotonic(), time.process_time()
    labels = run(channels)
    spent = {"wall_s": time.monotonic() - wall, "cpu_s": time.process_time() - cpu}
    np.save(_KEPT / f"{way}.npy", labels)
    return {**spent, "peak_mib": comparison.peak_bytes() / 2**20}


def _plain(network: nn.Module, axes: tuple[int, ...]) -> Callable[[Tensor], NDArray[np.uint8]]:
    """Return the reference project's call; with mirrored copies as MONAI users write them."""

    def slide(image: Tensor) -> Tensor:
        with torch.inference_mode():
            scores = sliding_window_inference(image[None], _WINDOW, _AT_ONCE, network, 0.5)
        if not isinstance(scores, Tensor):
            raise TypeError
        return scores[0]

    def run(channels: Tensor) -> NDArray[np.uint8]:
        copies = windows.mirrors(axes)
        if len(copies) == 1:
            return slide(channels).argmax(0).numpy().astype(np.uint8)
        mean = torch.zeros(1)
        for chosen in copies:
            turned = [axis + 1 for axis in chosen]
            mean = mean + torch.softmax(slide(channels.flip(turned)).flip(turned), 0) / len(copies)
        return mean.argmax(0).numpy().astype(np.uint8)

    return run


def _engine(
    network: nn.Module, model: Manifest, threads: int
) -> Callable[[Tensor], NDArray[np.uint8]]:
    chosen = runtime.choose(network, "cpu", window=_WINDOW, channels=4, threads=threads)
    if chosen.reason:
        sys.stderr.write(f"{chosen.reason}\n")
    loaded = LoadedModel(
        manifest=model,
        network=network,
        device="cpu",
        runtime=chosen.runtime,
        tta=bool(model.infer.tta_axes),
    )

    def run(channels: Tensor) -> NDArray[np.uint8]:
        labels = np.zeros(tuple(channels.shape[1:]), np.uint8)
        spans: tuple[slice, ...] = (slice(None),) * 3
        if model.infer.crop == "foreground":
            used = [np.flatnonzero((channels != 0).any(0).any(a).any(b)) for a, b in _OTHERS]
            spans = tuple(slice(int(one[0]), int(one[-1]) + 1) for one in used)
        part = channels[(slice(None), *spans)].contiguous()
        labels[spans] = windows.run(part, loaded).argmax(0).numpy()
        return labels

    return run


_OTHERS: Final = ((2, 1), (2, 0), (1, 0))  # axes to reduce, one after the other, for x, y, z


# -- the run --------------------------------------------------------------------------------------


def compare(rounds: int, names: Sequence[str] = tuple(NETWORKS)) -> list[Comparison]:
    """Return the engine's ways beside the plain call, for each network."""
    whole = measured_image()
    found = []
    for name in names:
        network = fitted(name, _STEPS[name])
        image = whole if name == "unet" else middle(whole)
        np.save(_KEPT / "channels.npy", image.channels.numpy())
        np.save(_KEPT / "truth.npy", image.truth)
        _save(network, _KEPT / "weights.safetensors")
        found.append(_compared(name, "engine", (), min(rounds, _MOST_ROUNDS)))
        if image is whole:  # the middle lies within the brain
            found.append(_compared(name, "crop", (), min(rounds, _MOST_ROUNDS)))
        found.append(_compared(name, "engine", (0,), 1))
    return found


def _compared(name: str, way: Way, axes: tuple[int, ...], rounds: int) -> Comparison:
    found: dict[str, list[dict[str, float]]] = {"monai": [], way: []}
    for _ in range(rounds):
        for one, rows in found.items():
            rows.append(_in_a_process(name, one, axes))
    peer, ours = (
        {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for rows in found.values()
    )
    theirs, labels = np.load(_KEPT / "monai.npy"), np.load(_KEPT / f"{way}.npy")
    truth = np.load(_KEPT / "truth.npy")
    size = "whole" if name == "unet" else "middle"
    copies = f", {2 ** len(axes)} copies" if axes else ""
    return Comparison(
        name=f"{name}, {size}{copies}, {'same windows' if way == 'engine' else 'brain box'}",
        unit="s",
        peer="MONAI",
        ours=[row["wall_s"] for row in found[way]],
        theirs=[row["wall_s"] for row in found["monai"]],
        target=3.0,
        note=(
            f"labels equal {100 * float((theirs == labels).mean()):.4f} %, "
            f"Dice {_dices(theirs, labels)}; with the truth {_dices(truth, labels)}, "
            f"MONAI's {_dices(truth, theirs)}; peak {ours['peak_mib']:.0f} MiB, "
            f"MONAI's {peer['peak_mib']:.0f}; CPU ratio {peer['cpu_s'] / ours['cpu_s']:.2f}"
        ),
    )


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _dices(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> str:
    def dice(number: int) -> float:
        a, b = one == number, other == number
        both, all_of_them = np.count_nonzero(a & b), np.count_nonzero(a) + np.count_nonzero(b)
        return 2.0 * both / max(1.0, float(all_of_them))

    return " / ".join(f"{dice(number):.3f}" for number in (1, 2, 3))


def _in_a_process(name: str, way: str, axes: tuple[int, ...]) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.bench_engine", name, "--measure", way]
    command += ["--axes", ",".join(map(str, axes))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return row


def main() -> None:
    """Print the table, or take one measurement."""
    parser = argparse.ArgumentParser(description="Measure the engine against the plain MONAI call.")
    parser.add_argument("networks", nargs="*", help=f"of {', '.join(NETWORKS)}; all by default")
    parser.add_argument("--rounds", type=int, default=_MOST_ROUNDS)
    parser.add_argument("--measure", choices=("monai", "engine", "crop"), help=argparse.SUPPRESS)
    parser.add_argument("--axes", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        axes = tuple(int(axis) for axis in asked.axes.split(",") if axis)
        _say(json.dumps(measure(asked.networks[0], asked.measure, axes)))
    else:
        _say(comparison.table(compare(asked.rounds, asked.networks or tuple(NETWORKS))))


if __name__ == "__main__":
    main()
