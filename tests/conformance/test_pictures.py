"""What others make of our pictures: a validator, and an archive that renders them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import SecondaryCaptureImageStorage

from converters import series
from converters.secondary_capture import Picture, build_capture, check_capture
from converters.seg import build_segmentation
from converters.summary_cover import Row, Words
from converters.summary_pictures import draw_pages
from converters.volume import LabelMap
from inference import manifest
from node.requesting import RequestingEntity
from tests import peers, seg_examples
from tests.peers import Orthanc
from tests.phantoms import WrittenStudy

SEGMENTS = manifest.load(Path(__file__).parents[2] / "models" / "demo-glioma").segments
IDENTITY = replace(
    seg_examples.IDENTITY,
    tracking_uids={one.number: f"2.25.{2000 + one.number}" for one in SEGMENTS},
)
WORDS = Words(
    model="Some model, some-model@1.2.3",
    is_demonstration=True,
    facts=(("Model", "Some model"), ("Date of the study", "2025-03-01")),
    columns=("Volume",),
    rows=(Row(label="Oedema", values=("12.0 mL",), color_rgb=(255, 217, 61)),),
    notes=("There is no T2; the model was run without it.",),
)


@pytest.fixture(scope="module")
def captured(
    small_study: WrittenStudy, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[Path, Picture]]:
    """Return the files of a study's summary, with what is in them."""
    folder = tmp_path_factory.mktemp("captured")
    stack = series.stack(small_study.files.paths["t1gd"], "", limits=None)
    labels = LabelMap(
        labels=small_study.study.truth["t1gd"], grid=stack.grid, segments=SEGMENTS, model_id="a@1"
    )
    seg = build_segmentation(labels, stack.headers, IDENTITY, stack.frames)
    volumes = [small_study.study.volumes[role] for role in ("t1gd", "flair")]
    found = []
    for number, page in enumerate(draw_pages(volumes, labels, WORDS), start=1):
        picture = Picture(pixels=page.pixels, title=page.title, number=number)
        identity = replace(
            IDENTITY,
            sop_instance_uid=f"2.25.{3000 + number}",
            series_instance_uid="2.25.3000",
            series_description="AI summary pictures - research use only",
        )
        capture = build_capture(picture, seg, stack.headers[0], identity)
        path = seg_examples.written(capture, folder / f"{page.name}.dcm")
        check_capture(path, picture, stack.headers[0])
        found.append((path, picture))
    return found


def test_the_validator_finds_nothing(captured: list[tuple[Path, Picture]]) -> None:
    peers.require("dciodvfy")
    for path, _ in captured:
        assert peers.dciodvfy(path) == []


def test_the_validator_would_have_seen_a_defect(
    captured: list[tuple[Path, Picture]], tmp_path: Path
) -> None:
    peers.require("dciodvfy")
    ds = pydicom.dcmread(captured[0][0])
    del ds.ConversionType
    ds.save_as(tmp_path / "broken.dcm")
    assert any(line.startswith("Error") for line in peers.dciodvfy(tmp_path / "broken.dcm"))


def test_an_archive_stores_and_shows_the_pictures_pixel_by_pixel(
    captured: list[tuple[Path, Picture]], orthanc: Orthanc
) -> None:
    entity = RequestingEntity("TEST")
    entity.add_requested_context(SecondaryCaptureImageStorage)
    association = entity.associate("127.0.0.1", orthanc.dicom_port, ae_title=orthanc.ae_title)
    assert association.is_established
    for path, _ in captured:
        assert association.send_c_store(path).Status == 0
    association.release()
    study = str(pydicom.dcmread(captured[0][0]).StudyInstanceUID)
    assert orthanc.find_series(study, "OT") == ["2.25.3000"]
    for path, picture in captured:
        uid = pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID
        answer = httpx.get(
            f"{orthanc.dicomweb_url}/studies/{study}/series/2.25.3000/instances/{uid}/rendered",
            headers={"Accept": "image/png"},
            timeout=60.0,
            trust_env=False,
        )
        assert answer.status_code == 200
        rendered = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"))
        assert np.array_equal(rendered, picture.pixels)
