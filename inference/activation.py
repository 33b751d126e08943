"""Scores to probabilities, and how unsure those are."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Activation: TypeAlias = Literal["softmax", "sigmoid"]

_LEAST = 1e-7  # float32 knows no larger 1 - p


def activated(scores: Tensor, activation: Activation) -> Tensor:
    """Return the probabilities of (classes, ...) scores."""
    return torch.softmax(scores, dim=0) if activation == "softmax" else torch.sigmoid(scores)


def most_probable(scores: Tensor) -> Tensor:
    """Return the class of the largest of (classes, ...) scores, the first of equals, as uint8.

    `torch.argmax` over the first axis takes twenty times as long: the processor cannot foresee
    which class wins.
    """
    classes = torch.zeros(scores.shape[1:], dtype=torch.uint8)
    best = scores[0].clone()
    for number, rival in enumerate(scores[1:], start=1):
        classes.masked_fill_(rival > best, number)
        torch.maximum(best, rival, out=best)
    return classes


def scores_of(probabilities: Tensor, activation: Activation) -> Tensor:
    """Return scores whose activation is `probabilities`, which are overwritten."""
    probabilities.clamp_(_LEAST, 1.0 - _LEAST)
    return probabilities.log_() if activation == "softmax" else torch.logit(probabilities)


def entropy(scores: Tensor, activation: Activation) -> Tensor:
    """Return the predictive entropy of (classes, ...) scores, 0 (sure) to 1 (knows nothing).

    Softmax: over the classes, as a share of the largest that is possible. Sigmoid: of the region
    that is least sure.

    References
    ----------
    A. Mehta et al., QU-BraTS, MELBA 2022: entropy as the uncertainty of a segmentation.
    """
    if activation == "softmax":
        logs = torch.log_softmax(scores, dim=0)
        return -(logs.exp() * logs).sum(dim=0) / math.log(scores.shape[0])
    p = torch.sigmoid(scores).clamp_(_LEAST, 1.0 - _LEAST)
    each = -(p * p.log() + (1.0 - p) * (1.0 - p).log()) / math.log(2.0)
    return each.amax(dim=0)
