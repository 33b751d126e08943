"""The pages of a summary: which there are, what they show, and that text stays where it belongs."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from converters import page_frame, summary_pictures
from converters.summary_cover import Row, Words
from converters.summary_pictures import Page, draw_pages
from converters.volume import Grid, LabelMap, Segment, Volume
from tests.seg_examples import CATEGORY, ENHANCING, SEGMENTS

PAGE = np.array(page_frame.PAGE)
WORDS = Words(
    model="Some model, some-model@1.2.3",
    is_demonstration=False,
    facts=(("Model", "Some model"), ("Date of the study", "2025-03-01")),
    columns=("Volume",),
    rows=(
        Row(label="Edema", values=("12.0 mL",), color_rgb=(255, 217, 61)),
        Row(label="Whole tumour", values=("15.0 mL",)),
    ),
    notes=("There is no T2; the model was run without it.",),
)
ENDLESS = "Institutional-Glioma-Ensemble-Of-Everything-That-Was-Ever-Trained " * 6
OVERFULL = Words(
    model=ENDLESS,
    is_demonstration=True,
    facts=tuple((f"Label {number} {ENDLESS}", ENDLESS) for number in range(12)),
    columns=("Volume of all of it", "Longest diameter in any plane at all"),
    rows=tuple(
        Row(label=ENDLESS, values=("123456789.0 mL of it", "52.0 x 41.0 x 33.0 mm"))
        for _ in range(14)
    ),
    notes=tuple(f"{number}: {ENDLESS}" for number in range(20)),
)


def grid(slices: int = 20, step_mm: float = 6.0) -> Grid:
    matrix = np.zeros((4, 4))
    matrix[[2, 1, 0, 3], [0, 1, 2, 3]] = (step_mm, 3.0, 3.0, 1.0)
    matrix[:3, 3] = (-75.0, -90.0, -50.0)
    return Grid(shape=(slices, 60, 50), index_to_lps_mm=matrix, frame_of_reference_uid="1.2")


def scan(role: str, place: Grid) -> Volume:
    points = place.lps_mm(np.moveaxis(np.indices(place.shape), 0, -1).astype(np.float64))
    middle = place.lps_mm((np.array(place.shape) - 1) / 2.0)
    depth = np.linalg.norm((points - middle) / [65.0, 80.0, 65.0], axis=-1)
    noise = np.random.default_rng(len(role)).uniform(80.0, 120.0, place.shape)
    return Volume(
        intensities=np.where(depth < 1.0, noise, 0.0).astype(np.float32), grid=place, role=role
    )


def some_labels(place: Grid) -> NDArray[np.uint8]:
    labels = np.zeros(place.shape, np.uint8)
    labels[8:13, 20:36, 30:42] = 1
    labels[9:12, 24:32, 33:39] = 2
    return labels


def drawn(
    labels: NDArray[np.uint8], words: Words = WORDS, *, place: Grid | None = None
) -> dict[str, Page]:
    place = place or grid()
    label_map = LabelMap(labels=labels, grid=place, segments=SEGMENTS, model_id="a@1")
    volumes = [scan("t1gd", place), scan("flair", place)]
    return {page.name: page for page in draw_pages(volumes, label_map, words)}


@pytest.fixture(scope="module")
def pages() -> dict[str, Page]:
    return drawn(some_labels(grid()))


def count_of(page: Page, color: tuple[int, int, int]) -> int:
    return int(np.all(page.pixels == color, axis=2).sum())


def test_a_result_has_a_cover_three_planes_and_slices_of_both_sequences(
    pages: dict[str, Page],
) -> None:
    assert list(pages) == ["cover", "planes", "axial-t1gd", "axial-flair"]
    for page in pages.values():
        assert page.pixels.shape == (1024, 1024, 3)
        assert page.pixels.dtype == np.uint8
    assert pages["axial-flair"].title == "Axial slices through the tumour, FLAIR"


def test_every_page_says_that_it_is_for_research_only(pages: dict[str, Page]) -> None:
    for page in pages.values():
        top = page.pixels[: page_frame.HEAD + 20]
        assert (top[:80, :120] == page_frame.PAGE).all()  # viewers write over the corners
        assert (top[:80, -120:] == page_frame.PAGE).all()
        box = top.reshape(-1, 3)
        assert (box == page_frame.AMBER).all(axis=1).sum() > 8000
    assert page_frame.WARNING == "AI, research use only"


def test_pictures_have_outlines_in_the_colours_of_their_legend(pages: dict[str, Page]) -> None:
    for page in pages.values():
        for segment in SEGMENTS:
            assert count_of(page, segment.color_rgb) > 40


def test_the_segment_lies_on_the_side_of_the_picture_that_its_letter_says(
    pages: dict[str, Page],
) -> None:
    red = np.all(pages["axial-t1gd"].pixels == SEGMENTS[1].color_rgb, axis=2)
    red[-page_frame.FOOT :] = False
    columns = np.nonzero(red)[1] % 257  # of four cells
    assert columns.min() > 128  # the patient's left


def test_the_same_result_gives_the_same_pixels(pages: dict[str, Page]) -> None:
    for name, page in drawn(some_labels(grid())).items():
        assert np.array_equal(page.pixels, pages[name].pixels)


def test_without_a_tumour_there_are_a_cover_and_planes_without_outlines() -> None:
    found = drawn(np.zeros(grid().shape, np.uint8))
    assert list(found) == ["cover", "planes"]
    assert "middle of the head" in found["planes"].title
    for page in found.values():
        assert count_of(page, SEGMENTS[1].color_rgb) == 0


def test_one_sequence_is_enough() -> None:
    place = grid()
    label_map = LabelMap(labels=some_labels(place), grid=place, segments=SEGMENTS, model_id="a@1")
    found = draw_pages([scan("other_role", place)], label_map, WORDS)
    assert [page.name for page in found] == ["cover", "planes", "axial-other_role"]


@pytest.mark.parametrize("name", ["cover", "planes", "axial-t1gd"])
def test_text_stays_on_its_page_whatever_it_says(pages: dict[str, Page], name: str) -> None:
    page = drawn(some_labels(grid()), OVERFULL)[name]
    margins = [page.pixels[:10], page.pixels[-12:]]
    if name == "cover":
        margins += [page.pixels[:, :26], page.pixels[:, -25:]]
    else:
        low = page.pixels[-page_frame.FOOT :]
        margins += [low[:, :26], low[:, -25:]]
        pictures = slice(page_frame.HEAD, -page_frame.FOOT)
        assert np.array_equal(page.pixels[pictures], pages[name].pixels[pictures])
    for margin in margins:
        assert (margin.reshape(-1, 3) == PAGE).all()


def test_the_cover_picture_is_not_written_over() -> None:
    found = drawn(some_labels(grid()), OVERFULL)["cover"].pixels[150:560, 660:996]
    expected = drawn(some_labels(grid()))["cover"].pixels[150:560, 660:996]
    assert np.array_equal(found, expected)


def test_a_result_without_notes_or_facts_has_a_cover() -> None:
    bare = replace(WORDS, facts=(), rows=(), columns=(), notes=())
    page = drawn(some_labels(grid()), bare)["cover"]
    assert count_of(page, SEGMENTS[1].color_rgb) > 40


def test_many_segments_share_the_legend() -> None:
    place = grid()
    many = tuple(
        Segment(
            number=number,
            label=f"Segment number {number} with a long name",
            category=CATEGORY,
            type_code=ENHANCING,
            color_rgb=(20 * number, 250, 255 - 20 * number),
        )
        for number in range(1, 9)
    )
    label_map = LabelMap(labels=some_labels(place), grid=place, segments=many, model_id="a@1")
    pages = {one.name: one for one in draw_pages([scan("t1gd", place)], label_map, WORDS)}
    foot = replace(pages["planes"], pixels=pages["planes"].pixels[-page_frame.FOOT : -40])
    assert all(count_of(foot, segment.color_rgb) > 40 for segment in many)
    assert (foot.pixels[:, -25:].reshape(-1, 3) == PAGE).all()


# -- which slices are shown -----------------------------------------------------------------------


def heights(labels: NDArray[np.uint8], place: Grid) -> list[float]:
    label_map = LabelMap(labels=labels, grid=place, segments=SEGMENTS, model_id="a@1")
    return [float(point[2]) for point in summary_pictures._levels(label_map)]


def test_slices_are_spread_evenly_over_a_large_tumour_from_end_to_end() -> None:
    place = grid(60, 2.0)
    labels = np.zeros(place.shape, np.uint8)
    labels[10:57, 30, 30] = 1
    found = heights(labels, place)
    assert len(found) == 12
    assert (found[0], found[-1]) == (-50.0 + 20.0, -50.0 + 112.0)
    assert set(np.round(np.diff(found))) <= {8.0, 10.0}


def test_a_small_tumour_is_shown_with_its_neighbours() -> None:
    place = grid(20, 5.0)
    labels = np.zeros(place.shape, np.uint8)
    labels[18:, 30, 30] = 1
    found = heights(labels, place)
    assert found == [-50.0 + 5.0 * number for number in range(8, 20)]


def test_two_lesions_far_apart_are_both_shown() -> None:
    place = grid(60, 2.0)
    labels = np.zeros(place.shape, np.uint8)
    labels[3:5, 30, 30] = labels[50:54, 20, 20] = 1
    found = heights(labels, place)
    assert found == [-50.0 + 2.0 * number for number in (3, 4, 50, 51, 52, 53)]


def test_a_stack_of_few_slices_is_shown_whole() -> None:
    place = grid(7, 8.0)
    assert len(heights(some_labels_of(place), place)) == 7


def some_labels_of(place: Grid) -> NDArray[np.uint8]:
    labels = np.zeros(place.shape, np.uint8)
    labels[3, 30, 30] = 1
    return labels


def test_a_stack_from_head_to_feet_is_shown_from_feet_to_head() -> None:
    matrix = grid().index_to_lps_mm.copy()
    matrix[2, 0] *= -1.0
    place = Grid(shape=(20, 60, 50), index_to_lps_mm=matrix, frame_of_reference_uid="1.2")
    found = heights(some_labels(place), place)
    assert found == sorted(found)


def test_the_centre_lies_within_the_largest_part_though_it_is_hollow() -> None:
    place = grid(20, 3.0)
    labels = np.zeros(place.shape, np.uint8)
    labels[5:15, 10:30, 10:30] = 1
    labels[5:15, 12:28, 12:28] = 0  # a ring
    labels[16:18, 50:54, 40:44] = 2
    label_map = LabelMap(labels=labels, grid=place, segments=SEGMENTS, model_id="a@1")
    centre = summary_pictures._lesion_centre(label_map)
    assert centre is not None
    index = np.linalg.inv(place.index_to_lps_mm) @ [*centre, 1.0]
    slices, row, column = (round(float(one)) for one in index[:3])
    assert labels[slices, row, column] == 1
    assert 8 <= slices <= 11


# -- nothing about the patient --------------------------------------------------------------------


def test_what_pages_are_made_of_has_no_place_for_a_patient() -> None:
    assert {one.name for one in dataclasses.fields(Words)} == {
        "model",
        "is_demonstration",
        "facts",
        "columns",
        "rows",
        "notes",
    }
