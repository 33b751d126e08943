"""The voxels that a page leafs through: kept with the result, read a slice at a time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from converters.slice_views import Layout
from node import pictures, slices
from node.spool import Spool
from tests.phantoms import WrittenStudy
from tests.unit.node.test_pictures import MODEL, converted, labels_of


def test_what_is_kept_is_described_by_the_summary_and_mapped(
    small_study: WrittenStudy, spool: Spool
) -> None:
    case = converted(small_study, spool)
    volumes, label_map = pictures.volumes_of(case, spool), labels_of(small_study)
    said = json.loads(json.dumps(slices.keep(volumes, label_map, case, spool)))
    found = slices.of({slices.KEY: said})
    assert found is not None
    assert found.layout.roles == ("t1gd", "flair")
    assert [(one.number, one.label, one.color_rgb) for one in found.labels] == [
        (one.number, one.label, one.color_rgb) for one in MODEL.segments
    ]
    path = spool.case_folder(case.case_id) / slices.FILE_NAME
    layers = slices.layers(path, found.layout)
    assert isinstance(layers, np.memmap)
    counted = np.bincount(layers[-1].ravel(), minlength=4)[1:]
    assert list(counted) == list(np.bincount(label_map.labels.ravel(), minlength=4)[1:])
    assert str(path.relative_to(spool.root)) not in spool.working_files(case.case_id)


def test_what_another_run_has_written_meanwhile_is_not_shown(tmp_path: Path) -> None:
    layout = Layout(shape=(2, 3, 4), spacing_mm=(1.0, 1.0, 1.0), roles=("t1",), at=(0, 0, 0))
    path = tmp_path / slices.FILE_NAME
    assert slices.layers(path, layout) is None
    np.save(path, np.zeros((2, 2, 3, 5), np.uint8))
    assert slices.layers(path, layout) is None
    assert slices.of(None) is None
    assert slices.of({"notes": []}) is None
