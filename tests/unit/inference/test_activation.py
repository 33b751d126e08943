"""Scores, probabilities and entropy, by their formulas."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch

from inference import activation


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_scores_of_probabilities_give_them_back(kind: Literal["softmax", "sigmoid"]) -> None:
    scores = 4.0 * torch.randn(3, 5, 6, 7, generator=torch.Generator().manual_seed(0))
    given = activation.activated(scores, kind)
    back = activation.activated(activation.scores_of(given.clone(), kind), kind)
    torch.testing.assert_close(back, given, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_sure_probabilities_give_finite_scores(kind: Literal["softmax", "sigmoid"]) -> None:
    sure = torch.tensor([1.0, 0.0, 0.0]).view(3, 1)
    assert torch.isfinite(activation.scores_of(sure.clone(), kind)).all()


def test_the_entropy_of_classes_is_a_share_of_the_largest() -> None:
    p = torch.tensor([[0.25, 1.0, 0.5], [0.25, 0.0, 0.5], [0.25, 0.0, 0.0], [0.25, 0.0, 0.0]])
    found = activation.entropy(p.clamp_min(1e-30).log(), "softmax")
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0, 0.5]), atol=1e-5, rtol=0)


def test_the_entropy_of_regions_is_that_of_the_least_sure_one() -> None:
    p = torch.tensor([[0.5, 0.999999, 0.9], [0.1, 0.000001, 0.75]])
    found = activation.entropy(torch.logit(p), "sigmoid")
    binary = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0, binary]), atol=1e-4, rtol=0)


def test_the_most_probable_class_is_that_of_argmax_and_the_first_of_equals() -> None:
    scores = torch.randint(-3, 3, (5, 20, 21, 22), generator=torch.Generator().manual_seed(1))
    for one in (scores.float(), scores.float().permute(0, 3, 1, 2)):
        found = activation.most_probable(one)
        assert found.dtype == torch.uint8
        assert np.array_equal(found.numpy(), one.numpy().argmax(axis=0))
    assert not activation.most_probable(torch.ones(1, 2, 3, 4)).any()
