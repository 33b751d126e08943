"""Studies are pulled from a real archive: what is needed, once, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from tests import peers, phantoms
from tests.peers import Orthanc
from tests.phantoms import WrittenStudy

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory: pytest.TempPathFactory, small_study: WrittenStudy) -> list[Path]:
    """Return a fifth series of the study, which no role needs."""
    series = generate_uid()

    def _edit(_: int, ds: Dataset) -> None:
        ds.SeriesInstanceUID, ds.SOPInstanceUID = series, generate_uid()
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.SeriesDescription, ds.ProtocolName = "ep2d_diff_3scan_trace_ADC", "ep2d_diff"
        ds.ImageType = ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]

    folder = tmp_path_factory.mktemp("diffusion")
    return phantoms.edited(small_study.files.paths["t2"], folder, _edit)


@pytest.fixture(scope="module")
def archive(
    tmp_path_factory: pytest.TempPathFactory, small_study: WrittenStudy, diffusion: list[Path]
) -> Iterator[Orthanc]:
    """Run an archive that holds the study of five series."""
    peers.require("orthanc")
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as orthanc:
        orthanc.upload([*small_study.interleaved, *diffusion])
        yield orthanc
