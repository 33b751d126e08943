"""A model folder with a small untrained network: quick, and its labels mean nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import save

from inference.networks import ResidualUNet

_MANIFEST = Path(__file__).parent / "stripped_model" / "model.toml"
_CHANNELS = (4, 6)
_SPACING_MM = 4.0


def written(
    folder: Path, *, window: tuple[int, int, int] = (48, 56, 48), skull: str = "stripped"
) -> Path:
    """Write `tests/stripped_model` with a network of another size; return the folder.

    The whole head fits into one window of the usual size. With another `skull` nobody asks where
    the brain is, which costs more than this network.
    """
    torch.manual_seed(0)
    network = ResidualUNet(4, 4, _CHANNELS).eval()
    weights = save(network.state_dict())
    text = _MANIFEST.read_text(encoding="utf-8")
    digest = next(line for line in text.splitlines() if line.startswith("sha256 = "))
    for old, new in (
        ('id = "stripped"', 'id = "tiny"'),
        (digest, f'sha256 = "{hashlib.sha256(weights).hexdigest()}"'),
        ("channels = [16, 32, 48, 64, 96]", f"channels = {list(_CHANNELS)}"),
        ("spacing_mm = [2.0, 2.0, 2.0]", f"spacing_mm = {[_SPACING_MM] * 3}"),
        ('skull = "stripped"', f'skull = "{skull}"'),
        ("window = [64, 80, 64]", f"window = {list(window)}"),
    ):
        if old not in text:
            raise ValueError(f"the manifest has no {old}")
        text = text.replace(old, new)
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "model.toml").write_text(text, encoding="utf-8")
    return folder
