"""Pictures of a segmentation beside its reference, for people: one PNG page a study.

The first row shows the four sequences in the axial slice with the most tumour; the rows below show
FLAIR and contrast-enhanced T1 with the outlines of the reference and of what was found, axial and
coronal. Slices lie in the planes of the reference series, in true proportions, turned the
radiological way: the patient's right on the left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps
from scipy import ndimage

from converters import align, planes
from converters.planes import Plane, Rgb
from converters.volume import Grid, Role, Segment, Volume

Labels: TypeAlias = NDArray[np.uint8]
View: TypeAlias = Literal["axial", "coronal"]

_WIDTH: Final = 1200
_GAP: Final = 8
_CELL: Final = (_WIDTH - 5 * _GAP) // 4
_HEAD: Final = 98
_FOOT: Final = 68
_TITLE: Final = 24
_MARGIN_MM: Final = 6.0
_LOOK_MM: Final = 2.0  # steps with which the head is looked for
_SHOWN: Final = 0.12  # of a bright voxel; what is brighter has to be within the picture
_FIELD_MM: Final = 300.0  # no head is larger

_PAGE: Final = (13, 17, 23)
_TEXT: Final = (230, 237, 243)
_MUTED: Final = (150, 160, 171)
_WARNING: Final = (240, 180, 70)

_NAMES: Final = {"flair": "FLAIR", "t1": "T1", "t1gd": "T1 with contrast", "t2": "T2"}
_OVERLAID: Final = ("flair", "t1gd")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """What a page shows.

    Parameters
    ----------
    volumes : mapping of role to Volume
        ``flair``, ``t1``, ``t1gd``, ``t2``, where they lie in one frame.
    grid : Grid
        The grid of the labels.
    found : (slices, rows, columns) ndarray of uint8
        What the model found.
    reference : ndarray of uint8 or None
        What it should have found.
    reference_title : str
        Above the reference's pictures.
    segments : sequence of Segment
        Names and colours of the labels.
    """

    volumes: Mapping[Role, Volume]
    grid: Grid
    found: Labels
    reference: Labels | None
    reference_title: str
    segments: Sequence[Segment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The text of a page: a title, a line of figures, and small print in lines."""

    title: str
    figures: str
    notes: tuple[str, ...]


def draw(subject: Subject, words: Words) -> Image.Image:
    """Return the page of a study, 1200 pixels wide."""
    windows = {role: planes.tissue_window(volume) for role, volume in subject.volumes.items()}
    axial, coronal = _plane(subject, "axial"), _plane(subject, "coronal")
    slices = {role: _slice(subject, axial, role, windows[role]) for role in _NAMES}
    rows = [[_cell(slices[role], [], _NAMES[role]) for role in _NAMES]]
    rows.append(_overlaid(subject, axial, slices))
    slices = {role: _slice(subject, coronal, role, windows[role]) for role in _OVERLAID}
    rows.append(_overlaid(subject, coronal, slices))
    page = Image.new("RGB", (_WIDTH, _HEAD + sum(row[0].height for row in rows) + _FOOT), _PAGE)
    top = _HEAD
    for row in rows:
        for column, cell in enumerate(row):
            page.paste(cell, (_GAP + column * (_CELL + _GAP), top))
        top += row[0].height
    _write(page, words, subject.segments)
    return page


def _overlaid(
    subject: Subject, plane: Plane, slices: Mapping[Role, Image.Image]
) -> list[Image.Image]:
    """Return the row of a plane with the outlines of the reference and of what was found."""
    layers = [
        (subject.reference_title, _outlines(subject, plane, subject.reference)),
        ("found", _outlines(subject, plane, subject.found)),
    ]
    return [
        _cell(slices[role], outlines, f"{_NAMES[role]}: {title}")
        for role in _OVERLAID
        for title, outlines in layers
    ]


def _plane(subject: Subject, view: View) -> Plane:
    """Return the plane with the most tumour that holds the head, in as many pixels as a cell."""
    left, posterior, superior = planes.body_axes(subject.grid)
    normal, down = (superior, posterior) if view == "axial" else (posterior, -superior)
    through = _through(subject, normal)
    count = int(_FIELD_MM / _LOOK_MM)
    wide = Plane(
        origin_mm=through - _FIELD_MM / 2 * (left + down),
        down=down,
        right=left,
        size=(count, count),
        step_mm=_LOOK_MM,
    )
    rows, columns = _extent(subject, wide)
    step = (columns[1] - columns[0]) * _LOOK_MM / _CELL
    return Plane(
        origin_mm=wide.origin_mm + _LOOK_MM * (rows[0] * down + columns[0] * left),
        down=down,
        right=left,
        size=(round((rows[1] - rows[0]) * _LOOK_MM / step), _CELL),
        step_mm=step,
    )


def _through(subject: Subject, normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a point of the plane with the most tumour; the middle of the brain without any."""
    grid = subject.grid
    labels = subject.found if subject.reference is None else subject.reference
    if not labels.any():
        labels = subject.found
    centre = _centre(subject.volumes["t1gd"])
    if not labels.any():
        return centre
    axis = int(np.abs(normal @ grid.index_to_lps_mm[:3, :3] / grid.spacing_mm).argmax())
    others = tuple(k for k in range(3) if k != axis)
    # core and rim say more than oedema does
    weight = np.count_nonzero(labels, axis=others) + 2.0 * np.count_nonzero(labels > 1, axis=others)
    index = (np.array(grid.shape) - 1) / 2.0
    index[axis] = float(weight.argmax())
    point = grid.lps_mm(index)
    return np.asarray(centre + normal * (normal @ (point - centre)), dtype=np.float64)


def _centre(volume: Volume) -> NDArray[np.float64]:
    """Return the middle of what is not air, LPS mm."""
    is_head = volume.intensities > _SHOWN * planes.bright(volume)
    middle = [
        float(np.mean(np.flatnonzero(is_head.any(axis=axes))[[0, -1]]))
        for axes in ((1, 2), (0, 2), (0, 1))
    ]
    return volume.grid.lps_mm(np.array(middle))


def _extent(subject: Subject, wide: Plane) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the first and last row and column, in steps of a wide plane, that hold the head."""
    grid = wide.grid(subject.grid.frame_of_reference_uid)
    volume = subject.volumes["t1gd"]
    is_head = align.on_grid(volume, grid).intensities[0] > _SHOWN * planes.bright(volume)
    is_head = ndimage.binary_opening(is_head)
    if not is_head.any():
        is_head[:] = True
    margin = _MARGIN_MM / _LOOK_MM
    ends = [np.flatnonzero(is_head.any(axis=1 - axis))[[0, -1]] for axis in (0, 1)]
    rows, columns = ((float(a) - margin, float(b) + margin) for a, b in ends)
    return rows, columns


def _slice(subject: Subject, plane: Plane, role: Role, window: tuple[float, float]) -> Image.Image:
    """Return one volume in a plane."""
    return ImageOps.colorize(planes.grey(subject.volumes[role], plane, window), "black", "white")


def _outlines(
    subject: Subject, plane: Plane, labels: Labels | None
) -> list[tuple[Rgb, Image.Image]]:
    """Return the outline of each label in a plane, with its colour; none without labels."""
    if labels is None:
        return []
    return [
        (segment.color_rgb, planes.border(_mask(labels == segment.number, subject.grid), plane))
        for segment in subject.segments
    ]


def _mask(is_inside: NDArray[np.bool_], grid: Grid) -> Volume:
    return Volume(intensities=is_inside.astype(np.float32), grid=grid, role="mask")


def _cell(
    picture: Image.Image, outlines: Sequence[tuple[Rgb, Image.Image]], title: str
) -> Image.Image:
    """Return one picture with outlines, its title above and the patient's sides at its borders."""
    cell = Image.new("RGB", (picture.width, picture.height + _TITLE + _GAP), _PAGE)
    cell.paste(picture, (0, _TITLE))
    for color, outline in outlines:
        cell.paste(Image.new("RGB", picture.size, color), (0, _TITLE), mask=outline)
    pen, font = ImageDraw.Draw(cell), ImageFont.load_default(15)
    pen.text((2, _TITLE // 2), title, _TEXT, font, "lm")
    low = cell.height - _GAP - 5
    for text, place, anchor in (("R", (7, low), "lb"), ("L", (picture.width - 7, low), "rb")):
        pen.text(place, text, _TEXT, font, anchor, stroke_width=2, stroke_fill="black")
    return cell


def _write(page: Image.Image, words: Words, segments: Sequence[Segment]) -> None:
    """Write the head and the foot of a page."""
    pen = ImageDraw.Draw(page)
    pen.text((_GAP + 4, 16), words.title, _TEXT, ImageFont.load_default(27))
    pen.text((_GAP + 4, 58), words.figures, _MUTED, ImageFont.load_default(19))
    right, font = _WIDTH - _GAP - 4, ImageFont.load_default(19)
    pen.text((right, 20), "Research use only", _WARNING, font, "ra")
    top = page.height - _FOOT + 6
    left = _GAP + 4
    small = ImageFont.load_default(16)
    for segment in segments:
        pen.rounded_rectangle((left, top + 2, left + 14, top + 16), 3, fill=segment.color_rgb)
        pen.text((left + 22, top), segment.label, _TEXT, small)
        left += 46 + round(pen.textlength(segment.label, small))
    for number, line in enumerate(words.notes):
        pen.text((_GAP + 4, top + 24 + 16 * number), line, _MUTED, ImageFont.load_default(13))
