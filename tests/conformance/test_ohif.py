"""What radiologists see of our Segmentations in OHIF: every voxel, every colour, and the screen."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from scipy import ndimage
from scipy.spatial.transform import Rotation

from converters import series
from converters.align import on_grid
from converters.mr_writer import PLANS, StudyIdentity, derived_uid, write_series
from converters.phantom_scanner import BRAIN_CENTRE_LPS_MM
from converters.seg import build_segmentation, check_segmentation
from converters.seg_check import read_labels
from converters.seg_forms import build_layers
from converters.series import Stack
from converters.volume import Grid, LabelMap, Layers, Segment, Volume
from inference import manifest
from node import measuring
from node.cases import also_name
from node.identities import series_description
from node.ledger import Ledger
from node.regions import regions_of
from node.spool import Spool
from tests import enhanced, ohif, seg_examples
from tests.ohif import Shown, Viewer
from tests.peers import Orthanc
from tests.phantoms import WrittenStudy
from tests.stages import at, bright_is_tumour, close, parts, run_all, take_in

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

MODEL = manifest.load(Path(__file__).parents[2] / "models" / "demo-glioma")
IDENTITY = StudyIdentity(seed=3132, patient_id="OHIF")
AXIAL = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], float)  # of slice, row, column, LPS
SAGITTAL = np.array([[-1, 0, 0], [0, 0, -1], [0, 1, 0]], float)
OBLIQUE = AXIAL @ Rotation.from_euler("xyz", [24.0, -15.0, 11.0], degrees=True).as_matrix()
EVEN, ODD = (256, 208), (217, 181)
SERIES = {
    "axial": (AXIAL, EVEN),
    "sagittal": (SAGITTAL, EVEN),
    "oblique": (OBLIQUE, EVEN),
    "odd": (AXIAL, ODD),  # FRACTIONAL: 8 does not divide rows x columns
    "enhanced": (OBLIQUE, EVEN),
}
WISHES = {"pictures": True, "seg": ("labels", "regions"), "also": ("flair",)}
GREY = 24.0  # of 255: a colour no further from grey than this is none


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """What a Segmentation was made of, and the file of one that was written here."""

    label_map: LabelMap
    stack: Stack
    series_uid: str = ""
    path: Path = Path()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the screens are kept."""
    folder = os.environ.get("NEUROSEG_TEST_PICTURES")
    if not folder:
        return tmp_path_factory.mktemp("screens")
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    ohif.require()
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


@pytest.fixture(scope="module")
def viewer(archive: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    with ohif.viewer(archive, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def results(
    full_study: WrittenStudy,
    archive: Orthanc,
    viewer: Viewer,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Result]:
    """Return the results of one study in the archive, which the viewer shows."""
    folder = tmp_path_factory.mktemp("results")
    made: dict[str, Result] = {}
    for number, (name, (directions, plane)) in enumerate(SERIES.items(), start=2):
        grid = grid_through_the_lesion(full_study, directions, plane)
        files = imaged(full_study, grid, folder / name, number)
        if name == "enhanced":
            frames = enhanced.frames(files, echo_time_ms=2.9)
            files = [enhanced.enhanced(frames, folder / "enhanced.dcm")]
        archive.upload(files)
        made[name] = encoded(name, series.stack(files, "", limits=None), full_study, folder)
    made["revised"] = encoded("revised", made["axial"].stack, full_study, folder)
    archive.upload([one.path for one in made.values()])
    archive.upload([overlapping(made["axial"], folder)])
    viewer.open_study(IDENTITY.study_instance_uid, series_count=len(SERIES) + len(made) + 1)
    return made


def grid_through_the_lesion(
    study: WrittenStudy, directions: NDArray[np.float64], plane: tuple[int, int]
) -> Grid:
    """Return 16 slices through the lesion that show the whole brain."""
    lesion = np.array(study.study.lesion_centre_lps_mm)
    along = directions[0]
    centre = BRAIN_CENTRE_LPS_MM + along * ((lesion - BRAIN_CENTRE_LPS_MM) @ along)
    steps = (directions * np.array([[3.0], [0.95], [1.0]])).T
    matrix, shape = np.eye(4), (16, *plane)
    matrix[:3, :3] = steps
    matrix[:3, 3] = centre - steps @ ((np.array(shape) - 1) / 2)
    frame = study.study.volumes["t1gd"].grid.frame_of_reference_uid
    return Grid(shape=shape, index_to_lps_mm=matrix, frame_of_reference_uid=frame)


def imaged(study: WrittenStudy, grid: Grid, folder: Path, number: int) -> list[Path]:
    volume = on_grid(study.study.volumes["t1gd"], grid)
    plan = replace(PLANS["t1gd"], description=folder.name)
    return write_series(volume, folder, study=IDENTITY, series_number=number, plan=plan)


def labels_on(study: WrittenStudy, grid: Grid) -> NDArray[np.uint8]:
    own, labels = study.study.volumes["t1gd"].grid, np.zeros(grid.shape, np.uint8)
    for one in MODEL.segments:
        mask = (study.study.truth["t1gd"] == one.number).astype(np.float32)
        volume = Volume(intensities=mask, grid=own, role="t1gd")
        labels[on_grid(volume, grid).intensities > 0.5] = one.number
    return labels


def encoded(name: str, stack: Stack, study: WrittenStudy, folder: Path) -> Result:
    labels, revision = labels_on(study, stack.grid), 1
    if name == "revised":
        labels, revision = np.roll(labels, 3, axis=2), 2
    label_map = LabelMap(
        labels=labels, grid=stack.grid, segments=MODEL.segments, model_id=MODEL.model_id
    )
    identity = replace(
        seg_examples.IDENTITY,
        sop_instance_uid=derived_uid(name, "seg"),
        series_instance_uid=derived_uid(name, "series"),
        series_description=series_description(label_map, MODEL, revision),
        tracking_uids={one.number: derived_uid(name, one.number) for one in MODEL.segments},
    )
    seg = build_segmentation(label_map, stack.headers, identity, stack.frames)
    path = seg_examples.written(seg, folder / f"{name}.dcm")
    check_segmentation(path, label_map, stack.headers, stack.frames)
    return Result(
        label_map=label_map, stack=stack, series_uid=identity.series_instance_uid, path=path
    )


def overlapping(result: Result, folder: Path) -> Path:
    """Return the file of a result's regions, which overlap."""
    layers = regions_on(result)
    identity = replace(
        seg_examples.IDENTITY,
        sop_instance_uid=derived_uid("regions", "seg"),
        series_instance_uid=derived_uid("regions", "series"),
        tracking_uids={one.number: derived_uid("regions", one.number) for one in layers.segments},
    )
    seg = build_layers(layers, result.stack.headers, identity, result.stack.frames)
    return seg_examples.written(seg, folder / "regions.dcm")


def regions_on(result: Result) -> Layers:
    return regions_of(measuring.of(result.label_map, MODEL), result.label_map, MODEL).layers


def check_held(shown: Shown, result: Result) -> None:
    """Compare names, colours and every voxel with the label map."""
    label_map = result.label_map
    masks = [label_map.labels == one.number for one in label_map.segments]
    check_masks(shown, label_map.segments, masks, result.stack)


def check_masks(
    shown: Shown,
    segments: Sequence[Segment],
    masks: Iterable[NDArray[np.bool_]],
    stack: Stack,
) -> None:
    """Compare names, colours and every voxel with masks, which may overlap."""
    assert shown.labels == {one.number: one.label for one in segments}
    assert shown.colors == {one.number: (*one.color_rgb, 255) for one in segments}
    for one, mask in zip(segments, masks, strict=True):
        np.testing.assert_array_equal(shown.mask(one.number, stack.headers, stack.frames), mask)


def check_drawn(viewer: Viewer, result: Result, path: Path) -> None:
    """Compare the screen with the slice where most is labelled, around it and away from borders.

    What is drawn is the segment's colour mixed with the grey of the image: its hue.
    """
    labels, stack = result.label_map.labels, result.stack
    index = int(np.count_nonzero(labels, axis=(1, 2)).argmax())
    plane, colors = labels[index], viewer.draw(stack, index, path).astype(np.float64)
    hues = colors - colors.min(axis=-1, keepdims=True)
    strengths = np.linalg.norm(hues, axis=-1)
    is_compared = ndimage.binary_dilation(plane > 0, iterations=8)
    is_compared &= ndimage.minimum_filter(plane, 3) == ndimage.maximum_filter(plane, 3)
    np.testing.assert_array_equal(strengths[is_compared] > GREY, plane[is_compared] > 0)
    for one in result.label_map.segments:
        own = np.subtract(one.color_rgb, min(one.color_rgb))
        inside = is_compared & (plane == one.number)
        assert (hues[inside] @ own > 0.99 * strengths[inside] * np.linalg.norm(own)).all()


@pytest.mark.parametrize("name", SERIES)
def test_every_voxel_has_its_colour_in_its_place(
    name: str, results: dict[str, Result], viewer: Viewer, pictures: Path
) -> None:
    result = results[name]
    check_held(viewer.open_segmentation(result.series_uid), result)
    check_drawn(viewer, result, pictures / f"{name}.png")


def test_regions_that_overlap_are_shown_whole(
    results: dict[str, Result], viewer: Viewer, pictures: Path
) -> None:
    result = results["axial"]
    layers = regions_on(result)
    whole, core, enhancing = (np.count_nonzero(one) for one in layers.values)
    assert whole > core > enhancing > 0
    shown = viewer.open_segmentation(derived_uid("regions", "series"))
    check_masks(shown, layers.segments, layers.values > 0, result.stack)
    index = int(np.count_nonzero(layers.values[0], axis=(1, 2)).argmax())
    viewer.draw(result.stack, index, pictures / "regions.png")


def test_a_revised_result_is_told_from_the_one_before(
    results: dict[str, Result], viewer: Viewer
) -> None:
    listed = viewer.listed()
    described = [listed[results[name].series_uid][1] for name in ("axial", "revised")]
    assert described[0] != described[1]
    assert "rev. 2" in described[1]
    check_held(viewer.open_segmentation(results["revised"].series_uid), results["revised"])


def test_a_delivered_study_shows_its_results_and_its_pictures(
    small_study: WrittenStudy,
    spool: Spool,
    ledger: Ledger,
    archive: Orthanc,
    viewer: Viewer,
    pictures: Path,
) -> None:
    take_in(small_study.interleaved, spool, ledger)
    archive.upload(small_study.interleaved)
    case_id = close(spool, ledger).case_id
    destination = at(archive.dicom_port).model_copy(update=WISHES)
    run_all(parts(spool, ledger, destination), case_id)
    result = Result(
        label_map=bright_is_tumour(spool)(ledger.assembled(case_id), lambda: False),
        stack=series.stack(small_study.files.paths["t1gd"], "", limits=None),
    )
    viewer.open_study(small_study.files.study_instance_uid, series_count=9)
    listed = viewer.listed()
    by_modality = {modality: uid for uid, (modality, _) in listed.items()}
    assert sorted(by_modality) == ["MR", "OT", "SEG", "SR"]
    segs = {said.split(" DEMO")[0]: uid for uid, (kind, said) in listed.items() if kind == "SEG"}
    assert sorted(segs) == ["AI tumour regions", "AI tumour seg.", "AI tumour seg. on FLAIR"]

    check_held(viewer.open_segmentation(segs["AI tumour seg."]), result)
    check_drawn(viewer, result, pictures / "delivered.png")
    layers = regions_on(result)
    shown = viewer.open_segmentation(segs["AI tumour regions"])
    check_masks(shown, layers.segments, layers.values > 0, result.stack)
    flair = series.stack(small_study.files.paths["flair"], "", limits=None)
    labels = read_labels(spool.case_folder(case_id) / also_name("flair"), flair.headers)
    also = Result(label_map=replace(result.label_map, labels=labels, grid=flair.grid), stack=flair)
    check_held(viewer.open_segmentation(segs["AI tumour seg. on FLAIR"]), also)
    check_drawn(viewer, also, pictures / "flair.png")

    files = sorted(spool.case_folder(case_id).glob("summary-*.dcm"))
    pages = sorted(map(dcmread, files), key=lambda page: int(page.InstanceNumber))
    images = viewer.open_images(by_modality["OT"])
    for values, page in zip(images, pages, strict=True):
        held = values.reshape(page.Rows, page.Columns, -1)[..., :3]
        np.testing.assert_array_equal(held, page.pixel_array)
    viewer.page.screenshot(pictures / "pictures.png")
