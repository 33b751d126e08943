"""Small pieces, small labels and holes: changed as asked, by volume, and nothing else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from converters.volume import Grid
from inference import cleaning
from inference.declarations import Holes, Postprocess, SmallLabel

GRID = Grid(
    shape=(20, 30, 30),
    index_to_lps_mm=np.diag([2.0, 1.0, 1.0, 1.0]),
    frame_of_reference_uid="",
)  # voxels of 2 mm3


def some_labels() -> NDArray[np.uint8]:
    labels = np.zeros(GRID.shape, np.uint8)
    labels[4:12, 4:14, 4:14] = 1
    labels[6:10, 6:12, 6:12] = 2
    labels[7:9, 8:10, 8:10] = 0  # a hole in the core
    labels[6, 6, 6:9] = 3  # 6 mm3 of enhancing tumour
    labels[15, 20, 20:24] = 1  # 8 mm3 on their own
    labels[16, 21, 24] = 3  # touches them at a corner: 10 mm3 together
    return labels


def cleaned(how: Postprocess) -> NDArray[np.uint8]:
    labels = some_labels()
    cleaning.clean(labels, how, GRID)
    return labels


def test_nothing_is_changed_unless_it_is_asked_for() -> None:
    assert np.array_equal(cleaned(Postprocess()), some_labels())


def test_pieces_are_dropped_by_their_volume_whatever_labels_they_have() -> None:
    kept = cleaned(Postprocess(min_component_mm3=10.0))
    assert np.array_equal(kept, some_labels())
    expected = some_labels()
    expected[14:] = 0
    assert np.array_equal(cleaned(Postprocess(min_component_mm3=10.1)), expected)
    assert not cleaned(Postprocess(min_component_mm3=1e5)).any()


def test_a_label_with_too_little_becomes_another() -> None:
    rule = SmallLabel(label=3, becomes=2, below_mm3=8.1)
    expected = some_labels()
    expected[expected == 3] = 2
    assert np.array_equal(cleaned(Postprocess(small_labels=(rule,))), expected)
    enough = rule.model_copy(update={"below_mm3": 8.0})
    assert np.array_equal(cleaned(Postprocess(small_labels=(enough,))), some_labels())


def test_holes_of_the_core_are_filled_and_the_oedema_is_kept() -> None:
    rule = Holes(labels=(2, 3), becomes=2)
    expected = some_labels()
    expected[7:9, 8:10, 8:10] = 2
    assert np.array_equal(cleaned(Postprocess(fill_holes=(rule,))), expected)


def test_the_order_is_pieces_then_small_labels_then_holes() -> None:
    how = Postprocess(
        min_component_mm3=50.0,
        small_labels=(SmallLabel(label=3, becomes=2, below_mm3=7.0),),
        fill_holes=(Holes(labels=(2,), becomes=2),),
    )
    found = cleaned(how)
    assert not found[14:].any()  # dropped first, so that 6 mm3 of label 3 are left: too little
    assert set(np.unique(found)) == {0, 1, 2}
    assert (found[6:10, 6:12, 6:12] == 2).all()


def test_no_labels_stay_no_labels() -> None:
    labels = np.zeros(GRID.shape, np.uint8)
    how = Postprocess(min_component_mm3=5.0, fill_holes=(Holes(labels=(1,), becomes=1),))
    cleaning.clean(labels, how, GRID)
    assert not labels.any()
    assert cleaning.pieces(labels, 1.0) == 0


def test_pieces_are_counted_from_a_size_on() -> None:
    assert cleaning.pieces(some_labels(), 1.0) == 2
    assert cleaning.pieces(some_labels(), 6.0) == 1
