"""The regions of a result as segments that overlap: those that the report measures.

The whole tumour, the model's other regions, and the enhancing tumour, which lies in all of them:
the three nested regions of the BraTS challenge. They are tracked by what the report tracks them by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from converters.measure import Measurements
from converters.sr_check import region_name, segment_name
from converters.volume import LabelMap, Layers, Segment
from inference.declarations import Concept
from inference.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Regions:
    """Regions as layers; what each is tracked as and described as, by segment number."""

    layers: Layers
    names: Mapping[int, str]
    descriptions: Mapping[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Region:
    name: str
    numbers: tuple[int, ...]
    segment: Segment


def regions_of(found: Measurements, label_map: LabelMap, manifest: Manifest) -> Regions:
    """Return the regions of a label map, whose measurements are `found`."""
    declared = {one.label: one for one in (*manifest.labels, *manifest.regions)}
    regions = [*_together(found, declared), *_enhancing(found)]
    numbered = dict(enumerate(regions, start=1))
    layers = Layers(
        values=np.stack(
            [np.isin(label_map.labels, one.numbers) for one in regions], dtype=np.uint8
        ),
        most=1,
        grid=label_map.grid,
        segments=tuple(replace(one.segment, number=n) for n, one in numbered.items()),
        model_id=label_map.model_id,
    )
    return Regions(
        layers=layers,
        names={number: one.name for number, one in numbered.items()},
        descriptions={
            number: declared[one.segment.label].description
            for number, one in numbered.items()
            if one.segment.label in declared
        },
    )


def _together(found: Measurements, declared: Mapping[str, Concept]) -> list[_Region]:
    usual = found.segments[0].color_rgb  # of the whole, where the model declares none
    return [
        _Region(
            name=region_name(one),
            numbers=one.numbers,
            segment=Segment(
                number=1,
                label=one.label,
                category=one.category,
                type_code=one.type_code,
                color_rgb=declared[one.label].color_rgb if one.label in declared else usual,
            ),
        )
        for one in (found.whole, *found.regions)
    ]


def _enhancing(found: Measurements) -> list[_Region]:
    """Return the segments that enhance, unless a region is one of them already."""
    alone = {one.numbers for one in (found.whole, *found.regions)}
    return [
        _Region(name=segment_name(one), numbers=(one.number,), segment=one)
        for one in found.segments
        if one.number in found.enhancing and (one.number,) not in alone
    ]
