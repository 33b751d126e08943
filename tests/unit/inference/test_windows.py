"""The sliding-window engine: what it returns, counts and reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from inference import manifest, windows
from inference.declarations import Infer
from inference.errors import DeviceMemoryError, InvalidOutputError
from inference.model import LoadedModel

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
    return LoadedModel(manifest=declared, network=network, device="cpu")


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
