"""The visual summary of a case, kept as PNG files beside its result.

The same pages go to those who want them as DICOM (`node.encode`). What is burnt in names no
patient; of the headers only the date of the study is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import pydicom
from PIL import Image

from converters import png
from converters.preview import render_preview
from converters.summary_cover import Row, Words
from converters.summary_pictures import Page, draw_pages, sequence
from converters.volume import LabelMap, Role, Volume
from inference.manifest import Manifest
from node import convert
from node.cases import AssembledCase
from node.spool import Spool

_FILES: Final = "summary-*"
_SECOND: Final = ("flair", "t1gd", "t2", "t1")
"""What is shown beside the reference, the first that there is."""

_LEAST_ML: Final = 0.05
_MOST_LESIONS: Final = 3  # the largest come first; the report has them all
_DATE_DIGITS: Final = 8


def volumes_of(case: AssembledCase, spool: Spool) -> list[Volume]:
    """Return the volumes that are shown of a converted case, the reference first."""
    return [convert.read_volume(case, role, spool) for role in _roles(case)]


def keep_preview(
    case: AssembledCase, reference: Volume, label_map: LabelMap, caption: str, spool: Spool
) -> None:
    """Write the picture of a case in the list of cases to its folder."""
    picture = render_preview(reference, label_map, caption=caption)
    final = spool.case_folder(case.case_id) / "preview.png"
    spool.publish(final, lambda part: part.write_bytes(picture))


def draw(
    case: AssembledCase,
    volumes: Sequence[Volume],
    label_map: LabelMap,
    shown: dict[str, Any],
    manifest: Manifest,
    spool: Spool,
) -> tuple[Page, ...]:
    """Return the pages of a segmented case, written to its folder as ``summary-<name>.png``.

    Parameters
    ----------
    case, label_map, manifest, spool
        What was segmented, by which model, and where the pages go.
    volumes : sequence of Volume
        What `volumes_of` gives.
    shown : dict
        What `node.summary.of` says of it.
    """
    folder = spool.case_folder(case.case_id)
    for stale in folder.glob(_FILES):
        stale.unlink()  # of another run, which may have had other pages
    pages = draw_pages(volumes, label_map, words_of(case, shown, manifest, _date(case, spool)))
    for page in pages:
        spool.publish(folder / f"summary-{page.name}.png", partial(_write, page))
    return pages


def _write(page: Page, part: Path) -> None:
    part.write_bytes(png.packed(Image.fromarray(page.pixels)))


def _roles(case: AssembledCase) -> tuple[Role, ...]:
    """Return which volumes are shown, the reference first."""
    there = {one.role for one in case.series} - {case.reference_role}
    return (case.reference_role, *[role for role in _SECOND if role in there][:1])


def _date(case: AssembledCase, spool: Spool) -> str:
    """Return the date of the study as 2025-03-01, or that there is none."""
    (reference,) = (one for one in case.series if one.role == case.reference_role)
    path = spool.instance_path(reference.instances[0].path)
    header = pydicom.dcmread(path, specific_tags=["StudyDate"], stop_before_pixels=True)
    date = str(header.get("StudyDate") or "")
    if len(date) != _DATE_DIGITS or not date.isdigit():
        return "not stated"
    return f"{date[:4]}-{date[4:6]}-{date[6:]}"


def words_of(case: AssembledCase, shown: dict[str, Any], manifest: Manifest, date: str) -> Words:
    """Return what the pages say of a case."""
    colors = {one.label: one.color_rgb for one in manifest.segments}
    volumes = {**shown["volumes_ml"], **shown["regions_ml"]}
    lesions = [one for one in shown["measurements"]["lesions"] if one["enhancing"]][:_MOST_LESIONS]
    columns = ("Volume", "Diameters") if lesions else ("Volume",)
    empty = ("",) * (len(columns) - 1)
    return Words(
        model=f"{manifest.title}, {manifest.model_id}",
        is_demonstration=manifest.is_demonstration,
        facts=(
            ("Model", manifest.title),
            ("Version", manifest.model_id),
            ("Date of the study", date),
            ("Sequences used", ", ".join(sequence(one.role) for one in case.series)),
            ("Outlines lie on", sequence(case.reference_role)),
        ),
        columns=columns,
        rows=(
            *(
                Row(label=label, values=(_volume(volume_ml), *empty), color_rgb=colors.get(label))
                for label, volume_ml in volumes.items()
            ),
            *(_lesion(one) for one in lesions),
        ),
        notes=tuple(_sentence(note) for note in shown["notes"]),
    )


def _lesion(one: dict[str, Any]) -> Row:
    """Return the enhancing tumour of a lesion: its volume, and its two diameters."""
    found = one["enhancing"]
    lengths = f"{found['long_mm']:.0f} x {found['short_mm']:.0f} mm"
    label = f"Enhancing tumour of lesion {one['number']}"
    return Row(label=label, values=(_volume(found["volume_ml"]), lengths))


def _volume(volume_ml: float) -> str:
    return "< 0.1 mL" if 0.0 < volume_ml < _LEAST_ML else f"{volume_ml:.1f} mL"


def _sentence(note: str) -> str:
    """Return a note without its code."""
    text = note.partition(": ")[2] or note
    return text[:1].upper() + text[1:]
