"""What the page and the list of a case say of the slices that can be leafed through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import QueryParams

from converters import planes
from converters.planes import View
from converters.volume import Role
from node import slices
from node.rows import CaseRow
from node.slices import KeptLabel
from node.spool import Spool
from node.web import downloads, query


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneView:
    """A plane through the head: how many slices, and how large in pixels.

    `first` is the number of the slice through the middle of the tumour; `letters` are the sides of
    the patient at the left, right, upper and lower border.
    """

    name: View
    url: str
    count: int
    first: int
    width: int
    height: int
    letters: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SlicesView:
    """Slices to leaf through: a plane's `url`, then ``/NUMBER`` or ``/NUMBER/labels``."""

    version: str
    sequences: tuple[Role, ...]
    labels: tuple[KeptLabel, ...]
    planes: tuple[PlaneView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """Where a reader has leafed to, by the address of the page."""

    sequence: Role
    labels: tuple[int, ...]
    at: Mapping[View, int]
    places: Mapping[View, tuple[float, float]]  # where the two other planes cut: x, y in pixels


def view_of(row: CaseRow, spool: Spool) -> SlicesView | None:
    """Return what can be leafed through of a case; None where nothing was kept."""
    kept = slices.of(row.summary)
    path = downloads.case_file(spool, row.case_id, slices.FILE_NAME)
    if kept is None or not path.is_file():
        return None
    layout = kept.layout
    return SlicesView(
        version=str(path.stat().st_mtime_ns),
        sequences=layout.roles,
        labels=kept.labels,
        planes=tuple(
            PlaneView(
                name=view,
                url=f"/api/v1/cases/{row.case_id}/slices/{view}",
                count=layout.count(view),
                first=layout.first(view),
                width=layout.size(view)[0],
                height=layout.size(view)[1],
                letters=planes.LETTERS[view],
            )
            for view in planes.VIEWS
        ),
    )


def opened(view: SlicesView, params: QueryParams) -> Opened:
    """Return what a page shows; what an address says wrongly counts as not said."""
    is_said = "sequence" in params
    sequence = params.get("sequence", "")
    shown = params.getlist("label")
    at = {one.name: _within(params.get(one.name, ""), one) for one in view.planes}
    return Opened(
        sequence=sequence if sequence in view.sequences else view.sequences[0],
        labels=tuple(one.number for one in view.labels if not is_said or str(one.number) in shown),
        at=at,
        places=_places(view, at),
    )


def _within(text: str, plane: PlaneView) -> int:
    return min(int(text), plane.count) if query.SLICE_NUMBER.fullmatch(text) else plane.first


def _places(view: SlicesView, at: Mapping[View, int]) -> dict[View, tuple[float, float]]:
    share = {one.name: (at[one.name] - 0.5) / one.count for one in view.planes}
    below_top, back, left = 1.0 - share["axial"], share["coronal"], share["sagittal"]
    cuts = {"axial": (left, back), "coronal": (left, below_top), "sagittal": (back, below_top)}
    return {
        one.name: (round(x * one.width, 1), round(y * one.height, 1))
        for one in view.planes
        for x, y in (cuts[one.name],)
    }
