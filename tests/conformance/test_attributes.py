"""Attributes of our objects against the tables of PS3.3 that highdicom carries, offline.

Looked at are the types 1 and 2 of mandatory modules, also within sequences, and attributes that no
module of the object has. Conditions (1C, 2C) are the validator's business. Reports are left out:
their tables list every macro of a content item as if it applied.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from converters.secondary_capture import Picture, build_capture
from converters.seg import build_segmentation
from converters.volume import Shape
from tests import seg_examples
from tests.seg_examples import EVEN, IDENTITY, ODD

Where = tuple[str, ...]
# Each macro stands in one of the two and some in none; converters.seg_check looks at them.
_FUNCTIONAL_GROUPS = (("SharedFunctionalGroupsSequence",), ("PerFrameFunctionalGroupsSequence",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What an object may and must have, by the sequences above it."""

    allowed: dict[Where, set[str]]
    required: dict[Where, dict[str, str]]


@cache
def table(name: str) -> Any:  # noqa: ANN401 - JSON
    path = files("highdicom") / "_standard" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


@cache
def rules_of(sop_class_uid: str) -> Rules:
    allowed: dict[Where, set[str]] = defaultdict(set)
    required: dict[Where, dict[str, str]] = defaultdict(dict)
    for module in table("iod_module_map")[table("sop_class_iod_map")[sop_class_uid]]:
        for one in table("module_attribute_map")[module["key"]]:
            where = tuple(one["path"])
            allowed[where].add(one["keyword"])
            is_mandatory = module["usage"] == "M" and where not in _FUNCTIONAL_GROUPS
            if is_mandatory and one["type"] in ("1", "2"):
                required[where].setdefault(one["keyword"], one["type"])
    return Rules(allowed=allowed, required=required)


def findings(ds: Dataset, rules: Rules, where: Where = ()) -> Iterator[str]:
    """Yield what is missing, empty or foreign."""
    for keyword, kind in rules.required[where].items():
        if keyword not in ds:
            yield f"missing {kind}: {'/'.join((*where, keyword))}"
        elif kind == "1" and ds[keyword].is_empty:
            yield f"empty 1: {'/'.join((*where, keyword))}"
    for element in ds:
        if element.keyword not in rules.allowed[where]:
            yield f"foreign: {'/'.join((*where, element.keyword))}"
        for item in element.value if element.VR == "SQ" else ():
            yield from findings(item, rules, (*where, element.keyword))


def reported(ds: Dataset) -> set[str]:
    return set(findings(ds, rules_of(ds.SOPClassUID)))


@pytest.fixture(params=[EVEN, ODD], ids=["BINARY", "FRACTIONAL"])
def seg(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    shape: Shape = request.param
    sources = seg_examples.read_sources(tmp_path / "series", shape)
    labels = seg_examples.label_map(seg_examples.some_labels(shape))
    return saved(build_segmentation(labels, sources, IDENTITY), tmp_path)


@pytest.fixture
def capture(tmp_path: Path) -> Dataset:
    sources = seg_examples.read_sources(tmp_path / "series", EVEN)
    labels = seg_examples.label_map(seg_examples.some_labels(EVEN))
    outlined = build_segmentation(labels, sources, IDENTITY)
    picture = Picture(pixels=np.zeros((8, 8, 3), np.uint8), title="Summary", number=1)
    return saved(build_capture(picture, outlined, sources[0], IDENTITY), tmp_path)


def saved(ds: Dataset, folder: Path) -> Dataset:
    return pydicom.dcmread(seg_examples.written(ds, folder / "object.dcm"))


def test_a_segmentation_has_what_it_must_and_nothing_else(seg: Dataset) -> None:
    assert reported(seg) == set()


def test_a_picture_has_what_it_must_and_nothing_else(capture: Dataset) -> None:
    assert reported(capture) == set()


def test_a_defect_would_have_been_seen(seg: Dataset) -> None:
    del seg.StudyID
    seg.ContentLabel = ""
    seg.EchoTime = 1.0
    del seg.SegmentSequence[0].SegmentNumber
    assert reported(seg) == {
        "missing 2: StudyID",
        "empty 1: ContentLabel",
        "foreign: EchoTime",
        "missing 1: SegmentSequence/SegmentNumber",
    }
