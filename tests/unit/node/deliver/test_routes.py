"""The transport of a destination decides how it is reached."""

from __future__ import annotations

from pathlib import Path

from pydicom.dataset import Dataset

from node.cases import Transport
from node.deliver import routes
from node.demo.archive import DemoArchive
from tests.scripted_peers import (
    HttpPeer,
    Reply,
    dimse_destination,
    json_reply,
    small_object,
    stored_answer,
    stow_destination,
)


def test_a_dimse_destination_gets_a_c_store(archive: DemoArchive, tmp_path: Path) -> None:
    seg, file = small_object(tmp_path)
    destination = dimse_destination(archive.port)
    routes.echo(destination, calling_ae_title="NODE")
    receipt = routes.send(seg, file, destination, calling_ae_title="NODE", attempt=1)
    assert receipt.transport is Transport.DIMSE
    assert archive.arrivals == {seg.sop_instance_uid: 1}


def test_a_stow_destination_gets_a_post(tmp_path: Path) -> None:
    seg, file = small_object(tmp_path)
    with HttpPeer(json_reply(stored_answer(seg.sop_instance_uid))) as peer:
        destination = stow_destination(peer.url)
        receipt = routes.send(seg, file, destination, calling_ae_title="NODE", attempt=1)
    assert receipt.transport is Transport.STOW
    assert [request.method for request in peer.requests] == ["POST"]


def test_a_stow_destination_is_tried_by_a_query() -> None:
    with HttpPeer(Reply(body=f"[{Dataset().to_json()}]".encode())) as peer:
        routes.echo(stow_destination(peer.url), calling_ae_title="NODE")
    (request,) = peer.requests
    assert (request.method, request.path) == ("GET", "/dicom-web/studies?limit=1")
