"""A scene: everything that one generated head is made of, before it has any brightness."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scripts.generated_studies import anatomy, imaging, tumours


def draw_scene(seed: int, *, healthy: bool | None = None) -> Tensor:
    """Return (11, x, y, z) uint8: the planes that `imaging` paints, on the generator's lattice.

    Parameters
    ----------
    seed : int
        What it is drawn from; the same seed gives the same scene.
    healthy : bool, optional
        Whether there is no tumour; drawn otherwise.
    """
    rng = np.random.default_rng([seed, 5])
    pose = anatomy.draw_pose(rng)
    lesions = tumours.plan(pose, rng, healthy=healthy)
    brain = anatomy.draw_brain(pose, lambda here: tumours.pushed(here, lesions), rng)
    growth = tumours.grow(brain, lesions, rng)
    planes = torch.zeros((imaging.PLANES, *anatomy.SHAPE), dtype=torch.uint8)
    planes[imaging.TISSUES] = _as_bytes(brain.tissue)
    planes[imaging.CEREBELLUM] = _as_bytes(brain.cerebellum)
    planes[imaging.PARTS] = anatomy.draw_surroundings(brain, rng)
    planes[imaging.LABELS] = growth.labels
    planes[imaging.LESION] = growth.tissue
    planes[imaging.LOOKALIKE] = tumours.draw_lookalikes(brain, rng)
    planes[imaging.STRENGTH] = _as_bytes(growth.strength)
    return planes


def _as_bytes(share: Tensor) -> Tensor:
    return (share.clamp(0, 1) * 255).round().to(torch.uint8)
