"""A network that some cases spoil or slow down, for `tests/poisoned_node.py`."""

from __future__ import annotations

import json
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import node.segment
from converters.volume import LabelMap
from inference.model import LoadedModel
from inference.runtime import TorchRuntime
from node.cases import AssembledCase
from tests.waiting import wait_until

SLOW_S = 0.8
PLAN, GATE = "POISON_PLAN", "POISON_GATE"
EVERY = "every study"  # in a plan: what is done to those that it does not name
_BRIGHT = 2.0  # standard deviations
_segment_case = node.segment.segment_case


class _Poisoned(nn.Module):
    def __init__(self, kind: str | float) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, window: Tensor) -> Tensor:
        """Do to a window of (1, channels, x, y, z) what the plan says."""
        if isinstance(self.kind, float):
            threading.Event().wait(self.kind)
        if self.kind == "memory":
            raise MemoryError
        if self.kind == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "slow":
            wait_until(Path(os.environ[GATE]).exists, 120.0, "the gate to be opened")
            threading.Event().wait(SLOW_S)
        is_bright = (window[:, 0] > _BRIGHT).float()
        nothing = torch.zeros_like(is_bright)
        scores = torch.stack([1.0 - is_bright, is_bright, nothing, nothing], dim=1)
        return scores * float("nan") if self.kind == "nan" else scores


def _segment(
    case: AssembledCase,
    model: LoadedModel,
    *rest: Any,  # noqa: ANN401 - handed on
    **more: Any,  # noqa: ANN401
) -> LabelMap:
    plan = json.loads(Path(os.environ[PLAN]).read_text(encoding="utf-8"))
    kind = plan.get(case.study_instance_uid, plan.get(EVERY, "quick"))
    mask = model.mask if model.manifest.needs_brain_for else None
    poisoned = replace(model, runtime=TorchRuntime(_Poisoned(kind), "cpu"), mask=mask)
    return _segment_case(case, poisoned, *rest, **more)


def install() -> None:
    """Put the network in the place of the model's."""
    node.segment.segment_case = _segment
