"""STOW-RS to servers that answer, one way or another."""

from __future__ import annotations

import base64
import traceback
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from node.cases import DeliveryReceipt, EncodedObject, Transport
from node.deliver import stow_client
from node.door_errors import SecretAbsentError
from node.errors import PeerRefusedError, PeerUnavailableError
from node.peers import Destination
from tests.scripted_peers import (
    HttpPeer,
    Reply,
    failed_answer,
    json_reply,
    small_object,
    stored_answer,
    stow_destination,
)

SECRET = "open sesame"


def sent(seg: EncodedObject, file: Path, destination: Destination) -> DeliveryReceipt:
    return stow_client.send(seg, file, destination, calling_ae_title="NODE", attempt=2)


@pytest.fixture
def seg_and_file(tmp_path: Path) -> tuple[EncodedObject, Path]:
    return small_object(tmp_path)


@pytest.mark.parametrize("transfer_syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("side", [16, 1200], ids=["small", "above a megabyte"])
def test_the_file_travels_byte_for_byte_with_its_length(
    tmp_path: Path, transfer_syntax: UID, side: int
) -> None:
    seg, file = small_object(tmp_path, side=side, transfer_syntax=transfer_syntax)
    with HttpPeer(json_reply(stored_answer(seg.sop_instance_uid))) as peer:
        sent(seg, file, stow_destination(peer.url))
    (request,) = peer.requests
    assert request.path == "/dicom-web/studies"
    assert request.body.count(b"\r\n\r\n" + file.read_bytes() + b"\r\n--") == 1
    assert request.headers["Host"] == urlsplit(peer.url).netloc
    assert request.headers["Accept"] == "application/dicom+json"


def test_the_receipt_says_what_went_where(seg_and_file: tuple[EncodedObject, Path]) -> None:
    seg, file = seg_and_file
    with HttpPeer(json_reply(stored_answer(seg.sop_instance_uid))) as peer:
        receipt = sent(seg, file, stow_destination(f"{peer.url}/"))
    assert (receipt.sop_instance_uid, receipt.status_code) == (seg.sop_instance_uid, "0x0000")
    assert (receipt.transport, receipt.attempt) == (Transport.STOW, 2)


def test_a_media_type_with_parameters_is_understood(
    seg_and_file: tuple[EncodedObject, Path],
) -> None:
    seg, file = seg_and_file
    reply = json_reply(
        stored_answer(seg.sop_instance_uid), media_type="Application/DICOM+JSON; charset=utf-8"
    )
    with HttpPeer(reply) as peer:
        assert sent(seg, file, stow_destination(peer.url)).status_code == "0x0000"


def test_an_answer_in_xml_is_understood(seg_and_file: tuple[EncodedObject, Path]) -> None:
    seg, file = seg_and_file
    body = (
        '<NativeDicomModel><DicomAttribute tag="00081199" vr="SQ" keyword="ReferencedSOPSequence">'
        '<Item number="1"><DicomAttribute tag="00081155" vr="UI"'
        f' keyword="ReferencedSOPInstanceUID"><Value number="1">{seg.sop_instance_uid}</Value>'
        "</DicomAttribute></Item></DicomAttribute></NativeDicomModel>"
    )
    reply = Reply(body=body.encode(), headers={"Content-Type": "application/dicom+xml"})
    with HttpPeer(reply) as peer:
        assert sent(seg, file, stow_destination(peer.url)).status_code == "0x0000"


def test_a_warning_counts_as_stored_and_is_recorded(
    seg_and_file: tuple[EncodedObject, Path],
) -> None:
    seg, file = seg_and_file
    answer = stored_answer(seg.sop_instance_uid, warning_reason=0xB000)
    with HttpPeer(json_reply(answer, status=202)) as peer:
        assert sent(seg, file, stow_destination(peer.url)).status_code == "0xB000"


@pytest.mark.parametrize("answer", [Dataset(), stored_answer(generate_uid())], ids=["none", "else"])
def test_success_without_our_instance_is_a_refusal(
    seg_and_file: tuple[EncodedObject, Path], answer: Dataset
) -> None:
    seg, file = seg_and_file
    with (
        HttpPeer(json_reply(answer)) as peer,
        pytest.raises(PeerRefusedError, match="not in the list of stored instances"),
    ):
        sent(seg, file, stow_destination(peer.url))


def test_an_empty_list_of_stored_instances_is_a_refusal(
    seg_and_file: tuple[EncodedObject, Path],
) -> None:
    seg, file = seg_and_file
    body = b'{"00081190":{"vr":"UR"},"00081199":{"vr":"SQ","Value":[]}}'
    reply = Reply(body=body, headers={"Content-Type": "application/dicom+json"})
    with HttpPeer(reply) as peer, pytest.raises(PeerRefusedError):
        sent(seg, file, stow_destination(peer.url))


def test_a_failure_reason_is_a_refusal(seg_and_file: tuple[EncodedObject, Path]) -> None:
    seg, file = seg_and_file
    reply = json_reply(failed_answer(seg.sop_instance_uid, 0xC122), status=202)
    with HttpPeer(reply) as peer, pytest.raises(PeerRefusedError) as caught:
        sent(seg, file, stow_destination(peer.url))
    assert caught.value.evidence == {"destination": "pacs", "status": "0xC122"}


def test_lack_of_resources_is_no_refusal(seg_and_file: tuple[EncodedObject, Path]) -> None:
    seg, file = seg_and_file
    reply = json_reply(failed_answer(seg.sop_instance_uid, 0xA700))
    with HttpPeer(reply) as peer, pytest.raises(PeerUnavailableError, match="0xA700"):
        sent(seg, file, stow_destination(peer.url))


def test_an_instance_that_is_there_already_counts_as_stored(
    seg_and_file: tuple[EncodedObject, Path],
) -> None:
    seg, file = seg_and_file
    with HttpPeer(json_reply(failed_answer(seg.sop_instance_uid, 0x0111))) as peer:
        assert sent(seg, file, stow_destination(peer.url)).status_code == "0x0111"


def test_the_reason_in_an_http_conflict_is_read(
    seg_and_file: tuple[EncodedObject, Path],
) -> None:
    seg, file = seg_and_file
    uid = seg.sop_instance_uid

    def answered(answer: Dataset) -> DeliveryReceipt:
        with HttpPeer(json_reply(answer, status=409)) as peer:
            return sent(seg, file, stow_destination(peer.url))

    assert answered(failed_answer(uid, 0x0111)).status_code == "0x0111"
    with pytest.raises(PeerUnavailableError, match="0xA700"):
        answered(failed_answer(uid, 0xA700))
    with pytest.raises(PeerRefusedError, match="0xC122"):
        answered(failed_answer(uid, 0xC122))
    with pytest.raises(PeerRefusedError, match="HTTP 409"):
        answered(stored_answer(uid))
    both = failed_answer(uid, 0xC122)
    both.ReferencedSOPSequence = stored_answer(uid).ReferencedSOPSequence
    with pytest.raises(PeerRefusedError, match="0xC122"):
        answered(both)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 415])
def test_an_http_refusal_is_a_refusal(
    seg_and_file: tuple[EncodedObject, Path], status: int
) -> None:
    seg, file = seg_and_file
    with HttpPeer(Reply(status=status)) as peer, pytest.raises(PeerRefusedError) as caught:
        sent(seg, file, stow_destination(peer.url))
    assert caught.value.evidence == {"destination": "pacs", "status": f"HTTP {status}"}


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_http_failure_is_no_refusal_and_is_asked_once(
    seg_and_file: tuple[EncodedObject, Path], status: int
) -> None:
    seg, file = seg_and_file
    with HttpPeer(Reply(status=status)) as peer, pytest.raises(PeerUnavailableError) as caught:
        sent(seg, file, stow_destination(peer.url))
    assert caught.value.evidence == {"destination": "pacs", "reason": f"HTTP {status}"}
    assert len(peer.requests) == 1


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("application/dicom+json", b"{"),
        ("application/dicom+json", b"\xff\xfe\x00"),
        ("application/dicom+json", b'{"00081199": {"vr": "SQ", "Value": [7]}}'),
        ("application/dicom+json", b'{"00081199": {"vr": "LO", "Value": ["x"]}}'),
        ("application/dicom+json", b'{"00081199": 5}'),
        ("application/dicom+json", b'["a"]'),
        ("application/dicom+xml", b"<NativeDicomModel>"),
        ("application/dicom+xml", b"<a><b/></a>"),
        ("text/html", b"<html>Welcome</html>"),
        ("", b"stored, trust me"),
    ],
)
def test_an_unreadable_answer_is_never_taken_for_success(
    seg_and_file: tuple[EncodedObject, Path], media_type: str, body: bytes
) -> None:
    seg, file = seg_and_file
    headers = {"Content-Type": media_type} if media_type else {}
    with (
        HttpPeer(Reply(body=body, headers=headers)) as peer,
        pytest.raises(PeerRefusedError, match=r"unreadable answer|not in the list"),
    ):
        sent(seg, file, stow_destination(peer.url))


def test_basic_credentials_are_sent(seg_and_file: tuple[EncodedObject, Path]) -> None:
    seg, file = seg_and_file
    with HttpPeer(json_reply(stored_answer(seg.sop_instance_uid))) as peer:
        sent(seg, file, stow_destination(peer.url, username="node", password="höchst geheim"))
    scheme, encoded = peer.requests[0].headers["Authorization"].split()
    assert scheme == "Basic"
    assert base64.b64decode(encoded).decode() == "node:höchst geheim"


def test_a_secret_of_a_file_is_read_anew(
    tmp_path: Path, seg_and_file: tuple[EncodedObject, Path]
) -> None:
    seg, file = seg_and_file
    held = tmp_path / "token"
    with HttpPeer(json_reply(stored_answer(seg.sop_instance_uid))) as peer:
        destination = stow_destination(peer.url, bearer_token_file=str(held))
        for token in ("first", "second"):
            held.write_text(f"{token}\n")
            sent(seg, file, destination)
        held.write_text("\n")
        with pytest.raises(SecretAbsentError):
            sent(seg, file, destination)
    shown = [one.headers["Authorization"] for one in peer.requests]
    assert shown == ["Bearer first", "Bearer second"]


def test_a_bearer_token_is_sent(seg_and_file: tuple[EncodedObject, Path]) -> None:
    seg, file = seg_and_file
    with HttpPeer(json_reply(stored_answer(seg.sop_instance_uid))) as peer:
        sent(seg, file, stow_destination(peer.url, bearer_token="abc.def"))
    assert peer.requests[0].headers["Authorization"] == "Bearer abc.def"


def test_nothing_follows_a_redirect(seg_and_file: tuple[EncodedObject, Path]) -> None:
    seg, file = seg_and_file
    with HttpPeer(json_reply(stored_answer(seg.sop_instance_uid))) as elsewhere:
        reply = Reply(status=307, headers={"Location": f"{elsewhere.url}/studies"})
        with HttpPeer(reply) as peer, pytest.raises(PeerRefusedError, match="HTTP 307"):
            sent(seg, file, stow_destination(peer.url, username="node", password=SECRET))
    assert elsewhere.requests == []


@pytest.mark.parametrize("status", [401, 500])
def test_a_traceback_shows_no_secret(seg_and_file: tuple[EncodedObject, Path], status: int) -> None:
    seg, file = seg_and_file
    with (
        HttpPeer(Reply(status=status)) as peer,
        pytest.raises((PeerRefusedError, PeerUnavailableError)) as caught,
    ):
        sent(seg, file, stow_destination(peer.url, username="node", password=SECRET))
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown
    assert base64.b64encode(f"node:{SECRET}".encode()).decode() not in shown


def test_a_query_that_answers_no_json_fails() -> None:
    reply = Reply(body=b"<html/>", headers={"Content-Type": "text/html"})
    with HttpPeer(reply) as peer, pytest.raises(PeerRefusedError, match="unreadable answer"):
        stow_client.echo(stow_destination(peer.url), calling_ae_title="NODE")


def test_a_query_that_finds_nothing_is_answered() -> None:
    with HttpPeer(Reply(status=204)) as peer:
        stow_client.echo(stow_destination(peer.url), calling_ae_title="NODE")
    assert len(peer.requests) == 1
