"""On a GPU: the labels of the processor, several windows at a time, and too little memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from converters import phantom
from converters.phantom import PhantomStudy
from inference import manifest, model
from inference.model import DeviceChoice, LoadedModel
from inference.predict import predict
from inference.runtime import TorchRuntime

MODELS = Path(__file__).parents[3] / "models"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


@pytest.fixture(scope="module")
def study() -> PhantomStudy:
    return phantom.make_study(0)


def loaded(device: DeviceChoice, *, tta: bool = False) -> LoadedModel:
    declared = manifest.load(MODELS / "demo-glioma")
    plan = declared.infer.model_copy(update={"tta_axes": (0,) if tta else ()})
    return model.load(
        declared.model_copy(update={"infer": plan}),
        device=device,
        mask_folder=MODELS / "brain-mask",
        tta=tta,
    )


@pytest.mark.parametrize("tta", [False, True])
def test_the_gpu_labels_as_the_processor_does(study: PhantomStudy, *, tta: bool) -> None:
    found = {}
    for device in ("cpu", "cuda"):
        chosen = loaded(device, tta=tta)
        found[device] = predict(
            list(study.volumes.values()), chosen, reference_role="t1gd"
        ).label_map.labels
        assert chosen.runtime_reason == ""
    assert (found["cpu"] == found["cuda"]).mean() > 0.9999
    for number in (1, 2, 3):
        a, b = found["cpu"] == number, found["cuda"] == number
        assert 2 * np.count_nonzero(a & b) > 0.99 * (np.count_nonzero(a) + np.count_nonzero(b))


def test_as_many_windows_run_at_once_as_memory_allows(study: PhantomStudy) -> None:
    chosen = loaded("cuda")
    predict(list(study.volumes.values()), chosen, reference_role="t1gd")
    assert isinstance(chosen.runtime, TorchRuntime)
    assert chosen.runtime._at_once > 1


def test_less_memory_costs_time_and_no_label(study: PhantomStudy) -> None:
    chosen = loaded("cuda")
    plenty = predict(list(study.volumes.values()), chosen, reference_role="t1gd")
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, 600 * 2**20 / total))
    try:
        scarce = predict(list(study.volumes.values()), chosen, reference_role="t1gd")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert np.array_equal(scarce.label_map.labels, plenty.label_map.labels)
