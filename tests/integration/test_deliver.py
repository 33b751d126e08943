"""Results go to a real Orthanc by both ways, and are there afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pydicom
import pytest
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from converters.structure_set import Structure, build_structure_set
from node.cases import EncodedObject, Transport
from node.deliver import routes
from node.demo.archive import OrthancArchive, choose_archive
from node.errors import PeerRefusedError, PeerUnavailableError
from node.peers import Destination
from tests import seg_examples, sr_examples
from tests.scripted_peers import (
    data_set_bytes,
    described,
    dimse_destination,
    small_object,
    stow_destination,
)

pytestmark = pytest.mark.integration
BY_NETWORK = (Transport.DIMSE, Transport.STOW)


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancArchive]:
    archive = choose_archive(tmp_path_factory.mktemp("orthanc"))
    if not isinstance(archive, OrthancArchive) or not archive.has_dicom_web:
        required = "orthanc" in os.environ.get("NEUROSEG_TEST_REQUIRE", "").split(",")
        (pytest.fail if required else pytest.skip)("Orthanc with DICOMweb is not installed")
    archive.start()
    yield archive
    archive.stop()


def destination_of(orthanc: OrthancArchive, transport: Transport) -> Destination:
    if transport is Transport.DIMSE:
        return dimse_destination(orthanc.port, timeout_s=20.0)
    return stow_destination(f"{orthanc.http_url}/dicom-web", timeout_s=20.0)


def found_by_qido(orthanc: OrthancArchive, seg: EncodedObject) -> list[str]:
    """Return the SOP Instance UIDs that the study's series holds."""
    address = f"{orthanc.http_url}/dicom-web/instances"
    query = {"StudyInstanceUID": seg.study_instance_uid, "Modality": "MR"}
    answer = httpx.get(address, params=query, trust_env=False).raise_for_status()
    return [one["00080018"]["Value"][0] for one in answer.json()]


@pytest.mark.parametrize("transport", BY_NETWORK)
@pytest.mark.parametrize(
    "transfer_syntax",
    [ExplicitVRLittleEndian, ImplicitVRLittleEndian],
    ids=lambda uid: str(uid.keyword),
)
@pytest.mark.parametrize("side", [64, 1024])
def test_an_object_arrives_byte_for_byte_and_is_found(
    orthanc: OrthancArchive,
    tmp_path: Path,
    transport: Transport,
    transfer_syntax: UID,
    side: int,
) -> None:
    seg, file = small_object(tmp_path, side=side, transfer_syntax=transfer_syntax)
    destination = destination_of(orthanc, transport)
    routes.echo(destination, calling_ae_title="NEUROSEG")
    receipt = routes.send(seg, file, destination, calling_ae_title="NEUROSEG", attempt=1)
    assert (receipt.transport, receipt.status_code) == (transport, "0x0000")
    assert found_by_qido(orthanc, seg) == [seg.sop_instance_uid]
    (held,) = orthanc.find(seg.study_instance_uid, "MR")
    assert data_set_bytes(held.path) == data_set_bytes(file)


@pytest.mark.parametrize("transport", BY_NETWORK)
def test_a_report_arrives_byte_for_byte(
    orthanc: OrthancArchive, tmp_path: Path, transport: Transport
) -> None:
    sources = seg_examples.read_sources(tmp_path / "series", sr_examples.SHAPE)
    file = sr_examples.write_report(tmp_path, sr_examples.two_lesions(sources), sources).path
    report = described(pydicom.dcmread(file), file)
    destination = destination_of(orthanc, transport)
    receipt = routes.send(report, file, destination, calling_ae_title="NEUROSEG", attempt=1)
    assert receipt.status_code == "0x0000"
    (held,) = orthanc.find(report.study_instance_uid, "SR")
    assert data_set_bytes(held.path) == data_set_bytes(file)


@pytest.mark.parametrize("transport", BY_NETWORK)
def test_contours_arrive_byte_for_byte(
    orthanc: OrthancArchive, tmp_path: Path, transport: Transport
) -> None:
    sources = seg_examples.read_sources(tmp_path / "series", seg_examples.EVEN)
    labels = seg_examples.label_map(seg_examples.some_labels(seg_examples.EVEN))
    structure = Structure(
        name="Edema", numbers=(1,), type_code=seg_examples.EDEMA, color_rgb=(255, 217, 61)
    )
    built = build_structure_set(labels, [structure], sources, seg_examples.IDENTITY)
    file = seg_examples.written(built, tmp_path / "rtstruct.dcm")
    found = described(built, file)
    destination = destination_of(orthanc, transport)
    receipt = routes.send(found, file, destination, calling_ae_title="NEUROSEG", attempt=1)
    assert receipt.status_code == "0x0000"
    (held,) = orthanc.find(found.study_instance_uid, "RTSTRUCT")
    assert data_set_bytes(held.path) == data_set_bytes(file)


def test_the_same_object_by_every_way_twice_is_one_object(
    orthanc: OrthancArchive, tmp_path: Path
) -> None:
    seg, file = small_object(tmp_path)
    for attempt, transport in enumerate([*BY_NETWORK, *BY_NETWORK], start=1):
        destination = destination_of(orthanc, transport)
        routes.send(seg, file, destination, calling_ae_title="NEUROSEG", attempt=attempt)
    assert found_by_qido(orthanc, seg) == [seg.sop_instance_uid]
    assert len(orthanc.find(seg.study_instance_uid, "MR")) == 1


def test_what_orthanc_cannot_read_is_no_success_although_it_answers_200(
    orthanc: OrthancArchive, tmp_path: Path
) -> None:
    seg, file = small_object(tmp_path)
    preamble_and_meta = file.read_bytes().removesuffix(data_set_bytes(file))
    file.write_bytes(preamble_and_meta)
    destination = destination_of(orthanc, Transport.STOW)
    with pytest.raises(PeerRefusedError):
        routes.send(seg, file, destination, calling_ae_title="NEUROSEG", attempt=1)
    assert found_by_qido(orthanc, seg) == []


def test_an_orthanc_that_went_away_is_unavailable_and_gets_the_object_when_it_is_back(
    orthanc: OrthancArchive, tmp_path: Path
) -> None:
    seg, file = small_object(tmp_path)
    orthanc.stop()
    try:
        for transport in Transport:
            destination = destination_of(orthanc, transport)
            with pytest.raises(PeerUnavailableError):
                routes.send(seg, file, destination, calling_ae_title="NEUROSEG", attempt=1)
    finally:
        orthanc.start()
    for transport in Transport:
        destination = destination_of(orthanc, transport)
        routes.send(seg, file, destination, calling_ae_title="NEUROSEG", attempt=2)
    assert found_by_qido(orthanc, seg) == [seg.sop_instance_uid]
