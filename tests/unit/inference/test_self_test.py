"""Seeded noise tells one network from another, and costs little."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inference import importing, self_test
from inference.errors import ModelUnusableError
from inference.importing import Identity
from inference.manifest import Manifest
from tests import checkpoints


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Return a model that was imported."""
    place = tmp_path_factory.mktemp("models")
    torch.save(checkpoints.network().state_dict(), place / "state.pt")
    identity = Identity(model_id="small", version="1")
    template = checkpoints.template(place)
    source, target = place / "state.pt", place / "small"
    return importing.import_model(source, target, template, identity=identity).manifest


def test_the_record_is_that_of_a_direct_computation(served: Manifest) -> None:
    record = served.self_test
    assert record is not None
    noise = torch.randn(1, 4, 16, 16, 16, generator=torch.Generator().manual_seed(record.seed))
    with torch.inference_mode():
        scores = checkpoints.network()(noise)[0].numpy()
    assert record.score_means == pytest.approx(scores.mean(axis=(1, 2, 3)), abs=1e-5)
    winners = scores.argmax(axis=0)
    assert record.shares == pytest.approx([(winners == one).mean() for one in range(4)], abs=1e-5)


def test_other_numbers_than_recorded_are_refused(served: Manifest) -> None:
    record = served.self_test
    assert record is not None
    other = served.model_copy(update={"self_test": record.model_copy(update={"seed": 21})})
    with pytest.raises(ModelUnusableError, match=r"self_test\.score_means: output channel 0 gives"):
        self_test.run(other)
    near = tuple(one + record.tolerance / 2 for one in record.score_means)
    same = served.model_copy(update={"self_test": record.model_copy(update={"score_means": near})})
    assert self_test.run(same) == record


def test_weights_that_were_exchanged_are_found(served: Manifest, tmp_path: Path) -> None:
    other = tmp_path / "state.pt"
    torch.save(checkpoints.network(seed=9).state_dict(), other)
    identity = Identity(model_id="small", version="1")
    template = checkpoints.template(tmp_path)
    second = importing.import_model(other, tmp_path / "b", template, identity=identity).manifest
    mixed = second.model_copy(update={"self_test": served.self_test})
    with pytest.raises(ModelUnusableError, match=r"self_test\.(score_means|shares)"):
        self_test.run(mixed)


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ((96, 96, 96), (96, 96, 96)),
        ((128, 128, 128), (64, 64, 64)),
        ((240, 240, 160), (120, 120, 80)),  # 60 is no multiple of 8
    ],
)
def test_a_large_window_is_halved_where_the_network_takes_it(
    served: Manifest, window: tuple[int, int, int], expected: tuple[int, int, int]
) -> None:
    kwargs = {**served.network.kwargs, "channels": [4, 4, 4, 4], "strides": [2, 2, 2]}
    network = served.network.model_copy(update={"kwargs": kwargs})
    infer = served.infer.model_copy(update={"window": window})
    declared = served.model_copy(update={"network": network, "infer": infer})
    assert self_test._extent(declared) == expected


def test_a_window_that_the_network_does_not_take_is_refused(served: Manifest) -> None:
    infer = served.infer.model_copy(update={"window": (16, 16, 18)})
    with pytest.raises(ModelUnusableError, match="inputs or window do not fit"):
        self_test.run(served.model_copy(update={"infer": infer}))


def test_an_output_of_another_shape_is_refused(served: Manifest) -> None:
    kwargs = {**served.network.kwargs, "out_channels": 3}
    network = served.network.model_copy(update={"kwargs": kwargs})
    with pytest.raises(ModelUnusableError, match=r"output shape is \(1, 3, 16, 16, 16\), expected"):
        self_test.run(served.model_copy(update={"network": network}))
