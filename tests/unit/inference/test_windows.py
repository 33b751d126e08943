"""The sliding-window engine: what it returns, counts and reports."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn
from torch.nn import functional

from inference import manifest, windows
from inference.declarations import Infer
from inference.errors import DeviceMemoryError, InvalidOutputError, PredictionStoppedError
from inference.model import LoadedModel
from inference.networks import ResidualUNet
from inference.runtime import OpenVinoRuntime, TorchRuntime

DEMO = manifest.load(Path(__file__).parents[3] / "models" / "demo-glioma")
PLAN = Infer(window=(8, 12, 8), overlap=0.5, blending="gaussian", crop="none")


class Fake(nn.Module):
    """A network that is a function of a window."""

    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, window: Tensor) -> object:
        """Return what the function returns."""
        return self.function(window)


def twice(window: Tensor) -> Tensor:
    return 2.0 * window


def on_a_full_device(_: Tensor) -> Tensor:
    raise torch.OutOfMemoryError


def with_more_memory_than_any_machine_has(_: Tensor) -> Tensor:
    return torch.empty(1 << 60, dtype=torch.uint8)


def loaded(network: nn.Module, plan: Infer = PLAN) -> LoadedModel:
    declared = DEMO.model_copy(update={"infer": plan})
    return LoadedModel(
        manifest=declared, network=network, device="cpu", runtime=TorchRuntime(network, "cpu")
    )


@pytest.mark.parametrize("blending", ["gaussian", "constant"])
@pytest.mark.parametrize("extent", [(8, 12, 8), (5, 7, 3), (17, 12, 30), (20, 5, 9)])
def test_blending_windows_changes_no_value(extent: tuple[int, int, int], blending: str) -> None:
    image = torch.randn(4, *extent, generator=torch.Generator().manual_seed(0))
    plan = PLAN.model_copy(update={"blending": blending})
    found = windows.run(image, loaded(Fake(twice), plan))
    assert found.dtype == torch.float32
    assert found.device.type == "cpu"
    torch.testing.assert_close(found, 2.0 * image, atol=1e-5, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    extent=st.tuples(*[st.integers(1, 40)] * 3),
    sides=st.tuples(*[st.integers(2, 16)] * 3),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.7]),
)
def test_progress_counts_every_window_to_the_end(
    extent: tuple[int, int, int], sides: tuple[int, int, int], overlap: float
) -> None:
    plan = Infer(window=sides, overlap=overlap, blending="constant", crop="none")
    seen: list[tuple[int, int]] = []
    windows.run(
        torch.zeros(1, *extent),
        loaded(Fake(twice), plan),
        lambda done, total: seen.append((done, total)),
    )
    total = windows.count_windows(extent, plan)
    assert seen == [(done, total) for done in range(1, total + 1)]


@pytest.mark.parametrize(
    "network",
    [Fake(with_more_memory_than_any_machine_has), Fake(on_a_full_device)],
    ids=["machine", "device"],
)
def test_too_little_memory_is_said_with_the_plan(network: nn.Module) -> None:
    with pytest.raises(DeviceMemoryError) as caught:
        windows.run(torch.zeros(4, 16, 12, 8), loaded(network))
    assert caught.value.evidence == {"window_count": 3, "voxels": 8 * 12 * 8}


def test_another_failure_is_not_called_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        windows.run(
            torch.zeros(4, 8, 12, 8), loaded(Fake(lambda window: window @ torch.zeros(3, 3)))
        )
    assert not isinstance(caught.value, DeviceMemoryError)


def test_a_network_with_several_outputs_is_refused() -> None:
    with pytest.raises(InvalidOutputError):
        windows.run(torch.zeros(4, 8, 12, 8), loaded(Fake(lambda window: (window, window))))


# -- against MONAI, which the plan comes from -----------------------------------------------------

NETWORK = ResidualUNet(4, 4, (4, 6))
EXTENTS = [(16, 24, 16), (9, 30, 11), (37, 20, 41), (16, 24, 17)]


def planned(blending: Literal["gaussian", "constant"], overlap: float, *axes: int) -> Infer:
    return Infer(
        window=(16, 24, 16), overlap=overlap, blending=blending, crop="none", tta_axes=axes
    )


def in_openvino(plan: Infer, *, tta: bool = False) -> LoadedModel:
    declared = DEMO.model_copy(update={"infer": plan})
    runtime = OpenVinoRuntime(NETWORK.eval(), threads=2)
    return LoadedModel(manifest=declared, network=NETWORK, device="cpu", runtime=runtime, tta=tta)


def by_monai(image: Tensor, plan: Infer) -> Tensor:
    with torch.inference_mode():
        scores = sliding_window_inference(
            image[None], plan.window, 4, NETWORK.eval(), plan.overlap, plan.blending
        )
    assert isinstance(scores, Tensor)
    return scores[0]


def noise(extent: tuple[int, int, int], seed: int = 3) -> Tensor:
    return torch.randn(4, *extent, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("extent", EXTENTS)
@pytest.mark.parametrize("overlap", [0.25, 0.5])
@pytest.mark.parametrize("blending", ["gaussian", "constant"])
def test_scores_are_those_of_monais_sliding_window(
    blending: Literal["gaussian", "constant"], overlap: float, extent: tuple[int, int, int]
) -> None:
    plan, image = planned(blending, overlap), noise(extent)
    expected = by_monai(image, plan)
    in_torch = windows.run(image, loaded(NETWORK.eval(), plan))
    torch.testing.assert_close(in_torch, expected, atol=5e-6, rtol=1e-5)
    found = windows.run(image, in_openvino(plan))
    # Instance norm divides by next to nothing in windows that are mostly padding.
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-2)
    assert torch.equal(found.argmax(dim=0), expected.argmax(dim=0))


def test_windows_of_nothing_are_computed_once_and_change_nothing() -> None:
    plan, image = planned("constant", 0.5), torch.zeros(4, 60, 60, 60)
    image[:, 20:30, 22:30, 25:33] = noise((10, 8, 8))
    computed: list[Tensor] = []

    def remembered(window: Tensor) -> Tensor:
        computed.append(window)
        scores: Tensor = NETWORK.eval()(window)
        return scores

    seen: list[tuple[int, int]] = []
    model = loaded(Fake(remembered), plan)
    found = windows.run(image, model, lambda done, total: seen.append((done, total)))
    torch.testing.assert_close(found, by_monai(image, plan), atol=5e-6, rtol=1e-5)
    total = windows.count_windows((60, 60, 60), plan)
    assert seen[-1] == (total, total)
    assert sum(not bool(window.any()) for window in computed) == 1
    assert len(computed) < total


@pytest.mark.parametrize("axes", [(0,), (0, 1, 2), (2, 1)])
def test_mirrored_copies_are_averaged_as_probabilities(axes: tuple[int, ...]) -> None:
    plan, image = planned("constant", 0.5, *axes), noise((25, 24, 40))
    copies = []
    for chosen in windows.mirrors(axes):
        turned = [axis + 1 for axis in chosen]
        copies.append(torch.softmax(by_monai(image.flip(turned), plan).flip(turned), dim=0))
    assert len(copies) == 2 ** len(axes)
    expected = torch.stack(copies).mean(dim=0)
    seen: list[tuple[int, int]] = []
    scores = windows.run(
        image, in_openvino(plan, tta=True), lambda done, total: seen.append((done, total))
    )
    torch.testing.assert_close(torch.softmax(scores, dim=0), expected, atol=1e-5, rtol=1e-4)
    total = len(copies) * windows.count_windows((25, 24, 40), plan)
    assert seen[-1] == (total, total)


def test_a_whole_image_goes_through_at_once_padded_to_a_multiple() -> None:
    plan = planned("constant", 0.5).model_copy(update={"mode": "whole", "multiple_of": 8})
    image = noise((21, 16, 35))
    expected = NETWORK.eval()(functional.pad(image, (2, 3, 0, 0, 1, 2))[None])[0]
    for model in (loaded(NETWORK.eval(), plan), in_openvino(plan)):
        found = windows.run(image, model)
        cut = expected[:, 1:22, :, 2:37].detach()
        torch.testing.assert_close(found, cut, atol=2e-5, rtol=1e-4)


# -- stopping -------------------------------------------------------------------------------------


def after(calls: int) -> Callable[[], bool]:
    asked = itertools.count(1)
    return lambda: next(asked) > calls


def test_a_window_is_stopped_in_its_middle_in_torch() -> None:
    done: list[int] = []

    class Layer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            done.append(1)
            return x

    network = nn.Sequential(*(Layer() for _ in range(50)))
    with pytest.raises(PredictionStoppedError) as caught:
        windows.run(torch.ones(4, 8, 12, 8), loaded(network), stop=after(7))
    assert len(done) == 7
    assert caught.value.evidence == {"windows_done": 0, "window_count": 1}


def test_a_window_is_stopped_in_its_middle_in_openvino() -> None:
    big = ResidualUNet(4, 4, (48, 48)).eval()
    plan = Infer(window=(96, 96, 96), overlap=0.5, blending="constant", crop="none")
    model = replace(in_openvino(plan), runtime=OpenVinoRuntime(big, threads=1))
    asked: list[float] = []

    def stop() -> bool:
        asked.append(time.monotonic())
        return len(asked) > 2

    with pytest.raises(PredictionStoppedError) as caught:
        windows.run(torch.ones(4, 96, 96, 96), model, stop=stop)
    assert caught.value.evidence == {"windows_done": 0, "window_count": 1}
    # Whatever was cancelled, the next computation starts afresh.
    small = replace(model, manifest=DEMO.model_copy(update={"infer": planned("constant", 0.5)}))
    assert torch.isfinite(windows.run(noise((16, 24, 16)), small)).all()


def test_what_is_left_uncomputed_disturbs_no_later_computation() -> None:
    plan = planned("constant", 0.5)
    model = in_openvino(plan)
    narrow = replace(model, runtime=OpenVinoRuntime(nn.Conv3d(4, 2, 2).eval(), threads=2))
    with pytest.raises(InvalidOutputError, match="scores lie on") as caught:
        windows.run(noise((40, 40, 40)), narrow)
    later = replace(narrow, manifest=narrow.manifest)
    with pytest.raises(InvalidOutputError, match="scores lie on"):
        windows.run(noise((40, 40, 40)), later)
    assert caught.value.__traceback__ is not None  # its frames still hold the first computation
