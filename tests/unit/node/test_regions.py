"""Which regions there are, and what each is tracked as."""

from __future__ import annotations

import numpy as np

from converters.volume import Grid, LabelMap
from inference import manifest
from inference.manifest import Manifest
from node import measuring
from node.regions import Regions, regions_of
from tests.nodes import MODEL

MANIFEST = manifest.load(MODEL)
GRID = Grid(shape=(3, 4, 5), index_to_lps_mm=np.eye(4), frame_of_reference_uid="1.2")
LABELS = np.random.default_rng(0).integers(0, 4, GRID.shape).astype(np.uint8)


def found(model: Manifest) -> Regions:
    label_map = LabelMap(labels=LABELS, grid=GRID, segments=model.segments, model_id=model.model_id)
    return regions_of(measuring.of(label_map, model), label_map, model)


def with_regions(*numbers: tuple[int, ...]) -> Manifest:
    """Return the model with other regions."""
    usual = MANIFEST.regions[0]
    regions = tuple(
        usual.model_copy(update={"label": f"Region {at}", "labels": own})
        for at, own in enumerate(numbers)
    )
    return MANIFEST.model_copy(update={"regions": regions})


def test_the_regions_of_the_challenge_lie_in_one_another() -> None:
    regions = found(MANIFEST)
    whole, core, enhancing = regions.layers.values.astype(bool)
    assert np.array_equal(whole, LABELS > 0)
    assert np.array_equal(core, LABELS >= 2)
    assert np.array_equal(enhancing, LABELS == 3)
    assert regions.names == {1: "Whole tumour", 2: "Tumour core", 3: "3"}
    colors = [one.color_rgb for one in regions.layers.segments]
    assert colors == [*(one.color_rgb for one in MANIFEST.regions), MANIFEST.labels[2].color_rgb]


def test_a_model_without_regions_has_the_whole_and_what_enhances() -> None:
    regions = found(with_regions())
    assert regions.names == {1: "Whole tumour", 2: "3"}
    assert np.array_equal(regions.layers.values[0], LABELS > 0)


def test_a_region_that_is_the_enhancing_tumour_is_not_given_twice() -> None:
    assert list(found(with_regions((1, 2, 3), (3,))).names.values()) == ["Region 0", "Region 1"]
