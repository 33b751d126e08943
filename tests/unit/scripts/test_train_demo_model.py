"""The training of the demonstration model: samples come from numbers, and a run goes on."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from inference.networks import StridedUNet
from scripts import train_demo_model as train
from scripts.generated_studies import anatomy, imaging, tumours

SHAPE = (24, 32, 24)


def plain_scene(seed: int) -> Tensor:
    """Return a small head without anatomy, its tumour somewhere else by each seed."""
    planes = torch.zeros((imaging.PLANES, *SHAPE), dtype=torch.uint8)
    planes[imaging.PARTS, 3:-3, 3:-3, 3:-3] = anatomy.BRAIN
    planes[4, 3:-3, 3:-3, 3:-3] = 255
    low = 4 + seed % 8
    planes[imaging.LESION, low : low + 6, 8:16, 8:16] = tumours.ENHANCING
    planes[imaging.LABELS][planes[imaging.LESION] > 0] = 3
    planes[imaging.STRENGTH][planes[imaging.LESION] > 0] = 255
    return planes


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    monkeypatch.setattr(train, "draw_scene", plain_scene)
    monkeypatch.setattr(train, "WINDOW", (16, 16, 16))
    monkeypatch.setattr(train, "CHANNELS", (4, 6))
    (tmp_path / "scenes").mkdir()
    return argparse.Namespace(
        out=tmp_path,
        steps=4,
        seconds=math.inf,
        rate=1e-3,
        scenes=3,
        batch=1,
        workers=0,
        threads=1,
        seed=5,
        start=None,
    )


def samples(options: argparse.Namespace, first: int, count: int) -> list[tuple[Tensor, Tensor]]:
    return [one for one, _ in zip(train._Samples(options, first), range(count), strict=False)]


def test_a_sample_is_drawn_from_its_number(options: argparse.Namespace) -> None:
    before = samples(options, 0, 4)
    later = samples(options, 2, 2)
    for (images, labels), (images_again, labels_again) in zip(before[2:], later, strict=True):
        torch.testing.assert_close(images, images_again)
        assert torch.equal(labels, labels_again)
    assert images.shape == (4, *train.WINDOW)
    assert labels.shape == train.WINDOW
    assert not torch.equal(before[0][0], before[1][0])


def test_scenes_are_kept_and_none_is_of_the_held_out_seeds(options: argparse.Namespace) -> None:
    samples(options, 0, 12)
    kept = sorted(int(path.stem) for path in (options.out / "scenes").iterdir())
    assert kept
    assert kept[0] >= train.FIRST_SEED
    assert len(kept) <= options.scenes


@pytest.mark.usefixtures("options")
def test_most_windows_hold_tumour_and_all_lie_in_the_scene() -> None:
    scene = plain_scene(3)
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(40):
        window = train._window(scene[imaging.LABELS], scene[imaging.PARTS], rng)
        part = scene[imaging.LABELS].numpy()[window]
        assert part.shape == train.WINDOW
        found += bool(part.any())
    assert found > 20


def test_a_run_that_was_stopped_goes_on_and_its_weights_fit_the_network(
    options: argparse.Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    options.steps = 2
    train._Training(options).run()
    options.steps = 4
    again = train._Training(options)
    assert again.state.step == 2
    again.run()
    assert again.state.step == 4
    assert "goes on at step 2" in capsys.readouterr().out
    weights = safetensors.torch.load_file(options.out / "model.safetensors")
    assert {one.dtype for one in weights.values()} == {torch.float16}
    network = StridedUNet(4, 4, train.CHANNELS, train.FINE)
    network.load_state_dict({name: one.float() for name, one in weights.items()})


def test_the_loss_falls_where_the_labels_are_right() -> None:
    labels = torch.zeros((1, 12, 12, 12), dtype=torch.long)
    labels[0, 2:8, 2:8, 2:8] = 3
    right = torch.nn.functional.one_hot(labels, 4).movedim(-1, 1).float() * 12
    wrong = right.roll(1, dims=1)
    weights = torch.ones(4)
    low, regions = train._loss(right, labels, weights)
    high, _ = train._loss(wrong, labels, weights)
    assert float(low) < 0.1 < float(high)
    assert not bool(regions.isnan().any())
    _, absent = train._loss(right, torch.zeros_like(labels), weights)
    assert bool(absent.isnan().all())
    assert float(regions.nan_to_num(1.0).min()) > 0.9
