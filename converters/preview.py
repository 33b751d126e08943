"""A picture of a result for people: one axial slice, the segments' outlines, their volumes.

Drawn for a dark page. The slice is turned the radiological way whatever the acquisition plane:
the patient's right on the left, anterior on top.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps
from scipy import ndimage

from converters import planes, png
from converters.errors import GridMismatchError
from converters.volume import LabelMap, Segment, Volume

_HEIGHT = 640
_MAX_WIDTH = 760
_FINE = 2  # drawn twice as large, then reduced: smooth outlines
_MARGIN_MM = 12.0
_WINDOW_PERCENTILES = (1.0, 99.7)
_FOREGROUND_SHARE = 0.08  # of the window's upper end; only the cut-out depends on it
_LINE_WIDTH = 2
_HALF = 0.5  # where a voxel's share ends

_PAGE = (13, 17, 23)
_TEXT = (230, 237, 243)
_MUTED = (139, 148, 158)
_WARNING = (240, 180, 70)
_LEGEND_WIDTH = 264
_MARK = 16
_TEXT_WIDTH = 206
_SMALLEST_ML = 0.05
_PAD = 16

Rgb = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _View:
    """One slice as it is shown: rows go to posterior, columns to the patient's left.

    `pixels` is float32, `labels` uint8; `spacing_mm` is that of rows and columns.
    """

    pixels: NDArray[np.float32]
    labels: NDArray[np.uint8]
    spacing_mm: tuple[float, float]


def render_preview(volume: Volume, label_map: LabelMap, *, caption: str) -> bytes:
    """Return a PNG of the axial slice with the largest labelled area; the middle one without any.

    Parameters
    ----------
    volume : Volume
        What the outlines are drawn over, on the label map's grid.
    label_map : LabelMap
        Outlines and volumes.
    caption : str
        One line that says what made it; never anything about the patient.

    Raises
    ------
    GridMismatchError
        The volume lies elsewhere than the label map.
    """
    if not volume.grid.is_same_place(label_map.grid, tolerance_mm=0.01):
        raise GridMismatchError(reason="preview on another grid")
    window = _window(volume.intensities)
    view = _cropped(_view(volume, label_map), floor=_FOREGROUND_SHARE * window[1])
    picture = _drawn(view, window, label_map.segments)
    return png.packed(_page(picture, label_map, caption))


def _view(volume: Volume, label_map: LabelMap) -> _View:
    grid = volume.grid
    pixels = planes.upright(volume.intensities, grid)
    labels = planes.upright(label_map.labels, grid)
    areas = np.count_nonzero(labels, axis=(1, 2))
    index = int(areas.argmax()) if areas.any() else len(areas) // 2
    left, posterior, _ = planes.patient_axes(grid)
    return _View(
        pixels=pixels[index],
        labels=labels[index],
        spacing_mm=(grid.spacing_mm[posterior], grid.spacing_mm[left]),
    )


def _window(intensities: NDArray[np.float32]) -> tuple[float, float]:
    """Return the intensities shown black and white, from what is not background."""
    inside = intensities[intensities > 0]
    if not inside.size:
        return 0.0, 1.0
    low, high = (float(level) for level in np.percentile(inside, _WINDOW_PERCENTILES))
    return (low, high) if high > low else (0.0, high)


def _cropped(view: _View, *, floor: float) -> _View:
    """Return the part that holds the head (above `floor`) and every label, with a margin."""
    shown = (view.pixels > floor) | (view.labels > 0)
    if not shown.any():
        return view
    cuts = []
    for axis in (0, 1):
        found = np.flatnonzero(shown.any(axis=1 - axis))
        margin = round(_MARGIN_MM / view.spacing_mm[axis])
        cuts.append(slice(max(found[0] - margin, 0), found[-1] + 1 + margin))
    rows, columns = cuts
    return _View(
        pixels=view.pixels[rows, columns],
        labels=view.labels[rows, columns],
        spacing_mm=view.spacing_mm,
    )


def _drawn(view: _View, window: tuple[float, float], segments: tuple[Segment, ...]) -> Image.Image:
    """Return the slice with outlines and letters, in true proportions."""
    size, (low, high) = _picture_size(view), window
    grey = np.clip((view.pixels - low) / (high - low), 0.0, 1.0) * 255.0
    picture = Image.fromarray(grey.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    picture = ImageOps.colorize(picture, _PAGE, "white")
    for segment in segments:
        outline = _outline(view.labels == segment.number, size)
        picture.paste(Image.new("RGB", size, segment.color_rgb), mask=outline)
    _letter(picture)
    return picture


def _picture_size(view: _View) -> tuple[int, int]:
    """Return width and height in pixels: true proportions within the page."""
    height_mm, width_mm = np.multiply(view.pixels.shape, view.spacing_mm)
    scale = min(_HEIGHT / height_mm, _MAX_WIDTH / width_mm)
    return max(1, round(width_mm * scale)), max(1, round(height_mm * scale))


def _outline(mask: NDArray[np.bool_], size: tuple[int, int]) -> Image.Image:
    """Return the outline of a mask as opacity, between the voxels' borders."""
    fine = (size[0] * _FINE, size[1] * _FINE)
    soft = Image.fromarray(mask.astype(np.float32)).resize(fine, Image.Resampling.BILINEAR)
    inside = (np.asarray(soft) >= _HALF).astype(np.uint8) * np.uint8(255)
    # The line runs inside the segment, so that neighbours do not hide each other's.
    core = ndimage.minimum_filter(inside, size=2 * _FINE * _LINE_WIDTH + 1)
    return Image.fromarray(inside - core).resize(size, Image.Resampling.BOX)


def _letter(picture: Image.Image) -> None:
    """Write which side of the patient each border is."""
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(18)
    width, height = picture.size
    for letter, place, anchor in (
        ("R", (_PAD // 2, height // 2), "lm"),
        ("L", (width - _PAD // 2, height // 2), "rm"),
        ("A", (width // 2, _PAD // 2), "mt"),
        ("P", (width // 2, height - _PAD // 2), "mb"),
    ):
        draw.text(place, letter, _TEXT, font, anchor, stroke_width=2, stroke_fill=_PAGE)


def _page(picture: Image.Image, label_map: LabelMap, caption: str) -> Image.Image:
    """Return the picture with the legend beside it."""
    page = Image.new("RGB", (picture.width + _LEGEND_WIDTH, _HEIGHT), _PAGE)
    page.paste(picture, (0, (_HEIGHT - picture.height) // 2))
    draw = ImageDraw.Draw(page)
    left, top = picture.width + _PAD, 2 * _PAD
    volumes = label_map.volumes_ml()
    for segment in label_map.segments:
        mark = (left, top + 3, left + _MARK - 1, top + _MARK + 2)
        draw.rounded_rectangle(mark, radius=3, fill=segment.color_rgb)
        name = (left + _MARK + 10, top)
        top = _write(draw, name, segment.label, 16, _TEXT)
        top = _write(draw, (name[0], top), _volume(volumes[segment.number]), 16, _MUTED) + _PAD
    if not label_map.labels.any():
        _write(draw, (left, top), "Nothing was labelled.", 16, _TEXT)
    foot = _wrapped(draw, caption, 13)
    top = _HEIGHT - 2 * _PAD - 24 - len(foot) * _line_step(13)
    top = _write(draw, (left, top), caption, 13, _MUTED) + 4
    _write(draw, (left, top), "Research use only", 16, _WARNING)
    return page


def _volume(volume_ml: float) -> str:
    return "< 0.1 mL" if 0.0 < volume_ml < _SMALLEST_ML else f"{volume_ml:.1f} mL"


def _line_step(size: int) -> int:
    return round(1.4 * size)


def _wrapped(draw: ImageDraw.ImageDraw, text: str, size: int) -> list[str]:
    """Return the text in lines that fit the legend."""
    font, lines = ImageFont.load_default(size), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and draw.textlength(longer, font) > _TEXT_WIDTH:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _write(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size: int, color: Rgb
) -> int:
    """Write a text below `place` and return where the next line begins."""
    left, top = place
    for line in _wrapped(draw, text, size):
        draw.text((left, top), line, color, ImageFont.load_default(size))
        top += _line_step(size)
    return top
