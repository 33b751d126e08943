"""The visual summary of a result: pages for people, as pixels.

A cover with what was measured and noted, axial slices through the tumour over each of two
sequences, and three planes through the centre of its largest part. Every page says that it is an
AI's and for research only.

Nothing here knows the patient: no name, identifier, birth date or accession number is an input, so
none can be burnt in. The header of the DICOM object says whose pictures these are, where an archive
can correct it, anonymise it and limit who sees it; in pixels it would stay for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps
from scipy import ndimage

from converters import lettering, page_frame, planes, summary_cover
from converters.lettering import Pen
from converters.planes import Drawn, Head, Outlines, Plane, View
from converters.summary_cover import Words
from converters.volume import LabelMap, Role, Volume

COVER, PLANES, AXIAL = "cover", "planes", "axial"

_GAP: Final = 6
_MARGIN_MM: Final = 5.0
_MOSAIC: Final = (3, 4)  # rows, columns
_TICK: Final = 26
_CAPTION: Final = 28

_SEQUENCES: Final = {"flair": "FLAIR", "t1": "T1", "t1gd": "T1 with contrast", "t2": "T2"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Page:
    """One picture.

    Parameters
    ----------
    name : str
        Lower case, digits and hyphens: ``cover``, ``planes``, ``axial-t1gd``.
    title : str
        What it shows.
    pixels : (1024, 1024, 3) ndarray of uint8
        sRGB.
    """

    name: str
    title: str
    pixels: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Scene:
    """What is drawn; the first of `volumes` is the main one."""

    volumes: Sequence[Volume]
    windows: Mapping[Role, tuple[float, float]]
    label_map: LabelMap
    outlines: Outlines
    head: Head
    centre_mm: NDArray[np.float64]
    words: Words

    @property
    def is_empty(self) -> bool:
        return not self.label_map.labels.any()


def draw_pages(volumes: Sequence[Volume], label_map: LabelMap, words: Words) -> tuple[Page, ...]:
    """Return the pages of a result; cover and planes alone where nothing was labelled.

    Parameters
    ----------
    volumes : sequence of Volume
        One or more, the main one first, each on its own grid in the label map's frame.
    label_map : LabelMap
        What was found; the axes of its grid are those of the planes.
    words : Words
        What is said about it.
    """
    scene = _scene(volumes, label_map, words)
    drawn = [(COVER, "Summary", _cover(scene)), (PLANES, *_three_planes(scene))]
    if not scene.is_empty:
        cells = _cells(scene)
        for volume in volumes:
            title = f"Axial slices through the tumour, {sequence(volume.role)}"
            drawn.append((f"{AXIAL}-{volume.role}", title, _mosaic(scene, volume, cells)))
    pages = []
    for number, (name, title, page) in enumerate(drawn, start=1):
        if name != COVER:
            page_frame.head(page, title)
        page_frame.sign(
            page, words.model, f"{number} of {len(drawn)}", is_demonstration=words.is_demonstration
        )
        pages.append(Page(name=name, title=title, pixels=np.asarray(page)))
    return tuple(pages)


def sequence(role: Role) -> str:
    """Return what people call a role."""
    return _SEQUENCES.get(role, role)


def _scene(volumes: Sequence[Volume], label_map: LabelMap, words: Words) -> _Scene:
    head = planes.find_head(volumes[0], planes.body_axes(label_map.grid))
    centre = _lesion_centre(label_map)
    return _Scene(
        volumes=volumes,
        windows={one.role: planes.tissue_window(one) for one in volumes},
        label_map=label_map,
        outlines=Outlines(label_map),
        head=head,
        centre_mm=head.centre_mm if centre is None else centre,
        words=words,
    )


def _lesion_centre(label_map: LabelMap) -> NDArray[np.float64] | None:
    """Return the labelled voxel closest to the centroid of the largest part, LPS mm."""
    (box,) = ndimage.find_objects(label_map.labels > 0, max_label=1)
    if box is None:
        return None
    parts, _ = ndimage.label(label_map.labels[box] > 0)
    largest = int(np.bincount(parts.ravel())[1:].argmax()) + 1
    points = np.argwhere(parts == largest) + [one.start for one in box]
    points_mm = label_map.grid.lps_mm(points.astype(np.float64))
    away_mm = np.linalg.norm(points_mm - points_mm.mean(axis=0), axis=1)
    return np.asarray(points_mm[away_mm.argmin()])


def _levels(label_map: LabelMap) -> list[NDArray[np.float64]]:
    """Return a point of each axial slice that is shown, from the feet to the head.

    Slices with labels, evenly spaced; where these are few, neighbours on both sides as well.
    """
    grid, wanted = label_map.grid, _MOSAIC[0] * _MOSAIC[1]
    axis = planes.patient_axes(grid)[2]
    others = tuple(one for one in range(3) if one != axis)
    found = np.flatnonzero(label_map.labels.any(axis=others))
    if len(found) < wanted:
        count = grid.shape[axis]
        first = int(np.clip((found[0] + found[-1] + 1 - wanted) // 2, 0, max(count - wanted, 0)))
        around = range(first, min(first + wanted, count))
        found = np.array(around) if set(found) <= set(around) else found
    ranks = np.unique(np.linspace(0, len(found) - 1, wanted).round().astype(int))
    index = np.tile((np.array(grid.shape) - 1) / 2.0, (len(ranks), 1))
    index[:, axis] = found[ranks]
    points = grid.lps_mm(index)
    return sorted(points, key=lambda point: float(point[2]))


def _picture(
    scene: _Scene, volume: Volume, view: View, plane: Plane, outlines: Drawn
) -> Image.Image:
    """Return a volume in a plane with outlines, and letters for the patient's sides."""
    levels = planes.grey(volume, plane, scene.windows[volume.role])
    shown = ImageOps.colorize(levels, page_frame.PAGE, "white")
    shown = planes.overlaid(shown, outlines)
    pen, size = ImageDraw.Draw(shown), 22 if plane.size[1] > page_frame.SIZE // 3 else 16
    right, low = shown.width - 1, shown.height - 1
    places = (
        ((6, low // 2), "lm"),
        ((right - 6, low // 2), "rm"),
        ((right // 2, 5), "mt"),
        ((right // 2, low - 5), "mb"),
    )
    for letter, (place, anchor) in zip(planes.LETTERS[view], places, strict=True):
        _over_picture(pen, place, letter, size, anchor)
    return shown


def _over_picture(pen: Pen, place: tuple[int, int], text: str, size: int, anchor: str) -> None:
    font = lettering.font(size)
    pen.text(
        place, text, page_frame.TEXT, font, anchor, stroke_width=2, stroke_fill=page_frame.PAGE
    )


def _cells(scene: _Scene) -> list[tuple[Plane, Drawn]]:
    """Return what the mosaics of all sequences have in common: each plane and its outlines."""
    rows, columns = _MOSAIC
    size = (
        (page_frame.SIZE - page_frame.HEAD - page_frame.FOOT - (rows - 1) * _GAP) // rows,
        (page_frame.SIZE - (columns - 1) * _GAP) // columns,
    )
    step_mm = scene.head.step_mm("axial", size, margin_mm=_MARGIN_MM)
    found = [scene.head.plane("axial", point, size, step_mm) for point in _levels(scene.label_map)]
    return [(plane, scene.outlines.within(plane)) for plane in found]


def _mosaic(scene: _Scene, volume: Volume, cells: Sequence[tuple[Plane, Drawn]]) -> Image.Image:
    page = page_frame.blank()
    for number, (plane, outlines) in enumerate(cells):
        cell = _picture(scene, volume, "axial", plane, outlines)
        _over_picture(ImageDraw.Draw(cell), (6, 5), _height(plane), 15, "la")
        row, column = divmod(number, _MOSAIC[1])
        left, top = column * (cell.width + _GAP), row * (cell.height + _GAP)
        page.paste(cell, (left, page_frame.HEAD + top))
    page_frame.foot(page, scene.label_map.segments, cells[0][0].step_mm)
    return page


def _height(plane: Plane) -> str:
    """Return how high the middle of a plane lies, as viewers write it: S above, I below zero."""
    middle = (np.array(plane.size) - 1) / 2.0 * plane.step_mm
    height_mm = float((plane.origin_mm + middle[0] * plane.down + middle[1] * plane.right)[2])
    return f"{'S' if height_mm >= 0 else 'I'} {abs(height_mm):.1f}"


def _three_planes(scene: _Scene) -> tuple[str, Image.Image]:
    """Return title and page of three planes, and a second sequence in the first of them."""
    through = "the middle of the head" if scene.is_empty else "the centre of the largest finding"
    main = scene.volumes[0]
    shown: list[tuple[Volume, View]] = [(main, view) for view in planes.VIEWS]
    shown += [(volume, "axial") for volume in scene.volumes[1:2]]
    size = (
        (page_frame.SIZE - page_frame.HEAD - page_frame.FOOT) // 2 - _CAPTION,
        (page_frame.SIZE - _GAP) // 2,
    )
    step_mm = max(scene.head.step_mm(view, size, margin_mm=_MARGIN_MM) for view in planes.VIEWS)
    page = page_frame.blank()
    for number, (volume, view) in enumerate(shown):
        plane = scene.head.plane(view, scene.centre_mm, size, step_mm)
        cell = _picture(scene, volume, view, plane, scene.outlines.within(plane))
        if not scene.is_empty:
            _tick(cell, plane.pixel(scene.centre_mm))
        row, column = divmod(number, 2)
        left, top = column * (size[1] + _GAP), page_frame.HEAD + row * (size[0] + _CAPTION)
        page.paste(cell, (left, top + _CAPTION))
        name, where = (
            f"{view.capitalize()}, {sequence(volume.role)}",
            (left + page_frame.PAD, top + 8),
        )
        text, own = lettering.fitted(name, 20, size[1] - 2 * page_frame.PAD)
        ImageDraw.Draw(page).text(where, text, page_frame.MUTED, lettering.font(own))
    page_frame.foot(page, () if scene.is_empty else scene.label_map.segments, step_mm)
    return f"Three planes through {through}", page


def _tick(cell: Image.Image, at: tuple[float, float]) -> None:
    """Mark at the four borders where the other planes cut this one."""
    pen, (row, column) = ImageDraw.Draw(cell), (round(at[0]), round(at[1]))
    right, low = cell.width - 1, cell.height - 1
    for line in (
        (0, row, _TICK, row),
        (right - _TICK, row, right, row),
        (column, 0, column, _TICK),
        (column, low - _TICK, column, low),
    ):
        pen.line(line, page_frame.BLUE, 2)


def _cover(scene: _Scene) -> Image.Image:
    width, height = summary_cover.PICTURE
    step_mm = scene.head.step_mm("axial", (height, width), margin_mm=_MARGIN_MM)
    plane = scene.head.plane("axial", scene.centre_mm, (height, width), step_mm)
    outlines = scene.outlines.within(plane)
    picture = _picture(scene, scene.volumes[0], "axial", plane, outlines)
    return summary_cover.draw_cover(picture, step_mm, scene.words, is_empty=scene.is_empty)
