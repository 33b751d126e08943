"""A label map with two lesions, its SEG and its report, for the tests of reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from converters.measure import Measurements, Region, measure
from converters.seg import build_segmentation
from converters.sr import InstanceReference, ReportContext, build_report, check_report
from converters.volume import Code, Grid, LabelMap, Segment, Shape
from node.uids import derived_uid
from tests import seg_examples
from tests.seg_examples import CATEGORY, EDEMA, ENHANCING

SHAPE: Shape = (6, 32, 40)
MODEL_ID = "some-model@1.2.3"
NEOPLASM = Code(value="108369006", scheme="SCT", meaning="Neoplasm")
CORE = Code(value="C81175", scheme="NCIt", meaning="Non-Enhancing Lesion")
SEGMENTS = tuple(
    Segment(number=number, label=label, category=CATEGORY, type_code=code, color_rgb=(9, 9, number))
    for number, label, code in (
        (1, "Edema", EDEMA),
        (2, "Core", CORE),
        (3, "Enhancing", ENHANCING),
    )
)
REGIONS = (
    Region(label="Whole tumour", numbers=(1, 2, 3), category=CATEGORY, type_code=NEOPLASM),
    Region(label="Tumour core", numbers=(2, 3), category=CATEGORY, type_code=NEOPLASM),
)
NOTES = tuple(
    Code(value=value, scheme="99NEUROSEG", meaning=meaning)
    for value, meaning in (
        ("INPUT_MISSING", "the model was run without one of its inputs"),
        ("TUMOUR_OUTSIDE_BRAIN", "much of what was found lies outside the brain"),
    )
)
IDENTITY = replace(
    seg_examples.IDENTITY,
    sop_instance_uid="2.25.1011",
    series_instance_uid="2.25.1012",
    tracking_uids={1: "2.25.1004", 2: "2.25.1005", 3: "2.25.1006"},
    series_number=9003,
    series_description="AI measurements DEMO MODEL - research use only",
)
SEG = InstanceReference(
    sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
    sop_instance_uid="2.25.1001",
    series_instance_uid="2.25.1002",
)
OTHER_SERIES = tuple(
    InstanceReference(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
        sop_instance_uid=f"2.25.30{number}",
        series_instance_uid="2.25.3000",
    )
    for number in range(3)
)


def two_lesions(sources: Sequence[Dataset]) -> LabelMap:
    """Return a large lesion that enhances around its core, and a small one that does not."""
    labels = np.zeros((len(sources), sources[0].Rows, sources[0].Columns), np.uint8)
    rows, columns = np.indices(labels.shape[1:])
    away = np.hypot((rows - 14) * 0.9, (columns - 13) * 0.6)
    for index in (1, 2, 3):
        labels[index] = np.select([away < 3, away < 7.0 - abs(index - 2), away < 9], [2, 3, 1], 0)
    labels[3:5, 24:30, 30:38] = 1
    return label_map(labels)


def label_map(labels: NDArray[np.uint8], grid: Grid | None = None) -> LabelMap:
    """Return labels with all three segments, on the oblique grid unless another is given."""
    return LabelMap(
        labels=labels,
        grid=grid or seg_examples.oblique_grid((labels.shape[0], labels.shape[1], labels.shape[2])),
        segments=SEGMENTS,
        model_id=MODEL_ID,
    )


def tracking_uid(name: str) -> str:
    """Return a tracking UID that depends on the name alone."""
    return derived_uid("a-case", "a-model", name)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Report:
    """A report on disk with what went into it."""

    path: Path
    seg_path: Path
    found: Measurements
    label_map: LabelMap
    sources: Sequence[Dataset]
    context: ReportContext

    def check(self, path: Path | None = None) -> None:
        """Prove a file against the measurements."""
        check_report(
            path or self.path,
            self.found,
            self.sources[0],
            MODEL_ID,
            self.context.segmentation,
            self.context.inputs,
        )


def write_report(
    folder: Path,
    labels: LabelMap,
    sources: Sequence[Dataset],
    frames: Sequence[int] = (),
    notes: tuple[Code, ...] = NOTES,
    segmentation: InstanceReference | None = SEG,
) -> Report:
    """Build, write and check a SEG and its report."""
    identity = replace(seg_examples.IDENTITY, tracking_uids=IDENTITY.tracking_uids)
    build_segmentation(labels, sources, identity, frames).save_as(folder / "seg.dcm")
    inputs = dict.fromkeys(
        InstanceReference(
            sop_class_uid=str(one.SOPClassUID),
            sop_instance_uid=str(one.SOPInstanceUID),
            series_instance_uid=str(one.SeriesInstanceUID),
        )
        for one in sources
    )
    context = ReportContext(
        model_id=MODEL_ID,
        device_uid="2.25.77000",
        tracking_uid=tracking_uid,
        segmentation=segmentation,
        inputs=(*inputs, *OTHER_SERIES),
        notes=notes,
    )
    found = measure(labels, REGIONS)
    build_report(found, sources, IDENTITY, context, frames).save_as(folder / "sr.dcm")
    report = Report(
        path=folder / "sr.dcm",
        seg_path=folder / "seg.dcm",
        found=found,
        label_map=labels,
        sources=sources,
        context=context,
    )
    report.check()
    return report
