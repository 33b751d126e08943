"""The objects of one case, against highdicom alone on the same label map in the same rounds.

``python -m tests.bench encode``. Ours is what the encode stage does for a T1gd
of 155 slices of 240 x 240 and three inputs beside it: read the headers, measure, write SEG and SR,
read both back and prove them. highdicom is given the same headers, already read, and only builds
and saves the SEG. Medians over the rounds, of wall and CPU seconds, and their ratio.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import highdicom as hd
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from converters import series
from converters.mr_writer import write_series
from converters.seg import concept
from converters.volume import Grid, LabelMap, Volume
from inference import manifest
from node import measuring
from node.cases import AssembledCase, AssembledSeries, ClosedBy, ReceivedInstance
from node.encode import CaseEncoder
from node.spool import Spool
from tests.bench.comparison import Comparison

MODEL: Final = manifest.load(Path(__file__).parents[2] / "models" / "demo-glioma")
_SHAPE: Final = (155, 240, 240)
_ROLES: Final = ("t1gd", "flair", "t1", "t2")


def compare(rounds: int) -> list[Comparison]:
    """Write the series and measure in turns."""
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder) / "spool")
        grid = Grid(shape=_SHAPE, index_to_lps_mm=np.eye(4), frame_of_reference_uid="2.25.1")
        case = _case(grid, Path(folder), spool)
        paths = [spool.instance_path(one.path) for one in case.series[0].instances]
        stack = series.stack(paths, "", limits=None)
        headers = stack.headers
        label_map = LabelMap(
            labels=_labels(), grid=stack.grid, segments=MODEL.segments, model_id=MODEL.model_id
        )
        ours, alone = [], []
        for _ in range(rounds + 1):
            ours.append(_timed(lambda: _encode(case, label_map, spool)))
            alone.append(_timed(lambda: _highdicom(label_map, headers, Path(folder))))
    del ours[0], alone[0]  # which load tables
    cpu_s = [statistics.median(one[1] for one in many) for many in (ours, alone)]
    return [
        Comparison(
            name="SEG and report of 240 x 240 x 155",
            unit="s",
            peer="highdicom, SEG alone",
            ours=[one[0] for one in ours],
            theirs=[one[0] for one in alone],
            note=f"CPU s {cpu_s[0]:.2f}, peer {cpu_s[1]:.2f}; target 1 s",
        )
    ]


def _labels() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return three shells around a point: 65 slices of 155 hold some."""
    centre = np.array([80, 110, 140])[:, None, None, None]
    distance = np.linalg.norm(np.indices(_SHAPE) - centre, axis=0)
    return np.select([distance < 12, distance < 20, distance < 33], [2, 3, 1], 0).astype(np.uint8)


def _case(grid: Grid, folder: Path, spool: Spool) -> AssembledCase:
    rng = np.random.default_rng(0)
    many: list[AssembledSeries] = []
    for role in _ROLES:
        noise = rng.integers(0, 500, _SHAPE).astype(np.float32)
        volume = Volume(intensities=noise, grid=grid, role=role)
        files = write_series(volume, folder / role, series_number=2 + len(many))
        instances = tuple(_kept(path, spool) for path in files)
        uid = instances[0].series_instance_uid
        many.append(AssembledSeries(series_instance_uid=uid, role=role, instances=instances))
    return AssembledCase(
        case_id="0" * 32,
        study_instance_uid=many[0].instances[0].study_instance_uid,
        series=tuple(many),
        reference_role=_ROLES[0],
        closed_by=ClosedBy.COMPLETE,
    )


def _kept(path: Path, spool: Spool) -> ReceivedInstance:
    ds = pydicom.dcmread(path, stop_before_pixels=True)
    study_uid, uid = str(ds.StudyInstanceUID), str(ds.SOPInstanceUID)
    name = spool.instance_name(study_instance_uid=study_uid, sop_instance_uid=uid, sha256="0" * 64)
    part = spool.new_part()
    path.rename(part)
    spool.keep_instance(part, name)
    return ReceivedInstance(
        study_instance_uid=study_uid,
        series_instance_uid=str(ds.SeriesInstanceUID),
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=uid,
        transfer_syntax_uid=str(ds.file_meta.TransferSyntaxUID),
        calling_ae_title="BENCH",
        path=name,
        byte_count=0,
        sha256="",
        received_at=datetime(2025, 3, 1, tzinfo=UTC),
    )


def _encode(case: AssembledCase, label_map: LabelMap, spool: Spool) -> None:
    encoder = CaseEncoder(case, label_map, MODEL, spool)
    encoder.report(measuring.of(label_map, MODEL), encoder.seg())


def _highdicom(label_map: LabelMap, headers: Sequence[Dataset], folder: Path) -> None:
    segments = [
        hd.seg.SegmentDescription(
            segment_number=one.number,
            segment_label=one.label,
            segmented_property_category=concept(one.category),
            segmented_property_type=concept(one.type_code),
            algorithm_type="AUTOMATIC",
            algorithm_identification=hd.AlgorithmIdentificationSequence(
                name="bench", version="1", family=codes.DCM.ArtificialIntelligence
            ),
        )
        for one in label_map.segments
    ]
    seg = hd.seg.Segmentation(
        source_images=list(headers),
        pixel_array=label_map.labels,
        segmentation_type="BINARY",
        segment_descriptions=segments,
        series_instance_uid="2.25.11",
        series_number=1,
        sop_instance_uid="2.25.12",
        instance_number=1,
        manufacturer="bench",
        manufacturer_model_name="bench",
        software_versions="1",
        device_serial_number="1",
    )
    seg.save_as(folder / "alone.dcm", enforce_file_format=True)


def _timed(work: Callable[[], None]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu
