"""Sampling by header geometry, against values that are known at every point."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from converters import align
from converters.errors import MissingAttributeError, MixedFrameOfReferenceError
from converters.volume import Grid, Shape, Volume

SLOPE = np.array([0.5, -0.25, 0.125])  # per millimetre of patient LPS


def _grid(
    shape: Shape,
    spacing_mm: tuple[float, float, float],
    *,
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    tilt: float = 0.0,
    frame: str = "1.2",
) -> Grid:
    cosine, sine = np.cos(tilt), np.sin(tilt)
    matrix = np.eye(4)
    matrix[:3, 0] = np.array([0.0, -sine, cosine]) * spacing_mm[0]
    matrix[:3, 1] = np.array([0.0, cosine, sine]) * spacing_mm[1]
    matrix[:3, 2] = np.array([1.0, 0.0, 0.0]) * spacing_mm[2]
    matrix[:3, 3] = origin_mm
    return Grid(shape=shape, index_to_lps_mm=matrix, frame_of_reference_uid=frame)


def _positions(grid: Grid) -> NDArray[np.float64]:
    return grid.lps_mm(np.moveaxis(np.indices(grid.shape), 0, -1).astype(np.float64))


def _linear(grid: Grid) -> Volume:
    """Return a volume whose values grow evenly through the patient."""
    values = (_positions(grid) @ SLOPE + 100.0).astype(np.float32)
    return Volume(intensities=values, grid=grid, role="t2")


@given(
    tilt=st.floats(-0.6, 0.6),
    origin_mm=st.tuples(*[st.floats(-6.0, 6.0)] * 3),
    spacing_mm=st.tuples(*[st.floats(0.7, 3.0)] * 3),
)
@settings(max_examples=40, deadline=None)
def test_a_field_that_grows_evenly_is_sampled_exactly(
    tilt: float, origin_mm: tuple[float, float, float], spacing_mm: tuple[float, float, float]
) -> None:
    source = _linear(_grid((12, 14, 16), (3.0, 2.0, 2.5), origin_mm=(-15.0, -14.0, -16.0)))
    target = _grid((5, 6, 7), spacing_mm, origin_mm=origin_mm, tilt=tilt)
    sampled = align.on_grid(source, target)
    at = _positions(target)
    index = np.linalg.solve(
        source.grid.index_to_lps_mm,
        np.concatenate([at, np.ones((*at.shape[:3], 1))], axis=3)[..., None],
    )[..., :3, 0]
    counts = np.array(source.grid.shape)
    is_between = ((index >= 0) & (index <= counts - 1)).all(axis=-1)
    is_outside = ((index < -0.5001) | (index > counts - 0.4999)).any(axis=-1)
    wanted = at @ SLOPE + 100.0
    assert np.abs(sampled.intensities - wanted)[is_between].max(initial=0.0) < 1e-3
    assert (sampled.intensities[is_outside] == 0.0).all()
    assert sampled.grid is target
    assert sampled.role == "t2"


def test_the_same_grid_gives_the_same_data_without_a_copy() -> None:
    volume = _linear(_grid((4, 5, 6), (2.0, 1.0, 1.0)))
    same = _grid((4, 5, 6), (2.0, 1.0, 1.0), origin_mm=(1e-5, 0.0, 0.0))
    aligned = align.on_grid(volume, same)
    assert np.shares_memory(aligned.intensities, volume.intensities)
    assert aligned.grid is same


def test_every_second_slice_is_taken_as_it_is() -> None:
    volume = _linear(_grid((9, 5, 6), (1.1, 0.3, 0.7), tilt=0.3))
    target = _grid((5, 5, 6), (2.2, 0.3, 0.7), tilt=0.3)
    sampled = align.on_grid(volume, target).intensities
    assert np.allclose(sampled, volume.intensities[::2], atol=1e-4)


def test_the_outer_half_of_the_border_belongs_to_the_image() -> None:
    ones = np.ones((3, 4, 5), dtype=np.float32)
    volume = Volume(intensities=ones, grid=_grid((3, 4, 5), (1.0, 1.0, 1.0)), role="t1")
    fine = _grid((8, 10, 12), (0.5, 0.5, 0.5), origin_mm=(-0.75, -0.75, -0.75))
    sampled = align.on_grid(volume, fine).intensities
    assert (sampled[1:7, 1:9, 1:11] == 1.0).all()
    assert sampled.sum() == 6 * 8 * 10


def test_a_slice_beside_the_source_is_empty() -> None:
    volume = _linear(_grid((3, 4, 5), (1.0, 1.0, 1.0)))
    beside = _grid((2, 4, 5), (50.0, 1.0, 1.0))
    sampled = align.on_grid(volume, beside).intensities
    assert (sampled[1] == 0.0).all()
    assert np.allclose(sampled[0], volume.intensities[0])


def test_volumes_of_one_frame_pass() -> None:
    align.check_one_frame([_linear(_grid((3, 4, 5), (1.0, 1.0, 1.0)))] * 3)


def test_volumes_of_two_frames_are_refused() -> None:
    first = _linear(_grid((3, 4, 5), (1.0, 1.0, 1.0)))
    other = _linear(_grid((3, 4, 5), (1.0, 1.0, 1.0), frame="1.3"))
    with pytest.raises(MixedFrameOfReferenceError) as caught:
        align.check_one_frame([first, other, first])
    assert str(caught.value) == "2 frames of reference among 3 series, expected one"


def test_a_volume_without_a_frame_is_refused_with_its_role() -> None:
    first = _linear(_grid((3, 4, 5), (1.0, 1.0, 1.0)))
    bare = _linear(_grid((3, 4, 5), (1.0, 1.0, 1.0), frame=""))
    with pytest.raises(MissingAttributeError) as caught:
        align.check_one_frame([first, bare])
    assert caught.value.evidence["keyword"] == "FrameOfReferenceUID"
    assert caught.value.evidence["role"] == "t2"
