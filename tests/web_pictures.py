"""What cases of the web role's tests show: a drawn head, its tumour, and the labels of it."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from converters.slice_views import Layout


def picture(size: int = 480) -> bytes:
    """Return a PNG that looks like a preview: a head with outlines."""
    image = Image.new("RGB", (size, size), "black")
    draw = ImageDraw.Draw(image)
    unit = size / 100
    for box, fill, outline in (
        ((14, 6, 86, 94), "#3c3c3c", "#8a8a8a"),
        ((20, 12, 80, 88), "#585858", None),
        ((44, 34, 49, 62), "#1c1c1c", None),
        ((51, 34, 56, 62), "#1c1c1c", None),
        ((54, 26, 78, 56), "#747474", "#f5dc50"),
        ((60, 32, 74, 50), "#b4b4b4", "#e63c3c"),
        ((64, 37, 70, 45), "#303030", "#3ca0f0"),
    ):
        scaled = [part * unit for part in box]
        draw.ellipse(scaled, fill=fill, outline=outline, width=max(1, round(unit * 0.7)))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@cache
def voxels() -> tuple[Layout, NDArray[np.uint8]]:
    """Return slices of a drawn head with the three labels, as a result keeps them."""
    shape = (46, 56, 44)
    place = np.moveaxis(np.indices(shape), 0, -1) / np.array(shape) * 2.0 - 1.0
    noise = np.random.default_rng(1).normal(0.0, 5.0, shape)

    def ball(centre: tuple[float, float, float], radius: float) -> NDArray[np.float64]:
        return np.asarray(np.linalg.norm(place - centre, axis=-1) / radius)

    head, tumour = ball((0.0, 0.0, 0.0), 0.9), ball((0.25, -0.3, 0.35), 0.3)
    grey = np.select([head > 1.0, head > 0.92, head > 0.86], [0.0, 190.0, 30.0], 105.0)
    labels = np.zeros(shape, np.uint8)
    for number, (size, level) in enumerate(((1.0, 135.0), (0.35, 60.0), (0.65, 215.0)), start=1):
        is_inside = (tumour < size) & ((labels != 0) | (number == 1)) & (labels != 2)
        labels[is_inside], grey[is_inside] = number, level
    shown = np.clip(grey + noise * (head < 1.0), 0, 255).astype(np.uint8)
    layout = Layout(
        shape=shape, spacing_mm=(4.0, 4.0, 4.0), roles=("t1gd", "flair"), at=(28, 19, 29)
    )
    return layout, np.stack([shown, 255 - shown, labels])
